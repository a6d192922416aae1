"""TLS on a connection: start_tls() with a context of the user's."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

import pytest
import trustme

from pytest_sockserver import (
    TLS,
    Connection,
    DeadlineExceeded,
    Gate,
    ScriptMismatch,
    SockServer,
    StartTLS,
    StreamTestServer,
    lines,
)

from . import insides
from .peers import (
    PATIENCE,
    Taken,
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
        f"{insides.where(conn)}: expected a TLS handshake, but the client had sent plain text already, "
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
        until(lambda: insides.arrived(conn))

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
    until(lambda: server.connections[0].received_count or insides.arrived(server.connections[0]))

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
    tcp_server.open_gate("gone")

    conn = tcp_server.connections[0]
    conn.wait_closed()
    assert isinstance(conn.tls.error, OSError)


@pytest.mark.parametrize("said", [b"", bytes.fromhex("16030102")], ids=["silent", "half a hello"])
def test_a_handshake_that_does_not_end_has_a_deadline(server: StreamTestServer, said: bytes) -> None:
    with Taken(server) as (client, conn):
        client.sendall(said)
        until(lambda: not said or conn.received_count or insides.arrived(conn))

        with pytest.raises(DeadlineExceeded) as raised:
            conn.start_tls(tls_contexts()[0], timeout=0.1)

    assert untimed(str(raised.value)) == (
        f"{insides.where(conn)}: start_tls() waited 0.1 s for the client's handshake\n    S! start-tls"
    )
    assert conn.tls.error is raised.value


class TwoAtOnce(ssl.SSLContext):
    """Wraps a second socket while it wraps the first, and for longer."""

    def prepare(self) -> None:
        self.count = 0
        self.second_has_begun, self.first_is_over = threading.Event(), threading.Event()

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self.count += 1
        if self.count == 1:
            assert self.second_has_begun.wait(PATIENCE)
        else:
            self.second_has_begun.set()
            assert self.first_is_over.wait(PATIENCE)
        return super().wrap_socket(*args, **options)


def test_two_connections_that_begin_tls_by_one_context_at_once_are_both_recorded(tcp_server: StreamTestServer) -> None:
    authority, context = trustme.CA(), TwoAtOnce(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    context.prepare()
    usual = context.sslsocket_class

    @tcp_server.handler
    def answer(conn: Connection) -> None:
        conn.start_tls(context)
        context.first_is_over.set()
        conn.send(conn.recv_line())

    def talk() -> bytes:
        with connect(tcp_server) as raw, trusting.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"hello\n")
            return client.recv(100)

    clients = [tcp_server.in_thread(talk) for _ in range(2)]

    assert [each.result() for each in clients] == [b"hello\n"] * 2
    assert [(conn.received, conn.sent) for conn in tcp_server.connections] == [(b"hello\n", b"hello\n")] * 2
    assert context.sslsocket_class is usual


def test_the_context_is_left_as_it_was(server: StreamTestServer, contexts: Any) -> None:
    server.handler(starttls)
    usual = contexts[0].sslsocket_class

    with upgraded(server):
        pass

    assert contexts[0].sslsocket_class is usual


# Sessions


@pytest.mark.parametrize("versions", [{}, {"maximum": "1.2"}, {"minimum": "1.3"}], ids=["any", "1.2", "1.3"])
@pytest.mark.parametrize("begins", ["tls", "starttls"])
def test_it_says_whether_a_session_was_resumed(sockserver: SockServer, versions: dict[str, str], begins: str) -> None:
    server = sockserver.tls(tls=TLS(**versions)) if begins == "tls" else sockserver.tcp(tls=TLS(**versions))

    @server.handler
    def echo(conn: Connection) -> None:
        if begins == "starttls":
            conn.send(b"go ahead\n")
            conn.start_tls()
        conn.send(conn.recv_line())

    context, session, seen = server.client_context(), None, []
    for _ in range(3):
        with connect(server) as raw:
            if begins == "starttls":
                assert raw.recv(9) == b"go ahead\n"
            with context.wrap_socket(raw, server_hostname="localhost", session=session) as client:
                client.sendall(b"x\n")
                assert client.recv(2) == b"x\n"
                session = client.session  # in TLS 1.3 it comes after the handshake, with the first bytes
                seen.append((client.session_reused, server.connections[-1].tls.resumed))

    assert seen == [(False, False), (True, True), (True, True)]


def test_without_tickets_no_session_is_resumed(sockserver: SockServer) -> None:
    server = sockserver.tls(tls=TLS(tickets=False, minimum="1.3"))
    server.handler(lambda conn: conn.send(conn.recv_line()))
    context, session = server.client_context(), None

    for _ in range(2):
        with connect(server) as raw, context.wrap_socket(raw, server_hostname="localhost", session=session) as client:
            client.sendall(b"x\n")
            client.recv(2)
            session = client.session

    assert [conn.tls.resumed for conn in server.connections] == [False, False]


def test_of_a_handshake_that_failed_it_is_not_known(sockserver: SockServer) -> None:
    server = sockserver.tls()
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        conn = server.wait_connection()
        conn.wait_closed()

    assert (conn.tls.resumed, conn.tls.error is None) == (None, False)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_it_is_known_of_a_context_of_the_users_own(sockserver: SockServer, version: str) -> None:
    ours, theirs = tls_contexts()
    server = sockserver.tls(tls=ours)
    server.handler(lambda conn: conn.send(conn.recv_line()))
    context, session = ssl.create_default_context(), None
    context.load_verify_locations(cadata="".join(ssl.DER_cert_to_PEM_cert(each) for each in theirs.get_ca_certs(True)))
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)

    for _ in range(2):
        with connect(server) as raw, context.wrap_socket(raw, server_hostname="localhost", session=session) as client:
            client.sendall(b"x\n")
            client.recv(2)
            session = client.session

    assert [conn.tls.resumed for conn in server.connections] == [False, True]


def test_rules_declared_after_a_tls_client_answer_it(tls_server: StreamTestServer) -> None:
    """By then another socket is in the place of the one that was accepted."""
    tls_server.framing = lines(b"\n")
    with connect(tls_server) as raw:
        with tls_server.client_context().wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"x\n")
            tls_server.wait_for(b"x\n")
            tls_server.on(b"x\n").reply(b"y")

            assert client.recv(1) == b"y"
