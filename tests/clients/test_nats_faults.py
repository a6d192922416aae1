"""nats-py while the server fails: it goes through its servers again and again, as often as it is told."""

from __future__ import annotations

import asyncio
import re

import nats
import nats.errors
import pytest

from pytest_sockserver import CONNECT, Close, Cut, Reset, Stall, StreamTestServer, lines
from pytest_sockserver.faults import Replace

INFO = b'INFO {"server_id":"x","version":"2.0.0","max_payload":1048576}\r\n'

FAULTS = {
    "reset": [Reset()],
    "silence": [Stall()],
    "an INFO that breaks off": [Cut(INFO, 20), Close()],
    "an INFO that is no JSON": [Replace(INFO, b"{", b"[")],
    "another protocol": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
}


async def no_report(error: Exception) -> None:
    """Errors on the way are printed, unless somebody takes them."""


async def connect(server: StreamTestServer, attempts: int) -> None:
    client = await nats.connect(
        server.url("nats"),
        connect_timeout=0.2,
        reconnect_time_wait=0.001,
        max_reconnect_attempts=attempts,
        error_cb=no_report,
    )
    await client.close()


@pytest.fixture
def server(tcp_server: StreamTestServer) -> StreamTestServer:
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(re.compile(rb"CONNECT .*\r\n")).reply()
    tcp_server.on(b"PING\r\n").reply(b"PONG\r\n")
    return tcp_server


@pytest.mark.parametrize("parts", FAULTS.values(), ids=FAULTS)
def test_a_first_connection_that_fails_is_tried_again(server: StreamTestServer, parts: list[object]) -> None:
    server.on(CONNECT).reply(*parts, uses=1).then(INFO)

    asyncio.run(connect(server, attempts=2))

    assert len(server.connections) == 2


@pytest.mark.parametrize("parts", FAULTS.values(), ids=FAULTS)
def test_connections_that_all_fail_are_given_up(server: StreamTestServer, parts: list[object]) -> None:
    server.on(CONNECT).reply(*parts)

    with pytest.raises(nats.errors.NoServersError):
        asyncio.run(connect(server, attempts=2))

    assert len(server.connections) == 3
