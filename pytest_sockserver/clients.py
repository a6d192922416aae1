"""Run a blocking client beside the test, in a thread that cannot outlive the server it talks to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from .deadline import Deadline
from .demands import Period
from .failures import Failures
from .recording.recorder import Recorder

T = TypeVar("T")


class ClientFuture(Future[T]):
    """The future of a client's result, which knows whether anybody asked for it.

    ``result()`` and ``exception()`` have the server's deadline, and raise :class:`DeadlineExceeded` with the
    conversation.
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

    def result(self, timeout: float | None = None) -> T:
        """Return what the client returned, or raise what it raised; wait at most the server's ``timeout``."""
        __tracebackhide__ = True
        self._asked = True
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the client raised, or ``None``; wait at most the server's ``timeout``."""
        __tracebackhide__ = True
        self._asked = True
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        __tracebackhide__ = True
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

    future.thread = threading.Thread(target=run, name=name, daemon=True)
    future.thread.start()
    return future
