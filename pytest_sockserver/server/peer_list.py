"""What a server of datagrams has received, from whom, and the thread that answers.

The loop's thread receives and records; one further thread answers, in the order of arrival, so that a
slow handler delays replies and never the recording.
"""

from __future__ import annotations

import socket
from collections import deque
from functools import partial
from typing import Any

from ..connection import transcript
from ..connection.context import Context
from ..connection.request import Request
from ..connection.runners import left_of
from ..connection.waits import Wait
from ..errors.exceptions import InvalidState
from ..errors.location import hide_frame
from ..originals import Thread, original
from ..recording.events import NOTE
from ..recording.recorder import Tape
from ..scripting.parts import Part, check_fit, checked_parts
from ..transport.published import Published
from ..transport.tapped_socket import ready
from .datagram_declarations import DatagramDeclarations
from .datagram_peer import DatagramPeer
from .datagram_reply import Reply
from .datagram_script import DatagramScript
from .loop import ReceivingServer
from .losses import Drops, Loss, of_drops, with_losses
from .outbox import Outbox
from .traffic import Traffic

__tracebackhide__ = hide_frame

# A datagram passes three places, each guarded by the recorder's lock: `_todo`, in order of arrival; `answering`, the
# one that is being answered; `_parked`, replies that wait for a time or a gate.  The loop's thread fills `_todo`, the
# answering thread alone moves a datagram on, and a stop empties the first and the last.
#
# Rules:
#
# - A datagram is recorded and queued in one step under the lock.  A wait that sees the request may rely on the
#   answering thread seeing it too.
# - The answering thread lets the lock go before it answers: reply functions and predicates are the user's code.
# - A parked reply lets later datagrams pass.  One that waits for room does not, since what is sent to one client has to
#   keep its order.
# - A script that is answering keeps its next datagrams to itself (`DatagramScript.waiting`), and puts them back at the
#   front of `_todo`.  At the end they would come after datagrams that arrived later.
# - Idle means that nothing is queued or being answered.  Parked replies do not count: a gate may never be opened, and
#   each end of a test would take its whole second.
#
# Not done: a datagram that came before anything was declared is recorded and never answered.  There is no thread and no
# socket for each peer.


class PeerList(Traffic):
    """The peers of one server of datagrams, and the thread that answers them.

    Attributes:
        declared: What may answer.
        outbox: How it leaves.
        tapes: By peer; guarded by the recorder's lock, as all below is.
        answering: The datagram that is being answered.
    """

    framework: ReceivingServer | None = None

    def __init__(
        self, context: Context, published: Published, declared: DatagramDeclarations, rcvbuf: int | None
    ) -> None:
        super().__init__(context, published, "receiving")
        self._recorder, self._rcvbuf = context.recorder, rcvbuf
        self.declared, self.outbox = declared, Outbox(context)
        self.outbox.said = self.said
        self.tapes: dict[Any, Tape] = {}
        # With whether faults were injected already.
        self._todo: deque[tuple[Request, DatagramPeer, bool]] = deque()
        self._parked: list[tuple[Reply, Wait]] = []  # replies that wait for a time or a gate
        self.answering: Request | None = None
        self._drops = Drops()
        self._granted = 0  # bytes of the receive buffer, as the system counts them

    def clear(self) -> list[object]:
        """Forget what was declared and what came; return what is to be let go without the lock, which must be held."""
        gone: list[object] = [self.tapes, *self.declared.clear(), *self.outbox.clear()]
        self.tapes = {}
        return gone

    def let_go(self) -> None:
        super().let_go()
        self.outbox.let_go()

    # Called by the framework, in the loop's thread

    def arrived(self, data: bytes, sock: Any, peer: Any) -> None:
        """Record a datagram, and hand it to the thread that answers."""
        with self._recorder.lock:
            tape = self.tapes.get(peer)
            if tape is None:
                tape = self.tapes[peer] = self._recorder.add_tape(peer)
            outlet = DatagramPeer(self.outbox, sock, tape, peer)
            tape.received(data)
            request = Request(data, peer=peer, time=self._recorder.elapsed(), outlet=outlet)
            self._recorder.add_request(request)
            if self.declared:
                # The outlet keeps the socket of its arrival: after an outage there is another one.
                self._todo.append((request, outlet, False))
                self._ask_answerer()

    # The thread that answers

    def _ask_answerer(self) -> None:
        """Wake the thread that answers; start it with the first datagram.  The recorder's lock must be held."""
        if self.outbox.answerer is None and not self.outbox.is_closing:
            name = f"sockserver {self.label()} answers"
            answerer = Thread(target=self._answer_all, name=name, daemon=True)
            answerer.start()  # which waits for the lock
            self.outbox.answerer = answerer  # only now: if it cannot be started, the next datagram tries again
        self.outbox.changed.notify_all()

    def _answer_all(self) -> None:
        """Answer, in the order of arrival; a reply that waits for a time or a gate lets the others pass."""
        outbox = self.outbox
        while True:
            with self._recorder.lock:
                # Under one lock with the choice of the next one, which is for a moment neither queued nor being
                # answered.
                self.answering = None
                while (reply := self._next_reply()) is None:
                    if self.outbox.is_closing:
                        return
                    outbox.changed.wait(self._seconds_to_wait())
                self.answering = reply.request
            wait = reply.go_on()
            if wait is not None:
                with self._recorder.lock:
                    self._parked.append((reply, wait))

    def _next_reply(self) -> Reply | None:
        """Return the reply that can go on, else one to a datagram that has none yet.  The lock must be held."""
        if self.outbox.is_rung:  # each of them looks again
            self.outbox.is_rung = False
            self._parked = [(reply, Wait(until=0.0)) for reply, _ in self._parked]
        now = original.monotonic()
        for at, (reply, wait) in enumerate(self._parked):
            if wait.until is not None and wait.until <= now:
                del self._parked[at]
                return reply
        if self._todo and not self.outbox.is_closing:
            return self._reply_to(*self._todo.popleft())
        return None

    def _seconds_to_wait(self) -> float | None:
        left = [left for _, wait in self._parked if (left := left_of(wait)) is not None]
        return min(left, default=None)

    def _reply_to(self, request: Request, outlet: DatagramPeer, heard: bool) -> Reply:
        if request.peer not in self.tapes:  # cleared meanwhile
            self.tapes[request.peer] = outlet.tape = self._recorder.add_tape(request.peer)
        return Reply(request, outlet, self.declared, self._put_back, heard=heard)

    def _put_back(self, script: DatagramScript) -> None:
        """Let what has come for a script meanwhile be taken."""
        with self._recorder.lock:
            # The answering thread calls this when it is done with a reply, and looks into `_todo` next: there is nobody
            # to wake.
            script.answering = False
            self._todo.extendleft(reversed(script.waiting))
            script.waiting.clear()

    def unasked_peer(self, peer: Any, parts: tuple[Part, ...]) -> DatagramPeer:
        """Return where datagrams to an address leave that has not asked."""
        check_fit(checked_parts(parts, "send_to()"), self.context.transport, "send_to()")
        framework, state = self.framework, self.context.state
        if framework is None or state != "started":
            raise InvalidState(f"cannot send_to() in state {state!r}: expected 'started'")
        with self._recorder.lock:
            if peer not in self.tapes:
                self.tapes[peer] = self._recorder.add_tape(peer)
            return DatagramPeer(self.outbox, framework.socket, self.tapes[peer], peer)

    # Asked by the verdict

    def is_idle(self) -> bool:
        framework = self.framework
        assert framework is not None
        try:
            if self.context.state == "started" and (ready(framework.socket, False, 0) or framework.taking):
                return False
        except (OSError, ValueError):
            return False  # closed at this moment: it is being stopped
        return self.all_answered()

    def all_answered(self) -> bool:
        """Tell whether each datagram that was received was answered."""
        with self._recorder.lock:
            # Blocked by a client that does not read: that will not change, so it counts as idle.
            return self.outbox.is_blocked or (not self._todo and self.answering is None)

    def begin_test(self) -> None:
        super().begin_test()
        with self._recorder.lock:
            if self.framework is not None:
                self._drops.begin(self.framework.socket)

    def losses(self) -> list[Loss]:
        count = self.note_drops()
        return [*super().losses(), *([of_drops(count, self._rcvbuf, self._granted)] if count else [])]

    def note_drops(self) -> int:
        """Ask the kernel what it has dropped since the test began; note it in the record, and return it.

        The record has it where it was asked, after the latest datagram: the kernel counts, and does not say when.
        """
        with self._recorder.lock:
            if self.context.transport != "udp" or self.framework is None:
                return 0  # a unix socket makes its client wait, or fail, when the queue is full (unix(7))
            count = self._drops.count(self.framework.socket)
            tapes = self._recorder.tapes
            if count > self._drops.noted and tapes:
                self._drops.noted = count
                latest = max(tapes, key=lambda tape: tape.events[-1][0] if tape.events else tape.began)
                latest.note(NOTE, of_drops(count, self._rcvbuf, self._granted).text.encode())
            return count

    def past_injections(self) -> str:
        with self._recorder.lock:
            came = any(tape.received_count for tape in self._recorder.tapes)
        if not came or self.declared:
            return ""
        return (
            "\n  nothing is declared that answers, and faults are injected into what that would receive: the record, "
            "next_request() and wait_for() have what the client sent"
        )

    def said(self) -> str:
        losses = self.losses()  # first: it notes them in the record
        with self._recorder.lock:
            said = partial(transcript.datagram_lines, list(self._recorder.tapes), limit=200)
            shown = transcript.ends_of(said, 0, transcript.MESSAGE_LINES, "lines before")
        nothing = f"no datagram has come {self._recorder.since().lstrip() or 'so far'}"
        return with_losses("\n".join(shown) if shown else nothing, losses)

    # Asked by the life cycle

    def begin(self) -> None:
        """Begin a further life."""
        self.outbox.is_closing, self.outbox.answerer = False, None

    def receive_on(self, bound: socket.socket) -> ReceivingServer:
        """Return what receives on a bound socket from now on."""
        self._granted = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.framework = self.outbox.framework = ReceivingServer(self, bound)
        return self.framework

    def say_no_more(self) -> Request | None:
        """Say no more, and wake who waits; return the datagram that is being answered."""
        with self._recorder.lock:
            self.outbox.is_closing = True
            self._todo.clear()
            self._parked.clear()
            self.outbox.changed.notify_all()
            self._recorder.bells.ring()
            return self.answering

    def close(self) -> None:
        """Close the socket, and keep the count of what the kernel has dropped of its queue."""
        self.note_drops()
        with self._recorder.lock:
            if self.framework is not None:
                # First: the kernel's count goes with the socket.
                self._drops.closing(self.framework.socket)
                self.framework.server_close()

    def replace(self, holder: socket.socket) -> None:
        """Close a socket that has held the port while the server refused."""
        with self._recorder.lock:
            self._drops.closing(holder)
            holder.close()
