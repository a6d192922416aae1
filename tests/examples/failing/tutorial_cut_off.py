import socket
from contextlib import closing

import pytest


class Thermometer:
    """A thermometer on the network: asked with READ, it says OK and the degrees."""

    def __init__(self, address, timeout=2.0):
        self._sock = socket.create_connection(address, timeout)

    def read(self):
        self._sock.sendall(b"READ\r\n")
        reply = self._sock.recv(1024)
        return float(reply.removeprefix(b"OK "))

    def close(self):
        self._sock.close()


def test_read_returns_the_degrees(tcp_server):
    @tcp_server.handler
    def thermometer(conn):
        while conn.recv_line():
            conn.send(b"OK 21.5\r\n")

    with closing(Thermometer(tcp_server.address)) as client:
        assert client.read() == 21.5
        assert client.read() == 21.5


def test_half_a_reply_is_an_error(tcp_server):
    @tcp_server.handler
    def thermometer(conn):
        conn.recv_line()
        conn.send(b"OK 21")

    with closing(Thermometer(tcp_server.address)) as client:
        with pytest.raises(ConnectionError):
            client.read()
