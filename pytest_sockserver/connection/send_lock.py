"""Whose turn it is on a connection: one reader at a time, and one writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors.exceptions import InvalidState
from ..errors.location import hide_frame, place_of_thread
from ..originals import acquired, original
from ..recording.recorder import Recorder
from ..scripting import readers

if TYPE_CHECKING:
    from .connection import Connection

__tracebackhide__ = hide_frame


#: Characters of a part in a message.
_SHOWN: Final = 100


class SendLock:
    """A lock whose release also wakes coroutines, which cannot block on it.

    A thread may *own* it: from the matching of a request to the end of its reply the writing side is the driver's,
    which takes it again for each thing that it sends.  Coroutines share their loop's thread and never own one.

    It is the one lock under which code of the user runs: reply functions, and parts that wait.  So each wait for it has
    a deadline, whose error says by ``holder()`` what has it.

    Attributes:
        part: What is performed in it and is more than bytes.  Written by the thread that has the turn, for messages.
    """

    __slots__ = ("_depth", "_holder", "_lock", "_owner", "_recorder", "_what", "part")

    def __init__(self, recorder: Recorder) -> None:
        self._lock = original.Lock()
        self._recorder = recorder
        self._owner: int | None = None  # written by the owner alone, which compares it with itself
        self._depth = 0  # the owner's alone
        # Written with the turn, and read without.
        self._holder: int | None = None  # a thread
        self._what: object = None
        self.part: object = None

    def acquire(self, seconds: float, what: object = None) -> bool:
        """Take the turn; tell whether it was to be had within so many seconds, 0 for at once.

        Args:
            what: The rule that replies, or the line of a coroutine, a str; unless given, a message looks where the
                thread stands.
        """
        if self._owner == original.get_ident():
            self._depth += 1
            return True
        if not self._lock.acquire(False) and not acquired(self._lock, seconds):
            return False
        self._holder, self._what, self.part = original.get_ident(), what, None
        return True

    def own(self, seconds: float, rule: object) -> bool:
        """Take the turn for the reply of a rule, in this thread, which may take it again meanwhile."""
        if not self.acquire(seconds, rule):
            return False
        self._owner = original.get_ident()
        return True

    def locked(self) -> bool:
        """Tell whether another thread has the turn, or a coroutine."""
        return self._owner != original.get_ident() and self._lock.locked()

    def is_held_here(self) -> bool:
        """Tell whether this thread has the turn, or a coroutine that runs in it."""
        return self._holder == original.get_ident()

    def holder(self) -> str:
        """Return what has the turn, in words, after a wait for it.  Any thread; by now it may be another one."""
        ident, what, part = self._holder, self._what, self.part
        if not self._lock.locked() or ident is None:
            return "another send was under way until now"
        thread = next((each.name for each in original.all_threads() if each.ident == ident), "that has ended")
        if isinstance(what, str):  # a coroutine is not where its thread is
            text = f"a send is under way in thread {thread!r}, awaited at {what}"
        else:
            place = place_of_thread(ident)
            name = "a send" if what is None else f"the reply of {what}"
            text = f"{name} is under way in thread {thread!r}" + (f", at {place}" if place else "")
        return text + (f": {repr(part)[:_SHOWN]}" if part is not None else "")

    def release(self) -> None:
        """Let the next one."""
        if self._owner == original.get_ident():
            if self._depth:
                self._depth -= 1
                return
            self._owner = None
        self._holder = None
        self._lock.release()
        with self._recorder.lock:
            self._recorder.changed()


class SingleReader:
    """Be a connection's one reader for the length of a block, and explain what its steps raise.

    A class, since its frame can be hidden from reports; those of contextlib can't.
    """

    __slots__ = ("_connection", "_verb")

    def __init__(self, connection: Connection, verb: str) -> None:
        self._connection = connection
        self._verb = verb

    def __enter__(self) -> None:
        if not self._connection._reader.acquire(blocking=False):
            raise InvalidState(
                f"cannot {self._verb}() on connection {self._connection.index}: another thread is reading it"
            )

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._connection._reader.release()
        if isinstance(error, (readers.Ended, readers.EndedWithin, readers.Mismatch)):
            raise self._connection._explained(error) from None
