"""Drive the server from the test: accept() and in_thread()."""

import http.client

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
