"""poplib: the server speaks first, a message ends at a lone dot, and STLS changes the stream in its middle."""

from __future__ import annotations

import poplib
import ssl

import pytest

from pytest_sockserver import Connection, StreamTestServer


def test_a_message_is_fetched_with_its_doubled_dots_undone(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def serve_a_message(conn: Connection) -> None:
        conn.send(b"+OK ready\r\n")
        conn.expect(b"USER user\r\n")
        conn.send(b"+OK\r\n")
        conn.expect(b"PASS secret\r\n")
        conn.send(b"+OK\r\n")
        conn.expect(b"RETR 1\r\n")
        conn.send(b"+OK\r\nSubject: t\r\n\r\n..hidden\r\n.\r\n")
        conn.expect(b"QUIT\r\n")
        conn.send(b"+OK bye\r\n")

    client = poplib.POP3(*tcp_server.address)
    client.user("user")
    client.pass_("secret")
    _, lines, _ = client.retr(1)
    client.quit()

    assert lines == [b"Subject: t", b"", b".hidden"]


def test_stls_hides_what_follows(
    tcp_server: StreamTestServer, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    @tcp_server.handler
    def offer_tls(conn: Connection) -> None:
        conn.send(b"+OK ready\r\n")
        conn.expect(b"CAPA\r\n")
        conn.send(b"+OK\r\nSTLS\r\n.\r\n")
        conn.expect(b"STLS\r\n")
        conn.send(b"+OK go\r\n")
        conn.start_tls(server_context)
        conn.expect(b"USER user\r\n")
        conn.send(b"-ERR locked\r\n")
        conn.expect(b"QUIT\r\n")
        conn.send(b"+OK bye\r\n")

    client = poplib.POP3(*tcp_server.address)
    client.stls(client_context)
    with pytest.raises(poplib.error_proto, match="locked"):
        client.user("user")
    client.quit()

    assert tcp_server.connections[0].tls is not None


def test_an_end_of_stream_within_a_message_is_an_error(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def stop_short(conn: Connection) -> None:
        conn.send(b"+OK ready\r\n")
        conn.expect(b"RETR 1\r\n")
        conn.send(b"+OK\r\nSubject: t\r\n")

    client = poplib.POP3(*tcp_server.address)
    with pytest.raises(poplib.error_proto, match="-ERR EOF"):
        client.retr(1)
    client.close()
