"""Replace the standard library's socketserver in your own code."""

import socket
import threading

from pytest_sockserver import socketserver


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


def test_server_in_a_thread():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b"hello\n"
        server.shutdown()  # at once, not at the next poll
        thread.join()


class PatientServer(socketserver.ThreadingTCPServer):
    collect_errors = True
    end_connections_on_close = True


def test_close_ends_live_connections():
    server = PatientServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    with socket.create_connection(server.server_address) as silent_client:
        silent_client.sendall(b"hello\n")
        assert silent_client.recv(100) == b"hello\n"
        server.server_close()
        assert silent_client.recv(100) == b""

    thread.join()
    assert server.errors == []
