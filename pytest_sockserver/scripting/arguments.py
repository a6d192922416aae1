"""What the arguments of the verbs may be, and what to say when they are something else."""

from __future__ import annotations

import re

from ..errors.location import hide_frame
from .matching import Match, PatternText, checked_match, is_empty

__tracebackhide__ = hide_frame


#: Seconds: a day.  No test waits longer, and whatever waits for us takes it: poll() takes 24 days, a lock 292 years.
#: A longer time is a slip (milliseconds, a point in time), and would be an OverflowError in the midst of a wait.
LONGEST_WAIT = 86_400


def checked_timeout(timeout: float | None) -> float | None:
    """Return ``timeout``, or raise the error that says what it must be: seconds above 0."""
    return None if timeout is None else checked_seconds(timeout, "timeout must be above 0 seconds")


def checked_seconds(seconds: float, expected: str) -> float:
    """Return a number of seconds above 0, a day at most, or raise the error that says what was expected."""
    if not _is_number(seconds, (int, float)):
        raise TypeError(f"{expected}, not {seconds!r}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{expected}, not {seconds!r}")
    if seconds > LONGEST_WAIT:
        raise ValueError(f"{expected}, and at most {LONGEST_WAIT:,} (a day), not {seconds!r}")
    return seconds


def checked_index(index: int, expected: str, *, least: int) -> int:
    """Return an int of at least ``least``, or raise the error that says what was expected."""
    if not _is_number(index, int):
        raise TypeError(f"{expected}, not {index!r}")
    if index < least:
        raise ValueError(f"{expected}, not {index!r}")
    return index


def _is_number(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def checked_size(verb: str, n: int) -> int:
    """Return ``n``, or raise the error that says what it must be: a number of bytes above 0."""
    return checked_index(n, f"{verb}() expected a number of bytes above 0", least=1)


def checked_delimiter(delimiter: bytes, verb: str = "recv_until") -> bytes:
    """Return ``delimiter`` as bytes, or raise the error that says what it must be."""
    if isinstance(delimiter, str):
        raise TypeError(f"{verb}() expected bytes, not the text {delimiter!r}: write b{delimiter!r}")
    if not isinstance(delimiter, (bytes, bytearray)):
        raise TypeError(f"{verb}() expected bytes, not {delimiter!r}")
    if not delimiter:
        raise ValueError(f"{verb}() expected a delimiter of at least one byte")
    return bytes(delimiter)


def checked_literal(data: object, verb: str) -> bytes:
    """Return bytes, at least one, or raise the error that says what the verb expected."""
    if isinstance(data, str):
        raise TypeError(f"{verb}() expected bytes, not the text {data!r}: write b{data!r}")
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(
            f"{verb}() expected bytes, not {data!r}: on a stream without frames what a pattern or a predicate matches "
            "would depend on how the bytes arrive"
        )
    if not data:
        raise ValueError(f"{verb}() expected at least one byte; the end of the stream is expect_eof()")
    return bytes(data)


def checked_expected(match: Match, *, datagrams: bool = False) -> Match:
    """Return what ``expect`` is to take: a match, and on a stream at least one byte; a datagram may have none."""
    if isinstance(match, str):
        raise TypeError(f"expect() expected bytes, not the text {match!r}: write b{match!r}")
    checked = checked_match(match)
    if is_empty(checked) and not datagrams:
        raise ValueError("expect() expected at least one byte; the end of the stream is expect_eof()")
    return checked


def checked_line(match: Match) -> Match:
    """Return what a line is to match; bytes that end as a line does never could."""
    if isinstance(match, PatternText):
        return match
    checked = checked_match(match)
    if isinstance(checked, bytes) and checked.endswith(b"\n"):
        bare = checked.rstrip(b"\r\n")
        raise ValueError(f"expect_line() compares the line without its ending: write {bare!r}, not {checked!r}")
    if isinstance(checked, re.Pattern) and checked.pattern.endswith((rb"\n", b"\n")):
        raise ValueError(
            f"expect_line() compares the line without its ending: leave the ending out of {checked.pattern!r}"
        )
    return checked
