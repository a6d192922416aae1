"""Rules: what is said in answer to a request, in whatever order the requests come.

A :class:`Rule` is an immutable declaration; how often it was taken is counted elsewhere.  Which one answers: a literal
before a pattern or a predicate, these before ``ANY``; among equals the latest declared, so that a test overrides its
fixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

from ..errors.location import Location, hide_frame
from .frozen import frozen
from .matching import (
    ANY,
    Lookup,
    Match,
    NothingKept,
    PatternText,
    Shape,
    beginning,
    checked_match,
    departure,
    described,
    is_empty,
    is_literal,
    matched_size,
    names_demanded,
    nothing_kept,
    parted,
    shape_of,
)
from .parts import Part
from .times import Times

__tracebackhide__ = hide_frame


class Moment:
    """What is no request, and can be answered as one: that somebody comes."""

    def __init__(self, name: str, meant: str) -> None:
        self._name, self.meant = name, meant

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


#: Matches a new connection: what it is greeted with.
CONNECT: Final = Moment("CONNECT", "a new connection")

#: Matches, on a TLS server, the beginning of a client's handshake: how that is answered.
HANDSHAKE: Final = Moment("HANDSHAKE", "a TLS handshake")

RuleMatch = Match | PatternText | Moment

#: How many rules a message about a request that none takes names.
NEAREST = 3


@frozen
class Rule:
    """A match, and what is said in answer: the first time, the second, and so on; the last one stays.

    Attributes:
        number: From 1 on, in order of declaration.
        cycles: After the last reply comes the first again.
    """

    number: int
    match: RuleMatch
    times: Times
    replies: tuple[tuple[Part, ...], ...]
    origin: Location
    cycles: bool = False

    def reply(self, count: int) -> tuple[Part, ...]:
        """Return what is said when the rule is taken for the ``count``-th time, from 1 on."""
        if not self.replies:
            return ()
        return self.replies[(count - 1) % len(self.replies) if self.cycles else min(count, len(self.replies)) - 1]

    def __str__(self) -> str:
        return f"rule {self.number} ({self.origin.short})"

    @property
    def meant(self) -> str:
        """What it expects, in words."""
        return repr(self.match) if isinstance(self.match, Moment) else described(self.match)


def checked_rule_match(match: RuleMatch, *, empty: bool = False) -> RuleMatch:
    """Return what a rule is to match, or raise the error that says what it should have been.

    Args:
        empty: A request may have no byte: a datagram, or a stream under a framing that begins with its end.
    """
    if isinstance(match, (Moment, PatternText)):
        return match
    if isinstance(match, type(ANY)):
        return ANY
    checked = checked_match(match)
    if is_empty(checked) and not empty:
        raise ValueError(
            "on() expected at least one byte; a new connection is CONNECT, "
            "and a stream without a byte is a request where framing=until_eof was set before"
        )
    return checked


def rank(match: RuleMatch) -> int:
    """Return a number by which rules are asked, the lowest first; among equals the latest declared is."""
    if is_literal(match):
        return 0
    return 2 if match is ANY else 1


def why_frames_are_needed(rules: Sequence[Rule]) -> tuple[Rule, str] | None:
    """Return the first rule that has no meaning on a stream without framing, and why; ``None`` if all have."""
    asked = sorted((each for each in rules if not isinstance(each.match, Moment)), key=lambda rule: rule.number)
    for rule in asked:
        if not is_literal(rule.match):
            return rule, (
                f"on() expected bytes, not {rule.meant}: on a stream without frames what it matches would depend on "
                "how the bytes arrive; give the server a framing=, lines(b'\\r\\n') for example"
            )
        if is_empty(rule.match):
            return rule, f"on({rule.meant}) matches a stream without a byte, under framing=until_eof, and no other"
        if names_demanded(rule.match):
            return rule, f"on() cannot compare {rule.meant} on a stream without frames: give the server a framing="
    return _alike(asked)


def _alike(rules: Sequence[Rule]) -> tuple[Rule, str] | None:
    """Return the later of two literals of which one begins the other: what is meant could not be told."""
    plain = sorted((rule for rule in rules if isinstance(rule.match, bytes)), key=lambda rule: rule.match)  # type: ignore[arg-type, return-value]
    for one, other in pairwise(
        plain
    ):  # of literals in order, what begins with another stands right after one that does
        if one.match != other.match and other.match.startswith(one.match):  # type: ignore[union-attr, arg-type]
            return _cannot_be_told(one, other)
    shapes = [(rule, shape_of(rule.match)) for rule in rules]  # type: ignore[arg-type]
    for one, shape in ((rule, shape) for rule, shape in shapes if not isinstance(rule.match, bytes)):
        for other, others in shapes:
            if one.match != other.match and (shape.begins(others) or others.begins(shape)):
                return _cannot_be_told(one, other)
    return None


def _cannot_be_told(one: Rule, other: Rule) -> tuple[Rule, str]:
    earlier, later = sorted([one, other], key=lambda rule: rule.number)
    return later, (
        f"on({later.meant}) and {earlier}, on({earlier.meant}), begin alike: on a stream without frames "
        "which of them is meant would depend on how the bytes arrive; give the server a framing="
    )


def nearest(rules: Iterable[Rule], data: bytes, lookup: Lookup = nothing_kept) -> list[tuple[Rule, str]]:
    """Return the rules that come nearest to what came, literals first, with what each expects and how that departs."""
    literals, others = [], []
    for rule in rules:
        if isinstance(rule.match, Moment):
            continue
        shape = _shape(rule.match, lookup)
        if shape is not None:
            literals.append((parted(shape, data), rule, partial(departure, shape, data)))
        else:
            how = partial(_pattern_departure, rule, data, lookup)
            others.append((matched_size(rule.match, data, lookup), rule, how))
    literals.sort(key=lambda each: (-each[0], -each[1].number))
    others.sort(key=lambda each: (-each[0], -each[1].number))
    return [(rule, how()) for _, rule, how in (literals + others)[:NEAREST]]


def _pattern_departure(rule: Rule, data: bytes, lookup: Lookup) -> str:
    return rule.meant + beginning(rule.match, data, lookup)


def _shape(match: RuleMatch, lookup: Lookup) -> Shape | None:
    """Return the bytes that a literal demands, if they are known by now."""
    if not is_literal(match):
        return None
    try:
        return shape_of(match, lookup)  # type: ignore[arg-type]
    except NothingKept:
        return None  # it names what was not captured yet
