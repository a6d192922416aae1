"""A thousand connections at once: each connects, and only then each is answered."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

from measure import Effort, Measured, Samples, Unavailable, by_turns, ratio, shown
from pytest_sockserver import StreamTestServer
from traffic import LINE, EchoLines

CROWD = 1000


@dataclass(frozen=True)
class Run:
    """Seconds for connecting and one answer each; for the stop; for all of it."""

    served: float
    stopped: float
    whole: float


class StandardServer(socketserver.ThreadingTCPServer):
    # Its default of 5 would lose most of the crowd, who would come back after a second or more.
    request_queue_size = socket.SOMAXCONN
    daemon_threads = True


def ours() -> Run:
    server = StreamTestServer()
    server.handler(EchoLines)
    with ExitStack() as clients:
        began = perf_counter()
        server.start()
        talk(server.address, clients)
        served = perf_counter()
        server.stop()
        stopped = perf_counter()
    whole = perf_counter() - began
    server.verify()
    if len(server.requests) != CROWD:
        raise AssertionError(f"{len(server.requests)} of {CROWD} were recorded")
    return Run(served - began, stopped - served, whole)


def standard() -> Run:
    with ExitStack() as clients:
        began = perf_counter()
        server = StandardServer(("127.0.0.1", 0), EchoLines)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        talk(server.server_address, clients)
        served = perf_counter()
        server.shutdown()
        server.server_close()
        thread.join()
        stopped = perf_counter()
    return Run(served - began, stopped - served, perf_counter() - began)


def talk(address: Any, clients: ExitStack) -> None:
    crowd = []
    for _ in range(CROWD):
        client = clients.enter_context(socket.socket())
        client.connect(address)
        crowd.append(client)
    for client in crowd:
        client.sendall(LINE)
    for client in crowd:
        if client.recv(64) != LINE:
            raise AssertionError("a client had no reply")


@cache
def runs(effort: Effort) -> tuple[list[Run], list[Run]]:
    """Run both by turns; once for both rows."""
    _allow_descriptors(2 * CROWD + 100)
    samples: tuple[list[Run], list[Run]] = ([], [])

    def kept(run: Run, into: list[Run]) -> float:
        into.append(run)
        return run.whole

    by_turns(lambda: kept(ours(), samples[0]), lambda: kept(standard(), samples[1]), effort.seconds(8), least=2)
    return samples[0][1:], samples[1][1:]


def without_stop(effort: Effort) -> Measured:
    us, them = runs(effort)
    return ratio([run.served for run in us], [run.served for run in them])


def with_stop(effort: Effort) -> Measured:
    us, them = runs(effort)
    stops: Samples = sorted(run.stopped for run in us)
    return ratio(
        [run.whole for run in us], [run.whole for run in them], f"our stop alone {shown(stops[len(stops) // 2])}"
    )


def _allow_descriptors(wanted: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise Unavailable(f"it takes {wanted:,} descriptors, and {hard:,} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
