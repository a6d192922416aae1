"""TLS on a connection: start_tls() with a context of the user's."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

import pytest

from pytest_sockserver import (
    Connection,
    DeadlineExceeded,
    Gate,
    ScriptMismatch,
    SockServer,
    StartTLS,
    StreamTestServer,
)

from .peers import (
    PATIENCE,
    Taken,
    arrived,
    connect,
    read_exactly,
    reset,
    tls_contexts,
    until,
    untimed,
)


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls_contexts()


def secured(client: socket.socket) -> ssl.SSLSocket:
    return tls_contexts()[1].wrap_socket(client, server_hostname="localhost")


def starttls(conn: Connection) -> None:
    """Upgrade, as SMTP does."""
    conn.expect(b"STARTTLS\r\n")
    conn.send(b"220 go\r\n")
    conn.start_tls(tls_contexts()[0])


def upgraded(server: StreamTestServer) -> ssl.SSLSocket:
    client = connect(server)
    client.sendall(b"STARTTLS\r\n")
    assert client.recv(100) == b"220 go\r\n"
    return secured(client)


def test_tls_is_spoken_after_start_tls_and_recorded_in_plain_text(server: StreamTestServer) -> None:
    @server.handler
    def serve(conn: Connection) -> None:
        starttls(conn)
        while True:
            conn.send(b"echo " + conn.recv_line())

    with upgraded(server) as client:
        client.sendall(b"hi\r\n")
        assert client.recv(100) == b"echo hi\r\n"
        client.sendall(b"x" * 100_000 + b"\r\n")
        assert read_exactly(client, 100_007) == b"echo " + b"x" * 100_000 + b"\r\n"
    conn = server.connections[0]
    conn.wait_closed()

    assert conn.requests == [b"STARTTLS\r\n", b"hi\r\n", b"x" * 100_000 + b"\r\n"]
    assert conn.sent == b"220 go\r\necho hi\r\necho " + b"x" * 100_000 + b"\r\n"
    assert conn.tls.version == "TLSv1.3"
    assert conn.tls.cipher[0].startswith("TLS_")
    assert conn.tls.error is None
    assert [line.partition("] ")[2] for line in str(conn).splitlines()[1:5]] == [
        "C: STARTTLS",
        "S: 220 go",
        "S! start-tls",
        "C: hi",
    ]


def test_tls_ends_with_close_notify_unless_told_otherwise(server: StreamTestServer) -> None:
    for notify in (True, False):

        @server.handler
        def serve(conn: Connection, notify: bool = notify) -> None:
            starttls(conn)
            conn.send(b"bye")
            conn.close(notify=notify)

        with connect(server) as plain:
            plain.sendall(b"STARTTLS\r\n")
            plain.recv(100)
            with tls_contexts()[1].wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            ) as client:
                assert client.recv(100) == b"bye"
                if notify:
                    assert client.recv(100) == b""
                else:
                    with pytest.raises(ssl.SSLEOFError):
                        client.recv(100)


def test_tls_half_close_is_an_end_that_the_client_reads_as_a_clean_one(server: StreamTestServer) -> None:
    """And nothing it says afterwards is taken for plain text: it is read as TLS, or lost."""

    @server.handler
    def serve(conn: Connection) -> None:
        starttls(conn)
        conn.send(b"x")
        conn.send_eof()
        conn.recv_all()

    with upgraded(server) as client:
        assert client.recv(1) == b"x"
        assert client.recv(1) == b""
        client.sendall(b"more")
    server.wait_connection().wait_closed()

    assert server.connections[0].received.removeprefix(b"STARTTLS\r\n") in (b"", b"more")


def test_tls_close_over_unread_input_records_no_ciphertext(server: StreamTestServer) -> None:
    said = threading.Event()

    @server.handler
    def serve(conn: Connection) -> None:
        starttls(conn)
        conn.expect(b"a")
        said.wait(PATIENCE)
        conn.send(b"bye")

    with upgraded(server) as client:
        client.sendall(b"a")
        client.sendall(b"never read")
        said.set()
        assert client.recv(100) == b"bye"
        assert client.recv(100) == b""
    conn = server.connections[0]
    conn.wait_closed()

    assert conn.received[:11] == b"STARTTLS\r\na"
    assert conn.received[11:] in (b"", b"never read")


def test_plain_text_already_there_when_tls_starts_is_refused(server: StreamTestServer) -> None:
    """STARTTLS injection: what a man in the middle sent in plain text would be taken for protected."""
    with Taken(server) as (client, conn):
        client.sendall(b"STARTTLS\r\nMAIL FROM:<evil>\r\n")
        conn.expect(b"STARTTLS\r\n")

        with pytest.raises(ScriptMismatch) as raised:
            conn.start_tls(tls_contexts()[0])

    assert untimed(str(raised.value)) == (
        f"{conn._where()}: expected a TLS handshake, but the client had sent plain text already, "
        "which would be taken for protected (STARTTLS injection)\n"
        "  got b'MAIL FROM:<evil>\\r\\n'\n"
        "    C: STARTTLS\n"
        "    C: MAIL FROM:<evil>"
    )
    assert conn.tls is None


def test_plain_text_still_in_the_kernel_when_tls_starts_is_refused(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        client.sendall(b"STARTTLS\r\n")
        conn.expect(b"STARTTLS\r\n")
        client.sendall(b"MAIL FROM:<evil>\r\n")
        until(lambda: arrived(conn))

        with pytest.raises(ScriptMismatch, match="STARTTLS injection"):
            conn.start_tls(tls_contexts()[0])


def test_a_client_that_speaks_tls_at_once_is_served_although_nobody_had_accepted_it_yet(
    server: StreamTestServer,
) -> None:
    """What was read ahead of accept() is the beginning of its handshake, and no plain text."""

    def talk_tls() -> bytes:
        with connect(server) as plain, secured(plain) as client:
            return client.recv(100)

    reply = server.in_thread(talk_tls)
    server.wait_connection()
    until(lambda: server.connections[0].received_count or arrived(server.connections[0]))

    conn = server.accept()
    conn.start_tls(tls_contexts()[0])
    conn.send(b"hi")

    assert reply.result(PATIENCE) == b"hi"
    assert conn.received == b""


def test_a_refused_certificate_is_recorded_and_fails_no_handler(server: StreamTestServer) -> None:
    """It may be the test's subject."""
    server.handler(starttls)

    with connect(server) as plain:
        plain.sendall(b"STARTTLS\r\n")
        plain.recv(100)
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
    conn = server.connections[0]
    conn.wait_closed()

    server.verify()
    assert isinstance(conn.tls.error, ssl.SSLError)
    assert conn.tls.version is None


def test_a_refused_certificate_is_an_error_of_the_test_that_drives_the_connection(server: StreamTestServer) -> None:
    def refuse() -> None:
        with connect(server) as plain:
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")

    # Accepted before the client speaks: nothing is read ahead.
    with Taken(server) as (plain, conn):
        refusing = server.in_thread(ssl.create_default_context().wrap_socket, plain, server_hostname="localhost")
        with pytest.raises(ssl.SSLError):
            conn.start_tls(tls_contexts()[0])
        assert isinstance(refusing.exception(PATIENCE), ssl.SSLError)
    assert isinstance(conn.tls.error, ssl.SSLError)


@pytest.mark.parametrize("said", [b"", bytes.fromhex("16030102")], ids=["silent", "half a hello"])
def test_a_client_that_has_reset_before_the_handshake_fails_nothing(
    tcp_server: StreamTestServer, contexts: Any, said: bytes
) -> None:
    tcp_server.script().expect(b"STARTTLS\r\n").send(Gate("gone"), StartTLS(contexts[0]))

    with connect(tcp_server) as client:
        client.sendall(b"STARTTLS\r\n")
        tcp_server.wait_for(b"STARTTLS\r\n")
        client.sendall(said)
        reset(client)
    tcp_server.open("gone")

    conn = tcp_server.connections[0]
    conn.wait_closed()
    assert isinstance(conn.tls.error, OSError)


@pytest.mark.parametrize("said", [b"", bytes.fromhex("16030102")], ids=["silent", "half a hello"])
def test_a_handshake_that_does_not_end_has_a_deadline(server: StreamTestServer, said: bytes) -> None:
    with Taken(server) as (client, conn):
        client.sendall(said)
        until(lambda: not said or conn.received_count or arrived(conn))

        with pytest.raises(DeadlineExceeded) as raised:
            conn.start_tls(tls_contexts()[0], timeout=0.1)

    assert untimed(str(raised.value)) == (
        f"{conn._where()}: start_tls() waited 0.1 s for the client's handshake\n    S! start-tls"
    )
    assert conn.tls.error is raised.value


def test_the_context_is_left_as_it_was(server: StreamTestServer, contexts: Any) -> None:
    server.handler(starttls)
    usual = contexts[0].sslsocket_class

    with upgraded(server):
        pass

    assert contexts[0].sslsocket_class is usual
