"""The reading verbs, without a socket.

Each is a generator over a buffer that yields when it needs more: ``True`` if its unit has begun, ``False`` if
not one byte of it has come.  It returns the bytes that it took.  So a verb costs O(n) however the bytes
are cut, and means the same to whoever drives it.

``recv`` takes what comes, ``expect`` demands: the end of the stream where a unit would begin is
:class:`Ended`, within one :class:`EndedWithin`; what is not what was demanded is :class:`Mismatch`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from .buffer import Buffer
from .matching import Match, described, difference, matches, shortened, shown_at

T = TypeVar("T")
Steps = Generator[bool, None, T]


class Ended(Exception):
    """The stream was over before the unit began; the text says what was wanted."""


class EndedWithin(Exception):
    """The stream ended within the unit; the text says what was wanted, the buffer has what came."""


class Mismatch(Exception):
    """Something else came; the text says what was expected, and what came."""


def recv(buffer: Buffer, n: int) -> Steps[bytes]:
    """Take what has come, at most ``n`` bytes; nothing only at the end of the stream."""
    __tracebackhide__ = True
    while not buffer and not buffer.ended:
        yield False
    return buffer.take(n)


def recv_exactly(buffer: Buffer, n: int) -> Steps[bytes]:
    """Take ``n`` bytes."""
    __tracebackhide__ = True
    while len(buffer) < n:
        if buffer.ended:
            raise _ended(buffer, f"{n} bytes")
        yield bool(buffer)
    return buffer.take(n)


def recv_until(buffer: Buffer, delimiter: bytes, max_bytes: int) -> Steps[bytes]:
    """Take all bytes through ``delimiter``, at most ``max_bytes``."""
    __tracebackhide__ = True
    while (size := buffer.find(delimiter)) < 0 and len(buffer) < max_bytes:
        if buffer.ended:
            raise _ended(buffer, f"bytes through {delimiter!r}")
        yield bool(buffer)
    if not 0 <= size <= max_bytes:
        raise Mismatch(f"expected {delimiter!r} within {max_bytes:,} bytes\n  got {shortened(bytes(buffer))}")
    return buffer.take(size)


def recv_all(buffer: Buffer) -> Steps[bytes]:
    """Take all until the end of the stream; nothing, if that is all."""
    __tracebackhide__ = True
    while not buffer.ended:
        yield bool(buffer)
    if buffer.broken:
        raise EndedWithin("all bytes to the end of the stream")
    return buffer.take(len(buffer))


def expect(buffer: Buffer, literal: bytes) -> Steps[bytes]:
    """Take exactly ``literal``; fail at the first byte that differs, without waiting for the rest."""
    __tracebackhide__ = True
    while True:
        got = bytes(buffer) if (differs := buffer.differs(literal) >= 0) or buffer.ended else b""
        if differs:
            at = buffer.differs(literal)
            raise Mismatch(f"expected {shown_at(literal, at)}\n  got {shown_at(got, at)} ({difference(literal, got)})")
        if len(buffer) >= len(literal):
            return buffer.take(len(literal))
        if buffer.ended:
            raise Mismatch(f"expected {shortened(literal)}\n  got {_and_the_end(got)}")
        yield True


def expect_line(buffer: Buffer, match: Match, max_bytes: int) -> Steps[tuple[bytes, object]]:
    """Take a line that ``match`` matches whole, without its ending; return it with its ending, and the match."""
    __tracebackhide__ = True
    while (size := buffer.find(b"\n")) < 0:
        if buffer.ended:
            raise Mismatch(f"expected a line matching {described(match)}\n  got {_and_the_end(bytes(buffer))}")
        if len(buffer) >= max_bytes:
            break
        yield True
    if not 0 <= size <= max_bytes:
        got = shortened(bytes(buffer)[:max_bytes])
        raise Mismatch(
            f"expected a line matching {described(match)}\n  got {got} and no line ending in {max_bytes:,} bytes"
        )
    line = buffer.take(size)
    bare = line[:-2] if line.endswith(b"\r\n") else line[:-1]
    found = matches(match, bare)
    if not found:
        where = f" ({difference(match, bare)})" if isinstance(match, bytes) else ""
        raise Mismatch(f"expected a line matching {described(match)}\n  got {shortened(line)}{where}")
    return line, found


def expect_eof(buffer: Buffer) -> Steps[None]:
    """Take the end of the stream."""
    __tracebackhide__ = True
    while not buffer:
        if buffer.broken:
            raise Mismatch("expected the end of the stream\n  got a reset")
        if buffer.ended:
            return
        yield True
    raise Mismatch(f"expected the end of the stream\n  got {shortened(bytes(buffer))}")


def _ended(buffer: Buffer, wanted: str) -> Exception:
    return EndedWithin(wanted) if buffer else Ended(wanted)


def _and_the_end(got: bytes) -> str:
    return f"{shortened(got)} and then the end of the stream" if got else "the end of the stream"
