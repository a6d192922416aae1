"""The reading verbs, without a socket.

Each is a generator over a buffer that yields when it needs more: ``True`` if its unit has begun, ``False`` if
not one byte of it has come.  It returns the bytes that it took.  So a verb costs O(n) however the bytes
are cut, and means the same to whoever drives it.

``recv`` takes what comes, ``expect`` demands: the end of the stream where a unit would begin is
:class:`Ended`, within one :class:`EndedWithin`; what is not what was demanded is :class:`Mismatch`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

from ..errors.location import hide_frame
from .buffer import Buffer
from .matching import (
    Hex,
    Lookup,
    Match,
    PatternText,
    Shape,
    Text,
    beginning,
    compared,
    matches,
    matching,
    names_demanded,
    nothing_kept,
    parted,
    shape_difference,
    shape_of,
    shape_shown,
    shortened,
    shown_like,
)

__tracebackhide__ = hide_frame


T = TypeVar("T")
Steps = Generator[bool, None, T]

#: Bytes that a message quotes of what came, at most; what it shows of them is shorter.
QUOTED = 4096


class Ended(Exception):
    """The stream was over before the unit began; the text says what was wanted."""


class EndedWithin(Exception):
    """The stream ended within the unit; the text says what was wanted, the buffer has what came."""


class Mismatch(Exception):
    """Something else came; the text says what was expected, and what came."""


def recv(buffer: Buffer, n: int) -> Steps[bytes]:
    """Take what has come, at most ``n`` bytes; nothing only at the end of the stream."""
    while not buffer and not buffer.ended:
        yield False
    buffer.end_taken = buffer.end_taken or not buffer
    return buffer.take(n)


def recv_exactly(buffer: Buffer, n: int) -> Steps[bytes]:
    """Take ``n`` bytes."""
    while len(buffer) < n:
        if buffer.ended:
            raise _ended(buffer, f"{n:,} bytes")
        yield bool(buffer)
    return buffer.take(n)


def recv_until(buffer: Buffer, delimiter: bytes, max_bytes: int) -> Steps[bytes]:
    """Take all bytes through ``delimiter``, at most ``max_bytes``."""
    while (size := buffer.find(delimiter)) < 0 and len(buffer) < max_bytes:
        if buffer.ended:
            raise _ended(buffer, f"bytes through {delimiter!r}")
        yield bool(buffer)
    if not 0 <= size <= max_bytes:
        raise Mismatch(f"expected {delimiter!r} within {max_bytes:,} bytes\n  got {came(buffer)}")
    return buffer.take(size)


def recv_all(buffer: Buffer) -> Steps[bytes]:
    """Take all until the end of the stream; nothing, if that is all."""
    while not buffer.ended:
        yield bool(buffer)
    if buffer.broken:
        raise EndedWithin("all bytes to the end of the stream")
    buffer.end_taken = True
    return buffer.take(len(buffer))


def expect(buffer: Buffer, literal: bytes | Shape) -> Steps[bytes]:
    """Take exactly the bytes of a literal; fail at the first that differs, without waiting for the rest."""
    shape, seen = Shape(literal) if isinstance(literal, bytes) else literal, 0
    while True:
        have = min(len(buffer), len(shape))
        at = shape.differs(buffer.peek(seen, have), seen)
        if at >= 0:
            wanted, got = compared(shape, buffer.peek(0, max(len(shape), at + QUOTED)))
            raise Mismatch(f"expected {wanted}\n  got {got}")
        if have == len(shape):
            return buffer.take(have)
        if buffer.ended:
            raise Mismatch(f"expected {shape_shown(shape, have)}\n  got {and_the_end(buffer, shape)}")
        seen = have
        yield True


def one_of(buffer: Buffer, shapes: Sequence[Shape]) -> Steps[bytes]:
    """Take the bytes of one of several literals, of which none begins another; nothing if what came is none of them.

    Each byte is compared once with those that still may be meant.
    """
    seen, longest = 0, max(map(len, shapes), default=0)
    alive = list(shapes)
    while True:
        new = buffer.peek(seen, max(longest, 1))
        alive = [shape for shape in alive if shape.differs(new[: max(0, len(shape) - seen)], seen) < 0]
        if new and not alive:
            return b""
        seen += len(new)
        for shape in alive:
            if len(shape) <= seen:
                return buffer.take(len(shape))
        if buffer.ended:
            raise _ended(buffer, "a request")
        yield bool(buffer)


def expect_line(
    buffer: Buffer,
    match: Match | PatternText,
    max_bytes: int,
    lookup: Lookup = nothing_kept,
    ending: bytes | None = None,
) -> Steps[tuple[bytes, object]]:
    """Take a line that ``match`` matches whole, without its ending; return it with its ending, and the match."""
    wanted = f"expected {matching('a line', match)}"
    while (size := buffer.find(ending or b"\n")) < 0:
        if len(buffer) >= max_bytes:
            break
        if buffer.ended:
            raise Mismatch(f"{wanted}\n  got {and_the_end(buffer)}")
        yield True
    if not 0 <= size <= max_bytes:
        raise Mismatch(f"{wanted}\n  got {came(buffer)} and no line ending in {max_bytes:,} bytes")
    line = buffer.peek(0, size)
    bare = line.removesuffix(ending) if ending else without_ending(line)
    found = matches(match, bare, lookup)
    if not found:
        raise Mismatch(_other_line(match, line, bare, lookup))
    return buffer.take(size), found


def without_ending(line: bytes) -> bytes:
    """Return a line without the LF, or CRLF, that ends it."""
    return line[:-2] if line.endswith(b"\r\n") else line[:-1]


def _other_line(match: Match | PatternText, line: bytes, bare: bytes, lookup: Lookup) -> str:
    if isinstance(match, (bytes, Text, Hex)):
        shape = shape_of(match, lookup)
        at = parted(shape, bare)
        got = f"{shown_like(shape, line, at)} ({shape_difference(shape, bare)})"
        return f"expected a line matching {shape_shown(shape, at)}\n  got {got}"
    near = beginning(match, bare, lookup)
    return f"expected {matching('a line', match)}{kept(match, lookup)}\n  got {shortened(line)}{near}"


def kept(match: Match | PatternText, lookup: Lookup) -> str:
    """Return what the names in a pattern stand for; nothing where there are none."""
    names = dict.fromkeys(names_demanded(match)) if isinstance(match, PatternText) else ()
    said = ", ".join(f"\\g<{name}> is {shortened(lookup(name), 40)}" for name in names)
    return f" ({said})" if said else ""


def expect_eof(buffer: Buffer) -> Steps[None]:
    """Take the end of the stream."""
    while not buffer:
        if buffer.broken:
            raise Mismatch("expected the end of the stream\n  got a reset")
        if buffer.ended:
            buffer.end_taken = True
            return
        yield True
    raise Mismatch(f"expected the end of the stream\n  got {came(buffer)}")


def _ended(buffer: Buffer, wanted: str) -> Exception:
    return EndedWithin(wanted) if buffer else Ended(wanted)


def expect_reset(buffer: Buffer) -> Steps[None]:
    """Take a reset."""
    while not buffer:
        if buffer.broken:
            return
        if buffer.ended:
            raise Mismatch("expected a reset\n  got the end of the stream")
        yield True
    raise Mismatch(f"expected a reset\n  got {came(buffer)}")


def came(buffer: Buffer) -> str:
    """Return what has come and was not taken, as a message shows it."""
    return shortened(buffer.peek(0, QUOTED), size=len(buffer))


def and_the_end(buffer: Buffer, like: Shape | None = None) -> str:
    """Return what has come before the stream was over; where there is a literal, the end of what came of it."""
    end = "a reset" if buffer.broken else "the end of the stream"
    if not buffer:
        return end
    got = came(buffer) if like is None else shown_like(like, buffer.peek(0, len(buffer)), len(buffer))
    return f"{got} and then {end}"
