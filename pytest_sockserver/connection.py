"""The verbs over one recorded stream: what a handler, a test or (through ``aio``) a coroutine says to one client.

A reading verb is a generator that yields when it needs more bytes (``scripting/reading.py``) and becomes a
request here.  Who drives it brings the waiting: a thread that polls under a deadline in this module, a
coroutine in ``aio``.

*``recv`` takes what comes, ``expect`` demands.*  The end of the stream where a unit would begin raises
:class:`EndOfStream`, which ends a handler quietly; within a unit it is :class:`IncompleteRequest`, a failure.

Deadlines: a handler waits for the *start* of its next unit without one, since a quiet keep-alive client
is no error and ``stop()`` ends the wait.  Everything else has one: the rest of a unit, every ``expect``,
every send, and all that a test itself waits for.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from . import questions, transcript
from .captured import Request
from .checks import checked_delimiter, checked_index, checked_line, checked_literal, checked_size, checked_timeout
from .deadline import Deadline
from .errors import THE_SERVER_STOPS, DeadlineExceeded, EndOfStream, IncompleteRequest, ScriptMismatch, WrongState
from .messages import format_peer, with_conversation
from .recording.events import RECEIVED, Event
from .recording.recorder import Tape
from .scripting import reading
from .scripting.matching import ANY, Match, shortened
from .scripting.parts import checked_parts
from .scripting.reading import Steps
from .stream import CHUNK, Stream
from .turns import Reading, Turn
from .waiting import block

if TYPE_CHECKING:
    import socket
    import ssl

    from .conversation import Handler
    from .stream_server import StreamTestServer

T = TypeVar("T")


class Connection:
    """The server's end of one stream.

    Made by the server and handed to a handler, or returned by ``accept()``; never made by hand.  One thread
    reads it; any may send, one send at a time.

    Attributes:
        index: 0 for the server's first connection.
        peer: The client's address, as ``accept`` gave it.
        state: An empty namespace for the user's own.
    """

    def __init__(self, tape: Tape, server: StreamTestServer) -> None:
        self.index = tape.index
        self.peer = tape.peer
        self.state = SimpleNamespace()
        self._tape = tape
        self._stream = Stream(tape)
        self._server = server
        self._timeout = server.timeout
        self._max_frame = server.options.max_frame
        # Who reads: "handled" by a handler's thread, "sunk" by the server's sink, "live" by the test.
        self._mode = "handled"
        self._handler: Handler | None = None
        self._thread: threading.Thread | None = None
        self._done = False  # its handler has ended, and the connection with it
        self._patient = True  # waits for the start of a unit without a deadline: a handler does, a test does not
        self._told_end = False  # recv() and recv_all() say b"" once, then raise
        self._writing = Turn(tape.recorder)  # guards the order of bytes on the wire: one send at a time
        self._reader = threading.Lock()  # held by the one reader
        self._guard: Callable[[str], None] = _nothing_to_refuse

    def __repr__(self) -> str:
        end = f"{self._tape.ended_how} by the {self.closed_by}" if self.closed_by else "open"
        return f"<Connection {self.index} from {format_peer(self.peer)}, {end}>"

    def __str__(self) -> str:
        return transcript.of_connection(self._tape, limit=None)

    # What was captured

    @property
    def received(self) -> bytes:
        """All bytes the client has sent, taken by a verb or not.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self._tape.joined("received")

    @property
    def sent(self) -> bytes:
        """All bytes the server has sent.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self._tape.joined("sent")

    @property
    def received_count(self) -> int:
        """How many bytes the client has sent, counted even past ``record_limit``."""
        return self._tape.received_count

    @property
    def sent_count(self) -> int:
        """How many bytes the server has sent, counted even past ``record_limit``."""
        return self._tape.sent_count

    @property
    def requests(self) -> list[Request]:
        """The requests of this connection, in order of arrival."""
        return [request for request in self._tape.recorder.kept_requests() if request.connection is self]

    @property
    def events(self) -> list[Event]:
        """Everything that happened, in order.

        Raises:
            RecordLimitExceeded: Not all of it was kept.
        """
        return self._tape.public_events()

    @property
    def closed_by(self) -> str | None:
        """``"client"`` or ``"server"``, whichever ended the connection first; ``None`` while it is open."""
        return self._tape.ended_by

    @property
    def tls(self) -> SimpleNamespace | None:
        """Once TLS was asked for: its ``version``, ``cipher`` and ``alpn``; ``error`` if the handshake failed."""
        return self._stream.tls

    # Reading

    def recv(self, n: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """Return what has come, at most ``n`` bytes; wait for the first if need be.  Not recorded as a request.

        Returns ``b""`` once when the client has ended its stream.

        Raises:
            EndOfStream: The end was told already.
            DeadlineExceeded: Nothing came in time; in a handler only if ``timeout`` was given.
        """
        __tracebackhide__ = True
        return self._drive("recv", self._recv(n), timeout)

    def recv_exactly(self, n: int, *, timeout: float | None = None) -> Request:
        """Return exactly ``n`` bytes, as one request; ``b""`` at once for 0, as a length prefix may say.

        Raises:
            EndOfStream: The client's stream was over before them; :class:`IncompleteRequest` within them.
            DeadlineExceeded: They did not come in time.
        """
        __tracebackhide__ = True
        return self._drive("recv_exactly", self._recv_exactly(n), timeout)

    def recv_until(self, delimiter: bytes, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        """Return all bytes through ``delimiter``, as one request.

        Args:
            max_bytes: More than so many without a delimiter is a failure; the server's ``max_frame`` unless given.

        Raises:
            EndOfStream: The client's stream was over before them; :class:`IncompleteRequest` within them.
            ScriptMismatch: There were ``max_bytes`` bytes and no delimiter among them.
            DeadlineExceeded: They did not come in time.
        """
        __tracebackhide__ = True
        return self._drive("recv_until", self._recv_until(delimiter, max_bytes), timeout)

    def recv_line(self, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        r"""Return the next line with its ending, as one request: all bytes through ``b"\n"``.

        Arguments and errors are those of :meth:`recv_until`.
        """
        __tracebackhide__ = True
        return self._drive("recv_line", self._recv_until(b"\n", max_bytes), timeout)

    def recv_all(self, *, timeout: float | None = None) -> Request:
        """Return all that the client sends until it ends its stream, as one request; ``b""`` if there was nothing."""
        __tracebackhide__ = True
        return self._drive("recv_all", self._recv_all(), timeout)

    # Expecting

    def expect(self, match: bytes, *, timeout: float | None = None) -> Request:
        """Take exactly the bytes ``match``, however segmented; fail at the first byte that differs.

        Raises:
            ScriptMismatch: Something else came, or the end of the stream.
            DeadlineExceeded: They did not come in time.
            TypeError: ``match`` is not bytes.  A pattern on a stream without frames would match or not
                depending on how the bytes happened to arrive; use :meth:`expect_line`.
        """
        __tracebackhide__ = True
        return self._drive("expect", self._expect(match), timeout, patient=False)

    def expect_line(self, match: Match = ANY, *, timeout: float | None = None) -> Request:
        r"""Take a line, which ``match`` must match whole, without its ending; return it with its ending.

        Args:
            match: Bytes, a compiled pattern of bytes, a predicate or ``ANY``.

        Raises:
            ScriptMismatch: Another line came, or the end of the stream.
            DeadlineExceeded: No line came in time.
        """
        __tracebackhide__ = True
        return self._drive("expect_line", self._expect_line(match), timeout, patient=False)

    def expect_eof(self, *, timeout: float | None = None) -> None:
        """Wait for the client to end its stream.

        Raises:
            ScriptMismatch: Bytes came instead.
            DeadlineExceeded: Neither came in time.
        """
        __tracebackhide__ = True
        return self._drive("expect_eof", reading.expect_eof(self._stream.buffer), timeout, patient=False)

    # Sending

    def send(self, *parts: bytes, timeout: float | None = None) -> None:
        """Send the parts, in order, in one write; return when the kernel has taken all of them.

        Raises:
            TypeError: A part is not bytes.
            ConnectionResetError, BrokenPipeError: The client is gone; this ends a handler quietly.
            DeadlineExceeded: The client did not read, and the kernel's buffers are full.
        """
        __tracebackhide__ = True
        self._guard("send")
        data = b"".join(checked_parts(parts, "send()"))
        deadline = Deadline(checked_timeout(timeout) or self._timeout)
        if not self._writing.acquire(deadline.left()):
            raise self._error(DeadlineExceeded, f"send() waited {deadline}: another send is under way")
        try:
            for _ in self._stream.send(data):
                if not self._stream.socket_for("send on").await_room(deadline.left()) and not deadline.left():
                    raise self._unread(data, deadline)
        finally:
            self._writing.release()

    def send_eof(self) -> None:
        """End the server's half of the stream; the client may go on sending.

        Over TLS this is ``close_notify`` and then the end (RFC 8446 section 6.1).  What the client sends
        afterwards may be lost there: Python's ``ssl`` reads while it says goodbye.
        """
        __tracebackhide__ = True
        self._guard("send_eof")
        with self._writing:
            self._stream.send_eof()

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
        __tracebackhide__ = True
        self._guard("close")
        if self._driven_elsewhere():
            return self._stream.close_from_outside()
        if self._mode == "sunk":
            self._server._read_no_more(self)
        with self._writing:
            for seconds in self._stream.close(notify):
                self._await_input(seconds)

    def reset(self) -> None:
        """Reset the connection: the client gets what was sent so far, then ``ConnectionResetError``.

        Waits at most 0.1 seconds for what was sent to reach the client's kernel; a client that does not
        read may lose the rest of it.

        Raises:
            ValueError: On a unix socket, which cannot be reset; use ``close()``.
        """
        __tracebackhide__ = True
        self._guard("reset")
        if self._driven_elsewhere() and self._stream.can_reset:
            return self._stream.reset_from_outside()
        for seconds in self._stream.reset():
            self._await_input(seconds)

    def _driven_elsewhere(self) -> bool:
        """Whether another thread reads or writes: it may stand in a call on the socket that we would close."""
        if self._mode == "handled":
            return not self._done and self._thread is not threading.current_thread()
        return self._reader.locked() or self._writing.locked()

    def _await_input(self, seconds: float) -> None:
        sock = self._tape.socket
        if sock is not None and sock.fileno() >= 0:
            sock.await_input(seconds)

    def detach(self) -> socket.socket:
        """Give the recorded socket away, blocking and without a time-out; the verbs are over.

        What it receives and sends is recorded as before; the server still shuts it down when it stops;
        whoever took it closes it.

        Raises:
            WrongState: Bytes were read ahead and not taken: they would be lost.
        """
        __tracebackhide__ = True
        return self._stream.detach()

    def start_tls(self, context: ssl.SSLContext, *, timeout: float | None = None) -> None:
        """Start TLS as the server, with a context of yours; return when the handshake is done.

        Raises:
            ScriptMismatch: The client had sent plain text already that was not read (STARTTLS injection,
                RFC 3207 section 4.2): it is refused, never carried over.
            ssl.SSLError: The handshake failed; ``tls.error`` has the reason.  A handler is ended by that, and
                it is no failure: a refused certificate may be what the test is about.
            DeadlineExceeded: The client did not finish the handshake in time.
        """
        __tracebackhide__ = True
        self._guard("start_tls")
        deadline = Deadline(checked_timeout(timeout) or self._timeout)
        for writes in self._start_tls(context, deadline):
            sock = self._stream.socket_for("start_tls on")
            (sock.await_room if writes else sock.await_input)(deadline.left())

    # Waiting for the whole connection

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until either side has ended the connection; ``closed_by`` then says which.

        Raises:
            DeadlineExceeded: Neither had in time.
        """
        __tracebackhide__ = True
        with self._read_meanwhile():
            block(questions.closed(self, timeout))

    def wait_received(self, data: bytes, *, timeout: float | None = None) -> None:
        """Wait until ``data`` stands somewhere in what was received, taken by a verb or not; takes nothing.

        Raises:
            DeadlineExceeded: It did not come in time.
            RecordLimitExceeded: Not all that was received was kept.
        """
        __tracebackhide__ = True
        with self._read_meanwhile():
            block(questions.received(self, data, timeout))

    # The verbs as steps: for a thread here, for a coroutine in aio

    def _recv(self, n: int) -> Steps[bytes]:
        __tracebackhide__ = True
        checked_size("recv", n)
        return self._or_end(reading.recv(self._stream.buffer, n))

    def _recv_exactly(self, n: int) -> Steps[Request]:
        __tracebackhide__ = True
        checked_index(n, "recv_exactly() expected a number of bytes, 0 or more", least=0)
        return self._unit(reading.recv_exactly(self._stream.buffer, n))

    def _recv_until(self, delimiter: bytes, max_bytes: int | None) -> Steps[Request]:
        __tracebackhide__ = True
        most = self._max_frame
        if max_bytes is not None:
            most = checked_index(max_bytes, "max_bytes must be at least 1", least=1)
        return self._unit(reading.recv_until(self._stream.buffer, checked_delimiter(delimiter), most))

    def _recv_all(self) -> Steps[Request]:
        return self._unit(self._or_end(reading.recv_all(self._stream.buffer)))

    def _expect(self, match: bytes) -> Steps[Request]:
        __tracebackhide__ = True
        return self._unit(reading.expect(self._stream.buffer, checked_literal(match)))

    def _expect_line(self, match: Match) -> Steps[Request]:
        __tracebackhide__ = True
        return self._matched_unit(reading.expect_line(self._stream.buffer, checked_line(match), self._max_frame))

    def _unit(self, steps: Steps[bytes]) -> Steps[Request]:
        __tracebackhide__ = True
        return self._request((yield from steps))

    def _matched_unit(self, steps: Steps[tuple[bytes, object]]) -> Steps[Request]:
        __tracebackhide__ = True
        line, found = yield from steps
        return self._request(line, found if isinstance(found, re.Match) else None)

    def _or_end(self, steps: Steps[bytes]) -> Steps[bytes]:
        """Say the end of the stream once; the second time is the quiet end of a handler's loop."""
        __tracebackhide__ = True
        data = yield from steps
        if not data:
            if self._told_end:
                raise reading.Ended("more")
            self._told_end = True
        return data

    def _request(self, data: bytes, match: re.Match[bytes] | None = None) -> Request:
        """Make what a verb took a request, recorded before it is returned and so before it can be answered."""
        recorder = self._tape.recorder
        request = Request(
            data, connection=self, peer=self.peer, time=recorder.elapsed(), match=match, answer=_answer_on_stream
        )
        if data:
            recorder.add_request(request)
        return request

    def _start_tls(self, context: ssl.SSLContext, deadline: Deadline) -> Iterator[bool]:
        __tracebackhide__ = True
        try:
            for writes in self._stream.start_tls(context):
                yield writes
                if not deadline.left():
                    text = f"start_tls() waited {deadline} for the client's handshake"
                    raise self._stream.handshake_failed(self._error(DeadlineExceeded, text))
        except ScriptMismatch as early:
            raise self._error(ScriptMismatch, str(early)) from None

    # Driving the steps from a thread

    def _drive(self, verb: str, steps: Steps[T], timeout: float | None, *, patient: bool = True) -> T:
        __tracebackhide__ = True
        self._guard(verb)
        checked_timeout(timeout)
        self._refuse_unreadable(verb)
        with Reading(self, verb):
            deadline = None if patient and self._patient and timeout is None else Deadline(timeout or self._timeout)
            while True:
                try:
                    begun = next(steps)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                if begun and deadline is None:
                    deadline = Deadline(self._timeout)
                self._fill(verb, deadline)

    def _refuse_unreadable(self, verb: str) -> None:
        __tracebackhide__ = True
        if self._stream.lost:
            with self._tape.recorder.lock:
                self._tape.recorder.check_complete("what was received before accept()")
        if self._mode == "sunk":
            raise WrongState(
                f"cannot {verb}() on connection {self.index}: it is read by its server, which has nothing declared; "
                "take it by accept() first, or look at its received"
            )

    def _fill(self, verb: str, deadline: Deadline | None) -> None:
        """Wait for what comes next, or for the end of the stream."""
        __tracebackhide__ = True
        while True:
            sock = self._stream.socket_for("read")
            if sock.await_input(None if deadline is None else deadline.left()):
                if self._stream.receive(sock):
                    return
            elif deadline is not None and not deadline.left():  # else a debugger gave it more time
                raise self._late(verb, deadline)

    def _explained(self, error: Exception) -> BaseException:
        """Return the user's exception for what the steps of a reading verb raised."""
        if isinstance(error, reading.Mismatch):
            mismatch: ScriptMismatch = self._error(ScriptMismatch, str(error))
            return mismatch
        if isinstance(error, reading.EndedWithin):
            got = shortened(bytes(self._stream.buffer))
            text = f"expected {error}\n  got {got}, and then the client {self._how_it_ended()}"
            incomplete: IncompleteRequest = self._error(IncompleteRequest, text)
            return incomplete
        text = f"{self._where()}: expected {error}, but the client {self._how_it_ended()}"
        self._stream.quiet_end = EndOfStream(text)
        return self._stream.quiet_end

    def _how_it_ended(self) -> str:
        return "reset the connection" if self._tape.peer_error else "ended its stream"

    # Messages

    def _where(self) -> str:
        return f"{self._server.name}, connection {self.index} ({format_peer(self.peer)})"

    def _error(self, kind: Any, text: str) -> Any:
        return with_conversation(kind, self._where(), text, transcript.so_far(self._tape))

    def _late(self, verb: str, deadline: Deadline) -> DeadlineExceeded:
        waiting = self._stream.buffer
        got = f"\n  got {shortened(bytes(waiting))}" if waiting else ", and nothing came"
        error: DeadlineExceeded = self._error(DeadlineExceeded, f"{verb}() waited {deadline}{got}")
        return error

    def _unread(self, data: bytes, deadline: Deadline) -> DeadlineExceeded:
        error: DeadlineExceeded = self._error(
            DeadlineExceeded,
            f"send() waited {deadline}: the client does not read, "
            f"and the kernel takes no more of the {len(data):,} bytes",
        )
        return error

    @contextmanager
    def _read_meanwhile(self) -> Iterator[None]:
        """Let the sink read a connection that the test drives, while the test only waits."""
        __tracebackhide__ = True
        if self._mode != "live" or self._stream.detached or not self._reader.acquire(blocking=False):
            yield
            return
        try:
            self._stream.take_the_rest()
            self._server._read_ahead(self)
            yield
        finally:
            self._server._read_no_more(self)
            self._reader.release()

    # For its server

    def _unread_by_verbs(self) -> bool:
        """Whether this is a live stream that no verb reads."""
        raw = self._mode == "sunk" or (self._handler is not None and self._handler.is_class)
        return raw and self._tape.ended_by is None

    def _may_be_answered(self) -> bool:
        """Whether the client, who may have ended its half, can still read a reply."""
        return self.closed_by is None or (self.closed_by == "client" and self._tape.ended_how == "closed")

    def _keep_whole_stream(self) -> None:
        """Make all that was received one request: that is what a stream is that no verb reads."""
        with self._tape.recorder.lock:
            if not self._tape.recorder.dropped and self._tape.received_count:
                self._request(self._tape.joined(RECEIVED))

    def _cut(self) -> None:
        """End it, because the server stops; what has arrived for a reader that is not reading is recorded first."""
        if self._mode != "handled" and self._reader.acquire(blocking=False):
            try:
                self._stream.take_the_rest()
            finally:
                self._reader.release()
        self._stream.cut(THE_SERVER_STOPS)

    def _finish(self) -> None:
        """Close what no thread of ours closes: connections of the sink and of the test."""
        if self._mode == "handled":
            return
        for _ in self._stream.close(notify=False):
            pass  # it was cut, so nothing is waited for
        if self._mode == "sunk" and not self._done and not self._stream.buffer.ended:  # else the sink has kept it
            self._keep_whole_stream()
        self._done = True


def _answer_on_stream(request: Request, *parts: bytes) -> None:
    __tracebackhide__ = True
    assert request.connection is not None
    request.connection.send(*parts)


def _nothing_to_refuse(verb: str) -> None:
    """Stand in for the check that a verb is not called in a coroutine: a handler's thread has no loop to block."""
