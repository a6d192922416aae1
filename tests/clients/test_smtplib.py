"""smtplib: the server speaks first, replies have several lines, and STARTTLS changes the stream in its middle."""

from __future__ import annotations

import re
import smtplib
import ssl

import pytest

from pytest_sockserver import Connection, StreamTestServer

# Python 3.12 says `mail FROM:`, 3.13 says `mail from:`: RFC 5321 section 2.4 leaves the case of verbs open.
MAIL = re.compile(rb"(?i)mail from:<(\S+)>.*")
RCPT = re.compile(rb"(?i)rcpt to:<(\S+)>")
EHLO = re.compile(rb"(?i)ehlo \S+")


def test_a_mail_is_sent_with_its_leading_dots_doubled(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def take_a_mail(conn: Connection) -> None:
        conn.send(b"220 mx ESMTP\r\n")
        conn.expect_line(EHLO)
        conn.send(b"250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        conn.expect_line(MAIL)
        conn.send(b"250 ok\r\n")
        conn.expect_line(RCPT)
        conn.send(b"250 ok\r\n")
        conn.expect(b"data\r\n")
        conn.send(b"354 go ahead\r\n")
        conn.recv_until(b"\r\n.\r\n")
        conn.send(b"250 queued\r\n")
        conn.expect_line(re.compile(rb"(?i)quit"))
        conn.send(b"221 bye\r\n")

    with smtplib.SMTP(*tcp_server.address) as client:
        refused = client.sendmail("a@x", ["b@y"], "Subject: t\n\n.hidden\nend\n")

    assert refused == {}
    assert tcp_server.requests[1].match[1] == b"a@x"
    assert tcp_server.requests[4] == b"Subject: t\r\n\r\n..hidden\r\nend\r\n.\r\n"


def test_a_recipient_among_others_is_refused(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def know_only_b(conn: Connection) -> None:
        conn.send(b"220 mx\r\n")
        while not (line := conn.recv_line()).lower().startswith(b"quit"):
            if line == b"data\r\n":
                conn.send(b"354 go ahead\r\n")
                conn.recv_until(b"\r\n.\r\n")
            conn.send(b"550 no such user\r\n" if b"nobody@y" in line else b"250 ok\r\n")
        conn.send(b"221 bye\r\n")

    with smtplib.SMTP(*tcp_server.address) as client:
        refused = client.sendmail("a@x", ["b@y", "nobody@y"], "hi")

    assert refused == {"nobody@y": (550, b"no such user")}
    assert [found[1] for line in tcp_server.requests if (found := RCPT.match(line))] == [b"b@y", b"nobody@y"]


def test_starttls_then_login(
    tcp_server: StreamTestServer, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    @tcp_server.handler
    def offer_login_over_tls_alone(conn: Connection) -> None:
        conn.send(b"220 mx ESMTP\r\n")
        conn.expect_line(EHLO)
        conn.send(b"250-mx\r\n250 STARTTLS\r\n")
        conn.expect(b"STARTTLS\r\n")
        conn.send(b"220 go\r\n")
        conn.start_tls(server_context)
        conn.expect_line(EHLO)
        conn.send(b"250-mx\r\n250 AUTH PLAIN\r\n")
        conn.expect(b"AUTH PLAIN AHVzZXIAc2VjcmV0\r\n")
        conn.send(b"235 welcome\r\n")
        conn.expect(b"noop\r\n")
        conn.send(b"421 shutting down\r\n")

    with smtplib.SMTP(*tcp_server.address) as client:
        client.starttls(context=client_context)
        client.login("user", "secret")

        assert client.noop() == (421, b"shutting down")

    assert tcp_server.connections[0].tls.version == "TLSv1.3"


def test_a_certificate_that_the_client_does_not_trust_ends_starttls(
    tcp_server: StreamTestServer, server_context: ssl.SSLContext
) -> None:
    @tcp_server.handler
    def offer_tls(conn: Connection) -> None:
        conn.send(b"220 mx ESMTP\r\n")
        conn.expect_line(EHLO)
        conn.send(b"250-mx\r\n250 STARTTLS\r\n")
        conn.expect(b"STARTTLS\r\n")
        conn.send(b"220 go\r\n")
        conn.start_tls(server_context)

    with smtplib.SMTP(*tcp_server.address) as client:
        with pytest.raises(ssl.SSLCertVerificationError):
            client.starttls(context=ssl.create_default_context())

    conn = tcp_server.connections[0]
    conn.wait_closed()
    assert "UNKNOWN_CA" in str(conn.tls.error)


def test_a_server_that_closes_after_421_leaves_the_client_disconnected(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def close_early(conn: Connection) -> None:
        conn.send(b"220 mx\r\n")
        conn.expect(b"noop\r\n")
        conn.send(b"421 closing\r\n")

    with smtplib.SMTP(*tcp_server.address) as client:
        assert client.noop() == (421, b"closing")
        tcp_server.connections[0].wait_closed()

        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()

    assert tcp_server.connections[0].closed_by == "server"


def test_a_greeting_that_refuses_is_an_error_of_the_connect(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def go_away(conn: Connection) -> None:
        conn.send(b"554 go away\r\n")

    with pytest.raises(smtplib.SMTPConnectError) as caught:
        smtplib.SMTP(*tcp_server.address)

    assert (caught.value.smtp_code, caught.value.smtp_error) == (554, b"go away")
