"""Upgrade to TLS in mid-stream, with a context of your own."""

import re
import smtplib
import socket
import ssl

import pytest
import trustme

from pytest_sockserver import ScriptMismatch


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def mail_server(tcp_server, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    @tcp_server.handler
    def smtp(conn):
        conn.send(b"220 mx ESMTP\r\n")
        conn.expect_line(re.compile(rb"(?i)ehlo .*"))
        conn.send(b"250-mx\r\n250 STARTTLS\r\n")
        conn.expect_line(re.compile(rb"(?i)starttls"))
        conn.send(b"220 go ahead\r\n")
        conn.start_tls(context)
        conn.expect_line(re.compile(rb"(?i)ehlo .*"))
        conn.send(b"250 mx\r\n")
        conn.expect_line(re.compile(rb"(?i)quit"))
        conn.send(b"221 bye\r\n")

    return tcp_server


def test_client_upgrades(mail_server, authority):
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    with smtplib.SMTP(*mail_server.address) as client:
        client.starttls(context=trust)
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


def test_client_refuses_the_certificate(tcp_server, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    @tcp_server.handler
    def secure(conn):
        conn.start_tls(context)

    with socket.create_connection(tcp_server.address) as client:
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(client, server_hostname="127.0.0.1")

    conn = tcp_server.wait_connection()
    conn.wait_closed()
    assert "UNKNOWN_CA" in str(conn.tls.error)
