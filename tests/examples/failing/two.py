import socket


def test_two_connections_fail(tcp_server):
    @tcp_server.handler
    def broken(conn):
        raise [ValueError("first"), KeyError("second")][conn.index]

    for _ in range(2):
        socket.create_connection(tcp_server.address).close()
