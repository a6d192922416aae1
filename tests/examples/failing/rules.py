import poplib
from contextlib import closing, suppress

from pytest_sockserver import CONNECT, lines


def test_log_in(tcp_server):
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"+OK ready\r\n")
    tcp_server.on(b"USER bob\r\n").reply(b"+OK bob\r\n")
    tcp_server.on(b"PASS new\r\n").reply(b"+OK 2 messages\r\n")

    with closing(poplib.POP3(*tcp_server.address)) as drop, suppress(ConnectionResetError):
        drop.user("bob")
        drop.pass_("old")
