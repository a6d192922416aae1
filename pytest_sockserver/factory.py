"""Make servers, and end all of them together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import leaving
from .addresses import bind_pair, checked_host
from .base_server import BaseTestServer
from .datagram_server import DatagramTestServer
from .failures import Failure, add_note, combined
from .options import NAMES, check_options, fitting, options_for
from .stream_server import StreamTestServer

if TYPE_CHECKING:
    from .checkup import Checkup


class SockServer:
    """A factory of running servers.

    Without pytest: ``with SockServer() as sockserver:``; leaving the block stops every server, then raises
    what went wrong in them, unless the block itself raised: that exception gets a note of it.

    Args:
        defaults: Options for every server it makes, as far as they say something to its transport.
    """

    def __init__(self, **defaults: Any) -> None:
        __tracebackhide__ = True
        check_options(defaults, NAMES, where="SockServer()")
        self._defaults = defaults
        self.servers: list[BaseTestServer] = []
        self._fixture: str | None = None  # the name of the pytest fixture that it is
        self._followed = False  # another fixture was set up after it

    def tcp(self, **options: Any) -> StreamTestServer:
        """Return a running TCP server.

        Args:
            options: ``host port framing timeout stop_timeout tls rcvbuf mss backlog record_limit max_frame allow_remote
                name``.
        """
        __tracebackhide__ = True
        return self._stream("tcp", options)

    def tls(self, **options: Any) -> StreamTestServer:
        """Return a running TCP server whose connections speak TLS from the first byte.

        Args:
            options: Those of :meth:`tcp`.  ``tls`` is a ``TLS``, a ``Certificate``, or an ``ssl.SSLContext`` of yours;
                without it the certificate is for localhost, by an authority that ``client_context()`` trusts.

        Raises:
            ImportError: trustme, which makes certificates, is not installed.
        """
        __tracebackhide__ = True
        return self._stream("tls", options)

    def unix(self, **options: Any) -> StreamTestServer:
        r"""Return a running server on a unix stream socket.

        Args:
            options: ``path timeout stop_timeout rcvbuf backlog record_limit max_frame name``.  Without ``path``
                the socket has a short one in a private directory, removed afterwards; ``"\0name"`` is an abstract
                name, and ``"\0"`` one that the kernel chooses (Linux).
        """
        __tracebackhide__ = True
        return self._stream("unix", options)

    def udp(self, **options: Any) -> DatagramTestServer:
        """Return a running UDP server.

        Args:
            options: ``host port timeout stop_timeout rcvbuf record_limit allow_remote name``.
        """
        __tracebackhide__ = True
        return self._datagram("udp", options)

    def unix_datagram(self, **options: Any) -> DatagramTestServer:
        """Return a running server on a unix datagram socket; options are those of :meth:`unix` less two."""
        __tracebackhide__ = True
        return self._datagram("unix_datagram", options)

    def tcp_and_udp(self, **options: Any) -> tuple[StreamTestServer, DatagramTestServer]:
        """Return a TCP and a UDP server on one port number, as DNS wants.

        Args:
            options: Those of :meth:`tcp`; each server takes what says something to it.
        """
        __tracebackhide__ = True
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

    def check_up(
        self, client: Callable[[Any], Any], serve: Callable[[Any], object], *, transport: str = "tcp", **options: Any
    ) -> Checkup:
        """Run ``client`` under every fault that the transport can show; return what it made of each: a table.

        ``client`` is called with a server, and ``serve`` before it, to declare what that answers when nothing is wrong.
        Options of the factory hold here as well; the others, ``patience`` among them, are those of
        :func:`pytest_sockserver.check_up`.
        """
        __tracebackhide__ = True
        from .checkup import check_up

        return check_up(client, serve, transport=transport, **self._with_defaults(transport, options))

    def stop(self) -> None:
        """Stop all servers; what went wrong in them stays recorded."""
        self._stop(leaving.haste())

    def _stop(self, haste: leaving.Haste | None) -> None:
        """Stop all servers; Ctrl-C meanwhile is raised when all are stopped, in haste."""
        interrupt: BaseException | None = None
        for server in reversed(self.servers):
            try:
                server._stop(haste)
            except Exception:
                raise
            except BaseException as error:
                interrupt, haste = interrupt or error, haste or leaving.Haste()
        if interrupt is not None:
            raise interrupt

    def __enter__(self) -> SockServer:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        __tracebackhide__ = True
        try:
            self._stop(leaving.haste(error))
        except BaseException as own:  # Ctrl-C meanwhile
            add_note(own, self._take_failures())
            raise
        failures = self._take_failures()
        if error is not None:
            add_note(error, failures)
        elif leaving.is_under_way():  # in the teardown of a fixture of the user's
            leaving.keep(failures)
        elif failures:
            raise combined(failures)

    def _take_failures(self, *, is_over: bool | None = None, alone: bool = True) -> list[Failure]:
        """Return what went wrong in all servers and was not told yet; if nothing did, what is missing.

        Args:
            is_over: The test's call is over, and not yet its teardown: a fixture that was set up after the servers may
                still bring what is missing, while its connection is open.  ``False`` if not even the call is.
            alone: The test has not failed by itself; else only scripts that are under way say where they stand, since
                what never began is a consequence.
        """
        failures = [failure for server in self.servers for failure in server._take_failures(missing=False)]
        if failures or is_over is False:
            return failures
        for server in self.servers:
            if is_over:
                server._end_call()
            if is_over is None or not self._followed or not server._has_open_connection():
                since = server._judged_from if is_over else 0.0
                failures += server._take_failures(since=since) if alone else server._under_way(since)
        return failures

    def _with_defaults(self, transport: str, options: dict[str, Any]) -> dict[str, Any]:
        return {**fitting(transport, self._defaults), **options}

    def _stream(self, transport: str, options: dict[str, Any], bound: socket.socket | None = None) -> StreamTestServer:
        __tracebackhide__ = True
        options_for(transport, options, where=f"sockserver.{transport}()")
        server = StreamTestServer(transport=transport, **self._with_defaults(transport, options))
        self._begin(server, bound)
        return server

    def _datagram(
        self, transport: str, options: dict[str, Any], bound: socket.socket | None = None
    ) -> DatagramTestServer:
        __tracebackhide__ = True
        options_for(transport, options, where=f"sockserver.{transport}()")
        server = DatagramTestServer(transport=transport, **self._with_defaults(transport, options))
        self._begin(server, bound)
        return server

    def _begin(self, server: BaseTestServer, bound: socket.socket | None) -> None:
        __tracebackhide__ = True
        server._bound = bound
        self.servers.append(server)  # before its start: Ctrl-C in the midst of that is followed by its stop
        try:
            server.start()
        except Exception:
            self.servers.remove(server)
            raise
