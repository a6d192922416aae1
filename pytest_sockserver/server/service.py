"""What the package itself holds of a test server: its parts, put together.

A test has a face, :class:`StreamTestServer` or :class:`DatagramTestServer`, which holds one of these and nothing else.
The parts know no service: what a test declares and asks goes down from here, and nothing comes up.  So whoever lets the
face go lets all of it go, once no thread of the server runs any more; see ``let_go``.

Threads: the accept loop's; with streams one for each connection that has a handler, and one for all the
others; with datagrams one that answers.

Locks, the outermost first; with one of them held only those below it are taken:

1. ``life`` of a service: one start, stop, refuse or listen at a time.
2. ``send_lock`` of a conversation: the order of bytes on the wire, from the matching of a request to the end of its
   reply.
3. ``lock`` of a tape: which socket the connection is, and that its descriptor is closed and shut down by one
   thread.
4. ``_lock`` of the sink: what is read and watched; of a script that is performed, of ``Trust``, of a clock: each
   its own fields.
5. ``lock`` of the recorder: all that was recorded and declared, counts, live connections, failures.

What each thread may do to a connection is not in this list: its one reader is a claim (``reader_lock``), never waited
for.

*No code of the user runs under 1, 3, 4 or 5.*  It may need a lock of its own, which another thread has that sends
at this moment; it may take its time, and would hold up all clients.  So what is to be judged is copied, or counted,
under the lock; then the user's code runs without it; and what came of it is put into effect under the lock only if
it still holds:

- waits (``queries``, here and in ``connection``): the predicate in the thread, or coroutine, that waits;
  ``next_request`` then takes what is still there;
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

import os
import re
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..connection.context import Context
from ..connection.deadline import Deadline
from ..errors.exceptions import DeadlineExceeded
from ..errors.location import hide_frame
from ..errors.messages import with_conversation
from ..faults.active import Injection
from ..faults.fault_rule import SENT
from ..originals import current_thread, original
from ..recording.demands import is_in_a_tests_body, running
from ..recording.events import Event
from ..recording.failures import Expected
from ..responders.rulebook import On, RuleBook
from ..scripting.effects import checked_gate
from ..scripting.parts import Part
from ..scripting.rules import RuleMatch
from ..transport.published import Published
from .idle import stuck
from .losses import Loss
from .options import Options, options_for
from .traffic import Traffic
from .verdict import Verdict

if TYPE_CHECKING:
    from ..scripting.dialogue_reader import Dialogue
    from ..scripting.script import Script
    from .client_thread import ClientFuture

__tracebackhide__ = hide_frame

# Who may do what, beyond the locks:
#
# - The test's thread, or a helper of the test, declares, waits and stops.  A handler may do the same from its own
#   thread.
# - Only `life_cycle` changes `loop`, `left_over` and `is_stopping`, with `life` held.  `bound` is set before the first
#   start, and taken by it.
# - `is_stopping` is read without a lock: it becomes true before the first step of a stop, and false with the state.
# - `clients` grows by one append and never shrinks, so that it is walked through without a lock.
#
# References go one way: face, service, parts.  A part that has to call upwards gets a function, and `__del__` replaces
# those functions.  If a part held the service, no server would be freed before the garbage collector ran.
#
# Not done: a service survives no fork.  A child closes its copies and takes no lock, since a thread that does not exist
# in the child may hold it.


T = TypeVar("T")

#: What a thread runs, by the last word of its name.
_WHAT_RUNS = {"client": "a client run by in_thread()", "frames": "a framing"}


class Service:
    """A test server without its face.

    Args:
        kind: The name of the face's class, for messages.
        given: Options of the factory, as far as they say something to the transport.

    Attributes:
        context: What conversations see of it.
        published: Where it can be reached.
        traffic: What passes through it.
        verdict: What it is judged by.
        book: The rules.
        clients: What ``in_thread()`` runs.
        pid: The process that has made it.
        life: Guards the life cycle.
        is_stopping: A stop has begun, and not ended.
        bound: A socket that was bound before, for the first start.
        loop: The thread of the accept loop.
        left_over: Threads that have stopped the server themselves, and so could not be joined.
    """

    has_datagrams: ClassVar[bool]

    is_stopping = False
    bound: socket.socket | None = None
    loop: threading.Thread | None = None
    traffic: Traffic
    verdict: Verdict
    book: RuleBook

    def __init__(self, kind: str, transport: str, given: dict[str, Any]) -> None:
        self.options: Options = options_for(transport, given, where=f"{kind}()")
        options = self.options
        self.kind, self.transport = kind, transport
        name = options.name or transport
        self.published = Published(
            name,
            transport,
            host=options.host,
            port=options.port,
            path=options.path,
            allow_remote=options.allow_remote,
        )
        self.context = Context(
            name,
            transport,
            self.published.address_of,
            tls=options.tls,
            max_frame=options.max_frame,
            timeout=options.timeout,
            record_limit=options.record_limit,
            ignore_probes=options.ignore_probes,
        )
        self.stop_timeout = options.stop_timeout
        self.pid = original.getpid()
        self.life = original.RLock()
        self.clients: list[ClientFuture[Any]] = []
        self.left_over: list[threading.Thread] = []

    # Declaring

    def declare_rule(self, match: RuleMatch, times: int | tuple[int, int | None] | None) -> On:
        """Declare what answers a request; ``on()``."""
        return self.book.declare(match, times, empty=True)

    def open_gate(self, name: str) -> None:
        """Open a gate."""
        self.context.gates.open(checked_gate(name, "open_gate()"))

    def inject(
        self,
        parts: tuple[Part, ...],
        *,
        times: int | tuple[int, int | None] | None = None,
        probability: float | None = None,
        is_demanded: bool | None = None,
        **given: Any,
    ) -> Injection:
        """Put an injection in force.

        Args:
            is_demanded: It must hit as often as its ``times`` say; unless given, as ``inject()`` says.
        """
        if is_demanded is None:
            is_demanded = isinstance(times, tuple) or (probability is None and is_in_a_tests_body())
        seed = given.pop("seed", None)
        from ..faults.arguments import checked_fault_rule

        fault_rule = checked_fault_rule(
            parts,
            self.transport,
            tls=self.options.tls is not None,
            seed=seed,
            **{"direction": SENT, "connections": None, "at": None, **given},
            probability=probability,
            times=times,
        )
        injection = self.context.injections.begin(fault_rule, seeded=seed is not None, is_demanded=is_demanded)
        # After it is in force: a connection that looks for injections before that would not find this one.
        self.disturb_all()
        return injection

    def disturb_all(self) -> None:
        """Let the connections that there are look for injections; datagram servers have none."""

    def new_script(self, names: Iterable[str] = ()) -> Script:
        """Return an empty script; its templates may have names that are captured elsewhere as well."""
        from ..scripting.script import Script

        book = self.book
        return Script(
            transport=self.transport,
            names=lambda: {*names, *book.names(), *book.captured()},
            max_frame=self.options.max_frame,
            tls=self.options.tls is not None,
        )

    def parsed(self, text: str | os.PathLike[str], values: dict[str, Any], *, timed: bool) -> Dialogue:
        """Return a dialogue, each of whose steps knows its line in the test, or in its file."""
        from .dialogue import parsed

        return parsed(text, values, new_script=self.new_script, datagrams=self.has_datagrams, timed=timed)

    def forget(self) -> list[object]:
        """Do what ``clear()`` does; return what is to be let go without the recorder's lock, which must be held."""
        context = self.context
        context.gates.clear()
        self.verdict.went_wrong = False
        return [
            *self.book.clear(),
            *context.injections.clear(),
            *context.demands.clear(),
            *context.recorder.forget(),
        ]

    # Captured

    def events(self) -> list[Event]:
        """Return everything that happened, of all connections, in order."""
        recorder = self.context.recorder
        with recorder.lock:
            recorder.check_complete("events")
            events = [event for tape in recorder.tapes for event in tape.events]
            return [Event(*event) for event in sorted(events, key=lambda event: event[0])]

    def expect_failure(self, kind: Any, match: str | None) -> Expected:
        """Set aside the next failure that is meant; ``raises()``."""
        types = kind if isinstance(kind, tuple) else (kind,)
        if not types or not all(isinstance(each, type) and issubclass(each, BaseException) for each in types):
            raise TypeError(f"raises() expected an exception class, or a tuple of them, not {kind!r}")
        expected = Expected(kind, re.compile(match) if match is not None else None)
        self.context.failures.expect(expected)
        return expected

    # Threads

    def start_client(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ClientFuture[T]:
        """Run a blocking client beside the test; ``in_thread()``."""
        from .client_thread import run_in_thread

        if not callable(fn):
            raise TypeError(
                f"in_thread() expected a function, not {fn!r}: pass the function and its arguments, in_thread(fn, arg)"
            )
        context, traffic = self.context, self.traffic
        future = run_in_thread(f"sockserver {self.published.label} client", fn, args, kwargs, context.recorder)
        future.seconds, future.owner = context.timeout, running()
        what = future.name
        future.late = lambda deadline: with_conversation(
            DeadlineExceeded, context.name, f"in_thread({what}) did not end within {deadline}", traffic.said()
        )
        self.clients.append(future)
        return future

    def cut_clients(self) -> list[threading.Thread]:
        """Say to the clients of in_thread() that what becomes of them now is our doing; return their threads.

        Whoever waits, one of them perhaps, is told that nothing more will come.
        """
        with self.context.recorder.lock:
            # In one step with the change: a wait that wakes on it finds the stop as its reason.
            self.context.is_over = True
            self.context.recorder.changed()
        for client in self.clients:
            # A client that is done by now has not failed because of the stop: its error, if it has one, counts.
            client.cut = not client.done()
        return [client.thread for client in self.clients]

    def run_loop(self, serve: Callable[[], None]) -> None:
        """Serve, in the loop's thread."""
        try:
            serve()
        except BaseException as error:
            self.context.failures.add(error, f"{self.context.name}, the accept loop")

    def threads(self) -> list[threading.Thread | None]:
        """Return the server's own threads."""
        raise NotImplementedError

    def is_in_own_thread(self) -> bool:
        """Tell whether a thread of the server calls, or a client of ``in_thread()``."""
        current = current_thread()
        return current in self.threads() or any(client.thread is current for client in self.clients)

    def name_stuck(
        self, threads: list[threading.Thread], peers: dict[threading.Thread, Any], deadline: Deadline
    ) -> None:
        """Make failures of threads that did not end."""
        for thread in threads:
            what = _WHAT_RUNS.get(thread.name.rpartition(" ")[2], "a handler")
            self.context.failures.add(stuck(thread, what, peers.get(thread), deadline), self.context.name)

    # The end

    def __del__(self) -> None:
        """Undo the circles among the parts: neither a test nor a thread has the server any more.

        So it is freed at once, its recording with it, without the garbage collector.  Nothing is lost by that to who
        holds a connection or a request: what those show stays theirs.
        """
        # In whichever thread has let the last reference go, without a lock: no other one has the parts, but for
        # connections that a test holds, which ask the context and the recorder alone.
        if "verdict" in vars(self):  # else its options were refused
            self.book.names = tuple
            self.traffic.let_go()
            self.context.let_go()

    def release_place(self) -> None:
        """Remove the files of a unix socket; what cannot be removed is told."""
        place = self.published.place
        error = place.release() if place is not None else None
        if error is not None:
            self.traffic.left_behind = Loss(f"the stop could not remove a file of its socket: {error}")

    def close_descriptors(self) -> None:
        """In a forked child: close copies, shut nothing down, join nothing, take no lock."""
        raise NotImplementedError
