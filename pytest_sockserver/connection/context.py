"""What a conversation sees of its server: one object, the border between ``connection`` and what lies above it.

The server writes here, its conversations look.  What it has itself are parts that know no server (the record, failures,
gates, faults in force), and a few values.  The rest only the server's list of connections can do: calls are passed on
to that.

It has the list by a weak reference: a connection that a test keeps does not keep the server, nor the connections beside
it.  A list that is gone has no thread any more, so nothing is left that it could do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors.exceptions import InvalidState
from ..errors.location import hide_frame
from ..faults.active import Injections
from ..recording.demands import Demands
from ..recording.failures import Failures
from ..recording.recorder import Recorder
from .gates import Gates
from .probes import Probes

if TYPE_CHECKING:
    import socket
    import threading

    from ..scripting.framing import Framing
    from ..scripting.rules import Moment, Rule
    from .conversation import Conversation

__tracebackhide__ = hide_frame

# Rules:
#
# - What is written here is written by the server; a conversation only reads.  ``tls``, ``max_frame`` and the parts are
#   set once.  ``timeout`` and ``framing`` are copied by each conversation when it is made (``framing`` again when a
#   later declaration gets it), so that no connection changes under its reader.  ``state`` and ``is_over`` are read
#   without a lock where a stale value does no harm, and in a query under the recorder's lock, where the answer and
#   "nothing more will come" must be of one moment.
# - Nothing here waits for a client, and nothing here calls the user's code.
# - The parts know the recorder, and none of them knows the context, the server or a conversation's face.
#
# A call that is passed on may take the locks of tapes, of the sink and of the recorder, in that order.  So it is never
# made with the recorder's lock held.
#
# A list that is gone answers in one of two ways.  What only makes a wait shorter does nothing, or rings at once.  What
# the caller relies on (an end after a time, an answer by rules) raises: silence would be a fault that never comes.


class Handshakes(Protocol):
    """The rules for handshakes."""

    def greets(self, moment: Moment) -> bool:
        """Tell whether a rule is for that moment."""

    def greet(self, moment: Moment) -> tuple[Rule, int] | None:
        """Take the rule for a moment; return it, and how often it was taken with this time."""


class Reader(Protocol):
    """The thread that reads the connections which nothing drives, and watches sockets for event loops."""

    def watch(self, sock: Any, writes: bool, ring: Callable[[], None]) -> None:
        """Ring once when a socket is readable, or writable."""

    def unwatch(self, ring: Callable[[], None]) -> None:
        """Ring no more."""

    def feed(self, conversation: Conversation) -> None:
        """Begin to read a connection."""

    def release(self, conversation: Conversation) -> None:
        """Read it no more: when this returns, not one more byte is taken."""


class Keeper(Protocol):
    """The server's list of connections, as far as conversations ask it for something."""

    conversations: list[Conversation]
    framework: Any  # what a handler class finds as ``self.server``

    def reader(self) -> Reader:
        """Return the thread that reads, made with the first use."""

    def end_later(self, conversation: Conversation, seconds: float, *, reset: bool) -> None:
        """End a connection after a time, whatever drives it."""

    def hand_to_rules(self, conversation: Conversation, framing: Framing | None) -> None:
        """Let a connection that the test drives be answered by the rules, in a thread."""

    def keep_framer(self, thread: threading.Thread) -> None:
        """Keep a thread that runs a framing, to be joined when the server stops."""

    def check_declarations(self) -> None:
        """Raise the TypeError about what was declared and makes no sense without a framing."""

    def label(self) -> str:
        """Return what the names of the server's threads have in common."""


class Context:
    """A server, for its conversations.

    Attributes:
        name: The server's.
        transport: ``"tcp"``, ``"tls"``, ``"unix"``, ``"udp"`` or ``"unix_datagram"``.
        tls: What a handshake is done with unless it says otherwise; ``None`` if the server has none.
        max_frame: Bytes of a frame at most.
        timeout: Seconds that a wait, or a verb, may take; looked at when a connection comes.
        framing: Where one frame ends and the next begins; looked at when a connection comes.
        address_of: Returns the address at this end of a connection.
        recorder: The record, its lock, and who waits for it.
        failures: What went wrong.
        gates: Which are open.
        demands: What must happen before a test ends.
        injections: The faults in force.
        probes: What clients that leave in silence have used up.
        handshakes: The rules for handshakes, if there are any.
        state: ``"new"``, ``"started"``, ``"stopped"``, or in which way nobody can connect.
        is_over: Nothing more will come: the server stops, and has taken what had arrived.
    """

    handshakes: Handshakes | None = None
    framing: Framing | None = None
    state = "new"
    is_over = False
    _keeper: Callable[[], Keeper | None] = staticmethod(lambda: None)

    def __init__(
        self,
        name: str,
        transport: str,
        address_of: Callable[[socket.socket | None], Any],
        *,
        tls: Any,
        max_frame: int,
        timeout: float,
        record_limit: int,
        ignore_probes: bool,
    ) -> None:
        self.name, self.transport, self.address_of = name, transport, address_of
        self.tls, self.max_frame, self.timeout = tls, max_frame, timeout
        self.recorder = recorder = Recorder(record_limit)
        self.failures = Failures(recorder)
        self.gates = Gates(recorder)
        self.demands = Demands(recorder)
        self.injections = Injections(recorder, transport, self.demands)
        self.probes = Probes(recorder, ignored=ignore_probes)

    def is_kept_by(self, keeper: Keeper) -> None:
        """Pass on to this list what only that can do."""
        # Weak: see above.  The context outlives its server in each connection that a test keeps.
        self._keeper = weakref.ref(keeper)

    # Passed on

    def watch(self, sock: Any, writes: bool, ring: Callable[[], None]) -> None:
        """Ring once when a socket is readable, or writable; at once if the server is gone."""
        keeper = self._keeper()
        # So the coroutine looks again; nobody else would ring it before its deadline.
        if keeper is None:
            ring()
        else:
            keeper.reader().watch(sock, writes, ring)

    def unwatch(self, ring: Callable[[], None]) -> None:
        """Ring no more."""
        if (keeper := self._keeper()) is not None:
            keeper.reader().unwatch(ring)

    def read_ahead(self, conversation: Conversation) -> None:
        """Read a live connection while its test waits for something else than its bytes."""
        if (keeper := self._keeper()) is not None:
            keeper.reader().feed(conversation)

    def read_no_more(self, conversation: Conversation) -> None:
        """Leave a connection to its verbs."""
        if (keeper := self._keeper()) is not None:
            keeper.reader().release(conversation)

    def end_later(self, conversation: Conversation, seconds: float, *, reset: bool) -> None:
        """End a connection after a time, whatever drives it."""
        self._kept().end_later(conversation, seconds, reset=reset)

    def hand_to_rules(self, conversation: Conversation, framing: Framing | None) -> None:
        """Let a connection that the test drives be answered by the rules, in a thread."""
        self._kept().hand_to_rules(conversation, framing)

    def keep_framer(self, thread: threading.Thread) -> None:
        """Keep a thread that runs a framing, to be joined when the server stops."""
        if (keeper := self._keeper()) is not None:
            keeper.keep_framer(thread)

    def check_declarations(self) -> None:
        """Raise the TypeError about what was declared and makes no sense without a framing."""
        if (keeper := self._keeper()) is not None:
            keeper.check_declarations()

    def earlier(self, conversation: Conversation) -> Sequence[Conversation]:
        """Return the connections that came before one."""
        keeper = self._keeper()
        return () if keeper is None else keeper.conversations[: conversation.index]

    @property
    def framework(self) -> Any:
        """What a handler class finds as ``self.server``."""
        return self._kept().framework

    @property
    def label(self) -> str:
        """What the names of the server's threads have in common."""
        keeper = self._keeper()
        return self.transport if keeper is None else keeper.label()

    def let_go(self) -> None:
        """Undo the circles among its parts: the server is gone, and nobody but its connections asks any more."""
        self.injections.let_go()
        self.demands.let_go()
        self.failures.let_go()
        self.recorder.let_go()

    def _kept(self) -> Keeper:
        keeper = self._keeper()
        if keeper is None:
            raise InvalidState(f"{self.name} is gone: nobody has kept it")
        return keeper
