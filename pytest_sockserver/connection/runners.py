"""What runs operations: a thread here, an event loop, asyncio's or trio's, in ``loops``.

A runner makes its bell when the operation has to wait for the first time, so that one which goes through at once costs
no descriptor; the first Wait is therefore not obeyed.  It clears the bell before the operation looks, never after.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ..errors.location import hide_frame
from ..originals import POLLIN, POLLOUT, greenlets_sleep, looked_for, original
from ..recording.bells import Bells
from ..recording.recorder import BUSY, PARKED, SENDING, WAITING
from ..socketserver.wakeup import Wakeup
from .waits import Operation, Wait

__tracebackhide__ = hide_frame

# The life of one run in a thread:
#
#   1. The operation runs to its first Wait without any bell.  Most operations end here: the unit was there, or the
#      kernel took the bytes.
#   2. A bell is made and hung up at all of the port's bells, and the operation looks again.  What changed between its
#      first look and the hanging up rang nobody; the second look sees it.  That is why the first Wait is dropped.
#   3. Wait, clear the bell if it rang, look; until the operation returns or raises.
#   4. The operation is closed, the bell is taken down everywhere, and only then its descriptor is closed.  A ring after
#      the close would write to a number that belongs to another file by then; the lock in ``Bells`` rules that out.
#
# The bell is cleared after the wait and before the look.  Cleared after the look, a ring that came in between would be
# lost, and the operation would sleep until its deadline over a gate that is open.
#
# The activity is part of the contract with the drain (``kernel.quiet``): WAITING, SENDING or PARKED is set before the
# poll, BUSY directly after it and before the operation can take a byte.  A Wait with ``is_idle=False`` stays BUSY: the
# connection still has something to do by itself, a turn to get or a reset to finish.
#
# One bell serves one thread.  Runs share nothing but the port.  While one waits, it may hold the turn to send and no
# other lock.


T = TypeVar("T")


class Port(Protocol):
    """What an operation waits on."""

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 if there is none, or it is closed."""

    @property
    def bells(self) -> Sequence[Bells]:
        """What is rung when the operation is to look again."""

    def set_activity(self, activity: str) -> None:
        """Note what the thread that runs it does."""


def run_in_thread(operation: Operation[T], port: Port, check: Callable[[Wait], Wait] | None = None) -> T:
    """Run an operation in this thread; return what it returns.

    Args:
        check: Returns how each Wait is obeyed; what it raises ends the operation.
    """
    # Without a bell: see above.
    try:
        next(operation)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    bell, bells = Wakeup(), port.bells
    for each in bells:
        each.add(bell.wake)
    try:
        while True:
            wait = next(operation)
            if check is not None:
                wait = check(wait)
            if wait.is_idle:
                port.set_activity(WAITING if wait.readable else SENDING if wait.writable else PARKED)
            try:
                _wait(wait, port, bell)
            finally:
                port.set_activity(BUSY)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        operation.close()
        for each in bells:
            each.remove(bell.wake)
        bell.close()


def left_of(wait: Wait) -> float | None:
    """Return the seconds that a Wait may take at most."""
    return None if wait.until is None else max(0.0, wait.until - original.monotonic())


if original.poll is not None:  # a library may have taken it out of ``select``

    def _wait(wait: Wait, port: Port, bell: Any) -> None:
        # The number is asked anew for each wait: TLS puts another socket in the place of the first, and a closed one
        # has -1.  Then the bell alone is polled.
        poller, number, seconds = original.poll(), port.fileno(), left_of(wait)
        poller.register(bell.fileno(), POLLIN)
        if number >= 0 and (wait.readable or wait.writable):
            poller.register(number, (POLLIN if wait.readable else 0) | (POLLOUT if wait.writable else 0))
        if "greenlet" in sys.modules and (sleep := greenlets_sleep()) is not None:
            happened: Any = looked_for(lambda: poller.poll(0), seconds, sleep)
        else:
            # Rounded up: rounded down, the last millisecond before a deadline would be a loop without a wait.
            happened = poller.poll(None if seconds is None else math.ceil(seconds * 1000))
        if any(each == bell.fileno() for each, _ in happened):
            bell.drain()

else:  # Windows; not tried there

    def _wait(wait: Wait, port: Port, bell: Any) -> None:
        reading: list[Any] = [bell, port] if wait.readable else [bell]
        writing = [port] if wait.writable else []
        readable, _, _ = original.select(reading, writing, writing, left_of(wait))
        if bell in readable:
            bell.drain()
