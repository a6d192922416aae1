"""Who is to look again when something has changed.

Whoever waits adds its ring before it looks, so that no change is lost.  Rings are called, and taken away, under a lock:
a ring may be a write to a descriptor, and a late one would hit the next file of that number.
"""

from __future__ import annotations

from collections.abc import Callable

from ..originals import original


class Bells:
    """The rings of those who wait for one thing.

    Attributes:
        rings: They, for who only looks whether there are any.
    """

    __slots__ = ("_lock", "rings")

    def __init__(self) -> None:
        self._lock = original.RLock()  # the innermost; re-entrant: a user's __del__ may run anywhere (server/base.py)
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
