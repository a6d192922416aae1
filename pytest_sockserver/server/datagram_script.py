"""Perform a script on datagrams: each step takes one, and what follows it answers its sender.

Without numbered sections there is one order over all peers.  With them a section belongs to the peer of its number, in
order of appearance.  What a section says in answer to a datagram is said before its next datagram is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..connection.request import Request
from ..errors.exceptions import ScriptMismatch, UnmetExpectation
from ..errors.location import Location, hide_frame
from ..recording.demands import Demand, Period
from ..recording.recorder import Recorder
from ..responders.declaration import UnfinishedDeclaration
from ..responders.rulebook import RuleBook
from ..scripting.frozen import frozen
from ..scripting.matching import Lookup, compared, is_literal, matches, shape_of, shortened
from ..scripting.script import Script
from ..scripting.script_cursor import Agenda
from ..scripting.steps import Step
from ..scripting.times import Times

__tracebackhide__ = hide_frame


@frozen
class Taken:
    """A datagram that a script has taken: what it captured, and the steps that answer it."""

    found: object
    answer: Sequence[Step]


class DatagramScript(Demand):
    """A script, and how far it has come.

    Attributes:
        waiting: Datagrams that came while it was answering the one before.
    """

    def __init__(
        self,
        script: Script,
        times: Times,
        chatter: RuleBook | None,
        values: Mapping[str, Any],
        recorder: Recorder,
        owner: Period | None,
    ) -> None:
        # Not the script itself: when its user lets it go it is known to be whole.
        self.steps, self.captured, self.origin = script.steps, script.captured, script.origin
        self._declaring = UnfinishedDeclaration(recorder, script)
        script.grown = self._declaring.went_on
        self.chatter, self.values = chatter, values
        self._times = times
        self.owner = owner  # what ran when it was declared
        self._rounds = 0  # how often it was performed to its end
        self._agenda: Agenda | None = None  # what is left of this round; changed by the thread that answers
        self._told = False
        self.answering = False
        self.waiting: deque[Any] = deque()

    @property
    def over(self) -> bool:
        """Whether it takes no datagram any more."""
        return self._agenda is None and self._times.most is not None and self._rounds >= self._times.most

    def take(self, datagram: Request, lookup: Lookup) -> Taken | None:
        """Take a datagram, if it is what comes next.  A script of which only optional steps are left is over then."""
        if self._agenda is None:
            self._declaring.wait(bool)
            self._agenda = Agenda(self.steps)
        agenda = self._agenda
        while (item := agenda.now) is not None:
            first = item.step.steps[0] if item.step.verb == "maybe" else item.step
            found = matches(first.args[0], datagram, lookup) if first.verb == "expect" else None
            if found:
                return Taken(found, self._go_on(agenda))
            if item.step.verb != "maybe":
                break
            agenda.pass_over()
        agenda.look_again()
        if not agenda.demanded():
            self._end_round()
        return None

    def _go_on(self, agenda: Agenda) -> list[Step]:
        """Go past the step that was taken; return those that answer it."""
        agenda.took()
        answer: list[Step] = []
        while (item := agenda.now) is not None and item.step.verb in ("send", "open_gate"):
            answer.append(agenda.took().step)
        if item is None:
            self._end_round()
        return answer

    def _end_round(self) -> None:
        self._agenda, self._rounds = None, self._rounds + 1

    def refusal(self, datagram: Request, lookup: Lookup, error: Callable[[Any, str], Any]) -> BaseException:
        """Return the error about a datagram that is not what comes next."""
        demanded = self._agenda.demanded() if self._agenda is not None else []
        if not demanded:
            last = self.steps[-1].origin if self.steps else self.origin
            text = f"after step {len(self.steps)} of {len(self.steps)}, {last.short}, expected no further datagram"
            return _placed(error, f"{text}\n  got {shortened(datagram)}", last)
        self._told = True  # what is missing from here on is a consequence
        place, step = demanded[0].place, demanded[0].step
        wants, got = step.wants, shortened(datagram)
        match = step.args[0] if step.verb == "expect" else None
        if is_literal(match):
            wants, got = compared(shape_of(match, lookup), datagram)  # type: ignore[arg-type]
        return _placed(error, f"{place}, {step.origin.short}, expected {wants}\n  got {got}", step.origin)

    def unmet(self) -> UnmetExpectation | None:
        """Return the error about what was demanded and has not come; once."""
        if self._told or not self.steps or (self._agenda is None and self._rounds >= self._times.least):
            return None
        missing = (self._agenda or Agenda(self.steps)).demanded()
        if not missing:
            return None
        self._told = True
        place, step = missing[0].place, missing[0].step
        error = UnmetExpectation(f"{place}, {step.origin.short}, was never reached: expected {step.wants}")
        error.placed = True
        return error.with_traceback(step.origin.traceback())


def _placed(error: Callable[[Any, str], Any], text: str, origin: Location) -> ScriptMismatch:
    made: ScriptMismatch = error(ScriptMismatch, text)
    made.placed = True
    made.__traceback__ = origin.traceback()
    return made


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
