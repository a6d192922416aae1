"""What must happen before a test, or a fixture, ends: ``times``, scripts, faults.

A declaration belongs to the fixture whose set-up runs when it is made, the innermost, else to the running test.
pytest's hooks set what runs now; it is one for the whole process, since a helper thread of a test may declare.  Outside
of these hooks nothing runs, and a declaration is judged when its server's owner ends: its ``with`` block, for example.
That holds for what a test begins by itself as well; what a fixture of a wider scope begins is adopted by the hooks.

A demand is judged once, when its owner ends, and then it is forgotten: the next test starts without it.  ``clear()``
forgets demands as well, while their owner is still set up or called; later they are kept until they are judged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from operator import attrgetter
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from ..errors.exceptions import UnmetExpectation
    from .recorder import Recorder


# The states of a period, which the hooks set, each once and in this order: running; due (the call is over, or the
# fixture's teardown has begun); over (its demands were judged).  ``clear()`` looks at the second.  A test that clears
# its server, in its call, gives up what it has declared; a teardown that does so must not make a failure disappear.
#
# A demand is judged at the end of its own period and not when its server stops: a server of a wider scope serves many
# tests, and the test that has declared something is the one to fail.
#
# Threads.  ``_running`` is one for the process, and no thread's or task's own: helper threads of a test declare as
# well, and one test runs in a process at a time.  Only the hooks replace it, in the main thread; each reader reads it
# once.  The list of demands is guarded by the recorder's lock, and is replaced where something leaves it.  ``unmet()``
# of a demand is called without it: its text may need the user's ``__repr__``.
#
# Fixtures that run within the call (of pytest-trio, and unittest's methods) have no hook of their own.  They are found
# by their code on the caller's stack.
#
# Not known here: pytest.  Without its hooks nothing runs, and a demand without an owner is judged by its server's end.
class Period:
    """A test, or the life of a fixture.

    Args:
        name: The test's, or the fixture's.
        test: The test with which a function-scoped fixture ends.
        is_body: It is a test itself, and no fixture.

    Attributes:
        whole: The period with whose end it is judged: of a function-scoped fixture that of its test, else itself.
        is_due: From now on ``clear()`` forgets no demand of it: the call is over, or the fixture's teardown has begun.
        is_over: Its demands were judged.
        patience: Seconds that its end may wait for handlers that are busy; ``None`` for as long as a call's end may.
        late_fixtures: Of a test: the code of what sets up and tears down within its call, fixtures of pytest-trio and
            the methods of unittest; each with a function that tells whether it tears down.
        outer: What runs again when ``has_left()``.  For a fixture whose set-up began before there were hooks.
        adopt: Of a fixture of a wider scope: lets its tests be judged by a server, or a factory, that is not ours.
    """

    def __init__(self, name: str, test: Period | None = None, *, is_body: bool = False) -> None:
        self.name = name
        self._test = test  # not itself: a period without a test would never be freed by counting
        self.is_body = is_body
        self.is_due = self.is_over = False
        self.patience: float | None = None
        self.late_fixtures: dict[CodeType, Callable[[], bool]] = {}
        self.outer: Period | None = None
        self.has_left: Callable[[], bool] = bool
        self.adopt: Callable[[Any], None] | None = None

    @property
    def whole(self) -> Period:
        """The test that it is a part of; else itself."""
        return self._test or self

    def is_torn_down(self) -> bool:
        """Tell whether the caller is the teardown of the period, or of its test."""
        late = None if self.whole.is_due else _late_fixture(self.whole)
        return self.whole.is_due or (late is not None and late())


_running: Period | None = None  # replaced by the hooks, in the main thread; any thread reads it, once


def running() -> Period | None:
    """Return what a declaration that is made now belongs to; ``None`` outside of pytest's hooks.  Any thread."""
    # Read once, into a local name: the hooks may replace it at any moment.
    period = _running
    while period is not None and period.has_left():
        period = period.outer
    return period


def adopt(owner: Any) -> None:
    """Let the hooks judge a server, or a factory, if the set-up of a fixture of a wider scope begins it.  Any thread.

    What a test begins, or a fixture that ends with it, is judged by its own block alone: no other test uses it.
    """
    period = running()
    if period is not None and period.adopt is not None:
        period.adopt(owner)


def run(period: Period | None) -> None:
    """Let a test, or a fixture's set-up, own what is declared from now on."""
    global _running
    _running = period


def is_in_a_tests_body() -> bool:
    """Tell whether a test itself declares now, and no fixture.

    In a test by Hypothesis it is the strategy that does: most examples need not come to what was drawn for others.
    """
    hypothesis = sys.modules.get("hypothesis")
    if hypothesis is not None and hypothesis.currently_in_test_context():
        return False
    period = running()
    if period is not None:
        return period.is_body and not period.is_due and _late_fixture(period) is None
    return not os.environ.get("PYTEST_CURRENT_TEST", "").endswith("(setup)")  # pytest says so without our hooks


def _late_fixture(period: Period) -> Callable[[], bool] | None:
    """Return the function of what calls this, if that sets up or tears down within the call of the test."""
    late, frame = None, sys._getframe(1) if period.late_fixtures else None
    while frame is not None and late is None:
        late, frame = period.late_fixtures.get(frame.f_code), frame.f_back
    return late


class Demand:
    """A declaration that may turn out to be unmet.

    Attributes:
        is_under_way: A client has begun to meet it.
        is_of_the_call: It must be met when the test's call is over; whatever a fixture's teardown may bring.
        owner: What ran when it was declared.
    """

    __slots__ = ()
    is_under_way: ClassVar[bool] = False
    is_of_the_call: ClassVar[bool] = False
    owner: Period | None

    def unmet(self) -> UnmetExpectation | None:
        """Return the error about what has not happened; once.  Any thread."""
        raise NotImplementedError


is_under_way: Final[Callable[[Demand], bool]] = attrgetter("is_under_way")
is_of_the_call: Final[Callable[[Demand], bool]] = attrgetter("is_of_the_call")


class Demands:
    """The demands of one server that are not judged yet, in order of declaration.

    Attributes:
        are_judged_by_hooks: The owner's end judges them: then ``clear()`` forgets none whose owner is no longer called.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.are_judged_by_hooks = False
        self._all: list[Demand] = []  # guarded by the recorder's lock

    def add(self, demand: Demand) -> None:
        """Keep a demand until it is judged."""
        with self._recorder.lock:
            self._all.append(demand)

    def remove(self, demand: Demand) -> None:
        """Forget a demand."""
        with self._recorder.lock:
            self._all = [each for each in self._all if each is not demand]

    def clear(self) -> list[Demand]:
        """Forget the demands of what is still set up or called; in a teardown forget nothing.

        Returns:
            What is to be let go without the lock.
        """
        now = running()
        is_torn_down = now is not None and now.is_torn_down()
        with self._recorder.lock:
            gone = self._all
            if not self.are_judged_by_hooks:
                self._all = []
            elif not is_torn_down:
                self._all = [each for each in self._all if each.owner is not None and each.owner.whole.is_due]
            return gone

    def let_go(self) -> None:
        """Keep none: nobody is left to judge."""
        self._all = []

    def end(self, period: Period) -> None:
        """Forget the demands of a period, which were judged."""
        with self._recorder.lock:
            self._all = [each for each in self._all if each.owner is None or each.owner.whole is not period]

    def unmet(
        self, period: Period | None = None, *, which: Callable[[Demand], bool] | None = None
    ) -> list[UnmetExpectation]:
        """Return the errors about what has not happened; each once.

        Args:
            period: Judge the demands of this alone.
            which: Judge those alone of which this returns True.
        """
        with self._recorder.lock:
            # Chosen under the lock and judged without it: see above.
            judged = [
                each
                for each in self._all
                if (period is None or (each.owner is not None and each.owner.whole is period))
                and (which is None or which(each))
            ]
        return [error for each in judged if (error := each.unmet()) is not None]
