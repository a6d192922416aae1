"""The connections of a server of streams: what becomes of one that was accepted, who drives it, and what ends it.

The loop's thread admits it; one that something was declared for, and each that begins with TLS, has a thread of its
own.  A TLS handshake comes before all that: which script, handler or rule a connection takes is chosen when it is done,
so that a client whose handshake fails takes nothing away from the next one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..connection import transcript
from ..connection.connection import Connection
from ..connection.context import Context
from ..connection.conversation import Conversation, Responder
from ..connection.probes import has_left_in_silence, left_in_silence, note_probe
from ..errors.exceptions import InvalidState, UnsupportedFault
from ..errors.location import hide_frame
from ..originals import current_thread, original
from ..recording.failures import Failure
from ..recording.recorder import BUSY, Tape
from ..responders.declarations import Declarations
from ..responders.responder import (
    AnswerRest,
    NoResponderLeft,
    ReadOnly,
    RefuseConnection,
    begin_tls,
    perform,
)
from ..responders.rulebook import RuleBook
from ..scripting.arguments import checked_index
from ..scripting.effects import Close, Reset
from ..scripting.framing import Framing, checked_framing
from ..scripting.parts import Part, check_fit, checked_parts
from ..transport.listener import Listener
from ..transport.published import Published
from ..transport.tapped_socket import ready
from .idle import connection_idle
from .loop import AcceptingServer, adopt, connection_of
from .losses import with_losses
from .traffic import Traffic

if TYPE_CHECKING:
    from .reader import Sink
    from .timers import Expiry

__tracebackhide__ = hide_frame

# What becomes of a connection is in `mode`, `responder` and `done`:
#
# - `handled`: a thread of the server drives it.  This is the first mode, and for most connections the only one.
# - `sunk`: nothing was declared for it.  The sink reads it, and it stands in `untaken`.
# - `live`: the test accepted it.  Only the verbs that the test calls read it, and the server for the length of a
#   `reading_all` block.
#
# `_decide` makes `sunk` of `handled`.  `give_waiting` makes `handled` of `sunk`, when something is declared.
# `untaken_connection` takes a connection out of `untaken`, and `accepted` makes it `live`.  `hand_to_rules` makes
# `handled` of `live`.  `done` becomes true when the driver has ended, or at the stop, and never false again.
#
# A connection is removed from `untaken` under the recorder's lock before its mode changes.  So an accept() and a
# declaration at the same moment cannot both have it.
#
# What takes a connection away from the sink does so under the tape's lock, since the sink reads under it: a byte that
# the sink took after that would be missing for the new reader, or come in the wrong order.
#
# `live` has what is not over; `conversations` has what the record shows. clear() empties the second and not the first:
# a stop must still end those connections.  They wait in `_forgotten` until their driver ends, and are then freed.
#
# Not done: a connection that nothing was declared for is not closed because the test does not accept it.  It is read,
# and ends with the server.


#: Seconds.  So long disconnect() waits for the threads of connections that it has ended: each is woken at once, and may
#: have something else to do before it lets go of its socket.
_LETTING_GO: Final = 0.1


class ConnectionList(Traffic):
    """The connections of one server of streams, and what was declared for them.

    Attributes:
        declarations: What was declared.
        conversations: Those so far, in order of arrival.  Guarded by the recorder's lock, as all below is.
        live: Those that are not over, cleared from the record or not; ordered.
        untaken: Those that nothing was declared for, and that the test has not accepted.
        refused: Those whose handshake failed, and no ``accept()`` was told.
        framers: Threads that run framings of the user's.
        admitted: How many there were ever.
    """

    framework: AcceptingServer | None = None
    admitted = 0
    _limit: tuple[int, RefuseConnection] | None = None
    _sink: Sink | None = None  # made with the first use, as the next is
    _expiry: Expiry | None = None  # what ends a connection after a time

    def __init__(self, context: Context, published: Published, listener: Listener, book: RuleBook) -> None:
        super().__init__(context, published, "accept()")
        self.listener = listener
        self.declarations = Declarations(book, context.probes, context.demands)
        self.conversations: list[Conversation] = []
        self.live: dict[Conversation, None] = {}
        self.untaken: list[Conversation] = []
        self.refused: list[Conversation] = []
        self.framers: list[threading.Thread] = []
        self._forgotten: dict[Conversation, None] = {}  # those that were open when the record was cleared
        self._recorder, self._probes = context.recorder, context.probes
        context.is_kept_by(self)

    def clear(self) -> tuple[list[object], list[Conversation], list[Conversation]]:
        """Forget what was declared and the connections; open ones stay open.  The recorder's lock must be held.

        Returns:
            What is to be done without the lock: what is to be let go, the connections that are to be finished, and
            those whose circles are to be undone.
        """
        before, self.conversations = self.conversations, []
        gone: list[object] = [*self.declarations.clear(), self._limit, before]
        self._limit = None
        over = [each for each in self.untaken if each.tape.ended_by is not None]
        for connection in over:
            self.untaken.remove(connection)
            del self.live[connection]
        done = {each for each in before if each.done and not each.stream.detached} | {*over}
        self._forgotten.update(dict.fromkeys(each for each in before if each not in done))
        return gone, over, [*done]

    def let_go(self) -> None:
        super().let_go()
        self._sink = self._expiry = None
        for conversation in (*self.conversations, *self._forgotten):
            conversation.let_go()

    # Ending from outside

    def disconnect(self, *, reset: bool) -> None:
        """End all connections from outside of what drives them."""
        if reset and self.published.place is not None:
            raise UnsupportedFault("a unix stream cannot be reset: its client would see a plain end of stream")
        with self._recorder.lock:
            live = [each for each in self.live if each.tape.ended_by is None]
        for connection in live:
            connection.end_from_outside(reset=reset)
        # A thread in poll() holds its socket open until it has woken: only then does the kernel send the reset.
        driven = [each for each in live if each.mode == "handled" and each.thread is not current_thread()]
        with self._recorder.lock:
            until = original.monotonic() + _LETTING_GO
            while not all(each.done for each in driven) and (left := until - original.monotonic()) > 0:
                self._recorder.sleep(left)

    def limit(self, most: int | None, parts: tuple[Part, ...]) -> None:
        """Let at most so many connections be open at once."""
        if most is None:
            self._limit = None
            return
        checked_index(most, "limit_connections() expected a number of connections, 0 or more", least=0)
        usual: Part = Close() if self.published.place is not None else Reset()
        checked = checked_parts(parts or (usual,), "limit_connections()")
        transport = "tcp" if self.context.transport == "tls" else self.context.transport  # before any handshake
        check_fit(checked, transport, "limit_connections()", tls=self.context.tls is not None)
        self._limit = most, RefuseConnection(checked)

    def end_later(self, conversation: Conversation, seconds: float, *, reset: bool) -> None:
        """End a connection after a time, whatever drives it."""
        from .timers import Expiry

        with self._recorder.lock:
            if self._expiry is None:
                self._expiry = Expiry(f"sockserver {self.label()} clock", self.context.failures.add)
        self._expiry.after(seconds, partial(_end_if_there, conversation, reset))

    def disturb_all(self) -> None:
        """Let the connections that there are look for injections."""
        with self._recorder.lock:
            live = list(self.live)
        for connection in live:
            connection.begin_fault_state()
            connection.interpose()
            connection.tape.bells.ring()  # what is under way is changed by it from its next byte on

    # Called by the framework, in the loop's thread

    def admit(self, accepted: socket.socket, address: Any) -> Any:
        """Make a connection of an accepted socket, and decide what drives it, in one step: nobody finds it in between.

        One that begins with TLS is decided about after its handshake.
        """
        if self._probes.look():
            self.give_waiting()  # who came before goes first
        with self._recorder.lock:
            self.admitted += 1
            tape = self._recorder.add_tape(address)
            request: Any = adopt(accepted, self._conversation_for, tape)
            connection = request.connection
        # Without the lock: to ask whether another connection is a probe looks at its socket, and may wait until its
        # thread has noted what it received.  `taking` covers the gap, in which this one is in neither the queue nor the
        # list.
        too_many = self.context.transport != "tls" and self._is_too_many(connection)
        with self._recorder.lock:
            self.conversations.append(connection)
            self.live[connection] = None
            request.is_driven = self.context.transport == "tls" or self._decide(connection, too_many)
            self._recorder.changed()
        return request

    def _conversation_for(self, tape: Tape) -> Conversation:
        conversation = Conversation(tape, self.context, Connection)
        conversation.answer_by_rules = self.declarations.rules.answer_all
        return conversation

    def _begin_tls(self, connection: Conversation) -> bool:
        """Answer a client's handshake, in the connection's thread; tell whether it may be driven now."""
        failures = self.context.failures
        limit = self._limit  # read once: clear() may take it away
        if limit is not None and self._is_too_many(connection):
            connection.responder = limit[1]
            perform(connection, limit[1], failures)
        elif begin_tls(connection, failures):
            return True
        connection.done = True
        with self._recorder.lock:
            self.live.pop(connection, None)
            if self._probes and connection.stream.silent:
                note_probe(connection.tape)
            elif connection.stream.tls is not None and connection.stream.tls.error is not None:
                self.refused.append(connection)
            self._recorder.changed()
        return False

    def _is_too_many(self, connection: Conversation) -> bool:
        """Whether it is one more than may be open at once."""
        limit = self._limit
        if limit is None:
            return False
        with self._recorder.lock:
            others = [each for each in self.live if each is not connection]
        return len([each for each in others if self._counts(each)]) >= limit[0]

    def _counts(self, connection: Conversation) -> bool:
        """Whether it is open, and not itself one too many."""
        if connection.tape.ended_by is not None or isinstance(connection.responder, RefuseConnection):
            return False
        return not (self._probes and has_left_in_silence(connection))

    def is_driven(self, connection: Conversation) -> bool:
        """Give a connection whose handshake is done to what was declared; tell whether there was anything."""
        if self._probes.look():
            self.give_waiting()  # who came before goes first
        with self._recorder.lock:
            return self._decide(connection, False)

    def _decide(self, connection: Conversation, too_many: bool) -> bool:
        """Give a connection to what was declared; else let it wait for that, or for ``accept()``.  The lock is held."""
        if too_many and self._limit is not None:
            connection.responder = self._limit[1]
            return True
        driver = self.declarations.drive(connection, call_is_over=self.context.failures.times.over_since is not None)
        if driver is None and self.context.injections.received:
            connection.responder = driver = ReadOnly()
        if driver is None or driver.is_raw:
            connection.cut_frames()
        if driver is not None:
            return True
        connection.mode = "sunk"
        self.untaken.append(connection)
        self._recorder.changed()
        return False

    def perform(self, connection: Conversation) -> None:
        """Run the connection's driver, in its thread."""
        if self.context.transport == "tls" and connection.responder is None:
            if not self._begin_tls(connection):
                return
            if not self.is_driven(connection):
                self.leave_to_accept(connection)
                return
        assert connection.responder is not None
        if self._probes and isinstance(connection.responder, NoResponderLeft):
            self._probes.next_for(connection, partial(self._driver_after_all, connection))
        try:
            perform(connection, connection.responder, self.context.failures)
        finally:
            connection.done = True
            self._note_probe(connection)
            given_back = self._probes.over(connection)
            with self._recorder.lock:
                if not connection.stream.detached:
                    # In one step with the change that wakes a disconnect(), which finds `done` set already.
                    self.live.pop(connection, None)
                self._recorder.changed()
            if given_back:
                self.give_waiting()
            if connection.stream.quiet_end is not None or connection.tape.peer_error is not None:
                connection.forget_frames()
            # `done` was set before this look.  A clear() before that has left the connection here; a later one counts
            # it as over by itself.  So one of the two lets it go.
            if connection in self._forgotten and not connection.stream.detached:
                del self._forgotten[connection]
                connection.let_go()

    def _driver_after_all(self, connection: Conversation) -> Responder | None:
        """Return what is left for a connection by now, that nothing was left for."""
        with self._recorder.lock:
            over_since = self.context.failures.times.over_since
            driver = self.declarations.drive(connection, call_is_over=over_since is not None)
        return None if isinstance(driver, NoResponderLeft) else driver

    def could_not_begin(self, request: Any) -> None:
        """Keep why a connection's thread could not be started, and reset it."""
        super().could_not_begin(request)
        connection = connection_of(request)
        connection.stream.reset_now()
        connection.done = True
        with self._recorder.lock:
            self.live.pop(connection, None)

    # Those that nothing was declared for

    def reader(self) -> Sink:
        """Return the thread that reads them, made with the first use."""
        from .reader import Sink  # here, as the next: most servers need neither

        with self._recorder.lock:
            if self._sink is None:
                self._sink = Sink(f"sockserver {self.label()} reader", self._stream_over, self.context.failures.add)
            return self._sink

    def leave_to_accept(self, connection: Conversation) -> None:
        """Read a connection until somebody accepts it, or declares something."""
        reader = self.reader()
        with connection.tape.lock:
            if connection.mode == "sunk":  # nobody was faster
                reader.feed(connection)

    def give_waiting(self) -> None:
        """Hand connections that came before what was declared now to it, with what they have said."""
        framework = self.framework
        self._probes.look()
        probes = self._probes_waiting()
        with self._recorder.lock:
            waiting = [each for each in self.untaken if each.may_be_answered()] if framework is not None else []
            waiting = [each for each in waiting if each not in probes]
            given: list[Conversation] = []
            gone: list[Any] = []  # let go without the lock
            for connection in waiting:
                # Asked anew for each: each connection that is given away may take the last script that is left.
                if self.declarations.is_used_up:
                    break  # the next script may be declared a moment later
                self.untaken.remove(connection)
                given.append(connection)
                connection.cut_no_frames()
                connection.framing, connection.connected_before_declaration = self.context.framing, True
                connection.mode = "handled"  # at once: the sink would keep a stream that ends now as a request
                gone += self._recorder.forget_requests(connection.tape)  # of a stream that nobody was going to read
                driver = self.declarations.drive(connection, call_is_over=False)
                assert driver is not None
                if driver.is_raw:
                    connection.cut_frames()
        for connection in given:
            # Only after the recorder's lock is released: the tape's lock stands before it in the order.
            with connection.tape.lock:
                self.reader().release(connection)
                connection.tape.state = BUSY
            assert framework is not None
            framework.handle(connection)

    def _probes_waiting(self) -> list[Conversation]:
        """Return those of the connections that wait whose clients are probes."""
        with self._recorder.lock:
            waiting = list(self.untaken) if self._probes else []
        return [each for each in waiting if has_left_in_silence(each)]

    def _stream_over(self, connection: Conversation) -> None:
        """Keep what an undeclared connection sent, which has ended, as its one request.  In the sink's thread."""
        with self._recorder.lock:
            sunk = connection.mode == "sunk"
            cutting = connection.cutting if sunk else None
            # An accept() may have come between the last read and here; then the stream is the test's, and no request.
            if sunk and cutting is None:
                connection.keep_whole_stream()
                self._note_probe(connection)
            self._recorder.changed()
        if cutting is not None:  # without the lock: a framing is the user's code
            cutting.end()
            cutting.cut_beside()

    def _note_probe(self, connection: Conversation) -> None:
        if self._probes and left_in_silence(connection.tape):
            note_probe(connection.tape)

    def keep_framer(self, thread: threading.Thread) -> None:
        """Keep a thread that runs a framing, to be joined when the server stops."""
        with self._recorder.lock:
            self.framers = [*(each for each in self.framers if each.is_alive() or each.ident is None), thread]

    # Those that the test drives

    def accepted(self, connection: Conversation) -> Conversation:
        """Hand a connection over from the sink to the test."""
        reader = self.reader()
        with connection.tape.lock:  # the loop's thread may be about to hand it to the sink
            reader.release(connection)
            connection.mode = "live"
        with self._recorder.lock:
            connection.cut_no_frames()
            gone = self._recorder.forget_requests(connection.tape)  # its frames; the test reads them anew
        del gone  # without the lock
        connection.waits_for_start = False
        return connection

    def hand_to_rules(self, conversation: Conversation, framing: Framing | None) -> None:
        """Let a connection that the test drives be answered by the rules, in a thread."""
        framework = self.framework
        assert framework is not None
        conversation.refuse_unreadable("rules")
        if conversation.mode == "handled":
            raise InvalidState(f"cannot rules() on connection {conversation.index}: a thread of the server drives it")
        conversation.framing = checked_framing(framing, conversation.max_frame) or conversation.framing
        self.declarations.rules.check(conversation.framing)
        conversation.stream.socket_for("answer by rules")
        with self._recorder.lock:
            conversation.responder, conversation.mode = AnswerRest(self.declarations.rules), "handled"
            conversation.waits_for_start = True
        conversation.tape.state = BUSY
        framework.handle(conversation)

    @contextlib.contextmanager
    def reading_all(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for connection in list(self.conversations):
                if connection.mode == "live":
                    stack.enter_context(connection.read_meanwhile())
            yield

    def refuse_unframed(self, verb: str) -> None:
        unread = [each for each in self.conversations if each.is_unread_by_verbs() and each.tape.received_count]
        if unread:
            raise TypeError(
                f"{verb}() waits for requests, but connection {unread[0].index} of {self.context.name} is a stream "
                "that is still open and that no verb reads: where its requests end cannot be told.  Wait for its bytes "
                f"with server.connections[{unread[0].index}].wait_received(...), or declare a handler"
            )

    def check_declarations(self) -> None:
        if self.context.framing is None:
            self.declarations.check_unframed()

    # Asked by the verdict

    def is_idle(self) -> bool:
        framework = self.framework
        assert framework is not None
        try:
            if self.context.state == "started" and ready(framework.socket, False, 0):
                return False
        except (OSError, ValueError):
            return False  # closed at this moment: it is being stopped
        if framework.taking:
            return False
        with self._recorder.lock:
            live = list(self.live)
        return all(connection_idle(connection) for connection in live)

    def has_open_connection(self) -> bool:
        with self._recorder.lock:
            return any(connection.tape.ended_by is None for connection in self.live)

    def left_waiting(self) -> list[Failure]:
        with self._recorder.lock:
            waiting = (
                [each for each in self.untaken if each.tape.ended_by is None] if self.declarations.is_used_up else []
            )
            self.untaken = [each for each in self.untaken if each not in waiting]
            nobody = self.declarations.unexpected(call_is_over=False) if waiting else None
        return [Failure(nobody.error(each), each.where()) for each in waiting if nobody is not None]

    def remarks(self) -> list[str]:
        began = self.context.failures.times.began
        live = [each for each in list(self.conversations) if each.tape.ended_by is None and each.tape.began >= began]
        standing = [(each.index, text) for each in live if (text := self.declarations.standing(each)) is not None]
        return [f"# {text} (connection {index})" for index, text in standing[:3]]

    def past_injections(self) -> str:
        with self._recorder.lock:
            away = [each for each in self.conversations if each.stream.detached or each.tape.handed_over is not None]
        return (
            f"\n  connection {away[0].index} was detached: no fault is injected into what its socket sends and receives"
            if away
            else ""
        )

    def said(self) -> str:
        said = [transcript.head(each.tape) + "\n" + transcript.so_far(each.tape) for each in self.conversations[-3:]]
        nothing = f"nobody has connected {self._recorder.since().lstrip() or 'so far'}"
        return with_losses("\n".join(said) if said else nothing, self.losses())

    # Asked by the life cycle

    def begin(self) -> None:
        """Begin a further life."""
        self._sink = self._expiry = None

    def is_drained(self) -> bool:
        """Tell whether the connections of other threads than this one are idle."""
        current = current_thread()
        with self._recorder.lock:
            live = list(self.live)
        return all(each.thread is current or connection_idle(each) for each in live)

    def wait_no_longer(self) -> None:
        """Leave no connection to an ``accept()``."""
        with self._recorder.lock:
            self.untaken = []

    def cut_off(self) -> list[Conversation]:
        """Cut every live connection, because the server stops; return them."""
        with self._recorder.lock:
            live = list(self.live)
        for connection in live:
            connection.cut_off()
        return live

    def let_go_of_live(self) -> None:
        """List no connection as live any more."""
        with self._recorder.lock:
            self.live.clear()

    def close_helpers(self) -> list[threading.Thread | None]:
        """End the threads that read and that keep time; return them, to be joined."""
        reader = self._sink.close() if self._sink is not None else None
        clock = self._expiry.close() if self._expiry is not None else None
        return [reader, clock]

    def close_in_child(self) -> None:
        """In a forked child: close copies, shut nothing down, join nothing, take no lock."""
        if self.framework is not None:
            self.framework.close_in_child()
        if self._sink is not None:
            self._sink.close_in_child()
        self.listener.close_fillers()
        for connection in list(self.live):
            sock = connection.tape.socket
            if sock is not None:
                sock.tape = None
                sock.close()

    def threads(self) -> list[threading.Thread | None]:
        """Return the threads of connections."""
        with self._recorder.lock:
            live = [*(each.thread for each in self.live), *self.framers]
        return [*live, *(self.framework.request_threads() if self.framework is not None else ())]


def _end_if_there(conversation: Conversation, reset: bool) -> None:
    if not conversation.tape.gone:
        conversation.end_from_outside(reset=reset)
