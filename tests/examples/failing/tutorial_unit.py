import socket
from contextlib import closing


class Thermometer:
    """A thermometer on the network: asked with READ, it says OK and the degrees."""

    def __init__(self, address, timeout=2.0):
        self._sock = socket.create_connection(address, timeout)

    def read(self):
        self._sock.sendall(b"READ\r\n")
        reply = b""
        while not reply.endswith(b"\r\n"):
            piece = self._sock.recv(1024)
            if not piece:
                raise ConnectionError(f"the thermometer hung up after {reply!r}")
            reply += piece
        return float(reply.removeprefix(b"OK "))

    def close(self):
        self._sock.close()


def test_read_asks_for_celsius(tcp_server):
    @tcp_server.handler
    def thermometer(conn):
        conn.expect_line(b"READ C")
        conn.send(b"OK 21.5\r\n")

    with closing(Thermometer(tcp_server.address)) as client:
        assert client.read() == 21.5
