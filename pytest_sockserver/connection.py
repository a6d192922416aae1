"""The verbs over one recorded stream: what a handler, a test or (through ``aio``) a coroutine says to one client.

A reading verb is written once, as a generator that yields when it needs more bytes and returns what it
took; it knows nothing of sockets or time.  Who drives it brings the waiting: here a thread that polls
under a deadline, in ``aio`` a coroutine.  So each verb is linear in the bytes however they arrive, and means
the same everywhere.

*``recv`` takes what comes, ``expect`` demands.*  The end of the stream where a unit would begin raises
:class:`EndOfStream`, which ends a handler quietly; within a unit it is :class:`IncompleteRequest`, a failure.

Deadlines: a handler waits for the *start* of its next unit without one, since a quiet keep-alive client
is no error and ``stop()`` ends the wait.  Everything else has one: the rest of a unit, every ``expect``,
every send, and all that a test itself waits for.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from . import transcript
from .captured import Request
from .checks import checked_delimiter, checked_literal, checked_size, checked_timeout
from .deadline import Deadline
from .errors import (
    DeadlineExceeded,
    EndOfStream,
    IncompleteRequest,
    ScriptMismatch,
    ServerStopping,
    WrongState,
)
from .messages import format_peer, indented, shortened
from .recording.events import CLOSE, NOTE, RECEIVED, RESET, SEND_EOF, Event
from .recording.recorder import PARKED, Tape
from .recording.sockets import Taped, cut, hard_close, ready, unacknowledged, unread
from .recording.sockets import start_tls as wrap_tls
from .scripting.buffer import Buffer
from .scripting.matching import ANY, Match, checked_match, described, difference, matches
from .scripting.parts import checked_parts
from .waiting import PENDING, Wait, block

if TYPE_CHECKING:
    import ssl

    from .conversation import Handler
    from .stream_server import StreamTestServer

T = TypeVar("T")
Steps = Generator[bool, None, T]  # yields whether a unit has begun, each time it needs more input

_CHUNK = 65536  # bytes asked of the kernel at once: more than a loopback segment, so one call takes a burst

#: Seconds.  A reset waits so long for what was sent before it to reach the client's kernel.
RESET_PATIENCE = 0.1

#: Seconds.  A clean close discards input that was never read for so long, waiting for the client's end of
#: stream: closing over unread input would be a reset, and destroy the reply that is still on its way.
LINGER = 0.2


class Connection:
    """The server's end of one stream.

    Made by the server and handed to a handler, or returned by ``accept()``; never made by hand.

    Attributes:
        index: 0 for the server's first connection.
        peer: The client's address, as ``accept`` gave it.
        state: An empty namespace for the user's own.
        tls: Once TLS was asked for: its ``version``, ``cipher``, ``alpn`` and, if the handshake failed, ``error``.
    """

    def __init__(self, tape: Tape, server: StreamTestServer) -> None:
        self.index = tape.index
        self.peer = tape.peer
        self.state = SimpleNamespace()
        self.tls: SimpleNamespace | None = None
        self._tape = tape
        self._server = server
        self._timeout = server.timeout
        self._max_frame = server.options.max_frame
        # Who reads: "handled" by a handler's thread, "sunk" by the server's sink, "live" by the test.
        self._mode = "handled"
        self._handler: Handler | None = None
        self._thread: threading.Thread | None = None
        self._done = False  # its handler has ended, and the connection with it
        self._detached = False
        self._buffer = Buffer()
        self._patient = True  # waits for the start of a unit without a deadline: a handler does, a test does not
        self._told_end = False  # recv() and recv_all() say b"" once, then raise
        self._quiet_end: BaseException | None = None  # what ends a handler without being its failure
        self._writing = threading.RLock()  # guards the order of bytes on the wire: one send at a time
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
        """All bytes the client has sent, read by a verb or not."""
        return self._tape.joined("received")

    @property
    def sent(self) -> bytes:
        """All bytes the server has sent."""
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
        """Everything that happened, in order."""
        return self._tape.public_events()

    @property
    def closed_by(self) -> str | None:
        """``"client"`` or ``"server"``, whichever ended the connection first; ``None`` while it is open."""
        return self._tape.ended_by

    # Reading

    def recv(self, n: int = _CHUNK, *, timeout: float | None = None) -> bytes:
        """Return what has come, at most ``n`` bytes; wait for the first if need be.  Not recorded as a request.

        Returns ``b""`` once when the client has ended its stream.

        Raises:
            EndOfStream: The end was told already.
            DeadlineExceeded: Nothing came in time; in a handler only if ``timeout`` was given.
        """
        __tracebackhide__ = True
        return self._drive("recv", self._recv(checked_size("recv", n)), timeout)

    def recv_exactly(self, n: int, *, timeout: float | None = None) -> Request:
        """Return exactly ``n`` bytes, as one request.

        Raises:
            EndOfStream: The client's stream was over before them; :class:`IncompleteRequest` within them.
            DeadlineExceeded: They did not come in time.
        """
        __tracebackhide__ = True
        return self._drive("recv_exactly", self._recv_exactly(checked_size("recv_exactly", n)), timeout)

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
        steps = self._recv_until(checked_delimiter(delimiter), max_bytes or self._max_frame)
        return self._drive("recv_until", steps, timeout)

    def recv_line(self, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        r"""Return the next line with its ending, as one request: all bytes through ``b"\n"``.

        Arguments and errors are those of :meth:`recv_until`.
        """
        __tracebackhide__ = True
        return self._drive("recv_line", self._recv_until(b"\n", max_bytes or self._max_frame), timeout)

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
        return self._drive("expect", self._expect(checked_literal(match)), timeout, patient=False)

    def expect_line(self, match: Match = ANY, *, timeout: float | None = None) -> Request:
        r"""Take a line, which ``match`` must match whole, without its ending; return it with its ending.

        Args:
            match: Bytes, a compiled pattern of bytes, a predicate or ``ANY``.

        Raises:
            ScriptMismatch: Another line came, or the end of the stream.
            DeadlineExceeded: No line came in time.
        """
        __tracebackhide__ = True
        return self._drive("expect_line", self._expect_line(checked_match(match)), timeout, patient=False)

    def expect_eof(self, *, timeout: float | None = None) -> None:
        """Wait for the client to end its stream.

        Raises:
            ScriptMismatch: Bytes came instead.
            DeadlineExceeded: Neither came in time.
        """
        __tracebackhide__ = True
        return self._drive("expect_eof", self._expect_eof(), timeout, patient=False)

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
        with self._writing:
            self._write(data, deadline)

    def send_eof(self) -> None:
        """End the server's half of the stream; the client may go on sending."""
        sock = self._open_socket("send_eof")
        with self._writing:
            self._tape.note(SEND_EOF)
            try:
                self._say_goodbye()
                sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                raise self._lost(error) from None

    # Ending

    def close(self, notify: bool = True) -> None:
        """Close cleanly: the client reads what was sent, then the end of the stream.

        Input that nobody read is discarded first, for at most 0.2 seconds: over unread input a close
        would be a reset.

        Args:
            notify: Over TLS, send ``close_notify`` first (RFC 8446 section 6.1).  ``False`` is what a
                truncation attack looks like.
        """
        tape = self._tape
        with tape.lock:
            sock = tape.socket
            if sock is None or sock.fileno() < 0:
                return
            # Noted before the end of the stream leaves, as everything is that the client can see.
            tape.note(CLOSE)
        with self._writing:
            try:
                if notify:
                    self._say_goodbye()
                if not tape.cut and not tape.client_ended and unread(sock):
                    sock.shutdown(socket.SHUT_WR)
                    self._discard(sock)
            except OSError:
                pass  # the client was faster
        sock.close()

    def reset(self) -> None:
        """Reset the connection: the client gets what was sent so far, then ``ConnectionResetError``.

        Waits at most 0.1 seconds for what was sent to reach the client's kernel; a client that does not
        read may lose the rest of it.

        Raises:
            ValueError: On a unix socket, which cannot be reset; use ``close()``.
        """
        if not self.can_reset:
            raise ValueError("a unix stream cannot be reset: its client would see a plain end of stream; use close()")
        tape = self._tape
        sock = tape.socket
        until = monotonic() + RESET_PATIENCE
        while sock is not None and sock.fileno() >= 0 and unacknowledged(sock) and monotonic() < until:
            ready(sock, False, 0.001)  # one millisecond, or whatever the client says meanwhile
        self._reset_now()

    @property
    def can_reset(self) -> bool:
        """Whether the transport has a reset: TCP has, unix streams have not."""
        sock = self._tape.socket
        return sock is None or sock.family != getattr(socket, "AF_UNIX", None)

    def detach(self) -> socket.socket:
        """Give the recorded socket away, blocking and without a time-out; the verbs are over.

        What was read ahead and not taken stays recorded, but is not in the socket any more: detach before
        reading, or after all that was announced.  The server still shuts it down when it stops; whoever
        took it closes it.

        Raises:
            WrongState: Bytes were read ahead: they would be lost.
        """
        __tracebackhide__ = True
        sock = self._open_socket("detach")
        if len(self._buffer):
            raise WrongState(
                f"cannot detach() connection {self.index}: {len(self._buffer)} bytes were read ahead and not taken "
                f"yet: {shortened(bytes(self._buffer))}; take them first"
            )
        sock.settimeout(None)
        self._tape.state = PARKED
        self._detached = True
        return sock

    def start_tls(self, context: ssl.SSLContext, *, timeout: float | None = None) -> None:
        """Start TLS as the server, with a context of yours; return when the handshake is done.

        Raises:
            ScriptMismatch: The client had sent plain text already that was not read (STARTTLS injection,
                RFC 3207 section 4.2): it is refused, never carried over.
            ssl.SSLError: The handshake failed; the connection is recorded with the reason.
            DeadlineExceeded: The client did not finish the handshake in time.
        """
        __tracebackhide__ = True
        self._guard("start_tls")
        deadline = Deadline(checked_timeout(timeout) or self._timeout)
        for writes in self._start_tls(context, deadline):
            sock = self._open_socket("start_tls")
            (sock.await_room if writes else sock.await_input)(deadline.left())

    # Waiting for the whole connection

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until either side has ended the connection; ``closed_by`` then says which.

        Raises:
            DeadlineExceeded: Neither had in time.
        """
        __tracebackhide__ = True
        with self._read_meanwhile():
            block(self._wait_closed(timeout))

    def wait_received(self, data: bytes, *, timeout: float | None = None) -> None:
        """Wait until ``data`` stands somewhere in what was received, taken by a verb or not; takes nothing.

        Raises:
            DeadlineExceeded: It did not come in time.
            RecordLimitExceeded: Not all that was received was kept.
        """
        __tracebackhide__ = True
        with self._read_meanwhile():
            block(self._wait_received(data, timeout))

    @contextmanager
    def _read_meanwhile(self) -> Iterator[None]:
        """Let the sink read a connection that the test drives, while the test only waits."""
        if self._mode != "live" or self._detached or not self._reader.acquire(blocking=False):
            yield
            return
        try:
            self._server._read_ahead(self)
            yield
        finally:
            self._server._read_no_more(self)
            self._reader.release()

    def _wait_closed(self, timeout: float | None) -> Wait[None]:
        def late(deadline: Deadline) -> None:
            __tracebackhide__ = True
            raise DeadlineExceeded(self._told_as(f"wait_closed() waited {deadline.seconds:g} s: still open"))

        return self._server._wait(
            "wait_closed", lambda: None if self._tape.ended_by is not None else PENDING, timeout, late
        )

    def _wait_received(self, data: bytes, timeout: float | None) -> Wait[None]:
        wanted, seen, tail = checked_literal(data, "wait_received"), 0, b""

        def ask() -> Any:
            nonlocal seen, tail  # each byte is looked at once, however often this is asked
            self._tape.recorder.check_complete("what was received")
            events = self._tape.events
            fresh = [each for _, _, kind, each in events[seen:] if kind == RECEIVED]
            seen = len(events)
            tail += b"".join(fresh)
            if wanted in tail:
                return None
            tail = tail[max(0, len(tail) - len(wanted) + 1) :]
            return PENDING

        def late(deadline: Deadline) -> None:
            __tracebackhide__ = True
            raise DeadlineExceeded(
                self._told_as(f"wait_received() waited {deadline.seconds:g} s for {shortened(wanted)}")
            )

        return self._server._wait("wait_received", ask, timeout, late)

    # For its server

    def _unread_by_verbs(self) -> bool:
        """Whether this is a live stream that no verb reads."""
        raw = self._mode == "sunk" or (self._handler is not None and self._handler.is_class)
        return raw and self._tape.ended_by is None

    def _keep_whole_stream(self) -> None:
        """Make all that was received one request: that is what a stream is that no verb reads."""
        recorder = self._tape.recorder
        with recorder.lock:
            if not recorder.dropped and self._tape.received_count:
                data = self._tape.joined(RECEIVED)
                recorder.add_request(
                    Request(data, connection=self, peer=self.peer, time=recorder.elapsed(), answer=_answer_on_stream)
                )

    def _cut(self) -> None:
        """End it, because the server stops; what a live connection has in the kernel is recorded first."""
        if self._mode != "handled" and self._reader.acquire(blocking=False):
            try:
                with self._tape.lock:
                    sock = self._tape.socket
                    while sock is not None and sock.fileno() >= 0 and not self._buffer.ended:
                        if not self.take_arrived(sock):
                            break
            except OSError:
                self._buffer.ended = True
            finally:
                self._reader.release()
        cut(self._tape)

    def _finish(self) -> None:
        """Close what no thread of ours closes: connections of the sink and of the test."""
        if self._mode != "handled":
            with self._tape.lock:
                sock = self._tape.socket
                if sock is not None:
                    sock.close()
            self._done = True

    # The verbs as steps: pure, driven from outside

    def _recv(self, n: int) -> Steps[bytes]:
        while not self._buffer:
            if self._buffer.ended:
                return self._told(b"")
            yield False
        return self._buffer.take(n)

    def _recv_exactly(self, n: int) -> Steps[Request]:
        while len(self._buffer) < n:
            if self._buffer.ended:
                raise self._end(f"{n} bytes")
            yield bool(self._buffer)
        return self._unit(self._buffer.take(n))

    def _recv_until(self, delimiter: bytes, max_bytes: int) -> Steps[Request]:
        while (size := self._buffer.find(delimiter)) < 0:
            if len(self._buffer) >= max_bytes:
                break
            if self._buffer.ended:
                raise self._end(f"bytes through {delimiter!r}")
            yield bool(self._buffer)
        if not 0 <= size <= max_bytes:
            raise self._mismatch(
                f"expected {delimiter!r} within {max_bytes:,} bytes, got {shortened(bytes(self._buffer))}"
            )
        return self._unit(self._buffer.take(size))

    def _recv_all(self) -> Steps[Request]:
        while not self._buffer.ended:
            yield bool(self._buffer)
        if not self._buffer:
            return self._told(Request(b"", connection=self, peer=self.peer))
        return self._unit(self._buffer.take(len(self._buffer)))

    def _expect(self, literal: bytes) -> Steps[Request]:
        while True:
            at = self._buffer.differs(literal)
            if at >= 0:
                got = bytes(self._buffer)
                raise self._mismatch(
                    f"expected {shortened(literal)}, got {shortened(got)} ({difference(literal, got)})"
                )
            if len(self._buffer) >= len(literal):
                return self._unit(self._buffer.take(len(literal)))
            if self._buffer.ended:
                got = bytes(self._buffer)
                raise self._mismatch(
                    f"expected {shortened(literal)}, got {shortened(got)} and then the end of the stream"
                )
            yield True

    def _expect_line(self, match: Match) -> Steps[Request]:
        while (size := self._buffer.find(b"\n")) < 0:
            if self._buffer.ended or len(self._buffer) >= self._max_frame:
                end = "the end of the stream" if self._buffer.ended else f"no line ending in {self._max_frame:,} bytes"
                raise self._mismatch(
                    f"expected a line matching {described(match)}, got {shortened(bytes(self._buffer))} and then {end}"
                )
            yield True
        line = self._buffer.take(size)
        bare = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        found = matches(match, bare)
        if not found:
            where = f" ({difference(match, bare)})" if isinstance(match, bytes) else ""
            raise self._mismatch(f"expected a line matching {described(match)}, got {shortened(line)}{where}")
        return self._unit(line, found if isinstance(found, re.Match) else None)

    def _expect_eof(self) -> Steps[None]:
        while not self._buffer:
            if self._buffer.ended:
                return
            yield True
        raise self._mismatch(f"expected the end of the stream, got {shortened(bytes(self._buffer))}")

    def _unit(self, data: bytes, match: re.Match[bytes] | None = None) -> Request:
        """Make what a verb took a request, recorded before it is returned and so before it can be answered."""
        recorder = self._tape.recorder
        request = Request(
            data, connection=self, peer=self.peer, time=recorder.elapsed(), match=match, answer=_answer_on_stream
        )
        recorder.add_request(request)
        return request

    def _told(self, empty: T) -> T:
        """Say the end of the stream once; the second time is the quiet end of a handler's loop."""
        if self._told_end:
            raise self._end("more")
        self._told_end = True
        return empty

    def _end(self, wanted: str) -> EndOfStream:
        """Return what a reading verb raises at the end of the stream."""
        how = "reset the connection" if self._tape.peer_error else "ended its stream"
        if self._buffer:
            got = shortened(bytes(self._buffer))
            return IncompleteRequest(self._told_as(f"expected {wanted}, got {got}, and then the client {how}"))
        end = EndOfStream(f"{self._where()}: expected {wanted}, but the client {how}")
        self._quiet_end = end
        return end

    def _mismatch(self, text: str) -> ScriptMismatch:
        return ScriptMismatch(self._told_as(text))

    def _told_as(self, text: str) -> str:
        """Return a message with its place before it and the conversation after it."""
        return f"{self._where()}: {text}\n{indented(transcript.so_far(self._tape))}"

    def _where(self) -> str:
        return f"{self._server.name}, connection {self.index} ({format_peer(self.peer)})"

    # Driving the steps from a thread

    def _drive(self, verb: str, steps: Steps[T], timeout: float | None, *, patient: bool = True) -> T:
        __tracebackhide__ = True
        self._guard(verb)
        checked_timeout(timeout)
        with self._reading(verb):
            deadline = None if patient and self._patient and timeout is None else Deadline(timeout or self._timeout)
            while True:
                try:
                    begun = next(steps)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                if begun and deadline is None:
                    deadline = Deadline(self._timeout)
                if not self._fill(deadline):
                    raise self._late(verb, deadline)

    @contextmanager
    def _reading(self, verb: str) -> Iterator[None]:
        if not self._reader.acquire(blocking=False):
            raise WrongState(f"cannot {verb}() on connection {self.index}: another thread is reading it")
        try:
            yield
        finally:
            self._reader.release()

    def _fill(self, deadline: Deadline | None) -> bool:
        """Feed the buffer with what comes next, or with the end of the stream; tell whether that came in time."""
        sock = self._open_socket("read")
        while True:
            if sock.await_input(None if deadline is None else deadline.left()):
                if self._fill_now("read"):
                    return True
            elif deadline is not None and not deadline.left():  # else a debugger gave it more time
                return False

    def _fill_now(self, verb: str) -> bool:
        """Feed the buffer with what is there, or with the end of the stream; tell whether there was anything."""
        try:
            return self.take_arrived(self._open_socket(verb))
        except OSError as error:
            if error is not self._tape.peer_error:
                raise
            self._buffer.ended = True  # the client's reset is an end of its stream, and noted as what it is
            return True

    def take_arrived(self, sock: Taped) -> bool:
        """Receive once without waiting; tell whether there was something, the end of the stream included."""
        try:
            data = sock.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if wants_more(error):
                return False
            raise
        if data:
            self._buffer.feed(data)
        else:
            self._buffer.ended = True
        return True

    def _late(self, verb: str, deadline: Deadline | None) -> DeadlineExceeded:
        seconds = deadline.seconds if deadline is not None else 0.0
        got = f"got {shortened(bytes(self._buffer))}" if self._buffer else "nothing came"
        return DeadlineExceeded(self._told_as(f"{verb}() waited {seconds:g} s: {got}"))

    # Writing

    def _write(self, data: bytes, deadline: Deadline) -> None:
        __tracebackhide__ = True
        for _ in self._write_steps(data):
            if not self._open_socket("send").await_room(deadline.left()) and not deadline.left():
                raise self._unread(data, deadline)

    def _unread(self, data: bytes, deadline: Deadline) -> DeadlineExceeded:
        return DeadlineExceeded(
            self._told_as(
                f"send() waited {deadline.seconds:g} s: the client does not read, "
                f"and the kernel takes no more of the {len(data):,} bytes"
            )
        )

    def _write_steps(self, data: bytes) -> Iterator[None]:
        """Send all of ``data``, yielding whenever the kernel takes no more."""
        sock = self._open_socket("send")
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[sock.send(rest) :]
            except BlockingIOError:
                yield
            except OSError as error:
                if not wants_more(error):
                    raise self._lost(error) from None
                yield

    def _lost(self, error: OSError) -> OSError:
        if error is self._tape.peer_error:
            self._quiet_end = error
        return error

    def _open_socket(self, verb: str) -> Taped:
        sock = self._tape.socket
        if self._detached:
            raise WrongState(f"cannot {verb} on connection {self.index}: it was detached")
        if sock is None or sock.fileno() < 0:
            if self._tape.cut:
                self._tape.saw_cut = True
                raise ServerStopping("the server stops")
            raise WrongState(f"cannot {verb} on connection {self.index}: it is closed (by the {self.closed_by})")
        return sock

    # Closing

    def _say_goodbye(self) -> None:
        """Send TLS's close_notify without waiting for the client's."""
        unwrap = getattr(self._tape.socket, "unwrap", None)
        if unwrap is None or self._tape.cut or self.tls is None or self.tls.error is not None:
            return
        try:
            self._tape.socket.settimeout(0.0)  # type: ignore[union-attr]
            unwrap()
        except (OSError, ValueError):
            pass  # SSLWantReadError: it was sent and we do not wait; anything else: the client is gone

    def _discard(self, sock: Taped) -> None:
        until = monotonic() + LINGER
        sock.settimeout(0.0)
        while (left := until - monotonic()) > 0 and not self._tape.cut:
            if sock.await_input(left) and self.take_arrived(sock) and self._buffer.ended:
                return

    def _reset_now(self) -> None:
        """End the connection the hard way, or on a unix socket plainly; noted before the client can see it."""
        tape = self._tape
        with tape.lock:
            sock = tape.socket
            if sock is None or sock.fileno() < 0:
                return
            if not self.can_reset:
                tape.note(NOTE, b"a unix stream cannot be reset: the client sees a plain end of stream")
                tape.note(CLOSE)
                sock.shutdown(socket.SHUT_RDWR)
                sock.close()
                return
            tape.note(RESET)
            hard_close(sock)

    def _start_tls(self, context: ssl.SSLContext, deadline: Deadline) -> Iterator[bool]:
        plain = self._open_socket("start_tls")
        early = bytes(self._buffer)
        if not early:
            early = _peeked(plain)
            early = b"" if early.startswith(b"\x16\x03") or early == b"\x16" else early  # RFC 8446 5.1: a handshake
        if early:
            raise self._mismatch(
                f"expected a TLS handshake, but the client had sent plain text already: {shortened(early)}; "
                "it would be taken for protected (STARTTLS injection)"
            )
        self.tls = SimpleNamespace(version=None, cipher=None, alpn=None, error=None)
        import ssl

        secured: Any = wrap_tls(plain, context)
        secured.settimeout(0.0)
        while True:
            try:
                secured.do_handshake()
                break
            except ssl.SSLWantReadError:
                yield False
            except ssl.SSLWantWriteError:
                yield True
            except OSError as error:
                raise self._handshake_failed(error) from None
            if not deadline.left():
                text = f"start_tls() waited {deadline.seconds:g} s for the client's handshake"
                raise self._handshake_failed(DeadlineExceeded(self._told_as(text)))
        self.tls.version, self.tls.alpn = secured.version(), secured.selected_alpn_protocol()
        self.tls.cipher = secured.cipher()

    def _handshake_failed(self, error: OSError) -> OSError:
        if self._tape.cut:
            self._tape.saw_cut = True
            return ServerStopping("the server stops")
        assert self.tls is not None
        self.tls.error = error
        self._tape.note(NOTE, f"the TLS handshake failed: {str(error).partition(chr(10))[0]}".encode())
        return error


def _answer_on_stream(request: Request, *parts: bytes) -> None:
    __tracebackhide__ = True
    assert request.connection is not None
    request.connection.send(*parts)


def _nothing_to_refuse(verb: str) -> None:
    """Stand in for the check that a verb is not called in a coroutine: a handler's thread has no loop to block."""


def _peeked(sock: Taped) -> bytes:
    sock.settimeout(0.0)
    try:
        return sock.recv(64, socket.MSG_PEEK)
    except OSError:
        return b""


def wants_more(error: OSError) -> bool:
    """Tell whether a non-blocking TLS socket only asks to be called again when the network has moved."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError))
