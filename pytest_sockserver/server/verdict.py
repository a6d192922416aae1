"""What a server is judged by: what went wrong in it, what is missing, and when it is time to say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..connection.context import Context
from ..errors.exceptions import UnmetExpectation
from ..errors.location import hide_frame
from ..errors.messages import with_conversation
from ..originals import original
from ..recording.demands import Demand, Period
from ..recording.failures import Failure
from ..responders.rulebook import RuleBook
from .idle import DRAIN_BOUND, wait_idle
from .late_failures import Late
from .losses import Loss
from .traffic import Traffic

if TYPE_CHECKING:
    from .client_thread import ClientFuture

__tracebackhide__ = hide_frame

# What went wrong comes first, and what is missing counts only if nothing did: after a failure it is most likely a
# consequence, and two errors for one cause hide the cause.  `went_wrong` remembers that for the length of a test, and
# clear() and the next test reset it.
#
# Everything is reported once.  To take a failure, a demand or a loss marks it, so that of the end of the call,
# verify(), the end of a block and the teardown, the first one has it and the others do not repeat it.
#
# Which thread asks, and when: the one that owns the server, at a moment that its hooks, its block or the test choose.
# Nothing here is locked for that reason.  The parts that are asked take their own locks.
#
# The order at an end: settle, then wrong, then missing.  A demand that is judged before the traffic is idle may be met
# a millisecond later.
#
# Not done: nothing is raised here, and no thread is ended.  A forked child judges nothing (`pid`).


#: How many rules, or connections, the remarks of a report name.
REMARKS: Final = 3

#: Seconds without an event after which a client that still runs is taken to wait for its server.
_CLIENT_PATIENCE: Final = 0.05


class Verdict:
    """What the owner of a server, and pytest's hooks, ask.

    Args:
        clients: What ``in_thread()`` runs.

    Attributes:
        times: When the running test began, and when its call ended.
        went_wrong: Something has: so what is missing too is a consequence, and not told.
        pid: The process that judges; a forked child does not.
    """

    went_wrong = False

    def __init__(
        self, context: Context, traffic: Traffic, book: RuleBook, clients: Sequence[ClientFuture[Any]]
    ) -> None:
        self._context, self._traffic, self._book, self._clients = context, traffic, book, clients
        self.times = context.failures.times
        self.pid = original.getpid()
        self._told_losses: set[str] = set()  # what a warning of this test has told

    # When

    def settle(self, seconds: float = DRAIN_BOUND) -> bool:
        """Wait until all that has arrived was handled, at most so long; tell whether it was."""
        return wait_idle(self.is_settled, seconds)

    def is_settled(self) -> bool:
        """Tell whether all that has arrived was handled, and no client of ``in_thread()`` is about to send more."""
        return self.has_handled_all() and self._clients_idle()

    def has_handled_all(self) -> bool:
        """Tell whether all that has arrived was handled; a server that does not serve has nothing to handle."""
        is_serving = self._context.state not in ("new", "stopped") and original.getpid() == self.pid
        # A server that is away for a while still has connections, which are judged like any others.
        return not is_serving or self._traffic.is_idle()

    def _clients_idle(self) -> bool:
        """Tell whether the clients of in_thread() are done, or do nothing but wait for this server."""
        if all(client.done() for client in self._clients):
            return True
        recorder = self._context.recorder
        return recorder.elapsed() - recorder.changed_at > _CLIENT_PATIENCE

    def settle_after_the_call(self) -> None:
        """Wait until what has arrived since the test's call was handled, if anything has."""
        if self.times.has_gone_on():
            self.settle()

    def begin_test(self) -> None:
        """Begin to count for a further test, on a server of a wider scope."""
        self.times.begin_test()
        self.went_wrong = False
        self._told_losses.clear()
        self._traffic.begin_test()

    # What

    def take_failures(self) -> list[Failure]:
        """Return what went wrong, and if nothing has, what is missing; each is told once."""
        return self.take_wrong() or self.take_missing()

    def take_wrong(self, *, is_last: bool = True) -> list[Failure]:
        """Return what went wrong, each once.

        Args:
            is_last: Nothing follows: also what became of clients that earlier tests have left running.
        """
        context = self._context
        # First the clients: what they failed with becomes failures of the server, and is then among what is taken.
        for client in self._clients:
            where, owner = f"{context.name}, in_thread({client.name})", client.owner
            if owner is None or not owner.whole.is_over:
                client.tell(context.failures, where)
            elif is_last:
                client.tell(context.failures, f"{where}, begun by {owner.name}")
        failures = context.failures.take()
        self.went_wrong = self.went_wrong or bool(failures)
        return failures

    def take_missing(
        self, period: Period | None = None, *, which: Callable[[Demand], bool] | None = None
    ) -> list[Failure]:
        """Return what was declared to happen and has not, each once; nothing if something went wrong.

        Args:
            period: What this has declared, and nothing else.
            which: Those demands alone of which this returns True.
        """
        # Before any demand is asked: a probe that has left gives back the script or the rule that it had taken.
        self._context.probes.look()
        if self.went_wrong:
            return []
        # A connection that waits belongs to no fixture, so only the end of a test, or of the server, asks for it.
        of_all = which is None and (period is None or period.is_body)
        waiting = self._traffic.left_waiting() if of_all else []
        return waiting + [self._unmet(error) for error in self._context.demands.unmet(period, which=which)]

    def _unmet(self, error: UnmetExpectation) -> Failure:
        """Return the failure of what has not happened, with what has."""
        if error.where is not None:
            return Failure(error, error.where)
        name = self._context.name
        whole = with_conversation(UnmetExpectation, name, str(error), self._traffic.said())
        whole.placed = True
        return Failure(whole.with_traceback(error.__traceback__), name)

    def take_late(self) -> list[Late]:
        """Return what is to be told as warnings, each once."""
        late = [Late.of(failure, why) for failure, why in self._context.failures.take_late()]
        lost = {loss.text: loss for loss in self._traffic.losses() if loss.warns}
        late += [Late(self._context.name, text) for text in lost if text not in self._told_losses]
        self._told_losses.update(lost)
        return late

    def losses(self) -> list[Loss]:
        """Return what never came as far as the record."""
        return self._traffic.losses()

    def has_open_connection(self) -> bool:
        """Tell whether a client may still say something on a connection that it has."""
        return self._traffic.has_open_connection()

    def remarks(self) -> list[str]:
        """Return what a report of a test that failed by itself adds to what was said."""
        never = sorted(self._book.never_taken(), key=lambda rule: rule.number)
        missed = self._context.injections.missed()[:REMARKS]
        return [
            *self._traffic.remarks(),
            *(f"# never taken: {rule}, on({rule.meant})" for rule in never[:REMARKS]),
            *(f"# never hit: {each} ({each.origin.short})" for each in missed),
        ]
