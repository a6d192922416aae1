"""No message is missed: clients send and end at once, and then the server is stopped.

What has reached this machine's kernel when ``stop()`` is called is recorded, and handled, before the server ends.  Each
round makes a new server, lets clients do what their pattern says, stops, and compares what was recorded and what the
handler took with what was sent.  The rounds go through all combinations of transport, handler and pattern.
"""

from __future__ import annotations

import ast
import itertools
import os
import socket
import socketserver
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from pytest_sockserver import Connection, DatagramTestServer, Request, StreamTestServer

LINE = b"one line of a client\r\n"

#: A line that handlers answer.
QUESTION, ANSWER = b"?\r\n", b"!\r\n"

MEGABYTE = b"m" * ((1 << 20) - 1) + b"\n"

#: Seconds that any single step of a client may take.
PATIENCE = 20.0


# ----------------------------------------------------------------------------------------------------- stream clients
# Each takes a function that returns a connected socket, and returns what each of its connections has sent.

Connect = Callable[[], socket.socket]


def closed(connect: Connect) -> list[bytes]:
    with connect() as client:
        client.sendall(LINE)
    return [LINE]


def left_open(connect: Connect) -> list[bytes]:
    connect().sendall(LINE)
    return [LINE]


def half_closed(connect: Connect) -> list[bytes]:
    client = connect()
    client.sendall(LINE)
    client.shutdown(socket.SHUT_WR)
    return [LINE]


def connected_only(connect: Connect) -> list[bytes]:
    connect().close()
    connect()
    return [b"", b""]


def trickle(connect: Connect) -> list[bytes]:
    client = connect()
    for piece in (LINE[:3], LINE[3:4], LINE[4:11], LINE[11:], LINE):
        client.sendall(piece)
    return [LINE * 2]


def held_back(connect: Connect) -> list[bytes]:
    """After some questions and answers, two small writes: Nagle's algorithm keeps the second in the client's kernel."""
    client = connect()
    for _ in range(3):
        client.sendall(QUESTION)
        if client.recv(64) != ANSWER:
            raise AssertionError("the answer is not what was expected")
    client.sendall(LINE[:4])
    client.sendall(LINE[4:])
    return [QUESTION * 3 + LINE]


def five_clients(connect: Connect) -> list[bytes]:
    clients = [connect() for _ in range(5)]
    for number, client in enumerate(clients):
        client.sendall(LINE)
        if number % 2:
            client.close()
    return [LINE] * 5


def megabyte_closed(connect: Connect) -> list[bytes]:
    with connect() as client:
        client.sendall(MEGABYTE)
    return [MEGABYTE]


def megabyte_open(connect: Connect) -> list[bytes]:
    connect().sendall(MEGABYTE)
    return [MEGABYTE]


STREAM_CLIENTS: dict[str, Callable[[Connect], list[bytes]]] = {
    "closed": closed,
    "open": left_open,
    "half-closed": half_closed,
    "connect only": connected_only,
    "trickle": trickle,
    "held back": held_back,
    "five clients": five_clients,
    "1 MB, closed": megabyte_closed,
    "1 MB, open": megabyte_open,
}

#: The patterns in which every client ends what it sends.
ENDED = ("closed", "half-closed", "1 MB, closed")


# --------------------------------------------------------------------------------------------------- datagram clients


def one_datagram(connect: Connect) -> list[bytes]:
    with connect() as client:
        client.send(LINE)
    return [LINE]


def left_bound(connect: Connect) -> list[bytes]:
    connect().send(LINE)
    return [LINE]


def burst(connect: Connect) -> list[bytes]:
    sent = [b"%d" % number for number in range(50)]
    with connect() as client:
        for data in sent:
            client.send(data)
    return sent


def five_senders(connect: Connect) -> list[bytes]:
    sent = [b"%d" % number for number in range(5)]
    for data in sent:
        connect().send(data)
    return sent


DATAGRAM_CLIENTS: dict[str, Callable[[Connect], list[bytes]]] = {
    "one": one_datagram,
    "one, open": left_bound,
    "burst of 50": burst,
    "five clients": five_senders,
}


# --------------------------------------------------------------------------------------------------------- handlers
# Each puts what it has taken into ``taken``, by connection; for datagrams there is one entry.


class Taken:
    """What handlers took, in the order of connections."""

    def __init__(self) -> None:
        self.chunks: dict[int, list[bytes]] = {}

    def add(self, index: int, data: bytes) -> None:
        self.chunks.setdefault(index, []).append(bytes(data))

    def joined(self, index: int) -> bytes:
        return b"".join(self.chunks.get(index, ()))


def lines(taken: Taken) -> Any:
    def handle(conn: Connection) -> None:
        while True:
            line = conn.recv_line()
            taken.add(conn.index, line)
            if line == QUESTION:
                conn.send(ANSWER)

    return handle


def chunks(taken: Taken) -> Any:
    def handle(conn: Connection) -> None:
        while data := conn.recv():
            taken.add(conn.index, data)
            if data == QUESTION:
                conn.send(ANSWER)

    return handle


def class_with_lines(taken: Taken) -> Any:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            index = self.request.connection.index
            while line := self.rfile.readline():
                taken.add(index, line)
                if line == QUESTION:
                    self.wfile.write(ANSWER)

    return Handler


def class_with_chunks(taken: Taken) -> Any:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            index = self.request.connection.index
            while data := self.request.recv(4096):
                taken.add(index, data)
                if data == QUESTION:
                    self.request.sendall(ANSWER)

    return Handler


def nothing(taken: Taken) -> Any:
    return None


def answering(taken: Taken) -> Any:
    def handle(request: Request) -> Any:
        taken.add(0, request)
        return ANSWER if request.peer else ()

    return handle


def class_for_datagrams(taken: Taken) -> Any:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            taken.add(0, self.request[0])

    return Handler


STREAM_HANDLERS = {
    "recv_line": lines,
    "recv": chunks,
    "class, readline": class_with_lines,
    "class, recv": class_with_chunks,
    "undeclared": nothing,
}
DATAGRAM_HANDLERS = {"function": answering, "class": class_for_datagrams, "undeclared": nothing}


# ------------------------------------------------------------------------------------------------------------ rounds


@dataclass(frozen=True)
class Case:
    transport: str
    handler: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.transport}, {self.handler}, {self.pattern}"


def cases() -> list[Case]:
    found = []
    if hasattr(socket, "AF_UNIX"):
        streams, datagrams = ("tcp", "unix"), ("udp", "unix_datagram")
    else:
        streams, datagrams = ("tcp",), ("udp",)
    for each in itertools.product(streams, STREAM_HANDLERS, STREAM_CLIENTS):
        if each[1:] != ("undeclared", "held back"):  # nobody would answer
            found.append(Case(*each))
    found += [Case(*each) for each in itertools.product(datagrams, DATAGRAM_HANDLERS, DATAGRAM_CLIENTS)]
    return found


@dataclass
class Counts:
    """What came of the rounds.

    Attributes:
        missed: Rounds in which something sent was not recorded, not handled, or both, by case.
        failed: Rounds in which the server complained, by case.
        examples: One line for each of the first few.
        stops: Seconds that each stop took.
    """

    rounds: int = 0
    missed: Counter[Case] = field(default_factory=Counter)
    failed: Counter[Case] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)

    def note(self, where: Counter[Case], case: Case, text: str) -> None:
        where[case] += 1
        if len(self.examples) < 20:
            self.examples.append(f"round {self.rounds}: {case}: {text}")


def run(rounds: int, *, seconds: float = 1e9, apart: bool = False, only: str = "") -> Counts:
    """Go through the cases, round by round.

    Args:
        seconds: End after so long, whatever the number of rounds.
        apart: The clients live in a process of their own.
        only: The cases in whose names this stands.
    """
    counts, until = Counts(), perf_counter() + seconds
    chosen = [case for case in cases() if only in str(case)]
    clients: Any = ClientsApart() if apart else ClientsHere()
    with clients:
        for case in itertools.islice(itertools.cycle(chosen), rounds):
            if perf_counter() > until:
                break
            one_round(case, clients, counts)
    return counts


def one_round(case: Case, clients: Any, counts: Counts) -> None:
    taken = Taken()
    stream = case.transport in ("tcp", "unix")
    server: Any = (StreamTestServer if stream else DatagramTestServer)(transport=case.transport)
    handler = (STREAM_HANDLERS if stream else DATAGRAM_HANDLERS)[case.handler](taken)
    if handler is not None:
        server.handler(handler)
    server.start()
    try:
        sent = clients.send(case, server.address)
        began = perf_counter()
    finally:
        server.stop()
    counts.stops.append(perf_counter() - began)
    clients.close()
    counts.rounds += 1
    compare = compare_streams if stream else compare_datagrams
    for text in compare(server, case, sent, taken):
        counts.note(counts.missed, case, text)
        break
    try:
        server.verify()
    except BaseException as error:
        counts.note(counts.failed, case, f"{type(error).__name__}: {error}".partition("\n")[0])


def compare_streams(server: StreamTestServer, case: Case, sent: list[bytes], taken: Taken) -> Iterator[str]:
    handled = case.handler != "undeclared"
    # recv() makes no requests, and what nobody reads becomes one when the client ends it.
    framed = case.handler != "recv" and (handled or case.pattern in ENDED)
    connections = server.connections
    if len(connections) != len(sent):
        yield f"{len(sent)} connected, {len(connections)} were accepted"
    for connection, data in zip(connections, sent, strict=False):
        if connection.received != data:
            yield f"{len(data)} bytes sent, {len(connection.received)} recorded"
        if handled and taken.joined(connection.index) != data:
            yield f"{len(data)} bytes sent and recorded, {len(taken.joined(connection.index))} handled"
    if framed:
        requests = sorted(b"".join(connection.requests) for connection in connections)
        if requests != sorted(sent):
            yield f"{len(b''.join(sent))} bytes sent and recorded, {len(b''.join(requests))} in requests"


def compare_datagrams(server: DatagramTestServer, case: Case, sent: list[bytes], taken: Taken) -> Iterator[str]:
    handled = case.handler != "undeclared"
    if server.requests != sent:
        yield f"{len(sent)} datagrams sent, {len(server.requests)} recorded"
    if handled and taken.chunks.get(0) != sent:
        yield f"{len(sent)} datagrams sent and recorded, {len(taken.chunks.get(0, []))} handled"


# ----------------------------------------------------------------------------------------------------- where they run


class ClientsHere:
    """Clients in this thread: the very one that stops the server next."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self._names = (f"{os.getpid()}-{number}" for number in itertools.count())

    def __enter__(self) -> ClientsHere:
        self._directory = tempfile.TemporaryDirectory(prefix="stress-")
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._directory.cleanup()

    def send(self, case: Case, address: Any) -> list[bytes]:
        patterns = STREAM_CLIENTS if case.transport in ("tcp", "unix") else DATAGRAM_CLIENTS
        return patterns[case.pattern](lambda: self._connect(case.transport, address))

    def close(self) -> None:
        for client in self._open:
            client.close()
        self._open.clear()

    def _connect(self, transport: str, address: Any) -> socket.socket:
        family = socket.AF_INET if transport in ("tcp", "udp") else socket.AF_UNIX
        kind = socket.SOCK_STREAM if transport in ("tcp", "unix") else socket.SOCK_DGRAM
        client = socket.socket(family, kind)
        self._open.append(client)
        client.settimeout(PATIENCE)
        if transport == "unix_datagram":
            client.bind(os.path.join(self._directory.name, next(self._names)))
        client.connect(address)
        return client


class ClientsApart:
    """Clients in a process of their own, which says when they have sent all."""

    def __enter__(self) -> ClientsApart:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        with self._process:  # closes its standard input, which ends it
            pass

    def send(self, case: Case, address: Any) -> list[bytes]:
        self._say((case.transport, case.handler, case.pattern, address))
        sent: list[bytes] = [MEGABYTE if data is None else data for data in ast.literal_eval(self._hear())]
        return sent

    def close(self) -> None:
        self._say(None)
        self._hear()

    def _say(self, command: object) -> None:
        assert self._process.stdin is not None
        print(repr(command), file=self._process.stdin, flush=True)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError("the process of the clients has ended")
        return answer


def be_the_clients() -> None:
    """Do in this process what ``ClientsApart`` says; a megabyte is told as None."""
    with ExitStack() as stack:
        clients = stack.enter_context(ClientsHere())
        for command in sys.stdin:
            what = ast.literal_eval(command)
            if what is None:
                clients.close()
                print(flush=True)
            else:
                sent = clients.send(Case(*what[:3]), what[3])
                print([None if data == MEGABYTE else data for data in sent], flush=True)


if __name__ == "__main__":
    be_the_clients()
