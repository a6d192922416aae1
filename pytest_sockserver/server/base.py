"""What all test servers share: the public face.

:class:`StreamTestServer` (TCP, unix) and :class:`DatagramTestServer` (UDP, unix datagrams) bring the rest.
They work without pytest: ``with StreamTestServer() as server:``; leaving the block stops, then
raises what ``verify()`` raises.

A face has the names, what they mean, and one attribute, ``service``: what the package itself holds of a server, and
where all is done.  Nothing below holds a face, so a test that lets it go has let the server go.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..connection.queries import block
from ..connection.request import Request
from ..connection.waits import refuse_in_coroutine
from ..errors.location import Location, hide_frame
from ..errors.messages import format_peer, old_attributes, refuse_misspelt
from ..faults.active import Injection
from ..originals import original
from ..recording.events import Event
from ..recording.failures import Expected, add_note, combined
from ..responders.rulebook import On
from ..scripting.arguments import checked_seconds
from ..scripting.matching import ANY, Match
from ..scripting.parts import Part
from ..scripting.rules import RuleMatch
from . import leaving, life_cycle, queries
from .idle import DRAIN_BOUND, wait_idle
from .late_failures import issue
from .options import Options, check_option

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .aio import AsyncServer
    from .service import Service

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

__tracebackhide__ = hide_frame


T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])


class BaseTestServer:
    """What all test servers share.

    Attributes:
        options: What it was asked to be.
        transport: ``"tcp"``, ``"tls"``, ``"unix"``, ``"udp"`` or ``"unix_datagram"``.
        service: What the package itself holds of it; nothing for a test.
    """

    options: Options
    transport: str
    service: Any  # each face says which

    def __init__(self, service: Service) -> None:
        own = vars(self)  # past __setattr__, which is for what a test sets
        own["service"], own["options"], own["transport"] = service, service.options, service.transport

    def __repr__(self) -> str:
        service = self.service
        address = service.published.address
        where = format_peer(address) if address is not None else "no address yet"
        return f"<{type(self).__name__} {service.context.name} {where}, {service.context.state}>"

    if not TYPE_CHECKING:  # which would take any name for a known one
        __getattr__ = old_attributes("server")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "handler":
            raise AttributeError(
                f"handler is declared by a call: write {self.name}.handler(...), or use it as a decorator"
            )
        if not name.startswith("_") and name not in ("options", "transport") and not hasattr(type(self), name):
            refuse_misspelt(self.name, name, ("framing", "handler", "timeout", "stop_timeout"))
        super().__setattr__(name, value)

    @property
    def name(self) -> str:
        """What reports and messages call it."""
        return self.service.context.name  # type: ignore[no-any-return]

    @name.setter
    def name(self, name: str) -> None:
        self.service.context.name = self.service.published.name = name

    @property
    def timeout(self) -> float:
        """Seconds that each wait, and each verb of its connections, may take."""
        return self.service.context.timeout  # type: ignore[no-any-return]

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        check_option("timeout", seconds)
        self.service.context.timeout = seconds

    @property
    def stop_timeout(self) -> float:
        """Seconds that a stop gives the server's threads to end."""
        return self.service.stop_timeout  # type: ignore[no-any-return]

    @stop_timeout.setter
    def stop_timeout(self, seconds: float) -> None:
        check_option("stop_timeout", seconds)
        self.service.stop_timeout = seconds

    # Where it is

    @property
    def address(self) -> Any:
        """What goes into ``connect``: a pair of host and port, or the path of a unix socket.

        Stays the same over ``stop()`` and ``start()``.

        Raises:
            InvalidState: The server was never started.
        """
        return self.service.published.known(self.service.context.state)

    @property
    def host(self) -> str:
        """The host of the address."""
        return str(self.service.published.inet("host", self.service.context.state)[0])

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self.service.published.inet("port", self.service.context.state)[1])

    @property
    def path(self) -> str | bytes:
        """The path of a unix socket, absolute; an abstract name is bytes that begin with a NUL.

        A ``path=`` that was relative, and is too long as an absolute one, stays as it was given.
        """
        return self.service.published.path(self.service.context.state)  # type: ignore[no-any-return]

    def url(self, scheme: str) -> str:
        """Return the address as a URL: ``http://127.0.0.1:41013``, ``redis://[::1]:41013``, ``unix:///tmp/x/s``.

        On unix sockets a scheme that ends in ``+unix`` has the path quoted as its host.
        """
        return self.service.published.url(scheme, self.service.context.state)  # type: ignore[no-any-return]

    # Life cycle

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        verdict = self.service.verdict
        try:
            life_cycle.stop(self.service, leaving.haste(error))
        except BaseException as own:  # Ctrl-C meanwhile
            add_note(own, verdict.take_failures())
            raise
        if original.getpid() != self.service.pid:
            return
        failures = verdict.take_failures()
        failures += issue(verdict.take_late(), Location().place, raises=error is None and not leaving.is_under_way())
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
        # In this order: the end of a stop sets both.
        return not self.service.is_stopping and self.service.context.state == "started"

    def start(self) -> None:
        """Bind, listen and serve, on a background thread; return when clients can connect.

        A server that runs already goes on.  One that was stopped binds the same address again.

        Raises:
            AddressUnavailable: The address is taken, privileged or not this machine's; the message says by whom.
        """
        life_cycle.start(self.service)

    def stop(self) -> None:
        """End everything this server has: its loop, its connections, its threads, its socket file.

        What has arrived is still handled; live connections are then shut down.  Returns within a few
        milliseconds, at the latest after ``stop_timeout`` seconds, when a handler's thread does not end: that
        is recorded as a failure.  Never raises what was recorded; ``verify()`` and the server's owner do.  A
        server that is stopped, or never was started, stays so.

        Ctrl-C in the midst of it shortens the stop, and is raised when it is done.
        """
        life_cycle.stop(self.service, leaving.haste())

    def clear(self) -> None:
        """Forget what was declared and what was recorded; never a failure.  Open connections stay open.

        What a test demanded is not forgotten any more when its call is over.
        """
        self.service.clear()

    def verify(self) -> None:
        """Wait until the handlers are done or idle, at most a second, and raise what went wrong so far.

        What fails no test is issued as :class:`SockServerWarning`.

        Raises:
            BaseException: What a handler raised, as itself; several as an exception group.  Each once.
        """
        refuse_in_coroutine("verify", "await server.aio.verify()")
        verdict = self.service.verdict
        verdict.settle()
        failures = verdict.take_failures()
        failures += issue(verdict.take_late(), Location().place)
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
        return _Raises(self.service, self.service.expect_failure(type, match))

    def in_thread(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Run a blocking client beside the test; return its future.  It is joined when the server stops.

        An exception of the client that nobody asks the future for is a failure of the test.
        """
        return self.service.start_client(fn, args, kwargs)  # type: ignore[no-any-return]

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
        return self.service.declare_rule(match, times)  # type: ignore[no-any-return]

    def open_gate(self, name: str) -> None:
        """Open a gate: whoever waits for it goes on, and so does who comes later.  ``clear()`` closes all gates."""
        self.service.open_gate(name)

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
        return self.service.inject(  # type: ignore[no-any-return]
            parts,
            direction=direction,
            connections=connections,
            at=at,
            probability=probability,
            seed=seed,
            times=times,
        )

    # Captured

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in order of arrival: a snapshot.

        Raises:
            RecordLimitExceeded: Not all of them were kept.
        """
        return self.service.context.recorder.kept_requests()  # type: ignore[no-any-return]

    @property
    def events(self) -> list[Event]:
        """Everything that happened, of all connections, in order: a snapshot.

        Raises:
            RecordLimitExceeded: Not all of it was kept.
        """
        return self.service.events()  # type: ignore[no-any-return]

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
        return block(queries.request(self.service, match, count, timeout))

    def next_request(self, match: Match = ANY, *, timeout: float | None = None) -> Request:
        """Return the earliest request that matches and that no call has returned yet; wait for it if need be.

        It is MockWebServer's ``takeRequest``.  Its ``reply()`` answers.  Errors are those of :meth:`wait_for`.
        """
        return block(queries.untaken_request(self.service, match, timeout))

    def assert_no_traffic(self, seconds: float) -> None:
        """Assert that for ``seconds`` from now on no byte, no datagram and no connection arrives.

        Raises:
            UnexpectedRequest: Something arrived; raised at once.
        """
        refuse_in_coroutine("assert_no_traffic", "await server.aio.assert_no_traffic(...)")
        checked_seconds(seconds, "assert_no_traffic() expected seconds above 0")
        with self.service.traffic.reading_all():
            wait_idle(self.service.verdict.has_handled_all, DRAIN_BOUND)  # what was sent before is no noise
            block(queries.quiet(self.service, seconds))

    @property
    def aio(self) -> AsyncServer:
        """The verbs that block, awaitable, for asyncio and trio."""
        from .aio import AsyncServer

        return AsyncServer(self.service)


class _Raises(contextlib.AbstractContextManager[Expected]):
    """What ``raises()`` returns.  A class, since its frames can be hidden from reports; those of contextlib can't."""

    def __init__(self, service: Service, expected: Expected) -> None:
        self._service = service
        self._expected = expected

    def __enter__(self) -> Expected:
        return self._expected

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                block(queries.failure(self._service, self._expected))
        finally:
            self._service.context.failures.unexpect(self._expected)
