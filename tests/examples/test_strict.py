"""What fails a test without being asked, and how to say that something else is meant."""

import poplib
import re
import socket
from contextlib import closing

import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    Close,
    Reset,
    ScriptMismatch,
    UnexpectedRequest,
    UnmetExpectation,
    UnsupportedFault,
    lines,
)


def mailbox(address):
    """Connect to a mail drop, and hang up at the end, without a QUIT."""
    return closing(poplib.POP3(*address))


# The last word


@pytest.fixture
def drop(tcp_server):
    (
        tcp_server.script()
        .send(b"+OK ready\r\n")
        .expect(b"NOOP\r\n")
        .send(b"+OK\r\n")
        .expect(b"QUIT\r\n")
        .send(b"+OK bye\r\n")
    )
    with mailbox(tcp_server.address) as drop:
        yield drop
        drop.quit()


def test_quit_is_said_in_the_teardown(tcp_server, drop):
    assert drop.noop() == b"+OK"


def test_quit_may_be_left_out(tcp_server):
    tcp_server.script(times=2).send(b"+OK ready\r\n").maybe(b"QUIT\r\n", b"+OK bye\r\n")

    with mailbox(tcp_server.address) as drop:
        assert drop.quit() == b"+OK bye"
    with mailbox(tcp_server.address):
        pass


def test_nothing_may_follow(tcp_server):
    tcp_server.script().send(b"+OK ready\r\n").expect(b"NOOP\r\n").send(b"+OK\r\n")

    with tcp_server.raises(ScriptMismatch, match=r"expected the end of the stream\n  got b'QUIT\\r\\n'"):
        with mailbox(tcp_server.address) as drop, pytest.raises(ConnectionResetError):
            drop.noop()
            drop.quit()


def test_something_may_follow(tcp_server):
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(ANY).reply(b"-ERR not now\r\n")
    tcp_server.script().send(b"+OK ready\r\n").expect(b"NOOP\r\n").send(b"+OK\r\n")

    with mailbox(tcp_server.address) as drop:
        drop.noop()
        with pytest.raises(poplib.error_proto, match="not now"):
            drop.quit()


# How often


@pytest.fixture
def rules(tcp_server):
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"+OK ready\r\n")
    tcp_server.on(b"QUIT\r\n").reply(b"+OK bye\r\n", Close())
    return tcp_server


def test_client_tries_once_more(rules):
    rules.on(b"NOOP\r\n", times=2).reply(Reset()).then(b"+OK\r\n")

    with mailbox(rules.address) as drop, pytest.raises(ConnectionResetError):
        drop.noop()
    with mailbox(rules.address) as drop:
        assert drop.noop() == b"+OK"


def test_client_does_not_try_once_more(rules):
    rules.on(b"NOOP\r\n", times=2).reply(b"+OK\r\n")

    with mailbox(rules.address) as drop:
        drop.noop()

    with pytest.raises(UnmetExpectation, match=r"was to be taken 2 times, and was taken only once"):
        rules.verify()


def test_client_asks_too_often(rules):
    rules.on(b"NOOP\r\n", times=1).reply(b"+OK\r\n")

    with rules.raises(UnexpectedRequest, match=r"no rule is left for b'NOOP\\r\\n'"):
        with mailbox(rules.address) as drop, pytest.raises(ConnectionResetError):
            drop.noop()
            drop.noop()


def test_rule_that_is_used_up_steps_aside(rules):
    rules.on(re.compile(rb"NOOP\r\n")).reply(b"+OK\r\n")
    rules.on(b"NOOP\r\n", times=1).reply(b"-ERR busy\r\n")

    with mailbox(rules.address) as drop:
        with pytest.raises(poplib.error_proto, match="busy"):
            drop.noop()
        assert drop.noop() == b"+OK"


def test_how_often_so_far(rules):
    noop = rules.on(b"NOOP\r\n", times=(0, 3)).reply(b"+OK\r\n")

    with mailbox(rules.address) as drop:
        drop.noop()
        assert noop.count == 1


# Connections


def greeting(address):
    with socket.create_connection(address) as sock, sock.makefile("rb") as said:
        return said.readline()


def test_one_connection_too_many(tcp_server):
    tcp_server.script().send(b"+OK ready\r\n")

    assert greeting(tcp_server.address) == b"+OK ready\r\n"
    with tcp_server.raises(UnexpectedRequest, match="expected no further connection"):
        with pytest.raises(ConnectionResetError):
            greeting(tcp_server.address)


def test_any_number_of_connections(tcp_server):
    tcp_server.script(times=None).send(b"+OK ready\r\n")

    for _ in range(3):
        assert greeting(tcp_server.address) == b"+OK ready\r\n"


def test_one_connection_too_few(tcp_server):
    tcp_server.script(times=2).send(b"+OK ready\r\n")

    assert greeting(tcp_server.address) == b"+OK ready\r\n"

    with pytest.raises(UnmetExpectation, match="was not taken: only 1 of 2 connections came"):
        tcp_server.verify()


# Parts that the transport cannot do


def test_reset_is_declared_for_datagrams(udp_server):
    with pytest.raises(UnsupportedFault, match=r"reply\(\) cannot do Reset\(\) with datagrams"):
        udp_server.on(b"hi").reply(Reset())


def test_reset_is_returned_for_datagrams(udp_server):
    udp_server.on(b"hi").reply(lambda request: Reset())

    with udp_server.raises(UnsupportedFault, match=r"cannot do Reset\(\) with datagrams"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hi", udp_server.address)


# When it is asked


def test_verify_between_two_steps_of_the_test(rules):
    rules.on(b"NOOP\r\n", times=1).reply(b"+OK\r\n")

    with mailbox(rules.address) as drop:
        drop.noop()
        rules.verify()  # so far nothing went wrong, and nothing is missing
        drop.quit()


# Warnings


@pytest.mark.filterwarnings("ignore:.*the kernel dropped:pytest_sockserver.SockServerWarning")
@pytest.mark.sockserver(rcvbuf=2048)
def test_small_buffer_loses_datagrams(udp_server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(300):
            client.sendto(b"hits:1|c", udp_server.address)
    udp_server.wait_for(b"hits:1|c")
