"""How datagrams leave: one after the other, recorded before they do, and never waited for without a bound."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..connection.context import Context
from ..connection.deadline import Deadline
from ..connection.fault_state import Holding
from ..connection.runners import left_of
from ..connection.waits import MOMENT, Operation, Wait, refuse_in_coroutine
from ..errors.exceptions import DeadlineExceeded, InvalidState, ServerStopping
from ..errors.location import hide_frame
from ..errors.messages import format_peer
from ..originals import Condition, current_thread, original
from ..recording.events import NOTE
from ..recording.recorder import Tape

__tracebackhide__ = hide_frame


T = TypeVar("T")

#: Bytes of the largest UDP payload over IPv4: 65,535 less a header of 20 and one of 8 (RFC 791, 768).
MAX_PAYLOAD: Final = 65507

#: Seconds between two tries to send to a peer whose queue is full.
_RETRY: Final = 0.002

_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)  # Windows has none

#: What to write in a coroutine.
_AWAITED: Final = {"reply": "await request.aio.reply(...)", "send_to": "await server.aio.send_to(...)"}


class Outbox:
    """What one server of datagrams sends.

    Attributes:
        changed: Notified when there is something to answer, a gate was opened, or the server stops.  Its lock, the
            recorder's, guards all below.
        framework: What has received, and has the socket: that of a request may be closed, if the server has refused.
        captured: What names stand for, by peer.
        said: Returns what was said so far, for a message.
        answerer: The thread that answers.
        is_blocked: It waits for a client that does not read.
        is_closing: The server stops, and no more is sent.
        is_rung: A gate was opened since the replies that wait were looked at.
    """

    framework: Any = None
    said: Callable[[], str] = staticmethod(str)
    answerer: threading.Thread | None = None
    is_blocked = False
    is_closing = False
    is_rung = False

    def __init__(self, context: Context) -> None:
        self.context = context
        self.changed = Condition(context.recorder.lock)
        self.captured: dict[Any, dict[str, bytes]] = {}
        self._held: dict[int, list[Holding]] = {}  # replies that are said later, by the tape's index
        self._heard_later: dict[int, list[Holding]] = {}  # and what came, and is heard later
        self._draws: dict[int, int] = {}  # how often each peer's replies have drawn, by the tape's index

    def clear(self) -> list[object]:
        """Forget what was captured and is held back; return what is to be let go without the lock."""
        gone: list[object] = [self.captured]
        self.captured, self._held, self._heard_later = {}, {}, {}
        return gone

    def let_go(self) -> None:
        """Undo the circles that it is in: see ``Service.__del__``."""
        self.framework, self.said = None, str

    def captured_of(self, peer: Any) -> dict[str, bytes]:
        """Return what names stand for in what is said to a peer."""
        return self.captured.setdefault(peer, {})

    def held_for(self, tape: Tape, *, heard: bool = False) -> list[Holding]:
        """Return what is held back of the replies to a peer, or of what has come from it."""
        with self.context.recorder.lock:
            return (self._heard_later if heard else self._held).setdefault(tape.index, [])

    def draws(self, tape: Tape) -> int:
        """Count a further draw of a peer; return how many there were."""
        with self.context.recorder.lock:
            count = self._draws[tape.index] = self._draws.get(tape.index, 0) + 1
            return count

    def open_gate(self, name: str) -> None:
        """Open a gate: the replies that wait for it go on."""
        self.context.gates.open(name)
        self.wake_parked()

    def wake_parked(self) -> None:
        """Let replies that wait for a gate look again."""
        with self.changed:
            self.is_rung = True
            self.changed.notify_all()

    # Waiting

    def drive(self, steps: Operation[T], verb: str) -> T:
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
                    self.refuse(verb)
                self.wait_here(wait)
        finally:
            steps.close()

    def refuse(self, verb: str) -> None:
        """Refuse a verb that may block, in a coroutine."""
        refuse_in_coroutine(verb, _AWAITED.get(verb, "a plain handler"))

    def wait_here(self, wait: Wait) -> None:
        """Wait in this thread.

        Raises:
            ServerStopping: The server stops.
        """
        with self.changed:
            self.check_cut()
            answers = current_thread() is self.answerer
            self.is_blocked = self.is_blocked or answers
            try:
                self.changed.wait(left_of(wait))
            finally:
                self.is_blocked = self.is_blocked and not answers
            self.check_cut()

    def check_cut(self) -> None:
        """Raise if the server stops.

        Raises:
            ServerStopping: It does.
        """
        if self.is_closing:
            raise ServerStopping("the server stops")

    # Sending

    def sending(self, sock: Any, tape: Tape, data: bytes, peer: Any) -> Operation[int]:
        """Send one datagram, recorded before it leaves."""
        state = self.context.state
        if self.is_closing and (state != "stopped" or current_thread() is self.answerer):
            raise ServerStopping("the server stops")
        if state in ("new", "stopped"):
            raise InvalidState(f"cannot reply() in state {state!r}: expected 'started'")
        if state == "refusing":
            tape.note(NOTE, f"a reply of {len(data)} bytes is lost: the server refuses".encode())
            return 0
        if sock.fileno() < 0 and self.framework is not None:
            sock = self.framework.socket  # it has refused, and receives again on another one
        if not peer:
            raise ValueError(
                f"the datagram {bytes(data[:40])!r} cannot be sent: its client's socket is not bound to a path, so it "
                "has no address to answer to; return () for no reply"
            )
        if self.context.transport == "udp" and len(data) > MAX_PAYLOAD:
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
            deadline = deadline or Deadline(self.context.timeout)
            if not deadline.left():
                where = format_peer(peer)
                text = f"{self.context.name}: {where} does not read: a datagram waited {deadline} for room"
                raise DeadlineExceeded(text)
            yield Wait(writable=True, until=original.monotonic() + _RETRY)  # no poll tells when it has room again
            self.check_cut()
