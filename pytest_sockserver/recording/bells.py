"""Who is to look again when something has changed.

Whoever waits adds its ring before it looks, so that no change is lost.  Rings are called, and taken away, under a lock:
a ring may be a write to a descriptor, and a late one would hit the next file of that number.
"""

from __future__ import annotations

from collections.abc import Callable

from ..originals import original


# The protocol, for no lost ring and no late one:
#
#   the waiter: ``add``; look; wait; look again ...; ``remove``
#   the other:  change the state; ``ring``
#
# A change before the waiter's look is seen by the look.  A change after it finds the ring hung up, and wakes the wait.
# The look at ``rings`` in ``ring()`` needs no lock for the same reason: a ring that it misses was added after the state
# had changed, and its waiter has yet to look.
#
# The lock is held while rings are called.  Called from a copy, a ring could come after ``remove`` had returned, to a
# descriptor that is closed.  So a ring must be short: it writes to a descriptor, or hands a call to an event loop.
# It may be called with the recorder's lock, or a tape's, held by the caller, and it takes no lock of these.
#
# A ring says that something changed and not what.  A waiter that was rung for nothing waits again.
class Bells:
    """The rings of those who wait for one thing.

    Attributes:
        rings: They, for who only looks whether there are any.
    """

    __slots__ = ("_lock", "rings")

    def __init__(self) -> None:
        # The innermost.  Re-entrant: a user's __del__ may run anywhere (server/service.py).
        self._lock = original.RLock()
        self.rings: list[Callable[[], None]] = []

    def add(self, ring: Callable[[], None]) -> None:
        """Call ``ring`` at each change from now on: in any thread, with locks held; it must not block."""
        with self._lock:
            self.rings.append(ring)

    def remove(self, ring: Callable[[], None]) -> None:
        """Call it no more; when this returns, it is not being called either."""
        with self._lock:
            self.rings.remove(ring)

    def ring(self) -> None:
        """Let all who wait look again.  Any thread; does not block."""
        if self.rings:
            with self._lock:
                for ring in self.rings:
                    ring()
