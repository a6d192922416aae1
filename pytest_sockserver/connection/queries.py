"""Wait for something to be true of what was recorded: from a thread here, from a coroutine in ``loops``.

A :class:`Query` is a question, asked under the recorder's lock at each change.  It is asked before the
first sleep, so the past is included; a failure on the server's side and the server's stop end it at
once; and when its time is over it says what did come.

Code of the user, a predicate, the text of an exception, never runs under that lock: it may take its time, or need a
lock of its own that a handler has while it sends.  What only such code can tell is :class:`Undecided`, and is decided
after the lock was released, in the thread or the coroutine that waits.  What was decided about a request stays decided.
Changes are counted meanwhile; so a wait never sleeps over one that came while it decided.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ..errors.exceptions import DeadlineExceeded, InvalidState, ServerFailed
from ..errors.location import hide_frame
from ..recording.events import RECEIVED
from ..recording.failures import Failures, summary_of
from ..recording.recorder import Recorder
from ..scripting.arguments import LONGEST_WAIT, checked_literal, checked_timeout
from ..scripting.matching import shortened
from .deadline import Deadline
from .waits import refuse_in_coroutine

if TYPE_CHECKING:
    from .context import Context
    from .conversation import Conversation

__tracebackhide__ = hide_frame

# Why no wake-up is lost, and no lock is held while the user's code runs:
#
#   1. The thread says that it attends; from then on each change is counted.  (A coroutine hangs up a ring instead.)
#   2. Under the recorder's lock: note the count (``seen``), ask, and look whether the wait is to end early.
#   3. Without a lock: decide what only the user's code can decide.
#   4. Sleep only if the count is still ``seen``.  A change during 3 was counted, so the waiter goes back to 2.
#
# With 1 after 2, a change in between would be counted for nobody.  With an early end looked at apart from the answer, a
# stop between the two could hide an answer that had come before it.
#
# An answer has priority over what ends a wait, and both have priority over the deadline.  The deadline is looked at
# *before* the question is asked, and acted upon after it: what came until then is part of the last look.
#
# A question about events keeps how far it has looked, in its own closure, and looks at each event once.  From the
# beginning each time, a wait would cost the square of what has come.
#
# Threads: ``poll`` is for the one that waits.  ``left`` is for any.
#
# Not here: who is woken by what.  A query is woken by each change and knows no bells; operations know bells alone.


T = TypeVar("T")

#: Seconds.  For a wait that ends by itself.
_FOR_EVER: Final = LONGEST_WAIT


class Pending:
    def __repr__(self) -> str:
        return "PENDING"


#: What a question answers while there is no answer yet.
PENDING: Final = Pending()


class Undecided(Generic[T]):
    """What a question answers that only code of the user can decide.

    Args:
        decide: Returns the answer or ``PENDING``, or raises; called without a lock.
    """

    __slots__ = ("decide",)

    def __init__(self, decide: Callable[[], T | Pending]) -> None:
        self.decide = decide


class Query(Generic[T]):
    """A question and how long it may stay open.

    Args:
        verb: The verb that waits, for messages.
        ask: Returns the answer, ``PENDING`` or ``Undecided``, or raises; called with the recorder's lock held.
        late: Called when the time is over, without a lock; returns an answer after all, or raises.
        given_up: Returns what makes the exception that ends the wait early, if there is cause: a failure, a stop.
            Called with the lock held; what it returns is called without.
        again: Returns the seconds after which it is to be asked again, though nothing changed; ``None`` for never.

    Attributes:
        seen: How much of what has changed was seen when it was asked last.
    """

    def __init__(
        self,
        recorder: Recorder,
        verb: str,
        ask: Callable[[], T | Pending | Undecided[T]],
        *,
        seconds: float,
        late: Callable[[Deadline], T],
        given_up: Callable[[str], Callable[[], BaseException] | None],
        again: Callable[[], float | None] | None = None,
    ) -> None:
        self.recorder = recorder
        self.verb = verb
        self.deadline = Deadline(seconds)
        self._ask, self._late, self._given_up, self._again = ask, late, given_up, again
        self.seen = 0

    def poll(self) -> T | Pending:
        """Return the answer, ``PENDING``, or raise.  Without a lock, one thread at a time."""
        over = not self.deadline.left()  # before it is asked: what has come until then is looked at
        with self.recorder.lock:  # what there is, and whether it is the end, at one moment
            self.seen = self.recorder.changes
            answer = self._ask()
            pending = answer is PENDING or isinstance(answer, Undecided)
            cause = self._given_up(self.verb) if pending else None
        if isinstance(answer, Undecided):
            answer = answer.decide()
        if not isinstance(answer, Pending):
            return answer
        if cause is not None:
            # Made outside the lock, since the text of a failure is the user's.
            raise cause().with_traceback(None)
        return self._late(self.deadline) if over else PENDING

    def left(self) -> float | None:
        """Return the seconds until it is to be asked again at the latest.  Any thread."""
        with self.recorder.lock:
            ends = (self.deadline.left(), self._again() if self._again is not None else None)
        return min((each for each in ends if each is not None), default=None)


def block(query: Query[T]) -> T:
    """Wait in this thread for the answer."""
    refuse_in_coroutine(query.verb, f"await server.aio.{query.verb}(...)")
    query.recorder.attend(+1)
    try:
        while True:
            answer = query.poll()
            if not isinstance(answer, Pending):
                return answer
            query.recorder.sleep_since(query.seen, query.left())
    finally:
        query.recorder.attend(-1)


def failed_early(verb: str, failure: BaseException) -> ServerFailed:
    """Return the exception of a wait that a failure on the server's side has ended."""
    early = ServerFailed(
        f"{verb}() ended early, since the server's side failed: {type(failure).__name__}: {summary_of(failure)}"
    )
    early.__cause__ = failure
    return early


def raise_early(failures: Failures, verb: str) -> None:
    """Raise what ends a wait of the test, if something went wrong meanwhile."""
    pending = failures.pending()
    if pending is not None:
        raise failed_early(verb, pending.error)


def failed(context: Context, verb: str) -> Callable[[], BaseException] | None:
    """Return what makes the error that ends a wait early, if something went wrong."""
    pending = context.failures.pending()
    return partial(failed_early, verb, pending.error) if pending is not None else None


def failed_or_over(context: Context, verb: str) -> Callable[[], BaseException] | None:
    """Return the same; also if nothing more will come."""
    cause = failed(context, verb)
    if cause is None and (context.is_over or context.state in ("new", "stopped")):
        state = "stopped" if context.is_over else context.state
        return partial(InvalidState, f"{verb}() in state {state!r}: nothing more will come; expected 'started'")
    return cause


# About one connection


def closed(connection: Conversation, timeout: float | None) -> Query[None]:
    """Has either side ended the connection?"""

    def ask() -> Any:
        tape = connection.tape
        # An end by this side is noted before it happens, so ``gone`` and not ``ended_by`` says that it has happened.
        return None if tape.ended_by == "client" or tape.gone else PENDING

    def late(deadline: Deadline) -> None:
        raise connection.error(DeadlineExceeded, f"wait_closed() waited {deadline}: it is still open")

    return _about(connection.context, "wait_closed", ask, timeout, late)


def done(connection: Conversation) -> Query[None]:
    """Has the thread that answers a connection come to its end?  There is no deadline for that: a stop ends it."""

    def ask() -> Any:
        return None if connection.done else PENDING

    return _about(connection.context, "rules", ask, _FOR_EVER, late=lambda deadline: None)


def received(connection: Conversation, data: bytes, timeout: float | None) -> Query[None]:
    """Does ``data`` stand in what was received?"""
    wanted, seen, start = checked_literal(data, "wait_received"), 0, 0
    tape, kept = connection.tape, bytearray()

    def ask() -> Any:
        nonlocal seen, start  # each byte is looked at once, however often this is asked
        tape.recorder.check_complete("what was received")
        for at in range(seen, len(tape.events)):
            if tape.events[at][2] == RECEIVED:
                kept.extend(tape.events[at][3])
        seen = len(tape.events)
        if kept.find(wanted, start) >= 0:
            return None
        start = max(0, len(kept) - len(wanted) + 1)
        if start > 65536:  # what was searched is dropped now and then: each time would copy the rest each time
            del kept[:start]
            start = 0
        return PENDING

    def late(deadline: Deadline) -> None:
        text = f"wait_received() waited {deadline} for {shortened(wanted)}"
        raise connection.error(DeadlineExceeded, text)

    return _about(connection.context, "wait_received", ask, timeout, late)


def _about(
    context: Context,
    verb: str,
    ask: Callable[[], Any],
    timeout: float | None,
    late: Callable[[Deadline], Any],
) -> Query[Any]:
    context.check_declarations()
    return Query(
        context.recorder,
        verb,
        ask,
        seconds=checked_timeout(timeout) or context.timeout,
        late=late,
        given_up=partial(failed_or_over, context),
    )
