import poplib
from contextlib import closing


def test_log_out(tcp_server):
    tcp_server.dialogue(r"""
        S: +OK ready
        C: USER bob
        S: +OK bob
        C: QUIT
        S: +OK bye
    """)

    with closing(poplib.POP3(*tcp_server.address)) as drop:
        drop.user("bob")
