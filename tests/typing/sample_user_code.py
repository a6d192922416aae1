"""What users write, for type checkers; it is never run.

mypy --strict and pyright's strict mode must accept it, and must report the lines that are marked as mistakes: an unused
``type: ignore`` is an error of both.
"""

from __future__ import annotations

import re
import socket
import socketserver as standard
from collections.abc import Generator
from concurrent.futures import Future

import pytest
from typing_extensions import assert_type

from pytest_sockserver import (
    ANY,
    CONNECT,
    DATA,
    AsyncConnection,
    AsyncRequest,
    Close,
    Connection,
    Cut,
    DatagramTestServer,
    Delay,
    Gate,
    Hex,
    Request,
    Reset,
    Script,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    UnmetExpectation,
    lines,
    resp,
    socketserver,
)
from pytest_sockserver.faults import Corrupt, Injection, garbage
from pytest_sockserver.sweeps import cuts


def ask(address: tuple[str, int], question: bytes) -> bytes:
    with socket.create_connection(address) as client:
        client.sendall(question)
        return client.recv(100)


def test_handler_keeps_its_type(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def greet(conn: Connection) -> None:
        conn.send(b"hello ", assert_type(conn.recv_line(), Request))

    greet(tcp_server.connections[0])
    assert ask(tcp_server.address, b"bob\n") == b"hello bob\n"
    assert tcp_server.requests == [b"bob\n"]


def test_handler_classes(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    class Ours(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    @tcp_server.handler
    class Theirs(standard.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())


def test_datagrams(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    def echo(request: Request) -> bytes:
        return request.upper()

    request = assert_type(udp_server.wait_for(re.compile(rb"hits:(\d+)\|c")), Request)
    if request.match is not None:
        assert int(request.match[1]) == 1
    assert udp_server.wait_for(ANY, count=2, timeout=1.5) == b"x"


def test_live(tcp_server: StreamTestServer) -> None:
    reply = assert_type(tcp_server.in_thread(ask, tcp_server.address, b"PING\r\n"), Future[bytes])
    with pytest.raises(TimeoutError):
        tcp_server.accept(timeout=0.1)
    conn = assert_type(tcp_server.accept(), Connection)
    conn.expect(b"PING\r\n")
    conn.close(notify=False)
    assert reply.result() == b""


async def test_awaitable(tcp_server: StreamTestServer) -> None:
    conn = await tcp_server.aio.accept()
    assert_type(await conn.recv_line(), Request)
    request = assert_type(await tcp_server.aio.next_request(), Request)
    await assert_type(request.aio, AsyncRequest).reply(b"ok", Delay(0.1))
    if request.connection is not None:
        await assert_type(request.connection.aio, AsyncConnection).send(Delay(0.1), b"ok")
    line: Request = await tcp_server.connections[0].aio.recv_line()
    print(line)


async def test_awaitable_datagrams(udp_server: DatagramTestServer) -> None:
    request = await udp_server.aio.wait_for()
    await request.aio.reply(Delay(0.1), lambda request: request)
    await udp_server.aio.send_to(("127.0.0.1", 53), b"x")


def test_factory(sockserver: SockServer, sockserver_session: SockServer) -> None:
    assert_type(sockserver.tcp(host="::1", timeout=2.5), StreamTestServer)
    assert_type(sockserver_session.udp(), DatagramTestServer)
    tcp, udp = sockserver.tcp_and_udp()
    assert_type(tcp.port, int)
    assert_type(udp.url("udp"), str)


def test_errors_say_who_is_to_blame(tcp_server: StreamTestServer) -> None:
    with tcp_server.raises(ScriptMismatch, match="PASS"):
        pass
    errors: list[type[AssertionError]] = [ScriptMismatch, UnexpectedRequest, UnmetExpectation]
    assert errors


def without_pytest() -> None:
    with SockServer() as sockserver, StreamTestServer() as server:
        assert_type(server, StreamTestServer)
        sockserver.unix()


def mistakes(tcp_server: StreamTestServer) -> None:
    from pytest_sockserver import Corrupt as Moved  # type: ignore[attr-defined] # noqa: F401
    from pytest_sockserver import StreamTestServr  # type: ignore[attr-defined] # noqa: F401

    tcp_server.wait_for(count="2")  # type: ignore[arg-type]
    tcp_server.handlr()  # type: ignore[attr-defined]
    tcp_server.handler("no function")  # type: ignore[type-var]
    tcp_server.accept().send("text")  # type: ignore[arg-type]
    tcp_server.take()  # type: ignore[attr-defined]
    tcp_server.on(b"a").reply(b"b", times=2)  # type: ignore[call-arg]
    Script().open("go")  # type: ignore[attr-defined]


def memcache() -> Generator[int | bytes, bytes, None]:
    line = yield b"\r\n"
    if line.startswith(b"set "):
        yield int(line.split()[4]) + 2


def test_conversations(tcp_server: StreamTestServer, udp_server: DatagramTestServer) -> None:
    tcp_server.framing = lines(b"\r\n")
    tcp_server.framing = memcache
    tcp_server.framing = resp
    tcp_server.on(CONNECT).reply(b"+READY\r\n").then(Reset())
    tcp_server.on(re.compile(rb"GET (\w+)\r\n"), times=(1, None)).reply(
        lambda request: b"$" + request.match[1], Close()
    )
    tcp_server.on(Hex("<id:2> 00")).reply(Hex(r"\g<id>"), Text(r"\r\n"), Delay(0.1), Gate("go"))
    tcp_server.on(lambda request: request.startswith(b"a"))
    part = Script().expect(b"PING\r\n").send(b"+PONG\r\n")
    script: Script = tcp_server.script(times=None).expect_line(ANY).send(Cut(b"abc", 2)).repeat(2, part)
    script.maybe(b"x", b"y")
    script.framing(None).rules(lines())
    tcp_server.dialogue("S: hi", timed=True, name=b"bob", other=lambda conn: b"x")
    tcp_server.open_gate("go")
    assert_type(tcp_server.inject(Corrupt(DATA, 2), at=1), Injection).end()
    tcp_server.on(b"x").reply(garbage(3), uses=2).then(Cut(b"abc", 2))
    print(cuts(b"abc"))
    conn = tcp_server.connections[0]
    captured: dict[str, bytes] = conn.captured
    frames: list[Request] = list(conn.frames(resp))
    print(captured, frames, str(script))
    udp_server.on(b"ping").reply(b"pong")
    udp_server.script().expect(b"a").send(b"b")
