"""The listening side: who is let in, and who is not."""

from __future__ import annotations

import socket
import sys
from functools import partial
from typing import Any

from pytest_sockserver import CONNECT, Close, Delay, Reset, Stall

from .client import END, IN_TIME, RAGGED, SILENCE, Client, Watch, after, named, read
from .rows import ASK, BYE, SAID, STREAMS, TCP, Row

RESET = "ECONNRESET"
REFUSED = "ECONNREFUSED"
NO_TIME = 0.1  # seconds that a client waits for a connection that never comes about


def answering(server: Any) -> None:
    server.on(ASK).reply(SAID)
    server.on(BYE).reply(Close())


def refused_from_the_start(server: Any) -> None:
    answering(server)
    server.refuse()


def talk(client: Client) -> object:
    return client.conversation(ASK, BYE)


def refused_and_back(client: Client, shut: str, timeout: float = 20.0) -> object:
    """A connection that stands goes on while others are not let in; they are again, on the same address."""
    sock = client.connected()
    sock.sendall(ASK)
    before = read(sock, len(SAID)), client.server.address
    with getattr(client.server, shut)():
        shut_out = [client.attempt(timeout), client.attempt(timeout)]
        sock.sendall(ASK)
        live = read(sock, len(SAID))
    return before == (SAID, client.server.address), shut_out, live, talk(client)


BACK = (SAID, END)


def script_is_for_clients(client: Client, shut: str) -> object:
    """The connections by which the server itself fills its queue are nobody's: the script waits for a client."""
    with getattr(client.server, shut)():
        shut_out = client.attempt(NO_TIME)
    return shut_out, client.conversation(ASK)


def one_script(server: Any) -> None:
    server.script().expect(ASK).send(SAID, Close())


def never_served(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    return after(sock)


def slow_accept(client: Client) -> object:
    watch = Watch()
    return client.conversation(ASK, BYE), watch.least(0.03)


def waiting_clients_are_reset(client: Client) -> object:
    """Nobody has answered them when the listener goes, and them with it."""
    waiting = [client.plain() for _ in range(3)]
    client.server.refuse()
    client.server.disconnect(reset=True)
    return [client.rest(each, hard=True) for each in waiting], client.attempt()


def one_too_many(client: Client) -> object:
    """The third is one too many until the first is gone, which it is as soon as its client sees the end."""
    first, second = client.connected(), client.connected()
    first.sendall(ASK)
    second.sendall(ASK)
    served = read(first, len(SAID)), read(second, len(SAID))
    third = too_many(client)
    first.sendall(BYE)
    return served, third, client.rest(first), client.conversation(ASK, BYE)


def too_many(client: Client) -> object:
    """Return what a client is told that is one too many: before TLS begins, so it does not begin it."""
    try:
        return client.rest(client.plain())
    except OSError as error:  # the reset was faster than connect()
        return b"", named(error)


def one_too_many_stalls(client: Client) -> object:
    first = client.connected()
    second = client.plain()
    return after(second), after(first)


def restarted(client: Client) -> object:
    sock, address = client.connected(), client.server.address
    sock.sendall(ASK)
    before = read(sock, len(SAID))
    client.server.restart()
    return before, client.rest(sock)[1], address == client.server.address, talk(client)


def disconnected(client: Client, reset: bool = False) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    before = read(sock, len(SAID))
    client.server.disconnect(reset=reset)
    return before, client.rest(sock, hard=reset), talk(client)


def another_family(client: Client) -> object:
    """``localhost`` of the other family is refused, and a client that tries both gets through."""
    # No other server of this machine is there, whatever its ports: Linux has all of 127.0.0.0/8.
    host = "127.99.98.97" if sys.platform == "linux" else "127.0.0.1"
    other = client.kept(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    other.settimeout(5)
    try:
        other.connect((host, client.server.port))
    except OSError as error:
        return named(error), talk(client)
    return "connected", talk(client)


def limit(server: Any, *parts: Any) -> None:
    answering(server)
    server.limit_connections(2, *parts)


def limit_of_none(server: Any) -> None:
    server.limit_connections(0)


ROWS = [
    Row("L1", "refused from the start", STREAMS, refused_from_the_start, Client.attempt, REFUSED),
    Row(
        "L2",
        "refused, and later not",
        STREAMS,
        answering,
        partial(refused_and_back, shut="refuse"),
        (True, [REFUSED, REFUSED], SAID, BACK),
    ),
    Row(
        "L3",
        "black hole",
        TCP,
        answering,
        partial(refused_and_back, shut="blackhole", timeout=NO_TIME),
        (True, [SILENCE, SILENCE], SAID, BACK),
    ),
    Row(
        "L3",
        "black hole, before a script",
        TCP,
        one_script,
        partial(script_is_for_clients, shut="blackhole"),
        (SILENCE, BACK),
    ),
    Row(
        "L4",
        "connects, and is never served",
        STREAMS,
        lambda server: server.on(CONNECT).reply(Stall()),
        never_served,
        SILENCE,
    ),
    Row(
        "L5",
        "slow accept",
        STREAMS,
        lambda server: (server.on(CONNECT).reply(Delay(0.03)), answering(server)),
        slow_accept,
        ((SAID, END), IN_TIME),
    ),
    Row(
        "L6",
        "accepted and closed",
        STREAMS,
        lambda server: server.on(CONNECT).reply(Close()),
        Client.conversation,
        (b"", END),
    ),
    Row(
        "L7",
        "accepted and reset",
        TCP,
        lambda server: server.on(CONNECT).reply(Reset()),
        partial(Client.conversation, hard=True),
        (b"", RESET),
    ),
    Row(
        "L8",
        "the listener goes, and with it who waits",
        TCP,
        lambda server: None,
        waiting_clients_are_reset,
        ([(b"", RESET)] * 3, REFUSED),
    ),
    Row(
        "L8",
        "nobody is let through",
        TCP,
        limit_of_none,
        partial(too_many),
        (b"", RESET),
    ),
    Row(
        "L9",
        "one too many is reset",
        TCP,
        limit,
        one_too_many,
        ((SAID, SAID), (b"", RESET), (b"", END), BACK),
    ),
    Row(
        "L9",
        "one too many is closed",
        ("unix",),
        limit,
        one_too_many,
        ((SAID, SAID), (b"", END), (b"", END), BACK),
    ),
    Row(
        "L9",
        "one too many is told so",
        STREAMS,
        lambda server: limit(server, b"busy\n", Close()),
        one_too_many,
        ((SAID, SAID), (b"busy\n", END), (b"", END), BACK),
    ),
    Row(
        "L9",
        "one too many waits",
        STREAMS,
        lambda server: server.limit_connections(1, Stall()),
        one_too_many_stalls,
        (SILENCE, SILENCE),
    ),
    Row("L10", "restart", ("tcp", "unix"), answering, restarted, (SAID, END, True, BACK)),
    # Whoever ends a connection that another thread may be writing to cannot send close_notify.
    Row("L10", "restart", ("tls",), answering, restarted, (SAID, RAGGED, True, BACK)),
    Row("L10", "all are cut off", ("tcp", "unix"), answering, disconnected, (SAID, (b"", END), BACK)),
    Row("L10", "all are cut off", ("tls",), answering, disconnected, (SAID, (b"", RAGGED), BACK)),
    Row("L10", "all are reset", TCP, answering, partial(disconnected, reset=True), (SAID, (b"", RESET), BACK)),
    Row(
        "L11",
        "the other family",
        TCP,
        answering,
        another_family,
        (REFUSED, BACK),
        options={"host": "::1"},
    ),
]
