"""Stop in the midst of everything: while a client connects, a handler starts, a connection closes, others stop too.

Every round makes a server and lets things happen to it at the same time, as near to each other as threads can be let
go.  Whatever wins, the rules are the same: no exception but those a client may expect of a server that is gone, no
failure on the server's side, every thread ends, and a server that was stopped can be started again, on its address.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from many import PATIENCE, remaining

from pytest_sockserver import Connection, StreamTestServer

LINE = b"one line\r\n"

#: Seconds after which a thread of a round counts as stuck.
STUCK = 30.0


@dataclass
class Counts:
    """Rounds by race, what went wrong, what was left, and the seconds of each stop."""

    rounds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)


def run(rounds: int, *, seconds: float = 1e9) -> Counts:
    """Go through the races, round by round."""
    counts, until = Counts(), perf_counter() + seconds
    before = remaining()
    for number in range(rounds):
        if perf_counter() > until:
            break
        name = list(RACES)[number % len(RACES)]
        counts.rounds[name] += 1
        try:
            RACES[name](counts)
        except BaseException as error:
            counts.wrong.append(f"round {number}: {name}: {type(error).__name__}: {error}".partition("\n")[0])
    counts.left = sorted((remaining() - before).elements())
    return counts


def at_once(*tasks: Callable[[], None]) -> None:
    """Run all of them at the same time, each in a thread of its own; raise the first exception of any."""
    gate, errors = threading.Barrier(len(tasks)), []

    def run(task: Callable[[], None]) -> None:
        try:
            gate.wait(STUCK)
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STUCK)
        if thread.is_alive():
            raise AssertionError(f"{thread.name} is stuck")
    if errors:
        raise errors[0]


def started(handler: Any) -> StreamTestServer:
    server = StreamTestServer()
    if handler is not None:
        server.handler(handler)
    server.start()
    return server


def stopped(server: StreamTestServer, counts: Counts) -> None:
    began = perf_counter()
    server.stop()
    counts.stops.append(perf_counter() - began)
    if server.is_running:
        raise AssertionError("it runs")


def client_of(server: StreamTestServer) -> socket.socket:
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.connect(server.address)
    return client


def talk(server: StreamTestServer) -> None:
    """Connect, send and read to the end; a server that is gone is no error."""
    try:
        with client_of(server) as client:
            client.sendall(LINE)
            while client.recv(64):
                pass
    except ConnectionError:
        pass


def echo(conn: Connection) -> None:
    while True:
        conn.send(conn.recv_line())


def close_at_once(conn: Connection) -> None:
    conn.close()


# Races


def while_clients_connect(counts: Counts) -> None:
    """Clients are queued, accepted, and their handlers started, while the server stops."""
    server = started(echo)
    clients: list[Callable[[], None]] = [lambda: talk(server)] * 4
    at_once(*clients, lambda: stopped(server, counts))
    server.verify()


def while_undeclared(counts: Counts) -> None:
    """The same with nothing declared: the connections go to one reader."""
    server = started(None)
    clients: list[Callable[[], None]] = [lambda: talk(server)] * 4
    at_once(*clients, lambda: stopped(server, counts))
    server.verify()


def while_connections_close(counts: Counts) -> None:
    """Handlers, clients and the stop all end the same connections."""
    server = started(close_at_once)
    clients = [client_of(server) for _ in range(3)]
    at_once(*(client.close for client in clients), lambda: stopped(server, counts))
    server.verify()


def seven_stop(counts: Counts) -> None:
    """Seven threads stop one server that has live connections."""
    server = started(echo)
    clients = [client_of(server) for _ in range(2)]
    clients[0].sendall(LINE)
    at_once(*[lambda: stopped(server, counts)] * 7)
    server.verify()
    for client in clients:
        client.close()


def while_starting(counts: Counts) -> None:
    """Some start and some stop; afterwards it starts and stops as ever, on the same address."""
    server = started(echo)
    address = server.address
    at_once(server.stop, server.start, server.stop, server.start)
    server.start()
    if server.address != address:
        raise AssertionError(f"{address} became {server.address}")
    with client_of(server) as client:
        client.sendall(LINE)
        if client.recv(64) != LINE:
            raise AssertionError("the reply is not what was expected")
    stopped(server, counts)
    server.verify()


def from_a_handler(counts: Counts) -> None:
    """A handler stops its own server, while another thread does."""
    held: list[StreamTestServer] = []

    def stop_it(conn: Connection) -> None:
        held[0].stop()

    server = started(stop_it)
    held.append(server)
    at_once(lambda: talk(server), server.stop)
    stopped(server, counts)
    server.verify()


RACES: dict[str, Callable[[Counts], None]] = {
    "while clients connect": while_clients_connect,
    "while undeclared": while_undeclared,
    "while connections close": while_connections_close,
    "seven stop": seven_stop,
    "while starting": while_starting,
    "from a handler": from_a_handler,
}
