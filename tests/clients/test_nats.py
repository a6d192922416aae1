"""nats-py: an asyncio client that is greeted, pinged and pushed to, and that connects again by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest

from pytest_sockserver import Connection, StreamTestServer

pytestmark = pytest.mark.asyncio

INFO = b'INFO {"server_id":"x","version":"2.10.0","proto":1,"max_payload":1048576,"headers":true}\r\n'


def recv_published(conn: Connection) -> tuple[bytes, bytes]:
    """Answer pings until something is published; return its subject and its data."""
    while (words := conn.recv_line().split())[0] != b"PUB":
        if words[0] == b"PING":
            conn.send(b"PONG\r\n")
    return words[1], conn.recv_exactly(int(words[-1]) + 2)[:-2]


@asynccontextmanager
async def connected(server: StreamTestServer, **options: object) -> AsyncIterator[nats.NATS]:
    client = await nats.connect(server.url("nats"), **options)
    try:
        yield client
    finally:
        await client.close()


async def test_a_message_is_pushed_to_its_subscriber(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def pass_it_on(conn: Connection) -> None:
        conn.send(INFO)
        subject, data = recv_published(conn)
        conn.send(b"MSG %b 1 %d\r\n%b\r\n" % (subject, len(data), data))
        recv_published(conn)

    async with connected(tcp_server) as client:
        subscription = await client.subscribe("a.b")
        await client.publish("a.b", b"he\r\ny")

        message = await subscription.next_msg(timeout=5)

    assert message.data == b"he\r\ny"
    assert b"SUB a.b  1\r\n" in tcp_server.requests


async def test_a_ping_that_the_test_sends_is_answered(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def answer_pings(conn: Connection) -> None:
        conn.send(INFO)
        recv_published(conn)

    async with connected(tcp_server):
        tcp_server.connections[0].send(b"PING\r\n")

        await tcp_server.aio.wait_for(b"PONG\r\n")


async def test_after_a_reset_the_client_connects_and_subscribes_again(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def reset_the_first_that_publishes(conn: Connection) -> None:
        conn.send(INFO)
        recv_published(conn)
        conn.reset()

    async def expected(error: Exception) -> None:
        """In place of the one that logs."""

    async with connected(tcp_server, reconnect_time_wait=0.01, error_cb=expected) as client:
        await client.subscribe("q")
        await client.publish("z", b"1")

        again = await tcp_server.aio.wait_for(b"SUB q  1\r\n", count=2)

    assert again.connection is tcp_server.connections[1]
    assert tcp_server.connections[0].closed_by == "server"
