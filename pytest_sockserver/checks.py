"""What the arguments of the verbs may be, and what to say when they are something else."""

from __future__ import annotations

from .scripting.matching import Match, checked_match


def checked_timeout(timeout: float | None) -> float | None:
    """Return ``timeout``, or raise the error that says what it must be: seconds above 0."""
    __tracebackhide__ = True
    return None if timeout is None else checked_seconds(timeout, "timeout must be above 0 seconds")


def checked_seconds(seconds: float, expected: str) -> float:
    """Return a number of seconds above 0, or raise the error that says what was expected."""
    __tracebackhide__ = True
    if not _is_number(seconds, (int, float)):
        raise TypeError(f"{expected}, not {seconds!r}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{expected}, not {seconds!r}")
    return seconds


def checked_index(index: int, expected: str, *, least: int) -> int:
    """Return an int of at least ``least``, or raise the error that says what was expected."""
    __tracebackhide__ = True
    if not _is_number(index, int):
        raise TypeError(f"{expected}, not {index!r}")
    if index < least:
        raise ValueError(f"{expected}, not {index!r}")
    return index


def _is_number(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def checked_size(verb: str, n: int) -> int:
    """Return ``n``, or raise the error that says what it must be: a number of bytes above 0."""
    __tracebackhide__ = True
    return checked_index(n, f"{verb}() expected a number of bytes above 0", least=1)


def checked_delimiter(delimiter: bytes) -> bytes:
    """Return ``delimiter`` as bytes, or raise the error that says what it must be."""
    __tracebackhide__ = True
    if isinstance(delimiter, str):
        raise TypeError(f"recv_until() expected bytes, not the text {delimiter!r}: write b{delimiter!r}")
    if not isinstance(delimiter, (bytes, bytearray)):
        raise TypeError(f"recv_until() expected bytes, not {delimiter!r}")
    if not delimiter:
        raise ValueError("recv_until() expected a delimiter of at least one byte")
    return bytes(delimiter)


def checked_literal(match: object, verb: str = "expect") -> bytes:
    """Return ``match`` as bytes, or say why the verb takes nothing else on a stream without frames."""
    __tracebackhide__ = True
    if isinstance(match, (bytes, bytearray)):
        if not match:
            raise ValueError(f"{verb}() expected at least one byte; the end of the stream is expect_eof()")
        return bytes(match)
    if isinstance(match, str):
        raise TypeError(f"{verb}() expected bytes, not the text {match!r}: write b{match!r}")
    raise TypeError(
        f"{verb}() expected bytes, not {match!r}: on a stream without frames what a pattern or a predicate matches "
        "would depend on how the bytes arrive; use expect_line(), or recv_until() and an assertion"
    )


def checked_line(match: Match) -> Match:
    """Return what a line is to match; bytes that end as a line does never could."""
    __tracebackhide__ = True
    checked = checked_match(match)
    if isinstance(checked, bytes) and checked.endswith(b"\n"):
        bare = checked.rstrip(b"\r\n")
        raise ValueError(f"expect_line() compares the line without its ending: write {bare!r}, not {checked!r}")
    return checked
