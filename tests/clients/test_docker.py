"""docker: HTTP over a unix socket, with a pool; `exec` turns a connection into raw bytes, ended half by half."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import docker
import docker.errors
import pytest

from pytest_sockserver import Connection, StreamTestServer

RUNNING = {"Id": "abc", "Name": "/web", "Config": {"Tty": False, "Image": "i"}, "State": {"Status": "running"}}


@pytest.fixture
def client(unix_server: StreamTestServer) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=unix_server.url("unix"), version="1.46")
    yield client
    client.close()


def recv_request(conn: Connection) -> bytes:
    """Read a request with its body; return its method and path."""
    head = conn.recv_until(b"\r\n\r\n")
    if length := re.search(rb"Content-Length: (\d+)", head):
        conn.recv_exactly(int(length[1]))
    return b" ".join(head.split()[:2])


def json_reply(body: object, status: bytes = b"200 OK") -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)


def frame(stream: int, data: bytes) -> bytes:
    """Mark output as that of stdout, 1, or of stderr, 2."""
    return struct.pack(">BxxxL", stream, len(data)) + data


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_the_version_is_agreed_on_first(unix_server: StreamTestServer) -> None:
    @unix_server.handler
    def tell(conn: Connection) -> None:
        while True:
            if recv_request(conn) == b"GET /version":
                conn.send(json_reply({"ApiVersion": "1.46", "MinAPIVersion": "1.24"}))
            else:
                conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

    client = docker.DockerClient(base_url=unix_server.url("unix"))
    assert client.ping()
    client.close()

    assert [request.split()[1] for request in unix_server.requests] == [b"/version", b"/v1.46/_ping"]


def test_an_unknown_image_is_not_found(unix_server: StreamTestServer, client: docker.DockerClient) -> None:
    @unix_server.handler
    def know_nothing(conn: Connection) -> None:
        assert recv_request(conn) == b"GET /v1.46/images/nothing/json"
        conn.send(json_reply({"message": "no such image"}, status=b"404 Not Found"))

    with pytest.raises(docker.errors.ImageNotFound, match="no such image"):
        client.images.get("nothing")


def test_logs_are_told_apart_by_stream(unix_server: StreamTestServer, client: docker.DockerClient) -> None:
    @unix_server.handler
    def log(conn: Connection) -> None:
        while True:
            if b"/logs?" in recv_request(conn):
                conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                conn.send(chunk(frame(1, b"out")), chunk(frame(2, b"err")), chunk(b""))
            else:
                conn.send(json_reply(RUNNING))

    logs = client.containers.get("abc").logs(stream=True)

    assert list(logs) == [b"out", b"err"]


def test_events_end_when_the_client_has_enough(unix_server: StreamTestServer, client: docker.DockerClient) -> None:
    @unix_server.handler
    def go_on(conn: Connection) -> None:
        assert recv_request(conn) == b"GET /v1.46/events"
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b'{"Type":"container"}\n'))
        conn.expect_eof()

    events = client.events(decode=True)
    assert next(events) == {"Type": "container"}
    events.close()

    conn = unix_server.connections[0]
    conn.wait_closed()
    assert conn.closed_by == "client"


def test_exec_turns_the_connection_into_raw_bytes(unix_server: StreamTestServer, client: docker.DockerClient) -> None:
    @unix_server.handler
    def run(conn: Connection) -> None:
        while (request := recv_request(conn)) != b"POST /v1.46/exec/e1/start":
            assert request == b"POST /v1.46/containers/abc/exec"
            conn.send(json_reply({"Id": "e1"}, status=b"201 Created"))
        conn.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        conn.send(b"echo:" + conn.recv_exactly(2))
        conn.send_eof()
        conn.expect(b"bye")
        conn.expect_eof()

    command = client.api.exec_create("abc", "sh", stdin=True)
    stream = client.api.exec_start(command["Id"], socket=True)
    # docker-py leaves the response, which holds the socket, to the garbage collector.
    with closing(stream._response), stream._sock as raw:
        raw.sendall(b"hi")
        answer = raw.recv(100)
        end = raw.recv(100)
        raw.sendall(b"bye")
        raw.shutdown(socket.SHUT_WR)

    assert (answer, end) == (b"echo:hi", b"")
    unix_server.wait_for(b"bye")
