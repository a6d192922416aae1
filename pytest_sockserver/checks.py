"""What the arguments of the verbs may be, and what to say when they are something else."""

from __future__ import annotations


def checked_timeout(timeout: float | None) -> float | None:
    """Return ``timeout``, or raise the error that says what it must be: seconds above 0."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0 seconds, not {timeout!r}")
    return timeout


def checked_size(verb: str, n: int) -> int:
    """Return ``n``, or raise the error that says what it must be: a number of bytes above 0."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"{verb}() expected a number of bytes, not {n!r}")
    if n <= 0:
        raise ValueError(f"{verb}() expected a number of bytes above 0, not {n}")
    return n


def checked_delimiter(delimiter: bytes) -> bytes:
    """Return ``delimiter`` as bytes, or raise the error that says what it must be."""
    if isinstance(delimiter, str):
        raise TypeError(f"recv_until() expected bytes, not the text {delimiter!r}: write b{delimiter!r}")
    if not isinstance(delimiter, (bytes, bytearray)):
        raise TypeError(f"recv_until() expected bytes, not {delimiter!r}")
    if not delimiter:
        raise ValueError("recv_until() expected a delimiter of at least one byte")
    return bytes(delimiter)


def checked_literal(match: object, verb: str = "expect") -> bytes:
    """Return ``match`` as bytes, or say why the verb takes nothing else on a stream without frames."""
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
