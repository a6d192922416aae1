"""Faults on what is received, and an interposer for a handler class's socket.

An injection of what is received is performed once a connection, while its bytes come in: its parts are walked through,
and where ``DATA`` stands, whatever has arrived is handed on.  What the parts do not hand on is never received by the
responder.

How far that has come lies in :class:`InboundFault`, and not in the operation that receives: a cancelled read gives its
operation up, and the next one goes on where it was, a delay at its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import UnsupportedFault
from ..errors.location import hide_frame
from ..faults.fault_rule import RECEIVED
from ..originals import original
from ..scripting.buffer import Buffer
from ..scripting.effects import Delay, Jitter, ReadSlowly
from ..scripting.parts import DATA, Action, Effect, Function, Part, actions, shown
from ..transport.stream import CHUNK
from .perform import after_held, do, pause, send
from .runners import run_in_thread
from .waits import Operation

if TYPE_CHECKING:
    from ..faults.active import Injection
    from .conversation import Conversation

__tracebackhide__ = hide_frame


class _Want(Effect):
    """The action of ``DATA`` where nothing has arrived that was not handed on."""


WANT = _Want()

#: Effects that the client cannot notice before it has sent something.
_NEEDS_BYTES = (Delay, Jitter, ReadSlowly)


class InboundFault:
    """What becomes of the bytes of one connection.

    Attributes:
        arrived: What has come from the kernel, and not been handed on.
        under_way: What is being done, if it has to wait.
    """

    def __init__(self, conversation: Conversation, injection: Injection | None) -> None:
        self.arrived = Buffer()
        self._connection = conversation.index
        self._silent = injection  # until it has an effect
        fault_rule = injection.fault_rule if injection is not None else None
        self.origin = fault_rule.origin if fault_rule is not None else None
        parts: tuple[Part, ...] = fault_rule.parts if fault_rule is not None else (DATA,)
        # One iterator, which stands where it stands between two reads: a ``for`` that is left would close it.
        self.actions = self._all(actions(parts, _no_function, conversation.lookup, self._data))
        self.under_way: Operation[None] | None = None

    @classmethod
    def chosen(cls, conversation: Conversation) -> InboundFault:
        """Choose what becomes of all that a connection receives from now on."""
        probes = conversation.context.probes
        probes.look(but=conversation)
        used = partial(probes.used, conversation)
        hit = conversation.context.injections.hit(RECEIVED, conversation.tape, has_come=False, used=used)
        return cls(conversation, hit)

    def feed(self, data: bytes) -> None:
        """Let bytes arrive, or the end of the stream."""
        if data:
            self.arrived.feed(data)
            self.has_effect()
        else:
            self.arrived.ended = True

    def _data(self) -> Iterator[Action]:
        while True:
            if len(self.arrived):
                yield self.arrived.take(len(self.arrived))
            elif self.arrived.ended:
                return
            else:
                yield WANT

    def has_effect(self) -> None:
        """Note that bytes have come, or that the injection does something without any."""
        if self._silent is not None:
            self._silent.has_effect(self._connection)
            self._silent = None

    def _all(self, acts: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions of the parts; after the last of them what arrives is dropped."""
        yield from acts
        while not self.arrived.ended:
            self.arrived.take(len(self.arrived))
            yield WANT


def receive_faulty(conversation: Conversation, arrive: Callable[[], Operation[None]]) -> Operation[None]:
    """Feed the conversation's buffer with what is handed on next, or with the end of the stream.

    Args:
        arrive: Waits for what comes, or the end of the stream, and feeds the fault with it.
    """
    inbound, buffer = conversation.begin_fault_state().begin_inbound(conversation), conversation.stream.buffer
    while True:
        if inbound.under_way is not None:
            for wait in inbound.under_way:  # noqa: UP028 - ``yield from`` would close it with this operation
                yield wait
            inbound.under_way = None
            conversation.stop_if_ended()
        action = _next(conversation, inbound)
        if action is None:
            buffer.ended, buffer.broken = True, inbound.arrived.broken
            return
        if isinstance(action, bytes):
            if action:
                inbound.has_effect()
                buffer.feed(action)
                return
        elif action is WANT:
            yield from arrive()
            if len(inbound.arrived):
                inbound.has_effect()
        elif isinstance(action, Effect):
            if not isinstance(action, _NEEDS_BYTES):
                inbound.has_effect()
            inbound.under_way = do(conversation, action, conversation.timeout)


def _next(conversation: Conversation, inbound: InboundFault) -> Action | None:
    try:
        return next(inbound.actions, None)
    except Exception as error:
        if inbound.origin is None:
            raise
        conversation.end_by_failed_injection(error, inbound.origin)


def _no_function(function: Function) -> Iterable[Part]:
    raise UnsupportedFault(f"inject() cannot call {shown(function)} with what is received on a stream")


class Interposer:
    """Stands before the socket of a handler class, and receives and sends for it where faults are injected.

    One thread reads; any may write, one at a time, as with the verbs.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._sender: int | None = None  # the thread whose writes are our own; compared by that thread with itself
        self._is_receiving = False

    def send(self, data: Any) -> bool:
        """Send what the handler sends; tell whether that was done."""
        conversation = self._conversation
        lock, timeout = conversation.send_lock, conversation.timeout
        if self._sender == original.get_ident() or lock.is_held_here():
            return False  # injected faults were applied to what a verb sends there
        if not lock.acquire(timeout):
            # What a socket raises whose client does not read.
            raise TimeoutError(f"timed out: {lock.holder()}")
        self._sender = original.get_ident()
        try:
            sending = after_held(conversation, send(conversation, bytes(data), timeout), timeout)
            run_in_thread(sending, conversation)
        finally:
            self._sender = None
            lock.release()
        return True

    def recv(self, sock: Any, size: int) -> bytes | None:
        """Return what the handler receives; ``None`` if no fault is injected."""
        conversation = self._conversation
        state, buffer = conversation.begin_fault_state(), conversation.stream.buffer
        if self._is_receiving or not size:
            return None
        if not conversation.is_misheard() and state.pace is None and not len(buffer):
            return None
        self._is_receiving = True
        try:
            if not len(buffer):
                if buffer.ended:
                    return b""
                run_in_thread(receive_faulty(conversation, partial(self._arrive, sock)), conversation)
        finally:
            self._is_receiving = False
        return buffer.take(size)

    def received(self, data: bytes, size: int) -> bytes:
        """Return what the handler receives in the place of what has come while it was in a receive."""
        if self._is_receiving or not (
            self._conversation.tape.came_faulty if data else self._conversation.is_misheard()
        ):
            return data
        self._conversation.begin_fault_state().begin_inbound(self._conversation).feed(data)
        made = self.recv(self._conversation.tape.socket, size)
        return data if made is None else made

    def _arrive(self, sock: Any) -> Operation[None]:
        """Receive as the handler would, with its time-out."""
        conversation = self._conversation
        state = conversation.begin_fault_state()
        data = sock.recv(state.pace[0] if state.pace is not None else CHUNK)
        state.begin_inbound(conversation).feed(data)
        if state.pace is not None:
            yield from pause(conversation, state.pace[1])
