"""Bytes that have arrived and not been taken yet.

The rule is that taking a unit costs O(n) however its bytes are cut: a search remembers how far it came,
and a comparison how much it has compared, so that each byte is looked at once, even when they arrive one
by one.  ``bytearray`` gives up bytes at its front in amortised constant time (CPython moves its start);
``bytes`` would copy the rest for each unit.
"""

from __future__ import annotations

from typing import Any


class Buffer:
    """The bytes that wait for a reader.  Not thread-safe: its connection has one reader."""

    __slots__ = ("_asked", "_data", "_seen", "broken", "end_taken", "ended", "lacks")

    def __init__(self) -> None:
        self._data = bytearray()
        self._asked: tuple[str, bytes, int] | None = None  # what _seen belongs to
        self._seen = 0
        self.ended = False  # nothing will be fed any more: the stream is over
        self.end_taken = False  # and a frame went through that end, so that none of no byte is left
        self.lacks: tuple[Any, int] | None = (
            None  # what the frame that is waited for needs next, and how far that reaches
        )
        self.broken = False  # by a reset: what was taken for granted at its end may be missing

    def __len__(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def feed(self, data: bytes) -> None:
        """Append what has arrived."""
        self._data += data

    def take(self, count: int) -> bytes:
        """Remove and return ``count`` bytes, or all there are if they are fewer."""
        self._asked = None
        if count >= len(self._data):
            taken = bytes(self._data)
            self._data.clear()
            return taken
        with memoryview(self._data) as view:
            taken = bytes(view[:count])
        del self._data[:count]
        return taken

    def put_back(self, data: bytes) -> None:
        """Put bytes that were taken before those that are there."""
        self._asked = None
        self._data[:0] = data

    def peek(self, start: int, stop: int) -> bytes:
        """Return a copy of the bytes from ``start`` to ``stop``, fewer if there are fewer; take nothing."""
        with memoryview(self._data) as view:
            return bytes(view[start:stop])

    def find(self, delimiter: bytes, offset: int = 0) -> int:
        """Return how many bytes there are through the first ``delimiter`` that begins at ``offset`` or later, or -1."""
        start = self._resume(("find", delimiter, offset))
        at = self._data.find(delimiter, max(offset, start - len(delimiter) + 1))
        if at >= 0:
            return at + len(delimiter)
        self._seen = len(self._data)
        return -1

    def _resume(self, question: tuple[str, bytes, int]) -> int:
        if self._asked != question:
            self._asked, self._seen = question, 0
        return self._seen
