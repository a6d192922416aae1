"""The clients that these tests are written with, and waiting for what nobody announces, without sleeping."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import Any

import trustme

from pytest_sockserver import Connection, StreamTestServer

# Seconds.  Nothing on loopback takes so long; a client that waits longer was forgotten.
PATIENCE = 5.0

LINGER_ZERO = struct.pack("ii", 1, 0)


def connect(server: Any) -> socket.socket:
    """Return a socket connected to a stream server, of whichever family its address is."""
    return connect_to(server.address)


def connect_to(address: Any) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address, PATIENCE)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    try:
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def datagram_client(server: Any, *, bound: bool = True) -> socket.socket:
    """Return a socket connected to a datagram server; on unix sockets with an address to reply to, unless told so."""
    address = server.address
    family = socket.AF_UNIX
    if isinstance(address, tuple):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE)
    try:
        if family == socket.AF_UNIX and bound:
            client.bind("")  # Linux chooses an abstract name
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Return all until the end of the stream."""
    chunks = []
    while data := client.recv(65536):
        chunks.append(data)
    return b"".join(chunks)


def read_exactly(client: socket.socket, count: int) -> bytes:
    """Return so many bytes, or what came before the end of the stream."""
    data = bytearray()
    while len(data) < count and (chunk := client.recv(min(65536, count - len(data)))):
        data += chunk
    return bytes(data)


def reset(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    client.close()


def until(claim: Callable[[], object], what: str = "it") -> None:
    """Wait until the claim holds; fail if it does not within ``PATIENCE``."""
    deadline = monotonic() + PATIENCE
    pause = threading.Event()
    while not claim():
        assert monotonic() < deadline, f"{what} has not become true in {PATIENCE} s"
        pause.wait(0.0005)


class Talk:
    """A client and the connection that the test has accepted from it; ``where`` is how messages name that."""

    def __init__(self, server: StreamTestServer) -> None:
        self.client = connect(server)
        self.conn = server.accept()
        self.where = f"{server.name}, connection {self.conn.index} ({place(self.client)})"

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def client_says(self, data: bytes) -> None:
        self.client.sendall(data)

    def client_ends(self) -> None:
        self.client.shutdown(socket.SHUT_WR)


class Taken:
    """The same as a pair, on any stream transport."""

    def __init__(self, server: StreamTestServer) -> None:
        self.server = server

    def __enter__(self) -> tuple[socket.socket, Connection]:
        self.client = connect(self.server)
        return self.client, self.server.accept()

    def __exit__(self, *error: object) -> None:
        self.client.close()


def untimed(message: str) -> str:
    """Take the times off the lines of a conversation."""
    return re.sub(r"\[\d+\.\d{3}\] ", "", message)


def place(client: socket.socket) -> str:
    """Return a client's address as messages write it."""
    host, port = client.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def threads_of_servers() -> list[str]:
    """Return the names of the threads of all servers that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sockserver ")]


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context, for localhost, and the context of a client that trusts it; in any thread."""
    with _one_at_a_time:
        return _tls_contexts()


_one_at_a_time = threading.Lock()


@cache
def _tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client
