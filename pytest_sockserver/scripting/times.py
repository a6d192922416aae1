"""How often something is to happen: ``times=`` of rules and scripts."""

from __future__ import annotations

from typing import Any

from ..errors.location import hide_frame
from .frozen import frozen

__tracebackhide__ = hide_frame


_EXPECTED = "times must be an int of at least 1, a pair (least, most) with most None for any number, or None"


@frozen
class Times:
    """At least ``least``, at most ``most`` times; ``None`` for any number."""

    least: int
    most: int | None

    def __str__(self) -> str:
        if self.most is None:
            least = "once" if self.least == 1 else f"{self.least} times"
            return f"at least {least}" if self.least else "any number of times"
        if self.least == self.most:
            return "once" if self.most == 1 else f"{self.most} times"
        return f"{self.least} to {self.most} times"

    @property
    def at_most(self) -> str:
        """How often at most, in words."""
        return "once" if self.most == 1 else "any number of times" if self.most is None else f"{self.most} times"


ANY_NUMBER = Times(0, None)


def checked_times(times: object) -> Times:
    """Return what ``times=`` says, or raise the error that says what it may be."""
    if times is None:
        return ANY_NUMBER
    pair: Any = times
    least, most = pair if isinstance(pair, tuple) and len(pair) == 2 else (pair, pair)
    if not _is_count(least) or not (most is None or _is_count(most)):
        raise TypeError(f"{_EXPECTED}, not {times!r}")
    if least < 0 or (most is not None and (most < 1 or most < least)):
        raise ValueError(f"{_EXPECTED}, not {times!r}")
    return Times(least, most)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
