"""Injections: which of what a server says or hears is hit, and what becomes of a stream on its way to the server."""

from __future__ import annotations

import socket
import socketserver
from functools import partial
from typing import Any

from pytest_sockserver import DATA, Close, Cut, Delay, Drip, Gate, OpenGate, Reset, Stall
from pytest_sockserver.faults import Append, Corrupt, Jitter, Overwrite, Prepend, ReadSlowly, Split, Throttle

from .client import END, IN_TIME, SILENCE, Client, Watch, after, read
from .rows import DATAGRAMS, SAID, STREAMS, TCP, Row, types_in

RESET = "ECONNRESET"


class Echo(socketserver.BaseRequestHandler):
    """A handler class, which cannot be touched."""

    def handle(self) -> None:
        while data := self.request.recv(100):
            self.request.sendall(data)


class Files(socketserver.StreamRequestHandler):
    """One that reads and writes by files, a line at a time."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


def echo(conn: Any) -> None:
    while data := conn.recv():
        conn.send(data)


FORMS = {"a handler": echo, "a handler class": Echo}


# What a stream's server hears


def faulty(form: Any, *parts: Any, **where: Any) -> Any:
    def declare(server: Any) -> None:
        server.handler(form)
        server.inject(*parts, direction="received", **where)

    return declare


def echoed(client: Client, end: str, least: float, size: int) -> object:
    """Say SAID in three pieces and the end; return what comes back."""
    watch = Watch()  # time begins with the connection: a delay does not wait for the first byte
    sock = client.connected()
    for each in (SAID[:1], SAID[1:7], SAID[7:]) if end != RESET else (SAID,):  # which comes before the third piece
        sock.sendall(each)
    if end == SILENCE:
        return read(sock, size), after(sock), watch.least(least)
    if end == END:
        sock.shutdown(socket.SHUT_WR)
    return *client.rest(sock, hard=end == RESET), watch.least(least)


def heard(
    name: str,
    *parts: Any,
    said: bytes,
    end: str = END,
    least: float = 0.0,
    transports: tuple[str, ...] = STREAMS,
    **where: Any,
) -> list[Row]:
    """Return the rows of what a handler, and a handler class, hears.

    Args:
        end: How the client sees it end: by the echo of its own end, unless told otherwise.  Over TLS a client of
            Python's ``ssl`` cannot end its half alone: there it must be silent behind what was said.
    """
    plain = tuple(each for each in transports if each != "tls")
    ways = [(plain, end), (("tls",) * ("tls" in transports), SILENCE)] if end == END else [(transports, end)]
    return [
        Row(
            "X1",
            f"{name}, on its way to {whom}",
            transports,
            faulty(form, *parts, **where),
            partial(echoed, end=end, least=least, size=len(said)),
            (said, end, IN_TIME),
            shows=types_in(parts),
        )
        for whom, form in FORMS.items()
        for transports, end in ways
    ]


HEARD = [
    *heard("nothing changed", DATA, said=SAID),
    *heard("all lost", said=b""),
    *heard("truncated", Cut(DATA, 4), said=SAID[:4]),
    *heard("corrupt", Corrupt(DATA, 3), said=b"012\xcc456789"),
    *heard("overwritten", Overwrite(DATA, 5, b"---"), said=b"01234---89"),
    *heard("with more before", Prepend(DATA, b">"), said=b">" + SAID),
    # After the client's end, which a client of Python's ssl cannot say and then read on.
    *heard("with more after", Append(DATA, b"<"), said=SAID + b"<", transports=("tcp", "unix")),
    *heard("dripping", Drip(DATA, 0.002), said=SAID, least=0.018),
    *heard("throttled", Throttle(DATA, 400), said=SAID, least=0.02),
    *heard("split", Split(DATA, 5, pause=0.02), said=SAID, least=0.02),
    *heard("delayed", Delay(0.02), DATA, said=SAID, least=0.02),
    *heard("with jitter", Jitter(0.02, 0.03, seed=1), DATA, said=SAID, least=0.02),
    *heard("read slowly", ReadSlowly(2, 0.005), DATA, said=SAID, least=0.02),
    *heard("at a gate that it opens", OpenGate("g"), Gate("g"), DATA, said=SAID),
    *heard("modifiers in one another", Append(Corrupt(Cut(DATA, 4), 0), b"!"), said=b"\xcf123!"),
    *heard("stalled", Stall(), said=b"", end=SILENCE),
    *heard("stalled within", Cut(DATA, 4), Stall(), said=SAID[:4], end=SILENCE),
    *heard("limited in bytes, then reset", Cut(DATA, 4), Reset(), said=SAID[:4], end=RESET, transports=TCP),
    *heard("of the second connection", Cut(DATA, 4), said=SAID, connections=1, times=(0, None)),
    *heard("never", Cut(DATA, 4), said=SAID, probability=0.0, seed=1),
    *heard("always", Cut(DATA, 4), said=SAID[:4], probability=1.0, seed=1),
]


def limited_then_closed(client: Client) -> object:
    """More than the limit came: the end is clean all the same, and what was heard is answered."""
    sock = client.connected()
    sock.sendall(SAID * 10)
    return client.rest(sock)


# T14 in the direction to the server.
LIMITS = [
    Row(
        "T14",
        f"limited in bytes, then closed, on its way to {whom}",
        STREAMS,
        faulty(form, Cut(DATA, 25), Close()),
        limited_then_closed,
        (SAID * 2 + SAID[:5], END),
    )
    for whom, form in FORMS.items()
]


# Which of what is said


def lines(client: Client) -> object:
    """Say a line, wait for its echo, six times; return what came of each."""
    sock, seen = client.connected(), b""
    for each in b"abcdef":
        sock.sendall(bytes([each]) + b"\n")
        seen += read(sock, 2)
    return seen


def hit(*parts: Any, form: Any = None, **where: Any) -> Any:
    def declare(server: Any) -> None:
        server.handler(form or echo)
        server.inject(*parts, **where)

    return declare


UPPER = (lambda data: data.upper(),)
SECOND = (lambda data: b"2" + data[1:],)
PLAIN = b"a\nb\nc\nd\ne\nf\n"


def in_connections(client: Client) -> object:
    return [lines(client) for _ in range(3)]


def ended(client: Client) -> object:
    before = lines(client)
    client.server.clear()
    client.server.handler(echo)
    injection = client.server.inject(*UPPER)
    during = lines(client)
    injection.end()
    with client.server.inject(*UPPER):
        within = lines(client)
    return before, during, within, lines(client)


def standing(client: Client, direction: str = "sent") -> object:
    """A fault is injected into an existing connection, and then not any more."""
    sock, seen = client.connected(), []
    for part in (None, UPPER[0] if direction == "sent" else Corrupt(DATA, 0), None):
        injection = client.server.inject(part, direction=direction) if part is not None else None
        sock.sendall(b"abc")
        seen.append(read(sock, 3))
        if injection is not None:
            injection.end()
    return seen


def two_of_them(server: Any) -> None:
    """The latest one takes it; each counts all writes, whoever takes them."""
    server.handler(echo)
    server.inject(*UPPER, at=[0, 2])
    server.inject(*SECOND, at=[2, 3])


def cut_off(client: Client, hard: bool = True) -> object:
    """A handler that cannot be touched is ended quietly when its connection is."""
    return [client.conversation(SAID, hard=hard), client.conversation(SAID, hard=hard)]


def five_lost(client: Client) -> object:
    """Each line is a write, and only the sixth is said."""
    sock = client.connected()
    sock.sendall(PLAIN)
    return read(sock, 2), after(sock)


CHOSEN = [
    Row("X2", "no injection", STREAMS, lambda server: server.handler(echo), lines, PLAIN),
    Row("X2", "all writes", STREAMS, hit(*UPPER), lines, PLAIN.upper()),
    Row("X2", "all writes of a handler class", STREAMS, hit(*UPPER, form=Echo), lines, PLAIN.upper()),
    Row("X2", "all writes of files", STREAMS, hit(*UPPER, form=Files), lines, PLAIN.upper()),
    Row("X2", "by index", STREAMS, hit(*UPPER, at=[1, 4]), lines, b"a\nB\nc\nd\nE\nf\n"),
    Row("X2", "by index, of a handler class", STREAMS, hit(*UPPER, at=2, form=Echo), lines, b"a\nb\nC\nd\ne\nf\n"),
    Row("X2", "the first three", STREAMS, hit(*UPPER, times=3), lines, b"A\nB\nC\nd\ne\nf\n"),
    Row(
        "X2",
        "by connection",
        STREAMS,
        hit(*UPPER, connections=[0, 2]),
        in_connections,
        [PLAIN.upper(), PLAIN, PLAIN.upper()],
    ),
    Row(
        "X2",
        "by connection and index",
        STREAMS,
        hit(*UPPER, connections=1, at=0),
        in_connections,
        [PLAIN, b"A" + PLAIN[1:], PLAIN],
    ),
    Row("X2", "never", STREAMS, hit(*UPPER, probability=0.0, seed=1), lines, PLAIN),
    Row("X2", "always", STREAMS, hit(*UPPER, probability=1.0, seed=1), lines, PLAIN.upper()),
    # What is drawn is the same on every machine: written down, and not computed.
    Row("X2", "as drawn", STREAMS, hit(*UPPER, probability=0.5, seed=2), lines, b"a\nb\nC\nd\nE\nf\n"),
    Row(
        "X2",
        "until it ends",
        STREAMS,
        lambda server: server.handler(echo),
        ended,
        (PLAIN, PLAIN.upper(), PLAIN.upper(), PLAIN),
    ),
    Row("X2", "while it stands", STREAMS, lambda server: server.handler(echo), standing, [b"abc", b"ABC", b"abc"]),
    Row(
        "X2", "while a class's stands", STREAMS, lambda server: server.handler(Echo), standing, [b"abc", b"ABC", b"abc"]
    ),
    Row("X2", "two of them", STREAMS, two_of_them, lines, b"A\nb\n2\n2\ne\nf\n"),
    Row("X3", "a reset of a handler", TCP, hit(Reset()), cut_off, [(b"", RESET)] * 2),
    Row("X3", "a reset of a handler class", TCP, hit(Reset(), form=Echo), cut_off, [(b"", RESET)] * 2),
    Row(
        "X3",
        "a close of a handler class",
        STREAMS,
        hit(DATA, Close(), form=Echo),
        partial(cut_off, hard=False),
        [(SAID, END)] * 2,
    ),
    Row(
        "X3",
        "lost writes of a handler class",
        STREAMS,
        hit(at=[0, 1, 2, 3, 4], form=Files),
        five_lost,
        (b"f\n", SILENCE),
    ),
]


# Of datagrams: which of the server's, whoever they are for


class DatagramEcho(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


def hit_datagrams(*parts: Any, form: Any = None, **where: Any) -> Any:
    def declare(server: Any) -> None:
        server.handler(form or (lambda request: bytes(request)))
        server.inject(*parts, **where)

    return declare


def datagrams(client: Client) -> object:
    """Two clients by turns say a letter, and wait for its echo, six times; return what came of each."""
    socks, seen = [client.socket(), client.socket()], b""
    for sock in socks:
        sock.connect(client.server.address)
    for at, each in enumerate(b"abcdef"):
        socks[at % 2].send(bytes([each]))
        seen += socks[at % 2].recv(100)
    return seen


OF_DATAGRAMS = [
    Row(
        "X2",
        "no injection of datagrams",
        DATAGRAMS,
        lambda server: server.handler(lambda r: bytes(r)),
        datagrams,
        b"abcdef",
    ),
    Row("X2", "all datagrams", DATAGRAMS, hit_datagrams(*UPPER), datagrams, b"ABCDEF"),
    Row(
        "X2",
        "all datagrams of a handler class",
        DATAGRAMS,
        hit_datagrams(*UPPER, form=DatagramEcho),
        datagrams,
        b"ABCDEF",
    ),
    Row("X2", "datagrams by index", DATAGRAMS, hit_datagrams(*UPPER, at=[1, 4]), datagrams, b"aBcdEf"),
    Row(
        "X2",
        "datagrams of a handler class by index",
        DATAGRAMS,
        hit_datagrams(*UPPER, at=5, form=DatagramEcho),
        datagrams,
        b"abcdeF",
    ),
    Row("X2", "the first three datagrams", DATAGRAMS, hit_datagrams(*UPPER, times=3), datagrams, b"ABCdef"),
    Row("X2", "datagrams by peer", DATAGRAMS, hit_datagrams(*UPPER, connections=1), datagrams, b"aBcDeF"),
    Row("X2", "datagrams never", DATAGRAMS, hit_datagrams(*UPPER, probability=0.0, seed=1), datagrams, b"abcdef"),
    Row("X2", "datagrams always", DATAGRAMS, hit_datagrams(*UPPER, probability=1.0, seed=1), datagrams, b"ABCDEF"),
    Row("X2", "datagrams as drawn", DATAGRAMS, hit_datagrams(*UPPER, probability=0.5, seed=7), datagrams, b"AbcDEF"),
]

ROWS = HEARD + LIMITS + CHOSEN + OF_DATAGRAMS
