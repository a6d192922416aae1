"""Wait for something to be true of what was recorded: from a thread here, from a coroutine in ``aio``.

A :class:`Wait` is a question, asked under the recorder's lock at each change.  It is asked before the
first sleep, so the past is included; a failure on the server's side and the server's stop end it at
once; and when its time is over it says what did come.

Code of the user, a predicate, the text of an exception, never runs under that lock: it may take its time, or need a
lock of its own that a handler has while it sends.  What only such code can tell is :class:`Undecided`, and is decided
after the lock was released, in the thread or the coroutine that waits.  What was decided about a request stays decided.
Changes are counted meanwhile; so a wait never sleeps over one that came while it decided.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from ..errors.exceptions import BlockingCallInCoroutine, ServerFailed
from ..errors.location import IN_ASYNC, hide_frame
from ..recording.failures import summary_of
from ..recording.recorder import Recorder
from .deadline import Deadline

__tracebackhide__ = hide_frame


T = TypeVar("T")


class _Pending:
    def __repr__(self) -> str:
        return "PENDING"


#: What a question answers while there is no answer yet.
PENDING: Final = _Pending()

#: Seconds.  A plain ``send()`` in a coroutine waits so long for its turn, and for room in the kernel's buffers, before
#: it is refused: longer than any reply takes that does not wait by itself, and no loop notices.
MOMENT: Final = 0.1


class Undecided(Generic[T]):
    """What a question answers that only code of the user can decide.

    Args:
        decide: Returns the answer or ``PENDING``, or raises; called without a lock.
    """

    __slots__ = ("decide",)

    def __init__(self, decide: Callable[[], T | _Pending]) -> None:
        self.decide = decide


class Wait(Generic[T]):
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
        ask: Callable[[], T | _Pending | Undecided[T]],
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

    def poll(self) -> T | _Pending:
        """Return the answer, ``PENDING``, or raise.  Without a lock, one thread at a time."""
        over = not self.deadline.left()  # before it is asked: what has come until then is looked at
        with self.recorder.lock:  # what there is, and whether it is the end, at one moment
            self.seen = self.recorder.changes
            answer = self._ask()
            pending = answer is PENDING or isinstance(answer, Undecided)
            cause = self._given_up(self.verb) if pending else None
        if isinstance(answer, Undecided):
            answer = answer.decide()
        if not isinstance(answer, _Pending):
            return answer
        if cause is not None:
            raise cause().with_traceback(None)
        return self._late(self.deadline) if over else PENDING

    def left(self) -> float | None:
        """Return the seconds until it is to be asked again at the latest.  Any thread."""
        with self.recorder.lock:
            ends = (self.deadline.left(), self._again() if self._again is not None else None)
        return min((each for each in ends if each is not None), default=None)


def block(wait: Wait[T]) -> T:
    """Wait in this thread for the answer."""
    refuse_in_coroutine(wait.verb, f"await server.aio.{wait.verb}(...)")
    wait.recorder.attend(+1)
    try:
        while True:
            answer = wait.poll()
            if not isinstance(answer, _Pending):
                return answer
            wait.recorder.sleep_since(wait.seen, wait.left())
    finally:
        wait.recorder.attend(-1)


def failed_early(verb: str, failure: BaseException) -> ServerFailed:
    """Return the exception of a wait that a failure on the server's side has ended."""
    early = ServerFailed(
        f"{verb}() ended early, since the server's side failed: {type(failure).__name__}: {summary_of(failure)}"
    )
    early.__cause__ = failure
    return early


def loop_blocked_here(*, in_callbacks: bool = True) -> str | None:
    """Return ``"asyncio"`` or ``"trio"`` if the caller runs inside that loop and would block it.

    A running loop alone is no proof: a library may run one in another greenlet.  So a frame of this stack
    must belong to a coroutine, or to a callback that asyncio's own loop calls, a protocol's method for example.
    A callback of a loop that is written in C (uvloop) is not found.

    Args:
        in_callbacks: Whether callbacks count.
    """
    asyncio = sys.modules.get("asyncio.events")
    kind, callback = None, None
    if asyncio is not None and asyncio._get_running_loop() is not None:
        kind, callback = "asyncio", asyncio.Handle._run.__code__ if in_callbacks else None
    else:
        trio: Any = sys.modules.get("trio")
        if trio is None or not hasattr(trio, "lowlevel") or not trio.lowlevel.in_trio_run():
            return None
        kind = "trio"
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_flags & IN_ASYNC or frame.f_code is callback:
            return kind
        frame = frame.f_back  # type: ignore[assignment]
    return None


def refuse_in_coroutine(verb: str, instead: str) -> None:
    """Raise if a verb that may block is called in a coroutine; always, so that the error does not depend on timing.

    Args:
        instead: What to write there.
    """
    kind = loop_blocked_here()
    if kind is not None:
        raise blocking_call(verb, kind, instead)


def blocking_call(verb: str, kind: str, instead: str) -> BlockingCallInCoroutine:
    """Return the error about a verb that would block a loop."""
    return BlockingCallInCoroutine(
        f"{verb}() blocks, and was called inside a coroutine: the {kind} loop, and with it the client, would "
        f"stand still.  Use {instead}, or call it in a thread, by to_thread()"
    )
