"""The README's example: a real Redis client, and a server that fails as a real one would not on demand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_sockserver import Connection, StreamTestServer

GET_K = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"


@pytest.fixture
def client(tcp_server: StreamTestServer) -> Iterator[redis.Redis]:
    """A client that says nothing but what it is asked to, and tries a second time."""
    retry = Retry(NoBackoff(), retries=1)
    with redis.Redis(*tcp_server.address, protocol=2, driver_info=None, retry=retry) as client:
        yield client


def test_client_asks_again_after_a_reset(tcp_server: StreamTestServer, client: redis.Redis) -> None:
    @tcp_server.handler
    def reset_the_first_connection(conn: Connection) -> None:
        while True:
            conn.expect(GET_K)
            if conn.index == 0:
                conn.reset()
            conn.send(b"$5\r\nvalue\r\n")

    assert client.get("k") == b"value"
    assert tcp_server.requests == [GET_K, GET_K]


def test_client_does_not_take_half_a_reply_for_a_value(tcp_server: StreamTestServer, client: redis.Redis) -> None:
    @tcp_server.handler
    def stop_within_the_value(conn: Connection) -> None:
        conn.expect(GET_K)
        conn.send(b"$5\r\nva")

    with pytest.raises(redis.ConnectionError):
        client.get("k")
    assert len(tcp_server.connections) == 2
