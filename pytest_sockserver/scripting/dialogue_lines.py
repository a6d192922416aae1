r"""The lines of a dialogue, each by itself: what it is, and what it says.

A line is either understood or refused: with its number, the column where there is one, and what was expected.  What it
means where it stands is ``dialogue_reader``'s business; how text and hex are read is ``notation``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import DialogueError
from ..errors.location import hide_frame
from .arguments import LONGEST_WAIT
from .effects import Close, Delay, Gate, OpenGate, Reset, SendEof, Stall
from .frozen import frozen
from .matching import Hex, PatternText, Text
from .notation import Name, NotationError, Piece, read_hex, read_text, written_hex, written_text
from .tls_effects import StartTLS

if TYPE_CHECKING:
    from .script import Script

__tracebackhide__ = hide_frame

# A line is read from the outside in: its time, then whether it says anything at all (empty, a comment, the heading of a
# report), then control characters, then its marker.  A comment may hold anything, so it is skipped before it is
# checked; only `#!` is refused.
#
# Columns are counted in the source and not in the body, in characters: the caret of a message stands under the test's
# own text.  What a notation counts from the beginning of the argument has the marker and one blank added.
#
# Two endings are possible, and mean different things.  That of the text itself, LF or CRLF, is dropped; it is Windows'
# only where every line has it, since a single CR is a mistake that must be shown.  That of the conversation is set by
# `% eol`, and is added by `:` to the text of the line.
#
# Not done: no line depends on another one here, and nothing is guessed.  What was almost understood is named in the
# error.


CRLF = b"\r\n"

#: Adds a step to a script, by the verb that a test would call.
Adding = Callable[["Script"], object]

Event = Close | Reset | SendEof | StartTLS | Stall | Delay | Gate | OpenGate

# Lines

_SAYING = ("S:", "S-", "Sx", "C:", "C-", "Cx", "C~", "C>")
_MARKERS = (*_SAYING, "S!", "C!")
_EXPECTED = "a line that begins with S: S- Sx S! C: C- Cx C~ C> C! == % or #"
_ALMOST = re.compile(r"(s|c|server|client) ?([:~>!-]|x(?= ?[0-9a-f?<\\])) ?(.*)", re.IGNORECASE | re.DOTALL)
_NO_TEXT = re.compile("[\0-\x08\n-\x1f\x7f\ud800-\udfff]")
_TIME = re.compile(r"\[([^\]]*)\][ \t]*")
_HEADING = re.compile(r"-+ sockserver: .* -+")  # of a report, which is selected with what stands under it
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


@frozen
class Line:
    """A line that says something.

    Attributes:
        number: From 1 on.
        source: All of it.
        column: Where its body begins, from 0 on.
        body: Without the blanks around it, and without its time.
        at: Its time, in seconds.
    """

    number: int
    source: str
    column: int
    body: str
    at: float | None = None

    @property
    def marker(self) -> str:
        """What it begins with: ``"C~"``, ``"S!"``, ``"=="``, ``"%"``; nothing if that is unknown."""
        if self.body[:2] in _MARKERS and self.body[2:3] in ("", " "):
            return self.body[:2]
        if self.body == "%" or self.body.startswith("% "):
            return "%"
        return "==" if self.body.startswith("==") else ""

    @property
    def argument(self) -> str:
        """What stands after the marker and one blank."""
        return self.body[3:]


def lines_of(text: str) -> Iterator[Line]:
    """Yield the lines that say something."""
    text = text.removeprefix("\ufeff")
    if text.count("\r\n") == text.count("\n"):  # a file of Windows; a single \r is no ending, but somebody's mistake
        text = text.replace("\r\n", "\n")
    for number, source in enumerate(text.split("\n"), 1):
        line = _with_time(_line(number, source, 0))
        if line.body.startswith("#!"):
            raise refused(
                line,
                f"#! marks what the notation cannot express, or a report has left out (-vv): {line.body[2:].strip()}",
            )
        if line.body and not line.body.startswith("#") and not _HEADING.fullmatch(line.body):
            yield _checked(line)


def _line(number: int, source: str, start: int, at: float | None = None) -> Line:
    """Return the line whose body begins at ``start`` or after the blanks there."""
    body = source[start:].lstrip(" \t")
    return Line(number, source, len(source) - len(body), body.rstrip(" \t"), at)


def _with_time(line: Line) -> Line:
    found = _TIME.match(line.body)
    if found is None:
        return line
    if not _SECONDS.fullmatch(found[1]):
        raise refused(line, f"expected seconds in brackets, as in [0.250], not [{found[1]}]")
    if float(found[1]) > LONGEST_WAIT:
        raise refused(line, f"expected at most {LONGEST_WAIT:,} seconds (a day) in brackets, not [{found[1]}]")
    timed = _line(line.number, line.source, line.column + found.end(), float(found[1]))
    if not timed.body:
        raise refused(line, f"expected {_EXPECTED} after the time")
    return timed


def _checked(line: Line) -> Line:
    found = _NO_TEXT.search(line.body)
    if found is not None:
        text = f"expected text, not the control character {found[0]!r}: write r before the string?"
        raise refused(line, text, line.column + found.start())
    if not line.marker:
        raise refused(line, _unknown(line.body))
    return line


def _unknown(body: str) -> str:
    nearest = _nearest_line(body)
    return f"expected {_EXPECTED}" + (f"; did you mean {nearest}?" if nearest else "")


def _nearest_line(body: str) -> str:
    """Return what may have been meant by a line that begins with no marker."""
    if body.startswith("%"):
        return f"% {body[1:]}"
    found = _ALMOST.fullmatch(body)
    marker = f"{found[1][0].upper()}{found[2].lower()}" if found else ""
    return f"{marker} {found[3]}".rstrip(" ") if found and marker in _MARKERS else ""


# Errors

_SHOWN = 100  # characters of a line that a message shows
_BEFORE = 60  # of these, before the column, where the line is longer


def refused(line: Line, error: Exception | str, column: int | None = None) -> DialogueError:
    """Return the error that shows a line, and the column where there is one."""
    if isinstance(error, NotationError):
        column = line.column + len("C: ") + error.column
    where = f"line {line.number}" if column is None else f"line {line.number}, column {column + 1}"
    refusal = DialogueError(f"{where}: {error}\n{_excerpt(line.source, column)}")
    refusal.line = line.number
    return refusal


def nothing_said() -> DialogueError:
    """Return the error of a text without a line."""
    refusal = DialogueError(f"the dialogue is empty: expected {_EXPECTED}")
    refusal.line = 1
    return refusal


def _excerpt(source: str, column: int | None) -> str:
    """Return a line without its indentation, a long one in part, and a caret under the column."""
    indent = len(source) - len(source.lstrip(" \t"))
    body, at = _NO_TEXT.sub("\ufffd", source.strip(" \t")), (column or 0) - indent
    start = max(0, at - _BEFORE) if len(body) > _SHOWN else 0
    left, right = "..." if start else "", "..." if len(body) > start + _SHOWN else ""
    shown = f"  {left}{body[start : start + _SHOWN]}{right}"
    if column is None:
        return shown
    before = "".join("\t" if each == "\t" else " " for each in left + body[start:at])
    return f"{shown}\n  {before}^"


# Sections and options

_SECTION = re.compile(r"==[ \t]*([0-9]+|\*)(?:[ \t].*)?")


def checked_section(body: str) -> int | None:
    """Return the index of a section, ``None`` for all further ones."""
    found = _SECTION.fullmatch(body)
    if found is None:
        raise ValueError("expected == and the number of a connection, from 0 on, or == * for all further ones")
    return None if found[1] == "*" else int(found[1])


_ENDINGS = {"crlf": CRLF, "lf": b"\n", "none": b""}


def checked_ending(words: list[str], datagrams: bool) -> bytes:
    """Return the line ending that ``% eol`` sets, given what stands after it."""
    if len(words) != 1 or words[0] not in _ENDINGS:
        raise ValueError("expected % eol crlf, % eol lf or % eol none")
    if datagrams and words != ["none"]:
        raise ValueError("datagrams have no line ending: expected no % eol")
    return _ENDINGS[words[0]]


_OPTIONS = ("eol", "optional", "repeat", "rules", "end")


def checked_option(words: list[str], body: str) -> int:
    """Return how often a block is repeated; 0 for the blocks that are not."""
    if words in (["optional"], ["rules"]):
        return 0
    if words[:1] == ["repeat"]:
        if len(words) == 2 and re.fullmatch("[0-9]+", words[1]) and int(words[1]) > 0:
            return int(words[1])
        raise ValueError(f"expected a number of times, 1 or more, as in % repeat 3, not {body}")
    nearest = _nearest("% ", "".join(words[:1]), _OPTIONS)
    raise ValueError(f"expected % eol crlf|lf|none, % optional, % repeat n, % rules or % end{nearest}")


def _nearest(marker: str, word: str, known: Iterable[str]) -> str:
    """Return the end of a message: what may have been meant."""
    import difflib  # what is wrong is rare

    found = difflib.get_close_matches(word, list(known), 1, cutoff=0.5)
    return f"; did you mean {marker}{found[0]}?" if found else ""


# What is said

_ON_DATAGRAMS = ("delay", "wait", "open")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ms|s)")


def literal(line: Line, ending: bytes, datagrams: bool) -> bytes | Text | Hex:
    """Return the bytes that a line says, or demands; with names or holes where it has such."""
    if line.marker[1] == "x":
        found: bytes | Text | Hex = _hex(line)
    else:
        found = _text(line, ending if line.marker[1] == ":" else b"")
    if not found and not datagrams:
        raise ValueError(f"expected something after {line.marker}: as it stands it means no byte")
    return found


def _hex(line: Line) -> bytes | Hex:
    pieces = read_hex(line.argument, holes=line.marker == "Cx")
    return _plain(pieces) if all(isinstance(piece, bytes) for piece in pieces) else Hex(written_hex(pieces))


def _text(line: Line, ending: bytes) -> bytes | Text:
    pieces = (*read_text(line.argument), ending)
    return Text(written_text(pieces)) if any(isinstance(piece, Name) for piece in pieces) else _plain(pieces)


def _plain(pieces: Iterable[Piece]) -> bytes:
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def event(line: Line, datagrams: bool) -> Event:
    """Return what an ``S!`` line does."""
    word, *rest = line.argument.split() or [""]
    if word not in _EVENTS:
        raise ValueError(f"expected S! with {', '.join(_EVENTS)}{_nearest('S! ', word, _EVENTS)}")
    if datagrams and word not in _ON_DATAGRAMS:
        raise ValueError(f"S! {word} has no meaning for datagrams: expected delay, wait or open")
    return _EVENTS[word](word, rest)


def _simple(word: str, rest: list[str]) -> Event:
    if rest:
        raise ValueError(f"expected nothing after S! {word}, not {' '.join(rest)}")
    return _SIMPLE[word]()


def _delay(word: str, rest: list[str]) -> Event:
    found = _DURATION.fullmatch(" ".join(rest))
    if found is None:
        raise ValueError(
            f"expected a time with its unit, as in S! delay 500ms or S! delay 0.5s, not {' '.join(rest)!r}"
        )
    return Delay(float(found[1]) / 1000 if found[2] == "ms" else float(found[1]))


def _gate(word: str, rest: list[str]) -> Event:
    if len(rest) != 1:
        raise ValueError(f"expected the name of a gate after S! {word}, without blanks, not {' '.join(rest)!r}")
    return Gate(rest[0]) if word == "wait" else OpenGate(rest[0])


_SIMPLE: dict[str, Callable[[], Event]] = {
    "close": Close,
    "reset": Reset,
    "send-eof": SendEof,
    "start-tls": StartTLS,
    "stall": Stall,
}
_EVENTS: dict[str, Callable[[str, list[str]], Event]] = {
    **dict.fromkeys(("close", "reset", "send-eof", "start-tls"), _simple),
    "delay": _delay,
    "wait": _gate,
    "open": _gate,
    "stall": _simple,
}
_VERBS: dict[type, Adding] = {
    Close: lambda script: script.close(),
    Reset: lambda script: script.reset(),
    SendEof: lambda script: script.send_eof(),
    StartTLS: lambda script: script.start_tls(),
}


def done(part: Event) -> Adding:
    """Return what adds the step that does what an ``S!`` line says."""
    if isinstance(part, OpenGate):
        return lambda script: script.open_gate(part.name)
    return _VERBS.get(type(part), lambda script: script.send(part))


# What is demanded


def demanded(line: Line, ending: bytes, datagrams: bool) -> Adding:
    """Return what adds the step that demands what a C line says."""
    if datagrams and line.marker in ("C>", "C!"):
        raise ValueError(f"{line.marker} has no meaning for datagrams: each C line is a whole one")
    if line.marker == "C!":
        return _ended(line)
    if line.marker == "C>":
        delimiter = _delimiter(line)
        return lambda script: script.recv_until(delimiter)
    if line.marker == "C~":
        return _matched(pattern_of(line, ending, datagrams), datagrams)
    said = literal(line, ending, datagrams)
    return lambda script: script.expect(said)


def _ended(line: Line) -> Adding:
    verbs: dict[str, Adding] = {
        "eof": lambda script: script.expect_eof(),
        "reset": lambda script: script.expect_reset(),
    }
    if line.argument.strip() not in verbs:
        raise ValueError("expected C! eof or C! reset")
    return verbs[line.argument.strip()]


def _matched(pattern: PatternText, datagrams: bool) -> Adding:
    match: Any = pattern if pattern.names else pattern.compiled(_filler)
    if datagrams:
        return lambda script: script.expect(match)
    return lambda script: script.expect_line(match, ending=pattern.ending)


def _delimiter(line: Line) -> bytes | Text:
    if not line.argument:
        raise ValueError("expected after C> the text through which bytes are taken")
    return _text(line, b"")


def pattern_of(line: Line, ending: bytes, datagrams: bool) -> PatternText:
    """Return the pattern of a ``C~`` line, which has been compiled once."""
    if not ending and not datagrams:
        raise ValueError("with % eol none there is no line that C~ could take: expected C: C- Cx or C>")
    if not line.argument:
        raise ValueError("expected a pattern after C~; an empty line is C:")
    pattern = PatternText(line.argument, ending)
    try:
        pattern.compiled(_filler)
    except (re.error, OverflowError, Warning) as error:
        raise NotationError(
            f"expected a pattern, but {getattr(error, 'msg', error)}", _column_of(error, line.argument)
        ) from None
    return pattern


def _filler(name: str) -> bytes:
    r"""Return something that makes ``(?:...)`` as long as ``\g<name>``, so that columns stay right."""
    return b"x" * len(name.encode())


def _column_of(error: Exception, source: str) -> int:
    position = getattr(error, "pos", None) or 0  # in bytes
    return len(source.encode()[:position].decode("utf-8", "ignore"))
