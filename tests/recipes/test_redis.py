"""Redis, with redis-py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_sockserver import Request, Reset, SockServer, StreamTestServer, UnexpectedRequest, resp

from .relay import byte_by_byte


def command(*words: bytes) -> bytes:
    """Write a command as clients do: an array of bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(bulk(word) for word in words)


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def words(request: bytes) -> list[bytes]:
    """Read a command whose words have no line ending in them."""
    return request.split(b"\r\n")[2::2]


@pytest.fixture
def redis_server(tcp_server: StreamTestServer) -> StreamTestServer:
    """A server that agrees to what redis-py says by itself on each new connection."""
    tcp_server.framing = resp
    tcp_server.on(command(b"HELLO", b"3")).reply(b"%1\r\n", bulk(b"proto"), b":3\r\n")
    tcp_server.on(lambda request: words(request)[0] == b"CLIENT").reply(b"+OK\r\n")
    return tcp_server


@pytest.fixture
def client(redis_server: StreamTestServer) -> Iterator[redis.Redis]:
    with redis.Redis(*redis_server.address, retry=None) as client:
        yield client


# The same story three times


def test_a_pipeline_answered_by_rules(redis_server: StreamTestServer, client: redis.Redis) -> None:
    redis_server.on(command(b"SET", b"greeting", b"hello")).reply(b"+OK\r\n")
    redis_server.on(command(b"GET", b"greeting")).reply(bulk(b"hello"))

    with client.pipeline(transaction=False) as pipeline:
        assert pipeline.set("greeting", "hello").get("greeting").execute() == [True, b"hello"]


def test_a_pipeline_answered_by_a_script(redis_server: StreamTestServer, client: redis.Redis) -> None:
    (
        redis_server.script()
        .expect(command(b"SET", b"greeting", b"hello"))
        .expect(command(b"GET", b"greeting"))  # both have come before the first is answered
        .send(b"+OK\r\n", bulk(b"hello"))
    )

    with client.pipeline(transaction=False) as pipeline:
        assert pipeline.set("greeting", "hello").get("greeting").execute() == [True, b"hello"]


def test_a_pipeline_answered_by_a_dialogue(redis_server: StreamTestServer, client: redis.Redis) -> None:
    redis_server.dialogue(r"""
        C- *3\r\n$3\r\nSET\r\n$8\r\ngreeting\r\n$5\r\nhello\r\n
        C- *2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n
        S: +OK
        S- $5\r\nhello\r\n
    """)

    with client.pipeline(transaction=False) as pipeline:
        assert pipeline.set("greeting", "hello").get("greeting").execute() == [True, b"hello"]


def test_the_example_of_the_documentation_of_redis(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue("""
        C: *2
        C: $4
        C: LLEN
        C: $6
        C: mylist
        S: :48293
    """)

    with redis.Redis(*tcp_server.address, retry=None, protocol=2, driver_info=None) as client:
        assert client.llen("mylist") == 48293


# What redis-py says by itself


@pytest.mark.parametrize("protocol, nothing", [(2, b"$-1\r\n"), (3, b"_\r\n")])
def test_what_comes_before_the_first_command(redis_server: StreamTestServer, protocol: int, nothing: bytes) -> None:
    redis_server.on(command(b"GET", b"missing")).reply(nothing)

    with redis.Redis(*redis_server.address, retry=None, protocol=protocol) as client:
        assert client.get("missing") is None

    said = [words(request)[0] for request in redis_server.requests]
    assert said == {2: [b"CLIENT"] * 2, 3: [b"HELLO"] + [b"CLIENT"] * 3}[protocol] + [b"GET"]


# What else a server does


def test_a_pipeline_is_a_transaction_unless_told_otherwise(redis_server: StreamTestServer, client: redis.Redis) -> None:
    redis_server.on(command(b"MULTI")).reply(b"+OK\r\n")
    redis_server.on(command(b"INCRBY", b"visits", b"1")).reply(b"+QUEUED\r\n")
    redis_server.on(command(b"EXEC")).reply(b"*2\r\n:7\r\n:8\r\n")

    with client.pipeline() as pipeline:
        assert pipeline.incr("visits").incr("visits").execute() == [7, 8]


def test_a_server_that_remembers(redis_server: StreamTestServer, client: redis.Redis) -> None:
    values: dict[bytes, bytes] = {}

    def store(request: Request) -> bytes:
        _, key, value = words(request)
        values[key] = value
        return b"+OK\r\n"

    redis_server.on(lambda request: words(request)[0] == b"SET").reply(store)
    redis_server.on(lambda request: words(request)[0] == b"GET").reply(lambda request: bulk(values[words(request)[1]]))

    client.set("a", "1")
    client.set("b", "2")

    assert client.get("a") == b"1"
    assert client.get("b") == b"2"


def test_a_reset_is_survived_by_one_more_try(redis_server: StreamTestServer) -> None:
    redis_server.on(command(b"GET", b"greeting"), times=2).reply(Reset()).then(bulk(b"hello"))

    with redis.Redis(*redis_server.address, retry=Retry(NoBackoff(), 1)) as client:
        assert client.get("greeting") == b"hello"

    assert len(redis_server.connections) == 2


def test_a_message_is_pushed_while_the_subscriber_waits(redis_server: StreamTestServer, client: redis.Redis) -> None:
    redis_server.on(command(b"SUBSCRIBE", b"news")).reply(b">3\r\n", bulk(b"subscribe"), bulk(b"news"), b":1\r\n")

    with client.pubsub() as channel:
        channel.subscribe("news")
        subscribing = redis_server.wait_for(command(b"SUBSCRIBE", b"news"))
        subscribing.connection.send(b">3\r\n", bulk(b"message"), bulk(b"news"), bulk(b"hello"))

        assert [channel.get_message(timeout=5)["data"] for _ in range(2)] == [1, b"hello"]


# When the client departs


def test_a_command_that_no_rule_takes(redis_server: StreamTestServer, client: redis.Redis) -> None:
    redis_server.on(command(b"GET", b"greeting")).reply(bulk(b"hello"))

    said = r"no rule matches b'*2\r\n$3\r\nGET\r\n$8\r\nGREETING\r\n'"
    with redis_server.raises(UnexpectedRequest, match=re.escape(said)):
        with pytest.raises(redis.ConnectionError):
            client.get("GREETING")


# However the bytes arrive


@pytest.mark.parametrize(
    "told",
    [
        test_a_pipeline_answered_by_rules,
        test_a_pipeline_answered_by_a_script,
        test_a_pipeline_answered_by_a_dialogue,
        test_a_server_that_remembers,
    ],
)
def test_byte_by_byte(
    sockserver: SockServer,
    redis_server: StreamTestServer,
    told: Callable[[StreamTestServer, redis.Redis], None],
) -> None:
    with redis.Redis(*byte_by_byte(sockserver, redis_server), retry=None) as client:
        told(redis_server, client)
