"""What a handler hears of a stream that is disturbed; and how a handler class's own socket is stood in front of.

A disturbance of what is received is performed once a connection, while its bytes come in: its parts are walked through,
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
from ..scripting.parts import DATA, Act, Action, Function, Part, actions, shown
from ..transport.stream import CHUNK
from .fault_state import Unrest
from .perform import after_held, do, say

if TYPE_CHECKING:
    from ..faults.active import Disturbing
    from .connection import Connection

__tracebackhide__ = hide_frame


class _Want(Act):
    """The action of ``DATA`` where nothing has arrived that was not handed on."""


WANT = _Want()

#: Acts that the client cannot notice before it has sent something.
_NEEDS_BYTES = (Delay, Jitter, ReadSlowly)


class Intake:
    """What becomes of the bytes of one connection.

    Attributes:
        arrived: What has come from the kernel, and not been handed on.
    """

    def __init__(self, connection: Connection, disturbing: Disturbing | None) -> None:
        self.arrived = Buffer()
        self._connection = connection.index
        self._silent = disturbing  # until it has an effect
        disturbance = disturbing.disturbance if disturbing is not None else None
        self.origin = disturbance.origin if disturbance is not None else None
        parts: tuple[Part, ...] = disturbance.parts if disturbance is not None else (DATA,)
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
        """Note that bytes have come, or that the disturbance does something without any."""
        if self._silent is not None:
            self._silent.has_effect(self._connection)
            self._silent = None

    def _all(self, acts: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions of the parts; after the last of them what arrives is dropped."""
        yield from acts
        while not self.arrived.ended:
            self.arrived.take(len(self.arrived))
            yield WANT


def hear(connection: Connection, unrest: Unrest, receive: Callable[[Buffer], object]) -> bytes:
    """Return what is handed on next; ``b""`` at the end of the stream.  In the thread of the connection's reader.

    Args:
        receive: Waits for what comes, or the end of the stream, and feeds a buffer with it.
    """
    intake = unrest.intake or begin_to_hear(connection, unrest)
    while (action := _next(connection, intake)) is not None:
        if isinstance(action, bytes):
            if action:
                intake.has_effect()
                return action
        elif action is WANT:
            receive(intake.arrived)
            if len(intake.arrived):
                intake.has_effect()
        elif isinstance(action, Act):
            if not isinstance(action, _NEEDS_BYTES):
                intake.has_effect()
            for need in do(connection, action, connection._timeout):
                connection._await(need)
            connection._stop_if_ended()
    return b""


def begin_to_hear(connection: Connection, unrest: Unrest) -> Intake:
    """Choose what becomes of all that a connection receives from now on."""
    probes = connection._server._probes
    probes.look(but=connection)
    used = partial(probes.used, connection)
    hit = connection._server._disturbances.hit(RECEIVED, connection._tape, has_come=False, used=used)
    unrest.intake = Intake(connection, hit)
    return unrest.intake


def _next(connection: Connection, intake: Intake) -> Action | None:
    try:
        return next(intake.actions, None)
    except Exception as error:
        if intake.origin is None:
            raise
        connection._end_by_failed_disturbance(error, intake.origin)


def _no_function(function: Function) -> Iterable[Part]:
    raise UnsupportedFault(f"disturb() cannot call {shown(function)} with what is received on a stream")


class InFront:
    """Stands in front of the socket that a handler class has, and reads and writes for it where that is disturbed.

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
            return False  # what a verb sends was disturbed there
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
        """Return what the handler hears; ``None`` if nothing is disturbed."""
        connection, unrest = self._connection, self._connection._upset()
        disturbed = connection._server._disturbances.received or unrest.intake is not None or unrest.pace is not None
        if self._hearing or not size or not disturbed:
            return None
        self._hearing = True
        try:
            if not self._heard:
                self._heard += hear(connection, unrest, partial(self._receive, sock))
        finally:
            self._hearing = False
        taken = bytes(self._heard[:size])
        del self._heard[:size]
        return taken

    def _receive(self, sock: Any, buffer: Buffer) -> None:
        unrest = self._connection._upset()
        data = sock.recv(unrest.pace[0] if unrest.pace is not None else CHUNK)
        if data:
            buffer.feed(data)
        else:
            buffer.ended = True
        self._connection._keep_pace(unrest)
