import poplib
from contextlib import closing, suppress


def test_log_in(tcp_server):
    (
        tcp_server.script()
        .send(b"+OK ready\r\n")
        .expect(b"USER bob\r\n")
        .send(b"+OK bob\r\n")
        .expect_line(b"PASS new")
        .send(b"+OK 2 messages\r\n")
    )

    with closing(poplib.POP3(*tcp_server.address)) as drop, suppress(ConnectionResetError):
        drop.user("bob")
        drop.pass_("old")
