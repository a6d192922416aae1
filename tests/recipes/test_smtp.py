"""SMTP, with smtplib and aiosmtplib."""

from __future__ import annotations

import re
import smtplib
import ssl
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest
import trustme

from pytest_sockserver import (
    CONNECT,
    Close,
    Cut,
    Request,
    ScriptMismatch,
    SockServer,
    StartTLS,
    StreamTestServer,
    UnexpectedRequest,
    lines,
)

from .relay import byte_by_byte


@pytest.fixture
def message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ann@example.org", "bob@example.org", "dots"
    message.set_content(".one\ntwo\n")
    return message


def send(address: Any, message: EmailMessage) -> None:
    with smtplib.SMTP(*address) as client:
        client.send_message(message)


# The same story three times


def test_a_dialogue_takes_a_mail(tcp_server: StreamTestServer, message: EmailMessage) -> None:
    dialogue_of_a_mail(tcp_server)

    send(tcp_server.address, message)

    assert tcp_server.requests[4].endswith(b"\r\n\r\n..one\r\ntwo\r\n.\r\n")  # the leading dot is doubled


def dialogue_of_a_mail(server: StreamTestServer) -> None:
    server.dialogue(r"""
        S: 220 mx.example.org ESMTP
        C~ (?i)ehlo \S+
        S: 250-mx.example.org
        S: 250 8BITMIME
        C~ (?i)mail from:<ann@example\.org>.*
        S: 250 ok
        C~ (?i)rcpt to:<bob@example\.org>
        S: 250 ok
        C~ (?i)data
        S: 354 go ahead
        C> \r\n.\r\n
        S: 250 queued
        C~ (?i)quit
        S: 221 bye
    """)


def test_a_script_takes_a_mail(tcp_server: StreamTestServer, message: EmailMessage) -> None:
    script_of_a_mail(tcp_server)

    send(tcp_server.address, message)

    assert tcp_server.connections[0].captured["sender"] == b"ann@example.org"


def script_of_a_mail(server: StreamTestServer) -> None:
    (
        server.script()
        .send(b"220 mx.example.org ESMTP\r\n")
        .expect_line(re.compile(rb"(?i)ehlo \S+"))
        .send(b"250-mx.example.org\r\n250 8BITMIME\r\n")
        .expect_line(re.compile(rb"(?i)mail from:<(?P<sender>\S+)>.*"))
        .send(b"250 ok\r\n")
        .expect_line(re.compile(rb"(?i)rcpt to:<bob@example\.org>"))
        .send(b"250 ok\r\n")
        .expect_line(re.compile(rb"(?i)data"))
        .send(b"354 go ahead\r\n")
        .recv_until(b"\r\n.\r\n")
        .send(b"250 queued\r\n")
        .expect_line(re.compile(rb"(?i)quit"))
        .send(b"221 bye\r\n")
    )


def verb(pattern: bytes) -> re.Pattern[bytes]:
    """Return what matches a whole command, its line ending included."""
    return re.compile(rb"(?i)(?:%b)\r\n" % pattern)


@pytest.fixture
def mail_server(tcp_server: StreamTestServer) -> StreamTestServer:
    """A server that takes any mail, from any number of clients."""
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"220 mx.example.org ESMTP\r\n")
    tcp_server.on(verb(rb"ehlo \S+")).reply(b"250 mx.example.org\r\n")
    tcp_server.on(verb(rb"mail from:<.*>.*")).reply(b"250 ok\r\n")
    tcp_server.on(verb(rb"rcpt to:<(.+)>")).reply(b"250 ok\r\n")
    tcp_server.on(verb(rb"rset|noop")).reply(b"250 ok\r\n")
    tcp_server.on(verb(rb"data")).reply(b"354 go ahead\r\n", take_message, b"250 queued\r\n")
    tcp_server.on(verb(rb"quit")).reply(b"221 bye\r\n", Close())
    return tcp_server


def take_message(command: Request) -> tuple[()]:
    """Take what is no line, in the midst of a reply, and say nothing by itself."""
    command.connection.recv_until(b"\r\n.\r\n")
    return ()


def test_rules_take_any_mail(mail_server: StreamTestServer, message: EmailMessage) -> None:
    with smtplib.SMTP(*mail_server.address) as client:
        client.send_message(message)
        client.noop()
        client.send_message(message)

    assert len([each for each in mail_server.requests if each.endswith(b"\r\n.\r\n")]) == 2


# What a mail server may do


def test_a_recipient_is_unknown(mail_server: StreamTestServer, message: EmailMessage) -> None:
    mail_server.on(verb(rb"rcpt to:<nobody@.*>")).reply(b"550 no such user\r\n")  # the latest declared comes first

    with smtplib.SMTP(*mail_server.address) as client:
        refused = client.send_message(message, to_addrs=["bob@example.org", "nobody@example.org"])

    assert refused == {"nobody@example.org": (550, b"no such user")}


def test_a_mail_is_greylisted_and_taken_the_second_time(mail_server: StreamTestServer, message: EmailMessage) -> None:
    mail_server.on(verb(rb"rcpt to:<.*>"), times=2).reply(b"451 try again later\r\n").then(b"250 ok\r\n")

    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(mail_server.address, message)
    send(mail_server.address, message)


def test_the_server_closes_instead_of_answering(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(r"""
        S: 220 mx.example.org ESMTP
        C~ (?i)noop
        S: 421 shutting down
        S! close
    """)

    client = smtplib.SMTP(*tcp_server.address)
    assert client.noop() == (421, b"shutting down")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()


@pytest.mark.parametrize("n", range(3))  # smtplib takes b"250" for a whole reply
def test_the_last_word_about_a_mail_is_cut_off(mail_server: StreamTestServer, message: EmailMessage, n: int) -> None:
    mail_server.on(verb(rb"data")).reply(b"354 go ahead\r\n", take_message, Cut(b"250 queued\r\n", n), Close())

    with pytest.raises(smtplib.SMTPException):
        send(mail_server.address, message)


# TLS and passwords


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_server(sockserver: SockServer, authority: trustme.CA) -> StreamTestServer:
    """A server that has a certificate, for when STARTTLS is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return sockserver.tcp(tls=context)


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.asyncio
async def test_a_dialogue_over_starttls_with_a_login(
    secure_server: StreamTestServer, trust: ssl.SSLContext, message: EmailMessage
) -> None:
    secure_server.dialogue(r"""
        S: 220 mx.example.org ESMTP
        C~ (?i)ehlo \S+
        S: 250-mx.example.org
        S: 250 STARTTLS
        C~ (?i)starttls
        S: 220 go ahead
        S! start-tls
        C~ (?i)ehlo \S+
        S: 250-mx.example.org
        S: 250 AUTH LOGIN
        # user, then password, each in base64
        C: AUTH LOGIN YW5u
        S: 334 UGFzc3dvcmQ6
        C: c2VjcmV0
        S: 235 welcome
        C~ (?i)mail from:<ann@example\.org>.*
        S: 250 ok
        C~ (?i)rcpt to:<bob@example\.org>
        S: 250 ok
        C~ (?i)data
        S: 354 go ahead
        C> \r\n.\r\n
        S: 250 queued
        C~ (?i)quit
        S: 221 bye
    """)

    host, port = secure_server.address
    errors, reply = await aiosmtplib.send(
        message, hostname=host, port=port, username="ann", password="secret", tls_context=trust
    )

    assert (errors, reply) == ({}, "queued")
    assert secure_server.connections[0].tls is not None


def test_rules_that_ask_for_tls_before_a_login(secure_server: StreamTestServer, trust: ssl.SSLContext) -> None:
    def offer(ehlo: Request) -> bytes:
        return b"250 AUTH PLAIN\r\n" if ehlo.connection.tls else b"250 STARTTLS\r\n"

    secure_server.framing = lines(b"\r\n")
    secure_server.on(CONNECT).reply(b"220 mx.example.org ESMTP\r\n")
    secure_server.on(verb(rb"ehlo \S+")).reply(b"250-mx.example.org\r\n", offer)
    secure_server.on(verb(rb"starttls")).reply(b"220 go ahead\r\n", StartTLS())
    secure_server.on(b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n").reply(b"235 welcome\r\n")
    secure_server.on(verb(rb"auth .*")).reply(b"535 no\r\n")
    secure_server.on(verb(rb"quit")).reply(b"221 bye\r\n", Close())

    with smtplib.SMTP(*secure_server.address) as client:
        with pytest.raises(smtplib.SMTPNotSupportedError):
            client.login("ann", "secret")
        client.starttls(context=trust)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ann", "guessed")
        client.login("ann", "secret")


# When the client departs


def test_the_client_says_something_else_than_the_dialogue(tcp_server: StreamTestServer) -> None:
    dialogue_of_a_mail(tcp_server)

    with tcp_server.raises(ScriptMismatch, match=r"(?i)got b'mail from:<bob@example\.org>\\r\\n'"):
        with pytest.raises(smtplib.SMTPServerDisconnected), smtplib.SMTP(*tcp_server.address) as client:
            client.sendmail("bob@example.org", ["bob@example.org"], "hi")


def test_the_client_says_what_no_rule_knows(mail_server: StreamTestServer) -> None:
    with mail_server.raises(UnexpectedRequest, match=r"no rule matches b'vrfy bob\\r\\n'"):
        with pytest.raises(smtplib.SMTPServerDisconnected), smtplib.SMTP(*mail_server.address) as client:
            client.verify("bob")


# However the bytes arrive


def test_a_dialogue_hears_a_client_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, message: EmailMessage
) -> None:
    dialogue_of_a_mail(tcp_server)

    send(byte_by_byte(sockserver, tcp_server), message)


def test_a_script_hears_a_client_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, message: EmailMessage
) -> None:
    script_of_a_mail(tcp_server)

    send(byte_by_byte(sockserver, tcp_server), message)


def test_rules_hear_a_client_byte_by_byte(
    sockserver: SockServer, mail_server: StreamTestServer, message: EmailMessage
) -> None:
    send(byte_by_byte(sockserver, mail_server), message)
