"""A server of streams: TCP, and unix sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from . import questions, stopping, transcript
from .addresses import bind_stream, explained
from .base_server import BaseTestServer, H
from .captured import Value
from .connection import Connection
from .conversation import Continued, Rules, perform
from .deadline import Deadline
from .drivers import Drivers
from .endpoint import nothing_to_refuse
from .errors import WrongState
from .failures import Failure
from .handler import Handler
from .performer import DeclaredScript
from .recording.recorder import BUSY, Tape
from .recording.sockets import ready
from .rulebook import On, RuleBook
from .scripting.framing import Cutter, Framing, checked_framing
from .scripting.rules import RuleMatch
from .scripting.script import Script
from .scripting.times import checked_times
from .sink import Sink
from .transport import AcceptingServer, adopt, connection_of
from .waiting import block, refuse_in_coroutine

#: Seconds.  A stop accepts what is queued for so long at most: clients that come back at once would never let it end.
_ACCEPTING = 0.25


class StreamTestServer(BaseTestServer):
    """A server of streams: TCP, or a unix socket with ``transport="unix"``."""

    _kind = socket.SOCK_STREAM
    _handler_argument = "a Connection"

    def __init__(self, *, transport: str = "tcp", **options: Any) -> None:
        __tracebackhide__ = True
        if transport not in ("tcp", "unix"):
            raise ValueError(f"transport must be 'tcp' or 'unix', not {transport!r}")
        super().__init__(transport, options)
        self.framing = self.options.framing
        self._drivers = Drivers(self._book)
        self._framework: AcceptingServer | None = None
        self._connections: list[Connection] = []  # guarded by the recorder's lock, as the next two are
        self._live: dict[Connection, None] = {}  # those that are not over, cleared from the record or not; ordered
        self._untaken: list[Connection] = []  # undeclared, and not accepted by the test
        self._admitted = 0  # connections ever, cleared from the record or not
        self._sink: Sink | None = None

    @property
    def connections(self) -> list[Connection]:
        """The connections so far, in order of arrival: a snapshot."""
        with self._recorder.lock:
            return list(self._connections)

    @property
    def framing(self) -> Framing | None:
        """Where one frame ends and the next begins; looked at when a connection comes."""
        return self._framing

    @framing.setter
    def framing(self, framing: Framing | None) -> None:
        __tracebackhide__ = True
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
        __tracebackhide__ = True
        handler = Handler(target, self._handler_argument)
        with self._recorder.lock:
            self._drivers.handler = handler
        self._give_waiting_connections()
        return target

    def on(self, match: RuleMatch, times: int | tuple[int, int | None] | None = None) -> On:
        __tracebackhide__ = True
        declared = super().on(match, times)
        self._give_waiting_connections()
        return declared

    on.__doc__ = BaseTestServer.on.__doc__

    def script(self, times: int | tuple[int, int | None] | None = 1) -> Script:
        """Return a script, empty so far: an ordered conversation for the next connection that has none yet.

        Its verbs are those of a connection, deferred.  Whatever departs from it fails the test, and so does what it
        demands and never comes.  After its last step the rules answer, if there are any; else the client may but close.

        Args:
            times: For how many connections it is: exactly so many, ``(least, most)``, or ``None`` for all that follow.

        Raises:
            TypeError, ValueError: ``times`` is no number of times.
        """
        __tracebackhide__ = True
        checked, script = checked_times(times), self._new_script()
        self._declare(DeclaredScript(script, checked, self._drivers.rules, {}, self._recorder))
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
        __tracebackhide__ = True
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
            rules = Rules(chatter, self._book, lines=section.framing) if section.exchanges else self._drivers.rules
            self._declare(DeclaredScript(section.script, checked_times(times), rules, values, self._recorder))

    def _declare(self, declared: DeclaredScript) -> None:
        with self._recorder.lock:
            self._drivers.add(declared)
        self._give_waiting_connections()

    def _captured_by_scripts(self) -> set[str]:
        return self._drivers.captured()

    def clear(self) -> None:
        """Forget what was declared and what was recorded; never a failure.  Open connections stay open."""
        with self._recorder.lock:
            super().clear()
            self._drivers.clear()
            self._connections.clear()
            over = [each for each in self._untaken if each.closed_by is not None]
            for connection in over:
                self._untaken.remove(connection)
                del self._live[connection]
        for connection in over:
            connection._finish()

    def wait_connection(self, index: int = 0, *, timeout: float | None = None) -> Connection:
        """Return the connection with this index; wait for it if need be.

        Raises:
            DeadlineExceeded: It did not come in time.
        """
        __tracebackhide__ = True
        return block(questions.connection(self, index, timeout))

    def accept(self, *, timeout: float | None = None) -> Connection:
        """Return the earliest connection not taken yet, to be driven by the test; wait for it if need be.

        For servers with nothing declared.  What its client has sent already is there to be read; from now
        on nothing is read unless asked for.

        Raises:
            WrongState: A handler is declared: it takes the connections.
            DeadlineExceeded: Nobody connected in time.
        """
        __tracebackhide__ = True
        return self._accepted(block(questions.untaken_connection(self, timeout)))

    def refuse(self) -> contextlib.AbstractContextManager[None]:
        """Refuse connections from now on, on the same port, which stays reserved.  Live ones go on.

        Also ``with server.refuse():``, which listens again at its end.

        Raises:
            WrongState: The server is not running.
        """
        with self._one_at_a_time():
            if self._state == "started":
                self._stop_accepting()
                self._state = "refusing"
            elif self._state != "refusing":
                raise WrongState(f"cannot refuse() in state {self._state!r}: expected 'started'")
        return _Refusing(self)

    def listen(self) -> None:
        """Accept again after ``refuse()``, on the same port.  A server that listens goes on.

        Raises:
            WrongState: The server is not running.
        """
        with self._one_at_a_time():
            if self._state == "started":
                return
            if self._state != "refusing":
                raise WrongState(f"cannot listen() in state {self._state!r}: expected 'refusing' or 'started'")
            self._listen_again()

    def _listen_again(self) -> None:
        assert self._framework is not None
        listener = self._framework.socket
        self._serve(self._listener(listener if listener.fileno() >= 0 else self._bind()))
        self._state = "started"

    def _check_declarations(self) -> None:
        __tracebackhide__ = True
        if self._framing is None:
            self._drivers.check_unframed()

    def _has_open_connection(self) -> bool:
        with self._recorder.lock:
            return any(connection.closed_by is None for connection in self._live)

    def _remarks(self) -> list[str]:
        live = [each for each in self.connections if each.closed_by is None and each._tape.began >= self._test_began]
        standing = [(each.index, text) for each in live if (text := self._drivers.standing(each)) is not None]
        return [f"# {text} (connection {index})" for index, text in standing[:3]] + super()._remarks()

    def _under_way(self, since: float = 0.0) -> list[Failure]:
        return [Failure(error, connection._where()) for connection, error in self._drivers.under_way(since)]

    def _missing(self, since: float) -> list[Failure]:
        missing = [self._unmet(error) for error in self._drivers.not_taken(since)]
        return self._left_waiting() + missing + self._under_way(since) + super()._missing(since)

    def _left_waiting(self) -> list[Failure]:
        """Return the failures about connections that came before the scripts, and for which there is none; once."""
        with self._recorder.lock:
            waiting = [each for each in self._untaken if each.closed_by is None] if self._drivers.is_used_up else []
            self._untaken = [each for each in self._untaken if each not in waiting]
            nobody = self._drivers.unexpected(call_is_over=False) if waiting else None
        return [Failure(nobody.error(each), each._where()) for each in waiting if nobody is not None]

    # Driven by the test

    def _accepted(self, connection: Connection) -> Connection:
        """Hand a connection over from the sink to the test."""
        reader = self._reader()
        with connection._tape.lock:  # the loop's thread may be about to hand it to the sink
            reader.release(connection)
            connection._mode = "live"
            connection._stream.make_nonblocking()
        with self._recorder.lock:
            connection._tape.tap = None
            self._recorder.forget_requests(connection)  # its frames; the test reads them anew
        connection._patient = False
        connection._guard = refuse_in_coroutine
        return connection

    def _refuse_unframed(self, verb: str) -> None:
        __tracebackhide__ = True
        unread = [each for each in self._connections if each._unread_by_verbs() and each._tape.received_count]
        if unread:
            raise TypeError(
                f"{verb}() waits for requests, but connection {unread[0].index} of {self.name} is a stream that is "
                "still open and that no verb reads: where its requests end cannot be told.  Wait for its bytes with "
                f"server.connections[{unread[0].index}].wait_received(...), or declare a handler"
            )

    def _reader(self) -> Sink:
        with self._recorder.lock:
            if self._sink is None:
                self._sink = Sink(f"sockserver {self._label()} reader", self._stream_over)
            return self._sink

    @contextlib.contextmanager
    def _reading_all(self) -> Iterator[None]:
        """Let the sink read, for the length of the block, the connections that the test drives."""
        with contextlib.ExitStack() as stack:
            for connection in self.connections:
                if connection._mode == "live":
                    stack.enter_context(connection._read_meanwhile())
            yield

    def _hand_to_rules(self, connection: Connection, framing: Framing | None) -> Connection:
        """Let a connection that the test drives be answered by the rules, in a thread; return it."""
        framework = self._framework
        assert framework is not None
        connection._framing = checked_framing(framing, connection._max_frame) or connection._framing
        self._drivers.rules.check(connection._framing)
        connection._stream.socket_for("answer by rules")
        with self._recorder.lock:
            connection._driver, connection._mode = Continued(self._drivers.rules), "handled"
            connection._patient, connection._guard = True, nothing_to_refuse
        connection._tape.state = BUSY
        framework.handle(connection)
        return connection

    def _read_ahead(self, connection: Connection) -> None:
        """Read a live connection while its test waits for something else than its bytes."""
        self._reader().feed(connection)

    def _read_no_more(self, connection: Connection) -> None:
        self._reader().release(connection)

    def _watch(self, sock: socket.socket, write: bool, wake: Callable[[], None]) -> None:
        """Wake a coroutine when ``sock`` can be read or written."""
        self._reader().watch(sock, write, wake)

    def _unwatch(self, wake: Callable[[], None]) -> None:
        self._reader().unwatch(wake)

    # Called by the framework, in the loop's thread

    def _admit(self, accepted: socket.socket, address: Any) -> Any:
        with self._recorder.lock:
            self._admitted += 1
            tape = self._recorder.add_tape(address)
            request = adopt(accepted, self._connection_for, tape)
            if self._place is None:
                # A second send must not wait 40 ms for the client to acknowledge the first (Nagle, delayed ACK).
                request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(request.connection)  # type: ignore[attr-defined]
            self._live[request.connection] = None  # type: ignore[attr-defined]
            self._recorder.changed()
            return request

    def _connection_for(self, tape: Tape) -> Connection:
        connection = Connection(tape, self)
        connection._answer_by_rules = self._drivers.rules.answer_all
        return connection

    def _is_driven(self, connection: Connection) -> bool:
        """Give the connection to what was declared; if nothing was, let it wait for that, or for ``accept()``."""
        with self._recorder.lock:
            driver = self._drivers.drive(connection, call_is_over=self._over_since is not None)
            if driver is None or driver.is_raw:
                self._cut_frames(connection)
            if driver is not None:
                return True
            connection._mode = "sunk"
            self._untaken.append(connection)
            self._recorder.changed()
            return False

    def _cut_frames(self, connection: Connection) -> None:
        """Let what is received become requests, frame by frame, where no verb reads.  The lock must be held."""
        if connection._framing is not None:
            connection._cutter = Cutter(connection._framing, connection._max_frame)
            connection._tape.tap = connection._cut

    def _leave_to_accept(self, connection: Connection) -> None:
        reader = self._reader()
        with connection._tape.lock:
            if connection._mode == "sunk":  # nobody was faster
                reader.feed(connection)

    def _give_waiting_connections(self) -> None:
        """Hand connections that came before what was declared now to it, with what they have said."""
        framework = self._framework
        with self._recorder.lock:
            waiting = [each for each in self._untaken if each._may_be_answered()] if framework is not None else []
            given: list[Connection] = []
            for connection in waiting:
                if self._drivers.is_used_up:
                    break  # the next script may be declared a moment later
                self._untaken.remove(connection)
                given.append(connection)
                connection._tape.tap = None
                connection._framing, connection._came_early = self._framing, True
                connection._mode = "handled"  # at once: the sink would keep a stream that ends now as a request
                self._recorder.forget_requests(connection)  # of a stream that nobody was going to read
                driver = self._drivers.drive(connection, call_is_over=False)
                assert driver is not None
                if driver.is_raw:
                    self._cut_frames(connection)
        for connection in given:
            with connection._tape.lock:
                self._reader().release(connection)
                connection._tape.state = BUSY
            assert framework is not None
            framework.handle(connection)

    def _stream_over(self, connection: Connection) -> None:
        """Keep what an undeclared connection sent, which has ended, as its one request.  In the sink's thread."""
        with self._recorder.lock:
            if connection._mode == "sunk":
                connection._keep_whole_stream()
            self._recorder.changed()

    def _perform(self, connection: Connection) -> None:
        """Run the connection's driver, in its thread."""
        assert connection._driver is not None
        try:
            perform(connection, connection._driver, self._failures)
        finally:
            connection._done = True
            with self._recorder.lock:
                if not connection._stream.detached:
                    self._live.pop(connection, None)
                self._recorder.changed()

    def _could_not_begin(self, request: Any) -> None:
        """Keep why a connection's thread could not be started, and reset it."""
        super()._could_not_begin(request)
        connection = connection_of(request)
        connection._stream.reset_now()
        connection._done = True
        with self._recorder.lock:
            self._live.pop(connection, None)

    # Life cycle

    def _begin(self) -> None:
        __tracebackhide__ = True
        bound, self._bound = self._bound, None
        self._sink = None
        self._serve(self._listener(bound if bound is not None else self._bind()))

    def _bind(self) -> socket.socket:
        __tracebackhide__ = True
        if self._place is not None:
            return self._place.bind(self._kind, self.options.rcvbuf)
        return bind_stream(self._family, *self._place_to_bind(), self.options.rcvbuf)

    def _listener(self, sock: socket.socket) -> socket.socket:
        __tracebackhide__ = True
        try:
            sock.listen(self.options.backlog)
        except OSError as error:  # two sockets may be bound to one port by SO_REUSEADDR, and only one may listen
            address = sock.getsockname()
            sock.close()
            raise explained(error, self._kind, address) from None
        return sock

    def _serve(self, listener: socket.socket) -> None:
        self._publish(listener)
        old, self._framework = self._framework, AcceptingServer(self, listener, self.options.backlog)
        if old is not None and self._state == "refusing":
            self._framework._threads = old._request_threads()  # of connections that have gone on meanwhile
        self._start_loop(self._framework)

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
        return all(stopping.connection_idle(connection) for connection in live)

    def _stop_accepting(self) -> None:
        """End the accept loop, accept what is queued, and let the kernel refuse whoever comes now."""
        framework = self._framework
        assert framework is not None
        self._end_loop(Deadline(self.timeout))
        if sys.platform == "linux" and self._place is None:
            # Keeps the port; and refuses even where a forked child holds a copy of the listener.
            framework.socket.shutdown(socket.SHUT_RDWR)
        else:
            # A unix socket that was shut down cannot listen again, and other systems refuse to shut a listener down.
            # Without a socket behind it a path refuses too (unix(7)), and listen() binds the address anew.
            framework.socket.close()

    def _end_loop(self, deadline: Deadline) -> None:
        """End the accept loop, and accept what is queued."""
        framework = self._framework
        assert framework is not None
        framework.shutdown()
        stopping.join([self._loop], deadline)
        if framework.socket.fileno() < 0:
            return  # closed by an earlier stop that was interrupted, or by a handler
        framework.socket.setblocking(False)
        before, until = -1, monotonic() + min(_ACCEPTING, deadline.left() or 0.0)
        while before < self._admitted and monotonic() < until and ready(framework.socket, False, 0):
            before = self._admitted  # an accept that fails (EMFILE) leaves the socket readable
            framework._handle_request_noblock()

    def _end(self, deadline: Deadline) -> None:
        framework = self._framework
        assert framework is not None
        if self._state == "started":
            self._end_loop(deadline)
        self._drain(deadline)
        with contextlib.suppress(OSError):
            framework.socket.shutdown(socket.SHUT_RDWR)
        with self._recorder.lock:
            live, self._untaken = list(self._live), []
        clients = self._cut_clients()
        for connection in live:
            connection._cut_off()
        peers = {each._thread: each.peer for each in live if each._thread is not None}
        reader = self._sink.close() if self._sink is not None else None
        framework.close_timeout = stopping.patience(deadline)
        framework.server_close()  # which joins the handlers' threads
        stuck = [each for each in framework._threads if each.is_alive() and each is not threading.current_thread()]
        self._name_stuck([*stuck, *stopping.join([reader, *clients], deadline)], peers, deadline)
        for connection in live:
            connection._finish()
        with self._recorder.lock:
            self._live.clear()
        if self._place is not None:
            self._place.release()

    def _drain(self, deadline: Deadline) -> None:
        """Let the handlers take what has arrived."""
        current = threading.current_thread()

        def idle() -> bool:
            with self._recorder.lock:
                live = list(self._live)
            return all(each._thread is current or stopping.connection_idle(each) for each in live)

        left = deadline.left()
        stopping.wait_idle(idle, min(stopping.DRAIN_BOUND, left if left is not None else stopping.DRAIN_BOUND))

    def _close_descriptors(self) -> None:
        """In a forked child: close copies, shut nothing down, join nothing, take no lock."""
        framework, sink = self._framework, self._sink
        if framework is not None:
            framework.socket.close()
            if framework._wakeup is not None:
                framework._wakeup.close()
        if sink is not None:
            sink.close_in_child()
        for connection in list(self._live):
            sock = connection._tape.socket
            if sock is not None:
                sock.tape = None
                sock.close()

    def _threads(self) -> list[threading.Thread | None]:
        with self._recorder.lock:
            live = [each._thread for each in self._live]
        handlers = list(self._framework._request_threads()) if self._framework is not None else []
        return [self._loop, *live, *handlers]

    def _said(self) -> str:
        said = [transcript.head(each._tape) + "\n" + transcript.so_far(each._tape) for each in self._connections[-3:]]
        return "\n".join(said) if said else "nobody has connected so far"


class _Refusing(contextlib.AbstractContextManager[None]):
    """What ``refuse()`` returns: leaving its ``with`` block listens again."""

    def __init__(self, server: StreamTestServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._server._state == "refusing":
            self._server.listen()
