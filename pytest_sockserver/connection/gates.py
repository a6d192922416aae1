"""The gates of one server: what a conversation waits for until somebody says so."""

from __future__ import annotations

from collections import Counter

from ..recording.recorder import Recorder


class Gates:
    """Which gates are open, and how often each was opened.  Guarded by the recorder's lock."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._open: set[str] = set()
        self._opened: Counter[str] = Counter()  # never forgotten: who waits now must not miss one that is closed again

    def open(self, name: str) -> None:
        """Open a gate, and wake who waits for it; it stays open until ``clear``.  Any thread."""
        with self._recorder.lock:
            self._open.add(name)
            self._opened[name] += 1
            self._recorder.tell()

    def clear(self) -> None:
        """Close all gates; who waited when one was opened goes on all the same."""
        self._open.clear()

    def opened(self, name: str) -> int:
        """Return how often a gate was opened so far."""
        return self._opened[name]

    def lets_go(self, name: str, before: int) -> bool:
        """Tell whether a gate is open, or was opened since it had been ``before`` times."""
        return name in self._open or self._opened[name] > before
