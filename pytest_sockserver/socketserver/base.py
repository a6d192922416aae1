"""The server without a transport: the loop that waits for requests, and the order in which its hooks are called.

Theory.  ``serve_forever()`` selects two things: the server (the object, not its socket, so that an overridden
``fileno()`` is honoured) and a :class:`~.wakeup.Wakeup`.  ``shutdown()`` sets a flag, wakes the loop, and waits for
an event that the loop sets when it has ended.

The flag and the event are name-mangled privates of ``BaseServer``, and they are part of the contract nevertheless:
programs set ``_BaseServer__shutdown_request`` from signal handlers, without any wake-up, and subclasses that replace
``serve_forever()`` clear and set ``_BaseServer__is_shut_down``.  Hence these rules:

- The flag is read again at least every ``poll_interval``, whether or not anybody woke the loop.
- ``shutdown()`` trusts nothing but the event to know whether a loop runs, since the loop may be a subclass's own.
- All state has a fallback on the class: there are subclasses, and mocks, whose ``BaseServer.__init__`` never ran.

When ``shutdown()`` waits, and what it leaves behind:

=============================  ======================  =================================================
called                         waits                   flag
=============================  ======================  =================================================
before the first loop          no                      stays set: the first loop returns at once
while a loop runs              until the loop ends     cleared by the loop
in the loop's own thread       no (it would for ever)  cleared by the loop
after a loop has ended         no                      not set: the next loop runs
in a forked child              no                      set in the child alone
=============================  ======================  =================================================

The price of the fourth line: after a first loop has ended, ``Thread(target=serve_forever).start(); shutdown()`` may
find the second loop not yet begun, and looks like a second ``shutdown()`` of the first.  That stop is lost.

Not done: a pool of threads, a timeout for the loop, any use of the listening socket but through the hooks.
"""

from __future__ import annotations

import errno
import selectors
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..originals import Event, original, selected
from .wakeup import Wakeup

if TYPE_CHECKING:
    from typing_extensions import Self

# Locks and threads: `__state` guards the wake-up, the flag and the event as one, and is never held while a thread
# waits.  The loop's thread begins and ends with it; `shutdown()` takes it to set the flag, lets it go, and then waits.
# All hooks but `_make_wakeup()` are called without it.  `_wakeup` is read without it where a stale answer does no harm.

# Seconds.  While the listener is left alone (no descriptors, or paused) the loop looks again this often: short enough
# to be no delay that a client notices, long enough to cost nothing: 10 attempts in 0.5 s, where the standard library
# makes 77,000.
BACKOFF = 0.05

# accept(2) fails with these for want of resources: the client stays in the queue, the listener stays readable, and
# trying again at once would only spin.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED |= {getattr(errno, name) for name in ("WSAEMFILE", "WSAENOBUFS") if hasattr(errno, name)}  # Windows


# So many errors in a row are no longer those of single clients that have gone.
FAILURES_IN_A_ROW = 16


class LoopEnded(Event):
    """The event that a loop clears when it begins and sets when it ends; it remembers who cleared it.

    Subclasses of ``BaseServer`` with a loop of their own call ``clear()`` and ``set()`` too, therefore it is these
    two that take note, and not ``serve_forever()``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entered = False  # whether any loop has ever begun
        self._loop: tuple[int, int] | None = None  # process and thread of the loop that runs

    def clear(self) -> None:
        """Note that the calling thread runs a loop now."""
        self.entered = True
        self._loop = (original.getpid(), original.get_ident())
        super().clear()

    def set(self) -> None:
        """Note that the loop has ended, and release who waits for it."""
        self._loop = None
        super().set()

    def will_come(self) -> bool:
        """Return whether waiting makes sense: a loop runs, in this process, and not in the calling thread."""
        loop = self._loop
        return loop is not None and loop[0] == original.getpid() and loop[1] != original.get_ident()


class BaseServer:
    """The base of all servers: takes requests, and has each handled by a handler class.

    ``server_address`` and ``RequestHandlerClass`` are attributes; so is ``socket``, which subclasses create.  A
    subclass provides at least ``fileno()`` and ``get_request()``.

    A reply may reach the client before the handler has returned, and before ``shutdown_request()``: who wants to see
    what a handler leaves behind must wait for the handler, not for its reply.
    """

    #: Seconds that ``handle_request()`` waits for a request; None: for ever.  ``serve_forever()`` ignores it.
    timeout: float | None = None

    #: True: ``handle_error()`` appends ``(exception, client_address)`` to ``errors`` and prints nothing.  The
    #: exceptions keep their tracebacks, and these the handlers' frames.  Failures to accept are there with the
    #: address None.
    collect_errors = False

    errors: list[tuple[BaseException, Any]]
    server_address: Any
    socket: Any

    # Fallbacks for instances whose __init__ never ran; the lock is then shared between them, and held only briefly.
    _wakeup: Wakeup | None = None  # there while serve_forever() runs
    __state = original.RLock()
    __shutdown_request = False
    __exhausted = False  # the latest get_request() failed for want of resources
    __exhaustion_reported = False
    __failed_in_a_row = 0  # of get_request()

    if TYPE_CHECKING:  # as in the standard library, these are defined by the subclasses

        def fileno(self) -> int: ...
        def get_request(self) -> tuple[Any, Any]: ...

    def __init__(self, server_address: Any, RequestHandlerClass: Callable[[Any, Any, Any], Any]) -> None:
        """Store the arguments.  May be extended, must not be overridden without being called."""
        self.server_address = server_address
        self.RequestHandlerClass = RequestHandlerClass
        # Guards _wakeup, the flag and the event as one: without it, a shutdown() that overlaps the loop's own end
        # could leave the flag set.  Re-entrant, since a signal handler may run in the loop's thread.
        self.__state = original.RLock()
        self.__is_shut_down: Event = LoopEnded()
        self.__shutdown_request = False
        if self.collect_errors:
            self.errors = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server_close()

    # The life cycle.

    def server_activate(self) -> None:
        """Hook: called by the constructor once the server is bound."""

    def server_close(self) -> None:
        """Hook: release what the server holds."""

    def serve_forever(self, poll_interval: float | None = 0.5) -> None:
        """Handle requests, one after the other, until ``shutdown()`` or ``server_close()``.  Blocks.

        What ``service_actions()``, ``handle_error()`` and non-``Exception`` errors raise ends the loop and
        propagates.  The loop can be run again.

        Args:
            poll_interval: Seconds between two calls of ``service_actions()`` when nothing happens, and the longest
                time until a flag that was set directly is noticed.  ``shutdown()`` does not wait for it.  None: no
                limit.

        Raises:
            RuntimeError: A loop of this server runs already, in this process.
            ValueError: The server is closed.
        """
        wakeup = self.__begin_loop()
        try:
            with closing(wakeup), _make_selector() as selector, self._unblocked():
                self.__loop(selector, wakeup, poll_interval)
        finally:
            # In this order: should a signal handler call shutdown() in the midst of it, it must find either a loop in
            # its own thread or an event that is set, since it must not wait for either.
            with self.__state:
                self._loop_ended().set()
                self.__shutdown_request = False
                self._wakeup = None

    def shutdown(self) -> None:
        """End ``serve_forever()``, and wait until it has ended.  Any thread, any time, any number of times.

        Takes well under a millisecond while the loop is idle; a handler that runs in the loop's thread is waited for.
        The module's head has the table of what it does when no loop runs.
        """
        self._ask_loop_to_end()
        self._wait_for_loop()

    def service_actions(self) -> None:
        """Hook: called by the loop after each request, and at least every ``poll_interval``."""

    def handle_request(self) -> None:
        """Handle one request; blocks until it comes, or until ``timeout`` has run out.

        The shorter of ``self.timeout`` and the socket's own timeout counts, in seconds.  ``handle_timeout()`` is
        called when it has run out.  Not affected by ``shutdown()``.
        """
        limits = [limit for limit in (self.socket.gettimeout(), self.timeout) if limit is not None]
        deadline = original.monotonic() + min(limits) if limits else None
        with _make_selector() as selector, self._unblocked():
            selector.register(self, selectors.EVENT_READ)
            while not selected(selector, None if deadline is None else max(0, deadline - original.monotonic())):
                if deadline is not None and original.monotonic() >= deadline:
                    return self.handle_timeout()
            return self._handle_request_noblock()

    # A request, in the order in which its hooks are called.

    def _handle_request_noblock(self) -> None:
        """Take one request and have it processed.  To be called when ``select()`` says that there is one.

        A failing ``get_request()`` is passed over.  Whatever else fails, the request is closed.
        """
        try:
            request, client_address = self.get_request()
        except OSError as error:
            self.__accept_failed(error)
            return
        self.__exhaustion_reported = False
        self.__failed_in_a_row = 0
        try:
            self._request_accepted(request)
            if self.verify_request(request, client_address):
                self.process_request(request, client_address)
            else:
                self.shutdown_request(request)
        except Exception:
            try:
                self.handle_error(request, client_address)
            finally:
                self.shutdown_request(request)
        except BaseException:
            self.shutdown_request(request)
            raise

    def handle_timeout(self) -> None:
        """Hook: called by ``handle_request()`` when no request came in time."""

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hook: return whether to process the request.  An ``Exception`` raised here goes to ``handle_error()``."""
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle the request and close it.  Here, in the loop's thread; the mix-ins do it in a thread or a process."""
        self.finish_request(request, client_address)
        self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Have the request handled, by making an instance of ``RequestHandlerClass``."""
        self.RequestHandlerClass(request, client_address, self)

    def shutdown_request(self, request: Any) -> None:
        """Hook: end the request, then close it."""
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Hook: release what the request holds."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report the exception that is being handled: print it to stderr, or keep it in ``errors``.

        Called inside the ``except`` block, in whichever thread handled the request; ``sys.exc_info()`` and a bare
        ``raise`` work.  What it raises itself propagates, after the request has been closed.
        """
        error = sys.exc_info()[1]
        if self.collect_errors and error is not None:
            self.__collect(error, client_address)
            return
        import traceback  # not at the top: several milliseconds, and a test suite hopes never to need it

        print("-" * 40, file=sys.stderr)
        print("Exception occurred during processing of request from", client_address, file=sys.stderr)
        traceback.print_exc()
        print("-" * 40, file=sys.stderr)

    # The loop.

    def _paused(self) -> bool:
        """Hook: return whether new requests are to wait in the kernel's queue.  Asked before each poll.

        Whatever ends the pause should call ``self._wakeup.wake()``; else it is noticed within ``BACKOFF`` seconds.
        """
        return False

    def _unblocked(self) -> AbstractContextManager[None]:
        """Hook: within this context ``get_request()`` raises ``BlockingIOError`` rather than block."""
        return nullcontext()

    def _request_accepted(self, request: Any) -> None:
        """Hook: called in the loop's thread with each new request, before ``verify_request()``."""

    def _is_serving(self) -> bool:
        """Return whether ``serve_forever()`` runs, in this process."""
        wakeup = self._wakeup
        return wakeup is not None and wakeup.in_this_process()

    def _is_loop_thread(self) -> bool:
        """Return whether the caller runs inside ``serve_forever()``, as a handler without threads does."""
        wakeup = self._wakeup
        return wakeup is not None and wakeup.in_this_thread()

    def _loop_ended(self) -> Event:
        """Return the event; a plain ``Event`` or a mock if somebody has put that in its place."""
        try:
            return self.__is_shut_down
        except AttributeError:  # __init__ never ran
            event: Event = vars(self).setdefault("_BaseServer__is_shut_down", LoopEnded())
            return event

    def _ask_loop_to_end(self) -> None:
        """Set the flag and wake the loop; do not wait.  Sets no flag if a loop has run and ended."""
        ended = self._loop_ended()
        with self.__state:
            # After a loop has ended the flag stays clear, else the next loop would return at once; see the table above.
            if isinstance(ended, LoopEnded) and ended.entered and ended.is_set():
                return
            self.__shutdown_request = True
            wakeup = self._wakeup
        if wakeup is not None:
            wakeup.wake()

    def _wait_for_loop(self) -> None:
        """Wait until the loop has ended, unless that would be for ever."""
        ended, wakeup = self._loop_ended(), self._wakeup
        # In the loop's own thread the event cannot come while this waits; in a forked child it never comes.
        if wakeup is not None and (wakeup.in_this_thread() or not wakeup.in_this_process()):
            return
        # Of a plain Event one cannot know whether any loop will ever set it.  Wait, as the standard library does.
        if not isinstance(ended, LoopEnded) or ended.will_come():
            ended.wait()

    def __begin_loop(self) -> Wakeup:
        """Claim the loop for this thread, or raise RuntimeError."""
        if self._wakeup is not None and not self._wakeup.in_this_process():
            self.__forget_parents_loop()
        with self.__state:
            if self._wakeup is not None:
                raise RuntimeError(
                    f"cannot serve_forever(): this server is served already, by thread {self._wakeup.thread}; "
                    "call shutdown() first, or create a second server"
                )
            # The wake-up and the event change under one lock, so a shutdown() finds either both of them or none.
            wakeup = self._wakeup = self._make_wakeup()  # before the flag is first read, so that no wake-up is missed
            self._loop_ended().clear()
            return wakeup

    def _make_wakeup(self) -> Wakeup:
        """Return the wake-up of a loop that begins in this thread."""
        return Wakeup()

    def __forget_parents_loop(self) -> None:
        """In a forked child: drop the state of a loop that exists only in the parent, locks included."""
        if self._wakeup is not None:
            self._wakeup.close()
        self._wakeup = None
        self.__state = original.RLock()
        if isinstance(self._loop_ended(), LoopEnded):
            self.__is_shut_down = LoopEnded()

    def __loop(self, selector: selectors.BaseSelector, wakeup: Wakeup, poll_interval: float | None) -> None:
        if not self.__shutdown_request and self.fileno() < 0:
            raise ValueError("cannot serve_forever(): the server's socket is closed")
        selector.register(wakeup, selectors.EVENT_READ)
        listening: int | None = None  # the descriptor under which the server is registered
        resume = 0.0  # when to listen again, after resources were exhausted
        self.__exhausted = False
        while not self.__has_to_end():
            listening = self.__listen(selector, listening, original.monotonic() >= resume and not self._paused())
            # While the listener is left alone nothing wakes the loop when that is over, so it looks more often.
            ready = selected(selector, poll_interval if listening is not None else _at_most(BACKOFF, poll_interval))
            came = False
            for key, _ in ready:
                if key.fileobj is wakeup:
                    wakeup.drain()
                else:
                    came = True
            if self.__has_to_end():  # before handling: what came after shutdown() is not served (bpo-35017)
                break
            if came:
                self._handle_request_noblock()
            if self.__exhausted:
                self.__exhausted, resume = False, original.monotonic() + BACKOFF
            self.service_actions()

    def __has_to_end(self) -> bool:
        if self.__shutdown_request:
            return True
        try:
            return self.fileno() < 0
        except (AttributeError, OSError, ValueError):
            return True  # the socket was not only closed, but taken away: self.socket = None

    def __listen(self, selector: selectors.BaseSelector, listening: int | None, wanted: bool) -> int | None:
        """Register or unregister the server, as wanted; return the descriptor under which it is registered."""
        if listening is not None and (not wanted or listening != self.fileno()):
            selector.unregister(listening)  # by number: the object has none any more, if it was closed
            listening = None
        if wanted and listening is None:
            listening = selector.register(self, selectors.EVENT_READ).fd
        return listening

    def __accept_failed(self, error: OSError) -> None:
        """Note whether to back off, and have it reported.

        All else (ECONNABORTED, EAGAIN: the client has gone; EPERM: a firewall) concerns one client, which is passed
        over.  What fails again and again takes nobody out of the queue, as an ``accept()`` does that was replaced.
        """
        if not isinstance(error, BlockingIOError):
            self.__failed_in_a_row += 1
        self.__exhausted = error.errno in EXHAUSTED or self.__failed_in_a_row > FAILURES_IN_A_ROW
        self._request_failed(error)

    def _request_failed(self, error: OSError) -> None:
        """Hook: called with each error of ``get_request()``.  Reports what the loop backs off for, once.

        In the loop's thread, or in that of ``handle_request()``.
        """
        if not self.__exhausted or self.__exhaustion_reported:
            return
        self.__exhaustion_reported = True
        if self.collect_errors:
            self.__collect(error, None)
        else:
            print(
                f"server {self.server_address}: cannot accept: {error}; trying again every {BACKOFF} s", file=sys.stderr
            )

    def __collect(self, error: BaseException, client_address: Any) -> None:
        vars(self).setdefault("errors", []).append((error, client_address))


def _make_selector() -> selectors.BaseSelector:
    """Return a new selector, of the kind that the package names at this moment."""
    selector: selectors.BaseSelector = sys.modules[__name__.rpartition(".")[0]]._ServerSelector()
    return selector


def _at_most(limit: float, timeout: float | None) -> float:
    return limit if timeout is None else min(limit, timeout)
