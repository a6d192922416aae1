"""Handle each request in a thread or a process of its own.

The mix-ins have no ``__init__``: subclasses were never asked to call one.  What they keep per server is created when
it is first needed.  They also work in front of the standard library's servers, whose loop does not ask ``_paused()``:
there ``max_threads`` has no effect.

Which threads are listed in ``_threads``, and until when:

- A thread is listed and started under the list's lock: ``server_close()`` can neither miss it, nor join it before
  it runs.
- A thread whose start fails does not stay listed.
- The last thing that a thread does in ``process_request_thread()`` is to say that it is ending.  The one that said so
  before it leaves the list then: when all is quiet, the list holds at most the last one.  It must not leave sooner,
  since ``server_close()`` promises that the thread has ended, not only its handler.

Which children are waited for: our own, by number, never "any".  ``waitpid(-1)`` would take away the exit status of
the application's other children.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..originals import current_thread, original
from .datagram import UDPServer
from .stream import TCPServer

if TYPE_CHECKING:
    from .base import BaseServer as _Mixable
else:
    _Mixable = object

# A thread is in one of these states: running (`_running`, and listed if it is to be joined), ending (`_ending`: its
# handler is done, its last lines are not), forgotten.  It notes itself that it is ending; no other thread can know,
# since `is_alive()` is true to the last instruction.  A thread whose `process_request_thread()` was replaced notes
# nothing, and is found by `forget_dead()`.
#
# The lock is held for steps of the lists and while a thread starts, and never while one is joined: a thread that ends
# needs it to note that, and the join would wait for ever.

# Seconds.  waitpid(2) cannot wait for one of several children, so that waiting means to ask again.
_CHILD_POLL = 0.01


class RequestThreads(list["threading.Thread"]):
    """The threads that ``server_close()`` has to join.  A list: programs look at its length and iterate over it."""

    def __init__(self, threads: Iterable[threading.Thread] = ()) -> None:
        super().__init__(threads)
        # Guards the list, _running and _ending.  Held while a thread starts: some 100 µs.  Re-entrant, since a signal
        # handler that calls server_close() may interrupt just that.
        self._lock = original.RLock()
        self._running: set[threading.Thread] = set()  # started by start(), joinable or not, and not ending yet
        self._ending: list[threading.Thread] = []  # handlers done; only the last of them is still listed
        self._examine_at = 32  # length of the list at which its threads are asked whether they are alive

    def start(self, thread: threading.Thread, *, joinable: bool) -> None:
        """Start the thread; list it if ``join()`` is to wait for it.  Raises what ``Thread.start()`` raises."""
        with self._lock:
            self._forget_ended()
            self._running.add(thread)
            if joinable:
                self.append(thread)  # before the start: a handler finds its own thread listed
            try:
                thread.start()
            finally:
                if thread.ident is None:
                    self._running.discard(thread)
                    if joinable:
                        self.remove(thread)

    def end(self, thread: threading.Thread) -> None:
        """Note that the thread, which is the caller, is about to end.  A thread that is none of ours is ignored."""
        with self._lock:
            if thread in self._running:
                self._running.discard(thread)
                self._forget_ended()
                self._ending += [thread] if thread in self else []

    def count_running(self) -> int:
        """Return how many threads have been started and are not yet ending."""
        with self._lock:
            return len(self._running)

    def forget_dead(self) -> None:
        """Drop the threads that ended without a word: those whose ``process_request_thread()`` was replaced."""
        with self._lock:
            self._running = {thread for thread in self._running if thread.is_alive()}
            self[:] = [thread for thread in self if thread.is_alive() or thread.ident is None]
            self._examine_at = max(32, 2 * len(self))

    def join(self, timeout: float | None = None) -> None:
        """Wait until all have ended; those that have not after ``timeout`` seconds, for all together, stay listed.

        The calling thread does not wait for itself.
        """
        deadline = None if timeout is None else original.monotonic() + timeout
        with self._lock:
            # A copy: the threads leave the lists while they are joined.
            threads = [*self, *(thread for thread in self._ending if thread not in self)]
        for thread in threads:
            if thread is not current_thread() and thread.ident is not None:
                thread.join(None if deadline is None else max(0, deadline - original.monotonic()))
        self.forget_dead()

    def _forget_ended(self) -> None:
        # self._lock must be held.
        for thread in self._ending:
            if thread in self:
                self.remove(thread)
        self._ending = [thread for thread in self._ending if thread.is_alive()]
        if len(self) >= self._examine_at:  # now and then: each time would be quadratic in the number of live threads
            self.forget_dead()


class _NoThreads(RequestThreads):
    """Before the first request: a list that all servers share, and that stays empty."""

    def append(self, thread: threading.Thread, /) -> None:
        """Forget it."""

    def join(self, timeout: float | None = None) -> None:
        """There is nothing to wait for."""


class ThreadingMixIn(_Mixable):
    """Handle each request in a thread of its own: ``class Server(ThreadingMixIn, TCPServer): ...``.

    A handler that waits for a silent client holds its thread, and ``server_close()``, until the client goes: see
    ``close_timeout`` and ``TCPServer.end_connections_on_close``.
    """

    #: Whether the threads are daemons: such do not keep the interpreter from exiting.
    daemon_threads = False

    #: Whether ``server_close()`` waits for the threads that are no daemons.
    block_on_close = True

    #: Seconds that ``server_close()`` waits, for all threads together; None: no limit.  Those that live on stay
    #: listed in ``_threads``, so that one can say which they are.
    close_timeout: float | None = None

    #: So many threads at most; at the limit the loop leaves further clients in the queue until one ends.
    max_threads: int | None = None

    #: Whether ``server_close()`` waits for daemon threads too.
    join_daemon_threads = False

    _threads: RequestThreads = _NoThreads()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread that handles the request.  Raises RuntimeError if no thread can be started."""
        thread = self._request_thread(request, client_address)
        joinable = self.block_on_close and (not thread.daemon or self.join_daemon_threads)
        self._request_threads().start(thread, joinable=joinable)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle the request and close it.  In its thread."""
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            try:
                self.shutdown_request(request)
            finally:
                self._request_thread_ends()

    def server_close(self) -> None:
        """Close the server, then wait for the threads."""
        super().server_close()
        self._request_threads().join(self.close_timeout)

    def _request_thread(self, request: Any, client_address: Any) -> threading.Thread:
        """Hook: return a thread, not started, that calls ``process_request_thread(request, client_address)``."""
        return threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=self.daemon_threads
        )

    def _paused(self) -> bool:
        if self.max_threads is None:
            return super()._paused()
        threads = self._request_threads()
        if threads.count_running() >= self.max_threads:
            threads.forget_dead()
        return threads.count_running() >= self.max_threads or super()._paused()

    def _request_thread_ends(self) -> None:
        threads = self._threads
        if isinstance(threads, RequestThreads):
            threads.end(current_thread())
        wakeup = getattr(self, "_wakeup", None)
        if self.max_threads is not None and wakeup is not None:
            wakeup.wake()

    def _request_threads(self) -> RequestThreads:
        """Return this server's list; make it, if there is none yet or a program has put something else in its place."""
        threads = vars(self).get("_threads")
        if not isinstance(threads, RequestThreads):
            threads = self._threads = RequestThreads(threads or ())
        return threads


class ThreadingTCPServer(ThreadingMixIn, TCPServer):
    """A TCP server with a thread for each connection."""


class ThreadingUDPServer(ThreadingMixIn, UDPServer):
    """A UDP server with a thread for each datagram."""


if hasattr(socket, "AF_UNIX"):
    from .datagram import UnixDatagramServer
    from .stream import UnixStreamServer

    class ThreadingUnixStreamServer(ThreadingMixIn, UnixStreamServer):
        """A unix stream server with a thread for each connection."""

    class ThreadingUnixDatagramServer(ThreadingMixIn, UnixDatagramServer):
        """A unix datagram server with a thread for each datagram."""


if hasattr(os, "fork"):

    class ForkingMixIn(_Mixable):
        """Handle each request in a child process: ``class Server(ForkingMixIn, TCPServer): ...``.

        The child leaves by ``os._exit()``: what it has printed and not flushed, its ``atexit`` functions and what a
        coverage tool has gathered are lost.  And it has only the thread that forked: a lock that another thread held
        stays locked for ever, which is why Python 3.12 and later warn when a process with threads forks.
        """

        #: Seconds after which ``handle_request()`` calls ``handle_timeout()``, which looks after the children.
        timeout: float | None = 300

        #: The children that are not yet waited for; None until there was one.
        active_children: set[int] | None = None

        #: So many children at most; at the limit the loop leaves further clients in the queue until one ends.
        max_children = 40

        #: Whether ``server_close()`` waits for the children.
        block_on_close = True

        def collect_children(self, *, blocking: bool = False) -> None:
            """Forget the children that have ended; with ``blocking`` wait until all have.

            Outside the loop it also waits until there are less than ``max_children``; the loop itself never waits, it
            pauses.
            """
            if self.active_children is None:
                return
            self._reap(0 if blocking else os.WNOHANG)
            while len(self.active_children) >= self.max_children and not self._runs_the_loop():
                original.sleep(_CHILD_POLL)
                self._reap(os.WNOHANG)

        def handle_timeout(self) -> None:
            """Look after the children."""
            self.collect_children()

        def service_actions(self) -> None:
            """Look after the children."""
            self.collect_children()

        def process_request(self, request: Any, client_address: Any) -> None:
            """Fork a child that handles the request; close it in this process."""
            self._reap(os.WNOHANG)
            pid = os.fork()
            # The child never returns into the loop, which is its parent's: it leaves by os._exit().
            if pid == 0:
                self._process_request_in_child(request, client_address)
            if self.active_children is None:
                self.active_children = set()
            self.active_children.add(pid)
            self.close_request(request)  # not shutdown_request(): the connection is the child's

        def server_close(self) -> None:
            """Close the server, then look after the children."""
            super().server_close()
            self.collect_children(blocking=self.block_on_close)

        def _process_request_in_child(self, request: Any, client_address: Any) -> None:
            """Handle the request, close it, and leave; never return."""
            status = 1
            try:
                self.finish_request(request, client_address)
                status = 0
            except Exception:
                self.handle_error(request, client_address)
            finally:
                try:
                    self.shutdown_request(request)
                finally:
                    os._exit(status)

        def _paused(self) -> bool:
            if len(self.active_children or ()) >= self.max_children:
                self._reap(os.WNOHANG)
            return len(self.active_children or ()) >= self.max_children or super()._paused()

        def _reap(self, flags: int) -> None:
            """Wait for each of our children once."""
            children = self.active_children
            for pid in tuple(children or ()):
                try:
                    ended, _ = os.waitpid(pid, flags)
                except ChildProcessError:
                    ended = pid  # somebody else has waited for it, or this process is a child itself
                if ended and children is not None:
                    children.discard(pid)

        def _runs_the_loop(self) -> bool:
            """Return whether the caller is our own loop, which must not wait; the standard library's may."""
            is_loop_thread = getattr(self, "_is_loop_thread", None)
            return is_loop_thread is not None and bool(is_loop_thread())

    class ForkingTCPServer(ForkingMixIn, TCPServer):
        """A TCP server with a process for each connection."""

    class ForkingUDPServer(ForkingMixIn, UDPServer):
        """A UDP server with a process for each datagram."""

    if hasattr(socket, "AF_UNIX"):
        from .datagram import UnixDatagramServer
        from .stream import UnixStreamServer

        class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer):
            """A unix stream server with a process for each connection."""

        class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer):
            """A unix datagram server with a process for each datagram."""
