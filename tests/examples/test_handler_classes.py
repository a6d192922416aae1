"""Use an existing handler class, of socketserver or http.server."""

import http.client
import http.server
import socket
import socketserver
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest


class Upper(socketserver.StreamRequestHandler):
    """A handler as the standard library's documentation writes it."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


class Upload(http.server.BaseHTTPRequestHandler):
    """Take a file by PUT."""

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.end_headers()

    def log_message(self, format, *args):
        pass


def hello(environ, start_response):
    """A WSGI application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello from {environ['PATH_INFO']}".encode()]


class QuietWSGI(WSGIRequestHandler):
    """The standard library's handler, which asks its server for the application."""

    def log_message(self, format, *args):
        pass


def test_stream_request_handler(tcp_server):
    tcp_server.handler(Upper)

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"HELLO\n"

    tcp_server.connections[0].wait_closed()
    assert tcp_server.wait_for() == b"hello\n"  # all that the connection sent is one request, once it has ended


def test_http_request_handler(tcp_server):
    tcp_server.handler(Upload)

    client = http.client.HTTPConnection(*tcp_server.address)
    client.request("PUT", "/notes.txt", body=b"remember the milk")

    assert client.getresponse().status == 201
    tcp_server.connections[0].wait_received(b"remember the milk")
    client.close()


def test_datagram_request_handler(udp_server):
    @udp_server.handler
    class Echo(socketserver.DatagramRequestHandler):
        def handle(self):
            self.wfile.write(self.packet)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"ping", udp_server.address)
        assert client.recv(100) == b"ping"

    assert udp_server.requests == [b"ping"]


def test_error_of_a_handler_class_is_the_tests(tcp_server):
    @tcp_server.handler
    class Broken(socketserver.StreamRequestHandler):
        def handle(self):
            raise ValueError(self.rfile.readline())

    with tcp_server.raises(ValueError, match="hello"):
        with socket.create_connection(tcp_server.address) as client:
            client.sendall(b"hello\n")
            with pytest.raises(ConnectionResetError):
                client.recv(100)


def test_wsgi_application(tcp_server):
    app = WSGIServer(tcp_server.address, QuietWSGI, bind_and_activate=False)  # needs no port: the test has one
    app.server_name, app.server_port = tcp_server.address
    app.setup_environ()
    app.set_app(hello)

    @tcp_server.handler
    class Hosted(socketserver.BaseRequestHandler):
        def handle(self):
            app.finish_request(self.request, self.client_address)

    with app, urllib.request.urlopen(tcp_server.url("http") + "/world") as response:
        assert response.read() == b"hello from /world"

    assert tcp_server.connections[0].received.startswith(b"GET /world HTTP/1.1\r\n")


def test_class_that_asks_for_what_the_tests_server_has_not(tcp_server):
    tcp_server.handler(QuietWSGI)  # wants server.base_environ and server.get_app()

    with tcp_server.raises(AttributeError, match=r"app\.finish_request\(self\.request, self\.client_address\)"):
        with pytest.raises(ConnectionResetError):
            urllib.request.urlopen(tcp_server.url("http"))
