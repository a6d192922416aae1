"""NATS, with nats-py, an asyncio client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial

import nats
import pytest

from pytest_sockserver import CONNECT, Reset, SockServer, StreamTestServer, Text, UnexpectedRequest

from .relay import byte_by_byte

pytestmark = pytest.mark.asyncio

INFO = b'INFO {"server_id":"x","version":"2.10.0","proto":1,"max_payload":1048576,"headers":true}\r\n'


def protocol() -> Generator[int | bytes, bytes, None]:
    """Frames are lines; those that publish are followed by so many bytes as they say, and a line ending."""
    name, *words = (yield b"\r\n").split()
    if name in (b"PUB", b"HPUB"):
        yield int(words[-1]) + 2


@pytest.fixture
def nats_server(tcp_server: StreamTestServer) -> StreamTestServer:
    """A server that greets its clients and answers their pings."""
    tcp_server.framing = protocol
    tcp_server.on(CONNECT).reply(INFO)
    tcp_server.on(re.compile(rb"CONNECT .*\r\n")).reply()
    tcp_server.on(b"PING\r\n").reply(b"PONG\r\n")
    return tcp_server


async def nothing_to_report(error: Exception) -> None:
    """In place of the callback that logs."""


@asynccontextmanager
async def connected(server: StreamTestServer, **options: object) -> AsyncIterator[nats.NATS]:
    client = await nats.connect(server.url("nats"), **options)
    try:
        yield client
    finally:
        await client.close()


async def there_and_back(server: StreamTestServer) -> bytes:
    """Subscribe, publish, and return what comes."""
    async with connected(server) as client:
        subscription = await client.subscribe("temp")
        await client.publish("temp", b"21.5")
        return (await subscription.next_msg(timeout=5)).data


# The same story three times


async def test_rules_that_echo(nats_server: StreamTestServer) -> None:
    nats_server.on(re.compile(rb"SUB temp  (?P<sid>\d+)\r\n")).reply()
    nats_server.on(b"PUB temp  4\r\n21.5\r\n").reply(Text(r"MSG temp \g<sid> 4\r\n21.5\r\n"))

    assert await there_and_back(nats_server) == b"21.5"


async def test_a_script_beside_the_rules(nats_server: StreamTestServer) -> None:
    (
        nats_server.script()
        .send(INFO)
        .expect(re.compile(rb"SUB temp  (?P<sid>\d+)\r\n"))
        .expect(b"PUB temp  4\r\n21.5\r\n")
        .send(Text(r"MSG temp \g<sid> 4\r\n21.5\r\n"))
    )

    assert await there_and_back(nats_server) == b"21.5"


async def test_a_dialogue_that_echoes(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(r"""
        S: INFO {"server_id":"x","version":"2.10.0","proto":1,"max_payload":1048576}
        C~ CONNECT .*
        C~ SUB temp  (?P<sid>\d+)
        C: PUB temp  4
        C: 21.5
        S: MSG temp \g<sid> 4
        S: 21.5
        % rules
        C: PING
        S: PONG
        % end
    """)

    assert await there_and_back(tcp_server) == b"21.5"


# A push to a client that says nothing


async def test_the_test_pushes(nats_server: StreamTestServer) -> None:
    nats_server.on(re.compile(rb"SUB temp  (\d+)\r\n")).reply()

    async with connected(nats_server) as client:
        subscription = await client.subscribe("temp")
        subscribing = await nats_server.aio.wait_for(re.compile(rb"SUB temp  (\d+)\r\n"))
        subscribing.connection.send(b"MSG temp %b 4\r\n21.5\r\n" % subscribing.match[1])

        assert (await subscription.next_msg(timeout=5)).data == b"21.5"


async def test_the_test_opens_a_gate(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(r"""
        S: INFO {"server_id":"x","version":"2.10.0","proto":1,"max_payload":1048576}
        C~ CONNECT .*
        C: PING
        S: PONG
        C~ SUB temp  (?P<sid>\d+)
        S! wait warmer
        S: MSG temp \g<sid> 4
        S: 21.5
    """)

    async with connected(tcp_server) as client:
        subscription = await client.subscribe("temp")
        with pytest.raises(nats.errors.TimeoutError):
            await subscription.next_msg(timeout=0.01)
        tcp_server.open_gate("warmer")

        assert (await subscription.next_msg(timeout=5)).data == b"21.5"


async def test_the_test_is_the_server(tcp_server: StreamTestServer) -> None:
    connecting = asyncio.create_task(nats.connect(tcp_server.url("nats")))
    conn = await tcp_server.aio.accept()
    await conn.send(INFO)
    await conn.expect_line(re.compile(rb"CONNECT .*"))
    await conn.expect(b"PING\r\n")
    await conn.send(b"PONG\r\n")
    client = await connecting

    subscription = await client.subscribe("temp")
    subscribing = await conn.expect_line(re.compile(rb"SUB temp  (\d+)"))
    await conn.send(b"MSG temp %b 4\r\n21.5\r\n" % subscribing.match[1])

    assert (await subscription.next_msg(timeout=5)).data == b"21.5"
    await client.close()


async def test_a_ping_of_the_server_is_answered(nats_server: StreamTestServer) -> None:
    nats_server.on(b"PONG\r\n").reply()

    async with connected(nats_server):
        nats_server.connections[0].send(b"PING\r\n")

        await nats_server.aio.wait_for(b"PONG\r\n")


# After a reset


async def test_after_a_reset_the_client_subscribes_again(nats_server: StreamTestServer) -> None:
    nats_server.on(re.compile(rb"SUB temp  (\d+)\r\n"), times=2).reply()
    nats_server.on(b"PUB temp  4\r\n21.5\r\n").reply(Reset())

    async with connected(nats_server, reconnect_time_wait=0.01, error_cb=nothing_to_report) as client:
        await client.subscribe("temp")
        await client.publish("temp", b"21.5")

        again = await nats_server.aio.wait_for(re.compile(rb"SUB .*\r\n"), count=2)

    assert again.connection is nats_server.connections[1]


# When the client departs


async def test_a_subject_that_no_rule_takes(nats_server: StreamTestServer) -> None:
    nats_server.on(b"PUB temp  4\r\n21.5\r\n").reply()

    async with nats_server.aio.raises(UnexpectedRequest, match=r"no rule matches b'PUB tmp  4\\r\\n21.5\\r\\n'"):
        async with connected(nats_server, allow_reconnect=False, error_cb=nothing_to_report) as client:
            await client.publish("tmp", b"21.5")


# However the bytes arrive


@pytest.mark.parametrize("told", [test_rules_that_echo, test_a_script_beside_the_rules])
async def test_byte_by_byte(
    sockserver: SockServer,
    nats_server: StreamTestServer,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[StreamTestServer], Awaitable[None]],
) -> None:
    host, port = byte_by_byte(sockserver, nats_server)
    connect_to_relay = partial(nats.connect, f"nats://{host}:{port}")
    monkeypatch.setattr(nats, "connect", lambda url, **options: connect_to_relay(**options))
    await told(nats_server)


async def test_the_dialogue_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = byte_by_byte(sockserver, tcp_server)
    connect_to_relay = partial(nats.connect, f"nats://{host}:{port}")
    monkeypatch.setattr(nats, "connect", lambda url, **options: connect_to_relay(**options))
    await test_a_dialogue_that_echoes(tcp_server)
