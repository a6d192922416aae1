"""redis-py: length-prefixed commands, a handshake before the first of them, and a pool that tries again."""

from __future__ import annotations

import pytest
import redis
import redis.asyncio
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from pytest_sockserver import Connection, StreamTestServer

# By default redis-py 8 tries eleven times, with pauses that grow to half a second.
NEVER_AGAIN = Retry(NoBackoff(), 0)
TWICE_MORE = Retry(ConstantBackoff(0.001), 2)


def recv_command(conn: Connection) -> list[bytes]:
    """Read a command: the number of its words, and each with its length (RESP, arrays of bulk strings)."""
    count = int(conn.recv_line()[1:])
    return [conn.recv_exactly(int(conn.recv_line()[1:]) + 2)[:-2] for _ in range(count)]


def shake_hands(conn: Connection) -> list[bytes]:
    """Agree to what redis-py says on each new connection; return the first command that is the user's."""
    while (command := recv_command(conn))[0] in (b"HELLO", b"CLIENT"):
        conn.send(b"%1\r\n$5\r\nproto\r\n:3\r\n" if command[0] == b"HELLO" else b"+OK\r\n")
    return command


@pytest.fixture
def client(tcp_server: StreamTestServer):
    with redis.Redis(*tcp_server.address, retry=NEVER_AGAIN) as client:
        yield client


def test_a_value_with_a_line_ending_in_it_comes_back_whole(tcp_server: StreamTestServer, client: redis.Redis) -> None:
    values: dict[bytes, bytes] = {}

    @tcp_server.handler
    def remember(conn: Connection) -> None:
        command = shake_hands(conn)
        while True:
            if command[0] == b"SET":
                values[command[1]] = command[2]
                conn.send(b"+OK\r\n")
            elif (value := values.get(command[1])) is not None:
                conn.send(b"$%d\r\n%b\r\n" % (len(value), value))
            else:
                conn.send(b"_\r\n")
            command = recv_command(conn)

    client.set("k", b"a\r\nb")

    assert client.get("k") == b"a\r\nb"
    assert client.get("nothing") is None
    assert b"a\r\nb\r\n" in tcp_server.requests
    assert tcp_server.requests.count(b"GET\r\n") == 2
    assert len(tcp_server.connections) == 1


def test_a_pipeline_is_sent_before_its_first_reply_is_read(tcp_server: StreamTestServer, client: redis.Redis) -> None:
    @tcp_server.handler
    def answer_when_all_have_come(conn: Connection) -> None:
        commands = [shake_hands(conn), recv_command(conn), recv_command(conn)]
        assert commands == [[b"SET", b"x", b"1"], [b"GET", b"x"], [b"PING"]]
        conn.send(b"+OK\r\n$1\r\n1\r\n+PONG\r\n")

    pipeline = client.pipeline(transaction=False)
    pipeline.set("x", 1).get("x").ping()

    assert pipeline.execute() == [True, b"1", True]


def test_a_reset_of_the_first_two_connections_is_survived_by_two_retries(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def reset_twice(conn: Connection) -> None:
        assert shake_hands(conn) == [b"PING"]
        if conn.index < 2:
            conn.reset()
        else:
            conn.send(b"+PONG\r\n")

    with redis.Redis(*tcp_server.address, retry=TWICE_MORE) as client:
        assert client.ping()

    assert tcp_server.requests.count(b"PING\r\n") == 3
    assert len(tcp_server.connections) == 3


def test_a_server_that_resets_every_connection_is_given_up_after_the_retries(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def reset(conn: Connection) -> None:
        shake_hands(conn)
        conn.reset()

    with redis.Redis(*tcp_server.address, retry=TWICE_MORE) as client:
        with pytest.raises(redis.ConnectionError, match="Connection reset by peer"):
            client.ping()

    assert [conn.closed_by for conn in tcp_server.connections] == ["server"] * 3


def test_silence_ends_in_the_clients_timeout(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def listen(conn: Connection) -> None:
        assert shake_hands(conn) == [b"PING"]
        conn.expect_eof()

    with redis.Redis(*tcp_server.address, retry=NEVER_AGAIN, socket_timeout=0.05) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()

    conn = tcp_server.wait_connection()
    conn.wait_closed()
    assert conn.closed_by == "client"


def test_an_error_reply_is_raised_and_leaves_the_connection_usable(
    tcp_server: StreamTestServer, client: redis.Redis
) -> None:
    @tcp_server.handler
    def refuse_once(conn: Connection) -> None:
        shake_hands(conn)
        conn.send(b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n")
        assert recv_command(conn) == [b"PING"]
        conn.send(b"+PONG\r\n")

    with pytest.raises(redis.ResponseError, match="^WRONGTYPE Operation against a key"):
        client.incr("k")

    assert client.ping()
    assert len(tcp_server.connections) == 1


def test_a_blocked_client_is_woken_when_the_test_says_so(tcp_server: StreamTestServer, client: redis.Redis) -> None:
    @tcp_server.handler
    def accept_and_hold(conn: Connection) -> None:
        shake_hands(conn)
        conn.expect_eof()

    popped = tcp_server.in_thread(client.blpop, ["queue"])
    command = tcp_server.wait_for(b"BLPOP\r\n")
    assert not popped.done()
    command.reply(b"*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n")

    assert popped.result() == (b"queue", b"job")


@pytest.mark.parametrize("protocol", [2, 3])
def test_hello_is_said_only_in_protocol_3(unix_server: StreamTestServer, protocol: int) -> None:
    @unix_server.handler
    def pong(conn: Connection) -> None:
        shake_hands(conn)
        conn.send(b"+PONG\r\n")

    with redis.Redis(unix_socket_path=unix_server.path, protocol=protocol, retry=NEVER_AGAIN) as client:
        client.ping()

    assert (b"HELLO\r\n" in unix_server.requests) == (protocol == 3)


@pytest.mark.asyncio
async def test_a_subscriber_of_the_asyncio_client_gets_what_the_test_pushes(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def accept_and_hold(conn: Connection) -> None:
        shake_hands(conn)
        conn.expect_eof()

    host, port = tcp_server.address
    async with redis.asyncio.Redis(host=host, port=port) as client, client.pubsub() as channel:
        await channel.subscribe("news")
        subscribing = await tcp_server.aio.wait_for(b"SUBSCRIBE\r\n")
        subscribing.reply(b">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
        subscribing.reply(b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n")

        messages = [await channel.get_message(timeout=5), await channel.get_message(timeout=5)]

    assert [message["data"] for message in messages] == [1, b"hello"]
