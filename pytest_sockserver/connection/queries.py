"""Wait for something to be true of what was recorded: from a thread here, from a coroutine in ``aio``.

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
from typing import Final, Generic, TypeVar

from ..errors.exceptions import ServerFailed
from ..errors.location import hide_frame
from ..recording.failures import summary_of
from ..recording.recorder import Recorder
from .deadline import Deadline
from .waits import refuse_in_coroutine

__tracebackhide__ = hide_frame


T = TypeVar("T")


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
