"""Test a client that speaks first, or last, or waits for a greeting."""

import http.client
import poplib
import socket

import pytest


def test_client_speaks_first(tcp_server):
    @tcp_server.handler
    def web(conn):
        while True:
            conn.recv_until(b"\r\n\r\n")
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    client = http.client.HTTPConnection(*tcp_server.address)
    client.request("GET", "/greeting")

    assert client.getresponse().read() == b"hello"
    assert tcp_server.requests[0].startswith(b"GET /greeting HTTP/1.1\r\n")
    client.close()


def test_server_speaks_first(tcp_server):
    @tcp_server.handler
    def mailbox(conn):
        conn.send(b"+OK POP3 ready\r\n")
        conn.expect_line(b"USER bob")
        conn.send(b"+OK\r\n")
        conn.expect_line(b"PASS secret")
        conn.send(b"-ERR the mailbox is locked\r\n")

    client = poplib.POP3(*tcp_server.address)
    client.user("bob")

    with pytest.raises(poplib.error_proto, match="the mailbox is locked"):
        client.pass_("secret")
    client.close()


def test_client_speaks_last(tcp_server):
    @tcp_server.handler
    def service(conn):
        conn.expect_line(b"HELLO")
        conn.send(b"HELLO YOURSELF\r\n")
        conn.expect_line(b"BYE")
        conn.expect_eof()

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"HELLO\r\n")
        assert client.recv(1024) == b"HELLO YOURSELF\r\n"
        client.sendall(b"BYE\r\n")  # and hangs up: the end of the test waits until the handler has seen it


def test_server_speaks_last(tcp_server):
    @tcp_server.handler
    def summary(conn):
        upload = conn.recv_all()  # until the client ends its half of the stream
        conn.send(b"%d bytes\n" % len(upload))

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(bytes(1000))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1024) == b"1000 bytes\n"
