"""memcached's text protocol, with pymemcache."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator

import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError, MemcacheUnexpectedCloseError

from pytest_sockserver import Close, Cut, Request, ScriptMismatch, SockServer, StreamTestServer, UnexpectedRequest

from .relay import byte_by_byte

STORING = (b"set", b"add", b"replace", b"append", b"prepend", b"cas")


def memcached() -> Generator[int | bytes, bytes, None]:
    """Frames are lines; those that store something are followed by so many bytes as they say, and a line ending."""
    name, *words = (yield b"\r\n").split()
    if name in STORING:
        yield int(words[3]) + 2


@pytest.fixture
def client(tcp_server: StreamTestServer) -> Iterator[Client]:
    client = Client(tcp_server.address, timeout=5)
    yield client  # it connects with its first command
    client.close()


# The same story three times


def test_rules_for_a_store_that_is_not_acknowledged(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.on(b"set greeting 0 0 5 noreply\r\nhello\r\n").reply()
    tcp_server.on(b"get greeting\r\n").reply(b"VALUE greeting 0 5\r\nhello\r\nEND\r\n")

    client.set("greeting", b"hello")

    assert client.get("greeting") == b"hello"


def test_a_script_of_a_store_that_is_not_acknowledged(tcp_server: StreamTestServer, client: Client) -> None:
    (
        tcp_server.script()
        .expect(b"set greeting 0 0 5 noreply\r\nhello\r\n")
        .expect(b"get greeting\r\n")
        .send(b"VALUE greeting 0 5\r\nhello\r\nEND\r\n")
    )

    client.set("greeting", b"hello")

    assert client.get("greeting") == b"hello"


def test_a_dialogue_of_a_store_that_is_not_acknowledged(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.dialogue("""
        C: set greeting 0 0 5 noreply
        C: hello
        C: get greeting
        S: VALUE greeting 0 5
        S: hello
        S: END
    """)

    client.set("greeting", b"hello")

    assert client.get("greeting") == b"hello"


# Commands that want no reply


def test_the_last_command_may_still_be_on_its_way_when_the_client_returns(
    tcp_server: StreamTestServer, client: Client
) -> None:
    tcp_server.framing = memcached

    client.delete("greeting", noreply=True)

    assert tcp_server.wait_for(re.compile(rb"delete (\S+) noreply\r\n")).match[1] == b"greeting"


def test_one_rule_for_both_ways_to_store(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.framing = memcached
    tcp_server.on(re.compile(rb"set (\S+) \d+ \d+ \d+( noreply)?\r\n.*", re.DOTALL)).reply(acknowledge)

    client.set("a", b"1", noreply=True)
    client.set("b", b"2", noreply=False)

    assert tcp_server.requests == [b"set a 0 0 1 noreply\r\n1\r\n", b"set b 0 0 1\r\n2\r\n"]


def acknowledge(request: Request) -> bytes | tuple[()]:
    return () if request.match[2] else b"STORED\r\n"


# What else a server does


def test_a_server_that_remembers(tcp_server: StreamTestServer, client: Client) -> None:
    values: dict[bytes, bytes] = {}

    def store(request: Request) -> bytes:
        values[request.match[1]] = request.match[2]
        return b"STORED\r\n"

    def look_up(request: Request) -> list[bytes]:
        found = [(key, values[key]) for key in request.split()[1:] if key in values]
        return [b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(value), value) for key, value in found] + [b"END\r\n"]

    tcp_server.framing = memcached
    tcp_server.on(re.compile(rb"set (\S+) \d+ \d+ \d+\r\n(.*)\r\n", re.DOTALL)).reply(store)
    tcp_server.on(re.compile(rb"get .*\r\n")).reply(look_up)

    client.set("a", b"1\r\nx", noreply=False)
    client.set("b", b"2", noreply=False)

    assert client.get_many(["a", "b", "c"]) == {"a": b"1\r\nx", "b": b"2"}


def test_an_error_of_the_server_is_raised_and_then_it_answers(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.on(b"get greeting\r\n").reply(b"SERVER_ERROR out of memory\r\n").then(b"END\r\n")

    with pytest.raises(MemcacheServerError, match="out of memory"):
        client.get("greeting")

    assert client.get("greeting") is None
    assert len(tcp_server.connections) == 2


@pytest.mark.parametrize("n", range(len(b"VALUE greeting 0 5\r\nhello\r\nEND\r\n")))
def test_a_reply_cut_at_every_byte(tcp_server: StreamTestServer, client: Client, n: int) -> None:
    tcp_server.on(b"get greeting\r\n").reply(Cut(b"VALUE greeting 0 5\r\nhello\r\nEND\r\n", n), Close())

    with pytest.raises(MemcacheUnexpectedCloseError):
        client.get("greeting")


# When the client departs


def test_a_store_of_another_value(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.script().expect(b"set greeting 0 0 5\r\nhello\r\n").send(b"STORED\r\n")

    said = r"got b'set greeting 0 0 5\r\nHello\r\n' (differs at byte 20: b'H' is not b'h'; equal but for case)"
    with tcp_server.raises(ScriptMismatch, match=re.escape(said)):
        with pytest.raises(ConnectionResetError):
            client.set("greeting", b"Hello", noreply=False)


def test_a_command_that_no_rule_takes(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.on(b"get greeting\r\n").reply(b"END\r\n")

    with tcp_server.raises(UnexpectedRequest, match=r"no rule matches b'get greetings\\r\\n'"):
        with pytest.raises(ConnectionResetError):
            client.get("greetings")


# However the bytes arrive


@pytest.mark.parametrize(
    "told",
    [
        test_rules_for_a_store_that_is_not_acknowledged,
        test_a_script_of_a_store_that_is_not_acknowledged,
        test_a_dialogue_of_a_store_that_is_not_acknowledged,
        test_a_server_that_remembers,
    ],
)
def test_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, told: Callable[[StreamTestServer, Client], None]
) -> None:
    client = Client(byte_by_byte(sockserver, tcp_server), timeout=5)
    told(tcp_server, client)
    client.close()
