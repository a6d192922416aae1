r"""Write a conversation, or a script, down in the dialogue notation.

What each side said becomes lines with ``S:`` and ``C:``, ending in CRLF (``% eol lf`` says otherwise), ``S-``/``C-``
for text with another ending or none, ``Sx``/``Cx`` for bytes that are no text; what a socket did becomes ``S! close``,
``C! eof`` and so on.  What the notation cannot say stands in a line ``#!``, which nobody reads back: what is not the
whole must not pass as the whole.

A conversation comes as plain tuples ``(time, connection, kind, data)``.  How the network cut the bytes says nothing, so
what one side said in a row is joined before it is cut into lines; a line keeps the time of its first byte.

A script is written step by step.  What one ``send`` says in a row is cut into lines, which are read back as one write.
What is demanded stays one line however long it is: two lines would be two steps, and two requests.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

from .effects import Close, Delay, Gate, OpenGate, Reset, SendEof, Stall
from .matching import ANY, Hex, Match, PatternText, Text
from .notation import Hole, Name, Piece, escaped, is_binary, joined, written_hex, written_text
from .parts import Part
from .tls_effects import StartTLS

if TYPE_CHECKING:
    from .steps import Step

Event = tuple[float, int, str, bytes]

_SIDES = {"received": "C", "sent": "S"}
_MARKS = {
    "client-eof": "C! eof",
    "client-reset": "C! reset",
    "close": "S! close",
    "reset": "S! reset",
    "send-eof": "S! send-eof",
    "start-tls": "S! start-tls",
}
_RUNS_LOOKED_AT = 1000  # to find how lines end: more than a report shows
_HEX_WIDTH = 16  # bytes in a line of hex, as hexdump(1) and every protocol analyser print them


def line_ending(events: Sequence[Event], *, limit: int | None = None) -> bytes:
    r"""Return the ending most lines of a conversation have: CRLF, unless all of them end in a bare LF.

    Args:
        limit: As of ``format_lines``.  Only what that shows is looked at, and of many runs only the first ones: with
            either ending the lines are read back as the same bytes.
    """
    found = b"\r\n"
    for kind, run in islice(_runs(events), None if limit is None else _RUNS_LOOKED_AT):
        head, tail = _head_and_tail(run, limit) if kind in _SIDES else (b"", b"")
        if (b"\n" in head or b"\n" in tail) and not is_binary(head + tail):  # a 0a in hex ends no line
            if b"\r\n" in head or b"\r\n" in tail:
                return b"\r\n"
            found = b"\n"
    return found


def format_lines(
    events: Sequence[Event], *, ending: bytes = b"\r\n", limit: int | None = None, backwards: bool = False
) -> Iterator[str]:
    """Yield the lines of one connection's conversation, each with its time.

    A line costs what it shows, but for a look at how many bytes each event has: who wants the first ones or the last
    ones asks for no more.

    Args:
        limit: Bytes that are written out of what one side said in a row, of its beginning and its end; what lies
            between is counted in a line that cannot be read back.
        backwards: From the last line to the first.
    """
    for kind, run in _runs(events, backwards=backwards):
        lines = _lines_of_run(kind, run, ending, limit)
        yield from reversed(list(lines)) if backwards else lines


def _lines_of_run(kind: str, run: list[Event], ending: bytes, limit: int | None) -> Iterator[str]:
    if kind not in _SIDES:
        for time, _, _, data in run:
            yield f"[{time:.3f}] {_MARKS[kind]}" if kind in _MARKS else _remark(data)
        return
    size = _size(run)
    head, tail = _head_and_tail(run, limit)
    binary = is_binary(head + tail)
    if tail:
        head, tail = _whole_lines(head, tail, ending)
    left_out = size - len(head) - len(tail)
    starts = _starts(run)
    for offset, text in _said(_SIDES[kind], head, ending, binary=binary):
        yield f"[{starts(offset):.3f}] {text}"
    if left_out:
        yield _gap(left_out, size)
    for offset, text in _said(_SIDES[kind], tail, ending, binary=binary):
        yield f"[{starts(size - len(tail) + offset):.3f}] {text}"


def _head_and_tail(run: list[Event], limit: int | None) -> tuple[bytes, bytes]:
    """Return what is looked at of a run: the beginning and the end of what was said, or all of it and nothing."""
    size = _size(run)
    if limit is None or size <= limit:
        return b"".join(event[3] for event in run), b""
    half = limit // 2
    return _beginning(run, half), _beginning(reversed(run), half, at_end=True)


def _beginning(run: Iterable[Event], size: int, *, at_end: bool = False) -> bytes:
    """Return the first bytes of a run; of one that comes backwards the last ones."""
    pieces: list[bytes] = []
    for event in run:
        piece = event[3][max(0, len(event[3]) - size) :] if at_end else event[3][:size]
        pieces.append(piece)
        size -= len(piece)
        if not size:
            break
    return b"".join(reversed(pieces) if at_end else pieces)


def _whole_lines(head: bytes, tail: bytes, ending: bytes) -> tuple[bytes, bytes]:
    """Cut the beginning after a line and the end before one, if there are any.

    A line that was cut would look like one that was sent without its ending.
    """
    last, first = head.rfind(ending), tail.find(ending, 0, len(tail) - len(ending))
    return head[: last + len(ending)] if last >= 0 else head, tail[first + len(ending) :] if first >= 0 else tail


def format_datagrams(events: Sequence[Event], *, limit: int | None = None) -> Iterator[str]:
    """Yield the lines of a conversation in datagrams: one line each, none joined, none cut."""
    for time, _, kind, data in events:
        side = _SIDES.get(kind)
        if side is None:
            yield f"[{time:.3f}] # not sent" if kind == "unsent" else _remark(data)
            continue
        shown = data if limit is None else data[:limit]
        line = f"{side}x {shown.hex(' ')}" if is_binary(shown) else f"{side}: {escaped(shown)}".rstrip(" ")
        yield f"[{time:.3f}] {line}"
        if len(shown) < len(data):
            yield _gap(len(data) - len(shown), len(data))


def _gap(left_out: int, size: int) -> str:
    return f"#! ... {left_out:,} bytes left out, {size:,} in all"


def _remark(text: bytes) -> str:
    return "\n".join(f"# {line}" for line in text.decode("utf-8", "backslashreplace").splitlines())


def _runs(events: Sequence[Event], *, backwards: bool = False) -> Iterator[tuple[str, list[Event]]]:
    """Yield what happened, with what one side said in a row together, in the order in which it said it."""
    really = _really_sent(events)
    for kind, group in groupby(reversed(really) if backwards else really, itemgetter(2)):
        run = list(group)
        yield kind, run[::-1] if backwards else run


def _really_sent(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events without the bytes that were noted before they were sent, and then could not be."""
    if "unsent" not in map(itemgetter(2), events):
        return events
    kept: list[Event] = []
    for event in events:
        if event[2] != "unsent":
            kept.append(event)
            continue
        count, at = int(event[3]), len(kept)
        while count and at:
            at -= 1
            time, connection, kind, data = kept[at]
            if kind == "sent":  # the client may have spoken since
                rest = data[: max(0, len(data) - count)]
                count -= len(data) - len(rest)
                kept[at : at + 1] = [(time, connection, kind, rest)] if rest else []
    return kept


def _size(run: list[Event]) -> int:
    return sum(map(len, map(itemgetter(3), run)))


def _starts(run: list[Event]) -> Callable[[int], float]:
    """Return the function from an offset in what a run said to the time at which that byte passed."""
    ends = list(accumulate(map(len, map(itemgetter(3), run))))
    return lambda offset: run[min(bisect_right(ends, offset), len(run) - 1)][0]


def _said(side: str, data: bytes, ending: bytes, *, binary: bool) -> Iterator[tuple[int, str]]:
    if binary:
        for offset in range(0, len(data), _HEX_WIDTH):
            yield offset, f"{side}x {data[offset : offset + _HEX_WIDTH].hex(' ')}"
        return
    offset = 0
    for line in _split(data, ending):
        if line.endswith(ending):
            yield offset, f"{side}: {escaped(line[: -len(ending)])}".rstrip(" ")
        else:
            yield offset, f"{side}- {escaped(line)}".rstrip(" ")
        offset += len(line)


def _split(data: bytes, ending: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        found = data.find(ending, start)
        end = len(data) if found < 0 else found + len(ending)
        yield data[start:end]
        start = end


# Scripts


class _LackingError(Exception):
    """The notation cannot say it."""


def script_lines(steps: Sequence[Step], *, datagrams: bool = False) -> list[str]:
    """Return a script as its dialogue; what the notation lacks is written as its call, after ``#!``."""
    ending = b"" if datagrams else _ending_of_script(steps)
    printer = _Printer(ending)
    head = ["% eol lf"] if ending == b"\n" else []
    return head + [line for step in steps for line in printer.lines(step)]


def _ending_of_script(steps: Sequence[Step]) -> bytes:
    return line_ending([(0.0, 0, "sent", text) for text in _texts(steps)])


def _texts(steps: Iterable[Step]) -> Iterator[bytes]:
    """Yield what is said and demanded as text, and the endings of lines that are given."""
    for step in steps:
        yield from _texts(step.steps)
        for value in (*step.args, step.options.get("ending")):
            if isinstance(value, Text) or (isinstance(value, bytes) and not is_binary(value)):
                yield from (piece for piece in _pieces(value) if isinstance(piece, bytes))
            yield b" "  # so that the end of one and the beginning of the next make no ending


class _Printer:
    """Writes step after step; what it has written says which ending a line has by now.

    Args:
        ending: Of the lines so far; none on datagrams, of which each is a line.
    """

    def __init__(self, ending: bytes) -> None:
        self._ending = ending

    def lines(self, step: Step) -> Iterator[str]:
        """Yield the lines of a step, those within it included."""
        try:
            written = list(self._written(step))
        except _LackingError:
            written = ["#! " + " ".join(repr(step).split("\n"))]
        time = f"[{_number(step.at)}] " if step.at else ""
        yield from (time + line for line in written)

    def _written(self, step: Step) -> Iterator[str]:
        options = {name for name, value in step.options.items() if value is not None}
        write = _VERBS.get(step.verb)
        if write is None or options - ({"ending"} if step.verb == "expect_line" else set()):
            raise _LackingError
        return write(self, step)

    # Saying

    def _send(self, step: Step) -> Iterator[str]:
        for part in joined(map(_plain, step.args)) if self._ending else step.args:
            yield from self._said(part)

    def _said(self, part: Part) -> Iterator[str]:
        if isinstance(part, (bytes, Text, Hex)):
            return self._said_bytes(part)
        return iter([_event(part)])

    def _said_bytes(self, part: bytes | Text | Hex) -> Iterator[str]:
        pieces = _pieces(part)
        if not self._ending or any(isinstance(piece, Name) for piece in pieces):
            yield self._unit("S", part)
            return
        data = b"".join(piece for piece in pieces if isinstance(piece, bytes))
        binary = isinstance(part, Hex) or is_binary(data)
        yield from (text for _, text in _said("S", data, self._ending, binary=binary))

    def _event(self, step: Step) -> Iterator[str]:
        yield _event(_PARTS[step.verb](*step.args))

    # Demanding

    def _expect(self, step: Step) -> Iterator[str]:
        match = step.args[0]
        if isinstance(match, (bytes, Text, Hex)):
            yield self._unit("C", match)
        elif self._ending:
            raise _LackingError  # of a frame
        else:
            yield _pattern_line(match, newlines=True)

    def _expect_line(self, step: Step) -> Iterator[str]:
        match, ending = step.args[0], step.options.get("ending")
        if ending not in (None, b"\n", b"\r\n"):
            raise _LackingError
        literal = isinstance(match, (bytes, Text, Hex))
        line = "" if literal else _pattern_line(match, newlines=ending == b"\r\n")
        if ending not in (None, self._ending):
            self._ending = ending
            yield "% eol lf" if ending == b"\n" else "% eol crlf"
        yield self._unit("C", match, self._ending) if literal else line

    def _recv_line(self, step: Step) -> Iterator[str]:
        yield _pattern_line(ANY, newlines=True)

    def _recv_until(self, step: Step) -> Iterator[str]:
        yield f"C> {written_text(_pieces(step.args[0]))}"

    def _recv_exactly(self, step: Step) -> Iterator[str]:
        if not 0 < step.args[0] <= _MOST_HOLES:
            raise _LackingError
        yield f"Cx {written_hex([Hole(step.args[0])])}"

    def _end(self, step: Step) -> Iterator[str]:
        yield {"expect_eof": "C! eof", "expect_reset": "C! reset"}[step.verb]

    def _unit(self, side: str, said: bytes | Text | Hex, ending: bytes = b"") -> str:
        """Return the one line for a literal, and the ending that follows it."""
        pieces = (*_pieces(said), ending) if ending else _pieces(said)
        if isinstance(said, Hex) or (isinstance(said, bytes) and is_binary(said)):
            return f"{side}x {written_hex(pieces)}".rstrip(" ")
        pieces, mark = _without_ending(pieces, self._ending)
        return f"{side}{mark} {written_text(pieces)}".rstrip(" ")

    # Steps of steps

    def _block(self, step: Step) -> Iterator[str]:
        yield "% optional" if step.verb == "maybe" else f"% repeat {step.args[0]}"
        for each in step.steps:
            yield from self.lines(each)
        yield "% end"


_VERBS: dict[str, Callable[[_Printer, Step], Iterator[str]]] = {
    "send": _Printer._send,
    "send_eof": _Printer._event,
    "close": _Printer._event,
    "reset": _Printer._event,
    "start_tls": _Printer._event,
    "open_gate": _Printer._event,
    "expect": _Printer._expect,
    "expect_line": _Printer._expect_line,
    "recv_line": _Printer._recv_line,
    "recv_until": _Printer._recv_until,
    "recv_exactly": _Printer._recv_exactly,
    "expect_eof": _Printer._end,
    "expect_reset": _Printer._end,
    "maybe": _Printer._block,
    "repeat": _Printer._block,
}

#: The verbs that are said in ``send`` as well.
_PARTS: dict[str, Callable[..., Part]] = {
    "send_eof": SendEof,
    "close": Close,
    "reset": Reset,
    "start_tls": StartTLS,
    "open_gate": OpenGate,
}

_MOST_HOLES = 64  # as many ?? as a line can hold that somebody is to read


def _event(part: Part) -> str:
    if isinstance(part, Delay):
        return f"S! delay {_number(part.seconds)}s"
    if isinstance(part, (Gate, OpenGate)):
        return f"S! {'wait' if isinstance(part, Gate) else 'open'} {part.name}"
    for known, word in ((Close(), "close"), (Reset(), "reset"), (SendEof(), "send-eof"), (StartTLS(), "start-tls")):
        if part == known:
            return f"S! {word}"
    if isinstance(part, Stall):
        return "S! stall"
    raise _LackingError


def _number(number: float) -> str:
    """Return a number without an exponent."""
    shown = repr(number).removesuffix(".0")
    return shown if "e" not in shown else f"{number:.20f}".rstrip("0")


def _pieces(literal: bytes | Text | Hex) -> tuple[Piece, ...]:
    if isinstance(literal, bytes):
        return (literal,) if literal else ()
    return literal.pieces


def _without_ending(pieces: tuple[Piece, ...], ending: bytes) -> tuple[tuple[Piece, ...], str]:
    """Return what stands after the marker, and the marker's second character."""
    if not ending:
        return pieces, ":"
    last = pieces[-1] if pieces else b""
    if isinstance(last, bytes) and last.endswith(ending):
        return (*pieces[:-1], last.removesuffix(ending)), ":"
    return pieces, "-"


def _plain(part: Part) -> Part:
    """Return a text that names nothing as its bytes, which join those beside it."""
    if isinstance(part, Text) and all(isinstance(piece, bytes) for piece in part.pieces):
        return b"".join(part.pieces)  # type: ignore[arg-type]
    return part


# Patterns

#: The flags that can stand in a pattern, by their letters; ASCII means nothing where bytes are matched.
_FLAGS = {re.IGNORECASE: "i", re.LOCALE: "L", re.MULTILINE: "m", re.VERBOSE: "x"}
_FLAGS_OF_ITS_OWN = re.compile(r"\(\?([aiLmsx]+)\)")
_REGEX_TOKEN = re.compile(r"\\.|[^\\]", re.DOTALL)
_NOT_IN_A_LINE = re.compile("[\0-\x08\n-\x1f\x7f\udc80-\udcff]")


def _pattern_line(match: Match | PatternText, *, newlines: bool) -> str:
    """Return the line that demands a pattern.

    Args:
        newlines: What is matched may hold a newline, which ``.`` means only where the pattern says so.
    """
    if match is ANY:
        return "C~ .*"
    if isinstance(match, PatternText):
        return f"C~ {match.source}"
    if not isinstance(match, re.Pattern):
        raise _LackingError
    source = _with_flags(_in_a_line(match), match, newlines=newlines)
    if not _means(source, match):
        raise _LackingError
    return f"C~ {source}"


def _in_a_line(pattern: re.Pattern[bytes]) -> str:
    """Return the source of a pattern with what cannot stand in a line, or at its end, escaped."""
    tokens = _REGEX_TOKEN.findall(pattern.pattern.decode("utf-8", "surrogateescape"))
    last = len(tokens) - 1
    written = "".join(
        _regex_escape(token[-1]) if _NOT_IN_A_LINE.match(token[-1]) or (at == last and token[-1] in " \t") else token
        for at, token in enumerate(tokens)
    )
    if pattern.flags & re.VERBOSE and written != "".join(tokens):
        raise _LackingError  # blanks and newlines are no text there, and their escapes would be
    return written or "(?:)"


def _regex_escape(character: str) -> str:
    return f"\\x{character.encode('utf-8', 'surrogateescape')[0]:02x}"


def _with_flags(source: str, pattern: re.Pattern[bytes], *, newlines: bool) -> str:
    """Return the source with the flags that were given beside it."""
    own = _FLAGS_OF_ITS_OWN.match(source)
    wanted = {letter for flag, letter in _FLAGS.items() if pattern.flags & flag}
    no_newline = newlines and not pattern.flags & re.DOTALL and "." in source.replace("\\.", "")
    if not no_newline and wanted <= set(own[1] if own else ""):
        return source
    rest = source[own.end() :] if own else source
    rest = f"(?-s:{rest})" if no_newline else rest
    return (f"(?{''.join(sorted(wanted))})" if wanted else "") + rest


def _means(source: str, pattern: re.Pattern[bytes]) -> bool:
    """Tell whether a dialogue's ``C~`` of this source has the flags of the pattern."""
    try:
        flags = re.compile(source.encode(), re.DOTALL).flags
    except re.error:
        return False
    return (flags | re.ASCII) == (pattern.flags | re.DOTALL | re.ASCII)
