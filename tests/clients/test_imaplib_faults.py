"""imaplib while STARTTLS and literals go wrong."""

from __future__ import annotations

import imaplib
import re
import ssl

import pytest

from pytest_sockserver import CONNECT, Certificate, Close, Cut, SockServer, StartTLS, StreamTestServer, Text, lines
from pytest_sockserver.faults import Append
from pytest_sockserver.sweeps import cuts

from .faults import certificates

DONE = Text(r"\g<tag> OK done\r\n")


def command(pattern: bytes) -> re.Pattern[bytes]:
    """Return what matches a whole command after its tag, the line ending included."""
    return re.compile(rb"(?P<tag>\S+) (?:%b)\r\n" % pattern)


@pytest.fixture
def server(sockserver: SockServer) -> StreamTestServer:
    server = sockserver.tcp(tls=True, framing=lines(b"\r\n"))
    server.on(CONNECT).reply(b"* OK ready\r\n")
    server.on(command(b"CAPABILITY")).reply(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n", DONE)
    server.on(command(b"STARTTLS")).reply(DONE, StartTLS())
    server.on(command(b"LOGIN .*|SELECT .*")).reply(DONE)
    server.on(command(b"LOGOUT")).reply(b"* BYE\r\n", DONE)
    return server


@pytest.mark.parametrize("injected", [b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n", b"* BYE\r\n", b"* PREAUTH\r\n"])
def test_what_comes_with_the_ok_is_dropped_unheard(server: StreamTestServer, injected: bytes) -> None:
    server.on(command(b"STARTTLS")).reply(Append(DONE, injected), StartTLS())

    with imaplib.IMAP4(*server.address, timeout=5) as client:
        client.starttls(server.client_context())
        assert client.capabilities == ("IMAP4REV1", "STARTTLS")
        assert client.state == "NONAUTH"

    assert b" OK done\r\n" + injected in server.connections[0].sent


def test_a_client_that_is_let_in_before_tls_refuses_to_start_it(server: StreamTestServer) -> None:
    """An attacker's PREAUTH would have it go on in plain text."""
    server.on(CONNECT).reply(b"* PREAUTH welcome\r\n")

    with imaplib.IMAP4(*server.address, timeout=5) as client:
        with pytest.raises(imaplib.IMAP4.error, match="STARTTLS illegal in state AUTH"):
            client.starttls(server.client_context())


@certificates()
def test_a_bad_certificate(server: StreamTestServer, certificate: Certificate, reason: str) -> None:
    server.on(command(b"STARTTLS")).reply(DONE, StartTLS(certificate))

    client = imaplib.IMAP4(*server.address, timeout=5)
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        client.starttls(server.client_context())

    with pytest.raises(OSError, match="Bad file descriptor"):
        client.shutdown()  # its socket has gone with the handshake, which it does not know


FETCHED = b"* 1 FETCH (RFC822 {5}\r\nhello)\r\n"


@pytest.mark.parametrize("cut", cuts(FETCHED))
def test_a_literal_cut_at_every_byte(server: StreamTestServer, cut: Cut) -> None:
    server.on(command(b"FETCH .*")).reply(cut, Close())

    client = imaplib.IMAP4(*server.address, timeout=5)
    client.login("user", "secret")
    client.select()
    with pytest.raises(imaplib.IMAP4.abort):
        client.fetch("1", "(RFC822)")
    client.shutdown()
