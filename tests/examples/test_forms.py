"""One small server in each of the five forms: handler, script, rules, dialogue, live; and what goes together."""

import poplib
import re
from contextlib import closing

import pytest

from pytest_sockserver import CONNECT, ScriptMismatch, Text, UnexpectedRequest, lines


def log_in(address, user, *passwords):
    """Log in to a mail drop with the first password that it takes; return its answer."""
    with closing(poplib.POP3(*address)) as drop:
        for password in passwords:
            drop.user(user)
            try:
                return drop.pass_(password)
            except poplib.error_proto:
                pass
    raise PermissionError(f"no password of {user} is right")


# The five forms


def test_handler(tcp_server):
    @tcp_server.handler
    def mail_drop(conn):
        conn.send(b"+OK ready\r\n")
        for answer in (b"-ERR wrong password\r\n", b"+OK 2 messages\r\n"):
            user = conn.expect_line(re.compile(rb"USER (\w+)")).match[1]
            conn.send(b"+OK " + user + b"\r\n")
            conn.expect_line(re.compile(rb"PASS .*"))
            conn.send(answer)

    assert log_in(tcp_server.address, "bob", "old", "new") == b"+OK 2 messages"


def test_script(tcp_server):
    (
        tcp_server.script()
        .send(b"+OK ready\r\n")
        .expect_line(re.compile(rb"USER (?P<user>\w+)"))
        .send(Text(r"+OK \g<user>\r\n"))
        .expect_line(re.compile(rb"PASS .*"))
        .send(b"-ERR wrong password\r\n")
        .expect(Text(r"USER \g<user>\r\n"))
        .send(Text(r"+OK \g<user>\r\n"))
        .expect(b"PASS new\r\n")
        .send(b"+OK 2 messages\r\n")
    )

    assert log_in(tcp_server.address, "bob", "old", "new") == b"+OK 2 messages"


def test_rules(tcp_server):
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"+OK ready\r\n")
    tcp_server.on(re.compile(rb"USER (?P<user>\w+)\r\n")).reply(Text(r"+OK \g<user>\r\n"))
    tcp_server.on(re.compile(rb"PASS .*\r\n")).reply(b"-ERR wrong password\r\n")
    tcp_server.on(b"PASS new\r\n").reply(b"+OK 2 messages\r\n")

    assert log_in(tcp_server.address, "bob", "old", "new") == b"+OK 2 messages"


def test_dialogue(tcp_server):
    tcp_server.dialogue(r"""
        S: +OK ready
        C~ USER (?P<user>\w+)
        S: +OK \g<user>
        C~ PASS .*
        S: -ERR wrong password
        C: USER \g<user>
        S: +OK \g<user>
        C: PASS new
        S: +OK 2 messages
    """)

    assert log_in(tcp_server.address, "bob", "old", "new") == b"+OK 2 messages"


def test_live(tcp_server):
    answer = tcp_server.in_thread(log_in, tcp_server.address, "bob", "old", "new")

    conn = tcp_server.accept()
    conn.send(b"+OK ready\r\n")
    for word in (b"-ERR wrong password\r\n", b"+OK 2 messages\r\n"):
        conn.expect(b"USER bob\r\n")
        conn.send(b"+OK bob\r\n")
        conn.expect_line(re.compile(rb"PASS .*"))
        conn.send(word)

    assert answer.result() == b"+OK 2 messages"


# Together


def test_rules_behind_a_script(tcp_server):
    tcp_server.on(b"NOOP\r\n").reply(b"+OK\r\n")
    tcp_server.on(b"QUIT\r\n").reply(b"+OK bye\r\n")
    tcp_server.script().send(b"+OK ready\r\n").expect(b"USER bob\r\n").send(b"+OK bob\r\n")

    with closing(poplib.POP3(*tcp_server.address)) as drop:
        drop.user("bob")
        assert drop.noop() == b"+OK"
        assert drop.quit() == b"+OK bye"


def test_rules_within_a_script(tcp_server):
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(b"NOOP\r\n").reply(b"+OK\r\n")
    (
        tcp_server.script()
        .send(b"+OK ready\r\n")
        .expect(b"USER bob\r\n")
        .send(b"+OK bob\r\n")
        .expect(b"QUIT\r\n")
        .send(b"+OK bye\r\n")
    )

    with closing(poplib.POP3(*tcp_server.address)) as drop:
        assert drop.noop() == b"+OK"
        drop.user("bob")
        assert drop.noop() == b"+OK"
        assert drop.quit() == b"+OK bye"


def test_scripts_then_rules(tcp_server):
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"+OK ready\r\n")
    tcp_server.on(re.compile(rb"(USER|PASS) .*\r\n")).reply(b"+OK\r\n")
    tcp_server.script().send(b"+OK ready\r\n").expect(b"USER bob\r\n").send(b"-ERR locked\r\n").close()

    with pytest.raises(poplib.error_proto, match="locked"):
        log_in(tcp_server.address, "bob", "new")
    assert log_in(tcp_server.address, "bob", "new") == b"+OK"


def test_handler_that_hands_over_to_the_rules(tcp_server):
    tcp_server.on(b"NOOP\r\n").reply(b"+OK\r\n")

    @tcp_server.handler
    def mail_drop(conn):
        conn.send(b"+OK ready, visitor %d\r\n" % conn.index)
        conn.expect(b"USER bob\r\n")
        conn.send(b"+OK bob\r\n")
        conn.rules()  # returns when the client has ended its stream, or a rule has

    with closing(poplib.POP3(*tcp_server.address)) as drop:
        assert drop.getwelcome() == b"+OK ready, visitor 0"
        drop.user("bob")
        assert drop.noop() == b"+OK"


def test_reply_function_that_converses(tcp_server):
    def ask_for_the_password(request):
        conn = request.connection
        conn.send(b"+OK " + request.match[1] + b"\r\n")
        conn.expect_line(b"PASS new")  # whatever else comes now is a failure
        return b"+OK 2 messages\r\n"

    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"+OK ready\r\n")
    tcp_server.on(re.compile(rb"USER (\w+)\r\n")).reply(ask_for_the_password)

    assert log_in(tcp_server.address, "bob", "new") == b"+OK 2 messages"


# What the client does wrong


def test_script_at_a_client_that_departs(tcp_server):
    tcp_server.script().send(b"+OK ready\r\n").expect(b"USER bob\r\n")

    with tcp_server.raises(ScriptMismatch, match=r"got b'USER ann\\r\\n' \(differs at byte 5: b'a' is not b'b'\)"):
        with pytest.raises(ConnectionResetError):
            log_in(tcp_server.address, "ann", "new")


def test_rules_at_a_client_that_departs(tcp_server):
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"+OK ready\r\n")
    tcp_server.on(b"USER bob\r\n").reply(b"+OK\r\n")

    with tcp_server.raises(UnexpectedRequest, match=r"no rule matches b'USER ann\\r\\n'"):
        with pytest.raises(ConnectionResetError):
            log_in(tcp_server.address, "ann", "new")
