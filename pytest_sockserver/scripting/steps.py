"""The steps of a script: one verb and its arguments each, and what can be said of them without performing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Any

from ..errors.location import Location
from . import verbs
from .effects import OpenGate
from .frozen import frozen
from .matching import PatternText, described, is_literal, matching, names_captured, names_demanded, shape_of
from .parts import ends, shown
from .parts import names_demanded as names_demanded_by_parts
from .verbs import Verb

#: Nothing follows them.
_LAST = frozenset(["close", "reset", "rules"])


@frozen
class Step:
    """One verb and its arguments; its repr is the call.

    Attributes:
        steps: Those that ``maybe`` and ``repeat`` hold.
        at: Seconds since the connection began, before which it does not happen (``timed`` dialogues).
    """

    verb: str
    args: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: Location = field(default_factory=Location, compare=False)
    steps: tuple[Step, ...] = ()
    at: float = 0.0

    def __repr__(self) -> str:
        given = [_argument(each) for each in self.args]
        given += [f"{name}={_argument(value)}" for name, value in self.options.items() if value is not None]
        given += [repr(each) for each in self.steps]
        return f"{self.verb}({', '.join(given)})"

    @cached_property
    def taking(self) -> Verb:
        """What it takes of the stream, for one that takes something."""
        return _TAKING[self.verb](self)

    @property
    def wants(self) -> str:
        """What it waits for, in words: ``a line matching rb'PASS .*'``."""
        if self.verb == "expect_line":
            return matching("a line", self.args[0])
        if self.verb == "expect":
            return described(self.args[0])
        if self.verb == "maybe":
            return f"{self.steps[0].wants}, or what follows"
        if self.verb == "repeat":
            return self.steps[0].wants
        return _WANTS.get(self.verb, "{}").format(*map(_argument, self.args))

    @property
    def captures(self) -> tuple[str, ...]:
        """The names that it captures, without those of the steps that it holds."""
        return names_captured(self.args[0]) if self.verb in ("expect", "expect_line") else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that must have been captured before it, without those of the steps that it holds."""
        if self.verb == "send":
            return names_demanded_by_parts(self.args)
        return names_demanded(self.args[0]) if self.verb in ("expect", "expect_line", "recv_until") else ()


_TAKING: dict[str, Callable[[Step], Verb]] = {
    "recv": lambda step: verbs.Recv(step.args[0]),
    "recv_exactly": lambda step: verbs.RecvExactly(step.args[0]),
    "recv_until": lambda step: verbs.RecvUntil(step.args[0], step.options.get("max_bytes")),
    "recv_line": lambda step: verbs.RecvLine(step.options.get("max_bytes")),
    "recv_all": lambda step: verbs.RECV_ALL,
    "expect": lambda step: verbs.Expect(step.args[0]),
    "expect_line": lambda step: verbs.ExpectLine(step.args[0], step.options.get("ending")),
    "expect_eof": lambda step: verbs.EXPECT_EOF,
    "expect_reset": lambda step: verbs.EXPECT_RESET,
}

#: The verbs that want something of the client.
READING = frozenset(_TAKING)

_WANTS = {
    "recv": "at most {} bytes",
    "recv_exactly": "{} bytes",
    "recv_until": "bytes through {}",
    "recv_line": "a line",
    "recv_all": "all bytes to the end of the stream",
    "expect_eof": "the end of the stream",
    "expect_reset": "a reset",
}


def _argument(value: object) -> str:
    if callable(value) and not isinstance(value, type):
        return f"<{shown(value).replace('the function ', '')}>"
    return described(value) if isinstance(value, PatternText) else repr(value)


def first_literal(step: Step) -> Any:
    """Return the literal that a step begins by demanding; ``None`` where it is none."""
    if step.steps:
        return first_literal(step.steps[0])
    match = step.args[0] if step.verb == "expect" else None
    return match if is_literal(match) and not names_demanded(match) else None


def may_start_alike(one: Any, other: Any, *, whole: bool) -> bool:
    """Tell whether bytes may come of which it is not known which of two literals is meant.

    Args:
        whole: They are datagrams, and each is compared as a whole.
    """
    first, second = shape_of(one), shape_of(other)
    # A literal without a byte is a datagram as well, whoever declares it.
    if len(first) != len(second) and (whole or not first.data or not second.data):
        return False
    return first.begins(second) or second.begins(first)


def last_step(steps: Sequence[Step]) -> Step | None:
    """Return the step that ends the connection, so that only gates can be opened after it; ``None`` without one."""
    last = next((each for each in reversed(steps) if each.verb != "open_gate"), None)
    return last if last is not None and (last.verb in _LAST or (last.verb == "send" and ends(last.args))) else None


def walk(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield all steps, those within others included."""
    for step in steps:
        yield step
        yield from walk(step.steps)


def step_needing_frames(steps: Iterable[Step]) -> Step | None:
    """Return the first step that has no meaning on a stream without framing, before one that brings a framing."""
    for step in walk(steps):
        if step.verb == "framing" and step.args[0] is not None:
            return None
        if step.verb == "expect" and not is_literal(step.args[0]):
            return step
    return None


def demands(step: Step) -> bool:
    """Tell whether a step is missed when it is never reached: the client was to do something."""
    if step.verb == "maybe":
        return False
    return step.verb in READING or any(demands(each) for each in step.steps)


def progresses(step: Step) -> bool:
    """Tell whether a step takes a byte, sends one, or takes a time; what a function comes to is not known yet."""
    if step.verb == "send":
        return any(part != b"" and not isinstance(part, OpenGate) for part in step.args)
    return step.verb != "open_gate"
