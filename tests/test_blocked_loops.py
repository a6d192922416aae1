"""A call that would block a loop is refused, on whatever connection, and its awaitable way works: asyncio and trio."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic
from typing import Any

import anyio
import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    DATA,
    AsyncConnection,
    AsyncRequest,
    BlockingCallInCoroutine,
    Close,
    Connection,
    Cut,
    DatagramTestServer,
    DeadlineExceeded,
    Delay,
    Drip,
    Gate,
    InvalidState,
    Request,
    Reset,
    SockServer,
    Stall,
    StartTLS,
    StreamTestServer,
    Text,
    fault_matrix,
    lines,
    socketserver,
)
from pytest_sockserver.faults import Corrupt, Hold, Jitter, ReadSlowly, Repeat, Split, Throttle

from . import insides
from .peers import PATIENCE, connect, datagram_client, tls_contexts

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)(framing=lines(b"\n"))


@pytest.fixture(params=["udp", "unix_datagram"])
def datagrams(request: pytest.FixtureRequest, sockserver: SockServer) -> DatagramTestServer:
    return getattr(sockserver, request.param)()


#: Seconds.  What is refused at once takes microseconds; a loop that was blocked would be so for a second and more.
AT_ONCE = 0.5

TIMED: dict[str, Any] = {
    "Drip": Drip(b"21.5", 1.0),
    "Delay": Delay(1.0),
    "Delay(0)": Delay(0),
    "Split": Split(b"21.5", 2, pause=1.0),
    "Split by a gate": Split(b"21.5", 2, gate="go"),
    "Throttle": Throttle(b"21.5", 1),
    "Jitter": Jitter(1.0, 2.0),
    "Gate": Gate("go"),
    "Stall": Stall(),
    "Hold": Hold(b"21.5"),
    "ReadSlowly": ReadSlowly(1, 1.0),
    "Repeat": Repeat(b"21.5", None),
    "StartTLS": StartTLS(tls_contexts()[0]),
    "nested": Cut(Corrupt(Drip(b"21.5", 1.0), 0), 2),
    "twice": Repeat(Split(b"21.5", 2), 2),
}

TIMED_DATAGRAMS = {
    "Delay": TIMED["Delay"],
    "Jitter": TIMED["Jitter"],
    "Gate": TIMED["Gate"],
    "Stall": TIMED["Stall"],
    "Hold": TIMED["Hold"],
    "nested": Hold(Repeat(b"x", 2)),
}


def message(call: str, backend: str, advice: str) -> str:
    return (
        f"{call} blocks, and was called inside a coroutine: the {backend} loop, and with it the client, would stand "
        f"still.  Use {advice}, or call it in a thread, by to_thread()"
    )


def refused(call: Callable[[], object], seconds: float = AT_ONCE) -> str:
    """Return what is said of a call that is refused at once."""
    began = monotonic()
    with pytest.raises(BlockingCallInCoroutine) as raised:
        call()
    assert monotonic() - began < seconds
    return str(raised.value)


def handled(server: StreamTestServer) -> None:
    @server.handler
    def answer(conn: Connection) -> None:
        while conn.recv_line():
            conn.send(b"ok\n")


DRIVERS: dict[str, Callable[[StreamTestServer], Any]] = {
    "nothing": lambda server: None,
    "rules": lambda server: server.on(ANY).reply(b"ok\n"),
    "a handler": handled,
    "a script": lambda server: server.script().expect(b"hi\n").send(b"ok\n").expect_eof(),
    "a dialogue": lambda server: server.dialogue("% eol lf\nC: hi\nS: ok\nC! eof"),
}


# Parts


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_push_that_takes_time_is_refused_and_sends_nothing(
    server: StreamTestServer, anyio_backend: str, driver: str
) -> None:
    DRIVERS[driver](server)
    with connect(server) as client:
        client.sendall(b"hi\n")
        await (await server.aio.wait_connection()).wait_received(b"hi\n")
        if driver != "nothing":
            await anyio.to_thread.run_sync(client.recv, 3)

        said = refused(lambda: server.connections[0].send(b"2", Drip(b"1.5", 1.0)))

        assert said == message("send()", anyio_backend, "await connection.aio.send(...)")
        assert server.connections[0].sent == (b"ok\n" if driver != "nothing" else b"")
        await server.connections[0].aio.send(Drip(b"21.5", 0.001))
        assert await anyio.to_thread.run_sync(read, client, 4) == b"21.5"


def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


@pytest.mark.parametrize("part", TIMED)
async def test_each_part_that_has_to_do_with_time_is_refused(tcp_server: StreamTestServer, part: str) -> None:
    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(b"ok\n")
    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        request = await tcp_server.aio.wait_for()

        refused(lambda: tcp_server.connections[0].send(TIMED[part]))
        refused(lambda: request.reply(TIMED[part]))
        refused(lambda: request.connection and request.connection.send(b"a", TIMED[part]))


@pytest.mark.parametrize("part", TIMED_DATAGRAMS)
async def test_each_part_of_datagrams_that_has_to_do_with_time_is_refused(
    datagrams: DatagramTestServer, anyio_backend: str, part: str
) -> None:
    with datagram_client(datagrams) as client:
        client.send(b"hi")
        request = await datagrams.aio.next_request()

        said = refused(lambda: request.reply(b"a", TIMED_DATAGRAMS[part]))

        assert said == message("reply()", anyio_backend, "await request.aio.reply(...)")
        said = refused(lambda: datagrams.send_to(request.peer, b"a", TIMED_DATAGRAMS[part]))
        assert said == message("send_to()", anyio_backend, "await server.aio.send_to(...)")
        assert [event for event in datagrams.events if event.kind == "sent"] == []


async def test_a_function_that_returns_a_timed_part_is_refused_before_anything_waits(
    tcp_server: StreamTestServer, udp_server: DatagramTestServer
) -> None:
    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(b"ok\n")
    with connect(tcp_server) as client, datagram_client(udp_server) as other:
        client.sendall(b"hi\n")
        other.send(b"hi")
        request, datagram = await tcp_server.aio.wait_for(), await udp_server.aio.next_request()

        refused(lambda: request.reply(lambda request: Delay(1.0)))
        refused(lambda: request.reply(lambda request: [b"2", lambda request: Drip(b"1.5", 1.0)]))
        refused(lambda: datagram.reply(lambda request: Gate("never")))
        request.reply(lambda request: b"plain\n")
        datagram.reply(lambda request: b"plain")

        assert await anyio.to_thread.run_sync(other.recv, 10) == b"plain"


async def test_a_function_that_reads_in_a_coroutine_is_refused(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(b"ok\n")
    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        request = await tcp_server.aio.wait_for()

        with pytest.raises(BlockingCallInCoroutine):
            await request.aio.reply(lambda request: request.connection.recv_line())


async def test_a_plain_push_that_an_injection_delays_is_refused(
    tcp_server: StreamTestServer, udp_server: DatagramTestServer
) -> None:
    for server in (tcp_server, udp_server):
        server.inject(Delay(1.0), DATA)
    tcp_server.on(CONNECT)
    with connect(tcp_server), datagram_client(udp_server) as other:
        other.send(b"hi")
        datagram = await udp_server.aio.next_request()
        conn = await tcp_server.aio.wait_connection()

        refused(lambda: tcp_server.connections[0].send(b"push"))
        refused(lambda: datagram.reply(b"push"))
        assert conn.sent == b""


async def test_what_does_not_wait_is_allowed(server: StreamTestServer) -> None:
    server.on(ANY).reply(b"ok\n")
    with connect(server) as client:
        client.sendall(b"hi\n")
        request = await server.aio.wait_for()
        conn = server.connections[0]

        conn.send(b"a", Cut(b"bcd", 2), Text("e"), Repeat(b"f", 2))
        request.reply(b"g", lambda request: b"h")
        request.aio.reply  # noqa: B018  # asked for, and not awaited: nothing happens

        assert await anyio.to_thread.run_sync(read, client, 11) in (b"ok\nabceffgh", b"abceffghok\n")
        conn.send(b"bye", Close())
        assert await anyio.to_thread.run_sync(read, client, 3) == b"bye"
        assert await anyio.to_thread.run_sync(client.recv, 1) == b""


async def test_threads_of_the_server_may_take_their_time(tcp_server: StreamTestServer) -> None:
    tcp_server.on(CONNECT).reply(Drip(b"hi\n", 0.001))
    tcp_server.on(b"a\n").reply(Delay(0.001), lambda request: Split(b"ok\n", 1))
    async with await anyio.connect_tcp(*tcp_server.address) as client:
        said = b""
        while said != b"hi\n":
            said += await client.receive()
        await client.send(b"a\n")
        while said != b"hi\nok\n":
            said += await client.receive()


# What a client of the loop could only then see


async def test_a_client_of_the_loop_sees_the_pieces(tcp_server: StreamTestServer) -> None:
    """The reproducer: sent by a blocked loop, the pieces would arrive joined, and this client would seem right."""
    tcp_server.on(CONNECT).reply(b"hi\n")
    async with await anyio.connect_tcp(*tcp_server.address) as client:
        assert await client.receive() == b"hi\n"
        refused(lambda: tcp_server.connections[0].send(Drip(b"21.5", 0.05)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tcp_server.connections[0].aio.send, Drip(b"21.5", 0.05))
            assert await client.receive() == b"2"
            assert await client.receive() == b"1"


# Verbs


VERBS: dict[str, Callable[[Any], Any]] = {
    "recv": lambda conn: conn.recv(),
    "recv_exactly": lambda conn: conn.recv_exactly(1),
    "recv_until": lambda conn: conn.recv_until(b"\n"),
    "recv_line": lambda conn: conn.recv_line(),
    "recv_all": lambda conn: conn.recv_all(),
    "frames": lambda conn: next(conn.frames()),
    "rules": lambda conn: conn.rules(),
    "expect": lambda conn: conn.expect(b"a"),
    "expect_line": lambda conn: conn.expect_line(),
    "expect_eof": lambda conn: conn.expect_eof(),
    "expect_reset": lambda conn: conn.expect_reset(),
    "start_tls": lambda conn: conn.start_tls(tls_contexts()[0]),
    "wait_closed": lambda conn: conn.wait_closed(),
    "wait_received": lambda conn: conn.wait_received(b"a"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("driver", ["nothing", "rules", "a handler"])
async def test_a_verb_of_any_connection_is_refused_whether_or_not_its_answer_is_there(
    tcp_server: StreamTestServer, anyio_backend: str, driver: str, verb: str
) -> None:
    tcp_server.framing = lines(b"\n")
    DRIVERS[driver](tcp_server)
    expected = message(f"{verb}()", anyio_backend, f"await connection.aio.{verb}(...)")
    if verb == "frames":
        expected = expected.replace("await connection.aio.frames(...)", "async for frame in connection.aio.frames(...)")
    with connect(tcp_server) as client:
        await tcp_server.aio.wait_connection()
        assert refused(lambda: VERBS[verb](tcp_server.connections[0])) == expected
        client.sendall(b"a\n")
        await tcp_server.connections[0].aio.wait_received(b"a\n")
        assert refused(lambda: VERBS[verb](tcp_server.connections[0])) == expected


@pytest.mark.parametrize("verb", ["close", "reset"])
async def test_to_end_what_no_thread_drives_may_wait_and_is_refused(tcp_server: StreamTestServer, verb: str) -> None:
    with connect(tcp_server) as client:
        await tcp_server.aio.wait_connection()
        conn = tcp_server.connections[0]

        refused(getattr(conn, verb))
        refused(lambda: conn.send(Close() if verb == "close" else Reset()))

        assert conn.closed_by is None
        await getattr(conn.aio, verb)()
        assert conn.closed_by == "server"
        client.close()


@pytest.mark.parametrize("verb", ["close", "reset"])
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "awaited"])
async def test_to_end_what_a_thread_drives_does_not_wait(
    tcp_server: StreamTestServer, verb: str, awaited: bool
) -> None:
    handled(tcp_server)
    async with await anyio.connect_tcp(*tcp_server.address) as client:
        await tcp_server.aio.wait_connection()
        conn = tcp_server.connections[0]
        if awaited:
            await getattr(conn.aio, verb)()
        else:
            getattr(conn, verb)()

        with pytest.raises(anyio.EndOfStream if verb == "close" else anyio.BrokenResourceError):
            await client.receive()


async def test_a_handler_that_runs_a_loop_of_its_own_is_as_any_coroutine(sockserver: SockServer) -> None:
    server = sockserver.tcp()
    errors: list[BlockingCallInCoroutine] = []

    @server.handler
    def converse(conn: Connection) -> None:
        async def main() -> None:
            for verb in (conn.recv_line, lambda: conn.send(Delay(1.0)), conn.close):
                with pytest.raises(BlockingCallInCoroutine) as raised:
                    verb()
                errors.append(raised.value)
            line = await conn.aio.recv_line()
            await conn.aio.send(Drip(b"re: " + line, 0.001))

        asyncio.run(main())

    async with await anyio.connect_tcp(*server.address) as client:
        await client.send(b"hi\n")
        said = b""
        while said != b"re: hi\n":
            said += await client.receive()
    assert len(errors) == 3


async def test_in_a_callback_of_the_loop_as_well(tcp_server: StreamTestServer) -> None:
    """A protocol's methods are called by the loop itself: no coroutine is among the frames."""
    tcp_server.on(CONNECT).reply(b"hi\n")
    told: list[BaseException] = []

    class Client(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            try:
                tcp_server.connections[0].send(Drip(b"21.5", 1.0))
            except BlockingCallInCoroutine as error:
                told.append(error)

    async def converse() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Client, *tcp_server.address)
        while not told:
            await asyncio.sleep(0.001)
        transport.close()

    await anyio.to_thread.run_sync(lambda: asyncio.run(asyncio.wait_for(converse(), 5)))


async def test_a_loop_in_another_thread_blocks_nothing_here(tcp_server: StreamTestServer) -> None:
    tcp_server.on(CONNECT)
    with connect(tcp_server):
        await tcp_server.aio.wait_connection()

        await anyio.to_thread.run_sync(lambda: tcp_server.connections[0].send(Delay(0.001), b"x"))


# Futures, fault matrices


async def test_the_result_of_a_thread_is_refused_whether_or_not_it_is_there(
    tcp_server: StreamTestServer, anyio_backend: str
) -> None:
    go_on = threading.Event()
    future = tcp_server.in_thread(lambda: go_on.wait(5) and 7)
    advice = "await asyncio.wrap_future(future)" if anyio_backend == "asyncio" else "the thread of to_thread alone"

    for there in (False, True):
        if there:
            go_on.set()
            await anyio.to_thread.run_sync(future.result)
        for verb in (future.result, future.exception):
            said = refused(verb)
            if anyio_backend == "asyncio":
                assert said == message(f"{verb.__name__}()", "asyncio", advice)
            assert "to_thread" in said
    assert await anyio.to_thread.run_sync(future.result) == 7
    if anyio_backend == "asyncio":
        assert await asyncio.wrap_future(future) == 7


async def test_a_client_in_a_thread_is_awaited_by_asyncio() -> None:
    def fetch(address: tuple[str, int]) -> bytes:
        with socket.create_connection(address) as client:
            return client.recv(10)

    async def main() -> None:
        with SockServer() as sockserver:
            server = sockserver.tcp()
            server.on(CONNECT).reply(b"hi", Close())
            assert await asyncio.wrap_future(server.in_thread(fetch, server.address)) == b"hi"
            failing = asyncio.wrap_future(server.in_thread(int, "x"))
            with pytest.raises(ValueError, match="invalid literal"):
                await failing

    await anyio.to_thread.run_sync(lambda: asyncio.run(main()))


async def test_a_fault_matrix_is_refused(sockserver: SockServer, anyio_backend: str) -> None:
    def never(server: Any) -> None:
        raise AssertionError("it was to be refused")

    expected = message("fault_matrix()", anyio_backend, "a plain test function")
    assert refused(lambda: fault_matrix(never, never)) == expected
    assert refused(lambda: sockserver.fault_matrix(never, never)) == expected


# Full buffers, and a turn that another one has


async def test_a_plain_push_that_finds_no_room_is_refused_after_a_moment(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=30)
    server.on(CONNECT)
    with connect(server):
        await server.aio.wait_connection()

        said = refused(lambda: server.connections[0].send(b"x" * 50_000_000), 5)

        assert "await connection.aio.send(...)" in said


@pytest.mark.parametrize("parts", [(b"x" * 50_000_000,), (Text("x"), b"x" * 50_000_000)], ids=["bytes", "parts"])
async def test_a_plain_push_that_finds_a_little_room_again_and_again_is_refused_after_a_moment(
    sockserver: SockServer, parts: tuple[Any, ...]
) -> None:
    """No single wait is a long one; all of them would be."""
    server = sockserver.tcp(timeout=30)
    server.on(CONNECT)
    over = threading.Event()
    with connect(server) as client:

        def read_slowly() -> None:
            while not over.wait(0.01) and client.recv(300_000):
                pass

        await server.aio.wait_connection()
        reading = server.in_thread(read_slowly)
        try:
            said = refused(lambda: server.connections[0].send(*parts), 4)
        finally:
            over.set()
            await anyio.to_thread.run_sync(reading.result)

        assert "await connection.aio.send(...)" in said


BEFORE_ITS_THREAD: dict[str, Callable[[StreamTestServer], object]] = {
    "rules": lambda server: server.on(CONNECT),
    "a handler": lambda server: server.handler(lambda conn: None),
    "a handler class": lambda server: server.handler(socketserver.StreamRequestHandler),
}


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("driver", BEFORE_ITS_THREAD)
async def test_a_plain_push_before_the_drivers_thread_has_begun_is_refused_after_a_moment(
    sockserver: SockServer, transport: str, driver: str
) -> None:
    """Its socket was made non-blocking by that thread once: a push that was faster blocked without any bound."""
    server: StreamTestServer = getattr(sockserver, transport)(timeout=30)
    BEFORE_ITS_THREAD[driver](server)
    go_on = threading.Event()
    insides.before_driving(server, lambda: go_on.wait(PATIENCE))
    with connect(server):
        try:
            await server.aio.wait_connection()

            said = refused(lambda: server.connections[0].send(b"x" * 50_000_000), 4)
        finally:
            go_on.set()
        assert "await connection.aio.send(...)" in said


@pytest.mark.parametrize("transport", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("seconds", [None, 30.0], ids=["blocking", "with a time-out"])
async def test_a_plain_push_past_a_handler_class_is_refused_after_a_moment(
    sockserver: SockServer, transport: str, seconds: float | None
) -> None:
    """The socket of a handler class blocks; a verb that sends on it does not."""
    server: StreamTestServer = getattr(sockserver, transport)(timeout=30)
    begun, go_on = threading.Event(), threading.Event()

    @server.handler
    class Waits(socketserver.StreamRequestHandler):
        timeout = seconds

        def handle(self) -> None:
            begun.set()
            go_on.wait(PATIENCE)

    with ExitStack() as stack:
        stack.callback(go_on.set)
        client = stack.enter_context(await anyio.to_thread.run_sync(connect, server))
        if transport == "tls":
            secure = functools.partial(server.client_context().wrap_socket, client, server_hostname="localhost")
            stack.enter_context(await anyio.to_thread.run_sync(secure))
        await anyio.to_thread.run_sync(begun.wait, PATIENCE)

        said = refused(lambda: server.connections[0].send(b"x" * 50_000_000), 4)

        assert "await connection.aio.send(...)" in said


async def test_a_plain_datagram_that_finds_no_room_is_refused_after_a_moment(sockserver: SockServer) -> None:
    server = sockserver.unix_datagram(timeout=30)
    with datagram_client(server) as client:
        client.send(b"hi")
        request = await server.aio.next_request()

        def flood() -> None:
            for _ in range(100_000):
                request.reply(b"x" * 1000)

        assert "await request.aio.reply(...)" in refused(flood, 5)
        sent = len([event for event in server.events if event.kind == "sent"])
        assert await drained(client) == sent - 1  # the last was taken back


async def drained(client: socket.socket) -> int:
    client.setblocking(False)
    for count in range(1_000_000):
        try:
            client.recv(2000)
        except BlockingIOError:
            return count
    raise AssertionError


async def test_a_push_waits_for_a_reply_under_way_only_if_it_is_awaited(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"GET\n").reply(b"begin ", Gate("go"), b"end\n")
    async with await anyio.connect_tcp(*tcp_server.address) as client:
        await client.send(b"GET\n")
        assert await client.receive() == b"begin "
        conn = tcp_server.connections[0]

        for push in (lambda: conn.send(b"push\n"), conn.send_eof):
            refused(push)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conn.aio.send, b"push\n")
            await anyio.wait_all_tasks_blocked()
            tcp_server.open_gate("go")
            said = b""
            while len(said) < 9:
                said += await client.receive()
        assert said == b"end\npush\n"


# The awaitable face


async def test_a_request_of_a_wait_is_answered_in_its_time(server: StreamTestServer) -> None:
    with connect(server) as client:
        client.sendall(b"hi\n")
        conn = await server.aio.accept()
        request = await conn.recv_line()
        assert isinstance(request.aio, AsyncRequest)
        assert isinstance(request.connection, Connection)
        assert isinstance(request.connection.aio, AsyncConnection)

        await request.aio.reply(b"re: ", Delay(0.001), lambda request: Drip(request, 0.001))

        assert await anyio.to_thread.run_sync(read, client, 7) == b"re: hi\n"


async def test_a_datagram_is_answered_in_its_time(datagrams: DatagramTestServer) -> None:
    with datagram_client(datagrams) as client:
        client.send(b"hi")
        request = await datagrams.aio.next_request()

        await request.aio.reply(Delay(0.001), b"re: ", lambda request: [Jitter(0, 0.001), request])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request.aio.reply, Gate("go"), b"at last")
            await anyio.wait_all_tasks_blocked()
            datagrams.open_gate("go")

        said = [await anyio.to_thread.run_sync(client.recv, 10) for _ in range(3)]
        assert said == [b"re: ", b"hi", b"at last"]


async def test_a_datagram_nobody_asked_for_is_sent_in_its_time(datagrams: DatagramTestServer) -> None:
    with datagram_client(datagrams) as client:
        await datagrams.aio.send_to(client.getsockname(), Delay(0.001), b"hello")

        assert await anyio.to_thread.run_sync(client.recv, 10) == b"hello"


async def test_a_datagram_waits_for_room_and_lets_the_loop_run(sockserver: SockServer) -> None:
    server = sockserver.unix_datagram()
    with datagram_client(server) as client:
        client.send(b"hi")
        request = await server.aio.next_request()
        client.setblocking(False)
        came = 0

        async def read_slowly() -> None:
            nonlocal came
            while came < 3000:
                try:
                    client.recv(2000)
                    came += 1
                except BlockingIOError:
                    await anyio.sleep(0.001)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_slowly)
            for _ in range(3000):
                await request.aio.reply(b"x" * 1000)
        assert came == 3000


async def test_a_datagram_that_finds_no_room_in_time(sockserver: SockServer) -> None:
    server = sockserver.unix_datagram(timeout=0.05)
    with datagram_client(server) as client:
        client.send(b"hi")
        request = await server.aio.next_request()

        with pytest.raises(DeadlineExceeded, match="does not read: a datagram waited"):
            for _ in range(100_000):
                await request.aio.reply(b"x" * 1000)


async def test_a_cancelled_reply_has_sent_nothing_after(datagrams: DatagramTestServer) -> None:
    with datagram_client(datagrams) as client:
        client.send(b"hi")
        request = await datagrams.aio.next_request()
        with anyio.move_on_after(0.02):
            await request.aio.reply(b"a", Gate("never"), b"b")
        datagrams.open_gate("never")
        await request.aio.reply(b"c")

        assert [await anyio.to_thread.run_sync(client.recv, 10) for _ in range(2)] == [b"a", b"c"]


async def test_a_reply_to_a_request_of_nobody(anyio_backend: str) -> None:
    with pytest.raises(ValueError, match="this request cannot be replied to: it was not taken from a server"):
        await Request(b"hi").aio.reply(b"ho")


async def test_the_server_stops_under_an_awaited_reply(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"hi")
        request = await udp_server.aio.next_request()
        with anyio.fail_after(2):
            async with anyio.create_task_group() as tasks:

                async def reply() -> None:
                    with pytest.raises(ConnectionAbortedError):
                        await request.aio.reply(Delay(5.0), b"late")

                tasks.start_soon(reply)
                await anyio.wait_all_tasks_blocked()
                udp_server.stop()


async def test_rules_are_not_handed_what_another_thread_drives(tcp_server: StreamTestServer) -> None:
    handled(tcp_server)
    with connect(tcp_server):
        conn = await tcp_server.aio.wait_connection()

        with pytest.raises(InvalidState, match=r"cannot rules\(\) on connection 0: "):
            await conn.rules()


@pytest.mark.parametrize("what", ["handler", "class"])
async def test_an_async_handler_is_refused_where_it_is_declared(
    tcp_server: StreamTestServer, udp_server: DatagramTestServer, what: str
) -> None:
    async def function(conn: Any) -> None: ...

    class Class:
        def __init__(self, request: Any, client_address: Any, server: Any) -> None: ...
        async def handle(self) -> None: ...

    for server in (tcp_server, udp_server):
        with pytest.raises(TypeError, match="is async: it runs in a thread of its own; write it as a plain def"):
            server.handler(function if what == "handler" else Class)


def test_a_plain_thread_pays_no_loop(tcp_server: StreamTestServer) -> None:
    """Beside a loop that runs in another thread as well."""
    with ThreadPoolExecutor(1) as pool, connect(tcp_server) as client:
        stop = threading.Event()
        beside = pool.submit(lambda: asyncio.run(asyncio.wait_for(asyncio.to_thread(stop.wait, 5), 6)))
        client.sendall(b"hi\n")
        conn = tcp_server.accept()
        assert conn.recv_line() == b"hi\n"
        conn.send(Drip(b"ok\n", 0.001))
        assert read(client, 3) == b"ok\n"
        stop.set()
        beside.result()
