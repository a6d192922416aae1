"""One client's connection, as it is known on this side: what was captured, what a message says, what its server needs.

No verb is here; nothing waits.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ..errors.exceptions import THE_SERVER_STOPS, DeadlineExceeded, EndOfStream, IncompleteRequest, ScriptMismatch
from ..errors.location import hide_frame
from ..errors.messages import format_peer, with_conversation
from ..originals import original
from ..recording.events import RECEIVED, Event
from ..recording.recorder import Tape
from ..scripting import readers
from ..scripting.framing import Framing, Lack, checked_framing
from ..scripting.matching import HexMatch, described, is_literal, matching, names_in
from ..transport.stream import Stream
from . import transcript
from .cutting import Cutting
from .deadline import Deadline
from .fault_state import FaultState
from .probes import hint
from .request import Request, looked_up
from .send_lock import SendLock

if TYPE_CHECKING:
    from ..responders.responder import Responder
    from ..scripting.rules import Rule
    from ..scripting.tls_effects import StartTLS
    from ..server.stream import StreamTestServer
    from .connection import Connection

__tracebackhide__ = hide_frame


class Endpoint:
    """What is known of a connection, and what its server asks of it; the verbs are added by who derives from it."""

    def __init__(self, tape: Tape, server: StreamTestServer) -> None:
        self.index = tape.index
        self.peer = tape.peer
        self.local_address = server._address_of(tape.socket)
        self.state = SimpleNamespace()
        self.captured: dict[str, bytes] = {}
        self._tape = tape
        self._stream = Stream(tape)
        self._server = server
        self._timeout = server.timeout
        self._max_frame = server.options.max_frame
        self._framing = server.framing
        self._cutting: Cutting | None = None  # where no verb reads; guarded by the recorder's lock
        self._values: Mapping[str, Any] = {}  # further names, of the dialogue that is performed
        self._latest: Request | None = None  # what functions are called with, among parts that answer no request
        # Who reads: "handled" by a handler's thread, "sunk" by the server's sink, "live" by the test.
        self._mode = "handled"
        self._responder: Responder | None = None  # what was declared for it
        self._thread: threading.Thread | None = None
        self._done = False  # its handler has ended, and the connection with it
        self._waits_for_start = True  # for that of a unit, without a deadline: a handler does, a test does not
        self._connected_before_declaration = False  # before anything was declared for it
        self._probing = False  # a mismatch may be none: whoever asks adds the conversation, if he tells of it
        self._told_end = False  # recv() and recv_all() say b"" once, then raise
        self._handshake_part: StartTLS | None = None  # what has begun the handshake that a rule answers
        self._ended_by_fault = False  # an injection has ended it, or a time
        self._fault_state = FaultState() if server._injections else None
        self._writing = SendLock(tape.recorder)  # guards the order of bytes on the wire: one send at a time
        self._reader = original.Lock()  # held by the one reader
        self._answer_by_rules: Callable[[Connection], None] = _nobody_answers  # its server's performer

    def __repr__(self) -> str:
        end = f"{self._tape.ended_how} by the {self.closed_by}" if self.closed_by else "open"
        return f"<Connection {self.index} from {format_peer(self.peer)}, {end}>"

    def __str__(self) -> str:
        return transcript.of_connection(self._tape, limit=None)

    # What was captured

    @property
    def received(self) -> bytes:
        """All bytes the client has sent, taken by a verb or not.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self._tape.joined("received")

    @property
    def sent(self) -> bytes:
        """All bytes the server has sent.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self._tape.joined("sent")

    @property
    def received_count(self) -> int:
        """How many bytes the client has sent, counted even past ``record_limit``."""
        return self._tape.received_count

    @property
    def sent_count(self) -> int:
        """How many bytes the server has sent, counted even past ``record_limit``."""
        return self._tape.sent_count

    @property
    def requests(self) -> list[Request]:
        """The requests of this connection, in order of arrival."""
        return self._tape.recorder.kept_requests(self)

    @property
    def events(self) -> list[Event]:
        """Everything that happened, in order.

        Raises:
            RecordLimitExceeded: Not all of it was kept.
        """
        return self._tape.public_events()

    @property
    def closed_by(self) -> str | None:
        """``"client"`` or ``"server"``, whichever ended the connection first; ``None`` while it is open."""
        return self._tape.ended_by

    @property
    def tls(self) -> SimpleNamespace | None:
        """Once TLS was asked for, what came of it.

        ``version``, ``cipher``, ``alpn``; ``resumed``, whether the handshake resumed an earlier session;
        ``server_name``, what the client asked for (of contexts made here); ``certificate``, the client's, as
        ``getpeercert()`` returns it; and ``error``, why the handshake failed.
        """
        return self._stream.tls

    @property
    def framing(self) -> Framing | None:
        """Where one frame ends and the next begins: the server's, as it was when the connection came.

        Set it to switch within the connection, from the next frame on.
        """
        return self._framing

    @framing.setter
    def framing(self, framing: Framing | None) -> None:
        self._framing = checked_framing(framing, self._max_frame)

    def _begin_fault_state(self) -> FaultState:
        """Return what is other than usual on this connection, from now on if nothing was."""
        with self._tape.recorder.lock:
            if self._fault_state is None:
                self._fault_state = FaultState()
            return self._fault_state

    # Requests

    def _request(
        self, data: bytes, found: object = None, rule: Rule | None = None, *, is_unit: bool = False, sure: bool = True
    ) -> Request:
        """Make what a verb took a request, recorded before it is returned and so before it can be answered.

        Args:
            is_unit: It is one even without a byte: what the client sent, and not a reply's occasion.
            sure: If false it becomes one when a wait matches it.
        """
        recorder = self._tape.recorder
        match = found if isinstance(found, (re.Match, HexMatch)) else None
        request = Request(
            data,
            connection=cast("Connection", self),
            peer=self.peer,
            time=recorder.elapsed(),
            match=match,
        )
        request.rule = rule
        if match is not None:
            self.captured.update(names_in(match))
        request._is_sure = sure
        if data or is_unit:
            self._latest = request
            recorder.add_request(request)
        return request

    def _lookup(self, name: str) -> bytes:
        """Return what a name stands for on this connection."""
        return looked_up(self.captured, self._values, self, name)

    # Messages

    def _where(self) -> str:
        return f"{self._server.name}, connection {self.index} ({format_peer(self.peer)})"

    def _error(self, kind: Any, text: str) -> Any:
        return with_conversation(kind, self._where(), text, transcript.so_far(self._tape))

    def _late(self, verb: str, deadline: Deadline, wanted: object = None) -> DeadlineExceeded:
        waiting = self._stream.buffer
        got = readers.came(waiting) if len(waiting) else ""
        if wanted is None:
            text = f"{verb}() waited {deadline}" + (f"\n  got {got}" if got else ", and nothing came")
        else:
            text = f"expected {_named(verb, wanted)} within {deadline}\n  got {got or 'nothing'}"
        error: DeadlineExceeded = self._error(DeadlineExceeded, text)
        return error

    def _unread(self, data: bytes, deadline: Deadline) -> DeadlineExceeded:
        error: DeadlineExceeded = self._error(
            DeadlineExceeded,
            f"send() waited {deadline}: the client does not read, "
            f"and the kernel takes no more of the {len(data):,} bytes",
        )
        return error

    def _late_turn(self, verb: str, deadline: Deadline) -> DeadlineExceeded:
        """Return the error about a turn to send that did not come in time: it says what has it."""
        error: DeadlineExceeded = self._error(
            DeadlineExceeded, f"{verb} waited {deadline} for its turn: {self._writing.holder()}"
        )
        return error

    def _explained(self, error: Exception) -> BaseException:
        """Return the user's exception for what the steps of a reading verb raised."""
        if isinstance(error, readers.Mismatch):
            if self._probing:
                return ScriptMismatch(str(error))
            mismatch: ScriptMismatch = self._error(ScriptMismatch, str(error) + hint(cast("Connection", self)))
            return mismatch
        if isinstance(error, readers.EndedWithin):
            got = readers.came(self._stream.buffer)
            text = f"expected {error}\n  got {got}, and then the client {self._how_it_ended()}"
            incomplete: IncompleteRequest = self._error(IncompleteRequest, text)
            return incomplete
        text = f"expected {error}, but the client {self._how_it_ended()}"
        self._stream.quiet_end = EndOfStream(f"{self._where()}: {text}")
        self._stream.quiet_end.summary = text
        return self._stream.quiet_end

    def _how_it_ended(self) -> str:
        return "reset the connection" if self._tape.peer_error else "ended its stream"

    # For its server

    def _unread_by_verbs(self) -> bool:
        """Whether this is a live stream that no verb reads."""
        return (self._mode == "sunk" or self._is_raw()) and self._tape.ended_by is None and self._framing is None

    def _is_raw(self) -> bool:
        """Whether a handler class has the socket."""
        return self._responder is not None and self._responder.is_raw

    def _may_be_answered(self) -> bool:
        """Whether the client, who may have ended its half, can still read a reply."""
        return self.closed_by is None or (self.closed_by == "client" and self._tape.ended_how == "closed")

    def _cut_frames(self) -> None:
        """Let what is received become requests, frame by frame, where no verb reads.  The recorder's lock is held."""
        if self._framing is not None:
            self._cutting = Cutting(cast("Connection", self), self._framing)
            self._tape.uncut = self._cutting.queue
            self._tape.tap = self._cutting.cut if self._is_raw() else None

    def _cut_no_frames(self) -> None:
        """Leave what is received to verbs from now on.  The recorder's lock is held."""
        self._cutting = self._tape.uncut = self._tape.tap = None

    def _cut_what_came(self) -> None:
        """Make requests of the frames that have come whole, without a lock; in the thread that has received them."""
        cutting = self._cutting
        if cutting is not None:
            cutting.cut_beside()

    def _keep_whole_stream(self) -> None:
        """Make requests of what was received and no verb has read: its last frame, without framing all of it."""
        cutting = self._cutting
        if cutting is not None:
            cutting.end()
            return cutting.cut() if self._is_raw() else cutting.cut_beside()
        with self._tape.recorder.lock:
            if not self._tape.recorder.dropped and self._tape.received_count:
                self._request(self._tape.joined(RECEIVED))

    def _end_frames(self) -> None:
        """End the frames of a connection that the sink reads, because the server stops; wait for no framing."""
        cutting = self._cutting
        if cutting is not None and self._mode == "sunk":
            cutting.end()
            cutting.cut_beside(0)

    def _cut_off(self) -> None:
        """End it, because the server stops; what has arrived for a reader that is not reading is recorded first."""
        if self._mode != "handled" and self._reader.acquire(blocking=False):
            try:
                self._stream.take_the_rest()
            finally:
                self._reader.release()
        self._stream.cut(THE_SERVER_STOPS)

    def _finish(self) -> None:
        """Close what no thread of ours closes: connections of the sink and of the test."""
        if self._mode == "handled" or self._stream.detached:
            return
        for _ in self._stream.close(notify=False):
            pass  # it was cut, so nothing is waited for
        if self._mode == "sunk" and not self._done and not self._stream.buffer.ended:  # else the sink has kept it
            self._keep_whole_stream()
        self._done = True


def _named(verb: str, wanted: Any) -> str:
    """Return what a verb waits for, in words."""
    if isinstance(wanted, (str, Lack)):
        return str(wanted)
    if verb == "expect_line":
        return matching("a line", wanted)
    return described(wanted) if is_literal(wanted) else matching("a frame", wanted)


def _nobody_answers(connection: Connection) -> None:
    """Stand in for what answers by rules, until the server has handed it over."""
