"""Datagrams: lost, several, late, changed, from elsewhere, or refused."""

from __future__ import annotations

import itertools
import socket
from functools import partial
from typing import Any

from pytest_sockserver import ANY, DATA, Cut, Delay, Gate, OpenGate, Stall
from pytest_sockserver.faults import Append, Corrupt, Hold, Jitter, Overwrite, Prepend, Repeat, Replace, Spoof, garbage

from .client import IN_TIME, PATIENCE, QUIET, SILENCE, Client, Watch, after, named
from .rows import ASK, BYE, BYTE, DATAGRAMS, NEXT, SAID, Row, in_places, reply

GARBAGE = b"\n\x7f\xdd\xc2.7\xea\xf0[tDY\xf6\x12\x9f\xd1\xc9|\xb5\x01"  # what garbage(20, seed=3) is on every machine
LARGE = bytes(range(250)) * 200  # 50,000 bytes


# What is said

REPLIES = [
    *reply("D2", "no reply", lambda data: (), transports=DATAGRAMS),
    *reply("D2", "the first reply lost", lambda data: (), NEXT, asks=2, transports=DATAGRAMS),
    *reply("D3", "a reply twice", lambda data: (Repeat(data),), SAID, SAID, transports=DATAGRAMS),
    *reply("D3", "a reply five times", lambda data: (Repeat(data, 5),), *[SAID] * 5, transports=DATAGRAMS),
    *reply("D4", "replies swapped", lambda data: (Hold(data),), NEXT, SAID, asks=2, transports=DATAGRAMS),
    *reply("D4", "a reply two later", lambda data: (Hold(data, 2),), NEXT, NEXT, SAID, asks=3, transports=DATAGRAMS),
    *reply("D5", "a reply delayed", lambda data: (Delay(0.02), data), SAID, least=0.02, transports=DATAGRAMS),
    *reply("D5", "jitter", lambda data: (Jitter(0.02, 0.03, seed=1), data), SAID, least=0.02, transports=DATAGRAMS),
    *reply("D6", "a corrupt byte", lambda data: (Corrupt(data, 3),), b"012\xcc456789", transports=DATAGRAMS),
    *reply(
        "D6",
        "a byte drawn and corrupted",
        lambda data: (Corrupt(data, seed=7),),
        b"01\xcd3456789",
        transports=DATAGRAMS,
    ),
    *reply("D6", "garbage instead", lambda data: (garbage(20, seed=3),), GARBAGE, transports=DATAGRAMS),
    *reply("D6", "bytes before", lambda data: (Prepend(data, b"\0\xff"),), b"\0\xff" + SAID, transports=DATAGRAMS),
    *reply("D6", "bytes after", lambda data: (Append(data, b"\0\xff"),), SAID + b"\0\xff", transports=DATAGRAMS),
    *reply("D6", "other bytes", lambda data: (Replace(data, b"89", b"-"),), b"01234567-", transports=DATAGRAMS),
    *reply("D7", "truncated", lambda data: (Cut(data, 4),), SAID[:4], transports=DATAGRAMS),
    *reply("D8", "an empty datagram, and a further one", lambda data: (b"", data), b"", SAID, transports=DATAGRAMS),
    *reply("D8", "cut to nothing", lambda data: (Cut(data, 0),), b"", transports=DATAGRAMS),
    *reply("D9", "a large datagram", lambda data: (LARGE,), LARGE, transports=DATAGRAMS),
    *reply(
        "D13", "another transaction", lambda data: (Overwrite(data, 0, b"99"),), b"9923456789", transports=DATAGRAMS
    ),
    *reply(
        "D16", "several replies to one query", lambda data: (data, NEXT, data), SAID, NEXT, SAID, transports=DATAGRAMS
    ),
    *reply(
        "D15", "a gate that a reply opens", lambda data: (OpenGate("g"), Gate("g"), data), SAID, transports=DATAGRAMS
    ),
]


# With more than one look at it


def asked(client: Client) -> socket.socket:
    sock = client.socket()
    sock.connect(client.server.address)
    sock.send(ASK)
    return sock


def one_reply(client: Client) -> object:
    sock = asked(client)
    return sock.recv(100), after(sock)


def small_buffer(client: Client) -> object:
    """What does not fit into the client's buffer is lost without a word; the next datagram is whole."""
    sock = asked(client)
    return sock.recv(100), sock.recv(100)


def from_elsewhere(client: Client) -> object:
    """A client that takes datagrams from anybody gets it, from another place than it asked."""
    sock = client.socket()
    sock.sendto(ASK, client.server.address)
    data, (host, port) = sock.recvfrom(100)
    return data, host, port == client.server.port


def never_from_elsewhere(client: Client) -> object:
    """A client whose socket is connected never sees it: its kernel takes datagrams of that one peer alone."""
    sock = asked(client)
    sock.send(BYE)
    return sock.recv(100), after(sock)


def gate(client: Client) -> object:
    sock = asked(client)
    before = after(sock)
    client.server.open_gate("gate")
    return before, sock.recv(100)


def late(client: Client) -> object:
    """The answer to the first query comes when the client has given up on it, in the place of the second's."""
    sock = asked(client)
    sock.settimeout(QUIET)
    first = after(sock)
    sock.send(NEXT)
    client.server.open_gate("gate")
    return first, sock.recv(100), sock.recv(100)


def late_reply(server: Any) -> None:
    server.on(ASK).reply(Gate("gate"), SAID)
    server.on(NEXT).reply(Gate("gate"), Delay(0.01), NEXT)


def unasked(client: Client) -> object:
    sock = client.socket()
    sock.connect(client.server.address)
    before = after(sock)
    client.server.send_to(sock.getsockname(), SAID, Repeat(NEXT))
    return before, [sock.recv(100) for _ in range(3)]


def three_asks(client: Client) -> object:
    sock = asked(client)
    sock.send(ASK)
    sock.send(ASK)
    sock.send(BYE)
    return received(sock)


def received(sock: socket.socket) -> list[bytes]:
    """Return what comes before the answer to BYE."""
    return list(itertools.takewhile(lambda datagram: datagram != BYTE, iter(partial(sock.recv, 65536), None)))


def too_large(client: Client) -> object:
    """It cannot be sent: the server's side says so, and the client gets nothing of it."""
    with client.server.raises(ValueError, "a datagram of 65,508 bytes cannot be sent: UDP takes at most 65,507"):
        sock = asked(client)
    sock.send(BYE)
    return sock.recv(65536)


def answering(server: Any) -> None:
    server.on(ASK).reply(SAID)
    server.on(BYE).reply(BYTE)


def unreachable(client: Client) -> object:
    """A connected client is told at its next call, an unconnected one nothing; later both are answered again."""
    address = client.server.address
    sock, other = asked(client), client.socket()
    before = sock.recv(100)
    with client.server.refuse():
        sock.send(ASK)
        told = after(sock, PATIENCE)
        other.sendto(ASK, address)
        silent = after(other)
    sock.send(ASK)
    other.sendto(ASK, address)
    return before, told, silent, sock.recv(100), other.recv(100)


def unreachable_path(client: Client) -> object:
    sock = asked(client)
    before = sock.recv(100)
    with client.server.refuse():
        try:
            sock.send(ASK)
            told = "sent"
        except OSError as error:
            told = named(error)
    again = asked(client)
    return before, told, again.recv(100)


def unheard(client: Client) -> object:
    sock = asked(client)
    before = sock.recv(100)
    with client.server.blackhole():
        sock.send(ASK)
        silent = after(sock)
    sock.send(ASK)
    return before, silent, sock.recv(100)


LOOKED_AT = [
    *in_places(
        "D9",
        "larger than the client's buffer",
        lambda data: (data * 100 if isinstance(data, bytes) else SAID * 100, NEXT),
        small_buffer,
        (SAID * 10, NEXT),
        transports=DATAGRAMS,
        open=False,
    ),
    Row(
        "D10",
        "larger than a datagram can be",
        ("udp",),
        lambda server: (server.on(ASK).reply(b"x" * 65508), server.on(BYE).reply(BYTE)),
        too_large,
        BYTE,
    ),
    *in_places(
        "D11",
        "from another port",
        lambda data: (Spoof(data),),
        from_elsewhere,
        (SAID, "127.0.0.1", False),
        transports=("udp",),
        open=False,
    ),
    *in_places(
        "D11",
        "from another port, to a connected client",
        lambda data: (Spoof(data),),
        never_from_elsewhere,
        (BYTE, SILENCE),
        transports=("udp",),
    ),
    *in_places(
        "D12",
        "from another address",
        lambda data: (Spoof(data, "127.0.0.2"),),
        from_elsewhere,
        (SAID, "127.0.0.2", False),
        transports=("udp",),
        open=False,
    ),
    *in_places(
        "D16",
        "nothing after a reply",
        lambda data: (data, Stall()),
        one_reply,
        (SAID, SILENCE),
        transports=DATAGRAMS,
        open=False,
    ),
    *in_places(
        "D14",
        "a reply at a gate",
        lambda data: (Gate("gate"), data),
        gate,
        (SILENCE, SAID),
        transports=DATAGRAMS,
        open=False,
    ),
    Row("D14", "a reply after the client gave up", DATAGRAMS, late_reply, late, (SILENCE, SAID, NEXT)),
    Row(
        "D15",
        "a datagram that nobody asked for",
        DATAGRAMS,
        lambda server: None,
        unasked,
        (SILENCE, [SAID, NEXT, NEXT]),
    ),
    Row(
        "D17",
        "no more than two replies",
        DATAGRAMS,
        lambda server: (server.on(ASK).reply(SAID, uses=2).then(), server.on(BYE).reply(BYTE)),
        three_asks,
        [SAID, SAID],
    ),
    Row("D19", "unreachable", ("udp",), answering, unreachable, (SAID, "ECONNREFUSED", SILENCE, SAID, SAID)),
    Row("D19", "unreachable", ("unix_datagram",), answering, unreachable_path, (SAID, "ECONNREFUSED", SAID)),
    Row("D1", "nothing is received", DATAGRAMS, answering, unheard, (SAID, SILENCE, SAID)),
]


# What is received, from outside


def received_by(*parts: Any, **where: Any) -> Any:
    """Return a declaration: all is echoed, less BYE, and this is done to what comes."""

    def declare(server: Any) -> None:
        server.on(ANY).reply(lambda request: bytes(request))
        server.inject(*parts, direction="received", **where)

    return declare


def echoes(client: Client, count: int, least: float = 0.0) -> object:
    """Say SAID, NEXT, BYE, and return what comes back, so many, and whether that took long enough."""
    sock, watch = client.socket(), Watch()
    sock.connect(client.server.address)
    for each in (SAID, NEXT, BYTE):
        sock.send(each)
    seen = [sock.recv(100) for _ in range(count)]
    return seen, watch.least(least), after(sock, 0.01)


OVERTAKEN = [NEXT, BYTE, SILENCE, SAID]


def overtaken(client: Client) -> object:
    sock = client.socket()
    sock.connect(client.server.address)
    for each in (SAID, NEXT, BYTE):
        sock.send(each)
    seen = [sock.recv(100), sock.recv(100), after(sock)]
    client.server.open_gate("gate")
    return [*seen, sock.recv(100)]


def heard(id: str, name: str, declare: Any, *said: bytes, least: float = 0.0) -> Row:
    return Row(
        id,
        f"{name}, on its way to the server",
        DATAGRAMS,
        declare,
        partial(echoes, count=len(said), least=least),
        (list(said), IN_TIME, SILENCE),
    )


RECEIVED = [
    heard("D1", "the first lost", received_by(at=0), NEXT, BYTE),
    heard("D1", "all but the second lost", received_by(at=[0, 2]), NEXT),
    heard("D1", "two of them lost", received_by(times=2), BYTE),
    heard("D1", "all lost", received_by(probability=1.0, seed=0)),
    heard("D1", "none lost", received_by(probability=0.0, seed=0), SAID, NEXT, BYTE),
    heard("D3", "twice", received_by(Repeat(DATA), at=1), SAID, NEXT, NEXT, BYTE),
    heard("D4", "swapped", received_by(Hold(DATA), at=0), NEXT, SAID, BYTE),
    heard("D4", "two later", received_by(Hold(DATA, 2), at=0), NEXT, BYTE, SAID),
    heard("D5", "delayed", received_by(Delay(0.02), DATA), SAID, NEXT, BYTE, least=0.02),
    Row(
        "D5",
        "overtaken on its way to the server",
        DATAGRAMS,
        received_by(Gate("gate"), DATA, at=0),
        overtaken,
        OVERTAKEN,
    ),
    heard("D6", "corrupt", received_by(Corrupt(DATA, 0), at=[0, 1]), b"\xcf123456789", b"\x91ext", BYTE),
    heard("D6", "by a function", received_by(lambda data: data[::-1], at=0), SAID[::-1], NEXT, BYTE),
    heard("D7", "truncated", received_by(Cut(DATA, 3)), SAID[:3], NEXT[:3], BYTE[:3]),
    heard("D8", "emptied", received_by(Cut(DATA, 0), at=0), b"", NEXT, BYTE),
]

ROWS = REPLIES + LOOKED_AT + RECEIVED
