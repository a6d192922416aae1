"""How long ``stop()`` takes, whatever the connections are doing.

Each situation is arranged anew each time, in a process where nothing else runs, and left alone for a moment, so that
what has to block blocks.  Afterwards the server must have nothing to complain about: to be stopped is no failure.
"""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from time import perf_counter, sleep
from typing import Any

from measure import Effort, Measured, Samples, Unavailable, milliseconds
from pytest_sockserver import Connection, DatagramTestServer, StreamTestServer

#: Seconds for a thread to get from its last Python statement into the system call in which it blocks.
SETTLE = 0.003

#: More than the kernel takes of one connection that nobody reads: Linux holds up to 4 MiB to send and 6 to be read.
MORE = bytes(16 << 20)

Situation = Callable[[ExitStack, Any], None]


def measured(arrange: Situation, effort: Effort, *, new: Callable[[], Any] = StreamTestServer) -> Measured:
    """Arrange, stop, and say how long the stops took."""
    samples: Samples = []
    until = perf_counter() + effort.seconds(2)
    while len(samples) < 5 or perf_counter() < until:
        with ExitStack() as stack:
            server = new()
            server.start()
            stack.callback(server.verify)
            stack.callback(server.stop)
            arrange(stack, server)
            sleep(SETTLE)
            began = perf_counter()
            server.stop()
            samples.append(perf_counter() - began)
    return milliseconds(samples[1:])


def client_of(stack: ExitStack, server: StreamTestServer) -> socket.socket:
    client = stack.enter_context(socket.socket(socket.AF_INET if server.transport == "tcp" else socket.AF_UNIX))
    client.connect(server.address)
    return client


# Situations


def idle(stack: ExitStack, server: Any) -> None:
    """Nobody has connected."""


def silent(stack: ExitStack, server: StreamTestServer) -> None:
    """A client has connected, nothing is declared."""
    client_of(stack, server)
    server.wait_connection()


def half_a_request(stack: ExitStack, server: StreamTestServer) -> None:
    """Half a line has come, a handler wants all of it."""
    handled_by(recv_line, stack, server).sendall(b"half a li")
    server.wait_connection().wait_received(b"half a li")


def handled_by(handler: Any, stack: ExitStack, server: StreamTestServer, count: int = 1) -> socket.socket:
    """Clients are silent, handlers read."""
    server.handler(handler)
    for _ in range(count):
        client = client_of(stack, server)
    server.wait_connection(count - 1)
    return client


def unread(handler: Any, stack: ExitStack, server: StreamTestServer) -> None:
    """A handler sends more than the kernel takes, to a client that does not read."""
    handled_by(handler, stack, server)
    connection = server.wait_connection()
    deadline = perf_counter() + 5
    while not connection.sent_count:
        if perf_counter() > deadline:
            raise AssertionError("the handler did not send")
        sleep(0.001)


def handshake(stack: ExitStack, server: StreamTestServer) -> None:
    """A handler waits for the client's part of a TLS handshake."""
    try:
        import ssl

        import trustme
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate().configure_cert(context)
    handled_by(lambda conn: conn.start_tls(context), stack, server)
    del trustme


def certificate() -> Any:
    """Return a certificate for localhost; made once, since that takes longer than all stops together."""
    import trustme

    global _certificate
    if _certificate is None:
        _certificate = trustme.CA().issue_cert("localhost")
    return _certificate


_certificate: Any = None


# Handlers


def recv(conn: Connection) -> None:
    conn.recv()


def recv_line(conn: Connection) -> None:
    conn.recv_line()


def send(conn: Connection) -> None:
    conn.send(MORE)


class Recv(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(65536)


class ReadLine(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()


class SendAll(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(MORE)


SITUATIONS: dict[str, tuple[str, Callable[[Effort], Measured]]] = {
    "idle": ("idle", partial(measured, idle)),
    "idle-udp": ("idle, UDP", partial(measured, idle, new=DatagramTestServer)),
    "idle-unix": ("idle, unix", partial(measured, idle, new=partial(StreamTestServer, transport="unix"))),
    "silent": ("a silent client, nothing declared", partial(measured, silent)),
    "half": ("half a request was sent", partial(measured, half_a_request)),
    "recv": ("handler in recv()", partial(measured, partial(handled_by, recv))),
    "recv-line": ("handler in recv_line()", partial(measured, partial(handled_by, recv_line))),
    "recv-class": ("class in request.recv()", partial(measured, partial(handled_by, Recv))),
    "readline": ("class in rfile.readline()", partial(measured, partial(handled_by, ReadLine))),
    "send": ("handler in send(), client does not read", partial(measured, partial(unread, send))),
    "sendall": ("class in sendall(), client does not read", partial(measured, partial(unread, SendAll))),
    "tls": ("handler in a TLS handshake, client silent", partial(measured, handshake)),
}

FIFTY: dict[str, tuple[str, Callable[[Effort], Measured]]] = {
    "fifty": ("50 connections, handlers in recv_line()", partial(measured, partial(handled_by, recv_line, count=50))),
    "fifty-class": (
        "50 connections, handler classes in readline()",
        partial(measured, partial(handled_by, ReadLine, count=50)),
    ),
}
