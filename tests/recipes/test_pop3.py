"""POP3, with poplib."""

from __future__ import annotations

import hashlib
import poplib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def mailbox(address: Any) -> Iterator[poplib.POP3]:
    """Say QUIT at the end: a POP3 server deletes nothing before."""
    client = poplib.POP3(*address)
    try:
        yield client
        client.quit()
    finally:
        client.close()


def fetch_and_delete(address: Any) -> list[bytes]:
    with mailbox(address) as client:
        client.user("ann")
        client.pass_("secret")
        _, message, _ = client.retr(1)
        client.dele(1)
        return message


# The same story three times


def test_a_dialogue_gives_a_message(tcp_server: StreamTestServer) -> None:
    dialogue_of_a_message(tcp_server)

    assert fetch_and_delete(tcp_server.address) == [b"Subject: dots", b"", b".one", b"two"]


def dialogue_of_a_message(server: StreamTestServer) -> None:
    server.dialogue(r"""
        S: +OK ready
        C: USER ann
        S: +OK
        C: PASS secret
        S: +OK 1 message
        C: RETR 1
        S: +OK here it comes
        S: Subject: dots
        S:
        S: ..one
        S: two
        S: .
        C: DELE 1
        S: +OK deleted
        C: QUIT
        S: +OK bye
    """)


def test_a_script_gives_a_message(tcp_server: StreamTestServer) -> None:
    script_of_a_message(tcp_server)

    assert fetch_and_delete(tcp_server.address) == [b"Subject: dots", b"", b".one", b"two"]


def script_of_a_message(server: StreamTestServer) -> None:
    (
        server.script()
        .send(b"+OK ready\r\n")
        .expect(b"USER ann\r\n")
        .send(b"+OK\r\n")
        .expect(b"PASS secret\r\n")
        .send(b"+OK 1 message\r\n")
        .expect(b"RETR 1\r\n")
        .send(b"+OK here it comes\r\n", b"Subject: dots\r\n\r\n..one\r\ntwo\r\n", b".\r\n")
        .expect(b"DELE 1\r\n")
        .send(b"+OK deleted\r\n")
        .expect(b"QUIT\r\n")
        .send(b"+OK bye\r\n")
    )


MESSAGES = {b"1": b"Subject: dots\r\n\r\n.one\r\ntwo\r\n", b"2": b"Subject: none\r\n\r\n"}


@pytest.fixture
def mail_server(tcp_server: StreamTestServer) -> StreamTestServer:
    """A server that has two messages for whoever knows ann's password."""
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"+OK ready\r\n")
    tcp_server.on(re.compile(rb"USER \S+\r\n")).reply(b"+OK\r\n")
    tcp_server.on(re.compile(rb"PASS .*\r\n")).reply(b"-ERR wrong\r\n")
    tcp_server.on(b"PASS secret\r\n").reply(b"+OK 2 messages\r\n")
    tcp_server.on(b"STAT\r\n").reply(b"+OK 2 44\r\n")
    tcp_server.on(b"LIST\r\n").reply(b"+OK\r\n", b"1 28\r\n", b"2 17\r\n", b".\r\n")
    tcp_server.on(re.compile(rb"RETR ([12])\r\n")).reply(b"+OK\r\n", message, b".\r\n")
    tcp_server.on(re.compile(rb"DELE [12]\r\n")).reply(b"+OK deleted\r\n")
    tcp_server.on(b"QUIT\r\n").reply(b"+OK bye\r\n", Close())
    return tcp_server


def message(request: Request) -> bytes:
    """Return the message that a command names, its leading dots doubled (RFC 1939 section 3)."""
    return re.sub(rb"(?m)^\.", b"..", MESSAGES[request.match[1]])


def test_rules_give_any_message(mail_server: StreamTestServer) -> None:
    assert fetch_and_delete(mail_server.address) == [b"Subject: dots", b"", b".one", b"two"]
    with mailbox(mail_server.address) as client:
        client.user("ann")
        client.pass_("secret")
        assert client.stat() == (2, 44)
        assert client.list()[1] == [b"1 28", b"2 17"]
        assert client.retr(2)[1] == [b"Subject: none", b""]


# What a mail server may do


def test_the_password_is_wrong_and_the_next_one_is_right(mail_server: StreamTestServer) -> None:
    with mailbox(mail_server.address) as client:
        client.user("ann")
        with pytest.raises(poplib.error_proto, match="-ERR wrong"):
            client.pass_("guessed")
        client.user("ann")
        client.pass_("secret")


def test_the_mailbox_is_locked_and_then_it_is_not(mail_server: StreamTestServer) -> None:
    mail_server.on(b"PASS secret\r\n", times=2).reply(b"-ERR [IN-USE] locked\r\n").then(b"+OK 2 messages\r\n")

    with pytest.raises(poplib.error_proto, match="locked"):
        fetch_and_delete(mail_server.address)
    fetch_and_delete(mail_server.address)


def test_the_password_is_never_sent_with_apop(tcp_server: StreamTestServer) -> None:
    greeting = b"<17.4@mx.example.org>"
    tcp_server.dialogue(
        r"""
            S: +OK ready \g<stamp>
            C: APOP ann \g<digest>
            S: +OK
            C: QUIT
            S: +OK bye
        """,
        stamp=greeting,
        digest=hashlib.md5(greeting + b"secret").hexdigest().encode(),
    )

    with mailbox(tcp_server.address) as client:
        client.apop("ann", "secret")

    assert b"secret" not in tcp_server.connections[0].received


WHOLE = b"Subject: dots\r\n\r\n..one\r\ntwo\r\n.\r\n"


@pytest.mark.parametrize("n", range(len(WHOLE) - 1))  # poplib takes b".\r" for the end
def test_a_message_is_cut_at_every_byte(mail_server: StreamTestServer, n: int) -> None:
    mail_server.on(b"RETR 1\r\n").reply(b"+OK\r\n", Cut(WHOLE, n), Close())

    with pytest.raises(poplib.error_proto, match="-ERR EOF"):
        fetch_and_delete(mail_server.address)

    assert b"DELE 1\r\n" not in mail_server.requests


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_server(sockserver: SockServer, authority: trustme.CA) -> StreamTestServer:
    """A server that has a certificate, for when STLS is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return sockserver.tcp(tls=context)


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_dialogue_over_stls(secure_server: StreamTestServer, trust: ssl.SSLContext) -> None:
    secure_server.dialogue(r"""
        S: +OK ready
        C: CAPA
        S: +OK
        S: STLS
        S: .
        C: STLS
        S: +OK go ahead
        S! start-tls
        C: USER ann
        S: +OK
        C: PASS secret
        S: +OK 0 messages
        C: QUIT
        S: +OK bye
    """)

    with mailbox(secure_server.address) as client:
        client.stls(trust)  # it asks CAPA first
        client.user("ann")
        client.pass_("secret")

    assert secure_server.connections[0].tls.version == "TLSv1.3"


def test_rules_over_tls_from_the_first_byte(secure_server: StreamTestServer, trust: ssl.SSLContext) -> None:
    secure_server.framing = lines(b"\r\n")
    secure_server.on(CONNECT).reply(StartTLS(), b"+OK ready\r\n")
    secure_server.on(b"NOOP\r\n").reply(b"+OK\r\n")
    secure_server.on(b"QUIT\r\n").reply(b"+OK bye\r\n", Close())

    client = poplib.POP3_SSL(*secure_server.address, context=trust)
    assert client.noop() == b"+OK"
    client.quit()


# When the client departs


def test_the_client_says_something_else_than_the_dialogue(tcp_server: StreamTestServer) -> None:
    dialogue_of_a_message(tcp_server)

    with tcp_server.raises(ScriptMismatch, match=r"got b'USER bob\\r\\n' \(differs at byte 5: b'b' is not b'a'\)"):
        with pytest.raises(ConnectionResetError), mailbox(tcp_server.address) as client:
            client.user("bob")


def test_the_client_says_what_no_rule_knows(mail_server: StreamTestServer) -> None:
    with mail_server.raises(UnexpectedRequest, match=r"no rule matches b'UIDL\\r\\n'"):
        with pytest.raises(ConnectionResetError), mailbox(mail_server.address) as client:
            client.uidl()


# However the bytes arrive


@pytest.mark.parametrize("declare", [dialogue_of_a_message, script_of_a_message])
def test_what_is_ordered_hears_a_client_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, declare: Any
) -> None:
    declare(tcp_server)

    assert fetch_and_delete(byte_by_byte(sockserver, tcp_server))[-1] == b"two"


def test_rules_hear_a_client_byte_by_byte(sockserver: SockServer, mail_server: StreamTestServer) -> None:
    assert fetch_and_delete(byte_by_byte(sockserver, mail_server))[-1] == b"two"
