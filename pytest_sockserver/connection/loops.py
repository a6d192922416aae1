"""Run operations, and ask queries, in a coroutine of asyncio or trio.

No worker thread waits in a coroutine's stead, so cancelling is clean: it arrives at a wait, where the operation is
given up; what it had taken lies in the conversation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ..errors.location import hide_frame
from ..originals import Thread, acquired, clock_is_real, original
from ..recording.bells import Bells
from .queries import Pending, Query
from .runners import left_of
from .waits import Operation

__tracebackhide__ = hide_frame

# The same contract as in ``runners``, with these differences:
#
# - The bell costs no descriptor, so it is made first and hung up before the first look.  Then the first Wait is obeyed.
# - The socket is watched by the server's own thread (``watch``) and not by the loop.  So it is the same on asyncio, on
#   uvloop and on trio, and no loop has a descriptor registered that another thread may close.
#   A watch is for one ring.  It is taken back on each way out, since the number may belong to another file later.
# - The activity is not set: the thread that drives the connection, if there is one, is not this one.
#
# A ring may come in any thread, with the recorder's lock held.  So it only hands a call to the loop, by what that has
# for other threads, and neither waits nor runs anything here.  A loop that is closed cannot be rung; nobody waits
# there.
#
# A bell is cleared after its wait and before the next look, in the loop's own thread.  Rings take effect in that thread
# as well: one that comes after the clearing makes the next wait return at once.
#
# Deadlines use the loop's timer only if its clock goes with ours.  A loop whose clock a test has frozen or made leap
# would never end the wait, or would end it at once.  There a thread rings at the deadline (``Alarm``).


T = TypeVar("T")

#: Seconds by which a loop's clock may differ from ours: uvloop looks at its own once for each round.
_IN_STEP = 1.0


class Bell(Protocol):
    """Something a coroutine can wait for and any thread can ring."""

    def ring(self) -> None:
        """Wake the coroutine, or let its next wait return at once.  Any thread; does not block."""

    async def wait(self, seconds: float | None) -> None:
        """Wait until it is rung, or for so long."""


class _AsyncioBell:
    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            pass  # the loop was closed under a wait that nobody will resume

    async def wait(self, seconds: float | None) -> None:
        # Not wait_for(): before 3.12 it loses a cancellation that comes together with the answer (CPython issue 86296).
        timer = None if seconds is None else self._timer(seconds)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._event.clear()

    def _timer(self, seconds: float) -> Any:
        # A loop's timers stand still where a test has frozen its clock, and a loop with a clock of its own may leap.
        if clock_is_real() and abs(self._loop.time() - original.monotonic()) < _IN_STEP:
            return self._loop.call_later(seconds, self._event.set)
        return Alarm(seconds, self.ring)


class _TrioBell:
    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def ring(self) -> None:
        try:
            self._token.run_sync_soon(self._set, idempotent=True)
        except self._trio.RunFinishedError:
            pass

    def _set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        clock = self._trio.lowlevel.current_clock()
        real = clock_is_real() and type(clock).__name__ == "SystemClock"  # else as above
        alarm = None if seconds is None or real else Alarm(seconds, self.ring)
        try:
            with self._trio.move_on_after(seconds if seconds is not None and real else float("inf")):
                await self._event.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
        # A new one, as trio's events cannot be cleared.
        self._event = self._trio.Event()


def _bell() -> Bell:
    asyncio = sys.modules.get("asyncio.events")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return _AsyncioBell()
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return _TrioBell()
    raise RuntimeError("server.aio is for coroutines of asyncio or trio, and neither loop runs here")


class LoopPort(Protocol):
    """What an operation waits on."""

    @property
    def bells(self) -> Sequence[Bells]:
        """What is rung when the operation is to look again."""

    def watch(self, writes: bool, ring: Callable[[], None]) -> None:
        """Ring once when the socket is readable, or writable."""

    def unwatch(self, ring: Callable[[], None]) -> None:
        """Ring no more."""


async def run_in_loop(operation: Operation[T], port: LoopPort) -> T:
    """Run an operation in this coroutine; return what it returns."""
    bell, bells = _bell(), port.bells
    for each in bells:
        each.add(bell.ring)
    try:
        while True:
            try:
                wait = next(operation)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            # After the look, and the readiness is a level: input that came since then makes the watch ring at once.
            watched = wait.readable or wait.writable
            if watched:
                port.watch(wait.writable, bell.ring)
            try:
                await bell.wait(left_of(wait))
            finally:
                if watched:
                    port.unwatch(bell.ring)
    finally:
        operation.close()
        for each in bells:
            each.remove(bell.ring)


async def arrive(query: Query[T]) -> T:
    """Wait in this coroutine for the answer of a query."""
    bell = _bell()
    # Hung up before the first poll: a change in between rings, and the wait below returns at once.
    with query.recorder.waking(bell.ring):
        while True:
            answer = query.poll()
            if not isinstance(answer, Pending):
                return answer
            await bell.wait(query.left())


async def look_until(done: Callable[[], object], until: Callable[[], object], seconds: float) -> None:
    """Wait until ``done()``, looking every so many seconds, as long as ``until()``."""
    bell = _bell()
    while not done() and until():
        await bell.wait(seconds)


class Alarm:
    """A call after some seconds, unless it is cancelled before: for who has no clock that can be trusted.

    A thread for each, which ends with it.

    Args:
        ring: Called in that thread; must not block.
    """

    def __init__(self, seconds: float, ring: Callable[[], object]) -> None:
        # A lock and not an event: it is taken from the originals, and a wait for it with a time-out is all that is
        # needed.
        self._pending = original.Lock()
        self._pending.acquire()
        self._seconds, self._ring = seconds, ring
        Thread(target=self._run, name="sockserver alarm", daemon=True).start()

    def cancel(self) -> None:
        """Let it not ring any more; once.  One that rings at this moment still does."""
        self._pending.release()

    def _run(self) -> None:
        if not acquired(self._pending, self._seconds):
            self._ring()
