"""Whether bytes are the ones that were meant.

A *match* is a literal (``bytes``; ``Hex``, which may have holes; ``Text``, which may demand what was captured), a
compiled pattern of bytes (matches the whole), a predicate (a function of the bytes), or ``ANY``.  What cannot be a
match is refused where it is declared, not where it is compared.

A literal is compared as a :class:`Shape`: so many bytes, some of which may be anything.  It needs no frame, since it
is known byte by byte whether it still can match; a pattern and a predicate judge a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import partial
from typing import Any, Final

from ..errors.location import hide_frame
from .frozen import frozen
from .notation import Hole, Name, NotationError, Piece, is_binary, read_hex, read_text, references

__tracebackhide__ = hide_frame

# Two kinds of match, and why they differ.  A literal knows its own length, so it is judged byte by byte as they arrive,
# on a stream without frames too.  A pattern, a predicate and ANY judge a whole, and need something that says where it
# ends: a frame, a line or a datagram.  A pattern is to match all of it, since a match of the beginning would accept
# anything behind it.
#
# A name in a match is looked up when it is compared, and not when it is declared: it stands for what this client sent
# before.  `PatternText` is therefore compiled anew for each comparison.  A name that stands for nothing so far is
# NothingKept, which a rule takes as "no match" and a step as an error.
#
# Holes are a set of offsets beside the bytes, which have a zero there.  So two literals are equal at the speed of
# bytes, and the holes are asked only where a byte differs.
#
# A predicate gets the bytes and its exceptions are its own, but for `unsure`: a stream without a byte may be no request
# at all, and `request[0]` must not fail then.
#
# Not done: nothing here searches, and nothing is normalized: case, blanks and line endings count.


class AnyMatch:
    """The type of :data:`ANY`, which matches every request; for annotations."""

    def __repr__(self) -> str:
        return "ANY"

    def __reduce__(self) -> str:
        return "ANY"


#: Matches whatever comes.
ANY: Final = AnyMatch()

#: What was captured, by name.
Lookup = Callable[[str], bytes]


@frozen(init=False)
class Text:
    r"""Text in the notation of dialogues: UTF-8, ``\r \n \t \0 \\ \xNN``, and ``\g<name>`` for what was captured.

    Sent as a part, or demanded as a match.  A raw string: ``Text(r"\g<tag> OK\r\n")``.

    Raises:
        ValueError: An unknown escape, or a control character (the string was not raw).
    """

    source: str
    pieces: tuple[Piece, ...] = field(init=False, repr=False, compare=False)

    def __init__(self, source: str) -> None:
        object.__setattr__(self, "source", _checked_source("Text", source))
        object.__setattr__(self, "pieces", _read(read_text, source))

    def __repr__(self) -> str:
        return _raw_call("Text", self.source)


@frozen(init=False)
class Hex:
    r"""Bytes in hex: pairs of digits, blanks free, and ``\g<name>`` for what was captured.

    As a match it may have holes: ``??`` is any byte, ``<name:n>`` any n bytes, captured under the name.

    Raises:
        ValueError: Something else stands in it.
    """

    source: str
    pieces: tuple[Piece, ...] = field(init=False, repr=False, compare=False)

    def __init__(self, source: str) -> None:
        object.__setattr__(self, "source", _checked_source("Hex", source))
        object.__setattr__(self, "pieces", _read(partial(read_hex, holes=True), source))

    def __repr__(self) -> str:
        return _raw_call("Hex", self.source)


@frozen
class PatternText:
    r"""A pattern in which ``\g<name>`` stands for what was captured: what ``C~`` of a dialogue may be.

    Attributes:
        ending: A line's ending, which is not part of what is matched.
    """

    source: str
    ending: bytes = b""

    @property
    def names(self) -> tuple[str, ...]:
        r"""The names that must have been captured before."""
        return tuple(found[1] for found in _PATTERN_TOKEN.finditer(self.source) if found[1])

    def compiled(self, lookup: Lookup) -> re.Pattern[bytes]:
        """Return the pattern with what was captured in it, each as a group: a repetition after it repeats all of it.

        Raises:
            re.error: The source is no pattern.
        """
        tokens = _PATTERN_TOKEN.finditer(self.source)
        return re.compile(
            b"".join(b"(?:%b)" % re.escape(lookup(each[1])) if each[1] else each[0].encode() for each in tokens),
            re.DOTALL,
        )


_PATTERN_TOKEN = re.compile(r"\\g<(\w+)>|\\.|[^\\]+|\\", re.DOTALL)  # \\g<x> after a backslash is no name

Literal = bytes | Text | Hex
Match = bytes | re.Pattern[bytes] | Callable[[Any], object] | AnyMatch | Text | Hex


class Shape:
    """So many bytes, some of which may be anything.

    Attributes:
        data: The bytes, zero where a hole is.
        holes: Where any byte may be.
        names: What is captured: name, start and stop.
    """

    __slots__ = ("data", "holes", "names")

    def __init__(
        self, data: bytes, holes: frozenset[int] = frozenset(), names: tuple[tuple[str, int, int], ...] = ()
    ) -> None:
        self.data, self.holes, self.names = data, holes, names

    def __len__(self) -> int:
        return len(self.data)

    def differs(self, got: bytes, at: int = 0) -> int:
        """Return the index of the first byte that differs from ``got``, which begins at ``at``; -1 while none does."""
        # Equal is the usual case, and one comparison of bytes; only what differs is looked into.
        expected = self.data[at : at + len(got)]
        if expected == got:
            return -1
        if not self.holes:
            found = _first_difference(expected, got)
            return -1 if found == min(len(expected), len(got)) else at + found
        both = enumerate(zip(expected, got, strict=False), at)
        return next((index for index, (ours, theirs) in both if ours != theirs and index not in self.holes), -1)

    def __add__(self, other: Shape) -> Shape:
        have = len(self)
        names = tuple((name, have + start, have + stop) for name, start, stop in other.names)
        return Shape(self.data + other.data, self.holes | {have + each for each in other.holes}, self.names + names)

    def begins(self, other: Shape) -> bool:
        """Tell whether bytes that match ``other`` may begin with bytes that match this one."""
        if not self.holes and not other.holes:
            return other.data.startswith(self.data)
        holes = self.holes | other.holes
        both = enumerate(zip(self.data, other.data, strict=False))
        return len(self) <= len(other) and all(ours == theirs or at in holes for at, (ours, theirs) in both)


def _first_difference(one: bytes, other: bytes) -> int:
    """Return the first index at which two byte strings differ, or the length of the shorter one."""
    start, stop = 0, min(len(one), len(other))
    while start < stop:  # halves are compared as a whole: byte by byte, 16 MiB took over a second
        middle = (start + stop + 1) // 2
        if one[start:middle] == other[start:middle]:
            start = middle
        elif middle == start + 1:
            break
        else:
            stop = middle
    return start


class HexMatch:
    """What ``Hex`` has captured: by name, as from an ``re.Match``."""

    __slots__ = ("_data", "_names")

    def __init__(self, data: bytes, names: Iterable[tuple[str, int, int]]) -> None:
        self._data = data
        self._names = {name: data[start:stop] for name, start, stop in names}

    def __getitem__(self, name: str | int) -> bytes:
        return self._data if name == 0 else self._names[name]  # type: ignore[index]

    def group(self, name: str | int = 0) -> bytes:
        """Return what was captured under a name; all of it for 0."""
        return self[name]

    def groupdict(self) -> dict[str, bytes]:
        """Return what was captured, by name."""
        return dict(self._names)

    def __repr__(self) -> str:
        return f"<HexMatch {self._names!r}>"


class NothingKept(ValueError):
    """A name stands for nothing, so far."""


def nothing_kept(name: str) -> bytes:
    """Look a name up where nothing was captured."""
    raise NothingKept(name)


def _read(reader: Callable[[str], tuple[Piece, ...]], source: str) -> tuple[Piece, ...]:
    try:
        return reader(source)
    except NotationError as error:
        raise ValueError(str(error)) from None


def _checked_source(name: str, source: object) -> str:
    if not isinstance(source, str):
        raise TypeError(f"{name}() expected a str, not {source!r}: bytes are sent as they are")
    return source


def _raw_call(name: str, source: str) -> str:
    return f"{name}({_raw('r', source)})"


def _raw(prefix: str, source: str) -> str:
    """Return a raw literal, or one that is not raw where no raw one says the same, or none that can be printed."""
    plain = repr(source)
    if plain[0] in source or source.endswith("\\") or not source.isprintable():
        return f"{prefix.removeprefix('r')}{plain}"
    return f"{prefix}{plain[0]}{source}{plain[0]}"


def rendered(template: Text | Hex, lookup: Lookup) -> bytes:
    """Return the bytes that a template stands for."""
    return b"".join(lookup(piece.name) if isinstance(piece, Name) else piece for piece in template.pieces)  # type: ignore[misc]


def shape_of(literal: Literal, lookup: Lookup = nothing_kept) -> Shape:
    """Return the bytes that a literal demands."""
    if isinstance(literal, bytes):
        return Shape(literal)
    data, holes, names = bytearray(), set[int](), []
    for piece in literal.pieces:
        if isinstance(piece, Hole):
            holes |= set(range(len(data), len(data) + piece.size))
            if piece.name is not None:
                names.append((piece.name, len(data), len(data) + piece.size))
            data += bytes(piece.size)
        else:
            data += lookup(piece.name) if isinstance(piece, Name) else piece
    return Shape(bytes(data), frozenset(holes), tuple(names))


def checked_match(match: Match) -> Match:
    """Return ``match``, or raise the ``TypeError`` that says what it should have been."""
    if isinstance(match, (bytearray, memoryview)):
        return bytes(match)
    if isinstance(match, str):
        raise TypeError(f"expected bytes, not the text {match!r}: write b{match!r}")
    if isinstance(match, re.Pattern) and not isinstance(match.pattern, bytes):
        raise TypeError(f"expected a pattern of bytes, not of text: write re.compile({_raw('rb', match.pattern)})")
    if isinstance(match, (bytes, re.Pattern, AnyMatch, Text, Hex)):
        return match
    predicate: Any = match
    if not callable(predicate) or isinstance(predicate, type):
        raise TypeError(f"expected bytes, a compiled pattern of bytes, Hex, Text, a predicate or ANY, not {match!r}")
    if is_async(match):
        raise TypeError(f"expected a predicate that returns a bool, not the async function {function_shown(match)}")
    return match


def is_async(function: object) -> bool:
    """Tell whether a function returns a coroutine or an async generator, which nobody here could await."""
    code = getattr(function, "__code__", None) or getattr(type(function).__dict__.get("__call__"), "__code__", None)
    return code is not None and bool(code.co_flags & (0x80 | 0x100 | 0x200))  # inspect.CO_*, without the import


def is_literal(match: object) -> bool:
    """Tell whether bytes can be compared with ``match`` one by one, without knowing where a unit ends."""
    return isinstance(match, (bytes, Text, Hex))


def is_empty(match: object) -> bool:
    """Tell whether ``match`` is a literal of no byte."""
    return match == b"" or (isinstance(match, (Text, Hex)) and not match.pieces)


def names_demanded(match: object) -> tuple[str, ...]:
    """Return the names that must have been captured before ``match`` can be compared."""
    if isinstance(match, PatternText):
        return match.names
    return references(match.pieces) if isinstance(match, (Text, Hex)) else ()


def names_captured(match: object) -> tuple[str, ...]:
    """Return the names under which ``match`` captures."""
    if isinstance(match, PatternText):
        return tuple(match.compiled(lambda name: b"").groupindex)
    if isinstance(match, re.Pattern):
        return tuple(match.groupindex)
    holes = (piece for piece in match.pieces if isinstance(piece, Hole)) if isinstance(match, Hex) else ()
    return tuple(hole.name for hole in holes if hole.name is not None)


def matches(match: Match | PatternText, data: bytes, lookup: Lookup = nothing_kept, *, unsure: bool = False) -> object:
    """Return something true if ``data`` is what ``match`` means: what it captured, if it does, else ``True``.

    Args:
        unsure: It may be no request at all, but a stream without a byte: a predicate that raises has not matched it.
    """
    if isinstance(match, bytes):
        return match == data
    if isinstance(match, re.Pattern):
        return match.fullmatch(data)
    if isinstance(match, AnyMatch):
        return True
    if isinstance(match, PatternText):
        return match.compiled(lookup).fullmatch(data.removesuffix(match.ending))
    if isinstance(match, (Text, Hex)):
        return captured_by(shape_of(match, lookup), data)
    if not unsure:
        return match(data)
    try:
        return match(data)
    except Exception:
        return None  # request[0], for example


def captured_by(shape: Shape, data: bytes) -> object:
    """Return what a literal captured of ``data``, ``True`` if it captures nothing, ``None`` if it does not match."""
    # The length first: `differs` compares what both have, and says nothing of what is missing.
    if len(shape) != len(data) or shape.differs(data) >= 0:
        return None
    return HexMatch(data, shape.names) if shape.names else True


def names_in(found: object) -> Mapping[str, bytes]:
    """Return what a match has captured by name; groups that took no part are not among it."""
    if isinstance(found, (re.Match, HexMatch)):
        return {name: value for name, value in found.groupdict().items() if value is not None}
    return {}


# Messages

#: Characters that a message shows of a pattern's source.
_PATTERN_SHOWN = 120

#: Bytes by which it is judged whether long ones are text.
_LOOKED_AT = 4096

#: Flags that a message shows in the source of a pattern to which they were given beside it.
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.VERBOSE: "x"}


def described(match: Match | PatternText) -> str:
    """Return how a message names ``match``: literals and patterns as written, predicates by name and line."""
    if isinstance(match, (PatternText, re.Pattern)):
        return f"the pattern {pattern_shown(match)}"
    if isinstance(match, bytes):
        return shortened(match)
    if isinstance(match, (Text, Hex)) and len(match.source) > _PATTERN_SHOWN:
        return _raw_call(type(match).__name__, match.source[:_PATTERN_SHOWN]) + _characters(len(match.source))
    if isinstance(match, (AnyMatch, Text, Hex)):
        return repr(match)
    return f"the predicate {function_shown(match)}"


def matching(what: str, match: Match | PatternText) -> str:
    """Return how a message names a unit that ``match`` is to match: ``a line matching rb'PASS .*'``."""
    if match is ANY:
        return what
    shown = pattern_shown(match) if isinstance(match, (PatternText, re.Pattern)) else described(match)
    return f"{what} matching {shown}"


def beginning(match: object, got: bytes, lookup: Lookup = nothing_kept) -> str:
    """Return, in parentheses, how much a pattern matches that is to match all; nothing if it does not begin to."""
    size = matched_size(match, got, lookup)
    if not size:
        return ""
    rest = got[size:]
    left = f"all but its last {rest!r}" if rest in (b"\r\n", b"\n") else f"the first {size:,} of {len(got):,} bytes"
    return f" (matches {left}: a pattern is to match the whole)"


def matched_size(match: object, got: bytes, lookup: Lookup = nothing_kept) -> int:
    """Return how many bytes at the beginning a pattern matches; 0 for what is none."""
    try:
        pattern = match.compiled(lookup) if isinstance(match, PatternText) else match
    except NothingKept:
        return 0
    found = pattern.match(got) if isinstance(pattern, re.Pattern) else None
    return 0 if found is None else found.end()


def pattern_shown(match: re.Pattern[bytes] | PatternText) -> str:
    """Return a pattern as it is written in a test, with the flags that were given beside it; a long one in part."""
    if isinstance(match, PatternText):
        source = match.source
        return _raw("rb", source[:_PATTERN_SHOWN]) + _characters(len(source))
    given, letters = match.pattern, "".join(letter for flag, letter in _FLAGS.items() if match.flags & flag)
    if letters and not given.startswith(b"(?%b" % letters[:1].encode()):
        given = b"(?%b)%b" % (letters.encode(), given)
    source = given[:_PATTERN_SHOWN].decode("ascii", "replace")
    shown = _raw("rb", source) if source.isascii() else repr(given[:_PATTERN_SHOWN])
    return shown + _characters(len(given))


def _characters(size: int) -> str:
    return f"... ({size:,} characters)" if size > _PATTERN_SHOWN else ""


def function_shown(function: object) -> str:
    """Return the name of a function, as it is called where it stands, and that place."""
    name = (getattr(function, "__qualname__", None) or repr(function)).rpartition("<locals>.")[2]
    code = getattr(function, "__code__", None)
    if code is None:
        return name
    file = code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f"{name} ({file}:{code.co_firstlineno})"


def difference(expected: bytes, got: bytes) -> str:
    """Return where two byte strings part, as words: ``differs at byte 2: b'G' is not b'N'``."""
    return shape_difference(Shape(expected), got)


def shape_difference(expected: Shape, got: bytes) -> str:
    """Return where ``got`` departs from what was expected, as words; in hex where that is no text."""
    at = expected.differs(got)
    if at >= 0:
        ours, theirs = expected.data[at : at + 1], got[at : at + 1]
        if _in_hex(expected):
            return f"differs at byte {at:,}: {theirs.hex()} is not {ours.hex()}"
        alike = len(expected) == len(got) and expected.data.lower() == got.lower()
        case = "; equal but for case" if alike else ""
        return f"differs at byte {at:,}: {theirs!r} is not {ours!r}{case}"
    if len(got) < len(expected):
        return f"ends after {len(got):,} of {len(expected):,} bytes"
    more = len(got) - len(expected)
    return f"has {more:,} byte{'' if more == 1 else 's'} more" if more else "equal"


def parted(shape: Shape, got: bytes) -> int:
    """Return the index at which what came departs from what was expected, or one of them ends."""
    at = shape.differs(got)
    return min(len(shape), len(got)) if at < 0 else at


def compared(shape: Shape, got: bytes) -> tuple[str, str]:
    """Return what was expected and what came, as a message shows them: around where they part, and how they do."""
    at = parted(shape, got)
    return shape_shown(shape, at), f"{shown_like(shape, got, at)} ({shape_difference(shape, got)})"


def departure(shape: Shape, got: bytes) -> str:
    """Return what was expected, as a message shows it, and how what came departs from it."""
    return f"{shape_shown(shape, parted(shape, got))} ({shape_difference(shape, got)})"


def shape_shown(shape: Shape, at: int = 0) -> str:
    """Return a literal as a message shows it, or what stands around byte ``at``, if it is long."""
    if not _in_hex(shape):
        return shown_at(shape.data, at)
    start, stop = _window(len(shape), at)
    holes = {each for each in shape.holes if start <= each < stop}
    pairs = ("??" if each in holes else f"{shape.data[each]:02x}" for each in range(start, stop))
    return _in_place(" ".join(pairs), start, stop, len(shape))


def shown_like(shape: Shape, got: bytes, at: int = 0) -> str:
    """Return what came, written as ``shape_shown`` writes what was expected."""
    if not _in_hex(shape):
        return shown_at(got, at)
    start, stop = _window(len(got), at)
    return _in_place(got[start:stop].hex(" "), start, stop, len(got))


def _in_hex(shape: Shape) -> bool:
    return bool(shape.holes) or is_binary(shape.data[:_LOOKED_AT])


def _window(size: int, at: int, around: int = 16) -> tuple[int, int]:
    return (0, min(size, 64)) if at < 48 else (at - around, min(size, at + around))


def _in_place(text: str, start: int, stop: int, size: int) -> str:
    if start == 0 and stop == size:
        return f"hex {text}"
    return f"hex {'...' if start else ''}{text}{'...' if stop < size else ''} (bytes {start:,} to {stop:,} of {size:,})"


def shown_at(data: bytes, at: int, around: int = 40) -> str:
    """Return the repr of ``data``, or of what stands around byte ``at``, if it is long and that is far inside."""
    if len(data) <= 120 or at < 80:
        return shortened(data)
    start, end = at - around, min(len(data), at + around)
    cut = "..." if end < len(data) else ""
    return f"...{data[start:end]!r}{cut} (bytes {start:,} to {end:,} of {len(data):,})"


def shortened(data: bytes, most: int = 120, *, size: int | None = None) -> str:
    """Return ``data`` as a message shows it: its repr, hex if it is no text, cut after ``most`` bytes.

    Args:
        size: How many bytes there are, where ``data`` is only the beginning.
    """
    size = len(data) if size is None else size
    if size <= most:
        return f"hex {data.hex(' ')}" if len(data) > 8 and is_binary(data) else repr(data)
    shown = f"hex {data[: most // 2].hex(' ')}" if is_binary(data[:_LOOKED_AT]) else repr(data[:most])
    return f"{shown}... ({size:,} bytes)"
