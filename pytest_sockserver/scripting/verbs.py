"""The verbs that take something of a stream, as values.

A verb says what is wanted next and how it is found in what has arrived: ``next_from(buffer, known)`` returns the bytes
of the unit, taken, or ``NEED_MORE``, having taken nothing.  Whoever runs it receives more in between: a thread, a
coroutine, a memory channel, a script, the rules.  So a verb never waits, means the same to each of them, and a read
that is given up has taken nothing.

A verb is immutable and shared: the same object serves every connection of a script.  How far a search, a comparison or
a framing has come is kept in the buffer.

``recv`` takes what comes, ``expect`` demands: the end of the stream where a unit would begin is :class:`Ended`, within
one :class:`EndedWithin`; what is not what was demanded is :class:`Mismatch`.

What is not done here: deadlines (they run from a unit's first byte, so ``buffer`` non-empty decides), requests, and
what a verb's arguments may be where a script declares it (``arguments``, ``script``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, Protocol

from ..errors.location import hide_frame
from .arguments import checked_delimiter, checked_index, checked_line
from .buffer import NEED_MORE, QUOTED, Buffer, Ended, EndedWithin, Mismatch, NeedMore
from .framing import Framing, frame_walk, frames_needed, lack, take_frame
from .matching import (
    Hex,
    Lookup,
    Match,
    PatternText,
    Shape,
    Text,
    beginning,
    captured_by,
    compared,
    described,
    is_literal,
    matches,
    matching,
    names_demanded,
    parted,
    rendered,
    shape_difference,
    shape_of,
    shape_shown,
    shortened,
    shown_like,
)

__tracebackhide__ = hide_frame

# Rules of `next_from`:
#
# - It takes the whole unit or nothing.  An error takes nothing either, so the bytes are still there for a message, and
#   for another verb that tries.
# - Bytes come before the end of the stream: what has arrived is judged first, and the end only where bytes are lacking.
# - What is known to be wrong is refused at once.  A literal fails at its first byte that differs and does not wait for
#   the rest, which a client that waits for an answer would never send.
# - `buffer.found` is set in the call that takes the unit, and belongs to that unit.
# - A name is looked up when the verb runs: a match may demand what the step before it has captured.
#
# It may be called any number of times for one unit, once for each piece that arrives.  What may not be done each time
# over (a search, a comparison, the call of a generator) goes on from `buffer.progress`.
#
# `OneOf` and `WhoseFrame` are the exceptions: they are made for one unit, and keep their progress themselves.


class Known(Protocol):
    """What a verb may ask of the conversation that it is run on."""

    @property
    def max_frame(self) -> int:
        """Bytes that a unit may have, where a verb says nothing else."""

    @property
    def framing(self) -> Framing | None:
        """Where one frame ends and the next begins."""

    def lookup(self, name: str) -> bytes:
        """Return what was captured under a name."""


class Verb:
    """What is taken of a stream next.

    Attributes:
        name: The method of a connection that takes this.
        is_demand: The client must send it: a deadline runs from the beginning, and something else is a mismatch.
        is_request: What it takes is recorded as a request.
        may_be_empty: And it is one even without a byte.
    """

    __slots__ = ()
    name: ClassVar[str]
    is_demand: ClassVar[bool] = False
    is_request: ClassVar[bool] = True
    may_be_empty: bool = False

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        """Take the unit, if it is whole.

        Raises:
            Ended, EndedWithin: The stream is over before it is.
            Mismatch: Something else came.
        """
        raise NotImplementedError

    def wanted(self, buffer: Buffer, known: Known) -> str | None:
        """Return what a deadline that has run out says was expected; ``None`` for what has no words."""
        return None


class Recv(Verb):
    """What has come, at most ``n`` bytes; ``b""`` once, at the end of the stream."""

    __slots__ = ("n",)
    name = "recv"
    is_request = False

    def __init__(self, n: int) -> None:
        self.n = n

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        if not buffer.data:
            if not buffer.ended:
                return NEED_MORE
            _end_once(buffer)
        return buffer.take(self.n)


class RecvExactly(Verb):
    """So many bytes."""

    __slots__ = ("n",)
    name = "recv_exactly"

    def __init__(self, n: int) -> None:
        self.n = n

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        if len(buffer) >= self.n:
            return buffer.take(self.n)
        if buffer.ended:
            raise buffer.over(f"{self.n:,} bytes")
        return NEED_MORE


class RecvUntil(Verb):
    """All bytes through a delimiter, at most ``max_bytes``."""

    __slots__ = ("delimiter", "max_bytes")
    name = "recv_until"

    def __init__(self, delimiter: bytes | Text, max_bytes: int | None = None) -> None:
        self.delimiter, self.max_bytes = delimiter, max_bytes

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        if not buffer.data and not buffer.ended:
            return NEED_MORE
        delimiter, most = self.delimiter, self.max_bytes or known.max_frame
        if isinstance(delimiter, Text):
            delimiter = rendered(delimiter, known.lookup)
        size = buffer.find(delimiter)
        if 0 <= size <= most:
            return buffer.take(size)
        if size >= 0 or len(buffer) >= most:
            raise Mismatch(f"expected {delimiter!r} within {most:,} bytes\n  got {buffer.shown()}")
        if buffer.ended:
            raise buffer.over(f"bytes through {delimiter!r}")
        return NEED_MORE


class RecvLine(RecvUntil):
    """A line with its ending."""

    __slots__ = ()
    name = "recv_line"

    def __init__(self, max_bytes: int | None = None) -> None:
        super().__init__(b"\n", max_bytes)


class RecvAll(Verb):
    """All until the end of the stream; nothing, if that is all."""

    __slots__ = ()
    name = "recv_all"

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        if not buffer.ended:
            return NEED_MORE
        if buffer.broken:
            raise EndedWithin("all bytes to the end of the stream")
        if not buffer.data:
            _end_once(buffer)
        buffer.end_taken = True
        return buffer.take(len(buffer))


def _end_once(buffer: Buffer) -> None:
    """Let the end of the stream be returned as ``b""`` once; the second time it ends a handler's loop."""
    if buffer.end_received:
        raise Ended("more")
    buffer.end_received = buffer.end_taken = True


class Frame(Verb):
    """A frame: in the connection's framing as it is by then, unless one is given."""

    __slots__ = ("framing",)
    name = "frames"
    may_be_empty = True

    def __init__(self, framing: Framing | None = None) -> None:
        self.framing = framing

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        framing = self.framing or known.framing
        assert framing is not None
        if not buffer.data and not buffer.ended:
            buffer.lacks = None
            return NEED_MORE  # a frame has at least one byte
        return take_frame(buffer, framing, known.max_frame)

    def wanted(self, buffer: Buffer, known: Known) -> str | None:
        framing = self.framing or known.framing
        return None if framing is None else lack(buffer, framing)


class Expect(Verb):
    """Exactly the bytes of a literal, failing at the first that differs; or a frame that a match matches."""

    __slots__ = ("match",)
    name = "expect"
    is_demand = True

    def __init__(self, match: Match | PatternText) -> None:
        self.match = match

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        match = self.match
        if type(match) is bytes and buffer.startswith(match):  # the usual case
            # What the unit before it has captured must not pass for this one's.
            buffer.found = None
            return buffer.take(len(match))
        if is_literal(match):
            return _take_literal(buffer, buffer.progress(self, lambda: _Comparison(shape_of(match, known.lookup))))  # type: ignore[arg-type]
        if known.framing is None:
            raise frames_needed(described(match))
        return _take_matching_frame(buffer, match, known)

    @property
    def may_be_empty(self) -> bool:  # type: ignore[override]
        return not is_literal(self.match)

    def wanted(self, buffer: Buffer, known: Known) -> str | None:
        return described(self.match) if is_literal(self.match) else matching("a frame", self.match)


class _Comparison:
    """A literal on its way through what has arrived."""

    __slots__ = ("seen", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape, self.seen = shape, 0


def _take_literal(buffer: Buffer, compared_so_far: _Comparison) -> bytes | NeedMore:
    """Take exactly the bytes of a literal; fail at the first that differs, without waiting for the rest."""
    shape, seen = compared_so_far.shape, compared_so_far.seen
    have = min(len(buffer), len(shape))
    at = shape.differs(buffer.peek(seen, have), seen)
    if at >= 0:
        wanted, got = compared(shape, buffer.peek(0, max(len(shape), at + QUOTED)))
        raise Mismatch(f"expected {wanted}\n  got {got}")
    if have == len(shape):
        unit = buffer.take(have)
        buffer.found = captured_by(shape, unit)
        return unit
    if buffer.ended:
        raise Mismatch(f"expected {shape_shown(shape, have)}\n  got {buffer.shown_to_the_end(shape)}")
    compared_so_far.seen = have
    return NEED_MORE


def _take_matching_frame(buffer: Buffer, match: Any, known: Known) -> bytes | NeedMore:
    assert known.framing is not None
    walk = frame_walk(buffer, known.framing)
    try:
        size = walk.size_in(buffer, known.max_frame)
    # A demand is not met by an end: for what demands, that is something else than was expected.
    except (Ended, EndedWithin):
        raise Mismatch(f"expected {matching('a frame', match)}\n  got {buffer.shown_to_the_end()}") from None
    if isinstance(size, NeedMore):
        return NEED_MORE
    frame = buffer.peek(0, size)
    found = matches(match, frame, known.lookup, unsure=not size)
    if not found and not size:
        raise Mismatch(f"expected {matching('a frame', match)}\n  got {buffer.shown_to_the_end()}")
    if not found:
        near = beginning(match, frame, known.lookup)
        raise Mismatch(f"expected {matching('a frame', match)}\n  got {shortened(frame)}{near}")
    buffer.found = found
    return walk.take(buffer, size)


class ExpectLine(Verb):
    """A line that ``match`` matches whole, without its ending."""

    __slots__ = ("ending", "match")
    name = "expect_line"
    is_demand = True
    may_be_empty = True

    def __init__(self, match: Match | PatternText, ending: bytes | None = None) -> None:
        self.match, self.ending = match, ending

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        most, wanted = known.max_frame, matching("a line", self.match)
        size = buffer.find(self.ending or b"\n")
        if size < 0 and len(buffer) < most:
            if buffer.ended:
                raise Mismatch(f"expected {wanted}\n  got {buffer.shown_to_the_end()}")
            return NEED_MORE
        if not 0 <= size <= most:
            raise Mismatch(f"expected {wanted}\n  got {buffer.shown()} and no line ending in {most:,} bytes")
        line = buffer.peek(0, size)
        bare = line.removesuffix(self.ending) if self.ending else without_ending(line)
        found = matches(self.match, bare, known.lookup)
        if not found:
            raise Mismatch(_other_line(self.match, line, bare, known.lookup))
        buffer.found = found
        return buffer.take(size)

    def wanted(self, buffer: Buffer, known: Known) -> str | None:
        return matching("a line", self.match)


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
    values = ", ".join(f"\\g<{name}> is {shortened(lookup(name), 40)}" for name in names)
    return f" ({values})" if values else ""


class ExpectEof(Verb):
    """The end of the stream."""

    __slots__ = ()
    name = "expect_eof"
    is_demand = True
    is_request = False

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        if buffer.data:
            raise Mismatch(f"expected the end of the stream\n  got {buffer.shown()}")
        if buffer.broken:
            raise Mismatch("expected the end of the stream\n  got a reset")
        if not buffer.ended:
            return NEED_MORE
        buffer.end_taken = True
        return b""

    def wanted(self, buffer: Buffer, known: Known) -> str | None:
        return "the end of the stream"


class ExpectReset(Verb):
    """A reset."""

    __slots__ = ()
    name = "expect_reset"
    is_demand = True
    is_request = False

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        if buffer.data:
            raise Mismatch(f"expected a reset\n  got {buffer.shown()}")
        if buffer.broken:
            return b""
        if buffer.ended:
            raise Mismatch("expected a reset\n  got the end of the stream")
        return NEED_MORE

    def wanted(self, buffer: Buffer, known: Known) -> str | None:
        return "a reset"


# What the responders take.  These keep their progress themselves: each is made for one unit of one connection.


class OneOf(Verb):
    """The bytes of one of several literals, of which none begins another; nothing if what came is none of them.

    Which there are is asked when the first byte has come.  Each byte is compared once with those that still may be
    meant.
    """

    __slots__ = ("_alive", "_longest", "_seen", "_shapes")
    name = "rules"
    is_request = False

    def __init__(self, shapes: Callable[[], Sequence[Shape]]) -> None:
        self._shapes = shapes
        self._alive: list[Shape] | None = None
        self._longest = self._seen = 0

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        if self._alive is None:
            if not buffer.data and not buffer.ended:
                return NEED_MORE
            self._alive = list(self._shapes())
            self._longest = max(map(len, self._alive), default=0)
        new, seen = buffer.peek(self._seen, max(self._longest, 1)), self._seen
        self._alive = [each for each in self._alive if each.differs(new[: max(0, len(each) - seen)], seen) < 0]
        if new and not self._alive:
            return b""
        self._seen = seen = seen + len(new)
        for shape in self._alive:
            # None of them begins another, so the first that is whole is the only one that can be meant.
            if len(shape) <= seen:
                return buffer.take(len(shape))
        if buffer.ended:
            raise buffer.over("a request")
        return NEED_MORE

    def wanted(self, buffer: Buffer, known: Known) -> str | None:
        return "the rest of a request"


class WhoseFrame(Verb):
    """Whose the next frame is: that of literals which state it in pieces, or somebody else's; nothing is taken.

    ``beyond`` is the answer: how many bytes beyond the first literal are known to be the literals'; -1 if the frame,
    which is whole then, begins as the first literal and goes on otherwise.
    """

    __slots__ = ("_departs", "_first", "_framing", "_literals", "_seen", "_shape", "beyond")
    name = "expect"
    is_demand = True
    is_request = False

    def __init__(self, framing: Framing, literals: Iterator[Shape]) -> None:
        self._framing, self._literals = framing, literals
        self._shape = next(literals)
        self._first, self._seen, self._departs = len(self._shape), 0, False
        self.beyond = 0

    def next_from(self, buffer: Buffer, known: Known) -> bytes | NeedMore:
        found = frame_walk(buffer, self._framing).size_in(buffer, known.max_frame)
        size = None if isinstance(found, NeedMore) else found
        have = len(buffer) if size is None else size
        while not self._departs and len(self._shape) <= have and (further := next(self._literals, None)) is not None:
            self._shape += further
        compare = buffer.peek(self._seen, min(have, len(self._shape)))
        at = -1 if self._departs else self._shape.differs(compare, self._seen)
        if 0 <= at < self._first or (size is not None and size <= self._first):
            return b""
        self._departs = self._departs or at >= 0
        if not self._departs and (size is not None or len(self._shape) <= have):
            self.beyond = min(have, len(self._shape)) - self._first
            return b""
        if size is not None:
            self.beyond = -1
            return b""
        self._seen = min(have, len(self._shape))
        return NEED_MORE


#: The verbs without arguments, and the usual ones.
RECV_LINE: Final = RecvLine()
RECV_ALL: Final = RecvAll()
NEXT_FRAME: Final = Frame()
EXPECT_EOF: Final = ExpectEof()
EXPECT_RESET: Final = ExpectReset()


# The verbs with arguments, checked where they are called or declared


def recv_until(delimiter: bytes | Text, max_bytes: int | None = None) -> RecvUntil:
    """Return the verb, or raise what says why it can be none."""
    if isinstance(delimiter, Text):
        return RecvUntil(delimiter if delimiter.pieces else checked_delimiter(b""), checked_most(max_bytes))
    return RecvUntil(checked_delimiter(delimiter), checked_most(max_bytes))


def recv_line(max_bytes: int | None = None) -> RecvLine:
    """Return the verb, or raise what says why it can be none."""
    return RecvLine(checked_most(max_bytes))


def expect_line(match: Match | PatternText, ending: bytes | None = None) -> ExpectLine:
    """Return the verb, or raise what says why it can be none."""
    return ExpectLine(checked_line(match), None if ending is None else checked_delimiter(ending, "expect_line"))  # type: ignore[arg-type]


def checked_most(max_bytes: int | None) -> int | None:
    """Return how many bytes a unit may have, ``None`` for the server's ``max_frame``."""
    return None if max_bytes is None else checked_index(max_bytes, "max_bytes must be at least 1", least=1)
