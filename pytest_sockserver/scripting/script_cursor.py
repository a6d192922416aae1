"""What is left of a script while it is performed: one step after the other, blocks unrolled as they come.

Optional steps may be passed over and still come: when chatter was answered in between, what comes next may be the step
that was passed over.  So they stay at the front of the agenda until a step after them is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from .frozen import frozen, replaced
from .steps import Step, demands

# `_ahead` is the front of what is left, unrolled as far as somebody has looked; the steps behind it are counted by
# `_known`.  Its first `passed` items are optional ones that something else was preferred to; the item after them is
# `now`.
#
# What happens to an item:
#
# - `took`: it was performed.  Everything that was passed over before it is dropped: its time is over once a later step
#   came.  An optional item is followed by the steps that belong to it.
# - `pass_over`: it was optional and did not match.  It stays where it is, and the next one is `now`.
# - `look_again`: the rules have answered something in between, so the items that were passed over may come after all.
#
# A `repeat` is replaced by the items of one round and what is left of itself, when somebody looks at it.  All rounds at
# once would cost memory for each of a million.  A round in which nothing was taken is the last one for the time being:
# without that rule a repeat of optional steps would unroll for ever.
#
# Not done: no lock, and no judgement of what came.  The caller decides which of the three it was.


@frozen
class Item:
    """A step, and where it stands.

    Attributes:
        siblings: The steps among which it stands; those at the top may still grow.
        within: The place of the block that it stands in.
        turn: Of a ``repeat``, how often it was performed.
        began: Of a ``repeat``, how many items had been taken when its last round began.
    """

    step: Step
    siblings: Sequence[Step]
    at: int
    within: str = ""
    turn: int = 0
    began: int = -1

    @property
    def place(self) -> str:
        """Where it stands, in words: ``step 3 of 4, round 2 of 3, step 1 of 2``."""
        here = f"step {self.at + 1} of {len(self.siblings)}"
        if not self.within:
            return here
        return f"{self.within}, {here}" if len(self.siblings) > 1 else self.within

    def unrolled(self, taken: int) -> list[Item]:
        """Return the items of one round of a ``repeat``, which begins now, and what is left of it."""
        (times,) = self.step.args
        place = f"{self.place}, round {self.turn + 1} of {times}"
        inner = [Item(step, self.step.steps, at, place) for at, step in enumerate(self.step.steps)]
        return [*inner, replaced(self, turn=self.turn + 1, began=taken)] if self.turn + 1 < times else inner

    def belonging(self) -> list[Item]:
        """Return the items that belong to an optional step which was taken."""
        place = f"{self.place}, which is optional"
        return [Item(step, self.step.steps, at, place) for at, step in enumerate(self.step.steps)][1:]


class Agenda:
    """The steps that are left.  Not thread-safe.

    Args:
        steps: They may grow meanwhile.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._known = 0  # so many of the steps are, or were, in what is ahead
        self._ahead: deque[Item] = deque()
        self._taken = 0  # how many items were taken
        self.passed = 0  # optional items at the front that were passed over, for now

    @property
    def now(self) -> Item | None:
        """The item that is to be performed; ``None`` at the end, so far."""
        return self._item(self.passed)

    def _item(self, at: int) -> Item | None:
        while True:
            if at < len(self._ahead):
                item = self._ahead[at]
                if item.step.verb != "repeat":
                    return item
                if at == self.passed and item.began == self._taken:
                    # Nothing of its last round was taken: what has come is not for the next round either.
                    self.passed, at = self.passed + 1, at + 1
                    continue
                del self._ahead[at]
                # Inserted from the last to the first, each at the same place, so that they end up in order.
                for each in reversed(item.unrolled(self._taken)):
                    self._ahead.insert(at, each)
            elif self._known < len(self._steps):
                self._ahead.append(Item(self._steps[self._known], self._steps, self._known))
                self._known += 1
            else:
                return None

    def item(self, ahead: int) -> Item | None:
        """Return the item that comes so many after the one that is to be performed."""
        return self._item(self.passed + ahead)

    def took(self) -> Item:
        """Go on: the item was performed."""
        for _ in range(self.passed):
            self._ahead.popleft()
        self.passed, self._taken = 0, self._taken + 1
        item = self._ahead.popleft()
        if item.step.verb == "maybe":
            self._ahead.extendleft(reversed(item.belonging()))
        return item

    def pass_over(self) -> None:
        """Go on: the item was optional, and something else came."""
        self.passed += 1

    def look_again(self) -> None:
        """Go back to the optional items that were passed over."""
        self.passed = 0

    def has_grown(self) -> bool:
        """Tell whether there are steps that it has not seen yet."""
        return self._known < len(self._steps)

    def demanded(self) -> list[Item]:
        """Return what is left and demands something of the client; blocks are not unrolled."""
        known = self._known
        rest = (Item(step, self._steps, at) for at, step in enumerate(islice(self._steps, known, None), known))
        return [item for item in [*self._ahead, *rest] if demands(item.step)]
