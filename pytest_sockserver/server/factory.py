"""Make servers, and end all of them together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors.location import Location, hide_frame
from ..errors.messages import old_attributes
from ..recording.demands import Period, adopt, is_of_the_call, is_under_way
from ..recording.failures import Failure, add_note, combined
from ..transport.address import bind_pair, checked_host
from . import leaving
from .base import BaseTestServer
from .datagram import DatagramTestServer
from .late_failures import Late, issue
from .options import NAMES, check_options, fitting, options_for
from .stream import StreamTestServer

if TYPE_CHECKING:
    from ..faults.matrix import FaultMatrix

__tracebackhide__ = hide_frame


class SockServer:
    """A factory of running servers.

    Without pytest: ``with SockServer() as sockserver:``; leaving the block stops every server, then raises
    what went wrong in them, unless the block itself raised: that exception gets a note of it.

    Args:
        defaults: Options for every server it makes, as far as they say something to its transport.
    """

    def __init__(self, **defaults: Any) -> None:
        check_options(defaults, NAMES, where="SockServer()")
        self._defaults = defaults
        self.servers: list[BaseTestServer] = []
        self._fixture: str | None = None  # the name of the pytest fixture that it is, or that made it: its hooks judge
        self._put_off: list[Failure] = []  # what is to be told when the servers stop
        self._followed = False  # another fixture of the running test was set up after it

    if not TYPE_CHECKING:  # which would take any name for a known one
        __getattr__ = old_attributes("sockserver")

    def tcp(self, **options: Any) -> StreamTestServer:
        """Return a running TCP server.

        Args:
            options: ``host port framing timeout stop_timeout tls rcvbuf mss backlog record_limit max_frame
                ignore_probes allow_remote name``.
        """
        return self._stream("tcp", options)

    def tls(self, **options: Any) -> StreamTestServer:
        """Return a running TCP server whose connections speak TLS from the first byte.

        Args:
            options: Those of :meth:`tcp`.  ``tls`` is a ``TLS``, a ``Certificate``, or an ``ssl.SSLContext`` of yours;
                without it the certificate is for localhost, by an authority that ``client_context()`` trusts.

        Raises:
            ImportError: trustme, which makes certificates, is not installed.
        """
        return self._stream("tls", options)

    def unix(self, **options: Any) -> StreamTestServer:
        r"""Return a running server on a unix stream socket.

        Args:
            options: ``path framing timeout stop_timeout tls rcvbuf backlog record_limit max_frame ignore_probes
                name``.  Without ``path`` the socket has a short one in a private directory, removed afterwards;
                ``"\0name"`` is an abstract name, and ``"\0"`` one that the kernel chooses (Linux).
        """
        return self._stream("unix", options)

    def udp(self, **options: Any) -> DatagramTestServer:
        """Return a running UDP server.

        Args:
            options: ``host port timeout stop_timeout rcvbuf record_limit allow_remote name``.
        """
        return self._datagram("udp", options)

    def unix_datagram(self, **options: Any) -> DatagramTestServer:
        """Return a running server on a unix datagram socket; options are those of :meth:`unix` less two."""
        return self._datagram("unix_datagram", options)

    def tcp_and_udp(self, **options: Any) -> tuple[StreamTestServer, DatagramTestServer]:
        """Return a TCP and a UDP server on one port number, as DNS wants.

        Args:
            options: Those of :meth:`tcp`; each server takes what says something to it.
        """
        checked = options_for("tcp", self._with_defaults("tcp", options), where="sockserver.tcp_and_udp()")
        name = options.pop("name", None)
        names = ({}, {}) if name is None else ({"name": f"{name} (tcp)"}, {"name": f"{name} (udp)"})
        stream, datagram = (None, None)
        if not checked.port:
            stream, datagram = bind_pair(*checked_host(checked), checked.rcvbuf)
        tcp = self._stream("tcp", {**options, **names[0]}, stream)
        try:
            return tcp, self._datagram("udp", {**fitting("udp", options), **names[1]}, datagram)
        except BaseException:
            tcp.stop()
            raise

    def fault_matrix(
        self, client: Callable[[Any], Any], serve: Callable[[Any], object], *, transport: str = "tcp", **options: Any
    ) -> FaultMatrix:
        """Run ``client`` under every fault that the transport can show; return what it made of each: a table.

        ``client`` is called with a server, and ``serve`` before it, to declare what that answers when nothing is wrong.
        Options of the factory hold here as well; the others, ``patience`` among them, are those of
        :func:`pytest_sockserver.fault_matrix`.
        """
        from ..faults.matrix import fault_matrix

        return fault_matrix(client, serve, transport=transport, **self._with_defaults(transport, options))

    def stop(self) -> None:
        """Stop all servers; what went wrong in them stays recorded.

        An error of one server's stop, or Ctrl-C, does not keep the others from being stopped; it is raised then.
        """
        self._stop(leaving.haste())

    def _stop(self, haste: leaving.Haste | None) -> None:
        """Stop all servers, from the last one to the first; once one stop was left, the others are in haste."""
        raised: BaseException | None = None
        for server in reversed(self.servers):
            try:
                server._stop(haste)
            except Exception as error:
                raised = raised or error
            except BaseException as error:
                haste = haste or leaving.Haste()
                raised = raised if raised is not None and not isinstance(raised, Exception) else error
        if raised is not None:
            raise raised

    def __enter__(self) -> SockServer:
        self._be_adopted()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._stop(leaving.haste(error))
        except BaseException as own:  # Ctrl-C meanwhile
            add_note(own, self._take_failures())
            raise
        failures = self._take_failures()
        failures += issue(self._take_late(), Location().place, raises=error is None and not leaving.is_under_way())
        if error is not None:
            add_note(error, failures)
        elif leaving.is_under_way():  # in the teardown of a fixture of the user's
            leaving.keep(failures)
        elif failures:
            raise combined(failures)

    def _be_adopted(self) -> None:
        """Let pytest's hooks judge it, if a fixture of the user's that outlives a test has made it."""
        if self._fixture is None:
            adopt(self)

    def _take_failures(self) -> list[Failure]:
        """Return what went wrong in all servers and was not told yet; if nothing did, all that is missing."""
        wrong, put_off = self._take_wrong(), self._take_put_off()
        return wrong or put_off + [failure for server in self.servers for failure in server._take_missing()]

    def _take_put_off(self) -> list[Failure]:
        put_off, self._put_off = self._put_off, []
        return put_off

    def _belong_to(self, fixture: str) -> None:
        """Be judged by pytest's hooks from now on, as the fixture's."""
        self._fixture = fixture
        for server in self.servers:
            self._tell_who_judges(server)

    def _let_go(self) -> list[Failure]:
        """Be judged by what stops it alone; return what was put off."""
        self._fixture = None
        for server in self.servers:
            self._tell_who_judges(server)
        return self._take_put_off()

    def _tell_who_judges(self, server: BaseTestServer) -> None:
        server._demands.are_judged_by_hooks = self._fixture is not None

    def _begin_test(self) -> None:
        """Begin to count for a further test, on servers of a wider scope."""
        self._followed = False
        for server in self.servers:
            server._begin_test()

    def _take_wrong(self, *, is_last: bool = True) -> list[Failure]:
        """Return what went wrong in all servers, each once."""
        return [failure for server in self.servers for failure in server._take_wrong(is_last=is_last)]

    def _end_call(self, test: Period, *, has_failed: bool) -> list[Failure]:
        """Return what went wrong; if nothing did, what is missing of what the test demanded.  Its call is over.

        A fixture that was set up after the servers may still bring what is missing, while its connection is open.

        Args:
            has_failed: Then only scripts that are under way say where they stand: what never began is a consequence.
        """
        failures = self._take_wrong(is_last=False)
        is_wrong = bool(failures)
        for server in self.servers:
            server._end_call()
            may_follow = self._followed and server._has_open_connection()
            if is_wrong or (may_follow and has_failed):
                continue
            which = is_under_way if has_failed else is_of_the_call if may_follow else None
            failures += server._take_missing(test, which=which)
        return failures

    def _take_late(self) -> list[Late]:
        """Return what is to be told as warnings, each once."""
        return [late for server in self.servers for late in server._take_late()]

    def _end_period(self, period: Period, *, is_missing_told: bool) -> list[Failure]:
        """Return what went wrong since, and if nothing did, what is missing of what the period demanded; it is over.

        Args:
            is_missing_told: What went wrong is told alone if this is False.
        """
        failures = self._take_wrong(is_last=False)
        is_missing_told = is_missing_told and not failures
        for server in self.servers:
            failures += server._take_missing(period) if is_missing_told else []
            server._demands.end(period)
        return failures

    def _forget(self, period: Period) -> None:
        """Forget what a period demands."""
        for server in self.servers:
            server._demands.end(period)

    def _with_defaults(self, transport: str, options: dict[str, Any]) -> dict[str, Any]:
        return {**fitting(transport, self._defaults), **options}

    def _stream(self, transport: str, options: dict[str, Any], bound: socket.socket | None = None) -> StreamTestServer:
        options_for(transport, options, where=f"sockserver.{transport}()")
        server = StreamTestServer(transport=transport, **self._with_defaults(transport, options))
        self._begin(server, bound)
        return server

    def _datagram(
        self, transport: str, options: dict[str, Any], bound: socket.socket | None = None
    ) -> DatagramTestServer:
        options_for(transport, options, where=f"sockserver.{transport}()")
        server = DatagramTestServer(transport=transport, **self._with_defaults(transport, options))
        self._begin(server, bound)
        return server

    def _begin(self, server: BaseTestServer, bound: socket.socket | None) -> None:
        self._be_adopted()
        server._bound = bound
        self._tell_who_judges(server)
        self.servers.append(server)  # before its start: Ctrl-C in the midst of that is followed by its stop
        try:
            server.start()
        except Exception:
            self.servers.remove(server)
            raise
