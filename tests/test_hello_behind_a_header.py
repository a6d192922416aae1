"""A TLS hello right behind a PROXY header begins TLS; one that came before the server's go-ahead does not."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Callable

import pytest

from pytest_sockserver import (
    DATA,
    Connection,
    Hex,
    ScriptMismatch,
    SockServer,
    StartTLS,
    StreamTestServer,
    lines,
)

from .peers import connect

V1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack(
    "!H4s4sHH", 12, socket.inet_aton("203.0.113.7"), socket.inet_aton("127.0.0.1"), 56324, 443
)


class HandMadeClient:
    """A client whose TLS records are written when the test wants them to be."""

    def __init__(self, server: StreamTestServer) -> None:
        self.sock = connect(server)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = server.client_context().wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def __enter__(self) -> HandMadeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def hello(self) -> bytes:
        """Return the ClientHello."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def ask(self, data: bytes) -> bytes:
        """End the handshake, send something, and return the answer."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                self.incoming.write(self.sock.recv(65536))
        self.tls.write(data)
        self.sock.sendall(self.outgoing.read())
        while True:
            try:
                return self.tls.read(100)
            except ssl.SSLWantReadError:
                self.incoming.write(self.sock.recv(65536))


def header_by_verbs(server: StreamTestServer, header: bytes) -> None:
    @server.handler
    def serve(conn: Connection) -> None:
        if header == V1:
            assert conn.recv_line() == V1
        else:
            head = conn.recv_exactly(16)
            conn.recv_exactly(int.from_bytes(head[14:], "big"))
        conn.start_tls()
        conn.send(conn.recv_line().upper())


def header_by_expect(server: StreamTestServer, header: bytes) -> None:
    @server.handler
    def serve(conn: Connection) -> None:
        conn.expect(header if header == V1 else Hex(V2[:16].hex(" ") + " <addresses:12>"))
        conn.start_tls()
        conn.send(conn.recv_line().upper())


def header_by_script(server: StreamTestServer, header: bytes) -> None:
    server.script().expect(header).start_tls().expect_line(b"hi").send(b"HI\n")


def header_by_pattern(server: StreamTestServer, header: bytes) -> None:
    match = re.compile(rb"PROXY [^\r]*\r\n") if header == V1 else Hex(V2[:16].hex(" ") + " <addresses:12>")
    server.framing = lines(b"\r\n") if header == V1 else None
    server.script().expect(match).start_tls().expect(b"hi\n").send(b"HI\n")


FACES = [header_by_verbs, header_by_expect, header_by_script, header_by_pattern]


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("cuts", ["one_segment", "two_segments", "hello_in_halves", "byte_by_byte"])
@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_tls_begins_behind_the_header(
    sockserver: SockServer,
    family: str,
    face: Callable[[StreamTestServer, bytes], None],
    cuts: str,
    header: bytes,
) -> None:
    server = getattr(sockserver, family)(tls=True)
    face(server, header)
    with HandMadeClient(server) as client:
        hello = client.hello()
        if cuts == "one_segment":
            client.sock.sendall(header + hello)
        elif cuts == "two_segments":
            client.sock.sendall(header)
            server.wait_connection().wait_received(header)
            client.sock.sendall(hello)
        elif cuts == "hello_in_halves":
            client.sock.sendall(header + hello[:2])
            server.wait_connection().wait_received(header)
            client.sock.sendall(hello[2:])
        else:
            for at in range(len(header)):
                client.sock.sendall(header[at : at + 1])
            client.sock.sendall(hello)

        assert client.ask(b"hi\n") == b"HI\n"

    assert server.connections[0].received == header + b"hi\n"


def test_rules_begin_tls_behind_the_header(sockserver: SockServer) -> None:
    server = sockserver.tcp(tls=True, framing=lines())
    server.on(re.compile(rb"PROXY .*\r\n")).reply(StartTLS())
    server.on(b"hi\r\n").reply(b"HI\r\n")

    with HandMadeClient(server) as client:
        client.sock.sendall(V1 + client.hello())
        assert client.ask(b"hi\r\n") == b"HI\r\n"


def test_a_step_that_is_passed_over_takes_no_hello(sockserver: SockServer) -> None:
    server = sockserver.tcp(tls=True)
    server.script().maybe(b"XX\r\n").expect(V1).start_tls().expect_line(b"hi").send(b"HI\n")

    with HandMadeClient(server) as client:
        client.sock.sendall(V1 + client.hello())
        assert client.ask(b"hi\n") == b"HI\n"


@pytest.mark.parametrize("begins", ["before", "behind"])
def test_an_injection_takes_no_hello(sockserver: SockServer, begins: str) -> None:
    server = sockserver.tcp(tls=True)
    server.script().expect(V1).start_tls().expect_line(b"hi").send(b"HI\n")
    if begins == "before":
        server.inject(DATA, direction="received")

    with HandMadeClient(server) as client:
        server.wait_connection()
        if begins == "behind":
            server.inject(DATA, direction="received")
        client.sock.sendall(V1 + client.hello())
        assert client.ask(b"hi\n") == b"HI\n"


def test_a_wait_for_the_header_takes_no_hello(sockserver: SockServer) -> None:
    server = sockserver.tcp(tls=True)

    with HandMadeClient(server) as client:
        conn = server.accept()
        client.sock.sendall(V1 + client.hello())
        conn.wait_received(V1)
        conn.expect(V1)
        handshake = server.in_thread(client.ask, b"hi\n")
        conn.start_tls()
        assert conn.recv_line() == b"hi\n"
        conn.send(b"HI\n")
        assert handshake.result() == b"HI\n"


def test_a_client_that_begins_before_the_go_ahead(sockserver: SockServer) -> None:
    server = sockserver.tcp(tls=True)

    @server.handler
    def serve(conn: Connection) -> None:
        conn.expect(b"STARTTLS\r\n")
        conn.send(b"220 go\r\n")
        conn.start_tls()

    with server.raises(ScriptMismatch, match="its ClientHello had come before that") as caught:
        with HandMadeClient(server) as client:
            client.sock.sendall(b"STARTTLS\r\n" + client.hello())
            assert client.sock.recv(100) == b"220 go\r\n"
            with pytest.raises(ConnectionResetError):
                client.sock.recv(100)

    assert "RFC 3207" in str(caught.value)


def test_plain_text_behind_the_command_is_an_injection(sockserver: SockServer) -> None:
    server = sockserver.tcp(tls=True)
    server.script().expect(b"STARTTLS\r\n").send(b"220 go\r\n").start_tls()

    with server.raises(ScriptMismatch, match=r"STARTTLS injection\)"):
        with HandMadeClient(server) as client:
            client.sock.sendall(b"STARTTLS\r\nMAIL FROM:<evil>\r\n" + client.hello())
            assert client.sock.recv(100) == b"220 go\r\n"
            with pytest.raises(ConnectionResetError):
                client.sock.recv(100)
