"""One client's conversation: what is known of it, and what can be done on it, as operations.

This is what the package itself holds of a connection: the responders drive it, the server keeps it in its lists.
:class:`~.connection.Connection` is its face for tests and handlers, which blocks; ``aio`` has the awaitable one.

Theory.  Receiving and sending are operations (``waits``): generators that look, do what can be done at once, and yield
what they wait for.  Faults are applied inside of them, to bytes: after the kernel has given them, before it gets them.
There are *two short ways and no third*, and both are here: a receive that waits in the kernel, in a thread and without
a deadline (``_receive_in_kernel``), and a send of bytes that the kernel takes at once (``send_in_thread``).

Rules:

- One reader: ``reader_lock`` is a claim, never waited for.  One writer: ``send_lock``, whose release rings.
- Nothing is taken from the buffer before a unit is whole, and between that and the return nothing waits.  So a read
  that is given up has taken nothing.  What a fault has made of bytes and not handed on yet is kept in ``fault_state``.
- A deadline is asked *after* the last look: bytes that are there win over the clock.
- Each look after a wait finds out by itself whether this side has ended the connection meanwhile.

What is not done here: how a connection ends its driver, and whose fault that is (``responders``).
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from ..errors.exceptions import (
    THE_SERVER_STOPS,
    DeadlineExceeded,
    EndOfStream,
    IncompleteRequest,
    InvalidState,
    ScriptMismatch,
    ServerStopping,
)
from ..errors.location import Location, hide_frame, pointing_at
from ..errors.messages import format_peer, with_conversation
from ..originals import current_thread, original
from ..recording.events import NOTE, RECEIVED
from ..recording.failures import said_shortly
from ..recording.recorder import Tape
from ..scripting.arguments import checked_expected, checked_timeout
from ..scripting.buffer import NEED_MORE, Ended, EndedWithin, Mismatch, NeedMore
from ..scripting.framing import Framing, checked_framing, frames_needed, may_be_empty
from ..scripting.matching import HexMatch, Match, described, is_literal, names_in
from ..scripting.parts import Part, check_fit, checked_parts, ends, takes_time
from ..scripting.tls_effects import checked_context
from ..scripting.verbs import RECV_ALL, Verb
from ..transport.kernel import hello_at
from ..transport.stream import CHUNK, Stream
from . import transcript
from .cutting import Cutting
from .deadline import Deadline
from .fault_state import FaultState
from .faulty_io import Interposer, receive_faulty
from .perform import pause, perform_parts, send
from .probes import hint
from .queries import raise_early
from .request import Request, looked_up
from .runners import run_in_thread
from .send_lock import SendLock
from .waits import MOMENT, Operation, Wait, blocking_call, loop_blocked_here

if TYPE_CHECKING:
    import ssl

    from ..scripting.rules import Rule
    from ..scripting.tls_effects import Context as TLSContext
    from ..scripting.tls_effects import StartTLS
    from .connection import Connection
    from .context import Context

__tracebackhide__ = hide_frame

# States.  There is no single state variable.  Four fields say how far a connection is, and each has its own writers:
#
# - ``mode``: who reads.  It begins as "handled".  The server's list of connections changes it: to "sunk" where nothing
#   is declared, from there to "live" (``accept``) or back to "handled" (a declaration that came later), and from
#   "live" to "handled" (``rules``).  It leaves "sunk" under the tape's lock (``accept``), or under the recorder's (a
#   declaration); the sink's thread takes both before it treats a connection as its own.
# - ``tape.ended_by``, ``server_ended``, ``client_ended``: which side has ended the stream.  ``Tape.note`` sets them.
# - ``tape.cut``: this side has ended it from outside the thread that drives it.  It is written under the tape's lock
#   and read without one, as it only ever goes from empty to a reason.
# - ``done``: the thread that drove it has finished with it.
#
# The order in ``kernel.cut``: first ``cut``, then the shutdown, then the bells.  With the shutdown first, the driver
# could see the end of the stream with ``cut`` still empty, and would record it as the client's.
#
# Threads.  In mode "handled" one thread of the server receives, and closes the descriptor.  In mode "sunk" the sink
# receives, under the tape's lock.  In mode "live" the test's threads and coroutines do, with ``reader_lock`` as their
# claim.  Sending is open to all of them, one at a time.  Another thread that ends a driven connection shuts the socket
# down and leaves the close to the driver, which may be inside a system call on it.  A reset from outside is the
# exception: it closes at once, under the tape's lock (``kernel.hard_close``).
#
# Locks: ``send_lock``, then the tape's, then the recorder's; ``server/service.py`` has the whole order.
# ``fault_state`` comes into being once, under the recorder's lock.  So a look for ``None`` needs no lock: at worst it
# misses a state that begins at that moment, which then applies to what is received or sent next.


T = TypeVar("T")

_loaded = sys.modules  # a look there costs less than a call, and this is in each read

#: What to write in a coroutine, where it is another than ``await connection.aio.<verb>(...)``.
_AWAITED = {"frames": "async for frame in connection.aio.frames(...)", "reply": "await request.aio.reply(...)"}


class Responder(Protocol):
    """What drives a connection."""

    @property
    def is_raw(self) -> bool:
        """Whether it has the socket itself, past the verbs."""

    def run(self, conversation: Conversation, /) -> None:
        """Converse with one client, to the end."""

    def standing(self, conversation: Conversation, /) -> str | None:
        """Return what it waits for, in words, if that is worth a remark."""


class Conversation:
    """The server's end of one stream.

    Args:
        make_face: Makes what tests and handlers are given of it.

    Attributes:
        face: That.
        index, peer, local_address, state, captured: As the face has them.
        tape: What was recorded, and what its thread is doing.
        stream: The live socket.
        context: What it sees of its server.
        timeout: Seconds, as they were for the server when it was accepted.
        framing: Where one frame ends and the next begins.
        values: Further names, of the dialogue that is performed.
        latest: What functions are called with, among parts that answer no request.
        mode: Who reads: ``"handled"`` by a handler's thread, ``"sunk"`` by the server's loop, ``"live"`` by the test.
        responder: What was declared for it.
        thread: The thread that runs that.
        done: Its responder has ended, and the connection with it.
        waits_for_start: For that of a unit, without a deadline: a handler does, a test does not.
        connected_before_declaration: It came before anything was declared for it.
        probing: A mismatch may be none: whoever asks adds the conversation, if it is reported.
        handshake_part: What has begun the handshake that a rule answers.
        ended_by_fault: An injection has ended it, or a time.
        fault_state: From its first fault on, or from the server's first injection.
        send_lock: Guards the order of bytes on the wire: one send at a time.
        answer_by_rules: Answers by its server's rules from here on.
    """

    def __init__(self, tape: Tape, context: Context, make_face: Callable[[Conversation], Connection]) -> None:
        self.index = tape.index
        self.peer = tape.peer
        self.local_address = context.address_of(tape.socket)
        self.state = SimpleNamespace()
        self.captured: dict[str, bytes] = {}
        self.tape = tape
        self.stream = Stream(tape)
        self.stream.may_begin_tls = context.tls is not None and context.transport != "tls"
        self.context = context
        self.timeout = context.timeout
        self.max_frame = context.max_frame
        self.framing = context.framing
        self.cutting: Cutting | None = None  # where no verb reads; guarded by the recorder's lock
        self.values: Mapping[str, Any] = {}
        self.latest: Request | None = None
        self.mode = "handled"
        self.responder: Responder | None = None
        self.thread: threading.Thread | None = None
        self.done = False
        self.waits_for_start = True
        self.connected_before_declaration = self.probing = self.ended_by_fault = False
        self.handshake_part: StartTLS | None = None
        self.fault_state = FaultState() if context.injections else None
        # A release rings the connection's own bells: those who wait for a turn wait as operations.
        self.send_lock = SendLock(tape.bells)
        self.answer_by_rules: Callable[[Conversation], None] = _nobody_answers
        self.reader_lock = original.Lock()  # held by the one reader
        self.face = make_face(self)

    def __repr__(self) -> str:
        end = f"{self.tape.ended_how} by the {self.tape.ended_by}" if self.tape.ended_by else "open"
        return f"<Connection {self.index} from {format_peer(self.peer)}, {end}>"

    # As a port, on which operations wait

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when it is closed."""
        sock = self.tape.socket
        return sock.fileno() if sock is not None else -1

    @property
    def bells(self) -> tuple[Any, ...]:
        """What is rung when an operation on it is to look again."""
        return self.tape.bells, self.tape.recorder.bells

    def watch(self, writes: bool, ring: Callable[[], None]) -> None:
        """Ring once when the socket is readable, or writable; now, if TLS has input already."""
        sock = self.stream.socket_for("wait on")
        if not writes and getattr(sock, "pending", int)():
            ring()
        else:
            self.context.watch(sock, writes, ring)

    def unwatch(self, ring: Callable[[], None]) -> None:
        """Ring no more."""
        self.context.unwatch(ring)

    def set_activity(self, activity: str) -> None:
        """Note what the thread that drives it does; what another one does beside it, a push, says nothing of that."""
        # Else a push from the test's thread, which waits for room, would make a busy handler look idle.
        if self.mode != "handled" or self.thread is current_thread():
            self.tape.state = activity

    # Requests

    def make_request(
        self, data: bytes, found: object = None, rule: Rule | None = None, *, is_unit: bool = False, sure: bool = True
    ) -> Request:
        """Make what a verb took a request, recorded before it is returned and so before it can be answered.

        Args:
            is_unit: It is one even without a byte: what the client sent, and not a reply's occasion.
            sure: If false it becomes one when a wait matches it.
        """
        recorder = self.tape.recorder
        match = found if found is not None and isinstance(found, (re.Match, HexMatch)) else None
        request = Request(data, self.face, self.peer, original.monotonic() - recorder.began, match)
        if rule is not None:
            request.rule = rule
        if match is not None:
            self.captured.update(names_in(match))
        if not sure:
            request.is_sure = False
        # Recorded here, before the caller has it: a reply cannot leave before its request is in the record.
        if data or is_unit:
            self.latest = request
            recorder.add_request(request, self.tape)
        return request

    def lookup(self, name: str) -> bytes:
        """Return what a name stands for on this connection."""
        return looked_up(self.captured, self.values, self.face, name)

    def checked_framing(self, verb: str, framing: Framing | None) -> Framing:
        """Return a framing, else the connection's own.

        Raises:
            TypeError: There is none.
        """
        checked = checked_framing(framing, self.max_frame) or self.framing
        if checked is None:
            raise TypeError(
                f"{verb}() expected a framing: give one to it, {verb}(lines(b'\\r\\n')) for example, or the server "
                "framing="
            )
        return checked

    def checked_parts(self, parts: tuple[Part, ...], verb: str) -> tuple[Part, ...]:
        """Return the parts, or raise what says why they cannot be sent here."""
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts
        checked = checked_parts(parts, verb)
        check_fit(checked, self.context.transport, verb, tls=self.context.tls is not None)
        return checked

    def checked_match(self, match: Match) -> Match:
        """Return what ``expect`` is to take, or raise what says why it cannot here."""
        checked = checked_expected(match)
        if not is_literal(checked) and self.framing is None:
            raise frames_needed(described(checked))
        return checked

    # Receiving

    def read(self, verb: Verb, timeout: float | None = None, name: str | None = None, *, raw: bool = False) -> Any:
        """Take a unit, in this thread; return the request, or the bytes, that it is.

        Args:
            name: What messages call the verb, if it is not its own name.
            raw: Make no request of it.

        Raises:
            InvalidState: It is not to be read here: see ``refuse_unreadable``.
            EndOfStream, IncompleteRequest, ScriptMismatch, DeadlineExceeded: As the verbs say.
        """
        # Before anything is looked at: the refusal must not depend on whether the unit is there already.
        if "asyncio" in _loaded or "trio" in _loaded:
            self.refuse(name or verb.name)
        if timeout is not None:
            checked_timeout(timeout)
        stream = self.stream
        if stream.lost or self.mode == "sunk":
            self.refuse_unreadable(name or verb.name)
        if not self.reader_lock.acquire(False):
            raise self._read_elsewhere(name or verb.name)
        try:
            buffer, deadline = stream.buffer, None
            # The buffer comes first, and then the clock: a unit that is whole is returned without any wait or deadline.
            while (unit := verb.next_from(buffer, self)) is NEED_MORE:
                # The short way has no deadline, so it is for the beginning of a unit alone, and only where a handler
                # may wait for its client as long as it likes.  Once a unit has begun, its rest must come in time.
                if timeout is None and self.waits_for_start and not verb.is_demand and not buffer.data:
                    if self.fault_state is None and not stream.may_begin_tls and self._receive_in_kernel():
                        continue
                elif deadline is None:
                    deadline = Deadline(timeout or self.timeout)
                unit = run_in_thread(self._receive(verb, deadline, name), self)
                if unit is not NEED_MORE:
                    break
        except (Ended, EndedWithin, Mismatch) as error:
            raise self.explained(error) from None
        finally:
            self.reader_lock.release()
        if raw or not verb.is_request:
            return unit
        if verb is RECV_ALL and not unit:
            return self._made_of(verb, unit)  # type: ignore[arg-type]
        found, buffer.found = buffer.found, None
        return self.make_request(unit, found, is_unit=verb.may_be_empty)  # type: ignore[arg-type]

    def reading(self, verb: Verb, timeout: float | None = None, name: str | None = None) -> Operation[Any]:
        """Take a unit, as an operation; arguments and errors are those of ``read``.  It always has a deadline."""
        self.refuse_unreadable(name or verb.name)
        if not self.reader_lock.acquire(False):
            raise self._read_elsewhere(name or verb.name)
        try:
            deadline = Deadline(checked_timeout(timeout) or self.timeout)
            while (unit := verb.next_from(self.stream.buffer, self)) is NEED_MORE:
                unit = yield from self._receive(verb, deadline, name)
                if unit is not NEED_MORE:
                    break
        except (Ended, EndedWithin, Mismatch) as error:
            raise self.explained(error) from None
        finally:
            self.reader_lock.release()
        return self._made_of(verb, unit)  # type: ignore[arg-type]

    def _made_of(self, verb: Verb, unit: bytes) -> Any:
        """Return the request that a unit is; its bytes, where it is none."""
        if not verb.is_request:
            return unit
        buffer = self.stream.buffer
        found, buffer.found = buffer.found, None
        is_unit = verb.may_be_empty
        if not unit and verb is RECV_ALL:  # a frame may be nothing, and nothing came before
            is_unit = not self.tape.received_count and self.framing is not None and may_be_empty(self.framing)
        return self.make_request(unit, found, is_unit=is_unit)

    def _receive_in_kernel(self) -> bool:
        """Wait in the kernel for what comes next; tell whether that could be done.  The first of the short ways.

        A thread in that call is not woken by an injection, and need not be: a fault acts on bytes, the next ones.
        """
        stream, sock = self.stream, self.tape.socket
        if stream.detached or sock is None or sock.fileno() < 0:
            sock = stream.socket_for("read")  # which raises
        buffer = stream.buffer
        try:
            # The state is RECEIVING in there.  The call ends by bytes, by the client's end, or by a shutdown from
            # outside.
            data = sock.take_waiting(CHUNK)
        except OSError as error:
            if error is not self.tape.peer_error:
                raise
            data, buffer.broken = b"", True  # the client's reset is an end of its stream, if not a good one
        if data is None:
            return False
        # Written out, as each receive of a handler passes here.
        before = len(buffer.data)
        if data:
            buffer.data += data
        else:
            buffer.ended = True
        if self.fault_state is not None:
            self._give_to_fault(before)
        return True

    def _receive(self, verb: Verb, deadline: Deadline | None, name: str | None) -> Operation[bytes | NeedMore]:
        """Feed the buffer with what comes next, or with the end of the stream; return a unit that was taken already."""
        if self.fault_state is not None and self.is_misheard():
            yield from self._receive_faulty(verb, deadline, name)
            return NEED_MORE
        if self.stream.may_begin_tls:
            return (yield from self._receive_needed(verb, deadline, name))
        # Half a unit has come: the rest may be held back by Nagle's algorithm in the client's kernel.
        if len(self.stream.buffer):
            self.stream.expect_more()
        before = len(self.stream.buffer)
        while not self.stream.receive(self.pace_size()):
            yield self._wait_for_input(verb, deadline, name)
            if self.fault_state is not None and self.is_misheard():  # what it hands on need not wait for bytes
                yield from self._receive_faulty(verb, deadline, name)
                return NEED_MORE
        if self.fault_state is not None:
            self._give_to_fault(before)
        yield from self.keep_pace()
        return NEED_MORE

    def _give_to_fault(self, before: int) -> None:
        """Let an injection have what has just come, after so many bytes, if it had begun by then.

        Whether it had is asked after the receive, and answered by the record: the test injects in its own thread, and
        what is recorded after that is changed, what was recorded before is not.
        """
        state, buffer = self.fault_state, self.stream.buffer
        if state is None or not (self.tape.came_faulty if len(buffer) > before else self.is_misheard()):
            return
        inbound = state.begin_inbound(self)
        if data := buffer.take_from(before):
            inbound.feed(data)
        # The end moves as well: the injection's parts decide whether, and when, the reader learns of it.
        inbound.arrived.ended, inbound.arrived.broken, buffer.ended = buffer.ended, buffer.broken, False

    def _wait_for_input(self, verb: Verb, deadline: Deadline | None, name: str | None) -> Wait:
        """Return the Wait for more, after a look that found nothing; raise if it is over."""
        if deadline is not None and not deadline.left():
            raise self.late(verb, deadline, name)
        if self.mode == "live":
            raise_early(self.context.failures, name or verb.name)
        return Wait(readable=True, until=None if deadline is None else deadline.at)

    def _receive_needed(self, verb: Verb, deadline: Deadline | None, name: str | None) -> Operation[bytes | NeedMore]:
        """Take from the kernel what a verb's unit needs and no more; return the unit if it is whole then.

        What follows it may be the client's hello, which OpenSSL has to receive by itself.
        """
        stream, buffer = self.stream, self.stream.buffer
        while (ahead := stream.peek()) is None:
            yield self._wait_for_input(verb, deadline, name)
        if not ahead:  # the end, or an error
            stream.receive()
            return NEED_MORE
        # A compound step: the verb judges a copy of what the kernel has, then just the bytes of its unit are received.
        # Nothing waits in between, and the reader's claim is held, so the kernel still has what was looked at.
        kept, needed = bytes(buffer), len(ahead)
        buffer.feed(ahead)
        try:
            unit = verb.next_from(buffer, self)
            if unit is not NEED_MORE:
                needed -= len(buffer)
                buffer.take(len(buffer))
        except Mismatch:  # which quotes all of it; the next step of a script may come to begin TLS
            if (at := hello_at(stream.socket_for("read"))) >= 0:
                buffer.take_from(len(kept) + at)
                needed = at
            raise
        finally:
            left = needed
            while left and (taken := stream.socket_for("read").take(left)):
                left -= len(taken)
        if self.fault_state is not None and self.tape.came_faulty:  # see _give_to_fault
            buffer.take(len(buffer))
            buffer.feed(kept)
            buffer.feed(ahead[:needed])
            buffer.found = None
            self._give_to_fault(len(kept))
            return NEED_MORE
        return unit

    def _receive_faulty(self, verb: Verb, deadline: Deadline | None, name: str | None) -> Operation[None]:
        """Feed the buffer with what an injection makes of what comes."""

        def arrive() -> Operation[None]:
            inbound = self.begin_fault_state().begin_inbound(self)
            self.stream.expect_more()
            while not self.stream.receive(self.stream.up_to_hello(self.pace_size()), inbound.arrived):
                yield self._wait_for_input(verb, deadline, name)
            yield from self.keep_pace()

        yield from receive_faulty(self, arrive)

    def pace_size(self) -> int:
        """Return how many bytes may be received at once."""
        state = self.fault_state
        return CHUNK if state is None or state.pace is None else state.pace[0]

    def keep_pace(self) -> Operation[None]:
        """Wait before more is received, if it is read slowly."""
        state = self.fault_state
        if state is not None and state.pace is not None:
            yield from pause(self, state.pace[1])

    def is_misheard(self) -> bool:
        """Whether what comes is changed by an injection before it is handed on."""
        state = self.fault_state
        return state is not None and (bool(self.context.injections.received) or state.inbound is not None)

    def begin_inbound_fault(self) -> None:
        """Let an injection change what has come before a responder as it does what comes later."""
        state, buffer = self.fault_state, self.stream.buffer
        if state is None or state.inbound is not None or not self.is_misheard():
            return
        inbound = state.begin_inbound(self)
        if len(buffer):
            inbound.has_effect()
        inbound.arrived.feed(buffer.take(len(buffer)))
        inbound.arrived.ended, inbound.arrived.broken, buffer.ended = buffer.ended, buffer.broken, False

    def refuse_unreadable(self, verb: str) -> None:
        """Refuse to read what another one reads, or has dropped.

        Raises:
            InvalidState: Its server reads it; the test has not accepted it.
            RecordLimitExceeded: What had come before it was accepted was not kept.
        """
        if self.stream.lost:
            with self.tape.recorder.lock:
                self.tape.recorder.check_complete("what was received before accept()")
        if self.mode == "sunk":
            raise InvalidState(
                f"cannot {verb}() on connection {self.index}: it is read by its server, which has nothing declared; "
                "take it by accept() first, or look at its received"
            )

    def _read_elsewhere(self, verb: str) -> InvalidState:
        return InvalidState(f"cannot {verb}() on connection {self.index}: another thread is reading it")

    # Waiting for input, or for something else

    def input_or(self, happened: Callable[[], bool]) -> Operation[bool]:
        """Wait, without a deadline, until there is input, or something has happened; return whether there is input.

        Args:
            happened: Asked again when the bells are rung.
        """
        buffer = self.stream.buffer
        if not len(buffer) and not buffer.ended and self.is_misheard():
            yield from self._receive_faulty(RECV_ALL, None, "read")  # what the kernel has says nothing
        while not len(buffer) and not buffer.ended:
            # A cut counts as input: the caller's next receive then raises, which is where an end is explained.
            if self.stream.has_input() or self.tape.cut:
                break
            if happened():
                return False
            yield Wait(readable=True)
        return True

    def await_input_or(self, happened: Callable[[], bool]) -> bool:
        """Do the same in this thread."""
        return run_in_thread(self.input_or(happened), self)

    def is_at_its_end(self) -> bool:
        """Receive what is there; tell whether that was the end of the stream, and everything was taken."""
        buffer = self.stream.buffer
        if not len(buffer) and not buffer.ended and not self.is_misheard():
            self.stream.receive()
        return not len(buffer) and buffer.ended

    @contextmanager
    def read_meanwhile(self) -> Iterator[None]:
        """Let the server read a connection that the test drives, while the test only waits."""
        if self.mode != "live" or self.stream.detached or not self.reader_lock.acquire(blocking=False):
            yield
            return
        before, count = len(self.stream.buffer), self.tape.received_count
        try:
            # In this order.  What the kernel has by now is recorded at once; the sink gets what comes after that.
            self.stream.take_the_rest()
            self.context.read_ahead(self)
            yield
        finally:
            # The claim is given up last: when it is free, the sink takes no more bytes.
            self.context.read_no_more(self)
            try:
                if (state := self.fault_state) is not None:
                    # What came before an injection is read as it came, unless one changes all that comes already.
                    unchanged = 0 if state.inbound is not None else max(0, self.tape.faulty_from - count)
                    self._give_to_fault(before + unchanged)
            finally:
                self.reader_lock.release()

    # Sending

    def answer(self, request: Request, parts: tuple[Part, ...]) -> None:
        """Send parts to whoever sent a request, in this thread."""
        if self.mode == "live":
            self.refuse("reply")
        self.send_in_thread(self.checked_parts(parts, "reply()"), request, self.timeout, "reply")

    def send_in_thread(
        self, parts: tuple[Part, ...], request: Request | None, timeout: float, verb: str = "send"
    ) -> None:
        """Send parts, in this thread, when it is their turn."""
        if len(parts) == 1 and isinstance(data := parts[0], bytes):
            lock = self.send_lock
            if self.fault_state is None and len(data) <= CHUNK and lock.take_briefly(False):
                if type(data) is not bytes:
                    data = bytes(data)  # a Request, which would be kept
                give = lock.give_briefly
                try:
                    sent = self._offered(data)
                    # The kernel was full.  The same turn goes on, as a wait: given up in between, another send could
                    # come into the midst of these bytes.
                    if sent < len(data):
                        lock.keep()
                        give = lock.release
                        run_in_thread(send(self, data, timeout, sent), self, _Refusal(self, verb))
                    return
                finally:
                    give()
        elif takes_time(parts) or (ends(parts) and self.may_wait_to_end()):
            self.refuse(verb)
        run_in_thread(self.sending(parts, request, timeout, verb), self, _Refusal(self, verb))

    def send_bytes(self, data: bytes, timeout: float, verb: str) -> None:
        """Send bytes, in this thread, whose turn it is, where there is no fault state."""
        sent = self._offered(data) if len(data) <= CHUNK else 0
        if sent < len(data):
            run_in_thread(send(self, data, timeout, sent), self, _Refusal(self, verb))

    def _offered(self, data: bytes) -> int:
        """Send what the kernel takes at once; return how many bytes.  The second of the short ways."""
        stream, sock = self.stream, self.tape.socket
        if stream.detached or sock is None or sock.fileno() < 0:
            sock = stream.socket_for("send on")  # which raises
        if not data:
            return 0
        if stream.may_begin_tls:
            stream.note_early_hello()
        try:
            return sock.offer(data)  # type: ignore[no-any-return]
        except OSError as error:
            raise stream.lost_by(error) from None

    def sending(
        self, parts: tuple[Part, ...], request: Request | None, timeout: float, verb: str = "send", what: object = None
    ) -> Operation[None]:
        """Send parts when it is their turn.

        Args:
            what: What messages say of who holds the turn meanwhile; see ``SendLock.acquire``.
        """
        yield from self.turn(f"{verb}()", Deadline(timeout), what)
        try:
            yield from perform_parts(self, parts, request, timeout)
        finally:
            self.send_lock.release()

    def turn(self, verb: str, deadline: Deadline, what: object = None) -> Operation[None]:
        """Become the one who writes; whoever runs this releases ``send_lock``."""
        while not self.send_lock.acquire(0.0, what):
            if not deadline.left():
                raise self.late_turn(verb, deadline)
            yield Wait(until=deadline.at, is_idle=False)

    def interpose(self) -> None:
        """Put an interposer before a handler class's socket, if faults are injected; also called when that begins."""
        if self.fault_state is not None and self.tape.interposer is None and self.is_raw():
            self.tape.interposer = Interposer(self)

    def begin_fault_state(self) -> FaultState:
        """Return what is other than usual on this connection, from now on if nothing was."""
        with self.tape.recorder.lock:
            if self.fault_state is None:
                self.fault_state = FaultState()
            return self.fault_state

    def stop_if_ended(self) -> None:
        """Let whoever drives this connection end quietly, if an injection, or a rule for its handshake, has ended it.

        Raises:
            ServerStopping: It has.
        """
        tape = self.tape
        with tape.lock:
            # The tape's lock, so that an end from outside at this moment keeps its own reason.
            if not tape.server_ended:
                return
            self.ended_by_fault = True
            tape.cut = tape.cut or "an injection has ended the connection"
        self.stream.socket_for("go on with")

    def check_cut(self) -> None:
        """Raise if this side has ended the connection.

        Raises:
            ServerStopping: It has.
        """
        tape = self.tape
        if tape.cut:
            tape.saw_cut = True
            raise ServerStopping(tape.cut)

    def end_by_failed_injection(self, error: Exception, origin: Location) -> NoReturn:
        """Record that an injection could not be performed, and end the connection; its handler is not to blame.

        A handler may catch what it likes, and write it to the client: so it is not raised there.

        Raises:
            ServerStopping: Always.
        """
        tape = self.tape
        if error is tape.peer_error or error is self.stream.quiet_end:
            raise error  # the client is gone, or refuses the handshake, which is for the handler to learn
        # The failure before the reset: the client may react to the reset at once, and with it the test may end.
        self.context.failures.record(pointing_at(error, origin), self.where(), tape.began)
        tape.note(NOTE, said_shortly(error).encode("utf-8", "backslashreplace"))
        self.ended_by_fault = True
        self.stream.reset_now()
        with tape.lock:
            tape.cut, tape.saw_cut = tape.cut or "an injection failed", True
        raise ServerStopping(tape.cut)

    # TLS

    def starting_tls(self, context: TLSContext | None, deadline: Deadline) -> Operation[None]:
        """Do the server's side of a handshake."""
        given = checked_context(context, "start_tls()") or self.context.tls
        if given is None:
            raise ValueError("start_tls() expected a context: give it one, or give the server tls=")
        at_once = self.context.transport == "tls" and not self.tape.events
        try:
            for writes in self.stream.start_tls(_context_of(given), at_once=at_once):
                if not deadline.left():
                    text = f"start_tls() waited {deadline} for the client's handshake"
                    raise self.stream.handshake_failed(self.error(DeadlineExceeded, text))
                self.stream.socket_for("start_tls on")
                yield Wait(readable=not writes, writable=writes, until=deadline.at)
        except ScriptMismatch as early:
            raise self.error(ScriptMismatch, str(early)) from None

    # Ending

    def closing(self, notify: bool) -> Operation[None]:
        """Close cleanly, in whatever state it is; unread input is discarded first, for a moment."""
        self.stream.refuse_detached("close")
        if self.is_driven_elsewhere():
            return self.stream.close_from_outside()
        if self.mode == "sunk":
            self.context.read_no_more(self)
        # A close waits for its turn, else it would cut a reply short.  A sender whose client does not read is ended
        # from outside after one deadline, and gets a second one to give up its turn.  After that the close goes on
        # without.
        mine = False
        for _ in range(2):
            deadline = Deadline(self.timeout)
            while not (mine := self.send_lock.acquire(0.0)) and deadline.left():
                yield Wait(until=deadline.at, is_idle=False)
            if mine:
                break
            self.stream.close_from_outside()  # which ends the send that does not end by itself
        try:
            yield from self._closed(notify)
        finally:
            if mine:
                self.send_lock.release()

    def _closed(self, notify: bool) -> Operation[None]:
        steps = self.stream.close(notify)
        try:
            for seconds in steps:
                yield Wait(readable=True, until=original.monotonic() + seconds)
        finally:
            # Close the generator here and not by its reference count: its ``finally`` closes the descriptor.
            steps.close()  # given up, it closes all the same

    def resetting(self) -> Operation[None]:
        """Reset it, in whatever state it is."""
        self.stream.refuse_detached("reset")
        if self.is_driven_elsewhere() and self.stream.can_reset:
            return self.stream.reset_from_outside()
        for seconds in self.stream.reset():
            yield Wait(until=original.monotonic() + seconds, is_idle=False)

    def ending_half(self, what: object = None) -> Operation[None]:
        """End the server's half of the stream."""
        yield from self.turn("send_eof()", Deadline(self.timeout), what)
        try:
            self.stream.send_eof()
        finally:
            self.send_lock.release()

    def detach(self) -> socket.socket:
        """Give the socket away, blocking and without a time-out."""
        self.refuse_unreadable("detach")
        if self.is_driven_elsewhere():
            raise InvalidState(f"cannot detach connection {self.index}: another thread drives it")
        state = self.fault_state
        return self.stream.detach(None if state is None or state.inbound is None else state.inbound.arrived)

    def end_from_outside(self, *, reset: bool) -> None:
        """End it, whatever drives it: quietly for that."""
        self.ended_by_fault = True
        if reset and self.stream.can_reset:
            self.stream.reset_from_outside()
        else:
            self.stream.close_from_outside()

    def close(self) -> None:
        """Close cleanly, in the thread that drives it."""
        run_in_thread(self.closing(True), self)

    def is_driven_elsewhere(self, *, writing: bool = False) -> bool:
        """Whether another thread reads or writes: it may stand in a call on the socket that we would close.

        Args:
            writing: The caller is the one who writes now.
        """
        if self.mode == "handled":
            return not self.done and self.thread is not current_thread()
        return self.reader_lock.locked() or (not writing and self.send_lock.locked())

    def may_wait_to_end(self) -> bool:
        """Whether to end it may have to wait for the client: no thread of the server drives it, or this one does."""
        return self.mode != "handled" or self.thread is current_thread()

    # Messages

    def where(self) -> str:
        """Return how messages name it."""
        return f"{self.context.name}, connection {self.index} ({format_peer(self.peer)})"

    def error(self, kind: Any, text: str) -> Any:
        """Return an error about it, with the conversation so far."""
        return with_conversation(kind, self.where(), text, transcript.so_far(self.tape))

    def late(self, verb: Verb, deadline: Deadline, name: str | None = None) -> DeadlineExceeded:
        """Return the error about a unit that did not come in time."""
        waiting = self.stream.buffer
        got, wanted = waiting.shown() if len(waiting) else "", verb.wanted(waiting, self)
        if wanted is None:
            text = f"{name or verb.name}() waited {deadline}" + (f"\n  got {got}" if got else ", and nothing came")
        else:
            text = f"expected {wanted} within {deadline}\n  got {got or 'nothing'}"
        error: DeadlineExceeded = self.error(DeadlineExceeded, text)
        return error

    def unread(self, data: bytes, deadline: Deadline) -> DeadlineExceeded:
        """Return the error about bytes that the client does not read."""
        error: DeadlineExceeded = self.error(
            DeadlineExceeded,
            f"send() waited {deadline}: the client does not read, "
            f"and the kernel takes no more of the {len(data):,} bytes",
        )
        return error

    def late_turn(self, verb: str, deadline: Deadline) -> DeadlineExceeded:
        """Return the error about a turn to send that did not come in time: it says what has it."""
        error: DeadlineExceeded = self.error(
            DeadlineExceeded, f"{verb} waited {deadline} for its turn: {self.send_lock.holder()}"
        )
        return error

    def explained(self, error: Exception) -> BaseException:
        """Return the user's exception for what a verb raised."""
        if isinstance(error, Mismatch):
            if self.probing:
                return ScriptMismatch(str(error))
            mismatch: ScriptMismatch = self.error(ScriptMismatch, str(error) + hint(self))
            return mismatch
        if isinstance(error, EndedWithin):
            got = self.stream.buffer.shown()
            text = f"expected {error}\n  got {got}, and then the client {self._how_it_ended()}"
            incomplete: IncompleteRequest = self.error(IncompleteRequest, text)
            return incomplete
        text = f"expected {error}, but the client {self._how_it_ended()}"
        end = EndOfStream(f"{self.where()}: {text}")
        end.summary = text
        if not self.done:  # else nobody judges any more, and its traceback would hold the connection
            self.stream.quiet_end = end
        return end

    def _how_it_ended(self) -> str:
        return "reset the connection" if self.tape.peer_error else "ended its stream"

    def refuse(self, verb: str) -> None:
        """Refuse a verb that may block, in a coroutine; always, so that the error does not depend on timing.

        Raises:
            BlockingCallInCoroutine: It is called in one.
        """
        kind = loop_blocked_here()
        if kind is not None:
            raise blocking_call(verb, kind, _AWAITED.get(verb) or f"await connection.aio.{verb}(...)")

    def refusal(self, verb: str) -> Callable[[Wait], Wait]:
        """Return what refuses a send in a coroutine that has to wait for more than a moment."""
        return _Refusal(self, verb)

    # For its server

    def is_unread_by_verbs(self) -> bool:
        """Whether this is a live stream that no verb reads."""
        return (self.mode == "sunk" or self.is_raw()) and self.tape.ended_by is None and self.framing is None

    def is_raw(self) -> bool:
        """Whether a handler class has the socket."""
        return self.responder is not None and self.responder.is_raw

    def may_be_answered(self) -> bool:
        """Whether the client, who may have ended its half, can still read a reply."""
        tape = self.tape
        return tape.ended_by is None or (tape.ended_by == "client" and tape.ended_how == "closed")

    def cut_frames(self) -> None:
        """Let what is received become requests, frame by frame, where no verb reads.  The recorder's lock is held."""
        if self.framing is not None:
            self.cutting = Cutting(self, self.framing)
            self.tape.uncut = self.cutting.queue
            self.tape.tap = self.cutting.cut if self.is_raw() else None

    def cut_no_frames(self) -> None:
        """Leave what is received to verbs from now on.  The recorder's lock is held."""
        self.cutting = self.tape.uncut = self.tape.tap = None

    def cut_what_came(self) -> None:
        """Make requests of the frames that have come whole, without a lock; in the thread that has received them."""
        cutting = self.cutting
        if cutting is not None:
            cutting.cut_beside()

    def keep_whole_stream(self) -> None:
        """Make requests of what was received and no verb has read: its last frame, without framing all of it."""
        cutting = self.cutting
        if cutting is not None:
            cutting.end()
            return cutting.cut() if self.is_raw() else cutting.cut_beside()
        with self.tape.recorder.lock:
            if not self.tape.recorder.dropped and self.tape.received_count:
                self.make_request(self.tape.joined(RECEIVED))

    def end_frames(self) -> None:
        """End the frames of a connection that the server reads, because it stops; wait for no framing."""
        cutting = self.cutting
        if cutting is not None and self.mode == "sunk":
            cutting.end()
            cutting.cut_beside(0)

    def cut_off(self) -> None:
        """End it, because the server stops; what has arrived for a reader that is not reading is recorded first."""
        # A thread of the server gets no help here: the drain has given it time to take what had arrived.
        # A claim that is taken means that a reader of the test is inside, and records by itself.
        if self.mode != "handled" and self.reader_lock.acquire(blocking=False):
            try:
                self.stream.take_the_rest()
            finally:
                self.reader_lock.release()
        self.stream.cut(THE_SERVER_STOPS)

    def finish(self) -> None:
        """Close what no thread of ours closes: connections that the server reads, and the test's."""
        if self.done or self.mode != "handled":
            self.forget_frames()
        if self.mode == "handled" or self.stream.detached:
            return
        for _ in self.stream.close(notify=False):
            pass  # it was cut, so nothing is waited for
        if self.mode == "sunk" and not self.done and not self.stream.buffer.ended:  # else the loop has kept it
            self.keep_whole_stream()
        self.done = True

    def let_go(self) -> None:
        """Undo the circles that it is in, when its server is gone, or has forgotten it.

        Its face, which a test may hold, holds it and not the other way round from now on.
        """
        tape, stream = self.tape, self.stream
        # The face stays usable for code that holds it; code that has only the conversation gets a proxy, which may be
        # dead.
        self.face = weakref.proxy(self.face)
        self.latest = self.responder = None
        self.forget_frames()
        self.cut_no_frames()
        if not stream.detached or self.fileno() < 0:
            tape.interposer = None  # else it has what was read ahead
        if (state := self.fault_state) is not None and state.inbound is not None:
            state.inbound.let_go()
            state.inbound = None
        tape.socket = None

    def forget_frames(self) -> None:
        """Keep no exception that was raised to its driver, which is done: its traceback holds the frames of that.

        Who has caught one keeps it as it is.
        """
        tape, stream = self.tape, self.stream
        stream.quiet_end = None
        if tape.peer_error is not None:
            tape.peer_error = copy(tape.peer_error)  # without its traceback
        if stream.tls is not None and stream.tls.error is not None:
            stream.tls.error = copy(stream.tls.error)


class _Refusal:
    """Refuses a plain send in a coroutine that has to wait for more than a moment; called before each of its waits."""

    __slots__ = ("_conversation", "_until", "_verb")

    def __init__(self, conversation: Conversation, verb: str) -> None:
        self._conversation, self._verb = conversation, verb
        self._until: float | None = None

    def __call__(self, wait: Wait) -> Wait:
        if loop_blocked_here() is None:
            return wait
        now = original.monotonic()
        self._until = until = self._until or now + MOMENT
        # For room, and for its turn, it may wait a moment; a reply that takes longer may wait for that very loop.
        if now >= until or (wait.is_idle and not wait.writable):
            self._conversation.refuse(self._verb)
        return wait if wait.until is not None and wait.until < until else wait._replace(until=until)


def _context_of(given: TLSContext) -> ssl.SSLContext:
    if hasattr(given, "wrap_socket"):  # one of the user's: certificates are not needed for it
        return given  # type: ignore[return-value]
    from ..transport.certificates import server_context_of

    return server_context_of(given)


def _nobody_answers(conversation: Conversation) -> None:
    """Stand in for what answers by rules, until the server has handed it over."""
