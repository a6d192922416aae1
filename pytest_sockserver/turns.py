"""Whose turn it is on a connection: one reader at a time, and one writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import WrongState
from .originals import acquired, original
from .recording.recorder import Recorder
from .scripting import reading

if TYPE_CHECKING:
    from .connection import Connection


class Turn:
    """A lock whose release also wakes coroutines, which cannot block on it.

    A thread may *own* it: from the taking of a request to the end of its reply the writing side is the driver's, who
    takes it again for each thing that he says.  Coroutines share their loop's thread and never own one.
    """

    __slots__ = ("_depth", "_lock", "_owner", "_recorder")

    def __init__(self, recorder: Recorder) -> None:
        self._lock = original.Lock()
        self._recorder = recorder
        self._owner: int | None = None  # written by the owner alone, who compares it with himself
        self._depth = 0  # the owner's alone

    def acquire(self, seconds: float | None) -> bool:
        """Take the turn; tell whether it was to be had within so many seconds, 0 for at once."""
        if self._owner == original.get_ident():
            self._depth += 1
            return True
        return acquired(self._lock, seconds)

    def own(self, seconds: float | None) -> bool:
        """Take the turn for this thread, which may take it again meanwhile."""
        if not self.acquire(seconds):
            return False
        self._owner = original.get_ident()
        return True

    def locked(self) -> bool:
        """Tell whether somebody else has the turn."""
        return self._owner != original.get_ident() and self._lock.locked()

    def release(self) -> None:
        """Let the next one."""
        if self._owner == original.get_ident():
            if self._depth:
                self._depth -= 1
                return
            self._owner = None
        self._lock.release()
        with self._recorder.lock:
            self._recorder.changed()

    def __enter__(self) -> None:
        self.acquire(None)

    def __exit__(self, *error: object) -> None:
        self.release()


class Reading:
    """Be a connection's one reader for the length of a block, and explain what its steps raise.

    A class, since its frame can be hidden from reports; those of contextlib can't.
    """

    __slots__ = ("_connection", "_verb")

    def __init__(self, connection: Connection, verb: str) -> None:
        self._connection = connection
        self._verb = verb

    def __enter__(self) -> None:
        __tracebackhide__ = True
        if not self._connection._reader.acquire(blocking=False):
            raise WrongState(
                f"cannot {self._verb}() on connection {self._connection.index}: another thread is reading it"
            )

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        self._connection._reader.release()
        if isinstance(error, (reading.Ended, reading.EndedWithin, reading.Mismatch)):
            raise self._connection._explained(error) from None
