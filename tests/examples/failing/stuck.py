import socket
import threading
import time

import pytest


@pytest.mark.sockserver(stop_timeout=0.2)
def test_handler_that_will_not_end(tcp_server):
    lock = threading.Lock()
    lock.acquire()

    @tcp_server.handler
    def locked_out(conn):
        conn.recv_line()
        lock.acquire()

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"your turn\n")
        tcp_server.wait_for(b"your turn\n")
        tcp_server.stop()

    lock.release()  # so that this example, unlike a real one, leaves no thread behind
    while tcp_server.connections[0].closed_by is None:
        time.sleep(0.001)
