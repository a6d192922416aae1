"""What a handler receives of a stream that a fault is injected into; and an interposer for a handler class's socket.

An injection of what is received is performed once a connection, while its bytes come in: its parts are walked through,
and where ``DATA`` stands, whatever has arrived is handed on.  What the parts do not hand on is never heard.
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
from .fault_state import FaultState
from .perform import after_held, do, say

if TYPE_CHECKING:
    from ..faults.active import Injection
    from .connection import Connection

__tracebackhide__ = hide_frame


class _Want(Effect):
    """The action of ``DATA`` where nothing has arrived that was not handed on."""


WANT = _Want()

#: Acts that the client cannot notice before it has sent something.
_NEEDS_BYTES = (Delay, Jitter, ReadSlowly)


class InboundFault:
    """What becomes of the bytes of one connection.

    Attributes:
        arrived: What has come from the kernel, and not been handed on.
    """

    def __init__(self, connection: Connection, injection: Injection | None) -> None:
        self.arrived = Buffer()
        self._connection = connection.index
        self._silent = injection  # until it has an effect
        fault_rule = injection.fault_rule if injection is not None else None
        self.origin = fault_rule.origin if fault_rule is not None else None
        parts: tuple[Part, ...] = fault_rule.parts if fault_rule is not None else (DATA,)
        # One iterator, which stands where it stands while nobody asks: a ``for`` that is left would close it.
        self.actions = self._all(actions(parts, _no_function, connection._lookup, self._data))

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


def receive_faulty(connection: Connection, fault_state: FaultState, receive: Callable[[Buffer], object]) -> bytes:
    """Return what is handed on next; ``b""`` at the end of the stream.  In the thread of the connection's reader.

    Args:
        receive: Waits for what comes, or the end of the stream, and feeds a buffer with it.
    """
    intake = fault_state.intake or begin_inbound_fault(connection, fault_state)
    while (action := _next(connection, intake)) is not None:
        if isinstance(action, bytes):
            if action:
                intake.has_effect()
                return action
        elif action is WANT:
            receive(intake.arrived)
            if len(intake.arrived):
                intake.has_effect()
        elif isinstance(action, Effect):
            if not isinstance(action, _NEEDS_BYTES):
                intake.has_effect()
            for need in do(connection, action, connection._timeout):
                connection._await(need)
            connection._stop_if_ended()
    return b""


def begin_inbound_fault(connection: Connection, fault_state: FaultState) -> InboundFault:
    """Choose what becomes of all that a connection receives from now on."""
    probes = connection._server._probes
    probes.look(but=connection)
    used = partial(probes.used, connection)
    hit = connection._server._injections.hit(RECEIVED, connection._tape, has_come=False, used=used)
    fault_state.intake = InboundFault(connection, hit)
    return fault_state.intake


def _next(connection: Connection, intake: InboundFault) -> Action | None:
    try:
        return next(intake.actions, None)
    except Exception as error:
        if intake.origin is None:
            raise
        connection._end_by_failed_injection(error, intake.origin)


def _no_function(function: Function) -> Iterable[Part]:
    raise UnsupportedFault(f"inject() cannot call {shown(function)} with what is received on a stream")


class Interposer:
    """Stands before the socket of a handler class, and receives and sends for it where faults are injected.

    One thread reads; any may write, one at a time, as with the verbs.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sayer: int | None = None  # the thread whose writes are our own; compared by that thread with itself
        self._hearing = False
        self._heard = bytearray()

    def send(self, data: Any) -> bool:
        """Say what the handler says; tell whether that was done."""
        connection = self._connection
        if self._sayer == original.get_ident() or connection._writing.is_held_here():
            return False  # the fault was injected where the verb sends
        if not connection._writing.acquire(connection._timeout):
            # What a socket raises whose client does not read.
            raise TimeoutError(f"timed out: {connection._writing.holder()}")
        self._sayer = original.get_ident()
        try:
            for need in after_held(connection, say(connection, bytes(data), connection._timeout), connection._timeout):
                connection._await(need)
        finally:
            self._sayer = None
            connection._writing.release()
        return True

    def recv(self, sock: Any, size: int) -> bytes | None:
        """Return what the handler receives; ``None`` if no fault is injected."""
        connection, fault_state = self._connection, self._connection._begin_fault_state()
        faulty = (
            connection._server._injections.received or fault_state.intake is not None or fault_state.pace is not None
        )
        if self._hearing or not size or not faulty:
            return None
        self._hearing = True
        try:
            if not self._heard:
                self._heard += receive_faulty(connection, fault_state, partial(self._receive, sock))
        finally:
            self._hearing = False
        taken = bytes(self._heard[:size])
        del self._heard[:size]
        return taken

    def _receive(self, sock: Any, buffer: Buffer) -> None:
        fault_state = self._connection._begin_fault_state()
        data = sock.recv(fault_state.pace[0] if fault_state.pace is not None else CHUNK)
        if data:
            buffer.feed(data)
        else:
            buffer.ended = True
        self._connection._keep_pace(fault_state)
