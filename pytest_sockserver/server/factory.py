"""Make servers, and end all of them together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors.location import Location, hide_frame
from ..errors.messages import old_attributes
from ..recording.failures import add_note, combined
from ..transport.address import bind_pair, checked_host
from . import leaving
from .base import BaseTestServer
from .fleet import Fleet
from .late_failures import issue
from .options import NAMES, check_options, fitting, options_for

if TYPE_CHECKING:
    from ..faults.matrix import FaultMatrix
    from .datagram import DatagramTestServer
    from .stream import StreamTestServer

__tracebackhide__ = hide_frame


class SockServer:
    """A factory of running servers.

    Without pytest: ``with SockServer() as sockserver:``; leaving the block stops every server, then raises
    what went wrong in them, unless the block itself raised: that exception gets a note of it.

    Args:
        defaults: Options for every server it makes, as far as they say something to its transport.

    Attributes:
        servers: Those that it has made.
        fleet: What the package itself holds of it; nothing for a test.
    """

    def __init__(self, **defaults: Any) -> None:
        check_options(defaults, NAMES, where="SockServer()")
        self._defaults = defaults
        self.servers: list[BaseTestServer] = []
        self.fleet = Fleet()

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
            stream, datagram = bind_pair(*checked_host(checked.host, allow_remote=checked.allow_remote), checked.rcvbuf)
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
        from .fault_matrix import fault_matrix

        return fault_matrix(client, serve, transport=transport, **self._with_defaults(transport, options))

    def stop(self) -> None:
        """Stop all servers; what went wrong in them stays recorded.

        An error of one server's stop, or Ctrl-C, does not keep the others from being stopped; it is raised then.
        """
        self.fleet.stop(leaving.haste())

    def __enter__(self) -> SockServer:
        self.fleet.be_adopted()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self.fleet.stop(leaving.haste(error))
        except BaseException as own:  # Ctrl-C meanwhile
            add_note(own, self.fleet.take_failures())
            raise
        failures = self.fleet.take_failures()
        failures += issue(self.fleet.take_late(), Location().place, raises=error is None and not leaving.is_under_way())
        if error is not None:
            add_note(error, failures)
        elif leaving.is_under_way():  # in the teardown of a fixture of the user's
            leaving.keep(failures)
        elif failures:
            raise combined(failures)

    def _with_defaults(self, transport: str, options: dict[str, Any]) -> dict[str, Any]:
        return {**fitting(transport, self._defaults), **options}

    def _stream(self, transport: str, options: dict[str, Any], bound: socket.socket | None = None) -> StreamTestServer:
        options_for(transport, options, where=f"sockserver.{transport}()")
        from .stream import StreamTestServer

        server = StreamTestServer(transport=transport, **self._with_defaults(transport, options))
        self._begin(server, bound)
        return server

    def _datagram(
        self, transport: str, options: dict[str, Any], bound: socket.socket | None = None
    ) -> DatagramTestServer:
        options_for(transport, options, where=f"sockserver.{transport}()")
        from .datagram import DatagramTestServer

        server = DatagramTestServer(transport=transport, **self._with_defaults(transport, options))
        self._begin(server, bound)
        return server

    def _begin(self, server: BaseTestServer, bound: socket.socket | None) -> None:
        self.fleet.be_adopted()
        server.service.bound = bound
        self.fleet.add(server.service)
        self.servers.append(server)  # before its start: Ctrl-C in the midst of that is followed by its stop
        try:
            server.start()
        except Exception:
            self.servers.remove(server)
            self.fleet.services.remove(server.service)
            raise
