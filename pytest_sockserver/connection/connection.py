"""One client's connection, as a handler or a test has it: the blocking face of a conversation.

*``recv`` takes what comes, ``expect`` demands.*  The end of the stream where a unit would begin raises
:class:`EndOfStream`, which ends a handler quietly; within a unit it is :class:`IncompleteRequest`, a failure.

Deadlines: a handler waits for the *start* of its next unit without one, since a quiet keep-alive client
is no error and ``stop()`` ends the wait.  Everything else has one: the rest of a unit, every ``expect``,
every send, and all that a test itself waits for.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ..errors.exceptions import EndOfStream, IncompleteRequest
from ..errors.location import hide_frame
from ..recording.events import Event
from ..scripting.arguments import checked_index, checked_size, checked_timeout
from ..scripting.framing import Framing, checked_framing
from ..scripting.matching import ANY, Match
from ..scripting.parts import Part
from ..scripting.tls_effects import StartTLS
from ..scripting.verbs import (
    EXPECT_EOF,
    EXPECT_RESET,
    RECV_ALL,
    RECV_LINE,
    Expect,
    Frame,
    Recv,
    RecvExactly,
    expect_line,
    recv_line,
    recv_until,
)
from ..transport.stream import CHUNK
from . import queries, transcript
from .deadline import Deadline
from .queries import block
from .request import Request
from .runners import run_in_thread

if TYPE_CHECKING:
    import socket

    from ..scripting.tls_effects import Context
    from .aio import AsyncConnection
    from .conversation import Conversation

__tracebackhide__ = hide_frame


_RECV = Recv(CHUNK)


class Connection:
    """The server's end of one stream.

    Made by the server and handed to a handler, or returned by ``accept()``; never made by hand.  One thread
    reads it; any may send, one send at a time.

    Attributes:
        index: 0 for the server's first connection.
        peer: The client's address, as ``accept`` gave it.
        local_address: The address that the client connected to: a pair of host and port, or a unix socket's path.
            On a server that listens on all addresses it is the one that the client chose.
        state: An empty namespace for the user's own.
        captured: What patterns and ``Hex`` have captured on this connection, by name; the latest counts.
        conversation: What the package itself holds of it; nothing for a test.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.index, self.peer, self.local_address = conversation.index, conversation.peer, conversation.local_address
        self.state, self.captured = conversation.state, conversation.captured

    def __repr__(self) -> str:
        return repr(self.conversation)

    def __str__(self) -> str:
        return transcript.of_connection(self.conversation.tape, limit=None)

    @property
    def aio(self) -> AsyncConnection:
        """The same connection with its blocking verbs awaitable, for asyncio and trio, whatever drives it."""
        from .aio import AsyncConnection

        return AsyncConnection(self)

    # Reading

    def recv(self, n: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """Return what has come, at most ``n`` bytes; wait for the first if need be.  Not recorded as a request.

        Returns ``b""`` once when the client has ended its stream.

        Raises:
            EndOfStream: The end was told already.
            DeadlineExceeded: Nothing came in time; in a handler only if ``timeout`` was given.
        """
        verb = _RECV if n == CHUNK else Recv(checked_size("recv", n))
        return self.conversation.read(verb, timeout)  # type: ignore[no-any-return]

    def recv_exactly(self, n: int, *, timeout: float | None = None) -> Request:
        """Return exactly ``n`` bytes, as one request; ``b""`` at once for 0, as a length prefix may say.

        Raises:
            EndOfStream: The client's stream was over before them; :class:`IncompleteRequest` within them.
            DeadlineExceeded: They did not come in time.
        """
        checked_index(n, "recv_exactly() expected a number of bytes, 0 or more", least=0)
        return self.conversation.read(RecvExactly(n), timeout)  # type: ignore[no-any-return]

    def recv_until(self, delimiter: bytes, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        """Return all bytes through ``delimiter``, as one request.

        Args:
            max_bytes: More than so many without a delimiter is a failure; the server's ``max_frame`` unless given.

        Raises:
            EndOfStream: The client's stream was over before them; :class:`IncompleteRequest` within them.
            ScriptMismatch: There were ``max_bytes`` bytes and no delimiter among them.
            DeadlineExceeded: They did not come in time.
        """
        return self.conversation.read(recv_until(delimiter, max_bytes), timeout)  # type: ignore[no-any-return]

    def recv_line(self, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        r"""Return the next line with its ending, as one request: all bytes through ``b"\n"``.

        Arguments and errors are those of :meth:`recv_until`.
        """
        verb = RECV_LINE if max_bytes is None else recv_line(max_bytes)
        return self.conversation.read(verb, timeout)  # type: ignore[no-any-return]

    def recv_all(self, *, timeout: float | None = None) -> Request:
        """Return all that the client sends until it ends its stream, as one request; ``b""`` if there was nothing."""
        return self.conversation.read(RECV_ALL, timeout)  # type: ignore[no-any-return]

    def frames(self, framing: Framing | None = None) -> Iterator[Request]:
        """Yield the frames that come, each as one request, until the client ends its stream where one would begin.

        Args:
            framing: Another framing than the connection's own.

        Raises:
            TypeError: There is no framing.
            IncompleteRequest: The client ended its stream within a frame.
            ScriptMismatch: A frame is longer than the server's ``max_frame``, or is none.
        """
        self.conversation.checked_framing("frames", framing)
        return self._each_frame(framing)

    def rules(self, framing: Framing | None = None) -> None:
        """Answer by the server's rules from here on; return when the client has ended its stream, or a rule has.

        Args:
            framing: Another framing than the connection's, which takes its place.

        Raises:
            UnexpectedRequest: No rule takes a request.
            TypeError: A rule needs frames, and there is no framing.
        """
        conversation = self.conversation
        conversation.refuse("rules")
        conversation.framing = checked_framing(framing, conversation.max_frame) or conversation.framing
        conversation.answer_by_rules(conversation)

    # Expecting

    def expect(self, match: Match, *, timeout: float | None = None) -> Request:
        """Take exactly the bytes of a literal, however segmented, and fail at the first that differs.

        With a framing ``match`` may be a pattern, a predicate or ``ANY`` as well: it must match the next frame whole.

        Raises:
            ScriptMismatch: Something else came, or the end of the stream.
            DeadlineExceeded: It did not come in time.
            TypeError: ``match`` is no literal, and there is no framing.  On a stream without frames a pattern would
                match or not depending on how the bytes happened to arrive; :meth:`expect_line` has a unit.
        """
        return self.conversation.read(Expect(self.conversation.checked_match(match)), timeout)  # type: ignore[no-any-return]

    def expect_line(self, match: Match = ANY, *, ending: bytes | None = None, timeout: float | None = None) -> Request:
        r"""Take a line, which ``match`` must match whole, without its ending; return it with its ending.

        Args:
            match: Bytes, a compiled pattern of bytes, ``Hex``, ``Text``, a predicate or ``ANY``.
            ending: What the line must end in; ``b"\n"`` with or without ``b"\r"`` before it, unless given.

        Raises:
            ScriptMismatch: Another line came, or the end of the stream.
            DeadlineExceeded: No line came in time.
        """
        return self.conversation.read(expect_line(match, ending), timeout)  # type: ignore[no-any-return]

    def expect_eof(self, *, timeout: float | None = None) -> None:
        """Wait for the client to end its stream.

        Raises:
            ScriptMismatch: Bytes came instead.
            DeadlineExceeded: Neither came in time.
        """
        self.conversation.read(EXPECT_EOF, timeout)

    def expect_reset(self, *, timeout: float | None = None) -> None:
        """Wait for the client to reset the connection.

        Raises:
            ScriptMismatch: Bytes came instead, or the end of the stream.
            DeadlineExceeded: Nothing came in time.
        """
        self.conversation.read(EXPECT_RESET, timeout)

    # Sending

    def send(self, *parts: Part, timeout: float | None = None) -> None:
        """Say the parts, from left to right; return when the kernel has taken all of them.

        Bytes that follow one another leave in one write.  A function among the parts is called with the latest request.

        Raises:
            TypeError, ValueError: A part is none, or can never be reached.
            UnsupportedFault: The transport cannot do a part.
            ConnectionResetError, BrokenPipeError: The client is gone; this ends a handler quietly.
            DeadlineExceeded: The client did not read, and the kernel's buffers are full; or a gate was not opened.
            BlockingCallInCoroutine: In a coroutine, where a part takes time, the test accepted the connection, or there
                was no room for 0.1 seconds in all, or another send was under way for as long:
                ``await connection.aio.send(...)``.
        """
        conversation = self.conversation
        if conversation.mode == "live":
            conversation.refuse("send")
        seconds = conversation.timeout if timeout is None else checked_timeout(timeout) or 0.0
        if len(parts) != 1 or not isinstance(parts[0], bytes):
            parts = conversation.checked_parts(parts, "send()")
        conversation.send_in_thread(parts, conversation.latest, seconds)

    def send_eof(self) -> None:
        """End the server's half of the stream; the client may go on sending.

        Over TLS this is ``close_notify`` and then the end (RFC 8446 section 6.1).  What the client sends
        afterwards may be lost there: Python's ``ssl`` reads while it says goodbye.
        """
        conversation = self.conversation
        if conversation.mode == "live":
            conversation.refuse("send_eof")
        run_in_thread(conversation.ending_half(), conversation, conversation.refusal("send_eof"))

    # Ending

    def close(self, notify: bool = True) -> None:
        """Close cleanly: the client reads what was sent, then the end of the stream.

        Input that nobody read is discarded first, for at most 0.2 seconds: over unread input a close
        would be a reset.  Closing what another thread drives, a handler's connection from the test, ends
        that thread's reading and sending by :class:`ServerStopping`, and a handler quietly.

        Args:
            notify: Over TLS, send ``close_notify`` first (RFC 8446 section 6.1).  ``False`` is what a
                truncation attack looks like.
        """
        conversation = self.conversation
        conversation.stream.refuse_detached("close")
        if conversation.may_wait_to_end():
            conversation.refuse("close")
        run_in_thread(conversation.closing(notify), conversation)

    def reset(self) -> None:
        """Reset the connection: the client gets what was sent so far, then ``ConnectionResetError``.

        Waits at most 0.1 seconds for what was sent to reach the client's kernel; a client that does not
        read may lose the rest of it.

        Raises:
            UnsupportedFault: On a unix socket, which cannot be reset; use ``close()``.
        """
        conversation = self.conversation
        conversation.stream.refuse_detached("reset")
        if conversation.may_wait_to_end():
            conversation.refuse("reset")
        run_in_thread(conversation.resetting(), conversation)

    def detach(self) -> socket.socket:
        """Return the recorded socket, blocking and without a time-out, to a new owner, which closes it.

        The verbs that read, send or end raise ``InvalidState`` from now on; what was captured, and the waits, go on.
        What the socket receives and sends is recorded, and is no request.  Injections do not reach it.  A handler
        may return and leave the connection open; one that raises resets it.  ``disconnect()`` and the server's stop
        shut the socket down and leave closing it to the owner, whose reading raises ``ServerStopping`` then.

        What was received already, and no verb has returned, the socket returns first.  ``select()``, ``poll()`` and
        ``MSG_PEEK`` do not see those bytes, and ``MSG_WAITALL`` does not wait for more than them; a library that waits
        for the socket to become readable must receive them before it waits, or the test must, by ``conn.recv()``.

        Does not block.  On TLS the socket is an ``ssl.SSLSocket``.

        Raises:
            InvalidState: The connection is closed or detached already, was not accepted yet, or another thread drives
                it.
            RecordLimitExceeded: Bytes came before ``accept()`` that were not kept.
        """
        return self.conversation.detach()

    def start_tls(self, context: Context | None = None, *, timeout: float | None = None) -> None:
        """Start TLS as the server; return after the handshake.

        Args:
            context: An ``ssl.SSLContext``, a ``TLS`` or a ``Certificate``; the server's ``tls=`` unless given.

        Raises:
            ValueError: There is no context.
            ScriptMismatch: The client had sent plain text already that was not read (STARTTLS injection,
                RFC 3207 section 4.2): it is refused, never carried over.
            ssl.SSLError: The handshake failed; ``tls.error`` has the reason.  A handler is ended by that, and
                it is no failure: a refused certificate may be what the test is about.
            DeadlineExceeded: The client did not finish the handshake in time.
        """
        conversation = self.conversation
        conversation.refuse("start_tls")
        seconds = conversation.timeout if timeout is None else checked_timeout(timeout) or 0.0
        if conversation.context.handshakes is not None:
            return conversation.send_in_thread((StartTLS(context),), conversation.latest, seconds)
        run_in_thread(conversation.starting_tls(context, Deadline(seconds)), conversation)

    # Waiting for the whole connection

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until either side has ended the connection; ``closed_by`` then says which.

        Raises:
            DeadlineExceeded: Neither had in time.
        """
        self.conversation.refuse("wait_closed")
        with self.conversation.read_meanwhile():
            block(queries.closed(self.conversation, timeout))

    def wait_received(self, data: bytes, *, timeout: float | None = None) -> None:
        """Wait until ``data`` stands somewhere in what was received, taken by a verb or not; takes nothing.

        Raises:
            DeadlineExceeded: It did not come in time.
            RecordLimitExceeded: Not all that was received was kept.
        """
        self.conversation.refuse("wait_received")
        with self.conversation.read_meanwhile():
            block(queries.received(self.conversation, data, timeout))

    # What was captured

    @property
    def received(self) -> bytes:
        """All bytes the client has sent, taken by a verb or not.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self.conversation.tape.joined("received")

    @property
    def sent(self) -> bytes:
        """All bytes the server has sent.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self.conversation.tape.joined("sent")

    @property
    def received_count(self) -> int:
        """How many bytes the client has sent, counted even past ``record_limit``."""
        return self.conversation.tape.received_count

    @property
    def sent_count(self) -> int:
        """How many bytes the server has sent, counted even past ``record_limit``."""
        return self.conversation.tape.sent_count

    @property
    def requests(self) -> list[Request]:
        """The requests of this connection, in order of arrival."""
        kept = self.conversation.tape.recorder.kept_requests(self.conversation.tape)
        # Those of a server that is gone do not hold their connection any more.
        return [each if each.connection is not None else each.of(self) for each in kept]

    @property
    def events(self) -> list[Event]:
        """Everything that happened, in order.

        Raises:
            RecordLimitExceeded: Not all of it was kept.
        """
        return self.conversation.tape.public_events()

    @property
    def closed_by(self) -> str | None:
        """``"client"`` or ``"server"``, whichever ended the connection first; ``None`` while it is open."""
        return self.conversation.tape.ended_by

    @property
    def tls(self) -> SimpleNamespace | None:
        """Once TLS was asked for, what came of it.

        ``version``, ``cipher``, ``alpn``; ``resumed``, whether the handshake resumed an earlier session;
        ``server_name``, what the client asked for (of contexts made here); ``certificate``, the client's, as
        ``getpeercert()`` returns it; and ``error``, why the handshake failed.
        """
        return self.conversation.stream.tls

    @property
    def framing(self) -> Framing | None:
        """Where one frame ends and the next begins: the server's, as it was when the connection came.

        Set it to switch within the connection, from the next frame on.
        """
        return self.conversation.framing

    @framing.setter
    def framing(self, framing: Framing | None) -> None:
        conversation = self.conversation
        conversation.framing = checked_framing(framing, conversation.max_frame)

    # Within

    def _each_frame(self, framing: Framing | None) -> Iterator[Request]:
        conversation = self.conversation
        while True:
            try:
                frame = conversation.read(Frame(conversation.checked_framing("frames", framing)))
            except IncompleteRequest:
                raise
            except EndOfStream:
                return
            yield frame
