"""Bytes that have arrived and not been taken yet.

The rule is that taking a unit costs O(n) however its bytes are cut: a search remembers how far it came, and so does a
comparison, or a framing on its way, so that each byte is looked at once, even when they arrive one by one.  That
progress lies here, under the question that it belongs to, and not in the verb that asks: a verb is a value, which all
connections of a script share.  It is dropped when bytes are taken, or when another question is asked.

``bytearray`` gives up bytes at its front in amortised constant time (CPython moves its start); ``bytes`` would copy the
rest for each unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .matching import Shape, shortened, shown_like

# How a stream ends is four marks, each written by another layer:
#
# - `ended` and `broken` by what feeds the buffer, at the end of the stream and at a reset.  They are taken back only
#   where an injection comes in front of the reader: its own buffer has them then.
# - `end_taken` by a verb or a framing whose unit went through the end.  After it there is no unit without a byte.
# - `end_received` by a verb that returned the end as `b""`.  A loop that asks again gets an error instead of spinning.
#
# Two searches are remembered, each under the question that began it: `find` under its delimiter and offset, `progress`
# under the verb or the framing itself.  To take from the front, or to put something back, moves all offsets, so it
# drops both.  To feed appends at the end and drops neither: that is what makes a unit cost O(n).
#
# Not done: no limit of size, which the verbs have, and no lock.

#: Bytes that a message quotes of what came, at most; what it shows of them is shorter.
QUOTED: Final = 4096


class NeedMore:
    """The type of ``NEED_MORE``."""

    def __repr__(self) -> str:
        return "NEED_MORE"


#: What a verb returns while its unit is not whole.
NEED_MORE: Final = NeedMore()


class Ended(Exception):
    """The stream was over before the unit began; the text says what was wanted."""


class EndedWithin(Exception):
    """The stream ended within the unit; the text says what was wanted, the buffer has what came."""


class Mismatch(Exception):
    """Something else came; the text says what was expected, and what came."""


class Buffer:
    """The bytes that wait for a reader.  Not thread-safe: its connection has one reader.

    Attributes:
        data: They, for who only looks.
        ended: Nothing will be fed any more: the stream is over.
        broken: By a reset: what was taken for granted at its end may be missing.
        end_taken: A unit went through that end, so that none of no byte is left.
        end_received: The end was returned to a reader as ``b""``; the next time it is an error.
        lacks: What the frame that is waited for needs next, and how far that reaches.
        found: What the match of the latest unit has found in it.
    """

    __slots__ = (
        "_progress",
        "_question",
        "_searched",
        "_searched_for",
        "broken",
        "data",
        "end_received",
        "end_taken",
        "ended",
        "found",
        "lacks",
    )

    def __init__(self) -> None:
        self.data = bytearray()
        self._searched_for: tuple[bytes, int] | None = None  # a delimiter, and from where on
        self._searched = 0  # so many bytes were searched for it
        self._question: object = None
        self._progress: Any = None
        self.ended = self.broken = self.end_taken = self.end_received = False
        self.lacks: tuple[Any, int] | None = None
        self.found: Any = None

    def __len__(self) -> int:
        return len(self.data)

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def feed(self, data: bytes) -> None:
        """Append what has arrived."""
        self.data += data

    def take(self, count: int) -> bytes:
        """Remove and return ``count`` bytes, or all there are if they are fewer."""
        data = self.data
        self._searched_for = self._question = self._progress = None
        if count >= len(data):
            taken = bytes(data)
            data.clear()
            return taken
        with memoryview(data) as view:
            taken = bytes(view[:count])
        del data[:count]
        return taken

    def take_from(self, start: int) -> bytes:
        """Remove and return what has come after so many bytes, which nobody has looked at yet."""
        late = bytes(self.data[start:])
        # From the end: offsets before it still hold, so what is remembered is kept.
        del self.data[start:]
        return late

    def put_back(self, data: bytes) -> None:
        """Put bytes that were taken before those that are there."""
        self.begin_anew()
        # Copies the rest, which is rare: only a frame that the rules do not take comes back.
        self.data[:0] = data

    def peek(self, start: int, stop: int) -> bytes:
        """Return a copy of the bytes from ``start`` to ``stop``, fewer if there are fewer; take nothing."""
        with memoryview(self.data) as view:
            return bytes(view[start:stop])

    def startswith(self, data: bytes) -> bool:
        """Tell whether the first bytes are these."""
        return self.data.startswith(data)

    def find(self, delimiter: bytes, offset: int = 0) -> int:
        """Return how many bytes there are through the first ``delimiter`` that begins at ``offset`` or later, or -1."""
        start, question = offset, (delimiter, offset)
        if self._searched_for == question:
            # The delimiter may have begun in what was searched already, by all but its last byte.
            start = max(offset, self._searched - len(delimiter) + 1)
        at = self.data.find(delimiter, start)
        if at >= 0:
            return at + len(delimiter)
        self._searched_for, self._searched = question, len(self.data)
        return -1

    def progress(self, question: object, begin: Callable[[], Any]) -> Any:
        """Return what a verb keeps between two looks: its own, else what ``begin`` returns.

        Args:
            question: What it belongs to, compared by identity: usually the verb itself.
        """
        if self._question is not question:
            self._question, self._progress = question, begin()
        return self._progress

    def begin_anew(self) -> None:
        """Drop what a verb has kept: the next look begins from the first byte."""
        self._searched_for = self._question = self._progress = None

    # Messages

    def shown(self) -> str:
        """Return what has come and was not taken, as a message shows it."""
        return shortened(self.peek(0, QUOTED), size=len(self))

    def shown_to_the_end(self, like: Shape | None = None) -> str:
        """Return what came before the stream was over; where there is a literal, the end of what came of it."""
        end = "a reset" if self.broken else "the end of the stream"
        if not self.data:
            return end
        got = self.shown() if like is None else shown_like(like, bytes(self), len(self))
        return f"{got} and then {end}"

    def over(self, wanted: str) -> Exception:
        """Return the error about a unit that cannot become whole any more, since the stream is over."""
        return EndedWithin(wanted) if self.data else Ended(wanted)
