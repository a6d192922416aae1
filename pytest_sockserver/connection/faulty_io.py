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

# Where bytes are, in the order in which they move:
#
#   the kernel -> ``InboundFault.arrived`` -> the parts' iterator -> ``stream.buffer`` -> a verb, or a handler class
#
# Without a fault the kernel's bytes go to ``stream.buffer`` directly.  With one, a byte that was received and that
# nobody has taken is in exactly one of these places, or the parts have dropped it.  The end of the stream moves the
# same way, as ``ended`` and ``broken`` of the two buffers: it is taken from one and set on the next.
#
# Rules:
#
# - All of it belongs to the connection's one reader.  There is no lock: ``reader_lock``, or the one thread of a handler
#   class, keeps a second thread out of the iterator, which could not be resumed while it runs.
# - Nothing that must outlive a cancelled read lies in ``receive_faulty`` itself.  The iterator of the parts stands
#   where it stood, and an effect that takes time (``under_way``) is kept with the time at which it ends.
# - The injection is chosen once for a connection.  One that begins later does not replace it.
# - Whether bytes are changed is decided by the record, at the moment at which they were received (``came_faulty``), and
#   not by a look before or after.  The test injects in another thread, and either look would be a race.
# - A hit counts when it has an effect: with the first byte, or with a part that the client notices without one.
#   Otherwise a client that only connects would satisfy the ``times`` of an injection.
#
# Not done: a fault for one message among others.  A stream has no messages, so the parts that are allowed here are
# those for which it does not matter how the bytes were cut.


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

    def let_go(self) -> None:
        """Drop the parts that are under way: their generators hold the conversation, which holds this."""
        self.actions, self.under_way = iter(()), None

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
        # Cleared, so that the recorder's lock is taken once for a connection and not with each chunk.
        if self._silent is not None:
            self._silent.has_effect(self._connection)
            self._silent = None

    def _all(self, acts: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions of the parts; after the last of them what arrives is dropped."""
        yield from acts
        # Take first, and ask for more afterwards: what lies here when the parts are over must not be handed on.
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
            # A stop or an end by the fault itself is looked for when it is over, not before each of its waits: its own
            # waits do that.
            for wait in inbound.under_way:  # noqa: UP028 - ``yield from`` would close it with this operation
                yield wait
            inbound.under_way = None
            conversation.stop_if_ended()
        # Nothing waits between here and the feeding of the buffer, so bytes that the parts have handed on are not lost.
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
        # Read without a lock: only this thread writes its own number there, so it can match for no other thread.
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
        # ``_arrive`` calls the socket's own ``recv``, which asks here again: that inner call has to reach the kernel.
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
        # The injection began while the thread was blocked in the kernel.  These bytes go the long way after all, and
        # what the parts hand on first is what the handler gets.
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
