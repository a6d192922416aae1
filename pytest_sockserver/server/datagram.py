"""A server of datagrams: UDP, and unix datagram sockets.

The loop's thread receives and records; one further thread answers, in the order of arrival, so that a
slow handler delays replies and never the recording.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections import deque
from functools import partial
from typing import Any, TypeVar

from ..connection import transcript
from ..connection.deadline import Deadline
from ..connection.fault_state import Holding
from ..connection.request import Request, Value, looked_up
from ..connection.runners import left_of
from ..connection.waits import MOMENT, Operation, Wait, refuse_in_coroutine
from ..errors.exceptions import DeadlineExceeded, InvalidState, ServerStopping
from ..errors.location import hide_frame
from ..errors.messages import format_peer
from ..faults.active import Injection
from ..originals import Condition, Thread, current_thread, original
from ..recording.demands import Period, running
from ..recording.events import NOTE
from ..recording.recorder import Tape
from ..responders.handler import Handler
from ..responders.rulebook import On, RuleBook
from ..scripting.dialogue_reader import Section
from ..scripting.parts import Part, check_fit, checked_parts, takes_time
from ..scripting.rules import CONNECT, HANDSHAKE, RuleMatch
from ..scripting.script import Script
from ..scripting.times import checked_times
from ..transport.address import bind_datagram, enlarge
from ..transport.tapped_socket import ready
from . import life_cycle
from .base import BaseTestServer, H
from .datagram_peer import DatagramPeer
from .datagram_reply import Reply
from .datagram_script import DatagramScript, Sections
from .listener import Refusing
from .loop import ReceivingServer
from .losses import Drops, Loss, of_drops, with_losses

__tracebackhide__ = hide_frame


T = TypeVar("T")

#: Bytes of the largest UDP payload over IPv4: 65,535 less a header of 20 and one of 8 (RFC 791, 768).
MAX_PAYLOAD = 65507

#: Seconds between two tries to send to a peer whose queue is full.
_RETRY = 0.002

_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)  # Windows has none

#: What to write in a coroutine.
_AWAITED = {"reply": "await request.aio.reply(...)", "send_to": "await server.aio.send_to(...)"}


class DatagramTestServer(BaseTestServer):
    """A server of datagrams: UDP, or unix datagrams with ``transport="unix_datagram"``."""

    _kind = socket.SOCK_DGRAM
    _handler_argument = "a Request"

    def __init__(self, *, transport: str = "udp", **options: Any) -> None:
        if transport not in ("udp", "unix_datagram"):
            raise ValueError(f"transport must be 'udp' or 'unix_datagram', not {transport!r}")
        super().__init__(transport, options)
        self._framework: ReceivingServer | None = None
        self._tapes: dict[Any, Tape] = {}  # by peer; guarded by the recorder's lock, as all below is
        self._handler: Handler | None = None
        self._scripts: list[DatagramScript | Sections] = []  # in order of declaration
        self._captured: dict[Any, dict[str, bytes]] = {}  # by peer, then by name
        # With whether faults were injected already.
        self._todo: deque[tuple[Request, DatagramPeer, bool]] = deque()
        self._held: dict[int, list[Holding]] = {}  # replies that are said later, by the tape's index
        self._heard_later: dict[int, list[Holding]] = {}  # and what came, and is heard later
        self._draws: dict[int, int] = {}  # how often each peer's replies have drawn, by the tape's index
        self._blackhole: Injection | None = None  # the latest
        self._parked: list[tuple[Reply, Wait]] = []  # replies that wait for a time or a gate
        self._rung = False  # a gate was opened since they were looked at
        self._work = Condition(self._recorder.lock)
        self._answerer: threading.Thread | None = None
        self._answering: Request | None = None
        self._blocked = False  # the answerer waits for a client that does not read
        self._closing = False
        self._drops = Drops()
        self._granted = 0  # bytes of the receive buffer, as the system counts them

    def clear(self) -> None:
        """Forget what was declared and what was recorded; never a failure.

        What a test demanded is not forgotten any more when its call is over.
        """
        with self._recorder.lock:
            gone = [*self._forget(), self._tapes, self._handler, self._scripts, self._captured]
            self._tapes, self._handler, self._scripts, self._captured = {}, None, [], {}
            self._held, self._heard_later = {}, {}
        del gone  # without the lock: a __del__ of the user's may come with it

    # Called by the framework, in the loop's thread

    def _arrived(self, data: bytes, sock: Any, peer: Any) -> None:
        with self._recorder.lock:
            tape = self._tapes.get(peer)
            if tape is None:
                tape = self._tapes[peer] = self._recorder.add_tape(peer)
            outlet = DatagramPeer(self, sock, tape, peer)
            tape.received(data)
            request = Request(data, peer=peer, time=self._recorder.elapsed(), outlet=outlet)
            self._recorder.add_request(request)
            if self._answers():
                self._todo.append((request, outlet, False))
                self._ask_answerer()

    def _past_injections(self) -> str:
        with self._recorder.lock:
            came = any(tape.received_count for tape in self._recorder.tapes)
        if not came or self._answers():
            return ""
        return (
            "\n  nothing is declared that answers, and faults are injected into what that would receive: the record, "
            "next_request() and wait_for() have what the client sent"
        )

    def _answers(self) -> bool:
        """Whether anything was declared."""
        return bool(self._handler is not None or self._book or self._scripts)

    def _ask_answerer(self) -> None:
        """Wake the thread that answers; start it with the first datagram.  The recorder's lock must be held."""
        if self._answerer is None and not self._closing:
            name = f"sockserver {self._label()} answers"
            answerer = Thread(target=self._answer_all, name=name, daemon=True)
            answerer.start()  # which waits for the lock
            self._answerer = answerer  # only now: if it cannot be started, the next datagram tries again
        self._work.notify_all()

    def _answer_all(self) -> None:
        """Answer, in the order of arrival; a reply that waits for a time or a gate lets the others pass."""
        while True:
            with self._recorder.lock:
                self._answering = None
                while (reply := self._next_reply()) is None:
                    if self._closing:
                        return
                    self._work.wait(self._seconds_to_wait())
                self._answering = reply.request
            wait = reply.go_on()
            if wait is not None:
                with self._recorder.lock:
                    self._parked.append((reply, wait))

    def _next_reply(self) -> Reply | None:
        """Return the reply that can go on, else one to a datagram that has none yet.  The lock must be held."""
        if self._rung:  # each of them looks again
            self._rung = False
            self._parked = [(reply, Wait(until=0.0)) for reply, _ in self._parked]
        now = original.monotonic()
        for at, (reply, wait) in enumerate(self._parked):
            if wait.until is not None and wait.until <= now:
                del self._parked[at]
                return reply
        if self._todo and not self._closing:
            return self._reply_to(*self._todo.popleft())
        return None

    def _seconds_to_wait(self) -> float | None:
        left = [left for _, wait in self._parked if (left := left_of(wait)) is not None]
        return min(left, default=None)

    def _reply_to(self, request: Request, outlet: DatagramPeer, heard: bool) -> Reply:
        if request.peer not in self._tapes:  # cleared meanwhile
            self._tapes[request.peer] = outlet.tape = self._recorder.add_tape(request.peer)
        captured = self._captured.setdefault(request.peer, {})
        return Reply(request, outlet, captured, heard=heard)

    def _held_for(self, tape: Tape, *, heard: bool = False) -> list[Holding]:
        with self._recorder.lock:
            return (self._heard_later if heard else self._held).setdefault(tape.index, [])

    def _script_for(self, request: Request) -> tuple[DatagramScript | None, bool]:
        """Return the script that a datagram belongs to, if there is one, and whether any was declared for its peer."""
        with self._recorder.lock:
            scripts = [
                script
                for each in self._scripts
                if (script := each.script_for(request.peer) if isinstance(each, Sections) else each) is not None
            ]
        return next((script for script in scripts if not script.over), None), bool(scripts)

    def _later(self, script: DatagramScript, request: Request, outlet: DatagramPeer) -> bool:
        """Put a datagram off, if its script is still answering the one before; else begin to answer."""
        with self._recorder.lock:
            if script.answering:
                script.waiting.append((request, outlet, True))
                return True
            script.answering = True
            return False

    def _answered(self, script: DatagramScript) -> None:
        """Let what has come for a script meanwhile be taken."""
        with self._recorder.lock:
            script.answering = False
            self._todo.extendleft(reversed(script.waiting))
            script.waiting.clear()

    # Declaring

    def handler(self, target: H) -> H:
        """Declare what answers from now on; a decorator, also callable with a function or a class.

        Args:
            target: A function of a :class:`Request`, returning its replies, or a ``BaseRequestHandler`` subclass, of
                ``socketserver`` or of ``pytest_sockserver.socketserver``.  The latest declared counts.

        Raises:
            TypeError: It cannot be called like that, or is async or a generator.
        """
        self._handler = Handler(target, self._handler_argument)
        return target

    def on(self, match: RuleMatch, times: int | tuple[int, int | None] | None = None) -> On:
        if match is CONNECT or match is HANDSHAKE:
            raise TypeError(f"on() expected what a datagram is to match, not {match}: datagrams have no connections")
        return super().on(match, times)

    on.__doc__ = BaseTestServer.on.__doc__

    def script(self, times: int | tuple[int, int | None] | None = 1) -> Script:
        """Return a script, empty so far: each ``expect`` takes one datagram, and what follows it answers its sender.

        It has ``expect send open maybe repeat``.  Each part of a ``send`` is one datagram.

        Args:
            times: How often it is performed: exactly so often, ``(least, most)``, or ``None`` for any number of times.

        Raises:
            TypeError, ValueError: ``times`` is no number of times.
        """
        checked, script = checked_times(times), self._new_script()
        declared = DatagramScript(script, checked, None, {}, self._recorder, running())
        with self._recorder.lock:
            self._scripts.append(declared)
            self._demands.add(declared)
        return script

    def dialogue(self, text: str | os.PathLike[str], *, timed: bool = False, **values: Value) -> None:
        """Declare the conversation that a text describes; each line is one datagram.

        Without ``==`` there is one order over all peers; with it each section is for one peer, in order of appearance.
        Arguments and errors are those of the stream server's.
        """
        dialogue = self._parsed(text, values, timed=timed)
        owner = running()
        scripts = [self._of_section(section, values, owner) for section in dialogue.sections]
        rest = dialogue.rest
        with self._recorder.lock:
            if dialogue.numbered:
                further = partial(self._of_section, rest, values, owner) if rest is not None else None
                self._scripts.append(Sections(scripts, further))
            else:
                self._scripts += scripts

    def _of_section(self, section: Section, values: dict[str, Any], owner: Period | None) -> DatagramScript:
        chatter = RuleBook(self._recorder, self.transport)
        for each in section.exchanges:
            chatter.add(each.match, each.parts, each.origin)
        script = DatagramScript(section.script, checked_times(1), chatter, values, self._recorder, owner)
        self._demands.add(script)
        return script

    def _captured_by_scripts(self) -> set[str]:
        return set().union(*[each.captured for each in self._all_scripts()])

    def _all_scripts(self) -> list[DatagramScript]:
        with self._recorder.lock:
            declared = [each.scripts if isinstance(each, Sections) else [each] for each in self._scripts]
        return [script for scripts in declared for script in scripts]

    # Faults

    def refuse(self) -> contextlib.AbstractContextManager[None]:
        """Refuse datagrams from now on, on the same port, which stays reserved.

        A client whose UDP socket is connected is told (ECONNREFUSED), at its next send or receive; another one hears
        nothing.  A client of a unix socket is told by its send.  Also ``with server.refuse():``.

        Raises:
            InvalidState: The server is not running.
        """
        with self._one_at_a_time():
            if self._state == "started":
                self._stop_receiving(Deadline(self.stop_timeout))
                self._hold_address()
                self._state = "refusing"
            elif self._state != "refusing":
                raise InvalidState(f"cannot refuse() in state {self._state!r}: expected 'started'")
        return Refusing(self)

    def blackhole(self) -> Injection:
        """Answer no datagram, until ``listen()``, or the end of a ``with`` block: each is recorded, and lost.

        What is not received cannot be told from what is not answered.
        """
        self._blackhole = self._inject((), direction="received", is_demanded=False)
        self._blackhole.also = self._inject((), is_demanded=False)
        return self._blackhole

    def listen(self) -> None:
        """Receive again after ``refuse()``, on the same address, and answer again after ``blackhole()``.

        A server that receives goes on.

        Raises:
            InvalidState: The server is not running.
        """
        with self._one_at_a_time():
            if self._state not in ("started", "refusing"):
                raise InvalidState(f"cannot listen() in state {self._state!r}: expected 'refusing' or 'started'")
            if self._blackhole is not None:
                self._blackhole.end()
            self._listen_again()

    def send_to(self, peer: Any, *parts: Part) -> None:
        """Say parts to an address that has not asked: an unsolicited datagram, or one that comes before the query.

        Args:
            peer: The client's address, as its socket's ``getsockname()`` says it.

        Raises:
            TypeError: A part is none; or a function, for which there is no request.
            UnsupportedFault: The transport cannot do a part.
            InvalidState: The server is not running.
            BlockingCallInCoroutine: In a coroutine, where it would wait: ``await server.aio.send_to(...)``.
        """
        if takes_time(parts):
            self._refuse("send_to")
        self._drive(self._unasked(self._unasked_peer(peer, parts), parts), "send_to")

    def _unasked_peer(self, peer: Any, parts: tuple[Part, ...]) -> DatagramPeer:
        """Return where datagrams to an address leave that has not asked."""
        check_fit(checked_parts(parts, "send_to()"), self.transport, "send_to()")
        framework = self._framework
        if framework is None or self._state != "started":
            raise InvalidState(f"cannot send_to() in state {self._state!r}: expected 'started'")
        with self._recorder.lock:
            if peer not in self._tapes:
                self._tapes[peer] = self._recorder.add_tape(peer)
            return DatagramPeer(self, framework.socket, self._tapes[peer], peer)

    def _unasked(self, outlet: DatagramPeer, parts: tuple[Part, ...]) -> Operation[None]:
        """Send parts to an address that has not asked."""
        lookup = partial(looked_up, self._captured.setdefault(outlet.peer, {}), {}, None)
        return outlet.say(checked_parts(parts, "send_to()"), None, lookup)

    def _listen_again(self) -> None:
        if self._state == "started":
            return
        assert self._framework is not None
        holder = self._framework.socket
        holds = holder.fileno() >= 0
        if holds:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound = self._bind(beside=holds)
        if holds:
            with self._recorder.lock:
                self._drops.closing(holder)
                holder.close()
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._serve(bound)
        self._state = "started"

    def _hold_address(self) -> None:
        """Keep the port, if it can be kept, on the socket that there is, which no client's datagram reaches any more.

        A connected UDP socket receives from its peer alone, which here is itself; for whoever else sends there is
        nobody (ECONNREFUSED by ICMP), whoever holds a copy of it.  SO_REUSEADDR, by which a new one is bound beside it
        to take its place, is set for that moment alone.
        """
        framework = self._framework
        assert framework is not None
        if self._place is None and os.name == "posix":
            framework.socket.connect(self.address)
        else:
            framework.socket.close()

    def open_gate(self, name: str) -> None:
        super().open_gate(name)
        with self._recorder.lock:
            self._rung = True
            self._work.notify_all()

    open_gate.__doc__ = BaseTestServer.open_gate.__doc__

    # Sending

    def _reply(self, outlet: DatagramPeer, request: Request, parts: tuple[Part, ...]) -> None:
        """Say parts to whoever sent a request, in the caller's thread."""
        if takes_time(parts):
            self._refuse("reply")
        self._drive(self._replying(outlet, request, parts), "reply")

    def _replying(self, outlet: DatagramPeer, request: Request, parts: tuple[Part, ...]) -> Operation[None]:
        """Return what it has to wait for to say parts to whoever sent a request."""
        checked = checked_parts(parts, "reply()")
        check_fit(checked, self.transport, "reply()")
        captured = self._captured.setdefault(request.peer, {})
        lookup = partial(looked_up, captured, {}, request)
        return outlet.say(checked, request, lookup)

    def _drive(self, steps: Operation[T], verb: str) -> T:
        """Say something in the caller's thread, whatever has to be waited for."""
        moment: Deadline | None = None  # for which it may wait in a coroutine, and for room alone
        try:
            while True:
                try:
                    wait = next(steps)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                moment = moment or Deadline(MOMENT)
                if not wait.writable or not moment.left():
                    self._refuse(verb)
                self._wait_here(wait)
        finally:
            steps.close()

    def _refuse(self, verb: str) -> None:
        refuse_in_coroutine(verb, _AWAITED.get(verb, "a plain handler"))

    def _wait_here(self, wait: Wait) -> None:
        with self._recorder.lock:
            if self._closing:
                raise ServerStopping("the server stops")
            answers = current_thread() is self._answerer
            self._blocked = self._blocked or answers
            try:
                self._work.wait(left_of(wait))
            finally:
                self._blocked = self._blocked and not answers
            if self._closing:
                raise ServerStopping("the server stops")

    def _sending(self, sock: Any, tape: Tape, data: bytes, peer: Any) -> Operation[int]:
        """Send one datagram, recorded before it leaves."""
        if self._closing and (self._state != "stopped" or current_thread() is self._answerer):
            raise ServerStopping("the server stops")
        if self._state in ("new", "stopped"):
            raise InvalidState(f"cannot reply() in state {self._state!r}: expected 'started'")
        if self._state == "refusing":
            tape.note(NOTE, f"a reply of {len(data)} bytes is lost: the server refuses".encode())
            return 0
        if sock.fileno() < 0 and self._framework is not None:
            sock = self._framework.socket  # it has refused, and receives again on another one
        if not peer:
            raise ValueError(
                f"the datagram {bytes(data[:40])!r} cannot be sent: its client's socket is not bound to a path, so it "
                "has no address to answer to; return () for no reply"
            )
        if self.transport == "udp" and len(data) > MAX_PAYLOAD:
            raise ValueError(f"a datagram of {len(data):,} bytes cannot be sent: UDP takes at most {MAX_PAYLOAD:,}")
        tape.sending(data)
        try:
            return (yield from self._until_taken(sock, data, peer))
        except BaseException as error:  # that it is given up included
            tape.unsent(len(data))
            if getattr(error, "errno", None) == errno.EMSGSIZE:
                raise ValueError(
                    f"a datagram of {len(data):,} bytes cannot be sent: it is too large for this socket"
                ) from None
            if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
                tape.note(NOTE, f"the client at {format_peer(peer)} is gone: {error.strerror}".encode())
                return 0
            raise

    def _until_taken(self, sock: Any, data: bytes, peer: Any) -> Operation[int]:
        """Send without waiting for ever: the queue of a unix client that does not read is soon full (unix(7))."""
        if not _DONTWAIT:
            return int(sock.sendto(data, peer))
        deadline: Deadline | None = None
        while True:
            try:
                return int(sock.sendto(data, _DONTWAIT, peer))
            except BlockingIOError:
                pass
            deadline = deadline or Deadline(self.timeout)
            if not deadline.left():
                where = format_peer(peer)
                text = f"{self.name}: {where} does not read: a datagram waited {deadline} for room"
                raise DeadlineExceeded(text)
            yield Wait(writable=True, until=original.monotonic() + _RETRY)  # no poll tells when it has room again
            if self._closing:
                raise ServerStopping("the server stops")

    # Life cycle

    def _begin(self) -> None:
        bound, self._bound = self._bound, None
        self._closing, self._answerer = False, None
        self._serve(bound if bound is not None else self._bind())

    def _bind(self, *, beside: bool = False) -> socket.socket:
        """Return a bound socket, at once beside the one that held its port."""
        if self._place is not None:
            return self._place.bind(self._kind, self.options.rcvbuf)
        return bind_datagram(self._family, *self._place_to_bind(), self.options.rcvbuf, reuse=beside)

    def _serve(self, bound: socket.socket) -> None:
        self._publish(bound)
        if self.options.rcvbuf is None:
            enlarge(bound)
        self._granted = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._framework = ReceivingServer(self, bound)
        self._start_loop(self._framework)

    def _idle(self) -> bool:
        framework = self._framework
        assert framework is not None
        try:
            if self._state == "started" and (ready(framework.socket, False, 0) or framework.taking):
                return False
        except (OSError, ValueError):
            return False  # closed at this moment: it is being stopped
        return self._all_answered()

    def _all_answered(self) -> bool:
        with self._recorder.lock:
            return self._blocked or (not self._todo and self._answering is None)

    def _end(self, deadline: Deadline) -> None:
        framework = self._framework
        assert framework is not None
        if self._state == "started":
            self._stop_receiving(deadline)
        if current_thread() is not self._answerer:
            life_cycle.wait_idle(self._all_answered, life_cycle.drain_bound(deadline))
        with self._recorder.lock:
            self._closing = True
            self._todo.clear()
            self._parked.clear()
            self._work.notify_all()
            self._recorder.bells.ring()
            answering = self._answering
        peers = {self._answerer: answering.peer} if answering is not None and self._answerer is not None else {}
        until = life_cycle.end_of_patience(deadline)
        stuck = life_cycle.join([self._answerer, *self._cut_clients()], until)
        self._note_drops()
        with self._recorder.lock:
            self._drops.closing(framework.socket)
            framework.server_close()
        self._release_place()
        self._name_stuck(stuck, peers, deadline)  # last: what is interrupted is done again, and this only once

    def _stop_receiving(self, deadline: Deadline) -> None:
        """End the loop, and receive what is queued."""
        framework = self._framework
        assert framework is not None
        framework.shutdown()
        life_cycle.join([self._loop], life_cycle.end_of_patience(deadline))
        before = -1 if framework.socket.fileno() >= 0 else self._recorder.arrivals
        while before < self._recorder.arrivals and ready(framework.socket, False, 0):
            before = self._recorder.arrivals
            framework._handle_request_noblock()

    def _close_descriptors(self) -> None:
        """In a forked child: close the copy, shut nothing down, join nothing."""
        if self._framework is not None:
            with contextlib.suppress(OSError):
                self._framework.socket.close()

    def _begin_test(self) -> None:
        super()._begin_test()
        with self._recorder.lock:
            if self._framework is not None:
                self._drops.begin(self._framework.socket)

    def _losses(self) -> list[Loss]:
        count = self._note_drops()
        return [*super()._losses(), *([of_drops(count, self.options.rcvbuf, self._granted)] if count else [])]

    def _note_drops(self) -> int:
        """Ask the kernel what it has dropped since the test began; note it in the record, and return it.

        The record has it where it was asked, after the latest datagram: the kernel counts, and does not say when.
        """
        with self._recorder.lock:
            if self.transport != "udp" or self._framework is None:
                return 0  # a unix socket makes its client wait, or fail, when the queue is full (unix(7))
            count = self._drops.count(self._framework.socket)
            tapes = self._recorder.tapes
            if count > self._drops.noted and tapes:
                self._drops.noted = count
                latest = max(tapes, key=lambda tape: tape.events[-1][0] if tape.events else tape.began)
                latest.note(NOTE, of_drops(count, self.options.rcvbuf, self._granted).text.encode())
            return count

    def _threads(self) -> list[threading.Thread | None]:
        return [self._loop, self._answerer]

    def _said(self) -> str:
        losses = self._losses()  # first: it notes them in the record
        with self._recorder.lock:
            said = partial(transcript.datagram_lines, list(self._recorder.tapes), limit=200)
            shown = transcript.ends_of(said, 0, transcript.MESSAGE_LINES, "lines before")
        nothing = f"no datagram has come {self._recorder.since().lstrip() or 'so far'}"
        return with_losses("\n".join(shown) if shown else nothing, losses)
