"""What a server is judged by: what went wrong in it, what is missing, and when it is time to say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..connection.queries import failed_early
from ..errors.exceptions import UnmetExpectation
from ..errors.location import hide_frame
from ..errors.messages import with_conversation
from ..faults.active import Injections
from ..originals import original
from ..recording.demands import Demand, Demands, Period
from ..recording.failures import Failure, Failures
from ..recording.recorder import Recorder
from ..responders.rulebook import RuleBook
from . import life_cycle
from .late_failures import AFTER_THE_CALL, Late
from .losses import Loss, Untaken

if TYPE_CHECKING:
    from .client_thread import ClientFuture

__tracebackhide__ = hide_frame


#: How many rules, or connections, the remarks of a report name.
REMARKS: Final = 3

#: Seconds without an event after which a client that still runs is taken to wait for its server.
_CLIENT_PATIENCE: Final = 0.05


class Judged:
    """The part of a test server that its owner, and pytest's hooks, ask."""

    name: str
    _recorder: Recorder
    _failures: Failures
    _book: RuleBook
    _injections: Injections
    _demands: Demands
    _state: str
    _pid: int
    _clients: list[ClientFuture[Any]]  # what in_thread() runs
    _went_wrong: bool  # so what is missing too is a consequence, and not told
    _over_since: float | None  # whoever comes from then on is recorded, and no failure
    _between: list[tuple[float, float]]  # from the end of a call to the next test, where something came meanwhile
    _test_began: float  # what ended before is no business of the running test's report
    _untaken_errors: Untaken
    _told_losses: set[str]  # what a warning of this test has told
    _left_behind: Loss | None  # by the latest stop

    def _idle(self) -> bool:
        raise NotImplementedError

    def _said(self) -> str:
        raise NotImplementedError

    def _settle(self, seconds: float = life_cycle.DRAIN_BOUND) -> bool:
        """Wait until all that has arrived was handled, at most so long; tell whether it was."""
        return life_cycle.wait_idle(self._settled, seconds)

    def _settled(self) -> bool:
        """Tell whether all that has arrived was handled, and no client of ``in_thread()`` is about to send more."""
        return self._has_handled_all() and self._clients_idle()

    def _has_handled_all(self) -> bool:
        """Tell whether all that has arrived was handled; a server that does not serve has nothing to handle."""
        return self._state in ("new", "stopped") or original.getpid() != self._pid or self._idle()

    def _clients_idle(self) -> bool:
        """Tell whether the clients of in_thread() are done, or do nothing but wait for this server."""
        if all(client.done() for client in self._clients):
            return True
        return self._recorder.elapsed() - self._recorder.changed_at > _CLIENT_PATIENCE

    def _take_failures(self) -> list[Failure]:
        """Return what went wrong, and if nothing has, what is missing; each is told once."""
        return self._take_wrong() or self._take_missing()

    def _take_wrong(self, *, is_last: bool = True) -> list[Failure]:
        """Return what went wrong, each once.

        Args:
            is_last: Nothing follows: also what became of clients that earlier tests have left running.
        """
        for client in self._clients:
            where, owner = f"{self.name}, in_thread({client.name})", client.owner
            if owner is None or not owner.whole.is_over:
                client.tell(self._failures, where)
            elif is_last:
                client.tell(self._failures, f"{where}, begun by {owner.name}")
        failures = self._failures.take()
        self._went_wrong = self._went_wrong or bool(failures)
        return failures

    def _take_missing(
        self, period: Period | None = None, *, which: Callable[[Demand], bool] | None = None
    ) -> list[Failure]:
        """Return what was declared to happen and has not, each once; nothing if something went wrong.

        Args:
            period: What this has declared, and nothing else.
            which: Those demands alone of which this returns True.
        """
        if self._went_wrong:
            return []
        waiting = self._left_waiting() if which is None and (period is None or period.is_body) else []
        return waiting + [self._unmet(error) for error in self._demands.unmet(period, which=which)]

    def _has_failed(self) -> bool:
        """Whether something went wrong that nobody was told of."""
        return self._failures.pending() is not None

    def _raise_early(self, verb: str) -> None:
        """Raise what ends a wait of the test, if something went wrong meanwhile."""
        pending = self._failures.pending()
        if pending is not None:
            raise failed_early(verb, pending.error)

    def _begin_test(self) -> None:
        """Begin to count for a further test, on a server of a wider scope."""
        self._test_began = self._recorder.elapsed()
        if self._over_since is not None and self._recorder.changed_at >= self._over_since:
            self._between.append((self._over_since, self._test_began))
        self._went_wrong, self._over_since = False, None
        self._told_losses.clear()
        with self._recorder.lock:
            self._untaken_errors.clear()

    def _end_call(self) -> None:
        """Note that the test's call is over."""
        if self._over_since is None:
            self._over_since = self._recorder.elapsed()

    def _is_after_the_call(self, time: float) -> bool:
        is_between = any(begin <= time < end for begin, end in self._between)
        return is_between or (self._over_since is not None and time >= self._over_since)

    def _settle_after_the_call(self) -> None:
        """Wait until what has arrived since the test's call was handled, if anything has."""
        if self._over_since is not None and self._recorder.changed_at >= self._over_since:
            self._settle()

    def _record_failure(self, error: BaseException, where: str, began: float) -> None:
        """Keep what went wrong with something that began at a time; after the test's call it is a warning."""
        self._failures.add(error, where, late=AFTER_THE_CALL if self._is_after_the_call(began) else "")

    def _take_late(self) -> list[Late]:
        """Return what is to be told as warnings, each once."""
        late = [Late.of(failure, why) for failure, why in self._failures.take_late()]
        lost = {loss.text: loss for loss in self._losses() if loss.warns}
        late += [Late(self.name, text) for text in lost if text not in self._told_losses]
        self._told_losses.update(lost)
        return late

    def _losses(self) -> list[Loss]:
        """Return what never came as far as the record, as far as it can be known; since the test began."""
        with self._recorder.lock:
            losses = self._untaken_errors.losses()
        return [*losses, self._left_behind] if self._left_behind is not None else losses

    def _has_open_connection(self) -> bool:
        """Tell whether a client may still say something on a connection that it has."""
        return False

    def _past_injections(self) -> str:
        """Return what a message about an injection that missed adds, about bytes that pass it by."""
        return ""

    def _left_waiting(self) -> list[Failure]:
        """Return the failures about connections that came before the scripts, and for which there is none; once."""
        return []

    def _unmet(self, error: UnmetExpectation) -> Failure:
        """Return the failure of what has not happened, with what has."""
        if error.where is not None:
            return Failure(error, error.where)
        whole = with_conversation(UnmetExpectation, self.name, str(error), self._said())
        whole.placed = True
        return Failure(whole.with_traceback(error.__traceback__), self.name)

    def _remarks(self) -> list[str]:
        """Return what a report of a test that failed by itself adds to what was said."""
        never = sorted(self._book.never_taken(), key=lambda rule: rule.number)
        missed = self._injections.missed()[:REMARKS]
        return [
            *(f"# never taken: {rule}, on({rule.meant})" for rule in never[:REMARKS]),
            *(f"# never hit: {each} ({each.origin.short})" for each in missed),
        ]

    def _check_declarations(self) -> None:
        """Raise the TypeError about what was declared and makes no sense without a framing; streams alone have such."""
