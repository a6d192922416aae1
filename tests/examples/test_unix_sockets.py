"""Use a unix socket: a private path, a path of your own, an abstract name."""

import http.client
import os
import socket
import sys

import pytest


class UnixHTTPConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, as the Docker daemon speaks it."""

    def __init__(self, path):
        super().__init__("localhost")
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def notify(state):
    """Tell systemd about the service, as sd_notify(3) does."""
    name = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state, name)


def test_stream_on_a_private_path(unix_server):
    @unix_server.handler
    def docker(conn):
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

    client = UnixHTTPConnection(unix_server.path)
    client.request("GET", "/_ping")

    assert client.getresponse().read() == b"OK"
    client.close()


def test_datagrams_on_a_private_path(unix_datagram_server, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", unix_datagram_server.path)

    notify(b"READY=1")

    assert unix_datagram_server.wait_for().peer is None  # the client's socket has no name: nobody to answer


def test_path_of_your_own(sockserver, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = sockserver.unix(path="app.sock")

    with socket.socket(socket.AF_UNIX) as client:
        client.connect("app.sock")
        server.wait_connection()
        server.stop()

    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's alone")
def test_abstract_name(sockserver, monkeypatch):
    server = sockserver.unix_datagram(path="\0")  # the kernel chooses one
    monkeypatch.setenv("NOTIFY_SOCKET", os.fsdecode(server.path).replace("\0", "@"))

    notify(b"STOPPING=1")

    assert server.wait_for() == b"STOPPING=1"
    assert server.path.startswith(b"\0")
