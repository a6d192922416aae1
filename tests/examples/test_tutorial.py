"""The tutorial: its client as it is at the end of the story, and the tests that brought it there."""

import socket
from contextlib import closing

import pytest


class Thermometer:
    """A thermometer on the network: asked with READ and a unit, it says OK and the degrees."""

    def __init__(self, address, timeout=2.0):
        self._sock = socket.create_connection(address, timeout)

    def read(self):
        self._sock.sendall(b"READ C\r\n")
        reply = b""
        while not reply.endswith(b"\r\n"):
            piece = self._sock.recv(1024)
            if not piece:
                raise ConnectionError(f"the thermometer hung up after {reply!r}")
            reply += piece
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
        with pytest.raises(ConnectionError, match="hung up after b'OK 21'"):
            client.read()


def test_read_asks_for_celsius(tcp_server):
    @tcp_server.handler
    def thermometer(conn):
        conn.expect_line(b"READ C")
        conn.send(b"OK 21.5\r\n")

    with closing(Thermometer(tcp_server.address)) as client:
        assert client.read() == 21.5


def test_read_gives_up_on_a_silent_thermometer(tcp_server):  # nothing declared: it listens and says nothing
    with closing(Thermometer(tcp_server.address, timeout=0.05)) as client:
        with pytest.raises(TimeoutError):
            client.read()

    assert tcp_server.wait_for() == b"READ C\r\n"
