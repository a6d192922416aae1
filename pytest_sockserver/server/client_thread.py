"""Run a blocking client beside the test, in a thread that cannot outlive the server it talks to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from ..connection.deadline import Deadline
from ..connection.waits import blocking_call, loop_blocked_here
from ..errors.location import hide_frame
from ..originals import Condition, Thread
from ..recording.demands import Period
from ..recording.failures import Failures
from ..recording.recorder import Recorder
from ..scripting.arguments import checked_timeout

__tracebackhide__ = hide_frame


T = TypeVar("T")


class ClientFuture(Future[T]):
    """The future of a client's result, which knows whether anybody asked for it.

    ``result()`` and ``exception()`` have the server's deadline, and raise :class:`DeadlineExceeded` with the
    conversation.  In a coroutine they raise :class:`BlockingCallInCoroutine`, whether or not the client is
    done: asyncio awaits ``asyncio.wrap_future(future)``.
    """

    name: str
    thread: threading.Thread
    #: Seconds that a wait for it takes at most, unless it says otherwise; what to raise then.
    seconds: float
    late: Callable[[Deadline], BaseException]
    #: What ran when it was begun.
    owner: Period | None
    _asked = False
    _told = False
    #: The server stopped while the client ran: what became of it then is our own doing.
    cut = False

    def __init__(self) -> None:
        super().__init__()
        self._condition = Condition()  # the standard library's is made of whatever threading is at the moment

    def result(self, timeout: float | None = None) -> T:
        """Return what the client returned, or raise what it raised; wait at most the server's ``timeout``."""
        self._wait("result", timeout)
        self._asked = True  # a wait that was too short was told nothing
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the client raised, or ``None``; wait at most the server's ``timeout``."""
        self._wait("exception", timeout)
        self._asked = True  # a wait that was too short was told nothing
        return super().exception(0)

    def _wait(self, verb: str, timeout: float | None) -> None:
        if timeout != 0:  # which asks whether it has ended by now, as with any future
            checked_timeout(timeout)
        # asyncio.wrap_future() asks in a callback of its loop, and only when it is done.
        kind = loop_blocked_here(in_callbacks=not self.done())
        if kind is not None:
            waits = {"asyncio": "asyncio.wrap_future(future)", "trio": f"trio.to_thread.run_sync(future.{verb})"}
            raise blocking_call(verb, kind, f"await {waits[kind]}")
        deadline = Deadline(timeout if timeout is not None else self.seconds)
        while not self.done():
            left = deadline.left()
            try:
                super().exception(left)
            except FutureTimeout:
                if not deadline.left():
                    raise self.late(deadline) from None

    def failure(self) -> BaseException | None:
        """Return what the client has raised so far, without counting as asked for."""
        return super().exception() if self.done() and not self.cancelled() else None

    def tell(self, failures: Failures, where: str) -> None:
        """Make an exception that nobody asked for a failure; once."""
        error = self.failure()
        if self.cut and isinstance(error, (OSError, EOFError)):
            return  # of the connection that we have cut; an assertion about what came is still one
        if error is not None and not self._asked and not self._told:
            self._told = True
            failures.add(error, where)


def run_in_thread(
    name: str, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], recorder: Recorder
) -> ClientFuture[T]:
    """Start ``fn`` in a thread; return the future of its result."""
    future: ClientFuture[T] = ClientFuture()
    future.name = getattr(fn, "__qualname__", None) or repr(fn)

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        with recorder.lock:
            recorder.changed()

    future.thread = Thread(target=run, name=name, daemon=True)
    future.thread.start()
    return future
