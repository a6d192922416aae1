"""Where datagrams to one peer leave: recorded, made faulty, held back, or from elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

from ..connection.fault_state import Holding
from ..connection.perform import called, made_of, pass_gate, pause
from ..connection.request import Request, looked_up
from ..connection.waits import Operation, Wait
from ..errors.exceptions import DeadlineExceeded, ServerStopping
from ..errors.location import hide_frame, pointing_at
from ..errors.messages import format_peer, with_conversation
from ..faults.fault_rule import RECEIVED, SENT, FaultRule
from ..originals import original
from ..recording.bells import Bells
from ..recording.events import NOTE
from ..recording.failures import said_shortly
from ..recording.recorder import Tape
from ..scripting.effects import Delay, Gate, Jitter, OpenGate, Stall
from ..scripting.matching import Lookup
from ..scripting.parts import Action, Held, Part, Remark, Spoofed, actions, check_fit, checked_parts, takes_time
from .outbox import Outbox

__tracebackhide__ = hide_frame

# Two ways to send, which differ in the faults that they meet.  `_say_one` asks the injections and performs what they
# make of the datagram.  `_send` is past them: it is for what an injection makes, and for what was held back.  A
# datagram is thereby hit once at most.
#
# What is held back is counted in replies that were sent, not in calls.  So `say` takes a copy of the list first, since
# a reply must not count for what it holds back itself, and counts only if it has sent something.  On the way in each
# datagram counts.
#
# There is nothing to poll: an unconnected socket does not tell when one peer has room.  Therefore `watch` does nothing,
# and a full queue is tried again after a pause.
#
# An injection that cannot be performed is recorded at its own line, and the reply ends with ServerStopping.  As an
# ordinary error it would become the handler's, which has done nothing wrong.
#
# Not done: no fault is injected into what a handler class sends to another peer than the one that it answers.


Send = Callable[[bytes], Operation[None]]


class _Stalled(Exception):
    """Nothing more is said in this reply."""


class ReplySocket:
    """What a datagram handler class finds as its socket: the server's own, each reply recorded before it leaves."""

    def __init__(self, socket: Any, say: Callable[[bytes, Any], int]) -> None:
        self._socket = socket
        self._say = say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendto(self, data: Any, *flags_and_address: Any) -> int:
        """Send a datagram to the address, the last argument."""
        return self._say(bytes(data), flags_and_address[-1])


class DatagramPeer:
    """What is said to one peer goes through here.

    Args:
        sock: The server's socket, or the framework's that answers from the address that was asked.
    """

    def __init__(self, outbox: Outbox, sock: Any, tape: Tape, peer: Any) -> None:
        self.outbox, self.tape, self.peer = outbox, tape, peer
        self._socket = sock
        self._sent = 0  # datagrams, those without a byte as well

    @property
    def socket(self) -> ReplySocket:
        """What a handler class finds as its socket."""
        return ReplySocket(self._socket, self._sendto)

    # As a port, on which operations wait

    @property
    def bells(self) -> tuple[Bells, ...]:
        """What is rung when an operation is to look again."""
        return (self.outbox.context.recorder.bells,)

    def watch(self, writes: bool, ring: Callable[[], None]) -> None:
        """Watch nothing: no poll tells when an unconnected peer has room again."""

    def unwatch(self, ring: Callable[[], None]) -> None:
        """Watch nothing."""

    def check_cut(self) -> None:
        """Raise if the server stops.

        Raises:
            ServerStopping: It does.
        """
        self.outbox.check_cut()

    # Saying and hearing

    def reply(self, request: Request, parts: tuple[Part, ...]) -> None:
        """Say parts to whoever sent a request, in the caller's thread."""
        if takes_time(parts):
            self.outbox.refuse("reply")
        self.outbox.drive(self.replying(request, parts), "reply")

    def replying(self, request: Request, parts: tuple[Part, ...]) -> Operation[None]:
        """Do the same as an operation."""
        checked = checked_parts(parts, "reply()")
        check_fit(checked, self.outbox.context.transport, "reply()")
        lookup = partial(looked_up, self.outbox.captured_of(request.peer), {}, request)
        return self.say(checked, request, lookup)

    def unasked(self, parts: tuple[Part, ...]) -> Operation[None]:
        """Say parts to an address that has not asked, as an operation."""
        lookup = partial(looked_up, self.outbox.captured_of(self.peer), {}, None)
        return self.say(checked_parts(parts, "send_to()"), None, lookup)

    def say(self, parts: Iterable[Part], request: Request | None, lookup: Lookup) -> Operation[None]:
        """Say parts: each bytes part is one datagram; then what earlier replies have held back until now."""
        held = self.outbox.held_for(self.tape)
        before = list(held)
        sent = self._sent
        acts = actions(parts, partial(called, self.outbox.context.transport, request), lookup)
        try:
            yield from self._perform(acts, self._say_one)
        except _Stalled:
            return
        for each in before if self._sent > sent else ():
            each.after -= 1
            if not each.after:
                held.remove(each)
                yield from self._send(each.data)  # past injections, which it met

    def heard(self, request: Request) -> Iterator[Wait | bytes]:
        """Yield what is heard of a datagram that came, after injected faults; and what has to be waited for."""
        injection = self.outbox.context.injections.hit(RECEIVED, self.tape, by_datagram=True)
        hit = injection.fault_rule if injection is not None else None
        held = self.outbox.held_for(self.tape, heard=True)
        before = list(held)
        if hit is None:
            yield bytes(request)
        else:
            data = bytes(request)
            acts = actions(
                hit.parts, partial(made_of, self.outbox.context.transport, data), _nothing_named, lambda: [data]
            )
            try:
                for action in acts:
                    if isinstance(action, bytes):
                        yield action
                    elif isinstance(action, Held):
                        held.append(Holding(action.data, action.after))
                    elif isinstance(action, Spoofed):
                        raise ValueError("inject() cannot spoof what is received: it came from where it came")
                    else:
                        yield from self._perform([action], self._send)
            except _Stalled:
                return
            except ServerStopping:
                raise
            except Exception as error:
                self._failed(error, hit)
        for each in before:
            each.after -= 1
            if not each.after:
                held.remove(each)
                yield each.data

    def _perform(self, acts: Iterable[Action], send: Send) -> Operation[None]:
        outbox, context, tape = self.outbox, self.outbox.context, self.tape
        for action in acts:
            if isinstance(action, bytes):
                yield from send(action)
            elif isinstance(action, Delay):
                yield from pause(self, action.seconds)
            elif isinstance(action, Jitter):
                yield from pause(self, self._drawn(action))
            elif isinstance(action, Gate):
                try:
                    yield from pass_gate(self, context.gates, action.name, context.timeout)
                except TimeoutError as late:
                    raise with_conversation(DeadlineExceeded, context.name, str(late), outbox.said()) from None
            elif isinstance(action, OpenGate):
                outbox.open_gate(action.name)
            elif isinstance(action, Held):
                outbox.held_for(tape).append(Holding(action.data, action.after))
            elif isinstance(action, Spoofed):
                yield from self._spoof(action)
            elif isinstance(action, Remark):
                tape.note(NOTE, action.text.encode("utf-8", "backslashreplace"))
            elif isinstance(action, Stall):
                raise _Stalled

    def _say_one(self, data: bytes) -> Operation[None]:
        """Say one datagram, or what an injection makes of it."""
        injections = self.outbox.context.injections
        hit = injections.hit(SENT, self.tape, by_datagram=True) if injections.sent else None
        if hit is None:
            return self._send(data)
        return self._say_faulty(hit.fault_rule, data)

    def _say_faulty(self, hit: FaultRule, data: bytes) -> Operation[None]:
        acts = actions(hit.parts, partial(made_of, self.outbox.context.transport, data), _nothing_named, lambda: [data])
        try:
            yield from self._perform(acts, self._send)
        except (ServerStopping, _Stalled):
            raise
        except Exception as error:
            self._failed(error, hit)

    def _failed(self, error: Exception, hit: FaultRule) -> NoReturn:
        """Record that an injection could not be performed; the handler is not to blame, and is not told why.

        Raises:
            ServerStopping: Always.
        """
        context, tape = self.outbox.context, self.tape
        where = f"{context.name}, datagram from {format_peer(self.peer)}"
        context.failures.record(pointing_at(error, hit.origin), where, context.recorder.elapsed())
        tape.note(NOTE, said_shortly(error).encode("utf-8", "backslashreplace"))
        raise ServerStopping("an injection failed")

    def _send(self, data: bytes) -> Operation[None]:
        yield from self.outbox.sending(self._socket, self.tape, data, self.peer)
        self._sent += 1

    def _sendto(self, data: bytes, peer: Any) -> int:
        """Send what a handler class sends, in its thread."""
        if not self.outbox.context.injections.sent or peer != self.peer:
            return self.outbox.drive(self.outbox.sending(self._socket, self.tape, data, peer), "sendto")
        self.outbox.drive(self.say([data], None, _nothing_named), "sendto")
        return len(data)

    def _spoof(self, action: Spoofed) -> Operation[None]:
        """Send a datagram from another port of the server's host, or from another address."""
        own = str(self._socket.getsockname()[0])
        host = action.host or own
        if (":" in host) != (":" in own):
            raise ValueError(f"Spoof() was to send from {host}, and the server is at {own}: of another family")
        with original.socket(self._socket.family, socket.SOCK_DGRAM) as other:
            other.bind((host, 0))
            self.tape.note(NOTE, "the next datagram is from {}:{}".format(*other.getsockname()[:2]).encode())
            yield from self.outbox.sending(other, self.tape, action.data, self.peer)

    def _drawn(self, jitter: Jitter) -> float:
        count = self.outbox.draws(self.tape)
        seconds = jitter.drawn(self.tape.index, count)
        self.tape.note(NOTE, f"{jitter!r} waits {seconds:.6f} s".encode())
        return seconds


def _nothing_named(name: str) -> bytes:
    raise ValueError(rf"inject() knows no \g<{name}>: nothing is captured of what faults are injected into")
