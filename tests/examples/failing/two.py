import socket
from contextlib import suppress


def test_two_connections_fail(tcp_server):
    @tcp_server.handler
    def broken(conn):
        raise [ValueError("first"), KeyError("second")][conn.index]

    for _ in range(2):
        with socket.create_connection(tcp_server.address) as client, suppress(ConnectionResetError):
            client.recv(1)
