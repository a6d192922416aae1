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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeVar

from ..errors.exceptions import EndOfStream, IncompleteRequest, InvalidState, ServerStopping
from ..errors.location import Location, hide_frame, pointing_at
from ..originals import current_thread
from ..recording.events import NOTE
from ..recording.failures import said_shortly
from ..recording.recorder import BUSY, PARKED, WAITING
from ..scripting import readers
from ..scripting.arguments import checked_timeout
from ..scripting.buffer import Buffer
from ..scripting.framing import Framing, Lack, checked_framing
from ..scripting.matching import ANY, Match
from ..scripting.parts import Part, ends, takes_time
from ..scripting.readers import Steps
from ..scripting.tls_effects import StartTLS
from ..server import queries
from ..transport.stream import CHUNK
from ..transport.tapped_socket import TappedSocket
from .deadline import Deadline
from .fault_state import FaultState
from .faulty_io import Interposer, begin_inbound_fault, receive_faulty
from .operations import Verbs
from .perform import INPUT, ROOM, Need, pause, perform_parts
from .request import Request
from .send_lock import SingleReader
from .waits import MOMENT, block, blocking_call, loop_blocked_here

if TYPE_CHECKING:
    import socket

    from ..scripting.tls_effects import Context
    from ..server.aio import AsyncConnection

__tracebackhide__ = hide_frame


T = TypeVar("T")


class Connection(Verbs):
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
    """

    @property
    def aio(self) -> AsyncConnection:
        """The same connection with its blocking verbs awaitable, for asyncio and trio, whatever drives it."""
        from ..server.aio import AsyncConnection

        return AsyncConnection(self)

    # Reading

    def recv(self, n: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """Return what has come, at most ``n`` bytes; wait for the first if need be.  Not recorded as a request.

        Returns ``b""`` once when the client has ended its stream.

        Raises:
            EndOfStream: The end was told already.
            DeadlineExceeded: Nothing came in time; in a handler only if ``timeout`` was given.
        """
        return self._drive("recv", self._recv(n), timeout)

    def recv_exactly(self, n: int, *, timeout: float | None = None) -> Request:
        """Return exactly ``n`` bytes, as one request; ``b""`` at once for 0, as a length prefix may say.

        Raises:
            EndOfStream: The client's stream was over before them; :class:`IncompleteRequest` within them.
            DeadlineExceeded: They did not come in time.
        """
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
        return self._drive("recv_until", self._recv_until(delimiter, max_bytes), timeout)

    def recv_line(self, *, max_bytes: int | None = None, timeout: float | None = None) -> Request:
        r"""Return the next line with its ending, as one request: all bytes through ``b"\n"``.

        Arguments and errors are those of :meth:`recv_until`.
        """
        return self._drive("recv_line", self._recv_until(b"\n", max_bytes), timeout)

    def recv_all(self, *, timeout: float | None = None) -> Request:
        """Return all that the client sends until it ends its stream, as one request; ``b""`` if there was nothing."""
        return self._drive("recv_all", self._recv_all(), timeout)

    def frames(self, framing: Framing | None = None) -> Iterator[Request]:
        """Yield the frames that come, each as one request, until the client ends its stream where one would begin.

        Args:
            framing: Another framing than the connection's own.

        Raises:
            TypeError: There is no framing.
            IncompleteRequest: The client ended its stream within a frame.
            ScriptMismatch: A frame is longer than the server's ``max_frame``, or is none.
        """
        self._checked_framing("frames", framing)
        return self._each_frame(framing)

    def rules(self, framing: Framing | None = None) -> None:
        """Answer by the server's rules from here on; return when the client has ended its stream, or a rule has.

        Args:
            framing: Another framing than the connection's, which takes its place.

        Raises:
            UnexpectedRequest: No rule takes a request.
            TypeError: A rule needs frames, and there is no framing.
        """
        _refuse("rules")
        self._framing = checked_framing(framing, self._max_frame) or self._framing
        self._answer_by_rules(self)

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
        return self._drive("expect", self._expect(match), timeout, patient=False, wanted=match)

    def expect_line(self, match: Match = ANY, *, ending: bytes | None = None, timeout: float | None = None) -> Request:
        r"""Take a line, which ``match`` must match whole, without its ending; return it with its ending.

        Args:
            match: Bytes, a compiled pattern of bytes, ``Hex``, ``Text``, a predicate or ``ANY``.
            ending: What the line must end in; ``b"\n"`` with or without ``b"\r"`` before it, unless given.

        Raises:
            ScriptMismatch: Another line came, or the end of the stream.
            DeadlineExceeded: No line came in time.
        """
        return self._drive("expect_line", self._expect_line(match, ending), timeout, patient=False, wanted=match)

    def expect_eof(self, *, timeout: float | None = None) -> None:
        """Wait for the client to end its stream.

        Raises:
            ScriptMismatch: Bytes came instead.
            DeadlineExceeded: Neither came in time.
        """
        steps = readers.expect_eof(self._stream.buffer)
        return self._drive("expect_eof", steps, timeout, patient=False, wanted="the end of the stream")

    def expect_reset(self, *, timeout: float | None = None) -> None:
        """Wait for the client to reset the connection.

        Raises:
            ScriptMismatch: Bytes came instead, or the end of the stream.
            DeadlineExceeded: Nothing came in time.
        """
        steps = readers.expect_reset(self._stream.buffer)
        return self._drive("expect_reset", steps, timeout, patient=False, wanted="a reset")

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
        if self._mode == "live":
            _refuse("send")
        self._say(self._checked_parts(parts, "send()"), self._latest, checked_timeout(timeout) or self._timeout)

    def send_eof(self) -> None:
        """End the server's half of the stream; the client may go on sending.

        Over TLS this is ``close_notify`` and then the end (RFC 8446 section 6.1).  What the client sends
        afterwards may be lost there: Python's ``ssl`` reads while it says goodbye.
        """
        if self._mode == "live":
            _refuse("send_eof")
        self._take_turn("send_eof", Deadline(self._timeout))
        try:
            self._stream.send_eof()
        finally:
            self._writing.release()

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
        self._stream.refuse_detached("close")
        if self._may_wait_to_end():
            _refuse("close")
        if self._driven_elsewhere():
            return self._stream.close_from_outside()
        if self._mode == "sunk":
            self._server._read_no_more(self)
        mine = self._writing.acquire(self._timeout)
        if not mine:
            self._stream.close_from_outside()  # which ends the send that does not end by itself
            mine = self._writing.acquire(self._timeout)
        try:
            for seconds in self._stream.close(notify):
                self._await_input(seconds)
        finally:
            if mine:
                self._writing.release()

    def reset(self) -> None:
        """Reset the connection: the client gets what was sent so far, then ``ConnectionResetError``.

        Waits at most 0.1 seconds for what was sent to reach the client's kernel; a client that does not
        read may lose the rest of it.

        Raises:
            UnsupportedFault: On a unix socket, which cannot be reset; use ``close()``.
        """
        self._stream.refuse_detached("reset")
        if self._may_wait_to_end():
            _refuse("reset")
        if self._driven_elsewhere() and self._stream.can_reset:
            return self._stream.reset_from_outside()
        for seconds in self._stream.reset():
            self._await_input(seconds)

    def _end_from_outside(self, *, reset: bool) -> None:
        """End it, whatever drives it: quietly for that."""
        self._ended_by_fault = True
        if reset and self._stream.can_reset:
            self._stream.reset_from_outside()
        else:
            self._stream.close_from_outside()

    def _driven_elsewhere(self, *, writing: bool = False) -> bool:
        """Whether another thread reads or writes: it may stand in a call on the socket that we would close.

        Args:
            writing: The caller is the one who writes now.
        """
        if self._mode == "handled":
            return not self._done and self._thread is not current_thread()
        return self._reader.locked() or (not writing and self._writing.locked())

    def _may_wait_to_end(self) -> bool:
        """Whether to end it may have to wait for the client: no thread of the server drives it, or this one does."""
        return self._mode != "handled" or self._thread is current_thread()

    def _await_input(self, seconds: float | None) -> None:
        sock = self._tape.socket
        if sock is not None and sock.fileno() >= 0:
            sock.await_input(seconds)

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
        self._refuse_unreadable("detach")
        if self._driven_elsewhere():
            raise InvalidState(f"cannot detach connection {self.index}: another thread drives it")
        intake = self._fault_state.intake if self._fault_state is not None else None
        return self._stream.detach(intake.arrived if intake is not None else None)

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
        _refuse("start_tls")
        if self._server._handshakes is not None:
            return self._say((StartTLS(context),), self._latest, checked_timeout(timeout) or self._timeout)
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
        _refuse("wait_closed")
        with self._read_meanwhile():
            block(queries.closed(self, timeout))

    def wait_received(self, data: bytes, *, timeout: float | None = None) -> None:
        """Wait until ``data`` stands somewhere in what was received, taken by a verb or not; takes nothing.

        Raises:
            DeadlineExceeded: It did not come in time.
            RecordLimitExceeded: Not all that was received was kept.
        """
        _refuse("wait_received")
        with self._read_meanwhile():
            block(queries.received(self, data, timeout))

    # Saying

    def _answer(self, request: Request, parts: tuple[Part, ...]) -> None:
        """Say the parts to whoever sent a request."""
        if self._mode == "live":
            _refuse("reply")
        self._say(self._checked_parts(parts, "reply()"), request, self._timeout, "reply")

    def _say(self, parts: tuple[Part, ...], request: Request | None, timeout: float, verb: str = "send") -> None:
        plain = all([isinstance(part, bytes) for part in parts])
        if not plain and (takes_time(parts) or (ends(parts) and self._may_wait_to_end())):
            _refuse(verb)
        deadline = moment = None  # where nothing has to be waited for, none is needed
        if not self._writing.acquire(0.0):
            deadline = Deadline(timeout)
            self._take_turn(verb, deadline)
        try:
            if plain and self._fault_state is None:  # the usual case, the short way
                data = b"".join(parts)  # type: ignore[arg-type]
                for _ in self._stream.send(data):
                    deadline, moment = deadline or Deadline(timeout), moment or Deadline(MOMENT)
                    self._await_room_for(data, deadline, verb, moment)
            else:
                for need in self._needs(parts, request, timeout):
                    moment = moment or Deadline(MOMENT)
                    self._await(need, verb, moment)
        finally:
            self._writing.release()

    def _take_turn(self, verb: str, deadline: Deadline) -> None:
        """Become the one who writes."""
        if self._writing.acquire(min(MOMENT, deadline.left() or 0.0)):
            return
        _refuse(verb)  # a reply that takes so long may wait for that very loop
        if not self._writing.acquire(deadline.left() or 0.0):
            raise self._late_turn(f"{verb}()", deadline)

    def _await_room_for(self, data: bytes, deadline: Deadline, verb: str, moment: Deadline) -> None:
        if not self._await_room(deadline.left, verb, moment) and not deadline.left():
            raise self._unread(data, deadline)

    def _await_room(self, left: Callable[[], float | None], verb: str, moment: Deadline) -> bool:
        """Wait, in this thread, until the kernel takes bytes again; tell whether it does.

        Args:
            moment: When the whole call is refused in a coroutine, though there was room now and then.
        """
        sock = self._stream.socket_for("send on")
        seconds, soon = left(), moment.left() or 0.0
        if seconds is None or seconds > soon:
            if soon and sock.await_room(soon):
                return True
            _refuse(verb)
            sock, seconds = self._stream.socket_for("send on"), left()
        return sock.await_room(seconds)

    def _interpose(self) -> None:
        """Put an interposer before a handler class's socket, if faults are injected; also called when that begins."""
        if self._fault_state is not None and self._tape.interposer is None and self._is_raw():
            self._tape.interposer = Interposer(self)

    def _stop_if_ended(self) -> None:
        """Let whoever drives this connection end quietly, if an injection, or a rule for its handshake, has ended it.

        Raises:
            ServerStopping: It has.
        """
        tape = self._tape
        with tape.lock:
            if not tape.server_ended:
                return
            self._ended_by_fault = True
            tape.cut = tape.cut or "an injection has ended the connection"
        self._stream.socket_for("go on with")

    def _end_by_failed_injection(self, error: Exception, origin: Location) -> NoReturn:
        """Record that an injection could not be performed, and end the connection; its handler is not to blame.

        He may catch what he likes, and write it to the client: it is not raised to him.

        Raises:
            ServerStopping: Always.
        """
        tape = self._tape
        if error is tape.peer_error or error is self._stream.quiet_end:
            raise error  # the client is gone, or refuses the handshake, which is for the handler to learn
        self._server._record_failure(pointing_at(error, origin), self._where(), tape.began)
        tape.note(NOTE, said_shortly(error).encode("utf-8", "backslashreplace"))
        self._ended_by_fault = True
        self._stream.reset_now()
        with tape.lock:
            tape.cut, tape.saw_cut = tape.cut or "an injection failed", True
        raise ServerStopping(tape.cut)

    def _needs(self, parts: tuple[Part, ...], request: Request | None, timeout: float) -> Iterator[Need]:
        """Return what saying the parts has to wait for."""
        return perform_parts(self, parts, request, timeout)

    def _await(self, need: Need, verb: str = "send", moment: Deadline | None = None) -> None:
        """Wait, in this thread: what a function, or an injection, has brought is known here at the latest."""
        if need.kind is ROOM:
            self._await_room(need.left, verb, moment or Deadline(MOMENT))
            return
        _refuse(verb)
        if need.kind is INPUT:
            self._await_input(need.left())
        else:
            self._pause(need)

    def _pause(self, need: Need) -> None:
        """Wait for something that is not the socket.  Such a connection is idle, and a stop ends the wait."""
        tape = self._tape
        tape.state = PARKED
        try:
            with tape.recorder.lock:
                while not tape.cut and not need.over() and (left := need.left()) != 0.0:
                    tape.park(left)
        finally:
            tape.state = BUSY
        if tape.cut:
            tape.saw_cut = True
            raise ServerStopping(tape.cut)

    # Driving the steps from a thread

    def _drive(
        self, verb: str, steps: Steps[T], timeout: float | None, *, patient: bool = True, wanted: object = None
    ) -> T:
        if loop_blocked_here() is not None:
            _refuse(verb)
        checked_timeout(timeout)
        self._refuse_unreadable(verb)
        with SingleReader(self, verb):
            deadline = (
                None if patient and self._waits_for_start and timeout is None else Deadline(timeout or self._timeout)
            )
            while True:
                try:
                    begun = next(steps)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                if begun and deadline is None:
                    deadline = Deadline(self._timeout)
                self._fill(verb, deadline, wanted)

    def _refuse_unreadable(self, verb: str) -> None:
        if self._stream.lost:
            with self._tape.recorder.lock:
                self._tape.recorder.check_complete("what was received before accept()")
        if self._mode == "sunk":
            raise InvalidState(
                f"cannot {verb}() on connection {self.index}: it is read by its server, which has nothing declared; "
                "take it by accept() first, or look at its received"
            )

    def _fill(self, verb: str, deadline: Deadline | None, wanted: object) -> None:
        """Wait for what comes next, or for the end of the stream."""
        fault_state = self._fault_state
        if fault_state is not None and fault_state.intake is not None:
            return self._hear(fault_state, verb, deadline, wanted)
        self._stream.await_more(self._stream.socket_for("read"))
        while True:
            sock = self._input(verb, deadline, wanted)
            fault_state = self._fault_state  # looked at now that bytes are there: an injection may have begun
            if fault_state is None:
                if self._stream.receive(sock):
                    return
            elif self._mode == "handled" and self._is_misheard():
                return self._hear(fault_state, verb, deadline, wanted)
            elif self._receive_at_pace(sock, fault_state, None):
                return

    def _hear(self, fault_state: FaultState, verb: str, deadline: Deadline | None, wanted: object) -> None:
        """Feed the buffer with what an injection makes of what comes."""

        def receive(into: Buffer) -> None:
            self._stream.await_more(self._stream.socket_for("read"))
            while not self._receive_at_pace(self._input(verb, deadline, wanted), fault_state, into):
                pass

        self._stream.hand_on(receive_faulty(self, fault_state, receive), fault_state.intake)

    def _input(self, verb: str, deadline: Deadline | None, wanted: object) -> TappedSocket:
        """Wait until something may be received; return the socket."""
        while True:
            sock = self._stream.socket_for("read")
            if self._may_receive(sock, verb, deadline):
                return sock
            if deadline is not None and not deadline.left():  # else a debugger gave it more time
                raise self._late(verb, deadline, wanted)

    def _receive_at_pace(self, sock: TappedSocket, fault_state: FaultState, into: Buffer | None) -> bool:
        """Receive, and wait before more is received if it is read slowly; tell whether there was anything."""
        if not self._stream.receive(sock, into, CHUNK if fault_state.pace is None else fault_state.pace[0]):
            return False
        self._keep_pace(fault_state)
        return True

    def _keep_pace(self, fault_state: FaultState) -> None:
        """Wait before more is received, if it is read slowly."""
        if fault_state.pace is not None:
            self._pause(pause(fault_state.pace[1]))

    def _may_receive(self, sock: TappedSocket, verb: str, deadline: Deadline | None) -> bool:
        """Wait for input; where the test itself waits, a failure on the server's side ends that."""
        if self._mode != "live" or deadline is None:
            return sock.await_input(None if deadline is None else deadline.left())
        if self._await_news(self._server._has_failed, deadline.left):
            return True
        self._server._raise_early(verb)
        return False

    def _is_at_its_end(self) -> bool:
        """Receive what is there; tell whether that was the end of the stream, and everything was taken."""
        buffer = self._stream.buffer
        if not len(buffer) and not buffer.ended and not self._is_misheard():
            self._stream.receive(self._stream.socket_for("read"))
        return not len(buffer) and buffer.ended

    def _await_input_or(self, happened: Callable[[], bool]) -> bool:
        """Wait, without a deadline, until there is input, or something has happened; tell whether there is input."""
        buffer = self._stream.buffer
        if not len(buffer) and not buffer.ended and self._is_misheard():
            self._fill("read", None, None)  # what the kernel has says nothing; what has happened meanwhile is seen then
        return bool(len(buffer) or buffer.ended) or self._await_news(happened, lambda: None)

    def _is_misheard(self) -> bool:
        """Whether what comes gets an injected fault before it is heard."""
        fault_state = self._fault_state
        return fault_state is not None and (bool(self._server._injections.received) or fault_state.intake is not None)

    def _begin_inbound_fault(self) -> None:
        """Let what has come before a driver, if it is to get an injected fault, be heard as what comes later."""
        fault_state, buffer = self._fault_state, self._stream.buffer
        if fault_state is None or fault_state.intake is not None or not self._is_misheard():
            return
        intake = begin_inbound_fault(self, fault_state)
        if len(buffer):
            intake.has_effect()
        intake.arrived.feed(buffer.take(len(buffer)))
        intake.arrived.ended, intake.arrived.broken, buffer.ended = buffer.ended, buffer.broken, False

    def _await_news(self, happened: Callable[[], bool], left: Callable[[], float | None]) -> bool:
        """Wait until something can be received, or something has happened; tell whether there is something to receive.

        The server's sink watches the socket meanwhile: this thread waits for what is told.
        """
        tape, arrived = self._tape, False
        sock = self._stream.socket_for("read")

        def wake() -> None:
            nonlocal arrived
            arrived = True
            tape.unpark()

        if sock.await_input(0):
            return True
        self._server._watch(sock, False, wake)
        tape.state = WAITING
        try:
            with tape.recorder.lock:
                while not arrived and not tape.cut and not happened() and (seconds := left()) != 0.0:
                    tape.park(seconds)
        finally:
            tape.state = BUSY
            self._server._unwatch(wake)
        return arrived or bool(tape.cut)

    def _each_frame(self, framing: Framing | None) -> Iterator[Request]:
        while True:
            try:
                cut = self._checked_framing("frames", framing)
                frame = self._drive("frames", self._frame(cut), None, wanted=Lack(self._stream.buffer, cut))
            except IncompleteRequest:
                raise
            except EndOfStream:
                return
            yield frame

    @contextmanager
    def _read_meanwhile(self) -> Iterator[None]:
        """Let the sink read a connection that the test drives, while the test only waits."""
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


#: What to write in a coroutine, where it is another than ``await connection.aio.<verb>(...)``.
_AWAITED = {"frames": "async for frame in connection.aio.frames(...)", "reply": "await request.aio.reply(...)"}


def _refuse(verb: str) -> None:
    """Refuse a verb that may block, in a coroutine; always, so that the error does not depend on timing."""
    kind = loop_blocked_here()
    if kind is not None:
        raise blocking_call(verb, kind, _AWAITED.get(verb) or f"await connection.aio.{verb}(...)")
