"""End with the server."""

import socket


def test_a_handler_that_only_computes(tcp_server):
    @tcp_server.handler
    def search(conn):
        limit = int(conn.recv_line())
        best = 0
        while tcp_server.is_running and best < limit:
            best += 1
        conn.send(b"%d\n" % best)

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"1000000000000\n")
        tcp_server.wait_for(b"1000000000000\n")
        tcp_server.stop()  # the fixture does it otherwise, in its teardown

        assert client.recv(100).endswith(b"\n")
