"""Keep what happened, within a bound, and wake whoever waits for it.

One :class:`Recorder` belongs to a server and one :class:`Tape` to each of its connections.  The recorder's
lock guards all of it: a hundred nanoseconds for each event, against a dozen microseconds for a round trip,
buy that every answer ("what was received, was it all, has it ended") is of one moment, on a free-threaded
interpreter as well.

Memory is bounded by ``limit``.  Past it events are dropped and still counted, and whoever asks for bytes
that were not kept gets an error that says so: never a wrong answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from ..errors.exceptions import RecordLimitExceeded
from ..originals import Condition, original
from .bells import Bells
from .events import CLIENT_EOF, CLIENT_RESET, CLOSE, RECEIVED, RESET, SENT, UNSENT, Event, RawEvent

# What is guarded by what.  ``Recorder.lock`` guards the record: events, requests, counts, and how each connection
# ended.  ``Tape.lock`` guards the live connection: which socket it is, ``cut``, and who may close the descriptor.  It
# is taken first where both are needed.
#
# Single fields are read without a lock, each for its own reason:
#
# - ``Tape.state``: what drives the connection writes it; ``kernel.quiet`` says in which order it is read.
# - ``Tape.cut``, ``server_ended``, ``client_ended``: they change once.  A look that comes too early is made again.
# - ``Recorder.requests``: it grows at its end, or is replaced by another list; a walk goes on over the old one.
# - ``watched``: raised under the lock *before* the waiter looks.  An event that finds it zero was recorded before that
#   look, under the same lock, so the look has seen it.
#
# Three ways to be woken, since each change would otherwise wake everyone: threads sleep on ``_changed``; coroutines
# that ask a query hang up a waker; operations, which do not wait for events, have ``bells``.  ``changed`` wakes the
# first two, ``tell`` all three.
#
# The order in an event: count, keep, wake, all in one step.  A waiter that is woken between counting and keeping would
# find more bytes counted than there are.
#
# The limit.  ``room`` goes below zero at the first gap and stays there.  Then nothing that has bytes is kept any more,
# and each answer that needs all of them raises.  Events without a byte, such as ends, still fit in what was left.
#
# Nothing here closes a socket, and nothing here knows what an event means to a test.
#: Bytes of memory for a server's recording.  Far above what a test says, far below what a CI job has.
DEFAULT_RECORD_LIMIT: Final = 64 * 1024 * 1024

#: What an event costs beside its bytes: a two-byte event was measured at 138 bytes (tuple, float, bytes object).
OVERHEAD: Final = 140

_ENDS: Final = {CLIENT_EOF: "client", CLIENT_RESET: "client", CLOSE: "server", RESET: "server"}

# What the thread that drives a connection is doing, written by that thread alone.  A byte leaves the kernel
# only while it says BUSY; so "nothing to read, and later WAITING" means that everything was taken.
# RECEIVING is the other way round: the thread is blocked in a receive, and has its bytes before it can say so.  There
# the kernel's own count of what it has received must be equal to ours (see ``kernel.quiet``).
BUSY: Final = "busy"
WAITING: Final = "waiting for input"
RECEIVING: Final = "in a receive"
SENDING: Final = "waiting for the client to read"
PARKED: Final = "not reading"


class Recorder:
    """What one server has seen.

    Args:
        limit: Bytes of memory, roughly: each event counts its bytes and 140 more.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Guards everything here and in the tapes but Tape.state.  No code of the user runs under it: server/service.py.
        self.lock = original.RLock()
        self.began = original.monotonic()
        self.tapes: list[Tape] = []
        self.requests: list[Any] = []  # grows at its end, or is replaced: one may walk through it without the lock
        self._with_requests: list[Tape] = []  # the connections that have some
        self.first_untaken = 0  # the index of the first request that take() has not given away
        self.is_faulty = False  # an injection changes what comes from now on
        self.arrivals = 0  # connections and chunks of bytes, kept or not: what assert_no_traffic() looks at
        self.room = limit  # bytes that may still be kept; negative from the first gap on
        self._room_after_gap = 0  # and then this, for what has no byte
        self.dropped = 0  # bytes, of events and requests that were not kept
        self.changes = 0  # how often anything has changed, counted while a thread waits
        self._changed = Condition(self.lock)
        self._changed_at = 0.0  # when anything happened last that is no event
        self._sleepers = 0  # threads that wait, asleep or not
        self.watched = 0  # they, and what is woken: how many want to know of each change
        # Of operations, which wait for something else than what is recorded: a gate, a declaration, a failure.  Woken
        # by every event, a thousand of them would cost each event a thousand wake-ups.
        self.bells = Bells()
        self._wakers: list[Callable[[], None]] = []

    @property
    def changed_at(self) -> float:
        """When anything happened last, in seconds since the recorder was made.  The lock must be held."""
        return max([self._changed_at, *(tape.events[-1][0] for tape in self.tapes if tape.events)])

    @property
    def size(self) -> int:
        """How much of the limit is used up, in bytes."""
        return self.limit - (self.room if self.room >= 0 else self._room_after_gap)

    def elapsed(self) -> float:
        """Return the seconds since the recorder was made."""
        return original.monotonic() - self.began

    def forget(self) -> list[object]:
        """Drop all that was kept and begin to count anew; open connections go on being recorded.

        Returns:
            What is to be let go without the lock: a ``__del__`` of the user's may come with it.
        """
        with self.lock:
            # Lists are replaced, not emptied: who walks through one without the lock goes on undisturbed.
            gone: list[object] = [self.requests, self.tapes]
            for request in self.requests:
                request.is_taken = True
            for tape in self._with_requests:
                gone.append(tape.requests)
                tape.requests = []
            self.requests, self.tapes, self._with_requests, self.first_untaken = [], [], [], 0
            self.room, self.dropped = self.limit, 0
            return gone

    def let_go(self) -> None:
        """Undo the circles that it is in, when its server is gone.

        Each connection keeps its requests, for who holds it, as ones that do not hold it: see ``Request.alone``.
        """
        with self.lock:
            requests, tapes, self.requests, self.tapes = self.requests, self._with_requests, [], []
            self._with_requests = []
        del requests
        for tape in tapes:
            for at, request in enumerate(tape.requests):  # one by one: a copy of all would double the memory
                tape.requests[at] = request.alone()

    def since(self) -> str:
        """Return what a message adds that says that nothing has come: an empty record may be a cleared one."""
        return " since clear()" if self.arrivals and not self.tapes else ""

    def add_tape(self, peer: Any) -> Tape:
        """Begin to record a further connection."""
        with self.lock:
            tape = Tape(self, len(self.tapes), peer)
            self.tapes.append(tape)
            self.arrivals += 1
            self.changed()
            return tape

    def add_request(self, request: Any, tape: Tape | None = None) -> None:
        """Keep a request, and with those of its connection, unless there is no room any more."""
        with self.lock:
            if (room := self.room - len(request) - OVERHEAD) >= 0:
                self.room = room
            elif not self._find_room(len(request), dropped_before=True):
                return self.changed()
            self.requests.append(request)
            if tape is not None:
                if not tape.requests:
                    self._with_requests.append(tape)
                tape.requests.append(request)
            if self.watched:
                self.changed()

    def take(self, request: Any) -> bool:
        """Give a request away; tell whether it was to be had: neither taken nor forgotten meanwhile.  Any thread."""
        with self.lock:
            if request.is_taken:
                return False
            request.is_taken = True
            while self.first_untaken < len(self.requests) and self.requests[self.first_untaken].is_taken:
                self.first_untaken += 1
            return True

    def forget_requests(self, tape: Tape) -> list[Any]:
        """Drop the requests of a connection; return them, to be let go without the lock, which must be held."""
        gone, tape.requests = tape.requests, []
        if gone:
            self._with_requests.remove(tape)
            for request in gone:
                request.is_taken = True
            dropped = set(map(id, gone))
            self.requests = [each for each in self.requests if id(each) not in dropped]
            self.first_untaken = 0
        return gone

    def kept_requests(self, tape: Tape | None = None) -> list[Any]:
        """Return the requests so far, of one connection if one is given; raise if any bytes were dropped."""
        with self.lock:
            self.check_complete("requests")
            requests = self.requests if tape is None else tape.requests
            return [each for each in requests if each.is_sure]

    def check_complete(self, what: str) -> None:
        """Raise if anything was dropped.  The lock must be held."""
        if self.dropped:
            raise RecordLimitExceeded(
                f"{what} cannot be told any more: the recording reached its record_limit of {self.limit:,} bytes "
                f"and {self.dropped:,} bytes were not kept.  Give the server a larger record_limit=, or look at "
                "received_count and sent_count, which go on counting"
            )

    # Waiting

    def changed(self) -> None:
        """Wake everyone who waits.  The lock must be held."""
        self._changed_at = self.elapsed()
        if self._sleepers:
            # Counted for sleepers alone; wakers are told each time, and look by themselves.
            self.changes += 1
            self._changed.notify_all()
        for wake in self._wakers:
            wake()

    def tell(self) -> None:
        """Wake everyone who waits, those at gates and for declarations too.  Any thread."""
        with self.lock:
            self.changed()
        self.bells.ring()

    def sleep(self, seconds: float | None) -> None:
        """Wait until something changed, or for ``seconds``.  The lock must be held, and is let go meanwhile."""
        self.attend(+1)
        try:
            self._changed.wait(seconds)
        finally:
            self.attend(-1)

    def attend(self, threads: int) -> None:
        """Count one more, or one less, thread that waits: meanwhile each change is counted in ``changes``."""
        with self.lock:
            self._sleepers += threads
            self.watched += threads

    def sleep_since(self, changes: int, seconds: float | None) -> None:
        """Wait until more has changed than ``changes``, or for ``seconds``.  For a thread that attends."""
        with self.lock:
            # Compared under the lock that the wait lets go: no change fits between the look and the sleep.
            if self.changes == changes:
                self._changed.wait(seconds)

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` at each change while the block runs: any thread, the lock held, must not block.

        It is ours, and calls what a loop has for being woken from any thread, which neither blocks nor runs anything.
        """
        with self.lock:
            self._wakers.append(wake)
            self.watched += 1
        try:
            yield
        finally:
            with self.lock:
                self._wakers.remove(wake)
                self.watched -= 1

    # Called by tapes, with the lock held.

    def keep(self, tape: Tape, kind: str, data: bytes) -> None:
        """Keep an event, unless there is no room any more."""
        self.keep_event(tape, (original.monotonic() - self.began, tape.index, kind, data))
        if self.watched:
            self.changed()

    def keep_event(self, tape: Tape, event: RawEvent) -> None:
        """Keep an event for which the usual room may be used up."""
        size = len(event[3])
        if (room := self.room - size - OVERHEAD) >= 0:
            self.room = room
        elif not self._find_room(size):
            self._changed_at = event[0]
            return
        tape.events.append(event)

    def _find_room(self, size: int, *, dropped_before: bool = False) -> bool:
        """Tell whether there is room after all: for what has no byte there may be.  Count what is dropped.

        From the first gap on no more bytes are kept: a recording with holes would be read as whole.

        Args:
            dropped_before: Its bytes are those of events, and counted already.
        """
        if self.room >= 0:
            self._room_after_gap, self.room = self.room, -1
        if not size and self._room_after_gap >= OVERHEAD:
            self._room_after_gap -= OVERHEAD
            return True
        self.dropped = max(self.dropped, size) if dropped_before else self.dropped + size
        return False


class Tape:
    """What happened on one connection, and what its driver is doing.

    Attributes:
        peer: The client's address, as ``accept`` gave it.
        received_count, sent_count: Bytes, counted even when they were not kept.
        ended_by: ``"client"`` or ``"server"``, whoever ended the connection first; ``None`` while it is open.
        ended_how, ended_at: ``"closed"`` or ``"reset"``, and when.
        gone: This side's descriptor is closed.  An end is noted before it happens, so that it is recorded when the
            client sees it; this is said afterwards, when the client can see it.
        socket: The socket that is the connection now; changes when TLS starts.
        cut: Why this side has ended the connection from outside its driver, empty while it has not: whatever the
            driver's socket says next is our own doing.
        saw_cut: The driver has been told.
        interposer: What the socket asks before it sends or receives, by ``send`` and ``recv``, which return whether
            that is done: on a handler class's socket the injected faults, on a detached one what was read ahead.  Any
            thread may change it, so it is read once for each use.
        came_faulty: An injection was in force when the latest bytes came, and changes them.
        faulty_from: So many bytes had come when that began.
        uncut: Where what was received waits to be cut into frames, if no verb reads.  Guarded by the recorder's lock.
        tap: Called without a lock after something was received, by the thread of a handler class: cuts these frames.
        lock: Guards ``socket``, ``cut`` and ``handed_over``, and is held while a descriptor is closed or shut
            down, so that a number which was given to another file meanwhile is never touched.  Re-entrant:
            ``wrap_socket`` calls ``detach``.
    """

    def __init__(self, recorder: Recorder, index: int, peer: Any) -> None:
        self.recorder = recorder
        self.index = index
        self.peer = peer
        self.began = recorder.elapsed()
        self.events: list[RawEvent] = []
        self.requests: list[Any] = []
        self.received_count = self.sent_count = 0
        self.client_ended = False
        self.ended_by: str | None = None
        self.ended_at: float | None = None
        self.ended_how = "closed"
        self.gone = False
        self.server_ended = False
        self.lock = original.RLock()
        self.state = BUSY
        self.socket: Any = None  # the TappedSocket that notes here, or None: its module imports this one
        self.is_counted = False  # the kernel counts what it has received for this socket, in plain text
        self.unequal_counts: tuple[object, float] = (
            None,
            0.0,
        )  # the kernel's and ours, when they differed, and since when
        self.handed_over: tuple[int, int] | None = None  # descriptor and inode, when detached by the handler
        self.wrapping = False  # TLS begins on its socket, which is detached for that
        self.cut = ""
        self.saw_cut = False
        self.uncut: deque[Any] | None = None
        self.came_faulty, self.faulty_from = False, 0
        self.tap: Callable[[], None] | None = None
        self.interposer: Any = None
        self.bells = Bells()  # of operations on this connection
        self.peer_error: BaseException | None = None  # what the client's reset was raised as, for its driver

    # The next two are in each receive and each send: all that they do is written out here, without a further call.

    def received(self, data: bytes) -> None:
        """Note bytes that the client sent, before anyone can act on them."""
        recorder = self.recorder
        with recorder.lock:
            self.received_count += (size := len(data))
            recorder.arrivals += 1
            # In one step with the event: the test injects in its own thread, and what is recorded after that is
            # changed.
            if self.came_faulty is not recorder.is_faulty:
                self.came_faulty, self.faulty_from = recorder.is_faulty, self.received_count - size
            event = (original.monotonic() - recorder.began, self.index, RECEIVED, data)
            if (room := recorder.room - size - OVERHEAD) >= 0:
                recorder.room = room
                self.events.append(event)
            else:
                recorder.keep_event(self, event)
            if self.uncut is not None:
                self.uncut.append(data)
            if recorder.watched:
                recorder.changed()

    def sending(self, data: bytes) -> RawEvent:
        """Note bytes before they leave: a client that has its reply must find it recorded."""
        recorder = self.recorder
        with recorder.lock:
            self.sent_count += (size := len(data))
            event = (original.monotonic() - recorder.began, self.index, SENT, data)
            if (room := recorder.room - size - OVERHEAD) >= 0:
                recorder.room = room
                self.events.append(event)
            else:
                recorder.keep_event(self, event)
            if recorder.watched:
                recorder.changed()
            return event

    def sent_less(self, noted: RawEvent, count: int) -> None:
        """Correct what ``sending`` has noted: the kernel took ``count`` bytes and will be offered the rest again."""
        # A search backwards by identity: another thread may have noted something since, and equal bytes may stand
        # twice.
        time, index, kind, data = noted
        with self.recorder.lock:
            self.sent_count -= len(data) - count
            at = len(self.events) - 1
            while at >= 0 and self.events[at] is not noted and self.events[at][0] >= time:
                at -= 1  # not further back than it was noted: what was not kept would cost a look at all that was
            if at < 0 or self.events[at] is not noted:
                return  # not kept
            self.events[at : at + 1] = [(time, index, kind, data[:count])] if count else []
            if self.recorder.room >= 0:
                self.recorder.room += len(data) - count + (0 if count else OVERHEAD)

    def unsent(self, count: int) -> None:
        """Take back the last ``count`` bytes: the client is gone, and they will not be offered again."""
        with self.recorder.lock:
            self.sent_count -= count
            self.recorder.keep(self, UNSENT, b"%d" % count)

    def note(self, kind: str, data: bytes = b"") -> None:
        """Note anything else; ends are noted once."""
        with self.recorder.lock:
            ending = _ENDS.get(kind)
            if ending == "client":
                if self.client_ended or self.server_ended:
                    return  # what a socket says that we have shut down says nothing of the client
                self.client_ended = True
            elif ending == "server":
                if self.server_ended:
                    return
                self.server_ended = True
            if ending and self.ended_by is None:
                self.ended_by, self.ended_at = ending, self.recorder.elapsed()
                self.ended_how = "reset" if kind in (RESET, CLIENT_RESET) else "closed"
            self.recorder.keep(self, kind, data)

    def went(self) -> None:
        """Note that this side's descriptor is closed now."""
        with self.recorder.lock:
            self.gone = True
            self.recorder.changed()

    def joined(self, kind: str) -> bytes:
        """Return all bytes of one direction; raise if any were dropped."""
        with self.recorder.lock:
            self.recorder.check_complete(f"what was {kind}")
            events = list(self.events)
        chunks: list[bytes] = []
        for _, _, each, data in events:
            if each == kind:
                chunks.append(data)
            elif each == UNSENT and kind == SENT:
                _take_back(chunks, int(data))
        return b"".join(chunks)

    def public_events(self) -> list[Event]:
        """Return the events as objects; raise if any were dropped."""
        with self.recorder.lock:
            self.recorder.check_complete("events")
            events = list(self.events)
        return [Event(*event) for event in events]


def _take_back(chunks: list[bytes], count: int) -> None:
    """Remove the last ``count`` bytes."""
    while chunks and count:
        last = chunks.pop()
        if len(last) > count:
            chunks.append(last[:-count])
        count -= min(count, len(last))
