"""The vocabulary of the catalogue: a row is a fault, where it can be shown, and what a client then sees.

A fault that is a part of a reply is declared in four places, in a script, in a handler's ``send``, in a rule's reply
and from outside by ``inject()``; a client must not be able to tell them apart.  So such a row is written once, as a
function of what is said, and expands into four.

Each conversation is the same: the client says ``ASK``, and the first of its asks meets the fault; where the connection
then still stands, ``BYE`` ends it, so that all that was said is known without waiting for silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pytest_sockserver import DATA, Close, Reset, SockServer

from .client import END, SILENCE, Client, Watch, after, read

ASK, BYE = b"ask\n", b"bye\n"
SAID = b"0123456789"  # in answer to the first ASK, where nothing is wrong
NEXT = b"next"  # in answer to each further one
BYTE = b"bye"  # what a datagram server answers BYE with

TCP = ("tcp", "tls")
STREAMS = ("tcp", "tls", "unix")
DATAGRAMS = ("udp", "unix_datagram")
EVERYWHERE = STREAMS + DATAGRAMS

PLACES = ("script", "handler", "rule", "inject")

Parts = Callable[[Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Row:
    """A fault, as a client sees it.

    Attributes:
        id: That of the catalogue: ``L`` listeners, ``T`` TCP and streams, ``S`` TLS, ``D`` datagrams, ``U`` unix
            sockets, ``X`` injected faults.
        declare: Is given the server before a client comes.
        observe: Is given a client; returns what it saw.
        expected: What that must be, on each of the transports.
        options: Of the server.
        shows: The parts that are seen here.
        place: Where a part is declared; ``""`` for what is no part.
    """

    id: str
    name: str
    transports: tuple[str, ...]
    declare: Callable[[Any], object]
    observe: Callable[[Client], object]
    expected: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    shows: tuple[type, ...] = ()
    place: str = ""

    def __str__(self) -> str:
        return f"{self.id} {self.name}" + (f", {self.place}" if self.place else "")

    def run(self, transport: str) -> tuple[object, object]:
        """Return what a client saw of a server that was made for it, and what it should have seen.

        A failure on the server's side is raised.
        """
        with SockServer() as sockserver:
            server = getattr(sockserver, transport)(**self.options)
            self.declare(server)
            with Client(server) as client:
                seen = self.observe(client)
        return seen, self.expected


def types_in(parts: tuple[Any, ...]) -> tuple[type, ...]:
    """Return the types of acts and modifiers among parts, those that are held by others included."""
    found: list[type] = []
    for each in parts:
        if not isinstance(each, bytes) and each is not DATA:
            found += [type(each), *types_in((getattr(each, "data", b""),))]
    return tuple(found)


# Saying parts in one of the places


def say(server: Any, place: str, parts: Parts, *, asks: int = 1, open: bool = True) -> None:
    """Let the first ``ASK`` be answered by parts, declared in this place.

    Args:
        asks: How many there will be.
        open: ``BYE`` will come.
    """
    DECLARE[place, server.transport in DATAGRAMS](server, parts, asks, open)


def _in_script(server: Any, parts: Parts, asks: int, open: bool) -> None:
    script = server.script().expect(ASK).send(*parts(SAID))
    for _ in range(asks - 1):
        script = script.expect(ASK).send(NEXT)
    if open:
        script.expect(BYE).send(BYTE if server.transport in DATAGRAMS else Close())


def _in_handler(server: Any, parts: Parts, asks: int, open: bool) -> None:
    def serve(conn: Any) -> None:
        said: tuple[Any, ...] = parts(SAID)
        while conn.recv_line() == ASK:
            conn.send(*said)
            if isinstance(said[-1], (Close, Reset)):
                return
            said = (NEXT,)

    server.handler(serve)


def _in_datagram_handler(server: Any, parts: Parts, asks: int, open: bool) -> None:
    replies: Iterator[Any] = iter([list(parts(SAID))] + [[NEXT]] * (asks - 1))
    server.handler(lambda request: BYTE if request == BYE else next(replies))


def _in_rule(server: Any, parts: Parts, asks: int, open: bool) -> None:
    server.on(ASK).reply(*parts(SAID)).then(NEXT)
    server.on(BYE).reply(BYTE if server.transport in DATAGRAMS else Close())


def _from_outside(server: Any, parts: Parts, asks: int, open: bool) -> None:
    _in_rule(server, lambda data: (data,), asks, open)
    server.inject(*parts(DATA), times=1)


DECLARE: dict[tuple[str, bool], Callable[[Any, Parts, int, bool], None]] = {
    ("script", False): _in_script,
    ("script", True): _in_script,
    ("handler", False): _in_handler,
    ("handler", True): _in_datagram_handler,
    ("rule", False): _in_rule,
    ("rule", True): _in_rule,
    ("inject", False): _from_outside,
    ("inject", True): _from_outside,
}


# Rows of parts


def in_places(
    id: str,
    name: str,
    parts: Parts,
    observe: Callable[[Client], object],
    expected: Any,
    *,
    transports: tuple[str, ...] = EVERYWHERE,
    options: Mapping[str, Any] | None = None,
    asks: int = 1,
    open: bool = True,
) -> list[Row]:
    """Return the rows of a reply that is declared in each of the places."""
    shows = types_in(parts(SAID))
    return [
        Row(
            id,
            name,
            transports,
            partial(say, place=place, parts=parts, asks=asks, open=open),
            observe,
            expected,
            options or {},
            shows,
            place,
        )
        for place in PLACES
    ]


def reply(
    id: str,
    name: str,
    parts: Parts,
    *said: bytes,
    end: str = "",
    asks: int = 1,
    least: float = 0.0,
    transports: tuple[str, ...] = EVERYWHERE,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Return the rows of a reply, in each of the places.

    Args:
        parts: A function of what is said where nothing is wrong.
        said: What the client must see: these datagrams, or, on a stream, these bytes.
        end: How the connection ends, without ``BYE``; ``""`` for not at all.
        asks: How often the client asks, without waiting for an answer.
        least: Seconds that it takes, or more.
    """
    streams = tuple(each for each in transports if each in STREAMS)
    datagrams = tuple(each for each in transports if each in DATAGRAMS)
    rows = in_places(
        id,
        name,
        parts,
        partial(see_stream, count=sum(map(len, said)), end=end, asks=asks, least=least),
        (b"".join(said), end or END, "in time"),
        transports=streams,
        options=options,
        asks=asks,
        open=not end,
    )
    if datagrams:
        rows += in_places(
            id,
            name,
            parts,
            partial(see_datagrams, count=len(said), asks=asks, least=least),
            (list(said), "in time"),
            transports=datagrams,
            options=options,
            asks=asks,
        )
    return [row for row in rows if row.transports]


def see_stream(client: Client, *, count: int, end: str, asks: int, least: float) -> object:
    """Return all that comes, how it ends, and whether that took long enough."""
    sock, watch = client.connected(), Watch()
    sock.sendall(ASK * asks + (BYE if end in ("", SILENCE) else b""))  # which a stalled server does not hear
    if end == SILENCE:
        data, follows = read(sock, count), after(sock)
        return (data + follows, "", "") if isinstance(follows, bytes) else (data, follows, watch.least(least))
    return *client.rest(sock, hard=end == "ECONNRESET"), watch.least(least)


def see_datagrams(client: Client, *, count: int, asks: int, least: float) -> object:
    """Return all datagrams that come, and whether that took long enough."""
    sock, watch = client.socket(), Watch()
    sock.connect(client.server.address)
    for _ in range(asks):
        sock.send(ASK)
    seen = [sock.recv(65536) for _ in range(count)]
    took = watch.least(least)
    sock.send(BYE)
    while (datagram := sock.recv(65536)) != BYTE:
        seen.append(datagram)
    return seen, took
