"""What becomes of a connection that a server of streams has accepted: who drives it, and what ends it.

The loop's thread admits it; one that something was declared for, and each that begins with TLS, has a thread of its
own.  A TLS handshake comes before all that: which script, handler or rule a connection takes is chosen when it is done,
so that a client whose handshake fails takes nothing away from the next one.
"""

from __future__ import annotations

import socket
import threading
from functools import partial
from typing import Any, Final

from ..connection.conversation import Conversation
from ..connection.probes import Probes, has_left_in_silence, left_in_silence, note_probe
from ..errors.exceptions import UnsupportedFault
from ..errors.location import hide_frame
from ..originals import current_thread, original
from ..recording.recorder import BUSY, Tape
from ..responders.declarations import Declarations
from ..responders.responder import NoResponderLeft, ReadOnly, RefuseConnection, Responder, begin_tls, perform
from ..responders.rulebook import RuleBook
from ..scripting.arguments import checked_index
from ..scripting.effects import Close, Reset
from ..scripting.framing import Framing
from ..scripting.parts import Part, check_fit, checked_parts
from .listener import Listening
from .loop import adopt, connection_of
from .reader import Sink
from .timers import Expiry

__tracebackhide__ = hide_frame


#: Seconds.  Whoever drives a connection that was ended from outside lets go of it for so long at most: he is woken at
#: once, and may have something else to do first.
_LETTING_GO: Final = 0.1


class Admitting(Listening):
    """The part of a server of streams that admits connections."""

    _declarations: Declarations
    _handshakes: RuleBook | None
    _framing: Framing | None
    # Guarded by the recorder's lock:
    _connections: list[Conversation]
    _live: dict[Conversation, None]  # those that are not over, cleared from the record or not; ordered
    _untaken: list[Conversation]  # undeclared, and not accepted by the test
    _refused: list[Conversation]  # whose handshake failed, and no accept() was told
    _limit: tuple[int, RefuseConnection] | None
    _expiry: Expiry | None  # what ends a connection after a time
    _framers: list[threading.Thread]  # threads that run framings of the user's
    _probes: Probes

    def _reader(self) -> Sink:
        raise NotImplementedError

    def _connection_for(self, tape: Tape) -> Conversation:
        raise NotImplementedError

    # Faults

    def disconnect(self, *, reset: bool = False) -> None:
        if reset and self._place is not None:
            raise UnsupportedFault("a unix stream cannot be reset: its client would see a plain end of stream")
        with self._recorder.lock:
            live = [each for each in self._live if each.tape.ended_by is None]
        for connection in live:
            connection.end_from_outside(reset=reset)
        # A thread that stands in poll() holds its socket until it has woken: only then the client is told of a reset.
        driven = [each for each in live if each.mode == "handled" and each.thread is not current_thread()]
        with self._recorder.lock:
            until = original.monotonic() + _LETTING_GO
            while not all(each.done for each in driven) and (left := until - original.monotonic()) > 0:
                self._recorder.sleep(left)

    disconnect.__doc__ = Listening.disconnect.__doc__

    def limit_connections(self, most: int | None, *parts: Part) -> None:
        """Let at most so many connections be open at once; whoever comes then is answered by ``parts`` and dropped.

        Args:
            most: ``None`` for any number again.
            parts: ``Reset()`` unless given, on a unix socket ``Close()``.

        Raises:
            TypeError, ValueError: ``most`` is no number of connections, or a part is none.
            UnsupportedFault: The transport cannot do a part.
        """
        if most is None:
            self._limit = None
            return
        checked_index(most, "limit_connections() expected a number of connections, 0 or more", least=0)
        usual: Part = Close() if self._place is not None else Reset()
        checked = checked_parts(parts or (usual,), "limit_connections()")
        transport = "tcp" if self.transport == "tls" else self.transport  # before any handshake
        check_fit(checked, transport, "limit_connections()", tls=self.options.tls is not None)
        self._limit = most, RefuseConnection(checked)

    def _end_later(self, connection: Conversation, seconds: float, *, reset: bool) -> None:
        """End a connection after a time, whatever drives it."""
        with self._recorder.lock:
            if self._expiry is None:
                self._expiry = Expiry(f"sockserver {self._label()} clock", self._failures.add)
        self._expiry.after(seconds, partial(_end_if_there, connection, reset))

    # Called by the framework, in the loop's thread

    def _admit(self, accepted: socket.socket, address: Any) -> Any:
        """Make a connection of an accepted socket, and decide what drives it, in one step: nobody finds it in between.

        One that begins with TLS is decided about after its handshake.
        """
        if self._probes.look():
            self._give_waiting_connections()  # who came before goes first
        with self._recorder.lock:
            self._admitted += 1
            tape = self._recorder.add_tape(address)
            request: Any = adopt(accepted, self._connection_for, tape)
            connection = request.connection
        too_many = self._limit is not None and self.transport != "tls" and self._is_too_many(connection)
        with self._recorder.lock:
            self._connections.append(connection)
            self._live[connection] = None
            request.is_driven = self.transport == "tls" or self._decide(connection, too_many)
            self._recorder.changed()
        return request

    def _begin_tls(self, connection: Conversation) -> bool:
        """Answer a client's handshake, in the connection's thread; tell whether it may be driven now."""
        if self._limit is not None and self._is_too_many(connection):
            connection.responder = self._limit[1]
            perform(connection, self._limit[1], self._failures)
        elif begin_tls(connection, self._failures):
            return True
        connection.done = True
        with self._recorder.lock:
            self._live.pop(connection, None)
            if self._probes and connection.stream.silent:
                note_probe(connection.tape)
            elif connection.stream.tls is not None and connection.stream.tls.error is not None:
                self._refused.append(connection)
            self._recorder.changed()
        return False

    def _is_too_many(self, connection: Conversation) -> bool:
        """Whether it is one more than may be open at once."""
        assert self._limit is not None
        with self._recorder.lock:
            others = [each for each in self._live if each is not connection]
        return len([each for each in others if self._counts(each)]) >= self._limit[0]

    def _counts(self, connection: Conversation) -> bool:
        """Whether it is open, and not itself one too many."""
        if connection.tape.ended_by is not None or isinstance(connection.responder, RefuseConnection):
            return False
        return not (self._probes and has_left_in_silence(connection))

    def _is_driven(self, connection: Conversation) -> bool:
        """Give a connection whose handshake is done to what was declared; tell whether there was anything."""
        if self._probes.look():
            self._give_waiting_connections()  # who came before goes first
        with self._recorder.lock:
            return self._decide(connection, False)

    def _decide(self, connection: Conversation, too_many: bool) -> bool:
        """Give a connection to what was declared; else let it wait for that, or for ``accept()``.  The lock is held."""
        if too_many and self._limit is not None:
            connection.responder = self._limit[1]
            return True
        driver = self._declarations.drive(connection, call_is_over=self._over_since is not None)
        if driver is None and self._injections.received:
            connection.responder = driver = ReadOnly()
        if driver is None or driver.is_raw:
            connection.cut_frames()
        if driver is not None:
            return True
        connection.mode = "sunk"
        self._untaken.append(connection)
        self._recorder.changed()
        return False

    def _keep_framer(self, thread: threading.Thread) -> None:
        """Keep a thread that runs a framing, to be joined when the server stops."""
        with self._recorder.lock:
            self._framers = [*(each for each in self._framers if each.is_alive() or each.ident is None), thread]

    def _leave_to_accept(self, connection: Conversation) -> None:
        reader = self._reader()
        with connection.tape.lock:
            if connection.mode == "sunk":  # nobody was faster
                reader.feed(connection)

    def _give_waiting_connections(self) -> None:
        """Hand connections that came before what was declared now to it, with what they have said."""
        framework = self._framework
        self._probes.look()
        probes = self._probes_waiting()
        with self._recorder.lock:
            waiting = [each for each in self._untaken if each.may_be_answered()] if framework is not None else []
            waiting = [each for each in waiting if each not in probes]
            given: list[Conversation] = []
            gone: list[Any] = []  # let go without the lock
            for connection in waiting:
                if self._declarations.is_used_up:
                    break  # the next script may be declared a moment later
                self._untaken.remove(connection)
                given.append(connection)
                connection.cut_no_frames()
                connection.framing, connection.connected_before_declaration = self._framing, True
                connection.mode = "handled"  # at once: the sink would keep a stream that ends now as a request
                gone += self._recorder.forget_requests(connection.tape)  # of a stream that nobody was going to read
                driver = self._declarations.drive(connection, call_is_over=False)
                assert driver is not None
                if driver.is_raw:
                    connection.cut_frames()
        for connection in given:
            with connection.tape.lock:
                self._reader().release(connection)
                connection.tape.state = BUSY
            assert framework is not None
            framework.handle(connection)

    def _probes_waiting(self) -> list[Conversation]:
        """Return those of the connections that wait whose clients are probes."""
        with self._recorder.lock:
            waiting = list(self._untaken) if self._probes else []
        return [each for each in waiting if has_left_in_silence(each)]

    def _stream_over(self, connection: Conversation) -> None:
        """Keep what an undeclared connection sent, which has ended, as its one request.  In the sink's thread."""
        with self._recorder.lock:
            sunk = connection.mode == "sunk"
            cutting = connection.cutting if sunk else None
            if sunk and cutting is None:
                connection.keep_whole_stream()
                self._note_probe(connection)
            self._recorder.changed()
        if cutting is not None:  # without the lock: a framing is the user's code
            cutting.end()
            cutting.cut_beside()

    def _perform(self, connection: Conversation) -> None:
        """Run the connection's driver, in its thread."""
        if self.transport == "tls" and connection.responder is None:
            if not self._begin_tls(connection):
                return
            if not self._is_driven(connection):
                self._leave_to_accept(connection)
                return
        assert connection.responder is not None
        if self._probes and isinstance(connection.responder, NoResponderLeft):
            self._probes.next_for(connection, partial(self._driver_after_all, connection))
        try:
            perform(connection, connection.responder, self._failures)
        finally:
            connection.done = True
            self._note_probe(connection)
            given_back = self._probes.over(connection)
            with self._recorder.lock:
                if not connection.stream.detached:
                    self._live.pop(connection, None)
                self._recorder.changed()
            if given_back:
                self._give_waiting_connections()

    def _driver_after_all(self, connection: Conversation) -> Responder | None:
        """Return what is left for a connection by now, that nothing was left for."""
        with self._recorder.lock:
            driver = self._declarations.drive(connection, call_is_over=self._over_since is not None)
        return None if isinstance(driver, NoResponderLeft) else driver

    def _note_probe(self, connection: Conversation) -> None:
        if self._probes and left_in_silence(connection.tape):
            note_probe(connection.tape)

    def _could_not_begin(self, request: Any) -> None:
        """Keep why a connection's thread could not be started, and reset it."""
        super()._could_not_begin(request)
        connection = connection_of(request)
        connection.stream.reset_now()
        connection.done = True
        with self._recorder.lock:
            self._live.pop(connection, None)

    def _upset_all(self) -> None:
        with self._recorder.lock:
            live = list(self._live)
        for connection in live:
            connection.begin_fault_state()
            connection.interpose()
            connection.tape.bells.ring()  # what is under way is changed by it from its next byte on


def _end_if_there(connection: Conversation, reset: bool) -> None:
    if not connection.tape.gone:
        connection.end_from_outside(reset=reset)
