"""redis-py while the network fails: what it survives, what it raises, and how many connections it takes for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_sockserver import (
    CONNECT,
    HANDSHAKE,
    Certificate,
    Close,
    Cut,
    Drip,
    Reset,
    SockServer,
    Stall,
    StreamTestServer,
    resp,
)
from pytest_sockserver.faults import Alert, Overwrite, Repeat, Replace, Split
from pytest_sockserver.sweeps import cuts, splits

from .faults import certificates

GET = b"*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n"
HELLO = b"$5\r\nhello\r\n"

# With these redis-py says nothing by itself on a new connection: what comes first is the command.
QUIET = {"protocol": 2, "driver_info": None}

Get = Callable[..., bytes]


def get(server: StreamTestServer, *, retries: int = 0, **options: object) -> bytes:
    with redis.Redis(*server.address, retry=Retry(NoBackoff(), retries), **QUIET, **options) as client:
        return client.get("greeting")


def get_with_asyncio(server: StreamTestServer, *, retries: int = 0, **options: object) -> bytes:
    async def get() -> bytes:
        host, port = server.address
        retry = AsyncRetry(NoBackoff(), retries)
        async with redis.asyncio.Redis(host=host, port=port, retry=retry, **QUIET, **options) as client:
            return await client.get("greeting")

    return asyncio.run(get())


both = pytest.mark.parametrize("get", [get, get_with_asyncio])


@pytest.fixture
def redis_server(tcp_server: StreamTestServer) -> StreamTestServer:
    tcp_server.framing = resp
    tcp_server.on(GET).reply(HELLO)
    return tcp_server


# Connecting


@both
def test_two_connections_that_are_reset_are_survived_by_two_retries(redis_server: StreamTestServer, get: Get) -> None:
    redis_server.on(CONNECT).reply(Reset(), uses=2).then()

    assert get(redis_server, retries=2) == b"hello"

    assert [conn.closed_by for conn in redis_server.connections[:2]] == ["server", "server"]
    assert len(redis_server.connections) == 3


@both
def test_three_commands_that_are_reset_are_too_many_for_two_retries(redis_server: StreamTestServer, get: Get) -> None:
    redis_server.on(GET, times=3).reply(Reset())

    with pytest.raises(redis.ConnectionError):
        get(redis_server, retries=2)

    assert len(redis_server.connections) == 3


@both
def test_a_reset_that_comes_before_the_command_may_cost_two_connections_each_time(
    redis_server: StreamTestServer, get: Get
) -> None:
    """Whoever takes a connection from the pool looks whether it is good, and connects anew once: no retry of ours."""
    redis_server.on(CONNECT).reply(Reset())

    with pytest.raises(redis.ConnectionError):
        get(redis_server, retries=2)

    assert 3 <= len(redis_server.connections) <= 6


@both
def test_a_server_that_refuses(redis_server: StreamTestServer, get: Get) -> None:
    with redis_server.refuse():
        with pytest.raises(redis.ConnectionError, match="^Error 111 connecting to 127.0.0.1:"):
            get(redis_server, retries=2)

    assert get(redis_server) == b"hello"
    assert len(redis_server.connections) == 1


@both
def test_a_black_hole_ends_in_the_timeout_of_connecting(redis_server: StreamTestServer, get: Get) -> None:
    with redis_server.blackhole():
        with pytest.raises(redis.TimeoutError, match="^Timeout connecting to server$"):
            get(redis_server, socket_connect_timeout=0.05)


def test_a_server_of_one_connection_has_none_for_the_second_client(redis_server: StreamTestServer) -> None:
    redis_server.limit_connections(1, b"-ERR max number of clients reached\r\n", Close())

    with redis.Redis(*redis_server.address, **QUIET) as client:
        client.get("greeting")
        with pytest.raises(redis.ConnectionError):
            get(redis_server)

    assert b"-ERR max number of clients reached\r\n" in [conn.sent for conn in redis_server.connections]


def test_a_pool_as_large_as_the_servers_limit_waits_instead_of_being_reset(redis_server: StreamTestServer) -> None:
    redis_server.limit_connections(2)

    pool = redis.BlockingConnectionPool.from_url(redis_server.url("redis"), max_connections=2, timeout=0.05, **QUIET)
    with redis.Redis.from_pool(pool) as client:
        taken = [pool.get_connection(), pool.get_connection()]
        with pytest.raises(redis.ConnectionError, match="^No connection available.$"):
            client.get("greeting")
        pool.release(taken.pop())
        assert client.get("greeting") == b"hello"
        pool.release(taken.pop())

    assert len(redis_server.connections) == 2


# A connection that stands


def test_a_restart_of_the_server_is_noticed_before_the_next_command(redis_server: StreamTestServer) -> None:
    with redis.Redis(*redis_server.address, retry=Retry(NoBackoff(), 0), **QUIET) as client:
        client.get("greeting")
        redis_server.restart()
        assert client.get("greeting") == b"hello"

    assert len(redis_server.connections) == 2


@pytest.mark.asyncio
async def test_a_restart_of_the_server_costs_the_asyncio_client_a_retry(redis_server: StreamTestServer) -> None:
    url, retry = redis_server.url("redis"), AsyncRetry(NoBackoff(), 1)
    async with redis.asyncio.Redis.from_url(url, retry=retry, **QUIET) as client:
        await client.get("greeting")
        redis_server.restart()
        assert await client.get("greeting") == b"hello"

    assert redis_server.requests == [GET, GET]
    assert len(redis_server.connections) == 2


def test_a_subscriber_that_is_reset_subscribes_again(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = resp
    subscribe = b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n"
    tcp_server.on(subscribe).reply(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")

    with redis.Redis(*tcp_server.address, retry=Retry(NoBackoff(), 1), **QUIET) as client, client.pubsub() as channel:
        channel.subscribe("news")
        channel.get_message(timeout=5)
        tcp_server.disconnect(reset=True)
        assert channel.get_message(timeout=5)["type"] == "subscribe"

    assert [conn.requests for conn in tcp_server.connections] == [[subscribe], [subscribe]]


# Replies


@both
def test_a_reply_that_is_reset_midway_is_asked_for_on_another_connection(
    redis_server: StreamTestServer, get: Get
) -> None:
    redis_server.on(GET).reply(Cut(HELLO, 6), Reset(), uses=1).then(HELLO)

    assert get(redis_server, retries=1) == b"hello"

    assert [conn.requests for conn in redis_server.connections] == [[GET], [GET]]


@both
@pytest.mark.parametrize("cut", cuts(HELLO))
def test_a_reply_cut_at_every_byte(redis_server: StreamTestServer, get: Get, cut: Cut) -> None:
    redis_server.on(GET).reply(cut, Close())

    with pytest.raises(redis.ConnectionError, match="^Connection closed by server.$"):
        get(redis_server)


@both
@pytest.mark.parametrize("split", splits(HELLO))
def test_a_reply_parted_at_every_byte(redis_server: StreamTestServer, get: Get, split: Split) -> None:
    redis_server.on(GET).reply(split)

    assert get(redis_server) == b"hello"


@both
def test_a_reply_that_stalls(redis_server: StreamTestServer, get: Get) -> None:
    redis_server.on(GET).reply(Cut(HELLO, 6), Stall())

    with pytest.raises(redis.TimeoutError, match="^Timeout reading from "):
        get(redis_server, socket_timeout=0.05)


def test_each_drop_of_a_reply_begins_the_timeout_anew(redis_server: StreamTestServer) -> None:
    redis_server.on(GET).reply(Drip(HELLO, pause=0.03))

    began = monotonic()
    assert get(redis_server, socket_timeout=0.25) == b"hello"

    assert monotonic() - began > 0.25


def test_the_timeout_of_the_asyncio_client_is_for_the_whole_reply(redis_server: StreamTestServer) -> None:
    redis_server.on(GET).reply(Drip(HELLO, pause=0.03))

    with pytest.raises(redis.TimeoutError):
        get_with_asyncio(redis_server, socket_timeout=0.15)


@both
def test_a_length_that_is_too_small_cuts_the_value_unnoticed(redis_server: StreamTestServer, get: Get) -> None:
    redis_server.on(GET).reply(Overwrite(HELLO, 1, b"3"))

    assert get(redis_server) == b"hel"


def test_what_is_left_of_a_reply_is_no_reply_to_the_next_command(redis_server: StreamTestServer) -> None:
    redis_server.on(GET).reply(Repeat(HELLO, 2), uses=1).then(b"$3\r\nbye\r\n")

    with redis.Redis(*redis_server.address, **QUIET) as client:
        assert [client.get("greeting"), client.get("greeting")] == [b"hello", b"bye"]

    assert len(redis_server.connections) == 2  # the first one had something in it, and was dropped


def test_a_line_without_its_carriage_return_is_waited_for_until_the_timeout(redis_server: StreamTestServer) -> None:
    redis_server.on(GET).reply(Replace(HELLO, b"\r\n", b"\n"))

    with pytest.raises(redis.TimeoutError):
        get(redis_server, socket_timeout=0.05)


def test_a_line_without_its_carriage_return_is_told_by_the_asyncio_client_as_a_close(
    redis_server: StreamTestServer,
) -> None:
    redis_server.on(GET).reply(Replace(HELLO, b"\r\n", b"\n"))

    with pytest.raises(redis.ConnectionError, match="^Connection closed by server.$"):
        get_with_asyncio(redis_server, socket_timeout=5)

    (conn,) = redis_server.connections
    conn.wait_closed()
    assert conn.closed_by == "client"


# TLS


def trust(server: StreamTestServer) -> dict[str, object]:
    return {"ssl": True, "ssl_ca_certs": str(server.ca_path)}


@both
def test_a_value_over_tls(tls_server: StreamTestServer, get: Get) -> None:
    tls_server.framing = resp
    tls_server.on(GET).reply(HELLO)

    assert get(tls_server, **trust(tls_server)) == b"hello"


@both
@certificates()
def test_a_bad_certificate_is_tried_again_as_often_as_a_reset(
    sockserver: SockServer, get: Get, certificate: Certificate, reason: str
) -> None:
    server = sockserver.tls(tls=certificate)

    with pytest.raises(redis.ConnectionError, match=f"certificate verify failed: {reason}"):
        get(server, retries=2, **trust(server))

    assert len(server.connections) == 3


def test_a_handshake_that_stalls_lasts_as_long_as_the_timeout_of_reading(tls_server: StreamTestServer) -> None:
    """Five seconds unless set: that of connecting is over once TCP stands."""
    tls_server.on(HANDSHAKE).reply(Stall())

    with pytest.raises(redis.TimeoutError, match="^Timeout connecting to server$"):
        get(tls_server, socket_timeout=0.1, **trust(tls_server))


def test_a_handshake_that_stalls_lasts_as_long_as_the_asyncio_clients_timeout_of_connecting(
    tls_server: StreamTestServer,
) -> None:
    tls_server.on(HANDSHAKE).reply(Stall())

    with pytest.raises(redis.TimeoutError, match="^Timeout connecting to server$"):
        get_with_asyncio(tls_server, socket_connect_timeout=0.1, **trust(tls_server))


@both
def test_a_server_that_speaks_no_tls(tls_server: StreamTestServer, get: Get) -> None:
    tls_server.on(HANDSHAKE).reply(b"-ERR speak up\r\n", Close())

    with pytest.raises(redis.ConnectionError, match="(?i)wrong.version.number"):
        get(tls_server, **trust(tls_server))


@both
def test_a_handshake_that_is_refused_by_an_alert(tls_server: StreamTestServer, get: Get) -> None:
    tls_server.on(HANDSHAKE).reply(Alert("handshake_failure"))

    with pytest.raises(redis.ConnectionError, match="(?i)alert.handshake.failure"):
        get(tls_server, **trust(tls_server))
