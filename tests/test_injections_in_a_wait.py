"""An injection that begins while a conversation waits: it holds for the next bytes, on each face and in each direction.

The client sends half of a request.  Once the server has it, the server's side waits for the rest, in whatever way its
face waits; then the test injects a fault, and the client sends the rest.
"""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from pytest_sockserver import (
    ANY,
    DATA,
    Close,
    Connection,
    Cut,
    InvalidState,
    Reset,
    SockServer,
    StreamTestServer,
    lines,
)
from pytest_sockserver.faults import Corrupt, Split

from . import insides
from .peers import connect, read_to_end, until


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class EchoByRecv(socketserver.BaseRequestHandler):
    """A handler class whose wait is inside ``recv()``, and which collects its lines itself."""

    def handle(self) -> None:
        line = b""
        while data := self.request.recv(100):
            line += data
            if line.endswith(b"\n"):
                self.request.sendall(line.upper())
                line = b""


def verbs(server: StreamTestServer) -> None:
    @server.handler
    def echo(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line().upper())


def frames(server: StreamTestServer) -> None:
    @server.handler
    def echo(conn: Connection) -> None:
        for frame in conn.frames(lines(b"\n")):
            conn.send(frame.upper())


def rules(server: StreamTestServer) -> None:
    server.framing = lines(b"\n")
    server.on(ANY).reply(lambda request: bytes(request).upper())


def rules_without_frames(server: StreamTestServer) -> None:
    for said in (b"abcd\n", b"abbd\n"):
        server.on(said).reply(said.upper())


def script(server: StreamTestServer) -> None:
    server.script().expect_line().send(lambda request: bytes(request).upper())


def handler_class(server: StreamTestServer) -> None:
    server.handler(Echo)


def handler_class_by_recv(server: StreamTestServer) -> None:
    server.handler(EchoByRecv)


FACES = [verbs, frames, rules, rules_without_frames, script, handler_class, handler_class_by_recv]
each_face = pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
each_transport = pytest.mark.parametrize("transport", ["tcp", "unix", "tls"])


def ask_in_halves(
    sockserver: SockServer, transport: str, declare: Callable[[StreamTestServer], None], inject: Callable[[Any], Any]
) -> bytes:
    """Return what the server answers to a request whose second half is sent after the injection."""
    make = {"tcp": sockserver.tcp, "unix": sockserver.unix, "tls": sockserver.tls}
    server = make[transport]()
    declare(server)
    with connect(server) as plain:
        client = plain
        if transport == "tls":
            client = server.client_context().wrap_socket(plain, server_hostname="localhost")
        with client:
            client.sendall(b"ab")
            server.wait_connection().wait_received(b"ab")
            inject(server)
            client.sendall(b"cd\n")
            if transport != "tls":  # which has no half closed connections
                client.shutdown(socket.SHUT_WR)
                return read_to_end(client)
            return client.recv(100)


@each_face
@each_transport
def test_of_what_is_received(sockserver: SockServer, transport: str, face: Callable[[StreamTestServer], None]) -> None:
    came = ask_in_halves(
        sockserver, transport, face, lambda server: server.inject(Corrupt(DATA, 0, 1), direction="received")
    )

    assert came == b"ABBD\n"


@each_face
@each_transport
def test_of_what_is_sent(sockserver: SockServer, transport: str, face: Callable[[StreamTestServer], None]) -> None:
    assert ask_in_halves(sockserver, transport, face, lambda server: server.inject(Cut(DATA, 2))) == b"AB"


@each_face
def test_an_end_in_the_midst_of_a_request(sockserver: SockServer, face: Callable[[StreamTestServer], None]) -> None:
    server = sockserver.tcp()
    face(server)
    with connect(server) as client:
        client.sendall(b"ab")
        server.wait_connection().wait_received(b"ab")
        limit = server.inject(Cut(DATA, 1), Reset(), direction="received")
        client.sendall(b"cd\n")

        with pytest.raises(ConnectionResetError):
            client.recv(10)

    assert limit.count == 1
    assert server.connections[0].received == b"abcd\n"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.anyio
@pytest.mark.parametrize("direction", ["received", "sent"])
async def test_of_an_awaitable_connection(tcp_server: StreamTestServer, direction: Any) -> None:
    answers = []
    async with await anyio.connect_tcp(*tcp_server.address) as client:
        conn = await tcp_server.aio.accept()

        async def echo() -> None:
            await conn.send((await conn.recv_line()).upper())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(echo)
            await client.send(b"ab")
            await conn.wait_received(b"ab")
            tcp_server.inject(Corrupt(DATA, 0, 1), direction=direction)
            await client.send(b"cd\n")
            answers.append(await client.receive(100))

    assert answers == [b"ABBD\n" if direction == "received" else b"@BCD\n"]


@pytest.mark.parametrize("direction", ["received", "sent"])
def test_of_a_connection_that_the_test_has_accepted(tcp_server: StreamTestServer, direction: Any) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        client.sendall(b"ab")
        assert conn.recv() == b"ab"
        tcp_server.inject(Corrupt(DATA, 0, 1), direction=direction)
        client.sendall(b"cd\n")
        line = conn.recv_line()
        conn.send(b"cd\n")

        assert (bytes(line), client.recv(10)) == ((b"bd\n", b"cd\n") if direction == "received" else (b"cd\n", b"bd\n"))


def test_of_a_detached_connection_it_hits_nothing_and_the_test_fails(sockserver: SockServer) -> None:
    server = sockserver.tcp()
    with connect(server) as client, server.accept().detach() as raw:
        server.inject(Split(DATA, 1), direction="received")
        client.sendall(b"abc")
        assert raw.recv(10) == b"abc"

        with pytest.raises(AssertionError, match=r"(?s)injection.*detach"):
            server.verify()
    server.clear()


def test_what_a_verb_took_before_is_not_touched(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        client.sendall(b"one\ntwo\n")
        assert conn.recv_line() == b"one\n"
        tcp_server.inject(Cut(DATA, 2), Close(), direction="received")
        client.sendall(b"three\n")

        assert conn.recv_line() == b"two\n"
        assert conn.recv() == b"th"


def test_a_server_that_reads_by_itself_refuses_accept(tcp_server: StreamTestServer) -> None:
    tcp_server.inject(Corrupt(DATA, 0, 1), direction="received")
    with connect(tcp_server) as client:
        client.sendall(b"x")
        tcp_server.wait_connection()
        with pytest.raises(InvalidState):
            tcp_server.accept(timeout=1)
        client.shutdown(socket.SHUT_WR)
        read_to_end(client)


@pytest.mark.parametrize("begins", ["before", "meanwhile"])
def test_of_an_accepted_connection_that_the_test_waits_on(tcp_server: StreamTestServer, begins: str) -> None:
    """The server reads while the test only waits; what it reads is changed as what a verb reads."""
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        client.sendall(b"ab")
        conn.wait_received(b"ab")
        if begins == "before":
            tcp_server.inject(Corrupt(DATA, 0, 1), direction="received")
            client.sendall(b"cd\n")
            conn.wait_received(b"abcd\n")
        else:
            waiting = tcp_server.in_thread(conn.wait_received, b"abcd\n")
            until(lambda: insides.waiting(tcp_server))
            tcp_server.inject(Corrupt(DATA, 0, 1), direction="received")
            client.sendall(b"cd\n")
            waiting.result()

        assert conn.recv_line() == b"abbd\n"


def test_the_rest_of_a_write_is_no_further_write(tcp_server: StreamTestServer) -> None:
    """An injection that begins while a write waits for room is asked about its rest; the earlier ones are not again."""
    size = 8_000_000

    @tcp_server.handler
    def serve(conn: Connection) -> None:
        conn.recv(1)
        conn.send(bytes(size))
        conn.send(b"END")

    second = tcp_server.inject(Cut(DATA, 1), Close(), at=1)
    with connect(tcp_server) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"\0"
        until(lambda: insides.is_written(tcp_server.connections[0]))
        other = tcp_server.inject(DATA, connections=9, times=(0, None))
        came = 1
        while data := client.recv(1 << 20):
            came += len(data)

    assert (came, second.count, other.count) == (size + 1, 1, 0)
