import socket


def test_metrics_are_flushed(tcp_server):
    @tcp_server.handler
    def metrics(conn):
        while conn.recv_line():
            pass

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"hits:1|c\n")

        tcp_server.wait_for(b"hits:1|c\n")
        tcp_server.wait_for(b"hits:2|c\n", timeout=0.1)
