r"""Read a dialogue: text in which each line is what one side says or does, and which becomes a script.

Parsed, never evaluated.  What a line is by itself is ``dialogue_lines``' business; here it is put where it belongs.

A *section* is what one connection (one peer, on datagrams) says, in order, and becomes one :class:`Script`, built by
the verbs that a test would call, so that what they refuse is refused here, with the line.  S lines that follow one
another are held back until something else comes, and then are one ``send``.  An open ``% optional`` or ``% repeat`` is
a script of its own, which becomes a step at its ``% end``.  What stands in ``% rules`` is no step: it is kept beside
the script, as exchanges.

``dialogue_writer`` does the reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors.exceptions import DialogueError
from ..errors.location import Location, hide_frame
from .dialogue_lines import (
    CRLF,
    Adding,
    Line,
    checked_ending,
    checked_option,
    checked_section,
    demanded,
    done,
    event,
    lines_of,
    literal,
    nothing_said,
    pattern_of,
    refused,
)
from .effects import SendEof
from .frame_formats import lines
from .framing import Framing
from .frozen import frozen, replaced
from .matching import Hex, PatternText, Text, names_captured, names_demanded
from .notation import joined
from .parts import Part
from .parts import names_demanded as names_said
from .script import Script, block_of, checked_reply, checked_said, known_names, optional_block

__tracebackhide__ = hide_frame

# A section is in one of three states, and a line is judged by it: steps are read; a `% optional` or `% repeat` is open
# (a stack, since they nest); a `% rules` is open (which does not nest, and stands in no block).  `== n` needs the first
# state, so that a forgotten `% end` is found at the next section.
#
# Order that has to hold:
#
# - S lines that are held back become a step before anything else does.  Each line that adds a step, or opens or closes
#   a block of steps, flushes before it does so.
# - A line's place is set on the script right before the verb is called, since the verb reads it.
# - Names are checked at the end of a section: an answer may use what a later line captures.
#
# The script that is built is the one that a test would have built.  It is let go at the end, and thereby counts as
# whole.
#
# Not done: nothing is evaluated, and no name is looked up.  That is done when the script is performed.


@frozen
class Exchange:
    """One of ``% rules``: what may come at any time, and what is said then.

    Attributes:
        match: A pattern takes a line without its ``ending``, or a frame.
        origin: Where the line that begins it stands.
        line: The number of that line.
    """

    match: bytes | Text | Hex | PatternText
    parts: tuple[Part, ...]
    origin: Location
    line: int


@frozen
class Section:
    """One connection, or one peer.

    Attributes:
        index: ``None`` for all that come after the numbered ones.
        line: The number of the line where it begins.
        framing: What the exchanges take where the server has no framing: lines; ``None`` with ``% eol none``.
    """

    index: int | None
    script: Script
    exchanges: tuple[Exchange, ...]
    line: int
    framing: Framing | None = None


@frozen
class Dialogue:
    """What a text says.

    Attributes:
        sections: Those with a number, from 0 on without a gap.
        rest: The section ``== *``.
        numbered: Whether there was any ``==``.
    """

    sections: tuple[Section, ...]
    rest: Section | None
    numbered: bool


def parse(
    text: str,
    *,
    new_script: Callable[[], Script],
    datagrams: bool = False,
    timed: bool = False,
    place: Callable[[int], Location] | None = None,
) -> Dialogue:
    """Read a dialogue.

    Args:
        new_script: Makes the script of a section; it knows the transport, and the names that are given from outside.
        datagrams: Each line is a datagram.
        timed: What the server says leaves no earlier than its line's ``[seconds]``.
        place: Returns where a line of the text stands, by its number, from 1 on.

    Raises:
        DialogueError: A line cannot be read, or means nothing where it stands; a block is not closed; a connection is
            missing; there is no line at all.
    """
    reader = _Reader(_Settings(new_script, datagrams, timed, place))
    for line in lines_of(text):
        reader.take(line)
    return reader.dialogue()


@frozen
class _Settings:
    new_script: Callable[[], Script]
    datagrams: bool
    timed: bool
    place: Callable[[int], Location] | None


# Sections


class _Reader:
    """Takes the lines of a text, one after the other."""

    def __init__(self, settings: _Settings) -> None:
        self._settings = settings
        self._ending = b"" if settings.datagrams else CRLF  # of sections that have not begun
        self._sections: dict[int | None, _SectionReader] = {}
        self._current: _SectionReader | None = None
        self._numbered = False

    def take(self, line: Line) -> None:
        try:
            self._take(line)
        except DialogueError:
            raise
        except (TypeError, ValueError) as error:
            raise refused(line, error) from None

    def _take(self, line: Line) -> None:
        words = line.body.split() if line.marker == "%" else []
        if line.marker == "==":
            self._begin(line)
        elif words[1:2] == ["eol"]:
            self._set_ending(checked_ending(words[2:], self._settings.datagrams))
        else:
            self._section(0, line).take(line)

    def _set_ending(self, ending: bytes) -> None:
        # Sections that have not begun get it; those that were left keep their own.
        if self._current is None:
            self._ending = ending
        else:
            self._current.ending = ending

    def _begin(self, line: Line) -> None:
        """Begin a section, or take it up again."""
        index = checked_section(line.body)
        if self._current is not None:
            self._current.check_closed(line)
            if not self._numbered:
                raise ValueError(f"expected == 0 before line {self._current.line.number}: it belongs to no connection")
        self._numbered, self._current = True, None
        self._section(index, line)

    def _section(self, index: int | None, line: Line) -> _SectionReader:
        """Return the section whose lines come now."""
        if self._current is None:
            if index not in self._sections:
                self._sections[index] = _SectionReader(index, line, self._ending, self._settings)
            self._current = self._sections[index]
        return self._current

    def dialogue(self) -> Dialogue:
        """Return what all lines said."""
        if self._current is None:
            raise nothing_said()
        self._current.check_closed(None)
        self._check_gap()
        sections = [self._sections[index].section() for index in range(len(self._sections) - (None in self._sections))]
        rest = self._sections[None].section() if None in self._sections else None
        return Dialogue(tuple(sections), rest, self._numbered)

    def _check_gap(self) -> None:
        for expected, index in enumerate(sorted(index for index in self._sections if index is not None)):
            if index != expected:
                text = f"== {expected} is missing: connections are counted from 0 on, without a gap"
                text += f"; write == 0 for == {index} if it is the only one" if len(self._sections) == 1 else ""
                raise refused(self._sections[index].line, text)


@dataclass
class _Block:
    """An open ``% optional``, or ``% repeat`` if ``times`` is not 0."""

    line: Line
    script: Script
    times: int

    def adding(self) -> Adding:
        """Return what adds the step that it is."""
        if self.times:
            return lambda script: script.repeat(self.times, self.script)
        return lambda script: optional_block(script, self.script)


@dataclass
class _Said:
    """S lines that follow one another."""

    line: Line
    parts: list[Part] = field(default_factory=list)


@dataclass
class _Answer:
    """An exchange that is being read, and the names that its lines demand."""

    line: Line
    match: bytes | Text | Hex | PatternText
    parts: list[Part] = field(default_factory=list)
    last: list[Part] = field(default_factory=list)  # what the next part is judged by: the one before it, an end
    names: list[tuple[Line, str]] = field(default_factory=list)


class _SectionReader:
    """Takes the lines of one section.

    Attributes:
        ending: What ``:`` adds.
    """

    def __init__(self, index: int | None, line: Line, ending: bytes, settings: _Settings) -> None:
        self.line, self.ending = line, ending
        self._index, self._settings, self._datagrams = index, settings, settings.datagrams
        self._script = settings.new_script()
        self._blocks: list[_Block] = []
        self._said: _Said | None = None  # not yet a step: more may follow
        self._rules: Line | None = None  # while they are open
        self._answers: list[_Answer] = []
        self._framing: Framing | None = None  # of the answers

    def take(self, line: Line) -> None:
        """Take a line that is no ``==`` and no ``% eol``."""
        if line.marker == "%":
            self._take_option(line)
        elif self._rules is not None:
            self._take_rule(line, self._rules)
        elif line.marker == "S!":
            self._do(line)
        elif line.marker[0] == "S":
            self._say(line)
        else:
            self._demand(line)

    def check_closed(self, line: Line | None) -> None:
        """Refuse an open block: at the line that stands in it and may not, or at the end of the text."""
        opened = self._rules or (self._blocks[-1].line if self._blocks else None)
        if opened is None:
            return
        if line is None:
            raise refused(opened, f"{opened.body} is not closed: expected % end")
        begun = " ".join(line.body.split()[:2])
        raise ValueError(f"{begun} stands within {opened.body} of line {opened.number}: expected % end before it")

    def section(self) -> Section:
        """Return what its lines said."""
        self._flush()
        self._check_names()
        exchanges = [
            Exchange(each.match, tuple(self._joined(each.parts)), self._place(each.line), each.line.number)
            for each in self._answers
        ]
        self._script.place = Location  # no longer this reader's: a script that nothing else holds counts as whole
        return Section(self._index, self._script, tuple(exchanges), self.line.number, self._framing)

    # Steps

    def _innermost(self) -> Script:
        return self._blocks[-1].script if self._blocks else self._script

    def _say(self, line: Line) -> None:
        self._check_begun(line)
        (part,) = checked_said(self._innermost(), [literal(line, self.ending, self._datagrams)])
        if self._said is None or self._is_later(line, self._said.line):
            self._flush()
            self._said = _Said(line)
        self._said.parts.append(part)

    def _is_later(self, line: Line, before: Line) -> bool:
        return self._settings.timed and (line.at or 0.0) > (before.at or 0.0)

    def _do(self, line: Line) -> None:
        part = event(line, self._datagrams)
        self._check_begun(line)
        self._flush()
        self._add(line, done(part))

    def _demand(self, line: Line) -> None:
        if line.marker in ("C!", "C>"):
            self._check_begun(line)
        adding = demanded(line, self.ending, self._datagrams)
        self._flush()
        self._add(line, adding)

    def _check_begun(self, line: Line) -> None:
        """Refuse what cannot begin an optional block: it would not tell whether the client takes it."""
        if self._blocks and not self._blocks[-1].times and not self._blocks[-1].script.steps:
            opened = self._blocks[-1].line.number
            raise ValueError(f"% optional of line {opened} expected to begin with C: C- Cx or C~, not with {line.body}")

    def _flush(self) -> None:
        """Make a step of the S lines that were held back."""
        said, self._said = self._said, None
        if said is not None:
            self._add(said.line, lambda script: script.send(*self._joined(said.parts)))

    def _add(self, line: Line, adding: Adding) -> None:
        """Add a step that stands at a line, and is wrong there if it is."""
        script = self._innermost()
        # Replaced for each step; the last one would keep this reader alive: see section().
        script.place = lambda: self._place(line)
        try:
            adding(script)
        except (TypeError, ValueError) as error:
            raise refused(line, error) from None
        if self._settings.timed and line.at is not None and line.marker[0] == "S":
            script.steps[-1] = replaced(script.steps[-1], at=line.at)

    def _place(self, line: Line) -> Location:
        return Location() if self._settings.place is None else self._settings.place(line.number)

    def _joined(self, parts: list[Part]) -> list[Part]:
        """Return the parts with bytes that follow one another as one, unless each is a datagram."""
        return parts if self._datagrams else joined(parts)

    # Blocks

    def _take_option(self, line: Line) -> None:
        words = line.body.split()[1:]
        if words == ["end"]:
            self._close(line)
            return
        times = checked_option(words, line.body)
        if self._rules is not None:
            raise ValueError(
                f"{line.body} stands within % rules of line {self._rules.number}: expected % end before it"
            )
        if words == ["rules"]:
            self._open_rules(line)
        else:
            self._open(line, times)

    def _open(self, line: Line, times: int) -> None:
        self._check_begun(line)
        self._flush()
        self._blocks.append(_Block(line, block_of(self._innermost()), times))

    def _open_rules(self, line: Line) -> None:
        self.check_closed(line)
        self._rules, self._framing = line, lines(self.ending) if self.ending else None

    def _close(self, line: Line) -> None:
        if self._rules is not None:
            self._rules = None
            return
        if not self._blocks:
            raise ValueError("% end closes nothing: expected % optional, % repeat n or % rules before it")
        self._flush()
        block = self._blocks.pop()
        if not block.script.steps:
            raise refused(
                block.line, f"{block.line.body} holds nothing: expected lines before the % end of line {line.number}"
            )
        self._add(block.line, block.adding())

    # Rules

    def _take_rule(self, line: Line, rules: Line) -> None:
        if line.marker in ("C:", "C-", "Cx", "C~"):
            self._begin_answer(line)
        elif line.marker[0] == "C":
            raise ValueError(f"{line.marker} cannot stand in % rules: expected C: C- Cx or C~, then the answer")
        elif not self._answers or self._answers[-1].line.number < rules.number:
            raise ValueError(
                f"% rules of line {rules.number} expected to begin with C: C- Cx or C~, not with {line.body}"
            )
        else:
            self._answer(line, self._answers[-1])

    def _begin_answer(self, line: Line) -> None:
        if line.marker == "C~":
            match: bytes | Text | Hex | PatternText = pattern_of(line, self.ending, self._datagrams)
        else:
            match = literal(line, self.ending, self._datagrams)
        self._answers.append(_Answer(line, match, names=[(line, name) for name in names_demanded(match)]))

    def _answer(self, line: Line, answer: _Answer) -> None:
        is_event = line.marker == "S!"
        part = event(line, self._datagrams) if is_event else literal(line, self.ending, self._datagrams)
        checked_reply(self._script, [*answer.last, part])
        answer.names += [(line, name) for name in names_said([part])]
        answer.parts.append(part)
        answer.last = [*(each for each in answer.last[:1] if each == SendEof()), part]

    def _check_names(self) -> None:
        """Refuse names that nothing captures: an answer may use those of the whole section."""
        captured = [name for answer in self._answers for name in names_captured(answer.match)]
        known = {*known_names(self._script), *captured}
        for answer in self._answers:
            for line, name in answer.names:
                if name not in known:
                    said = ", ".join(sorted(known)) or "nothing"
                    text = rf"\g<{name}> names what nothing in this section captures: it knows {said}"
                    raise refused(line, text)
