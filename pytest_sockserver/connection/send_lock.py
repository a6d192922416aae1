"""Whose turn it is to send on a connection."""

from __future__ import annotations

from typing import Final

from ..errors.location import hide_frame, place_of_thread
from ..originals import acquired, original
from ..recording.bells import Bells

__tracebackhide__ = hide_frame

# States of the turn:
#
#   free -> briefly taken -> free            a send that the kernel takes at once: no holder is noted
#   free -> briefly taken -> kept -> free    the kernel was full: ``keep`` notes the holder, and the send waits
#   free -> held -> free                     a send that may wait from its beginning
#   free -> owned -> free                    a rule's reply: its thread may take the turn again, ``_depth`` counts that
#
# Only the thread, or the coroutine, that has the turn changes ``_holder``, ``_what``, ``part`` and ``_owner``.
#
# Lock-free reads.  ``_owner`` and ``_holder`` are compared with the caller's own number.  Another thread can only write
# its own number or ``None`` there, so a thread finds its number only where it has put it, or a coroutine of its loop.
# ``holder()`` reads the three fields for a message, without a common moment; a message may be late, not wrong in kind.
#
# Why no lock that knows its thread (an RLock): two coroutines of one loop share a thread, and the second would come
# into the midst of the first one's bytes.  Ownership is therefore a step of its own, which only the driver takes.
#
# The order in a release: first the fields, then the lock, then the bells.  Fields that are cleared after the lock was
# released would be those of the next holder.  A ring before the release would wake waiters, which find the lock taken
# and sleep on; the release itself would then wake nobody.
#
# This is the outermost lock that a conversation has.  A thread that has it may take the tape's and the recorder's.  It
# is never waited for while one of these is held: the user's code that runs under it may wait for them.


#: Characters of a part in a message.
_SHOWN: Final = 100


class SendLock:
    """A lock whose release also wakes coroutines, which cannot block on it.

    A thread may *own* it: from the matching of a request to the end of its reply the writing side is the driver's,
    which takes it again for each thing that it sends.  Coroutines share their loop's thread and never own one.

    It is the one lock under which code of the user runs: reply functions, and parts that wait.  So each wait for it has
    a deadline, whose error says by ``holder()`` what has it.

    Attributes:
        take_briefly: Takes the turn at once, or returns ``False``: for what the kernel takes at once, which does not
            wait.  The lock's own method, so that it costs no call of ours; ``give_briefly`` ends it.
        part: What is performed in it and is more than bytes.  Written by the thread that has the turn, for messages.
    """

    __slots__ = ("_bells", "_depth", "_holder", "_lock", "_owner", "_what", "part", "take_briefly")

    def __init__(self, bells: Bells) -> None:
        self._lock = original.Lock()
        self.take_briefly = self._lock.acquire
        self._bells = bells
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
        # Nested, in a reply function for example: the bytes belong to the reply that is under way.
        if self._owner == original.get_ident():
            self._depth += 1
            return True
        if not self._lock.acquire(False) and not acquired(self._lock, seconds):
            return False
        self._holder, self._what, self.part = original.get_ident(), what, None
        return True

    def own(self, seconds: float, rule: object) -> bool:
        """Take the turn for the reply of a rule, in this thread, which may take it again meanwhile."""
        # The free lock is taken without a further call: each request that a rule answers passes here.
        if not self._lock.acquire(False):
            if not self.acquire(seconds, rule):
                return False
        else:
            self._holder, self._what, self.part = original.get_ident(), rule, None
        self._owner = self._holder
        return True

    def keep(self) -> None:
        """Keep the turn that was taken briefly: ``release`` ends it now."""
        self._holder, self._what, self.part = original.get_ident(), None, None

    def give_briefly(self) -> None:
        """Let the next one, after ``take_briefly``."""
        self._lock.release()
        # A look without the bells' lock.  Who waits hangs up its ring and then tries the lock again; so either this
        # look sees the ring, or that try comes after the release.
        if self._bells.rings:
            self._bells.ring()

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
        if self._bells.rings:
            self._bells.ring()
