"""Keep what happened, within a bound, and wake whoever waits for it.

One :class:`Recorder` belongs to a server and one :class:`Tape` to each of its connections.  The recorder's
lock guards all of it: a hundred nanoseconds for each event, against a dozen microseconds for a round trip,
buy that every answer ("what was received, was it all, has it ended") is of one moment, on a free-threaded
interpreter as well.

Memory is bounded by ``limit``.  Past it events are dropped and still counted, and whoever asks for bytes
that were not kept gets an error that says so: never a wrong answer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ..errors.exceptions import RecordLimitExceeded
from ..originals import Condition, original
from .events import CLIENT_EOF, CLIENT_RESET, CLOSE, RECEIVED, RESET, SENT, UNSENT, Event, RawEvent

if TYPE_CHECKING:
    from ..transport.tapped_socket import TappedSocket

#: What an event costs beside its bytes: a two-byte event was measured at 138 bytes (tuple, float, bytes object).
OVERHEAD: Final = 140

_ENDS: Final = {CLIENT_EOF: "client", CLIENT_RESET: "client", CLOSE: "server", RESET: "server"}

# What the thread that drives a connection is doing, written by that thread alone.  A byte leaves the kernel
# only while it says BUSY; so "nothing to read, and later WAITING" means that everything was taken.
BUSY: Final = "busy"
WAITING: Final = "waiting for input"
SENDING: Final = "waiting for the client to read"
PARKED: Final = "not reading"


class Recorder:
    """What one server has seen.

    Args:
        limit: Bytes of memory, roughly: each event counts its bytes and 140 more.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Guards everything here and in the tapes but Tape.state.  No code of the user runs under it: server/base.py.
        self.lock = original.RLock()
        self.began = original.monotonic()
        self.tapes: list[Tape] = []
        self.requests: list[Any] = []  # grows at its end, or is replaced: one may walk through it without the lock
        self._requests_of: dict[Any, list[Any]] = {}  # by connection: one of 10,000 is not looked for among all of them
        self._untaken: set[int] = set()  # the id() of each of them that take() has not given away
        self.first_untaken = 0  # the index of the first such request
        self.arrivals = 0  # connections and chunks of bytes, kept or not: what assert_no_traffic() looks at
        self.changed_at = 0.0  # when anything happened last
        self.size = 0
        self.dropped = 0  # bytes, of events and requests that were not kept
        self.changes = 0  # how often anything has changed, counted while a thread waits
        self._changed = Condition(self.lock)
        self._sleepers = 0  # threads that wait, asleep or not
        # Of drivers that wait for something else than what is recorded.  Each has a bell of its own: woken by every
        # event, a thousand of them would cost each event a thousand wake-ups.
        self.parked: list[threading.Condition] = []
        self._wakers: list[Callable[[], None]] = []

    def elapsed(self) -> float:
        """Return the seconds since the recorder was made."""
        return original.monotonic() - self.began

    def forget(self) -> list[object]:
        """Drop all that was kept and begin to count anew; open connections go on being recorded.

        Returns:
            What is to be let go without the lock: a ``__del__`` of the user's may come with it.
        """
        with self.lock:
            gone: list[object] = [self.requests, self.tapes, self._requests_of]
            self.requests, self.tapes, self._requests_of = [], [], {}
            self._untaken, self.first_untaken = set(), 0
            self.size = self.dropped = 0
            return gone

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

    def add_request(self, request: Any) -> None:
        """Keep a request, unless there is no room any more."""
        with self.lock:
            dropped = self.dropped  # a request's bytes are those of events: they are counted once
            if self._room(len(request)):
                self.requests.append(request)
                self._untaken.add(id(request))
                if request.connection is not None:
                    of_connection = self._requests_of.get(request.connection)
                    if of_connection is None:
                        self._requests_of[request.connection] = [request]
                    else:
                        of_connection.append(request)
            else:
                self.dropped = max(dropped, len(request))
            self.changed()

    def take(self, request: Any) -> bool:
        """Give a request away; tell whether it was to be had: neither taken nor forgotten meanwhile.  Any thread."""
        with self.lock:
            if not self.is_untaken(request):
                return False
            self._untaken.discard(id(request))
            while self.first_untaken < len(self.requests) and not self.is_untaken(self.requests[self.first_untaken]):
                self.first_untaken += 1
            return True

    def is_untaken(self, request: Any) -> bool:
        """Tell whether nobody has taken a request so far.  Without the lock it may be taken a moment later."""
        return id(request) in self._untaken

    def forget_requests(self, connection: Any) -> list[Any]:
        """Drop the requests of a connection; return them, to be let go without the lock, which must be held."""
        gone = self._requests_of.pop(connection, [])
        if gone:
            self.requests = [each for each in self.requests if each.connection is not connection]
            self._untaken.difference_update(map(id, gone))
            self.first_untaken = 0
        return gone

    def kept_requests(self, connection: Any = None) -> list[Any]:
        """Return the requests so far, of one connection if one is given; raise if any bytes were dropped."""
        with self.lock:
            self.check_complete("requests")
            requests = self.requests if connection is None else self._requests_of.get(connection, ())
            return [each for each in requests if each._is_sure]

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
        self.changed_at = self.elapsed()
        if self._sleepers:
            self.changes += 1
            self._changed.notify_all()
        for wake in self._wakers:
            wake()

    def tell(self) -> None:
        """Wake everyone who waits, those at gates and for declarations too.  Any thread."""
        with self.lock:
            self.changed()
            for bell in self.parked:
                bell.notify_all()

    def sleep(self, seconds: float | None) -> None:
        """Wait until something changed, or for ``seconds``.  The lock must be held, and is let go meanwhile."""
        self._sleepers += 1
        try:
            self._changed.wait(seconds)
        finally:
            self._sleepers -= 1

    def attend(self, threads: int) -> None:
        """Count one more, or one less, thread that waits: meanwhile each change is counted in ``changes``."""
        with self.lock:
            self._sleepers += threads

    def sleep_since(self, changes: int, seconds: float | None) -> None:
        """Wait until more has changed than ``changes``, or for ``seconds``.  For a thread that attends."""
        with self.lock:
            if self.changes == changes:
                self._changed.wait(seconds)

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` at each change while the block runs: any thread, the lock held, must not block.

        It is ours, and calls what a loop has for being woken from any thread, which neither blocks nor runs anything.
        """
        with self.lock:
            self._wakers.append(wake)
        try:
            yield
        finally:
            with self.lock:
                self._wakers.remove(wake)

    # Called by tapes, with the lock held.

    def keep(self, tape: Tape, kind: str, data: bytes) -> RawEvent:
        """Keep an event, unless there is no room any more; return it."""
        self.changed_at = now = original.monotonic() - self.began
        event = (now, tape.index, kind, data)
        if self._room(len(data)):
            tape.events.append(event)
        if self._sleepers or self._wakers:
            self.changed()
        return event

    def _room(self, size: int) -> bool:
        grown = self.size + size + OVERHEAD
        if grown <= self.limit and not (self.dropped and size):
            self.size = grown
            return True
        # From the first gap on no more bytes are kept: a recording with holes would be read as whole.
        self.dropped += size
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
        self.received_count = self.sent_count = 0
        self.client_ended = False
        self.ended_by: str | None = None
        self.ended_at: float | None = None
        self.ended_how = "closed"
        self.gone = False
        self.server_ended = False
        self.lock = original.RLock()
        self.state = BUSY
        self.socket: TappedSocket | None = None
        self.handed_over: tuple[int, int] | None = None  # descriptor and inode, when detached by the handler
        self.wrapping = False  # TLS begins on its socket, which is detached for that
        self.cut = ""
        self.saw_cut = False
        self.uncut: deque[Any] | None = None
        self.tap: Callable[[], None] | None = None
        self.interposer: Any = None
        self._bell: threading.Condition | None = None
        self.peer_error: BaseException | None = None  # what the client's reset was raised as, for its driver

    def received(self, data: bytes) -> None:
        """Note bytes that the client sent, before anyone can act on them."""
        with self.recorder.lock:
            self.received_count += len(data)
            self.recorder.arrivals += 1
            self.recorder.keep(self, RECEIVED, data)
            if self.uncut is not None:
                self.uncut.append(data)

    def sending(self, data: bytes) -> RawEvent:
        """Note bytes before they leave: a client that has its reply must find it recorded."""
        with self.recorder.lock:
            self.sent_count += len(data)
            return self.recorder.keep(self, SENT, data)

    def sent_less(self, noted: RawEvent, count: int) -> None:
        """Correct what ``sending`` has noted: the kernel took ``count`` bytes and will be offered the rest again."""
        time, index, kind, data = noted
        with self.recorder.lock:
            self.sent_count -= len(data) - count
            at = len(self.events) - 1
            while at >= 0 and self.events[at] is not noted and self.events[at][0] >= time:
                at -= 1  # not further back than it was noted: what was not kept would cost a look at all that was
            if at < 0 or self.events[at] is not noted:
                return  # not kept
            self.events[at : at + 1] = [(time, index, kind, data[:count])] if count else []
            self.recorder.size -= len(data) - count + (0 if count else OVERHEAD)

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

    def park(self, seconds: float | None) -> None:
        """Wait for ``unpark``, for ``Recorder.tell``, or for ``seconds``.  The recorder's lock must be held."""
        if self._bell is None:
            self._bell = Condition(self.recorder.lock)
        self.recorder.parked.append(self._bell)
        try:
            self._bell.wait(seconds)
        finally:
            self.recorder.parked.remove(self._bell)

    def unpark(self) -> None:
        """Wake who waits in ``park``.  Any thread."""
        with self.recorder.lock:
            if self._bell is not None:
                self._bell.notify_all()
            for wake in self.recorder._wakers:  # coroutines are few, and look for themselves
                wake()

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
