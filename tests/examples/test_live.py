"""Drive the server from the test: accept() and in_thread()."""

import http.client
import socket

import pytest

from pytest_sockserver import EndOfStream


def get(host, port, path):
    connection = http.client.HTTPConnection(host, port)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_truncated_body_is_noticed(tcp_server):
    body = tcp_server.in_thread(get, *tcp_server.address, "/report")

    conn = tcp_server.accept()
    assert conn.recv_until(b"\r\n\r\n").startswith(b"GET /report HTTP/1.1\r\n")
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    conn.close()

    with pytest.raises(http.client.IncompleteRead):
        body.result()


def test_client_hangs_up_after_the_reply(tcp_server):
    body = tcp_server.in_thread(get, *tcp_server.address, "/")

    conn = tcp_server.accept()
    conn.recv_until(b"\r\n\r\n")
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    assert body.result() == b"ok"
    with pytest.raises(EndOfStream):
        conn.recv_line()
    assert conn.closed_by == "client"


def test_news_and_a_reset_in_the_midst_of_a_handler(tcp_server):
    @tcp_server.handler
    def echo(conn):
        while True:
            conn.send(conn.recv_line())

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"
        conn = tcp_server.connections[0]
        conn.send(b"news\n")
        assert client.recv(100) == b"news\n"
        conn.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_reset_from_the_test_before_the_handler_has_begun_is_no_failure(sockserver):
    for _ in range(30):  # a race: the handler's thread is started, and may not run yet
        server = sockserver.tcp()
        server.handler(lambda conn: conn.recv_all() and None)

        with socket.create_connection(server.address) as client:
            server.wait_connection().reset()
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        server.stop()
