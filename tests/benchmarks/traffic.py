"""Bytes through one connection: echoed by turns, and in bulk."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, process_time
from typing import Any

from measure import Effort, Measured, by_turns, one_processor, ratio
from pytest_sockserver import Connection, StreamTestServer, lines

LINE = b"0123456789abcde\n"

#: Round trips for one sample: some milliseconds.
TRIPS = 200

MEGABYTE = bytes(1 << 20)


class EchoLines(socketserver.StreamRequestHandler):
    """The handler as the standard library wants it; it serves on both."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


def echo_lines(conn: Connection) -> None:
    while True:
        conn.send(conn.recv_line())


def echo(handler: Any, effort: Effort) -> Measured:
    """Return how fast round trips are, recorded, against the standard library's server and nothing recorded."""
    with one_processor(), recording_server(handler) as server, standard_server(EchoLines) as standard:
        with connected(server.address) as ours, connected(standard) as theirs:
            samples = by_turns(lambda: trips(ours), lambda: trips(theirs), effort.seconds(5))
    return ratio(samples[1], samples[0])


def rules(handler: Any, effort: Effort) -> Measured:
    """Return how fast round trips are that rules answer, line by line, against a handler written by hand."""
    with one_processor(), StreamTestServer(framing=lines(b"\n")) as server, recording_server(handler) as other:
        server.on(b"PING\n").reply(b"+PONG\n")
        server.on(re.compile(rb"GET (\w+)\n")).reply(lambda request: b"$" + request.match[1] + b"\n")
        server.on(LINE).reply(LINE)
        with connected(server.address) as ours, connected(other.address) as theirs:
            samples = by_turns(lambda: trips(ours), lambda: trips(theirs), effort.seconds(5))
    return ratio(samples[1], samples[0])


def trips(client: socket.socket) -> float:
    """Return the seconds of processor time that a round trip takes, of both sides.

    On one processor, and with nobody else on it, that is the time that passes; and it is the same beside others.
    """
    began = process_time()
    for _ in range(TRIPS):
        client.sendall(LINE)
        client.recv(64)
    return (process_time() - began) / TRIPS


@contextmanager
def recording_server(handler: Any, **options: Any) -> Iterator[StreamTestServer]:
    with StreamTestServer(**options) as server:
        server.handler(handler)
        yield server


@contextmanager
def standard_server(handler: Any) -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def connected(address: Any) -> Iterator[socket.socket]:
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect(address)
        yield client


# Bulk

_over = threading.Event()  # a receiver has seen the end of its stream


def recv_by_hand(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass
    _over.set()


def keep_by_hand(sock: socket.socket) -> None:
    kept = []
    while data := sock.recv(65536):
        kept.append(data)
    _over.set()


def recv_into_by_hand(sock: socket.socket) -> None:
    buffer = bytearray(65536)
    while sock.recv_into(buffer):
        pass
    _over.set()


class Recv(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        recv_by_hand(self.request)


class RecvInto(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        recv_into_by_hand(self.request)


def recv_by_verb(conn: Connection) -> None:
    while conn.recv():
        pass
    _over.set()


def bulk(handler: Any, bare: Callable[[socket.socket], None], record_limit: int, effort: Effort) -> Measured:
    """Return how fast a large upload is, recorded, against a bare loop.

    Fresh memory costs more than all else: what keeps everything is compared with a loop that keeps everything, and what
    keeps next to nothing with one that keeps nothing.
    """
    megabytes = effort.count(48, least=4)
    ours, theirs = by_turns(
        lambda: upload_recorded(handler, megabytes, record_limit),
        lambda: upload_bare(bare, megabytes),
        effort.seconds(3),
    )
    return ratio(theirs, ours, f"{megabytes} MB each")


def upload_recorded(handler: Any, megabytes: int, record_limit: int) -> float:
    with recording_server(handler, record_limit=record_limit) as server:
        seconds = upload(server.address, megabytes)
        if server.connections[0].received_count != megabytes * len(MEGABYTE):
            raise AssertionError("not every byte was counted")
        return seconds


def upload_bare(receive: Callable[[socket.socket], None], megabytes: int) -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                receive(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        seconds = upload(listener.getsockname(), megabytes)
        thread.join()
        return seconds


def upload(address: Any, megabytes: int) -> float:
    """Return the seconds from the first byte sent to the end of the stream seen."""
    _over.clear()
    with connected(address) as client:
        began = perf_counter()
        for _ in range(megabytes):
            client.sendall(MEGABYTE)
        client.shutdown(socket.SHUT_WR)
        if not _over.wait(60):
            raise AssertionError("the end of the stream did not come")
        return perf_counter() - began


def memory(effort: Effort) -> Measured:
    """Return the memory that a recording takes at most, as a part of ``record_limit``."""
    limit = 4 << 20
    with recording_server(recv_by_verb, record_limit=limit) as server:
        tracemalloc.start()
        try:
            upload(server.address, effort.count(64, least=8))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    value = peak / limit
    return Measured(value, value, value, f"{peak / 2**20:.1f} MiB at most, all included, of a limit of 4 MiB")
