"""Perform a script on datagrams: each step takes one, and what follows it answers its sender.

Without numbered sections there is one order over all peers.  With them a section belongs to the peer of its number, in
order of appearance.  What a section says in answer to a datagram is said before its next datagram is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .captured import Request
from .declaring import Declaring
from .errors import ScriptMismatch, UnmetExpectation
from .origin import Origin
from .recording.recorder import Recorder
from .rulebook import RuleBook
from .scripting.matching import Lookup, compared, is_literal, matches, shape_of, shortened
from .scripting.script import Script, Step, demands
from .scripting.times import Times


@dataclass(frozen=True)
class Taken:
    """A datagram that a script has taken: what it captured, and the steps that answer it."""

    found: object
    answer: Sequence[Step]


class DatagramScript:
    """A script, and how far it has come.

    Attributes:
        waiting: Datagrams that came while it was answering the one before.
    """

    def __init__(
        self, script: Script, times: Times, chatter: RuleBook | None, values: Mapping[str, Any], recorder: Recorder
    ) -> None:
        # Not the script itself: when its user lets it go it is known to be whole.
        self.steps, self.captured, self.origin = script.steps, script.captured, script.origin
        self._declaring = Declaring(recorder, script)
        script.grown = self._declaring.went_on
        self.chatter, self.values = chatter, values
        self._times = times
        self._rounds = 0  # how often it was performed to its end
        self._ahead: deque[tuple[str, Step]] = deque()  # the rest of this round, with the place of each step
        self._begun = False
        self._told = False
        self.answering = False
        self.waiting: deque[Any] = deque()

    @property
    def over(self) -> bool:
        """Whether it takes no datagram any more."""
        return not self._ahead and self._begun and self._times.most is not None and self._rounds >= self._times.most

    def take(self, datagram: Request, lookup: Lookup) -> Taken | None:
        """Take a datagram, if it is what comes next."""
        __tracebackhide__ = True
        if not self._ahead:
            self._declaring.wait(bool)
            self._ahead.extend(expanded(self.steps))
            self._begun = True
        at = 0
        while at < len(self._ahead):
            _, step = self._ahead[at]
            first = step.steps[0] if step.verb == "maybe" else step
            found = matches(first.args[0], datagram, lookup) if first.verb == "expect" else None
            if found:
                return Taken(found, self._advance(at))
            if step.verb != "maybe":
                return None
            at += 1
        return None

    def _advance(self, at: int) -> list[Step]:
        """Go past the step that was taken; return those that answer it."""
        for _ in range(at):
            self._ahead.popleft()
        place, step = self._ahead.popleft()
        if step.verb == "maybe":
            self._ahead.extendleft((place, each) for each in reversed(step.steps[1:]))
        answer: list[Step] = []
        while self._ahead and self._ahead[0][1].verb in ("send", "open"):
            answer.append(self._ahead.popleft()[1])
        if not self._ahead:
            self._rounds += 1
        return answer

    def refusal(self, datagram: Request, lookup: Lookup, error: Callable[[Any, str], Any]) -> BaseException:
        """Return the error about a datagram that is not what comes next."""
        if not self._ahead:
            last = self.steps[-1].origin if self.steps else self.origin
            text = f"after step {len(self.steps)} of {len(self.steps)}, {last.short}, expected no further datagram"
            return _placed(error, f"{text}\n  got {shortened(datagram)}", last)
        self._told = True  # what is missing from here on is a consequence
        # What is optional is not what was missed, but where nothing else follows.
        place, step = next((each for each in self._ahead if each[1].verb != "maybe"), self._ahead[-1])
        wants, got = step.wants, shortened(datagram)
        match = step.args[0] if step.verb == "expect" else None
        if is_literal(match):
            wants, got = compared(shape_of(match, lookup), datagram)  # type: ignore[arg-type]
        return _placed(error, f"{place}, {step.origin.short}, expected {wants}\n  got {got}", step.origin)

    def unmet(self) -> UnmetExpectation | None:
        """Return the error about what was demanded and has not come; once."""
        if self._told or not self.steps or (not self._ahead and self._rounds >= self._times.least):
            return None
        ahead = self._ahead or deque(expanded(self.steps))
        missing = next(((place, step) for place, step in ahead if demands(step)), None)
        if missing is None:
            return None
        self._told = True
        place, step = missing
        error = UnmetExpectation(f"{place}, {step.origin.short}, was never reached: expected {step.wants}")
        error.placed = True
        return error.with_traceback(step.origin.traceback())


def _placed(error: Callable[[Any, str], Any], text: str, origin: Origin) -> ScriptMismatch:
    made: ScriptMismatch = error(ScriptMismatch, text)
    made.placed = True
    made.__traceback__ = origin.traceback()
    return made


def expanded(steps: Sequence[Step], place: str = "") -> Iterable[tuple[str, Step]]:
    """Yield the steps, those of a repeat as often as they are to be performed, each with its place in words."""
    for at, step in enumerate(steps):
        here = f"step {at + 1} of {len(steps)}"
        if place:
            here = f"{place}, {here}" if len(steps) > 1 else place
        if step.verb != "repeat":
            yield here, step
            continue
        for turn in range(step.args[0]):
            yield from expanded(step.steps, f"{here}, round {turn + 1} of {step.args[0]}")


class Sections:
    """The sections of a dialogue, each for one peer, in order of their appearance.

    Args:
        rest: Makes the script of each further peer, if there is one.
    """

    def __init__(self, scripts: Sequence[DatagramScript], rest: Callable[[], DatagramScript] | None) -> None:
        self._scripts, self._rest = list(scripts), rest
        self._peers: dict[Any, DatagramScript | None] = {}

    def script_for(self, peer: Any) -> DatagramScript | None:
        """Return the script of a peer; ``None`` if there is none for it."""
        if peer not in self._peers:
            index = len(self._peers)
            if index >= len(self._scripts) and self._rest is not None:
                self._scripts.append(self._rest())
            self._peers[peer] = self._scripts[index] if index < len(self._scripts) else None
        return self._peers[peer]

    @property
    def scripts(self) -> list[DatagramScript]:
        """All scripts, those of further peers included."""
        return list(self._scripts)
