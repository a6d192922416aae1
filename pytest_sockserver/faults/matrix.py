"""What a client made of each fault: a table for its author to read.  ``server.fault_matrix`` makes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..errors.location import hide_frame
from ..errors.messages import printable
from ..scripting.frozen import frozen
from .catalogue import ANYTHING, ERROR, SAME

__tracebackhide__ = hide_frame


_WIDTH: Final = 70  # of what a client made of a fault, in the table

RETURNED: Final = "returned"
RAISED: Final = "raised"
HUNG: Final = "hung"


@frozen
class FaultResult:
    """What a client made of one fault.

    Attributes:
        fault: In words.
        sound: What a sound client makes of it: the same result, or an error, or either.
        outcome: ``"returned"``, ``"raised"`` or ``"hung"``.
        value: What it returned, or the exception that it raised, without its traceback, which would keep the client's
            sockets; ``None`` if it hung.
        traceback: What Python prints of that exception.
        seconds: How long it took.
        is_same: It returned what it does when nothing is wrong.
        ended: It has ended by now; one that hung, when its server was gone.
        connections: How often it has connected; on datagrams, how many it has sent.
    """

    fault: str
    sound: str
    outcome: str
    value: Any
    seconds: float
    is_same: bool
    ended: bool
    connections: int
    traceback: str = ""

    @property
    def is_surprise(self) -> bool:
        """Whether a sound client would have made something else of it."""
        if self.outcome == HUNG:
            return True
        if self.outcome == RAISED:
            return self.sound == SAME
        return self.sound == ERROR or (self.sound != ANYTHING and not self.is_same)

    @property
    def told(self) -> str:
        """What it made of it, in words."""
        if self.outcome == HUNG:
            return "hung" if self.ended else "hung, even when its server was gone"
        if self.outcome == RAISED:
            text = printable(str(self.value)).partition("\n")[0]
            return f"{type(self.value).__name__}: {text}" if text else type(self.value).__name__
        return "returned the same" if self.is_same else f"returned {printable(repr(self.value))}"


class FaultMatrix(Sequence[FaultResult]):
    """What a client made of each fault; prints as a table.

    ``matrix["reply late"]`` is the result of one fault; ``surprises``, ``hung`` and ``changed`` are those to look at.
    """

    def __init__(self, title: str, result: object, fault_results: Sequence[FaultResult]) -> None:
        self.title, self.result = title, result
        self._fault_results = list(fault_results)

    def __len__(self) -> int:
        return len(self._fault_results)

    def __getitem__(self, which: Any) -> Any:
        if not isinstance(which, str):
            return self._fault_results[which]
        for fault_result in self._fault_results:
            if fault_result.fault == which:
                return fault_result
        raise KeyError(f"no fault {which!r} was tried; those that were: {', '.join(each.fault for each in self)}")

    def __iter__(self) -> Iterator[FaultResult]:
        return iter(self._fault_results)

    @property
    def surprises(self) -> list[FaultResult]:
        """Those of which a sound client would have made something else."""
        return [each for each in self if each.is_surprise]

    @property
    def hung(self) -> list[FaultResult]:
        """Those under which the client hung."""
        return [each for each in self if each.outcome == HUNG]

    @property
    def changed(self) -> list[FaultResult]:
        """Those under which it returned something else, as if nothing had happened."""
        return [each for each in self if each.outcome == RETURNED and not each.is_same]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__  # what an assertion shows

    def _lines(self) -> Iterator[str]:
        yield f"{self.title}: {_counted(len(self), 'fault')}, {_counted(len(self.surprises), 'surprise')} (!)"
        yield f"without a fault it returned {_shortened(printable(repr(self.result)))}"
        width = max((len(each.fault) for each in self), default=0)
        for each in self:
            mark = "!" if each.is_surprise else " "
            yield f"{mark} {each.fault:<{width}}  {each.seconds:6.3f} s  {_shortened(each.told)}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _shortened(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
