"""http.client: one connection for many requests, and every way in which a reply can go wrong."""

from __future__ import annotations

import http.client
import http.server
import re
from collections.abc import Iterator

import pytest

from pytest_sockserver import Connection, StreamTestServer


@pytest.fixture
def client(tcp_server: StreamTestServer) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection(*tcp_server.address, timeout=5)
    yield client
    client.close()


def get(client: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    client.request("GET", path)
    return client.getresponse()


def test_requests_with_and_without_a_body_share_a_connection(
    tcp_server: StreamTestServer, client: http.client.HTTPConnection
) -> None:
    @tcp_server.handler
    def echo(conn: Connection) -> None:
        while True:
            head = conn.recv_until(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            body = conn.recv_exactly(int(length[1])) if length else b""
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    client.request("POST", "/", body=b"hey")
    assert client.getresponse().read() == b"hey"
    assert get(client, "/nothing").read() == b""

    head, body, second_head = tcp_server.requests
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert body == b"hey"
    assert second_head.startswith(b"GET /nothing HTTP/1.1\r\n")
    assert len(tcp_server.connections) == 1


def test_a_chunked_reply_that_comes_byte_by_byte(
    tcp_server: StreamTestServer, client: http.client.HTTPConnection
) -> None:
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    @tcp_server.handler
    def dribble(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        for byte in reply:
            conn.send(bytes([byte]))

    assert get(client, "/").read() == b"abcde"
    assert tcp_server.connections[0].sent == reply


def test_interim_replies_are_passed_over(tcp_server: StreamTestServer, client: http.client.HTTPConnection) -> None:
    @tcp_server.handler
    def announce(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 Nothing\r\n\r\n")

    assert get(client, "/").status == 204


def test_a_body_without_a_length_ends_with_the_stream(
    tcp_server: StreamTestServer, client: http.client.HTTPConnection
) -> None:
    @tcp_server.handler
    def answer_and_close(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

    assert get(client, "/").read() == b"until the end"


def test_a_body_shorter_than_announced(tcp_server: StreamTestServer, client: http.client.HTTPConnection) -> None:
    @tcp_server.handler
    def stop_short(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    with pytest.raises(http.client.IncompleteRead, match=r"^IncompleteRead\(3 bytes read, 7 more expected\)$"):
        get(client, "/").read()


def test_an_end_of_stream_instead_of_a_reply(tcp_server: StreamTestServer, client: http.client.HTTPConnection) -> None:
    @tcp_server.handler
    def close(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")

    with pytest.raises(http.client.RemoteDisconnected, match="^Remote end closed connection without response$"):
        get(client, "/")


def test_a_reset_instead_of_a_reply(tcp_server: StreamTestServer, client: http.client.HTTPConnection) -> None:
    @tcp_server.handler
    def reset(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.reset()

    # RemoteDisconnected, of a plain end, is a ConnectionResetError too.
    with pytest.raises(ConnectionResetError, match="Connection reset by peer$"):
        get(client, "/")


def test_junk_instead_of_a_reply(tcp_server: StreamTestServer, client: http.client.HTTPConnection) -> None:
    @tcp_server.handler
    def babble(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"\x00\x01junk\r\n")

    with pytest.raises(http.client.BadStatusLine):
        get(client, "/")


def test_a_handler_class_of_http_server_serves_and_is_recorded(
    tcp_server: StreamTestServer, client: http.client.HTTPConnection
) -> None:
    @tcp_server.handler
    class Teapot(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(418)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing on stderr."""

    for path in ("/a", "/b"):
        with get(client, path) as response:
            assert response.status == 418

    conn = tcp_server.connections[0]
    assert re.findall(rb"GET (\S+)", conn.received) == [b"/a", b"/b"]
    assert conn.sent.count(b"HTTP/1.1 418 I'm a Teapot\r\n") == 2
