"""pymemcache: lines, some with a counted body after them, and commands that want no reply."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheUnexpectedCloseError

from pytest_sockserver import Connection, StreamTestServer


def serve(conn: Connection) -> None:
    """Be a cache: `set` has a body of the length that its line ends with, or the word before `noreply`."""
    values: dict[bytes, bytes] = {}
    while True:
        name, *words = conn.recv_line().split()
        if name == b"set":
            values[words[0]] = conn.recv_exactly(int(words[3]) + 2)
            if words[-1] != b"noreply":
                conn.send(b"STORED\r\n")
        elif name == b"get":
            for key in words:
                if key in values:
                    conn.send(b"VALUE %b 0 %d\r\n%b" % (key, len(values[key]) - 2, values[key]))
            conn.send(b"END\r\n")


@pytest.fixture
def client(tcp_server: StreamTestServer) -> Iterator[Client]:
    client = Client(tcp_server.address, timeout=5)
    yield client
    client.close()


def test_a_value_with_a_line_ending_in_it_comes_back_whole(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.handler(serve)

    client.set("a", b"1\r\nx", noreply=False)
    client.set("b", b"2", noreply=True)

    assert client.get_many(["a", "b", "c"]) == {"a": b"1\r\nx", "b": b"2"}
    assert tcp_server.requests == [
        b"set a 0 0 4\r\n",
        b"1\r\nx\r\n",
        b"set b 0 0 1 noreply\r\n",
        b"2\r\n",
        b"get a b c\r\n",
    ]


def test_a_unix_socket(unix_server: StreamTestServer) -> None:
    unix_server.handler(serve)

    client = Client(unix_server.path, timeout=5)
    assert client.get("nothing") is None
    client.close()

    assert unix_server.requests == [b"get nothing\r\n"]


def test_the_command_after_an_unexpected_end_opens_another_connection(
    tcp_server: StreamTestServer, client: Client
) -> None:
    @tcp_server.handler
    def close_the_first(conn: Connection) -> None:
        if conn.index > 0:
            serve(conn)
        conn.expect(b"get a\r\n")

    with pytest.raises(MemcacheUnexpectedCloseError):
        client.get("a")
    assert client.get("a") is None

    assert len(tcp_server.connections) == 2
