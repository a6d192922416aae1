"""A server of streams: TCP, and unix sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..connection import transcript
from ..connection.connection import Connection
from ..connection.conversation import Conversation
from ..connection.deadline import Deadline
from ..connection.probes import Probes
from ..connection.queries import block
from ..connection.request import Value
from ..errors.exceptions import InvalidState
from ..errors.location import hide_frame
from ..originals import current_thread, original
from ..recording.demands import Demand, Period
from ..recording.failures import Failure
from ..recording.recorder import BUSY, Tape
from ..responders.declarations import Declarations
from ..responders.handler import Handler
from ..responders.responder import AnswerRest, RefuseConnection, Rules
from ..responders.rulebook import On, RuleBook
from ..responders.script_run import DeclaredScript
from ..scripting.framing import Framing, checked_framing, may_be_empty
from ..scripting.rules import HANDSHAKE, RuleMatch
from ..scripting.script import Script
from ..scripting.times import checked_times
from ..transport.client_trust import Trust
from ..transport.tapped_socket import ready
from . import life_cycle, queries
from .base import H
from .connection_list import Admitting
from .loop import AcceptingServer
from .losses import with_losses
from .reader import Sink
from .timers import Expiry

#: Seconds.  A stop accepts what is queued for so long at most: clients that come back at once would never let it end.
_ACCEPTING = 0.25

if TYPE_CHECKING:
    import ssl

__tracebackhide__ = hide_frame


class StreamTestServer(Admitting):
    """A server of streams: TCP, a unix socket with ``transport="unix"``, TLS from the first byte with ``"tls"``."""

    _kind = socket.SOCK_STREAM
    _handler_argument = "a Connection"

    _trust: Trust | None = None  # made when it is asked for
    _handshakes: RuleBook | None = None  # the rules for handshakes, if there are any
    _limit: tuple[int, RefuseConnection] | None = None
    _expiry: Expiry | None = None  # what ends a connection after a time
    _framework: AcceptingServer | None = None
    _admitted = 0  # connections ever, cleared from the record or not
    _sink: Sink | None = None

    def __init__(self, *, transport: str = "tcp", **options: Any) -> None:
        if transport not in ("tcp", "tls", "unix"):
            raise ValueError(f"transport must be 'tcp', 'tls' or 'unix', not {transport!r}")
        super().__init__(transport, {"tls": True, **options} if transport == "tls" else options)
        self._refused: list[Conversation] = []  # whose handshake failed, and no accept() was told; under the lock
        self._framers: list[threading.Thread] = []  # threads that run framings of the user's; under the lock
        self._fillers: list[socket.socket] = []
        self.framing = self.options.framing
        self._probes = Probes(self._recorder, ignored=self.options.ignore_probes)
        self._declarations = Declarations(self._book, self._probes, self._demands)
        self._connections: list[Conversation] = []  # guarded by the recorder's lock, as the next two are
        self._live: dict[Conversation, None] = {}  # those that are not over, cleared from the record or not; ordered
        self._untaken: list[Conversation] = []  # undeclared, and not accepted by the test

    @property
    def connections(self) -> list[Connection]:
        """The connections so far, in order of arrival: a snapshot."""
        with self._recorder.lock:
            return [each.face for each in self._connections]

    @property
    def framing(self) -> Framing | None:
        """Where one frame ends and the next begins; looked at when a connection comes."""
        return self._framing

    @framing.setter
    def framing(self, framing: Framing | None) -> None:
        self._framing = checked_framing(framing, self.options.max_frame)

    # Declaring

    def handler(self, target: H) -> H:
        """Declare what answers from now on; a decorator, also callable with a function or a class.

        Connections that are waiting already, because their client was faster, are answered as well.

        Args:
            target: A function of a :class:`Connection`, or a ``BaseRequestHandler`` subclass, of
                ``socketserver`` or of ``pytest_sockserver.socketserver``.  The latest declared counts.

        Raises:
            TypeError: It cannot be called like that, or is async or a generator.
        """
        handler = Handler(target, self._handler_argument)
        with self._recorder.lock:
            before, self._declarations.handler = self._declarations.handler, handler
        del before  # without the lock, as above
        self._give_waiting_connections()
        return target

    def on(self, match: RuleMatch, times: int | tuple[int, int | None] | None = None) -> On:
        if match is HANDSHAKE:
            if self.options.tls is None:
                raise TypeError(
                    "on() expected HANDSHAKE on a server that speaks TLS: tls_server, or one with tls=True, "
                    "whose connections begin it by StartTLS()"
                )
            with self._recorder.lock:
                if self._handshakes is None:
                    plain = "unix" if self._place is not None else "tcp"
                    self._handshakes = RuleBook(self._recorder, plain, tls=True, demands=self._demands)
            return self._handshakes.declare(match, times)
        declared = super().on(match, times)
        self._give_waiting_connections()
        return declared

    on.__doc__ = Admitting.on.__doc__

    def _may_be_empty(self) -> bool:
        return self._framing is not None and may_be_empty(self._framing)

    def script(self, times: int | tuple[int, int | None] | None = 1) -> Script:
        """Return a script, empty so far: an ordered conversation for the next connection that has none yet.

        Its verbs are those of a connection, deferred.  Whatever departs from it fails the test, and so does what it
        demands and never comes.  After its last step the rules answer, if there are any; else the client may but close.

        Args:
            times: For how many connections it is: exactly so many, ``(least, most)``, or ``None`` for all that follow.

        Raises:
            TypeError, ValueError: ``times`` is no number of times.
        """
        checked, script = checked_times(times), self._new_script()
        self._declare(DeclaredScript(script, checked, self._declarations.rules, {}, self._recorder))
        return script

    def dialogue(self, text: str | os.PathLike[str], *, timed: bool = False, **values: Value) -> None:
        """Declare the conversation that a text describes, in the notation of dialogues.

        Args:
            text: The text; or the path of a file that has it, relative to the test's own.
            timed: What the server says leaves no earlier than its line's ``[seconds]``.
            values: Further names for ``\\g<name>``: bytes, or functions of the connection that return bytes.

        Raises:
            DialogueError: A line cannot be read: its number, the line, and what was expected.
        """
        dialogue = self._parsed(text, values, timed=timed)
        for section, times in [
            *((each, 1) for each in dialogue.sections),
            *((each, None) for each in (dialogue.rest,)),
        ]:
            if section is None:
                continue
            chatter = RuleBook(self._recorder, self.transport)
            for each in section.exchanges:
                chatter.add(each.match, each.parts, each.origin)
            rules = Rules(chatter, self._book, lines=section.framing) if section.exchanges else self._declarations.rules
            self._declare(DeclaredScript(section.script, checked_times(times), rules, values, self._recorder))

    def _declare(self, declared: DeclaredScript) -> None:
        with self._recorder.lock:
            self._declarations.add(declared)
        self._give_waiting_connections()

    def _captured_by_scripts(self) -> set[str]:
        return self._declarations.captured()

    def clear(self) -> None:
        """Forget what was declared and what was recorded; never a failure.  Open connections stay open.

        What a test demanded is not forgotten any more when its call is over.
        """
        with self._recorder.lock:
            gone = [*self._forget(), *self._declarations.clear(), self._limit, self._connections]
            if self._handshakes is not None:
                gone += self._handshakes.clear()
            self._limit, self._connections = None, []
            over = [each for each in self._untaken if each.tape.ended_by is not None]
            for connection in over:
                self._untaken.remove(connection)
                del self._live[connection]
        del gone  # without the lock: a __del__ of the user's may come with it
        for connection in over:
            connection.finish()

    def wait_connection(self, index: int = 0, *, timeout: float | None = None) -> Connection:
        """Return the connection with this index; wait for it if need be.

        What is declared has the connection by then; on TLS it gets the connection after the handshake.

        Raises:
            DeadlineExceeded: It did not come in time.
        """
        return block(queries.connection(self, index, timeout)).face

    def accept(self, *, timeout: float | None = None) -> Connection:
        """Return the earliest connection not taken yet, to be driven by the test; wait for it if need be.

        For servers with nothing declared.  What its client has sent already is there to be read; from now
        on nothing is read unless asked for.  With ``ignore_probes=True`` a client that leaves within 0.05 seconds
        without sending a byte is skipped, and one that sends nothing is returned after that time.

        Raises:
            InvalidState: A handler is declared: it takes the connections.
            DeadlineExceeded: Nobody connected in time.
        """
        return self._accepted(block(queries.untaken_connection(self, timeout))).face

    def client_context(self, **options: Any) -> ssl.SSLContext:
        """Return the context of a client that trusts this server, and checks the name that it connects to.

        Args:
            options: ``certificate``, the client's own, as a ``Certificate``; ``alpn``, a sequence of protocol names;
                ``trust=False`` for one that trusts nobody's certificate.

        Raises:
            InvalidState: The server has no TLS, or a context of yours: what its clients are to trust is not known here.
        """
        return self._trusted().client_context(self.name, options)

    @property
    def ca_path(self) -> str:
        """The path of a file with the certificate that clients must trust, in PEM; gone when the server stops.

        Raises:
            InvalidState: The server has no TLS, or a context of yours.
        """
        if self._state in ("new", "stopped"):
            raise InvalidState(f"{self.name} has no ca_path in state {self._state!r}: the file is there while it runs")
        return self._trusted().ca_path(self.name)

    def _trusted(self) -> Trust:
        with self._recorder.lock:
            if self._trust is None:
                self._trust = Trust(self.options.tls)
            return self._trust

    def _check_declarations(self) -> None:
        if self._framing is None:
            self._declarations.check_unframed()

    def _has_open_connection(self) -> bool:
        with self._recorder.lock:
            return any(connection.tape.ended_by is None for connection in self._live)

    def _remarks(self) -> list[str]:
        live = [
            each
            for each in list(self._connections)
            if each.tape.ended_by is None and each.tape.began >= self._test_began
        ]
        standing = [(each.index, text) for each in live if (text := self._declarations.standing(each)) is not None]
        return [f"# {text} (connection {index})" for index, text in standing[:3]] + super()._remarks()

    def _take_missing(
        self, period: Period | None = None, *, which: Callable[[Demand], bool] | None = None
    ) -> list[Failure]:
        self._probes.look()
        return super()._take_missing(period, which=which)

    def _past_injections(self) -> str:
        with self._recorder.lock:
            away = [each for each in self._connections if each.stream.detached or each.tape.handed_over is not None]
        return (
            f"\n  connection {away[0].index} was detached: no fault is injected into what its socket sends and receives"
            if away
            else ""
        )

    def _left_waiting(self) -> list[Failure]:
        with self._recorder.lock:
            waiting = (
                [each for each in self._untaken if each.tape.ended_by is None] if self._declarations.is_used_up else []
            )
            self._untaken = [each for each in self._untaken if each not in waiting]
            nobody = self._declarations.unexpected(call_is_over=False) if waiting else None
        return [Failure(nobody.error(each), each.where()) for each in waiting if nobody is not None]

    # Driven by the test

    def _accepted(self, connection: Conversation) -> Conversation:
        """Hand a connection over from the sink to the test."""
        reader = self._reader()
        with connection.tape.lock:  # the loop's thread may be about to hand it to the sink
            reader.release(connection)
            connection.mode = "live"
        with self._recorder.lock:
            connection.cut_no_frames()
            gone = self._recorder.forget_requests(connection.tape)  # its frames; the test reads them anew
        del gone  # without the lock
        connection.waits_for_start = False
        return connection

    def _refuse_unframed(self, verb: str) -> None:
        unread = [each for each in self._connections if each.is_unread_by_verbs() and each.tape.received_count]
        if unread:
            raise TypeError(
                f"{verb}() waits for requests, but connection {unread[0].index} of {self.name} is a stream that is "
                "still open and that no verb reads: where its requests end cannot be told.  Wait for its bytes with "
                f"server.connections[{unread[0].index}].wait_received(...), or declare a handler"
            )

    def _reader(self) -> Sink:
        with self._recorder.lock:
            if self._sink is None:
                self._sink = Sink(f"sockserver {self._label()} reader", self._stream_over, self._failures.add)
            return self._sink

    @contextlib.contextmanager
    def _reading_all(self) -> Iterator[None]:
        """Let the sink read, for the length of the block, the connections that the test drives."""
        with contextlib.ExitStack() as stack:
            for connection in list(self._connections):
                if connection.mode == "live":
                    stack.enter_context(connection.read_meanwhile())
            yield

    def _hand_to_rules(self, connection: Conversation, framing: Framing | None) -> Conversation:
        """Let a connection that the test drives be answered by the rules, in a thread; return it."""
        framework = self._framework
        assert framework is not None
        connection.refuse_unreadable("rules")
        if connection.mode == "handled":
            raise InvalidState(f"cannot rules() on connection {connection.index}: a thread of the server drives it")
        connection.framing = checked_framing(framing, connection.max_frame) or connection.framing
        self._declarations.rules.check(connection.framing)
        connection.stream.socket_for("answer by rules")
        with self._recorder.lock:
            connection.responder, connection.mode = AnswerRest(self._declarations.rules), "handled"
            connection.waits_for_start = True
        connection.tape.state = BUSY
        framework.handle(connection)
        return connection

    def _read_ahead(self, connection: Conversation) -> None:
        """Read a live connection while its test waits for something else than its bytes."""
        self._reader().feed(connection)

    def _read_no_more(self, connection: Conversation) -> None:
        self._reader().release(connection)

    def _watch(self, sock: socket.socket, write: bool, wake: Callable[[], None]) -> None:
        """Wake a coroutine when ``sock`` can be read or written."""
        self._reader().watch(sock, write, wake)

    def _unwatch(self, wake: Callable[[], None]) -> None:
        self._reader().unwatch(wake)

    def _connection_for(self, tape: Tape) -> Conversation:
        connection = Conversation(tape, self, Connection)
        connection.answer_by_rules = self._declarations.rules.answer_all
        return connection

    # Life cycle

    def _idle(self) -> bool:
        framework = self._framework
        assert framework is not None
        try:
            if self._state == "started" and ready(framework.socket, False, 0):
                return False
        except (OSError, ValueError):
            return False  # closed at this moment: it is being stopped
        if framework.taking:
            return False
        with self._recorder.lock:
            live = list(self._live)
        return all(life_cycle.connection_idle(connection) for connection in live)

    def _end(self, deadline: Deadline) -> None:
        framework = self._framework
        assert framework is not None
        if self._state == "started":
            self._end_loop(deadline)
        self._drain(deadline)
        self._probes.look()  # what is cut below has not left by itself
        with contextlib.suppress(OSError):
            framework.socket.shutdown(socket.SHUT_RDWR)
        with self._recorder.lock:
            live, self._untaken = list(self._live), []
        clients = self._cut_clients()
        for connection in live:
            connection.cut_off()
        peers = {each.thread: each.peer for each in live if each.thread is not None}
        reader = self._sink.close() if self._sink is not None else None
        self._close_fillers()
        clock = self._expiry.close() if self._expiry is not None else None
        for connection in live:
            connection.end_frames()
        until = life_cycle.end_of_patience(deadline)
        framework.close_timeout = until - original.monotonic()
        handlers = list(framework._request_threads())
        framework.server_close()  # which joins them
        stuck = life_cycle.join([*handlers, reader, clock, *clients, *self._framers], until)
        self._expiry = None
        for connection in live:
            connection.finish()
        with self._recorder.lock:
            self._live.clear()
        if self._trust is not None:
            self._trust.release()
        self._release_place()
        self._name_stuck(stuck, peers, deadline)  # last: what is interrupted is done again, and this only once

    def _drain(self, deadline: Deadline) -> None:
        """Let the handlers take what has arrived."""
        current = current_thread()

        def idle() -> bool:
            with self._recorder.lock:
                live = list(self._live)
            return all(each.thread is current or life_cycle.connection_idle(each) for each in live)

        life_cycle.wait_idle(idle, life_cycle.drain_bound(deadline))

    def _close_descriptors(self) -> None:
        """In a forked child: close copies, shut nothing down, join nothing, take no lock."""
        framework, sink = self._framework, self._sink
        if framework is not None:
            framework.socket.close()
            if framework._wakeup is not None:
                framework._wakeup.close()
        if sink is not None:
            sink.close_in_child()
        self._close_fillers()
        for connection in list(self._live):
            sock = connection.tape.socket
            if sock is not None:
                sock.tape = None
                sock.close()

    def _threads(self) -> list[threading.Thread | None]:
        with self._recorder.lock:
            live = [*(each.thread for each in self._live), *self._framers]
        handlers = list(self._framework._request_threads()) if self._framework is not None else []
        return [self._loop, *live, *handlers]

    def _said(self) -> str:
        said = [transcript.head(each.tape) + "\n" + transcript.so_far(each.tape) for each in self._connections[-3:]]
        nothing = f"nobody has connected {self._recorder.since().lstrip() or 'so far'}"
        return with_losses("\n".join(said) if said else nothing, self._losses())
