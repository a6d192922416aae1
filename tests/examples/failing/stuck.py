import socket
import time

import pytest


@pytest.mark.sockserver(timeout=0.2)
def test_handler_that_will_not_end(tcp_server):
    @tcp_server.handler
    def sleepy(conn):
        conn.recv_line()
        time.sleep(0.6)

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"wake up\n")
        tcp_server.wait_for(b"wake up\n")
        tcp_server.stop()
