"""Where a server can be reached: what it binds, and what its clients connect to."""

from __future__ import annotations

import os
import socket
from typing import Any, Final
from urllib.parse import quote

from ..errors.exceptions import InvalidState
from ..errors.location import hide_frame
from ..errors.messages import format_peer
from .address import UnixPlace, checked_host

__tracebackhide__ = hide_frame


#: The addresses that stand for all of a machine's, and what to connect to instead.
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Published:
    """The address of one server.

    Args:
        host, port, path: As the options of a server have them.

    Attributes:
        name: How messages call the server.
        place: The path of a unix socket; ``None`` if it has a host and a port.
        address: What goes into ``connect``; ``None`` before the first start, and kept over stop and start.
    """

    address: Any = None
    place: UnixPlace | None = None

    def __init__(
        self,
        name: str,
        transport: str,
        *,
        host: str,
        port: int,
        path: str | bytes | os.PathLike[str] | None,
        allow_remote: bool,
    ) -> None:
        self.name, self.transport = name, transport
        if transport.startswith("unix"):
            self.place = UnixPlace(path)
        else:
            self.family, self._host = checked_host(host, allow_remote=allow_remote)
            self._port = port

    @property
    def label(self) -> str:
        """What the names of the server's threads have in common."""
        return f"{self.transport} {format_peer(self.address)}"

    def known(self, state: str) -> Any:
        """Return the address.

        Raises:
            InvalidState: The server was never started.
        """
        if self.address is None:
            raise InvalidState(f"{self.name} has no address in state {state!r}: start() it first")
        return self.address

    def inet(self, what: str, state: str) -> Any:
        """Return the pair of host and port, of which ``what`` is asked for.

        Raises:
            InvalidState: It has a path; or was never started.
        """
        if self.place is not None:
            raise InvalidState(f"{self.name} is a {self.transport} server: it has a path, no {what}")
        return self.known(state)

    def path(self, state: str) -> str | bytes:
        """Return the path.

        Raises:
            InvalidState: It has a host and a port; or was never started.
        """
        if self.place is None:
            raise InvalidState(f"{self.name} is a {self.transport} server: it has a host and a port, no path")
        return self.known(state)  # type: ignore[no-any-return]

    def url(self, scheme: str, state: str) -> str:
        """Return the address as a URL."""
        if self.place is None:
            return f"{scheme}://{format_peer(self.known(state))}"
        path = os.fsdecode(self.path(state))
        return f"{scheme}://{quote(path, safe='')}" if scheme.endswith("+unix") else f"{scheme}://{path}"

    def address_of(self, sock: socket.socket | None) -> Any:
        """Return the address at this end of a connection, which only a server on all addresses has to ask for."""
        if sock is None or self.place is not None or self._host not in _WILDCARDS:
            return self.address
        try:
            host, port = sock.getsockname()[:2]
        except OSError:  # macOS, not tried there: of a connection that its client has reset already
            return self.address
        # On a dual-stack socket an IPv4 client's addresses are written as IPv6 (RFC 4291 section 2.5.5.2).
        return host.removeprefix("::ffff:") if "." in host else host, port

    def publish(self, sock: socket.socket) -> None:
        """Note where a bound socket can be reached."""
        if self.place is not None:
            self.address = self.place.path
            return
        host, port = sock.getsockname()[:2]
        self.address = (_WILDCARDS.get(host, host), port)

    def to_bind(self) -> tuple[str, int]:
        """Return host and port to be bound: the port that it had, if it had one."""
        return self._host, self.address[1] if self.address is not None else self._port
