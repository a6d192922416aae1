"""End connections after a time, whatever drives them: one thread for all of a server's, started by the first."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count

from ..originals import Condition, Thread, original


class Expiry:
    """The clock of one server.

    Args:
        name: The thread's name.
        failed: Called, in the thread, with what one of the calls has raised, and the thread's name; it goes on.
    """

    def __init__(self, name: str, failed: Callable[[BaseException, str], None]) -> None:
        self._name = name
        self._failed = failed
        self._changed = Condition()  # guards everything below
        self._due: list[tuple[float, int, Callable[[], object]]] = []  # a heap
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closing = False

    def after(self, seconds: float, end: Callable[[], object]) -> None:
        """Call ``end``, in the clock's thread, so many seconds from now; it must not block.  Any thread."""
        with self._changed:
            if self._closing:
                return
            heapq.heappush(self._due, (original.monotonic() + seconds, next(self._numbers), end))
            if self._thread is None:
                thread = Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread  # only now: if it cannot be started, the next one tries again
            self._changed.notify()

    def close(self) -> threading.Thread | None:
        """Call nothing any more; return the thread, to be joined.  Any thread; also twice."""
        with self._changed:
            self._closing = True
            self._due.clear()
            self._changed.notify()
        return self._thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (not self._due or self._due[0][0] > original.monotonic()):
                    self._changed.wait(self._due[0][0] - original.monotonic() if self._due else None)
                if self._closing:
                    return
                end = heapq.heappop(self._due)[2]
            try:
                end()
            except BaseException as error:  # the thread ends other connections as well
                self._failed(error, self._name)
