"""imaplib: each command has a tag that its reply repeats, and a literal announces its length."""

from __future__ import annotations

import imaplib
import ssl

import pytest

from pytest_sockserver import Connection, StreamTestServer


def recv_command(conn: Connection) -> tuple[bytes, bytes]:
    """Read a command; return its tag and the rest."""
    tag, _, command = conn.recv_line().rstrip(b"\r\n").partition(b" ")
    return tag, command


def answer(conn: Connection, expected: bytes, *lines: bytes, status: bytes = b"OK") -> None:
    """Take a command and answer with the lines, then with its tag and the status."""
    tag, command = recv_command(conn)
    assert command == expected
    conn.send(*[line + b"\r\n" for line in lines], b"%b %b done\r\n" % (tag, status))


def greet(conn: Connection) -> None:
    conn.send(b"* OK ready\r\n")
    answer(conn, b"CAPABILITY", b"* CAPABILITY IMAP4rev1 STARTTLS")


def test_a_message_comes_as_a_literal(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def serve_a_message(conn: Connection) -> None:
        greet(conn)
        answer(conn, b'LOGIN user "secret"')
        answer(conn, b"SELECT INBOX", b"* 1 EXISTS")
        answer(conn, b"FETCH 1 (RFC822)", b"* 1 FETCH (RFC822 {8}", b"a\r\nb) *\r)")
        answer(conn, b"LOGOUT", b"* BYE")

    with imaplib.IMAP4(*tcp_server.address) as client:
        client.login("user", "secret")
        assert client.select() == ("OK", [b"1"])
        status, parts = client.fetch("1", "(RFC822)")

    assert status == "OK"
    assert parts[0] == (b"1 (RFC822 {8}", b"a\r\nb) *\r")


def test_a_message_that_the_client_appends_waits_for_the_go_ahead(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def take_a_message(conn: Connection) -> None:
        greet(conn)
        answer(conn, b'LOGIN user "secret"')
        tag, command = recv_command(conn)
        assert command == b"APPEND INBOX {5}"
        conn.send(b"+ go ahead\r\n")
        conn.recv_exactly(5)
        conn.expect(b"\r\n")
        conn.send(tag + b" OK done\r\n")
        answer(conn, b"LOGOUT", b"* BYE")

    with imaplib.IMAP4(*tcp_server.address) as client:
        client.login("user", "secret")
        status, _ = client.append("INBOX", "", "", b"hello")

    assert status == "OK"
    assert b"hello" in tcp_server.requests


def test_starttls_then_a_login_that_is_refused(
    tcp_server: StreamTestServer, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    @tcp_server.handler
    def refuse_over_tls(conn: Connection) -> None:
        greet(conn)
        answer(conn, b"STARTTLS")
        conn.start_tls(server_context)
        answer(conn, b"CAPABILITY", b"* CAPABILITY IMAP4rev1")
        answer(conn, b'LOGIN user "wrong"', status=b"NO")
        answer(conn, b"LOGOUT", b"* BYE")

    with imaplib.IMAP4(*tcp_server.address) as client:
        client.starttls(client_context)
        with pytest.raises(imaplib.IMAP4.error, match="done"):
            client.login("user", "wrong")

    assert tcp_server.connections[0].tls is not None


def test_an_end_of_stream_instead_of_a_reply_is_an_abort(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def close_early(conn: Connection) -> None:
        greet(conn)
        recv_command(conn)

    client = imaplib.IMAP4(*tcp_server.address)
    with pytest.raises(imaplib.IMAP4.abort, match="^command: NOOP => socket error: EOF$"):
        client.noop()
    client.shutdown()
