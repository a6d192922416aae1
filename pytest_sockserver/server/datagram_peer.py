"""Where datagrams to one peer leave: recorded, made faulty, held back, or from elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from ..connection.fault_state import Holding
from ..connection.perform import called, made_of, pass_gate, pause
from ..connection.request import Request
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
from ..scripting.parts import Action, Held, Part, Remark, Spoofed, actions
from .loop import ReplySocket

if TYPE_CHECKING:
    from .datagram import DatagramTestServer

__tracebackhide__ = hide_frame


Send = Callable[[bytes], Operation[None]]


class _Stalled(Exception):
    """Nothing more is said in this reply."""


class DatagramPeer:
    """What is said to one peer goes through here.

    Args:
        sock: The server's socket, or the framework's that answers from the address that was asked.
    """

    def __init__(self, server: DatagramTestServer, sock: Any, tape: Tape, peer: Any) -> None:
        self.server, self.tape, self.peer = server, tape, peer
        self._socket = sock
        self._sent = 0  # datagrams, those without a byte as well
        self.socket = ReplySocket(sock, self._sendto)

    # As a port, on which operations wait

    @property
    def bells(self) -> tuple[Bells, ...]:
        """What is rung when an operation is to look again."""
        return (self.server._recorder.bells,)

    def watch(self, writes: bool, ring: Callable[[], None]) -> None:
        """Watch nothing: no poll tells when an unconnected peer has room again."""

    def unwatch(self, ring: Callable[[], None]) -> None:
        """Watch nothing."""

    def check_cut(self) -> None:
        """Raise if the server stops.

        Raises:
            ServerStopping: It does.
        """
        if self.server._closing:
            raise ServerStopping("the server stops")

    def say(self, parts: Iterable[Part], request: Request | None, lookup: Lookup) -> Operation[None]:
        """Say parts: each bytes part is one datagram; then what earlier replies have held back until now."""
        held = self.server._held_for(self.tape)
        before = list(held)
        sent = self._sent
        acts = actions(parts, partial(called, self.server.transport, request), lookup)
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
        injection = self.server._injections.hit(RECEIVED, self.tape, by_datagram=True)
        hit = injection.fault_rule if injection is not None else None
        held = self.server._held_for(self.tape, heard=True)
        before = list(held)
        if hit is None:
            yield bytes(request)
        else:
            data = bytes(request)
            acts = actions(hit.parts, partial(made_of, self.server.transport, data), _nothing_named, lambda: [data])
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
        server, tape = self.server, self.tape
        for action in acts:
            if isinstance(action, bytes):
                yield from send(action)
            elif isinstance(action, Delay):
                yield from pause(self, action.seconds)
            elif isinstance(action, Jitter):
                yield from pause(self, self._drawn(action))
            elif isinstance(action, Gate):
                try:
                    yield from pass_gate(self, server._gates, action.name, server.timeout)
                except TimeoutError as late:
                    raise with_conversation(DeadlineExceeded, server.name, str(late), server._said()) from None
            elif isinstance(action, OpenGate):
                server.open_gate(action.name)
            elif isinstance(action, Held):
                server._held_for(tape).append(Holding(action.data, action.after))
            elif isinstance(action, Spoofed):
                yield from self._spoof(action)
            elif isinstance(action, Remark):
                tape.note(NOTE, action.text.encode("utf-8", "backslashreplace"))
            elif isinstance(action, Stall):
                raise _Stalled

    def _say_one(self, data: bytes) -> Operation[None]:
        """Say one datagram, or what an injection makes of it."""
        injections = self.server._injections
        hit = injections.hit(SENT, self.tape, by_datagram=True) if injections.sent else None
        if hit is None:
            return self._send(data)
        return self._say_faulty(hit.fault_rule, data)

    def _say_faulty(self, hit: FaultRule, data: bytes) -> Operation[None]:
        acts = actions(hit.parts, partial(made_of, self.server.transport, data), _nothing_named, lambda: [data])
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
        server, tape = self.server, self.tape
        where = f"{server.name}, datagram from {format_peer(self.peer)}"
        server._record_failure(pointing_at(error, hit.origin), where, server._recorder.elapsed())
        tape.note(NOTE, said_shortly(error).encode("utf-8", "backslashreplace"))
        raise ServerStopping("an injection failed")

    def _send(self, data: bytes) -> Operation[None]:
        yield from self.server._sending(self._socket, self.tape, data, self.peer)
        self._sent += 1

    def _sendto(self, data: bytes, peer: Any) -> int:
        """Send what a handler class sends, in its thread."""
        if not self.server._injections.sent or peer != self.peer:
            return self.server._drive(self.server._sending(self._socket, self.tape, data, peer), "sendto")
        self.server._drive(self.say([data], None, _nothing_named), "sendto")
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
            yield from self.server._sending(other, self.tape, action.data, self.peer)

    def _drawn(self, jitter: Jitter) -> float:
        server = self.server
        with server._recorder.lock:
            count = server._draws[self.tape.index] = server._draws.get(self.tape.index, 0) + 1
        seconds = jitter.drawn(self.tape.index, count)
        self.tape.note(NOTE, f"{jitter!r} waits {seconds:.6f} s".encode())
        return seconds


def _nothing_named(name: str) -> bytes:
    raise ValueError(rf"inject() knows no \g<{name}>: nothing is captured of what faults are injected into")
