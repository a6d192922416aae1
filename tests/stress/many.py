"""Many servers, started and stopped in many threads at once, each with a client; and nothing left of them."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from pytest_sockserver import Connection, DatagramTestServer, StreamTestServer

REQUEST, REPLY = b"PING\r\n", b"+PONG\r\n"

#: Seconds that a client waits for its reply.
PATIENCE = 30.0


@dataclass
class Counts:
    """What came of it: servers by transport, what went wrong, and what was left at the end."""

    servers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    lives: list[float] = field(default_factory=list)


def run(rounds: int, *, seconds: float = 1e9, threads: int = 8) -> Counts:
    """Live ``rounds`` lives of servers in so many threads, for at most so long."""
    counts, lock = Counts(), threading.Lock()  # guards counts and the numbers
    numbers, until = iter(range(rounds)), perf_counter() + seconds
    before = remaining()

    def live() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None or perf_counter() > until:
                return
            transport = TRANSPORTS[number % len(TRANSPORTS)]
            began = perf_counter()
            try:
                one_life(transport)
            except BaseException as error:
                with lock:
                    counts.wrong.append(f"{transport}: {type(error).__name__}: {error}".partition("\n")[0])
            with lock:
                counts.servers[transport] += 1
                counts.lives.append(perf_counter() - began)

    runners = [threading.Thread(target=live) for _ in range(threads)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    counts.left = sorted((remaining() - before).elements())
    return counts


def by_verbs(conn: Connection) -> None:
    conn.recv_line()
    conn.send(REPLY)


TRANSPORTS = ("tcp", "udp", "unix") if hasattr(socket, "AF_UNIX") else ("tcp", "udp")


def one_life(transport: str) -> None:
    server: Any
    if transport == "udp":
        server = DatagramTestServer()
        server.handler(lambda request: REPLY)
    else:
        server = StreamTestServer(transport=transport)
        server.handler(by_verbs)
    with server, client_of(server) as client:
        client.send(REQUEST)
        if client.recv(64) != REPLY:
            raise AssertionError("the reply is not what was expected")
        if server.requests != [REQUEST]:
            raise AssertionError(f"recorded {server.requests}")


def client_of(server: Any) -> socket.socket:
    family = socket.AF_UNIX if server.transport == "unix" else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM if server.transport == "udp" else socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect(server.address)
    return client


def remaining() -> Counter[str]:
    """The threads and descriptors that there are, by name and kind."""
    there = Counter(thread.name for thread in threading.enumerate())
    if os.path.isdir("/proc/self/fd"):
        for number in os.listdir("/proc/self/fd"):
            try:
                there[os.readlink(f"/proc/self/fd/{number}").partition(":[")[0]] += 1
            except OSError:
                pass  # the listing's own
    return there
