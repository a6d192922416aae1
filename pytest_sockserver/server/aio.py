"""The verbs that block, awaitable: for tests whose client lives in an asyncio or trio loop.

A wait here is the same question as in a thread, asked again whenever the recorder says that something
changed; the recorder then wakes the loop.  No worker thread waits in anybody's stead, so cancelling is
clean: a cancelled wait has taken nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ..connection.connection import Connection
from ..connection.deadline import Deadline
from ..connection.perform import PAUSE, ROOM, Need, pause
from ..connection.request import Request
from ..connection.send_lock import SingleReader
from ..connection.waits import Wait, _Pending
from ..errors.exceptions import EndOfStream, IncompleteRequest, ServerStopping
from ..errors.location import hide_frame, place_of_coroutine
from ..errors.messages import old_attributes
from ..originals import clock_is_real, original
from ..recording.failures import Expected, combined
from ..scripting import readers
from ..scripting.arguments import checked_timeout
from ..scripting.matching import ANY, Match
from ..scripting.parts import Part
from ..scripting.tls_effects import StartTLS
from ..transport.stream import CHUNK
from . import life_cycle, queries
from .timers import Alarm

if TYPE_CHECKING:
    from ..scripting.framing import Framing
    from ..scripting.readers import Steps
    from ..scripting.tls_effects import Context
    from .base import BaseTestServer
    from .datagram import DatagramTestServer
    from .stream import StreamTestServer

__tracebackhide__ = hide_frame


T = TypeVar("T")

#: Seconds by which a loop's clock may differ from ours: uvloop looks at its own once for each round.
_IN_STEP = 1.0


class Bell(Protocol):
    """Something a coroutine can wait for and any thread can ring."""

    def ring(self) -> None:
        """Wake the coroutine, or let its next wait return at once.  Any thread; does not block."""

    async def wait(self, seconds: float | None) -> None:
        """Wait until it is rung, or for so long."""


class _AsyncioBell:
    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            pass  # the loop was closed under a wait that nobody will resume

    async def wait(self, seconds: float | None) -> None:
        # Not wait_for(): before 3.12 it loses a cancellation that comes together with the answer (CPython issue 86296).
        timer = None if seconds is None else self._timer(seconds)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._event.clear()

    def _timer(self, seconds: float) -> Any:
        # A loop's timers stand still where a test has frozen its clock, and a loop with a clock of its own may leap.
        if clock_is_real() and abs(self._loop.time() - original.monotonic()) < _IN_STEP:
            return self._loop.call_later(seconds, self._event.set)
        return Alarm(seconds, self.ring)


class _TrioBell:
    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def ring(self) -> None:
        try:
            self._token.run_sync_soon(self._set, idempotent=True)
        except self._trio.RunFinishedError:
            pass

    def _set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        clock = self._trio.lowlevel.current_clock()
        real = clock_is_real() and type(clock).__name__ == "SystemClock"  # else as above
        alarm = None if seconds is None or real else Alarm(seconds, self.ring)
        try:
            with self._trio.move_on_after(seconds if seconds is not None and real else float("inf")):
                await self._event.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
        self._event = self._trio.Event()


def _bell() -> Bell:
    asyncio = sys.modules.get("asyncio.events")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return _AsyncioBell()
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return _TrioBell()
    raise RuntimeError("server.aio is for coroutines of asyncio or trio, and neither loop runs here")


async def arrive(wait: Wait[T]) -> T:
    """Wait in this coroutine for the answer."""
    bell = _bell()
    with wait.recorder.waking(bell.ring):
        while True:
            answer = wait.poll()
            if not isinstance(answer, _Pending):
                return answer
            await bell.wait(wait.left())


class AsyncServer:
    """The waits of a server, awaitable.  Arguments, results and errors are those of the server's own."""

    def __init__(self, server: BaseTestServer) -> None:
        self._server = server

    if not TYPE_CHECKING:  # which would take any name for a known one
        __getattr__ = old_attributes("server.aio")

    async def wait_for(self, match: Match = ANY, count: int = 1, *, timeout: float | None = None) -> Request:
        """Return the ``count``-th request that matches; wait for it if need be."""
        return await arrive(queries.request(self._server, match, count, timeout))

    async def next_request(self, match: Match = ANY, *, timeout: float | None = None) -> Request:
        """Return the earliest request that matches and that no call has returned yet; wait for it if need be.

        It is MockWebServer's ``takeRequest``.
        """
        return await arrive(queries.untaken_request(self._server, match, timeout))

    async def assert_no_traffic(self, seconds: float) -> None:
        """Assert that for ``seconds`` from now on no byte, no datagram and no connection arrives."""
        with self._server._reading_all():
            bell, patience = _bell(), Deadline(life_cycle.DRAIN_BOUND)
            while not self._server._has_handled_all() and patience.left():
                await bell.wait(0.001)  # what was sent before this call is no noise
            await arrive(queries.quiet(self._server, seconds))

    async def wait_connection(self, index: int = 0, *, timeout: float | None = None) -> AsyncConnection:
        """Return the connection with this index; wait for it if need be."""
        return AsyncConnection(await arrive(queries.connection(self._streams("wait_connection"), index, timeout)))

    async def accept(self, *, timeout: float | None = None) -> AsyncConnection:
        """Return the earliest connection not taken yet, to be driven by the test; its verbs are awaitable."""
        server = self._streams("accept")
        return AsyncConnection(server._accepted(await arrive(queries.untaken_connection(server, timeout))))

    async def send_to(self, peer: Any, *parts: Part) -> None:
        """Say parts to an address that has not asked, from a datagram server."""
        if not hasattr(self._server, "send_to"):
            raise AttributeError(f"a {self._server.transport} server has no send_to(): its connections have send()")
        server = cast("DatagramTestServer", self._server)
        await _say_datagrams(server, server._unasked(peer, parts))

    async def verify(self) -> None:
        """Wait until the handlers are done or idle, at most a second, and raise what went wrong so far."""
        bell = _bell()
        deadline = Deadline(life_cycle.DRAIN_BOUND)
        while not self._server._settled() and deadline.left():
            await bell.wait(0.001)  # idleness is partly the kernel's, which rings no bell
        failures = self._server._take_failures()
        if failures:
            raise combined(failures)

    @asynccontextmanager
    async def raises(
        self, type: type[BaseException] | tuple[type[BaseException], ...], match: str | None = None
    ) -> AsyncIterator[Expected]:
        """Expect a failure on the server's side: ``async with server.aio.raises(ValueError): ...``."""
        expected = self._server._expect_failure(type, match)
        try:
            yield expected
            await arrive(queries.failure(self._server, expected))
        finally:
            self._server._failures.unexpect(expected)

    def _streams(self, verb: str) -> StreamTestServer:
        if not hasattr(self._server, "accept"):
            raise AttributeError(
                f"a {self._server.transport} server has no {verb}(): it has datagrams, and next_request()"
            )
        return cast("StreamTestServer", self._server)


class AsyncRequest:
    """A request whose ``reply()`` is awaitable."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __repr__(self) -> str:
        return f"<AsyncRequest {self._request!r}>"

    async def reply(self, *parts: Part) -> None:
        """Say ``parts`` to whoever sent the request; return when the kernel has taken all of them.

        Arguments and errors are those of the request's own.
        """
        request = self._request
        connection = request.connection
        if connection is not None:
            checked = connection._checked_parts(parts, "reply()")
            await connection.aio._say(checked, request, connection._timeout)
        else:
            outlet = request._outlet_to_answer()
            await _say_datagrams(outlet.server, outlet.server._replying(outlet, request, parts))


async def _say_datagrams(server: DatagramTestServer, needs: Generator[Need, None, None]) -> None:
    """Say something on a server of datagrams, waiting in this coroutine for what it needs."""
    bell = _bell()
    try:
        for need in needs:
            with server._recorder.waking(bell.ring):
                while not need.over() and (left := need.left()) != 0.0:
                    if server._closing:
                        raise ServerStopping("the server stops")
                    await bell.wait(left)
    finally:
        needs.close()  # cancelled, it takes back what did not leave


class AsyncConnection:
    """A connection whose blocking verbs are awaitable; everything else is that of the connection itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __repr__(self) -> str:
        return repr(self._connection)

    def __str__(self) -> str:
        return str(self._connection)

    async def recv(self, n: int = 65536, *, timeout: float | None = None) -> bytes:
        """Return what has come, at most ``n`` bytes; wait for the first if need be."""
        return await self._drive("recv", self._connection._recv(n), timeout)

    async def recv_exactly(self, n: int, *, timeout: float | None = None) -> Request:
        """Return exactly ``n`` bytes, as one request."""
        return await self._drive("recv_exactly", self._connection._recv_exactly(n), timeout)

    async def recv_until(
        self, delimiter: bytes, *, max_bytes: int | None = None, timeout: float | None = None
    ) -> Request:
        """Return all bytes through ``delimiter``, as one request."""
        return await self._drive("recv_until", self._connection._recv_until(delimiter, max_bytes), timeout)

    async def recv_line(self, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        """Return the next line with its ending, as one request."""
        return await self._drive("recv_line", self._connection._recv_until(b"\n", max_bytes), timeout)

    async def recv_all(self, *, timeout: float | None = None) -> Request:
        """Return all that the client sends until it ends its stream, as one request."""
        return await self._drive("recv_all", self._connection._recv_all(), timeout)

    async def frames(self, framing: Framing | None = None) -> AsyncIterator[Request]:
        """Yield the frames that come, until the client ends its stream where one would begin."""
        self._connection._checked_framing("frames", framing)
        while True:
            try:
                frame = await self._drive("frames", self._connection._frame(framing), None)
            except IncompleteRequest:
                raise
            except EndOfStream:
                return
            yield frame

    async def rules(self, framing: Framing | None = None) -> None:
        """Answer by the server's rules from here on, in a thread of the server; return when the connection is over."""
        connection = self._connection
        connection._server._hand_to_rules(connection, framing)
        await arrive(queries.done(connection))

    async def expect(self, match: Match, *, timeout: float | None = None) -> Request:
        """Take exactly the bytes of a literal; fail at the first that differs; with a framing, a frame that matches."""
        return await self._drive("expect", self._connection._expect(match), timeout, wanted=match)

    async def expect_line(
        self, match: Match = ANY, *, ending: bytes | None = None, timeout: float | None = None
    ) -> Request:
        """Take a line, which ``match`` must match whole, without its ending; return it with its ending."""
        return await self._drive("expect_line", self._connection._expect_line(match, ending), timeout, wanted=match)

    async def expect_eof(self, *, timeout: float | None = None) -> None:
        """Wait for the client to end its stream."""
        steps = readers.expect_eof(self._connection._stream.buffer)
        await self._drive("expect_eof", steps, timeout, wanted="the end of the stream")

    async def expect_reset(self, *, timeout: float | None = None) -> None:
        """Wait for the client to reset the connection."""
        steps = readers.expect_reset(self._connection._stream.buffer)
        await self._drive("expect_reset", steps, timeout, wanted="a reset")

    async def send(self, *parts: Part, timeout: float | None = None) -> None:
        """Say the parts, from left to right; return when the kernel has taken all of them."""
        connection = self._connection
        checked = connection._checked_parts(parts, "send()")
        await self._say(checked, connection._latest, checked_timeout(timeout) or connection._timeout)

    async def send_eof(self) -> None:
        """End the server's half of the stream; the client may go on sending."""
        async with self._turn("send_eof()", _bell(), Deadline(self._connection._timeout)):
            self._connection._stream.send_eof()

    async def close(self, notify: bool = True) -> None:
        """Close cleanly; input that nobody read is discarded first, for at most 0.2 seconds."""
        connection = self._connection
        connection._stream.refuse_detached("close")
        if connection._driven_elsewhere():
            return connection._stream.close_from_outside()
        if connection._mode == "sunk":
            connection._server._read_no_more(connection)
        bell = _bell()
        async with self._turn("close()", bell, Deadline(connection._timeout)):
            steps = connection._stream.close(notify)
            try:
                for seconds in steps:
                    await self._ready(bell, False, seconds)
            finally:
                steps.close()  # cancelled, it closes all the same

    async def reset(self) -> None:
        """Reset the connection: the client gets what was sent so far, then ``ConnectionResetError``."""
        connection = self._connection
        connection._stream.refuse_detached("reset")
        if connection._driven_elsewhere() and connection._stream.can_reset:
            return connection._stream.reset_from_outside()
        bell = _bell()
        for seconds in connection._stream.reset():
            await bell.wait(seconds)

    async def start_tls(self, context: Context | None = None, *, timeout: float | None = None) -> None:
        """Start TLS as the server; return when the handshake is done."""
        connection = self._connection
        if connection._server._handshakes is not None:
            return await self.send(StartTLS(context), timeout=timeout)
        deadline = Deadline(checked_timeout(timeout) or connection._timeout)
        bell = _bell()
        for writes in connection._start_tls(context, deadline):
            await self._ready(bell, writes, deadline.left())

    async def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until either side has ended the connection."""
        with self._connection._read_meanwhile():
            await arrive(queries.closed(self._connection, timeout))

    async def wait_received(self, data: bytes, *, timeout: float | None = None) -> None:
        """Wait until ``data`` stands somewhere in what was received."""
        with self._connection._read_meanwhile():
            await arrive(queries.received(self._connection, data, timeout))

    async def _drive(self, verb: str, steps: Steps[T], timeout: float | None, *, wanted: object = None) -> T:
        """Drive a verb's steps from this coroutine: the same steps that a thread drives."""
        connection = self._connection
        deadline = Deadline(checked_timeout(timeout) or connection._timeout)
        connection._refuse_unreadable(verb)
        bell = _bell()
        with SingleReader(connection, verb):
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    return cast(T, done.value)
                connection._stream.await_more(connection._stream.socket_for("read"))
                pace = connection._fault_state.pace if connection._fault_state is not None else None
                size = CHUNK if pace is None else pace[0]
                while not connection._stream.receive(connection._stream.socket_for("read"), None, size):
                    if not deadline.left():
                        raise connection._late(verb, deadline, wanted)
                    connection._server._raise_early(verb)
                    with connection._tape.recorder.waking(bell.ring):  # by a failure on the server's side, too
                        await self._ready(bell, False, deadline.left())
                if pace is not None:
                    await self._await(bell, pause(pace[1]))

    async def _say(self, parts: tuple[Part, ...], request: Request | None, seconds: float) -> None:
        """Say parts when it is their turn, waiting in this coroutine for what they need."""
        bell = _bell()
        async with self._turn("send()", bell, Deadline(seconds)):
            for need in self._connection._needs(parts, request, seconds):
                await self._await(bell, need)

    async def _await(self, bell: Bell, need: Need) -> None:
        """Wait, in this coroutine, for what saying parts needs."""
        if need.kind is not PAUSE:
            return await self._ready(bell, need.kind is ROOM, need.left())
        tape = self._connection._tape
        with tape.recorder.waking(bell.ring):
            while not tape.cut and not need.over() and (left := need.left()) != 0.0:
                await bell.wait(left)
        self._connection._stream.socket_for("send on")

    @asynccontextmanager
    async def _turn(self, verb: str, bell: Bell, deadline: Deadline) -> AsyncIterator[None]:
        """Be the one who writes, while the block runs: sends of several tasks and threads do not mix."""
        turn, place = self._connection._writing, place_of_coroutine()
        with self._connection._tape.recorder.waking(bell.ring):
            while not turn.acquire(0, place or "a task"):
                if not deadline.left():
                    raise self._connection._late_turn(verb, deadline)
                await bell.wait(deadline.left())
        try:
            yield
        finally:
            turn.release()

    async def _ready(self, bell: Bell, write: bool, seconds: float | None) -> None:
        """Wait until the socket can be read or written, at most so long."""
        connection = self._connection
        sock = connection._stream.socket_for("wait on")
        if not write and getattr(sock, "pending", int)():
            return
        server = connection._server
        server._watch(sock, write, bell.ring)
        try:
            await bell.wait(seconds)
        finally:
            server._unwatch(bell.ring)
