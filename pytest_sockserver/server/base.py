"""What all test servers share: life cycle, waits, captured traffic, verification.

:class:`StreamTestServer` (TCP, unix) and :class:`DatagramTestServer` (UDP, unix datagrams) bring the
transport.  They work without pytest: ``with StreamTestServer() as server:``; leaving the block stops, then
raises what ``verify()`` raises.

Threads: the accept loop's; with streams one for each connection that has a handler, and one for all the
others; with datagrams one that answers.

Locks, the outermost first; with one of them held only those below it are taken:

1. ``_life`` of a server: one start, stop, refuse or listen at a time.
2. ``_writing`` of a connection (``send_lock``): the order of bytes on the wire, from the matching of a request to the
   end of its reply.
3. ``lock`` of a tape: which socket the connection is, and that its descriptor is closed and shut down by one
   thread.
4. ``_lock`` of the sink: what is read and watched; of a script that is performed, of ``Trust``, of a clock: each
   its own fields.
5. ``lock`` of the recorder: all that was recorded and declared, counts, live connections, failures.

What each thread may do to a connection is not in this list: its one reader is a claim (``_reader``), never waited
for.

*No code of the user runs under 1, 3, 4 or 5.*  It may need a lock of its own, which another thread has that sends
at this moment; it may take its time, and would hold up all clients.  So what is to be judged is copied, or counted,
under the lock; then the user's code runs without it; and what came of it is put into effect under the lock only if
it still holds:

- waits (``waits``, ``queries``): the predicate in the thread, or coroutine, that waits; ``next_request`` then takes
  what is still there;
- rules (``rulebook``): the predicate in the thread that answers; a rule is then taken if its count is still free;
- framings where no verb reads (``cutting``): in the thread that has received, or in one of their own;
- texts of exceptions, ``__instancecheck__``, ``__repr__``: when a failure is kept, or a message is written;
- what ``clear()`` forgets is let go after the lock was released, since a ``__del__`` may come with it.

Under 2 code of the user runs by design: reply functions, injected faults, parts that wait, the callbacks of a TLS
context during a handshake.  Each wait for a turn has a deadline, and its error says what has it.

What cannot be kept away: Python runs finalizers, weak references' callbacks, signal handlers, and by them warnings'
and unraisable hooks, in any thread between two of its steps, with a lock of ours held as well.  All locks but 2 are
re-entrant, so that such code may call us in that thread, look at ``requests`` or declare; it must not wait there,
nor take a lock that another thread holds while it calls us.  A coroutine is woken under the recorder's lock, by
what its loop has for that (``call_soon_threadsafe``, trio's token): it neither waits nor runs anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..connection.deadline import Deadline, process_ends_soon
from ..connection.gates import Gates
from ..connection.queries import block
from ..connection.request import Request
from ..connection.waits import refuse_in_coroutine
from ..errors.exceptions import DeadlineExceeded, ServerStopping
from ..errors.location import Location, hide_frame
from ..errors.messages import format_peer, old_attributes, refuse_misspelt, with_conversation
from ..faults.active import Injection, Injections
from ..faults.fault_rule import SENT, checked_fault_rule
from ..originals import Thread, current_thread, original
from ..recording.demands import Demands, adopt, is_in_a_tests_body, running
from ..recording.events import Event
from ..recording.failures import Expected, Failures, add_note, combined
from ..recording.recorder import Recorder
from ..responders.rulebook import On, RuleBook
from ..scripting.arguments import checked_seconds
from ..scripting.effects import checked_gate
from ..scripting.matching import ANY, Match
from ..scripting.parts import Part
from ..scripting.rules import RuleMatch
from ..scripting.script import Script
from ..transport.address import UnixPlace, checked_host
from . import forgotten, leaving, life_cycle, queries
from .addressed import Addressed
from .late_failures import issue
from .losses import Loss, Untaken
from .options import Options, check_option, options_for
from .verdict import Judged

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..scripting.dialogue_reader import Dialogue
    from .aio import AsyncServer
    from .client_thread import ClientFuture

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

__tracebackhide__ = hide_frame


T = TypeVar("T")
_type = type  # raises() has a parameter of that name
H = TypeVar("H", bound=Callable[..., Any])


#: What a thread runs, by the last word of its name.
_WHAT_RUNS = {"client": "a client run by in_thread()", "frames": "a framing"}


class BaseTestServer(Judged, Addressed):
    """What all test servers share.

    Args:
        transport: ``"tcp"``, ``"unix"``, ``"udp"`` or ``"unix_datagram"``.
        options: Those of the factory: ``host port path timeout stop_timeout rcvbuf backlog record_limit
            max_frame ignore_probes allow_remote name``, as far as they say something to the transport.
    """

    _kind: socket.SocketKind
    _handler_argument: str

    # How a server begins: here and not in __init__, where each costs a call of __setattr__.
    _went_wrong = False  # so what is missing too is a consequence, and not told
    _over_since: float | None = None  # whoever comes from then on is recorded, and no failure
    _state = "new"
    _stopping = False  # a stop has begun, and not ended
    _bound: socket.socket | None = None  # one that was bound before, for the first start
    _published: Any = None  # the address, kept over stop() and start()
    _loop: threading.Thread | None = None
    _over = False  # nothing more will come: it stops, and has taken what had arrived
    _said_before: float | None = None  # the time limit before which the last words were said
    _test_began = 0.0  # what ended before is no business of the running test's report
    _left_behind: Loss | None = None

    def __init__(self, transport: str, given: dict[str, Any]) -> None:
        self.options: Options = options_for(transport, given, where=f"{type(self).__name__}()")
        self.transport = transport
        self.name = self.options.name or transport
        self._timeout, self._stop_timeout = self.options.timeout, self.options.stop_timeout
        self._place = UnixPlace(self.options.path) if transport.startswith("unix") else None
        if self._place is None:
            self._family, self._host = checked_host(self.options)
        self._recorder = Recorder(self.options.record_limit)
        self._failures = Failures(self._recorder)
        self._gates = Gates()
        self._demands = Demands(self._recorder)
        self._injections = Injections(self._recorder, transport, self._demands, self._past_injections)
        self._book = RuleBook(
            self._recorder,
            transport,
            self._captured_by_scripts,
            tls=self.options.tls is not None,
            demands=self._demands,
        )
        self._between: list[tuple[float, float]] = []  # from the end of a call to the next test
        self._pid = original.getpid()
        self._life = original.RLock()  # guards the life cycle: one start, stop, refuse or listen at a time
        self._clients: list[ClientFuture[Any]] = []  # what in_thread() runs
        self._left_over: list[threading.Thread] = []  # those that have stopped the server themselves
        self._untaken_errors = Untaken("accept()" if self._kind is socket.SOCK_STREAM else "receiving")
        self._told_losses: set[str] = set()

    def __repr__(self) -> str:
        where = format_peer(self._published) if self._published is not None else "no address yet"
        return f"<{type(self).__name__} {self.name} {where}, {self._state}>"

    if not TYPE_CHECKING:  # which would take any name for a known one
        __getattr__ = old_attributes("server")

    @property
    def timeout(self) -> float:
        """Seconds that each wait, and each verb of its connections, may take."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        check_option("timeout", seconds)
        self._timeout = seconds

    @property
    def stop_timeout(self) -> float:
        """Seconds that a stop gives the server's threads to end."""
        return self._stop_timeout

    @stop_timeout.setter
    def stop_timeout(self, seconds: float) -> None:
        check_option("stop_timeout", seconds)
        self._stop_timeout = seconds

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "handler":
            raise AttributeError(
                f"handler is declared by a call: write {self.name}.handler(...), or use it as a decorator"
            )
        if not name.startswith("_") and name not in ("options", "transport", "name") and not hasattr(type(self), name):
            refuse_misspelt(self.name, name, ("framing", "handler", "timeout", "stop_timeout"))
        super().__setattr__(name, value)

    # Life cycle

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._stop(leaving.haste(error))
        except BaseException as own:  # Ctrl-C meanwhile
            add_note(own, self._take_failures())
            raise
        if original.getpid() != self._pid:
            return
        failures = self._take_failures()
        failures += issue(self._take_late(), Location().place, raises=error is None and not leaving.is_under_way())
        if error is not None:
            add_note(error, failures)
        elif leaving.is_under_way():  # in the teardown of a fixture of the user's
            leaving.keep(failures)
        elif failures:
            raise combined(failures)

    @property
    def is_running(self) -> bool:
        """Whether the server accepts, or receives; ``False`` from the moment a stop begins.

        A handler that only computes ends with its server by ``while server.is_running:``.
        """
        return not self._stopping and self._state == "started"  # in this order: the end of a stop sets both

    def start(self) -> None:
        """Bind, listen and serve, on a background thread; return when clients can connect.

        A server that runs already goes on.  One that was stopped binds the same address again.

        Raises:
            AddressUnavailable: The address is taken, privileged or not this machine's; the message says by whom.
        """
        with self._one_at_a_time():
            if self._state == "started":
                return
            if self._state not in ("new", "stopped"):
                self._listen_again()
                return
            try:
                self._begin()
            except BaseException:
                if self._place is not None:
                    self._place.release()
                raise
            self._state = "started"
            self._over = self._stopping = False
            forgotten.note_start(self)
            if not self._demands.are_judged_by_hooks:
                adopt(self)

    def stop(self) -> None:
        """End everything this server has: its loop, its connections, its threads, its socket file.

        What has arrived is still handled; live connections are then shut down.  Returns within a few
        milliseconds, at the latest after ``stop_timeout`` seconds, when a handler's thread does not end: that
        is recorded as a failure.  Never raises what was recorded; ``verify()`` and the server's owner do.  A
        server that is stopped, or never was started, stays so.

        Ctrl-C in the midst of it shortens the stop, and is raised when it is done.
        """
        self._stop(leaving.haste())

    def _stop(self, haste: leaving.Haste | None) -> None:
        """Stop; in haste if there is cause.

        An exception from a signal's handler (Ctrl-C, a time limit) may come at any line.  What it has interrupted is
        done again, each step of which may be done twice, in haste; then it goes on its way.
        """
        interrupt: BaseException | None = None
        while True:
            try:
                self._stop_once(haste)
                break
            except Exception:
                raise
            except BaseException as error:
                interrupt, haste = interrupt or error, haste or leaving.Haste()
                if not haste.left:
                    break
        if interrupt is not None:
            raise interrupt

    def _stop_once(self, haste: leaving.Haste | None) -> None:
        if original.getpid() != self._pid:
            # In a forked child, before any lock: another thread of the parent may have held it at the fork.
            self._close_descriptors()
            self._state = "stopped"
            return
        if sys.is_finalizing():
            # A generator that was never closed is closed now.  No daemon thread runs any more: none can be waited for.
            self._close_descriptors()
            self._release_place()
            self._state = "stopped"
            return
        deadline = Deadline(self.stop_timeout) if haste is None else haste.deadline(self.stop_timeout)
        try:
            with haste or contextlib.nullcontext(), self._one_at_a_time(None if haste is None else deadline.left()):
                if self._state not in ("new", "stopped"):
                    self._stopping = True
                    if self._in_own_thread():
                        self._left_over.append(current_thread())
                    self._end(deadline)
                    with self._recorder.lock:
                        self._state, self._stopping = "stopped", False
                        self._recorder.changed()
                    forgotten.note_stop(self)
                self._join_left_over(deadline)
        except ServerStopping:
            return  # another thread is stopping it, and waits for this very one

    def _one_at_a_time(self, seconds: float | None = None) -> contextlib.AbstractContextManager[object]:
        """Hold the life cycle for a block.  A thread of this server does not wait: its holder may be joining it.

        Args:
            seconds: How long to wait; ``None`` for no limit.

        Raises:
            ServerStopping: It was not to be had: another thread starts or stops the server.
        """
        own = self._in_own_thread()
        if seconds is None and not own:
            return self._life  # type: ignore[no-any-return] # itself: Ctrl-C between an acquire() and its try would leave it locked
        if not self._life.acquire(timeout=0 if own or seconds is None else seconds):
            raise ServerStopping("the server is being started or stopped by another thread, which waits for this one")
        held = contextlib.ExitStack()
        held.callback(self._life.release)
        return held

    def _join_left_over(self, deadline: Deadline) -> None:
        """Join the threads that have stopped the server themselves, and so could not be joined by that stop."""
        threads = [each for each in self._left_over if each is not current_thread()]
        self._left_over = [each for each in self._left_over if each is current_thread()]
        if threads:
            self._name_stuck(life_cycle.join(threads, life_cycle.end_of_patience(deadline)), {}, deadline)

    def clear(self) -> None:
        """Forget what was declared and what was recorded; never a failure.  Open connections stay open.

        What a test demanded is not forgotten any more when its call is over.
        """
        with self._recorder.lock:
            gone = self._forget()
        del gone  # without the lock: a __del__ of the user's may come with it

    def _forget(self) -> list[object]:
        """Do what ``clear()`` does; return what is to be let go without the recorder's lock, which must be held."""
        self._gates.clear()
        self._went_wrong = False
        return [*self._book.clear(), *self._injections.clear(), *self._demands.clear(), *self._recorder.forget()]

    def verify(self) -> None:
        """Wait until the handlers are done or idle, at most a second, and raise what went wrong so far.

        What fails no test is issued as :class:`SockServerWarning`.

        Raises:
            BaseException: What a handler raised, as itself; several as an exception group.  Each once.
        """
        refuse_in_coroutine("verify", "await server.aio.verify()")
        self._settle()
        failures = self._take_failures()
        failures += issue(self._take_late(), Location().place)
        if failures:
            raise combined(failures)

    def raises(
        self, type: type[BaseException] | tuple[type[BaseException], ...], match: str | None = None
    ) -> contextlib.AbstractContextManager[Expected]:
        """Expect a failure on the server's side: wait for it when the block ends, and take it, and only it.

        Args:
            match: A regular expression that is searched for in the failure's text.

        Raises:
            UnmetExpectation: No such failure came within ``timeout`` seconds.
        """
        refuse_in_coroutine("raises", "async with server.aio.raises(...)")
        return _Raises(self, self._expect_failure(type, match))

    def in_thread(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Run a blocking client beside the test; return its future.  It is joined when the server stops.

        An exception of the client that nobody asks the future for is a failure of the test.
        """
        from .client_thread import run_in_thread

        if not callable(fn):
            raise TypeError(
                f"in_thread() expected a function, not {fn!r}: pass the function and its arguments, in_thread(fn, arg)"
            )
        future = run_in_thread(f"sockserver {self._label()} client", fn, args, kwargs, self._recorder)
        future.seconds, future.owner = self.timeout, running()
        future.late = lambda deadline: with_conversation(
            DeadlineExceeded, self.name, f"in_thread({future.name}) did not end within {deadline}", self._said()
        )
        self._clients.append(future)
        return future

    # Declaring

    def on(self, match: RuleMatch, times: int | tuple[int, int | None] | None = None) -> On:
        """Declare what answers a request, in whatever order they come: ``on(b"PING\\r\\n").reply(b"+PONG\\r\\n")``.

        A literal is asked before a pattern or a predicate, these before ``ANY``; among equals the latest declared.

        Args:
            match: Bytes, ``Hex``, ``Text``, a compiled pattern, a predicate, ``ANY``; on streams also ``CONNECT``, a
                new connection.  A predicate is called in the thread that answers: several connections, several at once.
            times: How often it answers: exactly so often, or ``(least, most)``, with ``None`` for any number.  It is
                verified; a rule that is used up steps aside.

        Returns:
            What takes ``.reply(*parts)``, and ``.then(*parts)`` for the next time.

        Raises:
            TypeError, ValueError: It can be no match, or no number of times.  Anything but a literal is refused on a
                stream without framing, when a connection comes and at the test's first wait.
        """
        return self._book.declare(match, times, empty=self._may_be_empty())

    def _may_be_empty(self) -> bool:
        """Return whether a request may have no byte: a datagram may."""
        return True

    def open_gate(self, name: str) -> None:
        """Open a gate: whoever waits for it goes on, and so does who comes later.  ``clear()`` closes all gates."""
        checked_gate(name, "open_gate()")
        with self._recorder.lock:
            self._gates.open(name)
            self._recorder.tell()

    def inject(
        self,
        *parts: Part,
        direction: str = "sent",
        connections: int | Iterable[int] | None = None,
        at: int | Iterable[int] | None = None,
        probability: float | None = None,
        seed: int | None = None,
        times: int | tuple[int, int | None] | None = None,
    ) -> Injection:
        """Put parts in the place of what is said, or heard, from now on, whatever answers: no handler is touched.

        ``DATA`` among the parts is what was to be said: what one call sends on a stream, one datagram.  A function is
        called with these bytes.  No parts: it is lost.  With ``direction="received"`` it is what came: a datagram, or
        on a stream all that the client sends, to which the parts are applied once, while it comes.

        Of several injections the latest one that hits counts.

        One that the test itself declares, without ``probability``, must hit at least once: else the end of the test's
        call raises ``UnmetExpectation``, at its line.  ``times=(0, most)`` declares one that may miss; and so does
        ``end()``, or ``clear()``.  What a fixture declares may miss, unless ``times=(least, most)`` says otherwise.

        Args:
            direction: ``"sent"`` or ``"received"``, as the server sees it.
            connections: Indices of the connections that faults are injected into; on datagrams of the peers.
            at: Indices, from now on, of what is hit: of the writes of each connection, of the datagrams.
            probability: Of each write, or datagram; received on a stream, of each connection.
            seed: What that is drawn from, with the indices; without one it is chosen, and recorded with each hit.
            times: How often at most; or ``(least, most)``, with ``None`` for any number.

        Returns:
            What ends it, by ``end()`` or as a ``with`` block; its ``count`` says how often it has hit, and its
            ``seed`` what was drawn from.

        Raises:
            UnsupportedFault: The transport cannot do a part.
            TypeError, ValueError: Anything else that is known to be wrong.
        """
        return self._inject(
            parts,
            direction=direction,
            connections=connections,
            at=at,
            probability=probability,
            seed=seed,
            times=times,
            is_demanded=isinstance(times, tuple) or (probability is None and is_in_a_tests_body()),
        )

    def _inject(
        self, parts: tuple[Part, ...], *, is_demanded: bool, seed: int | None = None, **given: Any
    ) -> Injection:
        """Put an injection in force; it must hit as often as its ``times`` say if that is demanded."""
        fault_rule = checked_fault_rule(
            parts,
            self.transport,
            tls=self.options.tls is not None,
            seed=seed,
            **{"direction": SENT, "connections": None, "at": None, "probability": None, "times": None, **given},
        )
        injection = self._injections.begin(fault_rule, seeded=seed is not None, is_demanded=is_demanded)
        self._upset_all()
        return injection

    def _upset_all(self) -> None:
        """Let the connections that there are look for injections; datagram servers have none."""

    def _captured_by_scripts(self) -> set[str]:
        """Return the names under which what was declared, beside the rules, captures."""
        return set()

    def _new_script(self, names: Iterable[str] = ()) -> Script:
        return Script(
            transport=self.transport,
            names=lambda: {*names, *self._captured_by_scripts(), *self._book.captured()},
            max_frame=self.options.max_frame,
            tls=self.options.tls is not None,
        )

    def _parsed(self, text: str | os.PathLike[str], values: dict[str, Any], *, timed: bool) -> Dialogue:
        """Return a dialogue, each of whose steps knows its line in the test, or in its file."""
        from .dialogue import parsed

        return parsed(text, values, new_script=self._new_script, datagrams=self._kind is socket.SOCK_DGRAM, timed=timed)

    # Captured

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in order of arrival: a snapshot.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self._recorder.kept_requests()

    @property
    def events(self) -> list[Event]:
        """Everything that happened, of all connections, in order: a snapshot.

        Raises:
            RecordLimitExceeded: Not all of it was kept.
        """
        with self._recorder.lock:
            self._recorder.check_complete("events")
            events = [event for tape in self._recorder.tapes for event in tape.events]
            return [Event(*event) for event in sorted(events, key=lambda event: event[0])]

    def wait_for(self, match: Match = ANY, count: int = 1, *, timeout: float | None = None) -> Request:
        """Return the ``count``-th request that matches; wait for it if need be.

        Args:
            match: Bytes, a compiled pattern (matches the whole request), a predicate, or ``ANY``.  A predicate is
                called in this thread, once for each request, and may block: other clients are served meanwhile.
            timeout: Seconds; the server's, unless given.  What had come by then is still looked at.

        Raises:
            DeadlineExceeded: It did not come in time.  The message holds the conversation so far.
            ServerFailed: A handler failed meanwhile; that failure is its cause.
            TypeError: What came is a stream that is still open and that no verb reads: it has no requests yet.
                ``connection.wait_received()`` waits for bytes.
        """
        return block(queries.request(self, match, count, timeout))

    def next_request(self, match: Match = ANY, *, timeout: float | None = None) -> Request:
        """Return the earliest request that matches and that no call has returned yet; wait for it if need be.

        It is MockWebServer's ``takeRequest``.  Its ``reply()`` answers.  Errors are those of :meth:`wait_for`.
        """
        return block(queries.untaken_request(self, match, timeout))

    def assert_no_traffic(self, seconds: float) -> None:
        """Assert that for ``seconds`` from now on no byte, no datagram and no connection arrives.

        Raises:
            UnexpectedRequest: Something arrived; raised at once.
        """
        refuse_in_coroutine("assert_no_traffic", "await server.aio.assert_no_traffic(...)")
        checked_seconds(seconds, "assert_no_traffic() expected seconds above 0")
        with self._reading_all():
            life_cycle.wait_idle(self._has_handled_all, life_cycle.DRAIN_BOUND)  # what was sent before is no noise
            block(queries.quiet(self, seconds))

    @property
    def aio(self) -> AsyncServer:
        """The verbs that block, awaitable, for asyncio and trio."""
        from .aio import AsyncServer

        return AsyncServer(self)

    def _expect_failure(self, type: Any, match: str | None) -> Expected:
        types = type if isinstance(type, tuple) else (type,)
        if not types or not all(isinstance(each, _type) and issubclass(each, BaseException) for each in types):
            raise TypeError(f"raises() expected an exception class, or a tuple of them, not {type!r}")
        expected = Expected(type, re.compile(match) if match is not None else None)
        self._failures.expect(expected)
        return expected

    def _refuse_unframed(self, verb: str) -> None:
        """Raise the TypeError about a stream that has no requests; datagram servers have none such."""

    def _idle(self) -> bool:
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _end(self, deadline: Deadline) -> None:
        raise NotImplementedError

    def _close_descriptors(self) -> None:
        raise NotImplementedError

    def _said(self) -> str:
        raise NotImplementedError

    def _listen_again(self) -> None:
        raise NotImplementedError

    def _in_own_thread(self) -> bool:
        current = current_thread()
        return current in self._threads() or any(client.thread is current for client in self._clients)

    def _threads(self) -> list[threading.Thread | None]:
        return [self._loop]

    def _run_loop(self, serve: Callable[[], None]) -> None:
        try:
            serve()
        except BaseException as error:
            self._failures.add(error, f"{self.name}, the accept loop")

    def _last_words(self) -> None:
        """Write the conversation to stderr, which pytest-timeout prints; once a time limit.  In the loop's thread."""
        ends_at = process_ends_soon()
        if ends_at != self._said_before:
            self._said_before = ends_at
            sys.stderr.write(f"sockserver: {self.name} {format_peer(self._published)}, so far:\n{self._said()}\n")

    def _start_loop(self, framework: Any) -> None:
        framework.prepare_loop()
        self._loop = Thread(
            target=self._run_loop, args=(framework.serve_forever,), name=f"sockserver {self._label()}", daemon=True
        )
        try:
            self._loop.start()
        except BaseException:
            framework.server_close()
            raise

    def _release_place(self) -> None:
        """Remove the files of a unix socket; what cannot be removed is told."""
        error = self._place.release() if self._place is not None else None
        if error is not None:
            self._left_behind = Loss(f"the stop could not remove a file of its socket: {error}")

    def _could_not_take(self, error: OSError) -> None:
        """Count an error of accepting, or of receiving.  In the loop's thread."""
        with self._recorder.lock:
            self._untaken_errors.note(error)

    def _could_not_begin(self, request: Any) -> None:
        """Keep the error of a request that could not be handed on; called while it is handled."""
        error = sys.exc_info()[1]
        assert error is not None
        self._failures.add(error, self.name)

    @contextlib.contextmanager
    def _reading_all(self) -> Iterator[None]:
        """Let the server read, for the length of the block, the connections that the test drives."""
        yield

    def _cut_clients(self) -> list[threading.Thread]:
        """Say to the clients of in_thread() that what becomes of them now is our doing; return their threads.

        Whoever waits, one of them perhaps, is told that nothing more will come.
        """
        with self._recorder.lock:
            self._over = True
            self._recorder.changed()
        for client in self._clients:
            client.cut = not client.done()
        return [client.thread for client in self._clients]

    def _name_stuck(
        self, threads: list[threading.Thread], peers: dict[threading.Thread, Any], deadline: Deadline
    ) -> None:
        for thread in threads:
            what = _WHAT_RUNS.get(thread.name.rpartition(" ")[2], "a handler")
            self._failures.add(life_cycle.stuck(thread, what, peers.get(thread), deadline), self.name)

    def _label(self) -> str:
        return f"{self.transport} {format_peer(self._published)}"


class _Raises(contextlib.AbstractContextManager[Expected]):
    """What ``raises()`` returns.  A class, since its frames can be hidden from reports; those of contextlib can't."""

    def __init__(self, server: BaseTestServer, expected: Expected) -> None:
        self._server = server
        self._expected = expected

    def __enter__(self) -> Expected:
        return self._expected

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                block(queries.failure(self._server, self._expected))
        finally:
            self._server._failures.unexpect(self._expected)
