"""A server's whole life: start, one request, stop."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any

from floor import FloorServer
from measure import Effort, Measured, by_turns, ratio, timed
from pytest_sockserver import Connection, StreamTestServer

#: Lives of each, at most.  A closed connection keeps its port for a minute, and when there are ten thousand of them the
#: kernel's search for a free port takes longer than all else.
MOST = 500

REQUEST, REPLY = b"PING\r\n", b"+PONG\r\n"


def ask(address: Any) -> None:
    """Be a client with one request."""
    with socket.socket() as client:
        client.connect(address)
        client.sendall(REQUEST)
        if client.recv(64) != REPLY:
            raise AssertionError("the reply is not what was expected")


class Ping(socketserver.StreamRequestHandler):
    """The handler as the standard library wants it; it serves on both."""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(REPLY)


def by_verbs(conn: Connection) -> None:
    conn.recv_line()
    conn.send(REPLY)


def by_hand(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(REPLY)


def recorded(handler: Any) -> None:
    server = StreamTestServer()
    server.handler(handler)
    server.start()
    ask(server.address)
    server.stop()


def floor() -> None:
    server = FloorServer(by_hand)
    server.start()
    ask(server.address)
    server.stop()


def standard_library() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Ping) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        ask(server.server_address)
        server.shutdown()
        thread.join()


def verbs_against_floor(effort: Effort) -> Measured:
    return against_floor(by_verbs, effort)


def class_against_floor(effort: Effort) -> Measured:
    return against_floor(Ping, effort)


def against_floor(handler: Any, effort: Effort) -> Measured:
    return ratio(
        *by_turns(lambda: timed(lambda: recorded(handler)), lambda: timed(floor), effort.seconds(6), most=MOST)
    )


def against_standard_library(effort: Effort) -> Measured:
    ours, theirs = by_turns(
        lambda: timed(lambda: recorded(Ping)), lambda: timed(standard_library), effort.seconds(5), least=3
    )
    return ratio(theirs, ours)
