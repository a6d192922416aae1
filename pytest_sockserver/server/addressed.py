"""Where a server can be reached: its address, as each kind of client wants it."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import quote

from ..errors.exceptions import InvalidState
from ..errors.messages import format_peer
from ..transport.address import UnixPlace
from .options import Options

#: The addresses that stand for all of a machine's, and what to connect to instead.
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Addressed:
    """The part of a test server that says where it is."""

    name: str
    transport: str
    options: Options
    _state: str
    _host: str
    _place: UnixPlace | None
    _published: Any  # the address, kept over stop() and start()

    @property
    def address(self) -> Any:
        """What goes into ``connect``: a pair of host and port, or the path of a unix socket.

        Stays the same over ``stop()`` and ``start()``.

        Raises:
            InvalidState: The server was never started.
        """
        if self._published is None:
            raise InvalidState(f"{self.name} has no address in state {self._state!r}: start() it first")
        return self._published

    @property
    def host(self) -> str:
        """The host of the address."""
        return str(self._inet("host")[0])

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self._inet("port")[1])

    @property
    def path(self) -> str | bytes:
        """The path of a unix socket, absolute; an abstract name is bytes that begin with a NUL.

        A ``path=`` that was relative, and is too long as an absolute one, stays as it was given.
        """
        if self._place is None:
            raise InvalidState(f"{self.name} is a {self.transport} server: it has a host and a port, no path")
        return self.address  # type: ignore[no-any-return]

    def url(self, scheme: str) -> str:
        """Return the address as a URL: ``http://127.0.0.1:41013``, ``redis://[::1]:41013``, ``unix:///tmp/x/s``.

        On unix sockets a scheme that ends in ``+unix`` has the path quoted as its host.
        """
        if self._place is None:
            return f"{scheme}://{format_peer(self.address)}"
        path = os.fsdecode(self.path)
        return f"{scheme}://{quote(path, safe='')}" if scheme.endswith("+unix") else f"{scheme}://{path}"

    def _address_of(self, sock: socket.socket | None) -> Any:
        """Return the address at this end of a connection, which only a server on all addresses has to ask for."""
        if sock is None or self._place is not None or self._host not in _WILDCARDS:
            return self._published
        try:
            host, port = sock.getsockname()[:2]
        except OSError:  # macOS, not tried there: of a connection that its client has reset already
            return self._published
        # On a dual-stack socket an IPv4 client's addresses are written as IPv6 (RFC 4291 section 2.5.5.2).
        return host.removeprefix("::ffff:") if "." in host else host, port

    def _inet(self, what: str) -> Any:
        if self._place is not None:
            raise InvalidState(f"{self.name} is a {self.transport} server: it has a path, no {what}")
        return self.address

    def _publish(self, sock: socket.socket) -> None:
        if self._place is not None:
            self._published = self._place.path
            return
        host, port = sock.getsockname()[:2]
        self._published = (_WILDCARDS.get(host, host), port)

    def _place_to_bind(self) -> tuple[str, int]:
        return self._host, self._published[1] if self._published is not None else self.options.port
