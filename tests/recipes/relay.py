"""A relay that hands on what a client says byte by byte: whatever a server declares must not depend on segments."""

from __future__ import annotations

import contextlib
import socket

from pytest_sockserver import Connection, SockServer, StreamTestServer


def byte_by_byte(sockserver: SockServer, server: StreamTestServer) -> tuple[str, int]:
    """Return the address of a relay to a server."""
    relay = sockserver.tcp(name="relay")

    @relay.handler
    def hand_on(conn: Connection) -> None:
        with socket.create_connection(server.address) as upstream:
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = relay.in_thread(_hand_back, upstream, conn)
            while said := conn.recv():
                for byte in said:
                    upstream.sendall(bytes([byte]))
            with contextlib.suppress(OSError):  # the server was faster
                upstream.shutdown(socket.SHUT_WR)
            answers.result()

    return relay.host, relay.port


def _hand_back(upstream: socket.socket, conn: Connection) -> None:
    try:
        while said := upstream.recv(65536):
            conn.send(said)
        conn.send_eof()
    except ConnectionError:
        conn.reset()
