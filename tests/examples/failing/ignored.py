import socket


def test_client_that_listens_to_nobody(tcp_server):
    @tcp_server.handler
    def strict(conn):
        assert conn.recv_line() == b"HELLO\n"

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"HULLO\n")
