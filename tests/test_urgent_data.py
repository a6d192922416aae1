"""Urgent data of the client is received in line, on the connections of a test server and nowhere else."""

from __future__ import annotations

import ftplib
import socket
import socketserver
from collections.abc import Callable

import pytest

from pytest_sockserver import ANY, CONNECT, Connection, SockServer, StreamTestServer, lines

from .peers import connect, read_to_end


def verbs(server: StreamTestServer) -> None:
    @server.handler
    def echo(conn: Connection) -> None:
        conn.send(conn.recv_line())


def handler_class(server: StreamTestServer) -> None:
    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    server.handler(Echo)


def rules(server: StreamTestServer) -> None:
    server.framing = lines(b"\n")
    server.on(ANY).reply(lambda request: request)


def script(server: StreamTestServer) -> None:
    server.script().expect_line().send(lambda request: request)


@pytest.mark.parametrize("face", [verbs, handler_class, rules, script], ids=lambda face: face.__name__)
@pytest.mark.parametrize("split", [False, True], ids=["at_once", "one_by_one"])
def test_every_face_reads_it_where_it_stood(
    sockserver: SockServer, face: Callable[[StreamTestServer], None], split: bool
) -> None:
    server = sockserver.tcp()
    face(server)
    with connect(server) as client:
        for data, flags in ((b"ab", 0), (b"c!", socket.MSG_OOB), (b"de\n", 0)):
            client.send(data, flags)
            if split:
                server.wait_connection().wait_received(data)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"abc!de\n"

    assert server.connections[0].received == b"abc!de\n"


def test_a_server_with_nothing_declared_records_it(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.send(b"!", socket.MSG_OOB)
        tcp_server.wait_connection().wait_received(b"!")

    assert tcp_server.connections[0].received == b"!"


def test_a_session_of_ftp_is_aborted(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"220 ready\r\n")
    tcp_server.on(b"ABOR\r\n").reply(b"226 aborted\r\n")

    ftp = ftplib.FTP()
    ftp.connect(*tcp_server.address, timeout=5)
    assert ftp.abort() == "226 aborted"
    ftp.close()


def test_a_detached_socket_keeps_it_apart(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client, tcp_server.accept().detach() as raw:
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE) == 0
        client.send(b"a!", socket.MSG_OOB)
        client.send(b"b")
        client.shutdown(socket.SHUT_WR)
        raw.settimeout(5)
        assert raw.recv(10) == b"a"
        assert raw.recv(1, socket.MSG_OOB) == b"!"
        assert read_to_end(raw) == b"b"


def test_the_framework_leaves_the_option_alone() -> None:
    from pytest_sockserver import socketserver as framework

    options = []

    class Look(framework.BaseRequestHandler):
        def handle(self) -> None:
            options.append(self.request.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE))

    with framework.TCPServer(("127.0.0.1", 0), Look) as server, socket.create_connection(server.server_address[:2]):
        server.handle_request()

    assert options == [0]
