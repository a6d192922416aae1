"""Connections and requests with their blocking verbs awaitable, for asyncio and trio.

The same operations that a thread runs, run in the coroutine that awaits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import EndOfStream, IncompleteRequest
from ..errors.location import hide_frame, place_of_coroutine
from ..scripting.arguments import checked_index, checked_size, checked_timeout
from ..scripting.framing import Framing
from ..scripting.matching import ANY, Match
from ..scripting.parts import Part
from ..scripting.tls_effects import StartTLS
from ..scripting.verbs import (
    EXPECT_EOF,
    EXPECT_RESET,
    RECV_ALL,
    Expect,
    Frame,
    Recv,
    RecvExactly,
    Verb,
    expect_line,
    recv_line,
    recv_until,
)
from . import queries
from .deadline import Deadline
from .loops import arrive, run_in_loop
from .request import Request

if TYPE_CHECKING:
    from ..scripting.tls_effects import Context
    from .connection import Connection

__tracebackhide__ = hide_frame

# Rules of the awaitable face:
#
# - Each verb is one operation, awaited in the caller's own task.  There is no worker thread, so a cancellation arrives
#   where the operation yields, and a cancelled read has taken nothing.
# - A verb takes the ``Conversation``, and never calls its blocking namesake, which refuses a coroutine.
# - A check of arguments raises before the first wait.
# - ``what`` names the awaiting line for the error of another send that waits for the turn.  It is found before the run
#   begins, while the coroutine that awaits is on the stack.
# - Two tasks that read one connection are two readers: the second one gets the error that a second thread gets.
#
# Not here: ``detach`` and all that takes no time.  These are the blocking face's own, by ``__getattr__``.


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
        if request.connection is not None:
            conversation = request.connection.conversation
            checked = conversation.checked_parts(parts, "reply()")
            what = place_of_coroutine() or "a task"
            sending = conversation.sending(checked, request, conversation.timeout, what=what)
            await run_in_loop(sending, conversation)
        else:
            outlet = request.outlet_to_answer()
            await run_in_loop(outlet.replying(request, parts), outlet)


class AsyncConnection:
    """A connection whose blocking verbs are awaitable; everything else is that of the connection itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._conversation = connection.conversation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __repr__(self) -> str:
        return repr(self._connection)

    def __str__(self) -> str:
        return str(self._connection)

    async def recv(self, n: int = 65536, *, timeout: float | None = None) -> bytes:
        """Return what has come, at most ``n`` bytes; wait for the first if need be."""
        return await self._read(Recv(checked_size("recv", n)), timeout)  # type: ignore[no-any-return]

    async def recv_exactly(self, n: int, *, timeout: float | None = None) -> Request:
        """Return exactly ``n`` bytes, as one request."""
        checked_index(n, "recv_exactly() expected a number of bytes, 0 or more", least=0)
        return await self._read(RecvExactly(n), timeout)  # type: ignore[no-any-return]

    async def recv_until(
        self, delimiter: bytes, *, max_bytes: int | None = None, timeout: float | None = None
    ) -> Request:
        """Return all bytes through ``delimiter``, as one request."""
        return await self._read(recv_until(delimiter, max_bytes), timeout)  # type: ignore[no-any-return]

    async def recv_line(self, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        """Return the next line with its ending, as one request."""
        return await self._read(recv_line(max_bytes), timeout)  # type: ignore[no-any-return]

    async def recv_all(self, *, timeout: float | None = None) -> Request:
        """Return all that the client sends until it ends its stream, as one request."""
        return await self._read(RECV_ALL, timeout)  # type: ignore[no-any-return]

    async def frames(self, framing: Framing | None = None) -> AsyncIterator[Request]:
        """Yield the frames that come, until the client ends its stream where one would begin."""
        conversation = self._conversation
        conversation.checked_framing("frames", framing)
        # The framing is asked for with each frame: what is said between two frames may have switched it.
        while True:
            try:
                frame = await self._read(Frame(conversation.checked_framing("frames", framing)), None)
            except IncompleteRequest:
                raise
            except EndOfStream:
                return
            yield frame

    async def rules(self, framing: Framing | None = None) -> None:
        """Answer by the server's rules from here on, in a thread of the server; return when the connection is over."""
        conversation = self._conversation
        conversation.context.hand_to_rules(conversation, framing)
        await arrive(queries.done(conversation))

    async def expect(self, match: Match, *, timeout: float | None = None) -> Request:
        """Take exactly the bytes of a literal; fail at the first that differs; with a framing, a frame that matches."""
        return await self._read(Expect(self._conversation.checked_match(match)), timeout)  # type: ignore[no-any-return]

    async def expect_line(
        self, match: Match = ANY, *, ending: bytes | None = None, timeout: float | None = None
    ) -> Request:
        """Take a line, which ``match`` must match whole, without its ending; return it with its ending."""
        return await self._read(expect_line(match, ending), timeout)  # type: ignore[no-any-return]

    async def expect_eof(self, *, timeout: float | None = None) -> None:
        """Wait for the client to end its stream."""
        await self._read(EXPECT_EOF, timeout)

    async def expect_reset(self, *, timeout: float | None = None) -> None:
        """Wait for the client to reset the connection."""
        await self._read(EXPECT_RESET, timeout)

    async def send(self, *parts: Part, timeout: float | None = None) -> None:
        """Say the parts, from left to right; return when the kernel has taken all of them."""
        conversation = self._conversation
        checked = conversation.checked_parts(parts, "send()")
        seconds = checked_timeout(timeout) or conversation.timeout
        what = place_of_coroutine() or "a task"
        await run_in_loop(conversation.sending(checked, conversation.latest, seconds, what=what), conversation)

    async def send_eof(self) -> None:
        """End the server's half of the stream; the client may go on sending."""
        conversation = self._conversation
        await run_in_loop(conversation.ending_half(place_of_coroutine() or "a task"), conversation)

    async def close(self, notify: bool = True) -> None:
        """Close cleanly; input that nobody read is discarded first, for at most 0.2 seconds."""
        await run_in_loop(self._conversation.closing(notify), self._conversation)

    async def reset(self) -> None:
        """Reset the connection: the client gets what was sent so far, then ``ConnectionResetError``."""
        await run_in_loop(self._conversation.resetting(), self._conversation)

    async def start_tls(self, context: Context | None = None, *, timeout: float | None = None) -> None:
        """Start TLS as the server; return when the handshake is done."""
        conversation = self._conversation
        # With rules for handshakes it is a part, which the rules may answer in another way.
        if conversation.context.handshakes is not None:
            return await self.send(StartTLS(context), timeout=timeout)
        deadline = Deadline(checked_timeout(timeout) or conversation.timeout)
        await run_in_loop(conversation.starting_tls(context, deadline), conversation)

    async def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until either side has ended the connection."""
        with self._conversation.read_meanwhile():
            await arrive(queries.closed(self._conversation, timeout))

    async def wait_received(self, data: bytes, *, timeout: float | None = None) -> None:
        """Wait until ``data`` stands somewhere in what was received."""
        with self._conversation.read_meanwhile():
            await arrive(queries.received(self._conversation, data, timeout))

    async def _read(self, verb: Verb, timeout: float | None) -> Any:
        return await run_in_loop(self._conversation.reading(verb, timeout), self._conversation)
