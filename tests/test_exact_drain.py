"""A stop loses nothing: not even what a thread holds that has received it, and has not recorded it yet.

The thread that drives a connection is held at exactly that place, where neither the kernel nor the record has the
bytes; then the server is stopped.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from pytest_sockserver import ANY, Connection, SockServer, StreamTestServer, lines
from pytest_sockserver.recording.recorder import Tape

from .peers import PATIENCE, connect, until

Declare = Callable[[StreamTestServer, list[bytes]], None]


class Hold:
    """Holds the first thread that has received something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_some, self.over = threading.Event(), threading.Event()
        received = Tape.received

        def late(tape: Tape, data: Any) -> None:
            if not self.has_some.is_set():
                self.has_some.set()
                assert self.over.wait(PATIENCE)
            received(tape, data)

        monkeypatch.setattr(Tape, "received", late)


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Hold:
    return Hold(monkeypatch)


def verbs(server: StreamTestServer, taken: list[bytes]) -> None:
    @server.handler
    def take(conn: Connection) -> None:
        while True:
            taken.append(conn.recv_line())


def chunks(server: StreamTestServer, taken: list[bytes]) -> None:
    @server.handler
    def take(conn: Connection) -> None:
        while data := conn.recv():
            taken.append(data)


def rules(server: StreamTestServer, taken: list[bytes]) -> None:
    server.framing = lines(b"\n")
    server.on(ANY).reply(lambda request: taken.append(bytes(request)) or b"")


def rules_without_frames(server: StreamTestServer, taken: list[bytes]) -> None:
    for line in (b"one\n", b"two\n"):
        server.on(line).reply(lambda request: taken.append(bytes(request)) or b"")


def script(server: StreamTestServer, taken: list[bytes]) -> None:
    note: Any = lambda request: taken.append(bytes(request)) or b""  # noqa: E731
    server.script().expect_line(b"one").send(note).expect_line(b"two").send(note)


def handler_class(server: StreamTestServer, taken: list[bytes]) -> None:
    class Take(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                taken.append(line)

    server.handler(Take)


def handler_class_by_recv(server: StreamTestServer, taken: list[bytes]) -> None:
    class Take(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(100):
                taken.append(data)

    server.handler(Take)


def nothing_declared(server: StreamTestServer, taken: list[bytes]) -> None:
    pass


FACES = [verbs, chunks, rules, rules_without_frames, script, handler_class, handler_class_by_recv, nothing_declared]


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
@pytest.mark.parametrize("transport", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("ends", [True, False], ids=["gone", "stays"])
def test_what_a_thread_has_received_is_recorded_and_handled(
    sockserver: SockServer, hold: Hold, transport: str, face: Declare, ends: bool
) -> None:
    server, taken = getattr(sockserver, transport)(), []
    face(server, taken)
    with connect(server) as plain:
        client = plain
        if transport == "tls":
            context = server.client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # or a session ticket that it has not read makes it reset
            client = context.wrap_socket(plain, server_hostname="localhost")
        client.sendall(b"one\n")
        assert hold.has_some.wait(PATIENCE)
        client.sendall(b"two\n")
        if ends:
            client.close()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: not server.is_running)
        hold.over.set()
        stopping.join(PATIENCE)
        client.close()

    assert server.connections[0].received == b"one\ntwo\n"
    if face is not nothing_declared:
        assert b"".join(taken) == b"one\ntwo\n"


@pytest.mark.parametrize("transport", ["udp", "unix_datagram"])
def test_datagrams_behind_one_that_is_answered(sockserver: SockServer, transport: str) -> None:
    """Here the handler is held: those behind its datagram are queued, or recorded, when the stop begins."""
    server, held, over = getattr(sockserver, transport)(), threading.Event(), threading.Event()

    @server.handler
    def answer(request: Any) -> bytes:
        held.set()
        assert over.wait(PATIENCE)
        return b""

    with socket.socket(socket.AF_INET if transport == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        if transport == "unix_datagram":
            client.bind("")
        client.connect(server.address)
        for each in (b"one", b"two", b"three"):
            client.send(each)
        assert held.wait(PATIENCE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: not server.is_running)
        over.set()
        stopping.join(PATIENCE)

    assert server.requests == [b"one", b"two", b"three"]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.anyio
async def test_an_awaitable_connection(tcp_server: StreamTestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the loop's own thread receives, and the stop is another thread's."""
    stopping = threading.Thread(target=tcp_server.stop)
    received = Tape.received

    def late(tape: Tape, data: Any) -> None:
        if not stopping.ident:
            stopping.start()
            until(lambda: not tcp_server.is_running)
        received(tape, data)

    async with await anyio.connect_tcp(*tcp_server.address) as client:
        conn = await tcp_server.aio.accept()
        await client.send(b"one\n")
        monkeypatch.setattr(Tape, "received", late)
        assert await conn.recv_line() == b"one\n"
        await anyio.to_thread.run_sync(stopping.join)

    assert tcp_server.connections[0].received == b"one\n"


def test_a_script_keeps_its_verdict(sockserver: SockServer, hold: Hold) -> None:
    """What a script lacks is known only when all has come."""
    server = sockserver.tcp()
    server.script().expect(b"one\n")
    with connect(server) as client:
        client.sendall(b"one\n")
        assert hold.has_some.wait(PATIENCE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: not server.is_running)
        hold.over.set()
        stopping.join(PATIENCE)

    server.verify()
