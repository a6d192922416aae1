"""What conversations bring to ``server.aio``: frames, matches, parts and rules, in asyncio and in trio."""

from __future__ import annotations

import re

import anyio
import pytest

from pytest_sockserver import (
    ANY,
    BlockingCallInCoroutine,
    Close,
    Delay,
    Gate,
    Hex,
    IncompleteRequest,
    InvalidState,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    lines,
)

from . import insides

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(sockserver: SockServer) -> StreamTestServer:
    return sockserver.tcp(framing=lines(b"\n"))


async def connect(server: StreamTestServer) -> anyio.abc.SocketStream:
    return await anyio.connect_tcp(*server.address)


async def test_frames_and_matches(server: StreamTestServer) -> None:
    async with await connect(server) as client:
        conn = await server.aio.accept()
        await client.send(b"a\nUSER bob\n\x01\x02x\ny\n")

        assert await conn.expect(ANY) == b"a\n"
        assert (await conn.expect(re.compile(rb"USER (?P<user>\w+)\n"))).match["user"] == b"bob"
        assert await conn.expect(Hex("<two:2>")) == b"\x01\x02"
        assert await conn.expect_line(b"x", ending=b"\n") == b"x\n"
        assert conn.captured == {"user": b"bob", "two": b"\x01\x02"}
        await client.send_eof()
        assert [frame async for frame in conn.frames()] == [b"y\n"]


async def test_a_frame_that_is_cut_off_is_an_error(server: StreamTestServer) -> None:
    async with await connect(server) as client:
        conn = await server.aio.accept()
        await client.send(b"a\nb")
        await client.send_eof()

        with pytest.raises(IncompleteRequest):
            assert [frame async for frame in conn.frames()] == []


async def test_parts(server: StreamTestServer) -> None:
    async with await connect(server) as client:
        conn = await server.aio.accept()
        await client.send(b"USER bob\n")
        await conn.expect(re.compile(rb"USER (?P<user>\w+)\n"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                conn.send, b"1", Delay(0.001), Text(r"\g<user>"), lambda request: request[:4], Gate("go"), b"2", Close()
            )
            said = b""
            while said != b"1bobUSER":
                said += await client.receive()
            server.open_gate("go")
        assert await client.receive() == b"2"
        with pytest.raises(anyio.EndOfStream):
            await client.receive()


async def test_a_gate_that_nobody_opens(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)
    async with await connect(server):
        conn = await server.aio.accept()

        with pytest.raises(TimeoutError, match="the gate 'go' was not opened"):
            await conn.send(Gate("go"))


async def test_a_mismatch_says_the_same_as_elsewhere(server: StreamTestServer) -> None:
    async with await connect(server) as client:
        conn = await server.aio.accept()
        await client.send(b"PIGN\n")

        with pytest.raises(ScriptMismatch, match=r"expected b'PING\\n'\n  got b'PIGN\\n' \(differs at byte 2"):
            await conn.expect(b"PING\n")


async def test_a_reset_is_awaited(server: StreamTestServer) -> None:
    async with await connect(server) as client:
        conn = await server.aio.accept()
        await client.send_eof()

        with pytest.raises(ScriptMismatch, match="expected a reset\n  got the end of the stream"):
            await conn.expect_reset()


async def test_rules_take_over_in_a_thread_of_the_server(server: StreamTestServer) -> None:
    """A test that declared nothing yet accepts; what it declares then answers the rest."""
    async with await connect(server) as client:
        conn = await server.aio.accept()
        await client.send(b"LOGIN\n")
        await conn.expect(b"LOGIN\n")
        server.on(b"PING\n").reply(b"pong\n")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.rules)
            await client.send(b"PING\n")
            assert await client.receive() == b"pong\n"
            await client.send_eof()
    assert server.connections[0].closed_by == "client"


async def test_rules_that_do_not_take_a_request_fail_the_test_and_not_the_wait(server: StreamTestServer) -> None:
    async with await connect(server) as client:
        conn = await server.aio.accept()
        server.on(b"PING\n").reply(b"pong\n")
        await client.send(b"PIGN\n")

        async with server.aio.raises(UnexpectedRequest):
            await conn.rules()


async def test_the_blocking_verbs_are_refused(server: StreamTestServer) -> None:
    async with await connect(server):
        conn = await server.aio.accept()

        for verb in (lambda: insides.of_face(conn).rules(), lambda: next(insides.of_face(conn).frames())):
            with pytest.raises(BlockingCallInCoroutine):
                verb()


async def test_accept_is_refused_where_rules_answer(server: StreamTestServer) -> None:
    server.on(ANY)

    with pytest.raises(InvalidState, match=r"accept\(\) is for servers with nothing declared: rule 1"):
        await server.aio.accept()


async def test_a_push_from_a_coroutine(server: StreamTestServer) -> None:
    server.on(b"SUB\n").reply(b"+OK\n")
    async with await connect(server) as client:
        await client.send(b"SUB\n")
        assert await client.receive() == b"+OK\n"
        conn = await server.aio.wait_connection()
        await conn.send(b"MSG\n")
        assert await client.receive() == b"MSG\n"
