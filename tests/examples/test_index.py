"""The first example of the documentation."""

import socket


def greet(address, name):
    """Ask a greeting service for its line about somebody."""
    with socket.create_connection(address) as sock, sock.makefile("rb") as lines:
        sock.sendall(name + b"\n")
        return lines.readline()


def test_client_is_greeted(tcp_server):
    @tcp_server.handler
    def greeter(conn):  # called once for each connection, in a thread of its own
        while True:  # the client's end of stream ends it quietly
            conn.send(b"hello " + conn.recv_line())

    assert greet(tcp_server.address, b"bob") == b"hello bob\n"
    assert tcp_server.requests == [b"bob\n"]
