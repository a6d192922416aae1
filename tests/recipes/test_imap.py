"""IMAP, with IMAPClient and imaplib."""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from imapclient import IMAPClient

from pytest_sockserver import (
    CONNECT,
    Close,
    Cut,
    Request,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    lines,
)

from .relay import byte_by_byte


def read_new_mail(address: Any) -> dict[int, bytes]:
    """Return the unread messages of ann's inbox, by UID."""
    with IMAPClient(*address, ssl=False) as client:
        client.login("ann", "secret")
        client.select_folder("INBOX")
        new = client.search("UNSEEN")
        return {uid: data[b"BODY[]"] for uid, data in client.fetch(new, ["BODY[]"]).items()}


MAIL = {7: b"Subject: t\r\n\r\nhey\r\n"}

# The same story three times


def test_a_dialogue_with_the_tags_of_the_client(tcp_server: StreamTestServer) -> None:
    dialogue_of_an_inbox(tcp_server)

    assert read_new_mail(tcp_server.address) == MAIL


def script_of_an_inbox(server: StreamTestServer) -> None:
    ok = Text(r"\g<tag> OK done\r\n")
    (
        server.script()
        .send(b"* OK ready\r\n")
        .expect_line(re.compile(rb"(?P<tag>\S+) CAPABILITY"))
        .send(b"* CAPABILITY IMAP4rev1\r\n", ok)
        .expect_line(re.compile(rb'(?P<tag>\S+) LOGIN ann "secret"'))
        .send(b"* CAPABILITY IMAP4rev1\r\n", ok)
        .expect_line(re.compile(rb'(?P<tag>\S+) SELECT "INBOX"'))
        .send(b"* 1 EXISTS\r\n", ok)
        .expect_line(re.compile(rb"(?P<tag>\S+) CAPABILITY"))
        .send(b"* CAPABILITY IMAP4rev1\r\n", ok)
        .expect_line(re.compile(rb"(?P<tag>\S+) UID SEARCH UNSEEN"))
        .send(b"* SEARCH 7\r\n", ok)
        .expect_line(re.compile(rb"(?P<tag>\S+) UID FETCH 7 \(BODY\[\]\)"))
        .send(b"* 1 FETCH (UID 7 BODY[] {19}\r\nSubject: t\r\n\r\nhey\r\n)\r\n", ok)
        .expect_line(re.compile(rb"(?P<tag>\S+) LOGOUT"))
        .send(b"* BYE\r\n", ok)
    )


def dialogue_of_an_inbox(server: StreamTestServer) -> None:
    server.dialogue(r"""
        S: * OK ready
        C~ (?P<tag>\S+) LOGIN ann "secret"
        S: \g<tag> OK welcome
        C~ (?P<tag>\S+) SELECT "INBOX"
        S: * 1 EXISTS
        S: \g<tag> OK selected
        C~ (?P<tag>\S+) UID SEARCH UNSEEN
        S: * SEARCH 7
        S: \g<tag> OK found
        C~ (?P<tag>\S+) UID FETCH 7 \(BODY\[\]\)
        S: * 1 FETCH (UID 7 BODY[] {19}
        S: Subject: t
        S:
        S: hey
        S: )
        S: \g<tag> OK fetched
        C~ (?P<tag>\S+) LOGOUT
        S: * BYE
        S: \g<tag> OK bye

        % rules
        # asked by the client itself, when it connects and after the login
        C~ (?P<tag>\S+) CAPABILITY
        S: * CAPABILITY IMAP4rev1
        S: \g<tag> OK done
        % end
    """)


def test_a_script_with_the_tags_of_the_client(tcp_server: StreamTestServer) -> None:
    script_of_an_inbox(tcp_server)

    assert read_new_mail(tcp_server.address) == MAIL


def command(pattern: bytes) -> re.Pattern[bytes]:
    """Return what matches a whole command, and keeps its tag."""
    return re.compile(rb"(?i)(?P<tag>\S+) (?:%b)\r\n" % pattern)


OK = Text(r"\g<tag> OK done\r\n")
NO = Text(r"\g<tag> NO wrong\r\n")


@pytest.fixture
def mail_server(tcp_server: StreamTestServer) -> StreamTestServer:
    """A server that has one new message, and takes what is appended."""
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"* OK ready\r\n")
    tcp_server.on(command(rb"capability")).reply(b"* CAPABILITY IMAP4rev1\r\n", OK)
    tcp_server.on(command(rb"login .*")).reply(NO)
    tcp_server.on(command(rb'login ann "secret"')).reply(OK)
    tcp_server.on(command(rb'select "?inbox"?')).reply(b"* 1 EXISTS\r\n", OK)
    tcp_server.on(command(rb"uid search .*")).reply(b"* SEARCH 7\r\n", OK)
    tcp_server.on(command(rb"uid fetch (?P<uid>\d+) .*")).reply(message, OK)
    tcp_server.on(command(rb"append .* \{(?P<size>\d+)\}")).reply(b"+ go ahead\r\n", take_literal, OK)
    tcp_server.on(command(rb"logout")).reply(b"* BYE\r\n", OK, Close())
    return tcp_server


def message(fetch: Request) -> bytes:
    """Return a message as a literal: its size in octets, then the octets."""
    data = MAIL[int(fetch.match["uid"])]
    return b"* 1 FETCH (UID %b BODY[] {%d}\r\n%b)\r\n" % (fetch.match["uid"], len(data), data)


def take_literal(append: Request) -> tuple[()]:
    """Take the octets that a command has announced, and the rest of its line."""
    append.connection.recv_exactly(int(append.match["size"]))
    append.connection.expect(b"\r\n")
    return ()


def test_rules_with_the_tags_of_the_client(mail_server: StreamTestServer) -> None:
    assert read_new_mail(mail_server.address) == MAIL


# Literals, and news that nobody asked for


def test_a_message_that_the_client_appends_waits_for_the_go_ahead(mail_server: StreamTestServer) -> None:
    with imaplib.IMAP4(*mail_server.address) as client:
        client.login("ann", "secret")
        status, _ = client.append("Drafts", "", "", b"Subject: later\r\n\r\n")

    assert status == "OK"
    assert b"Subject: later\r\n\r\n" in mail_server.requests


def test_mail_arrives_while_the_client_is_idle(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(r"""
        S: * OK ready
        C~ (?P<tag>\S+) CAPABILITY
        S: * CAPABILITY IMAP4rev1 IDLE
        S: \g<tag> OK done
        C~ (?P<tag>\S+) IDLE
        S: + idling
        S! wait mail
        S: * 2 EXISTS
        C: DONE
        S: \g<tag> OK done
        C~ (?P<tag>\S+) LOGOUT
        S: * BYE
        S: \g<tag> OK done
    """)

    with IMAPClient(*tcp_server.address, ssl=False) as client:
        client.idle()
        tcp_server.open_gate("mail")
        assert client.idle_check(timeout=5) == [(2, b"EXISTS")]
        client.idle_done()


FETCHED = r"* 1 FETCH (UID 7 BODY[] {19}\r\nSubject: t\r\n\r\nhey\r\n)\r\n\g<tag> OK done\r\n"


@pytest.mark.parametrize("n", range(67))  # of 67 bytes, with the five of the tag
def test_a_message_is_cut_at_every_byte(mail_server: StreamTestServer, n: int) -> None:
    mail_server.on(command(rb"uid fetch .*")).reply(Cut(Text(FETCHED), n), Close())

    with pytest.raises(imaplib.IMAP4.abort, match="^command: FETCH => "):
        read_new_mail(mail_server.address)


# TLS


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


def test_a_dialogue_over_starttls(secure_server: StreamTestServer, trust: ssl.SSLContext) -> None:
    secure_server.dialogue(r"""
        S: * OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready
        C~ (?P<tag>\S+) STARTTLS
        S: \g<tag> OK go ahead
        S! start-tls
        C~ (?P<tag>\S+) LOGIN ann "guessed"
        S: \g<tag> NO wrong
        C~ (?P<tag>\S+) LOGIN ann "secret"
        S: \g<tag> OK welcome
        C~ (?P<tag>\S+) LOGOUT
        S: * BYE
        S: \g<tag> OK done

        % rules
        C~ (?P<tag>\S+) CAPABILITY
        S: * CAPABILITY IMAP4rev1 STARTTLS
        S: \g<tag> OK done
        % end
    """)

    with IMAPClient(*secure_server.address, ssl=False) as client:
        client.starttls(trust)
        with pytest.raises(imaplib.IMAP4.error, match="wrong"):
            client.login("ann", "guessed")
        client.login("ann", "secret")

    assert secure_server.connections[0].tls.version == "TLSv1.3"


# When the client departs


def test_the_client_says_something_else_than_the_dialogue(tcp_server: StreamTestServer) -> None:
    dialogue_of_an_inbox(tcp_server)

    with tcp_server.raises(ScriptMismatch, match=r"got b'\w+ LIST "):
        with pytest.raises(ConnectionResetError), IMAPClient(*tcp_server.address, ssl=False) as client:
            client.login("ann", "secret")
            client.list_folders()


def test_the_client_says_what_no_rule_knows(mail_server: StreamTestServer) -> None:
    with mail_server.raises(UnexpectedRequest, match=r"no rule matches b'\w+ LIST "):
        with pytest.raises(ConnectionResetError), IMAPClient(*mail_server.address, ssl=False) as client:
            client.login("ann", "secret")
            client.list_folders()


# However the bytes arrive


@pytest.mark.parametrize("declare", [dialogue_of_an_inbox, script_of_an_inbox])
def test_what_is_ordered_hears_a_client_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, declare: Callable[[StreamTestServer], None]
) -> None:
    declare(tcp_server)

    assert read_new_mail(byte_by_byte(sockserver, tcp_server)) == MAIL


def test_rules_hear_a_client_byte_by_byte(sockserver: SockServer, mail_server: StreamTestServer) -> None:
    address = byte_by_byte(sockserver, mail_server)

    assert read_new_mail(address) == MAIL
    with imaplib.IMAP4(*address) as client:
        client.login("ann", "secret")
        assert client.append("Drafts", "", "", b"later\r\n")[0] == "OK"
