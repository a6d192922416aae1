"""Upgrade to TLS in mid-stream."""

import re
import smtplib
import socket
import ssl

import pytest
import trustme

from pytest_sockserver import Certificate, Close, Hex, ScriptMismatch, StartTLS
from pytest_sockserver.faults import Alert


@pytest.fixture
def mail_server(sockserver):
    server = sockserver.tcp(tls=True, name="mail_server")

    @server.handler
    def smtp(conn):
        conn.send(b"220 mx ESMTP\r\n")
        conn.expect_line(re.compile(rb"(?i)ehlo .*"))
        conn.send(b"250-mx\r\n250 STARTTLS\r\n")
        conn.expect_line(re.compile(rb"(?i)starttls"))
        conn.send(b"220 go ahead\r\n")
        conn.start_tls()
        conn.expect_line(re.compile(rb"(?i)ehlo .*"))
        conn.send(b"250 mx\r\n")
        conn.expect_line(re.compile(rb"(?i)quit"))
        conn.send(b"221 bye\r\n")

    return server


def test_client_upgrades(mail_server):
    with smtplib.SMTP(*mail_server.address) as client:
        client.starttls(context=mail_server.client_context())
        client.ehlo()

    conn = mail_server.connections[0]
    assert conn.tls.version == "TLSv1.3"
    assert b"quit" in conn.received.lower()


def test_plain_text_behind_the_upgrade_is_refused(mail_server):
    with mail_server.raises(ScriptMismatch, match="STARTTLS injection"):
        with socket.create_connection(mail_server.address) as client:
            client.sendall(b"EHLO me\r\nSTARTTLS\r\nRSET\r\n")
            with pytest.raises(ConnectionResetError):
                while client.recv(1024):
                    pass


def up_to_the_upgrade(server):
    """Return a script that has come to the answer to STARTTLS."""
    return (
        server.script()
        .send(b"220 mx ESMTP\r\n")
        .expect_line(re.compile(rb"(?i)ehlo .*"))
        .send(b"250-mx\r\n250 STARTTLS\r\n")
        .expect_line(re.compile(rb"(?i)starttls"))
    )


def test_text_that_is_injected_is_not_taken_for_protected(sockserver):
    server = sockserver.tcp(tls=True)
    (
        up_to_the_upgrade(server)
        .send(b"220 go ahead\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n", StartTLS())
        .expect_line(re.compile(rb"(?i)ehlo .*"))
        .send(b"250 mx\r\n")
        .expect_line(re.compile(rb"(?i)quit"))
        .send(b"221 bye\r\n")
    )

    with smtplib.SMTP(*server.address) as client:
        client.starttls(context=server.client_context())
        client.ehlo()

        assert not client.has_extn("auth")


def test_server_thinks_better_of_it(tcp_server):
    up_to_the_upgrade(tcp_server).send(b"454 not now\r\n").expect_line(re.compile(rb"(?i)quit")).send(b"221 bye\r\n")

    with smtplib.SMTP(*tcp_server.address) as client:
        with pytest.raises(smtplib.SMTPResponseException, match="not now"):
            client.starttls()


def test_certificate_has_expired(sockserver):
    server = sockserver.tcp(tls=True)
    up_to_the_upgrade(server).send(b"220 go ahead\r\n", StartTLS(Certificate.expired()))

    client = smtplib.SMTP(*server.address)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        client.starttls(context=server.client_context())
    client.close()


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((Alert("handshake_failure"), Close()), "HANDSHAKE_FAILURE"),
        ((b"250 what?\r\n", Close()), "WRONG_VERSION_NUMBER"),
        ((Close(),), "EOF"),
    ],
)
def test_handshake_is_not_done(sockserver, parts, text):
    server = sockserver.tcp(tls=True)
    hello = Hex("16 03 01")  # how a client's first record begins
    up_to_the_upgrade(server).send(b"220 go ahead\r\n").expect(hello).send(*parts)

    client = smtplib.SMTP(*server.address)
    with pytest.raises(ssl.SSLError, match=text):
        client.starttls(context=server.client_context())
    client.close()


def test_client_refuses_the_certificate(tcp_server):
    @tcp_server.handler
    def secure(conn):
        conn.start_tls(Certificate())

    with socket.create_connection(tcp_server.address) as client:
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(client, server_hostname="127.0.0.1")

    conn = tcp_server.wait_connection()
    conn.wait_closed()
    assert "UNKNOWN_CA" in str(conn.tls.error)


def test_context_of_your_own(tcp_server):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    @tcp_server.handler
    def secure(conn):
        conn.start_tls(context)
        conn.send(b"hello\r\n")

    with socket.create_connection(tcp_server.address) as plain:
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            assert client.recv(1024) == b"hello\r\n"
