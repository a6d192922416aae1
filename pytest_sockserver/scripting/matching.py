"""Whether bytes are the ones that were meant.

A *match* is ``bytes`` (equal), a compiled pattern of bytes (matches the whole), a predicate (a function of
the bytes), or ``ANY``.  What cannot be a match is refused where it is declared, not where it is compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Union


class _Any:
    def __repr__(self) -> str:
        return "ANY"

    def __reduce__(self) -> str:
        return "ANY"


#: Matches whatever comes.
ANY: Final = _Any()

Match = Union[bytes, "re.Pattern[bytes]", Callable[[Any], object], _Any]


def checked_match(match: Match) -> Match:
    """Return ``match``, or raise the ``TypeError`` that says what it should have been."""
    __tracebackhide__ = True
    if isinstance(match, (bytearray, memoryview)):
        return bytes(match)
    if isinstance(match, str):
        raise TypeError(f"expected bytes, not the text {match!r}: write b{match!r}")
    if isinstance(match, re.Pattern) and not isinstance(match.pattern, bytes):
        raise TypeError(f"expected a pattern of bytes, not of text: write re.compile(rb{match.pattern!r})")
    if isinstance(match, (bytes, re.Pattern, _Any)) or callable(match):
        return match
    raise TypeError(f"expected bytes, a compiled pattern of bytes, a predicate or ANY, not {match!r}")


def matches(match: Match, data: bytes) -> object:
    """Return something true if ``data`` is what ``match`` means: the ``re.Match`` of a pattern, else ``True``."""
    if isinstance(match, bytes):
        return match == data
    if isinstance(match, re.Pattern):
        return match.fullmatch(data)
    return True if isinstance(match, _Any) else match(data)


def described(match: Match) -> str:
    """Return how a message names ``match``: literals and patterns as written, predicates by name and line."""
    if isinstance(match, re.Pattern):
        return f"the pattern {match.pattern!r}"
    if isinstance(match, bytes):
        return shortened(match)
    if isinstance(match, _Any):
        return repr(match)
    code = getattr(match, "__code__", None)
    name = getattr(match, "__qualname__", None) or repr(match)
    return f"the predicate {name}" + (f" ({code.co_filename}:{code.co_firstlineno})" if code else "")


def difference(expected: bytes, got: bytes) -> str:
    """Return where two byte strings part, as words: ``differs at byte 2: b'G' is not b'N'``."""
    for index, (theirs, ours) in enumerate(zip(got, expected, strict=False)):
        if theirs != ours:
            return f"differs at byte {index}: {bytes([theirs])!r} is not {bytes([ours])!r}"
    if len(got) < len(expected):
        return f"ends after {len(got)} of {len(expected)} bytes"
    return f"has {len(got) - len(expected)} bytes more" if len(got) > len(expected) else "equal"


def shown_at(data: bytes, at: int, around: int = 40) -> str:
    """Return the repr of ``data``, or of what stands around byte ``at``, if it is long and that is far inside."""
    if len(data) <= 120 or at < 80:
        return shortened(data)
    start, end = at - around, min(len(data), at + around)
    return f"...{data[start:end]!r}... (bytes {start:,} to {end:,} of {len(data):,})"


def shortened(data: bytes, most: int = 120) -> str:
    """Return the repr of ``data``, cut after ``most`` bytes with the length told."""
    return repr(data) if len(data) <= most else f"{data[:most]!r}... ({len(data):,} bytes)"
