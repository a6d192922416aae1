"""A network that is bad by chance."""

import socket

from pytest_sockserver import DATA, Close, Cut


def test_five_questions_have_five_answers(tcp_server):
    tcp_server.on(b"time\n").reply(b"12:00\n")
    tcp_server.inject(Cut(DATA, 3), Close(), probability=0.3, seed=5)

    with socket.create_connection(tcp_server.address) as sock, sock.makefile("rb") as answers:
        for _ in range(5):
            sock.sendall(b"time\n")
            assert answers.readline() == b"12:00\n"
