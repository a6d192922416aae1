"""``server.aio``: every verb that blocks, awaitable, in asyncio and in trio; and the blocking ones refused there."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import anyio
import anyio.abc
import pytest

from pytest_sockserver import (
    ANY,
    AsyncConnection,
    BlockingCallInCoroutine,
    Connection,
    DatagramTestServer,
    DeadlineExceeded,
    EndOfStream,
    InvalidState,
    Request,
    ScriptMismatch,
    ServerFailed,
    ServerStopping,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    UnmetExpectation,
)

from . import insides
from .peers import (
    PATIENCE,
    connect,
    datagram_client,
    place,
    read_exactly,
    reset,
    threads_of_servers,
    tls_contexts,
    until,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


# Seconds.  A wait that somebody wakes takes a millisecond; one that nobody wakes takes the timeout, five seconds.
AT_ONCE = 2.0


class Task:
    """A coroutine beside the test, and what came of it."""

    def __init__(self, group: anyio.abc.TaskGroup, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None

        async def run() -> None:
            with self.scope:
                try:
                    self.value = await function(*args, **kwargs)
                except Exception as error:
                    self.error = error
            self.done.set()

        group.start_soon(run)

    async def result(self, seconds: float = AT_ONCE) -> Any:
        with anyio.fail_after(seconds):
            await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.value


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *args)


async def waiting() -> None:
    """Let the other tasks run until they wait."""
    await anyio.wait_all_tasks_blocked()


def unread(conn: AsyncConnection) -> bool:
    """Tell whether something has arrived that nobody has received."""
    try:
        return bool(insides.kernel_socket(conn).recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


# Waits


async def test_a_wait_includes_the_past(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"hits:1|c")
        await in_thread(udp_server.wait_for)

    request = await udp_server.aio.wait_for(re.compile(rb"hits:(\d+)\|c"))

    assert request == b"hits:1|c"
    assert request.match is not None
    assert request.match[1] == b"1"


async def test_a_wait_is_woken_by_what_comes(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        async with anyio.create_task_group() as group:
            task = Task(group, udp_server.aio.wait_for, ANY, 2)
            await waiting()
            client.send(b"one")
            client.send(b"two")

            assert await task.result() == b"two"


async def test_take_takes(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"one")
        client.send(b"two")

        (await udp_server.aio.next_request(b"two")).reply(b"2")
        (await udp_server.aio.next_request()).reply(b"1")

        assert [client.recv(10), client.recv(10)] == [b"2", b"1"]
    with pytest.raises(DeadlineExceeded):
        await udp_server.aio.next_request(timeout=0.02)


async def test_a_wait_that_is_late_says_what_it_waited_for(udp_server: DatagramTestServer) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        await udp_server.aio.wait_for(b"PING", timeout=0.05)

    assert str(raised.value) == (
        "udp_server: wait_for() waited 0.05 s for b'PING'\n    no datagram has come so far"
    )  # fmt: skip


async def test_a_wait_is_ended_by_a_handlers_failure(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with connect(tcp_server) as client:
        async with anyio.create_task_group() as group:
            task = Task(group, tcp_server.aio.wait_for, b"never")
            await waiting()
            client.sendall(b"hi\n")

            with pytest.raises(ServerFailed) as raised:
                await task.result()
    assert str(raised.value) == "wait_for() ended early, since the server's side failed: ValueError: boom"
    with pytest.raises(ValueError, match="^boom$"):
        await tcp_server.aio.verify()


async def test_a_wait_is_ended_by_the_stop(tcp_server: StreamTestServer) -> None:
    async with anyio.create_task_group() as group:
        task = Task(group, tcp_server.aio.accept)
        await waiting()
        tcp_server.stop()

        with pytest.raises(InvalidState) as raised:
            await task.result()
    assert str(raised.value) == "accept() in state 'stopped': nothing more will come; expected 'started'"


async def test_a_wait_for_an_unframed_live_stream_names_wait_received(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"hi")
        await in_thread(lambda: tcp_server.wait_connection().wait_received(b"hi"))

        with pytest.raises(TypeError, match=r"server.connections\[0\].wait_received\(...\)"):
            await tcp_server.aio.wait_for(timeout=0.02)


async def test_wait_connection_returns_an_awaitable_one(server: StreamTestServer) -> None:
    async with anyio.create_task_group() as group:
        task = Task(group, server.aio.wait_connection, 1)
        await waiting()
        with connect(server) as first, connect(server):
            conn = await task.result()
            first.sendall(b"hi")
            await (await server.aio.wait_connection()).wait_received(b"hi")

        assert isinstance(conn, AsyncConnection)
        assert conn.index == 1


async def test_assert_quiet_ends_at_once_when_something_comes(udp_server: DatagramTestServer) -> None:
    await udp_server.aio.assert_no_traffic(0.02)
    with datagram_client(udp_server) as client:
        async with anyio.create_task_group() as group:
            task = Task(group, udp_server.aio.assert_no_traffic, 5)
            await waiting()
            client.send(b"noise")

            with pytest.raises(UnexpectedRequest, match="expected nothing for 5 s"):
                await task.result()


async def test_verify_raises_what_a_handler_raised(tcp_server: StreamTestServer) -> None:
    go_on = threading.Event()

    @tcp_server.handler
    def fail(conn: Connection) -> None:
        go_on.wait(PATIENCE)
        raise ValueError("boom")

    with connect(tcp_server):
        await in_thread(tcp_server.wait_connection)
        async with anyio.create_task_group() as group:
            task = Task(group, tcp_server.aio.verify)
            await anyio.sleep(0.02)
            go_on.set()

            with pytest.raises(ValueError, match="^boom$"):
                await task.result()
    await tcp_server.aio.verify()


async def test_verify_waits_for_busy_handlers_while_refusing_as_well(tcp_server: StreamTestServer) -> None:
    go_on = threading.Event()

    @tcp_server.handler
    def fail(conn: Connection) -> None:
        go_on.wait(PATIENCE)
        raise ValueError("boom")

    with connect(tcp_server):
        await in_thread(tcp_server.wait_connection)
        tcp_server.refuse()
        async with anyio.create_task_group() as group:
            task = Task(group, tcp_server.aio.verify)
            await anyio.sleep(0.02)
            go_on.set()

            with pytest.raises(ValueError, match="^boom$"):
                await task.result()


async def test_raises_waits_for_the_failure_and_takes_it(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with connect(tcp_server) as client:
        async with tcp_server.aio.raises(ValueError, match="bo+m") as expected:
            client.sendall(b"hi\n")

    assert str(expected.failure.error) == "boom"
    await tcp_server.aio.verify()


async def test_raises_is_unmet_when_nothing_fails(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)

    with pytest.raises(UnmetExpectation) as raised:
        async with server.aio.raises(ValueError):
            pass

    assert str(raised.value) == (
        "tcp: expected the server's side to raise ValueError within 0.05 s\n"
        "  it did not\n"
        "    nobody has connected so far"
    )


async def test_datagram_servers_have_no_streams_to_wait_for(udp_server: DatagramTestServer) -> None:
    with pytest.raises(AttributeError) as raised:
        await udp_server.aio.accept()

    assert str(raised.value) == "a udp server has no accept(): it has datagrams, and next_request()"


# Cancelling


async def test_a_cancelled_take_takes_nothing(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        for number in range(50):
            data = b"%d" % number
            async with anyio.create_task_group() as group:
                task = Task(group, udp_server.aio.next_request, data)
                await waiting()
                client.send(data)
                task.scope.cancel()
                await task.done.wait()

            if task.value is None:
                assert await udp_server.aio.next_request(data) == data
            else:
                assert task.value == data


async def test_a_cancelled_accept_takes_nothing(tcp_server: StreamTestServer) -> None:
    for _ in range(20):
        async with anyio.create_task_group() as group:
            task = Task(group, tcp_server.aio.accept)
            await waiting()
            with connect(tcp_server) as client:
                task.scope.cancel()
                await task.done.wait()
                conn = task.value or await tcp_server.aio.accept()

                assert conn.peer == client.getsockname()


async def test_a_cancelled_verb_takes_nothing(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        client.sendall(b"half a ")

        with anyio.move_on_after(0.05):
            await conn.recv_line()
        client.sendall(b"line\n")

        assert await conn.recv_line() == b"half a line\n"


async def test_a_cancelled_wait_leaves_no_thread_and_no_waiter_behind(udp_server: DatagramTestServer) -> None:
    before = threads_of_servers()

    for _ in range(10):
        with anyio.move_on_after(0.005):
            await udp_server.aio.wait_for()

    assert threads_of_servers() == before
    assert insides.wakers(udp_server) == 0


async def test_a_cancelled_close_closes_all_the_same(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        client.sendall(b"never read")
        await in_thread(until, lambda: unread(conn))
        async with anyio.create_task_group() as group:
            task = Task(group, conn.close)
            await waiting()
            task.scope.cancel()
            await task.done.wait()

        assert insides.kernel_socket(insides.of_face(conn)).fileno() == -1
        client.settimeout(1)
        assert await in_thread(client.recv, 1) == b""


# The verbs of a connection


async def test_every_reading_verb_reads(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        client.sendall(b"rawPING\r\nEHLO me\r\n;stop12345one\ntherest")
        client.shutdown(1)

        taken = [
            await conn.recv(3),
            await conn.expect(b"PING\r\n"),
            await conn.expect_line(re.compile(rb"EHLO (\w+)")),
            await conn.recv_until(b"stop"),
            await conn.recv_exactly(5),
            await conn.recv_line(),
            await conn.recv_all(),
        ]
        await conn.expect_eof()

    assert taken == [b"raw", b"PING\r\n", b"EHLO me\r\n", b";stop", b"12345", b"one\n", b"therest"]
    assert taken[2].match[1] == b"me"
    assert conn.requests == taken[1:]
    assert conn.received == b"".join(taken)


async def test_a_verb_is_woken_by_what_comes(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        async with anyio.create_task_group() as group:
            task = Task(group, conn.recv_line)
            for letter in b"hi\n":
                await waiting()
                client.sendall(bytes([letter]))

            assert await task.result() == b"hi\n"


async def test_a_verb_is_woken_by_the_clients_end_and_by_its_reset(tcp_server: StreamTestServer) -> None:
    for end in ("close", "reset"):
        client = connect(tcp_server)
        conn = await tcp_server.aio.accept()
        async with anyio.create_task_group() as group:
            task = Task(group, conn.recv_line)
            await waiting()
            client.close() if end == "close" else reset(client)

            with pytest.raises(EndOfStream):
                await task.result()


async def test_a_verb_is_ended_by_the_stop(server: StreamTestServer) -> None:
    with connect(server):
        conn = await server.aio.accept()
        async with anyio.create_task_group() as group:
            task = Task(group, conn.recv_line)
            await waiting()
            server.stop()

            with pytest.raises(ServerStopping, match="^the server stops$"):
                await task.result()


async def test_a_send_that_waits_is_ended_by_the_stop(server: StreamTestServer) -> None:
    with connect(server):
        conn = await server.aio.accept()
        async with anyio.create_task_group() as group:
            task = Task(group, conn.send, b"x" * 20_000_000)
            await waiting()
            await in_thread(server.stop)

            with pytest.raises(ServerStopping, match="^the server stops$"):
                await task.result()


async def test_verbs_have_the_deadlines_and_errors_of_the_connections_own(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        conn = await tcp_server.aio.accept()
        where = f"tcp_server, connection 0 ({place(client)})"

        with pytest.raises(DeadlineExceeded) as late:
            await conn.recv(timeout=0.05)
        with pytest.raises(DeadlineExceeded) as unread:
            await conn.send(b"x" * 30_000_000, timeout=0.1)
        client.sendall(b"PIGN")
        with pytest.raises(ScriptMismatch) as mismatch:
            await conn.expect(b"PING")
        with pytest.raises(ValueError, match="^timeout must be above 0 seconds, not -1$"):
            await conn.recv(timeout=-1)
        with pytest.raises(TypeError, match="^send\\(\\) expected bytes, not the text 'hi'"):
            await conn.send("hi")

    assert str(late.value) == f"{where}: recv() waited 0.05 s, and nothing came\n    nothing was said so far"
    assert str(unread.value).partition("\n")[0] == (
        f"{where}: send() waited 0.1 s: the client does not read, and the kernel takes no more of the 30,000,000 bytes"
    )
    assert str(mismatch.value).splitlines()[:2] == [
        f"{where}: expected b'PING'",
        "  got b'PIGN' (differs at byte 2: b'G' is not b'N')",
    ]


async def test_a_second_reader_is_refused(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        async with anyio.create_task_group() as group:
            task = Task(group, conn.recv_line)
            await waiting()

            with pytest.raises(InvalidState, match=r"^cannot recv\(\) on connection 0: another thread is reading it$"):
                await conn.recv()

            client.sendall(b"hi\n")
            assert await task.result() == b"hi\n"


BIG = 20_000_000  # bytes; more than the kernel takes from a client that does not read


async def test_one_task_reads_while_another_sends(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        async with anyio.create_task_group() as group:
            reading = Task(group, conn.recv)
            await waiting()
            sending = Task(group, conn.send, b"x" * BIG)
            await waiting()

            client.sendall(b"hi")
            assert await reading.result() == b"hi"
            again = Task(group, conn.recv)
            await waiting()
            assert len(await in_thread(read_exactly, client, BIG)) == BIG
            await sending.result()
            client.sendall(b"again")
            assert await again.result() == b"again"


async def test_one_task_waits_for_bytes_while_another_sends(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        async with anyio.create_task_group() as group:
            sending = Task(group, conn.send, b"x" * BIG)
            await waiting()
            received = Task(group, conn.wait_received, b"done")
            await waiting()

            assert len(await in_thread(read_exactly, client, BIG)) == BIG
            await sending.result()
            client.sendall(b"done")
            await received.result()


async def test_sends_of_several_tasks_are_not_mixed(server: StreamTestServer) -> None:
    size = 4_000_000
    with connect(server) as client:
        conn = await server.aio.accept()
        async with anyio.create_task_group() as group:
            sending = [Task(group, conn.send, letter * size) for letter in (b"a", b"b", b"c")]
            await waiting()
            data = await in_thread(read_exactly, client, 3 * size)
            for each in sending:
                await each.result()

    assert len(re.findall(rb"a+|b+|c+", data)) == 3


async def test_close_discards_what_nobody_read_and_blocks_no_loop(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = await server.aio.accept()
        client.sendall(b"never read")
        await in_thread(until, lambda: unread(conn))
        await conn.send(b"bye")
        turns = 0
        async with anyio.create_task_group() as group:
            task = Task(group, conn.close)
            while not task.done.is_set():
                await anyio.sleep(0.001)
                turns += 1

        assert turns > 5
        assert await in_thread(read_exactly, client, 100) == b"bye"


async def test_reset_resets(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        conn = await tcp_server.aio.accept()
        await conn.send(b"half")
        await conn.reset()

        assert client.recv(10) == b"half"
        with pytest.raises(ConnectionResetError):
            client.recv(1)


async def test_tls_is_spoken(server: StreamTestServer) -> None:
    def ask() -> bytes:
        with connect(server) as plain:
            plain.sendall(b"STARTTLS\r\n")
            assert plain.recv(100) == b"220 go\r\n"
            with tls_contexts()[1].wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(b"x" * 50_000 + b"\n")
                return read_exactly(client, 50_000)

    reply = server.in_thread(ask)
    conn = await server.aio.accept()
    await conn.expect(b"STARTTLS\r\n")
    await conn.send(b"220 go\r\n")
    await conn.start_tls(tls_contexts()[0])
    line = await conn.recv_line()
    await conn.send(line[:-1].upper())

    assert await in_thread(reply.result, PATIENCE) == b"X" * 50_000
    assert conn.tls.version == "TLSv1.3"


async def test_a_handshake_has_a_deadline_and_is_ended_by_the_stop(server: StreamTestServer) -> None:
    with connect(server), connect(server):
        first, second = await server.aio.accept(), await server.aio.accept()

        with pytest.raises(DeadlineExceeded, match=r"start_tls\(\) waited 0.05 s for the client's handshake"):
            await first.start_tls(tls_contexts()[0], timeout=0.05)
        async with anyio.create_task_group() as group:
            task = Task(group, second.start_tls, tls_contexts()[0])
            await waiting()
            await in_thread(server.stop)

            with pytest.raises(ServerStopping, match="^the server stops$"):
                await task.result()


async def test_wait_closed_returns_when_the_client_ends(server: StreamTestServer) -> None:
    client = connect(server)
    conn = await server.aio.accept()
    async with anyio.create_task_group() as group:
        task = Task(group, conn.wait_closed)
        await waiting()
        client.close()
        await task.result()

    assert conn.closed_by == "client"


async def test_everything_else_is_the_connections_own(server: StreamTestServer) -> None:
    with connect(server):
        conn = await server.aio.accept()

        assert repr(conn) == repr(server.connections[0])
        assert str(conn).startswith("== 0  from ")
        assert conn.index == 0
        conn.state.user = "bob"
        assert server.connections[0].state.user == "bob"


async def test_a_loops_own_client_is_served(tcp_server: StreamTestServer) -> None:
    async def ask() -> bytes:
        async with await anyio.connect_tcp(*tcp_server.address) as client:
            await client.send(b"PING\r\n")
            return await client.receive()

    async with anyio.create_task_group() as group:
        reply = Task(group, ask)
        conn = await tcp_server.aio.accept()
        await conn.expect(b"PING\r\n")
        await conn.send(b"+PONG\r\n")

        assert await reply.result() == b"+PONG\r\n"


# What would block the loop

OF_SERVERS: dict[str, Callable[[Any], Any]] = {
    "wait_for": lambda server: server.wait_for(),
    "next_request": lambda server: server.next_request(),
    "assert_no_traffic": lambda server: server.assert_no_traffic(0.01),
    "verify": lambda server: server.verify(),
    "raises": lambda server: server.raises(ValueError).__enter__(),
}

OF_STREAM_SERVERS: dict[str, Callable[[Any], Any]] = {
    "accept": lambda server: server.accept(),
    "wait_connection": lambda server: server.wait_connection(),
}

OF_CONNECTIONS: dict[str, Callable[[Any], Any]] = {
    "recv": lambda conn: conn.recv(),
    "recv_exactly": lambda conn: conn.recv_exactly(1),
    "recv_until": lambda conn: conn.recv_until(b"\n"),
    "recv_line": lambda conn: conn.recv_line(),
    "recv_all": lambda conn: conn.recv_all(),
    "expect": lambda conn: conn.expect(b"a"),
    "expect_line": lambda conn: conn.expect_line(),
    "expect_eof": lambda conn: conn.expect_eof(),
    "send": lambda conn: conn.send(b"a"),
    "start_tls": lambda conn: conn.start_tls(tls_contexts()[0]),
    "wait_closed": lambda conn: conn.wait_closed(),
    "wait_received": lambda conn: conn.wait_received(b"a"),
}


def message(verb: str, backend: str, owner: str = "server") -> str:
    awaited = "async with server.aio.raises(...)" if verb == "raises" else f"await {owner}.aio.{verb}(...)"
    awaited = awaited.replace("verify(...)", "verify()")
    return (
        f"{verb}() blocks, and was called inside a coroutine: the {backend} loop, and with it the client, would stand "
        f"still.  Use {awaited}, or call it in a thread, by to_thread()"
    )


@pytest.mark.parametrize("verb", OF_SERVERS)
@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
async def test_a_blocking_verb_of_a_server_is_refused_whether_or_not_the_answer_is_there(
    udp_server: DatagramTestServer, anyio_backend: str, verb: str, there: bool
) -> None:
    if there:
        with datagram_client(udp_server) as client:
            client.send(b"hi")
            await udp_server.aio.wait_for(b"hi")
    began = monotonic()

    with pytest.raises(BlockingCallInCoroutine) as raised:
        OF_SERVERS[verb](udp_server)

    assert str(raised.value) == message(verb, anyio_backend)
    assert monotonic() - began < 0.5
    assert len(udp_server.requests) == there


@pytest.mark.parametrize("verb", OF_STREAM_SERVERS)
@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
async def test_a_blocking_verb_of_a_stream_server_is_refused_and_takes_nothing(
    tcp_server: StreamTestServer, anyio_backend: str, verb: str, there: bool
) -> None:
    client = connect(tcp_server) if there else None
    if there:
        await tcp_server.aio.wait_connection()

    with pytest.raises(BlockingCallInCoroutine) as raised:
        OF_STREAM_SERVERS[verb](tcp_server)

    assert str(raised.value) == message(verb, anyio_backend)
    if client is not None:
        assert (await tcp_server.aio.accept()).index == 0
        client.close()


@pytest.mark.parametrize("verb", OF_CONNECTIONS)
async def test_a_blocking_verb_of_an_accepted_connection_is_refused_whether_or_not_the_answer_is_there(
    tcp_server: StreamTestServer, anyio_backend: str, verb: str
) -> None:
    with connect(tcp_server) as client:
        conn = await in_thread(tcp_server.accept)
        with pytest.raises(BlockingCallInCoroutine) as not_there:
            OF_CONNECTIONS[verb](conn)
        client.sendall(b"a\n")
        await in_thread(conn.wait_received, b"a\n")
        with pytest.raises(BlockingCallInCoroutine) as there:
            OF_CONNECTIONS[verb](conn)

        assert str(not_there.value) == str(there.value) == message(verb, anyio_backend, "connection")
        assert await in_thread(conn.recv) == b"a\n"


async def test_reading_a_connection_that_nobody_accepted_does_not_block_the_loop(tcp_server: StreamTestServer) -> None:
    """Whichever error it is, it is one."""
    with connect(tcp_server) as client:
        await tcp_server.aio.wait_connection()
        rescue = threading.Timer(2, client.close)
        rescue.start()
        began = monotonic()

        with pytest.raises((BlockingCallInCoroutine, InvalidState)):
            tcp_server.connections[0].recv_line()

        assert monotonic() - began < 1
        rescue.cancel()
        rescue.join()


async def test_what_does_not_block_is_allowed(server: StreamTestServer) -> None:
    with connect(server) as client:
        client.sendall(b"hi")
        conn = await server.aio.wait_connection()
        await conn.wait_received(b"hi")

        assert server.requests == []
        assert len(server.connections) == 1
        assert server.events[0].data == b"hi"
        assert server.address
        assert server.url("x")
        assert (conn.received, conn.sent, conn.received_count) == (b"hi", b"", 2)
        assert conn.closed_by is None
        server.handler(lambda conn: None)
        future = server.in_thread(int, "7")
        until(future.done)
        with server.refuse():
            pass
        server.refuse()
        server.listen()
        server.clear()
        server.stop()
        server.start()
        assert await in_thread(future.result) == 7


async def test_a_blocking_verb_in_a_thread_of_the_loop_is_allowed(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"hi")

        assert await in_thread(udp_server.wait_for) == b"hi"


async def test_handlers_run_outside_the_loop(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lambda conn: conn.send(conn.recv_line()))

    async with await anyio.connect_tcp(*tcp_server.address) as client:
        await client.send(b"hi\n")
        assert await client.receive() == b"hi\n"


async def test_aio_outside_a_loop_says_what_it_is_for(udp_server: DatagramTestServer) -> None:
    def outside() -> None:
        coroutine = udp_server.aio.wait_for()
        with pytest.raises(RuntimeError) as raised:
            coroutine.send(None)
        assert str(raised.value) == "server.aio is for coroutines of asyncio or trio, and neither loop runs here"

    await in_thread(outside)


async def test_a_datagram_is_answered_from_a_coroutine(unix_datagram_server: DatagramTestServer) -> None:
    with datagram_client(unix_datagram_server) as client:
        client.send(b"hi")
        request: Request = await unix_datagram_server.aio.next_request()
        request.reply(b"re: hi")

        assert client.recv(10) == b"re: hi"
