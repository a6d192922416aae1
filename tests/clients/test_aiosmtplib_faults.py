"""aiosmtplib while STARTTLS goes wrong: what an attacker put behind the 220 must not be heard once TLS stands."""

from __future__ import annotations

import asyncio
import re
import ssl

import aiosmtplib
import pytest

from pytest_sockserver import (
    CONNECT,
    Certificate,
    Close,
    Cut,
    SockServer,
    StartTLS,
    StreamTestServer,
    lines,
)
from pytest_sockserver.faults import Append, Split
from pytest_sockserver.sweeps import cuts, splits

from .faults import certificates, handshakes, hello, patience

GO = b"220 go\r\n"
TRUE = b"250-mx\r\n250 SIZE 1000\r\n"
INJECTED = b"250-mx\r\n250 AUTH PLAIN\r\n"


def verb(pattern: bytes) -> re.Pattern[bytes]:
    """Return what matches a whole command, its line ending included."""
    return re.compile(rb"(?i)(?:%b)\r\n" % pattern)


STARTTLS = verb(b"starttls")


@pytest.fixture
def server(sockserver: SockServer) -> StreamTestServer:
    """A mail server that offers TLS, and after it another extension."""
    server = sockserver.tcp(tls=True, framing=lines(b"\r\n"))
    server.on(CONNECT).reply(b"220 mx ESMTP\r\n")
    server.on(verb(rb"ehlo \S+")).reply(b"250-mx\r\n250 STARTTLS\r\n", uses=1).then(TRUE)
    server.on(STARTTLS).reply(GO, StartTLS())
    server.on(verb(rb"quit")).reply(b"221 bye\r\n", Close())
    return server


def start_tls(server: StreamTestServer, timeout: float = 5, **options: object) -> dict[str, str]:
    """Return what the server offers once TLS stands."""

    async def start() -> dict[str, str]:
        host, port = server.address
        context = server.client_context()
        client = aiosmtplib.SMTP(hostname=host, port=port, timeout=timeout, tls_context=context, **options)
        async with client:
            await client.ehlo()
            offered, sock = client.esmtp_extensions, client.get_transport_info("socket")
        while sock.fileno() >= 0:  # the client does not wait for the end of TLS; its loop must not end before that
            await asyncio.sleep(0)
        return offered

    return asyncio.run(start())


# Injection


@pytest.mark.parametrize("injected", [INJECTED, b"250 AUTH PLAIN\r\n", b"250-AUTH PLAIN\r\n", b"250"])
def test_what_comes_with_the_220_is_dropped_unheard(server: StreamTestServer, injected: bytes) -> None:
    """CVE-2011-0411 and its like.  The client does not complain."""
    server.on(STARTTLS).reply(Append(GO, injected), StartTLS())

    assert start_tls(server) == {"size": "1000"}

    assert GO + injected in server.connections[0].sent


def test_what_comes_after_the_220_meets_the_handshake(server: StreamTestServer) -> None:
    server.on(STARTTLS).reply(GO, hello, INJECTED, Close())

    with pytest.raises(ssl.SSLError, match="(?i)wrong.version.number"):
        start_tls(server)


def test_what_was_offered_before_tls_is_forgotten(server: StreamTestServer) -> None:
    server.on(verb(rb"ehlo \S+")).reply(b"250-mx\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", uses=1).then(TRUE)

    assert start_tls(server) == {"size": "1000"}


# Refused, or answered otherwise


def test_an_offer_that_was_taken_out_is_not_noticed(server: StreamTestServer) -> None:
    """What an attacker does who wants no TLS at all; the mail goes out in plain text."""
    server.on(verb(rb"ehlo \S+")).reply(b"250-mx\r\n250 SIZE 1000\r\n")

    assert start_tls(server) == {"size": "1000"}

    assert server.connections[0].tls is None


def test_an_offer_that_was_taken_out_is_an_error_if_tls_is_demanded(server: StreamTestServer) -> None:
    server.on(verb(rb"ehlo \S+")).reply(b"250-mx\r\n250 SIZE 1000\r\n")

    with pytest.raises(aiosmtplib.SMTPException, match="^SMTP STARTTLS extension not supported by server.$"):
        start_tls(server, start_tls=True)


@pytest.mark.parametrize("answer", [b"454 no TLS today\r\n", b"250 ok\r\n", b"502 what?\r\n", b"hello\r\n"])
def test_starttls_is_refused(server: StreamTestServer, answer: bytes) -> None:
    server.on(STARTTLS).reply(answer)

    with pytest.raises(aiosmtplib.SMTPResponseException):
        start_tls(server)

    assert server.connections[0].tls is None


@pytest.mark.parametrize("cut", cuts(GO))
def test_a_220_that_breaks_off(server: StreamTestServer, cut: Cut) -> None:
    server.on(STARTTLS).reply(cut, Close())

    with pytest.raises(aiosmtplib.SMTPServerDisconnected, match="^Unexpected EOF received$"):
        start_tls(server)


@pytest.mark.parametrize("split", splits(GO))
def test_a_220_parted_at_every_byte(server: StreamTestServer, split: Split) -> None:
    server.on(STARTTLS).reply(split, StartTLS())

    assert start_tls(server) == {"size": "1000"}


# The handshake


@certificates()
def test_a_bad_certificate(server: StreamTestServer, certificate: Certificate, reason: str) -> None:
    server.on(STARTTLS).reply(GO, StartTLS(certificate))

    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        start_tls(server)


@handshakes(
    ssl.SSLError,
    an_end=aiosmtplib.SMTPServerDisconnected,
    a_reset=aiosmtplib.SMTPServerDisconnected,
    silence=aiosmtplib.SMTPTimeoutError,
)
def test_a_handshake_that_fails(server: StreamTestServer, answer: list[object], error: type[Exception]) -> None:
    server.on(STARTTLS).reply(GO, hello, *answer)

    with pytest.raises(error):
        start_tls(server, timeout=patience(answer))
