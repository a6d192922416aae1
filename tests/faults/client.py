"""The client that the rows are seen with: plain sockets, and what becomes of them in the words of errno and OpenSSL.

Nothing here looks at a server's own state.  A client is told where a server is, and may tell it to go on.
"""

from __future__ import annotations

import errno
import socket
import ssl
from time import monotonic
from types import TracebackType
from typing import Any

# Seconds.  Nothing on loopback takes so long, on a machine with a hundred times more to do than it can.
PATIENCE = 20.0

# Seconds without anything that count as silence.  A row that must be silent cannot fail by being slow, so few will do.
QUIET = 0.05

SILENCE = "silence"
END = "end"  # of the stream; over TLS by close_notify
RAGGED = "ragged"  # the end of the stream under TLS, without close_notify


def named(error: OSError) -> str:
    """Return one word for what went wrong: of a certificate, of TLS, of time, or of errno."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.replace("self signed", "self-signed")  # as OpenSSL 1.1 says it
    if isinstance(error, ssl.SSLEOFError):
        return RAGGED
    if isinstance(error, ssl.SSLError):
        return str(error.reason)
    if isinstance(error, TimeoutError):
        return SILENCE
    return errno.errorcode.get(error.errno or 0, repr(error))


class Client:
    """Makes sockets to one server, and closes them when it ends."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.transport: str = server.transport
        self.is_datagram = self.transport in ("udp", "unix_datagram")
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for each in self._sockets:
            each.close()

    def kept(self, sock: socket.socket) -> socket.socket:
        """Return a socket that is closed with the others."""
        self._sockets.append(sock)
        return sock

    def socket(self, kind: socket.SocketKind | None = None) -> socket.socket:
        """Return a socket of the server's family; a datagram socket has an address to be answered to."""
        address = self.server.address
        family = socket.AF_UNIX
        if isinstance(address, tuple):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        usual = socket.SOCK_DGRAM if self.is_datagram else socket.SOCK_STREAM
        sock = self.kept(socket.socket(family, kind or usual))
        sock.settimeout(PATIENCE)
        if sock.type == socket.SOCK_DGRAM:
            sock.bind("" if family == socket.AF_UNIX else (address[0], 0))
        return sock

    def plain(self, timeout: float = PATIENCE) -> socket.socket:
        """Return a connected socket; TLS has not begun."""
        sock = self.socket()
        sock.settimeout(timeout)
        sock.connect(self.server.address)
        sock.settimeout(PATIENCE)
        return sock

    def secured(
        self, sock: socket.socket, context: ssl.SSLContext | None = None, name: str = "localhost"
    ) -> ssl.SSLSocket:
        """Do the client's side of a handshake; the end of a stream without close_notify is told from one with it."""
        context = context or self.server.client_context()
        made = context.wrap_socket(sock, server_hostname=name, suppress_ragged_eofs=False)
        self.kept(made)
        return made

    def connected(self) -> socket.socket:
        """Return a connected socket that speaks as the server does."""
        sock = self.plain()
        return self.secured(sock) if self.transport == "tls" else sock

    def attempt(self, timeout: float = PATIENCE) -> str:
        """Connect; return ``"connected"`` or what came instead."""
        try:
            self.plain(timeout)
        except OSError as error:
            return named(error)
        return "connected"

    def shaken(
        self, context: ssl.SSLContext | None = None, *, name: str = "localhost", timeout: float = PATIENCE
    ) -> str:
        """Connect and do a handshake; return ``"secured"`` or what came instead."""
        try:
            sock = self.plain()
            sock.settimeout(timeout)
            self.secured(sock, context, name)
        except OSError as error:
            return named(error)
        return "secured"

    def shaken_on(self, sock: socket.socket) -> str:
        """Do a handshake on a connected socket; return ``"secured"`` or what came instead."""
        try:
            self.secured(sock)
        except OSError as error:
            return named(error)
        return "secured"

    def rest(self, sock: socket.socket, *, hard: bool = False) -> tuple[bytes, str]:
        """Return what comes until the end, and the end.

        Args:
            hard: A reset is expected.  Over TLS any end is taken for one, with or without an error: Python's ``ssl``
                hides ECONNRESET.
        """
        data, end = bytearray(), ""
        while not end:
            try:
                chunk = sock.recv(65536)
            except OSError as error:
                end = named(error)
            else:
                data += chunk
                end = "" if chunk else END
        if hard and self.transport == "tls" and end != SILENCE:
            end = "ECONNRESET"
        return bytes(data), end

    def conversation(self, *said: bytes, hard: bool = False) -> tuple[bytes, str]:
        """Connect, say this, and return what comes until the end, and the end: also one that comes while connecting."""
        try:
            sock = self.connected()
            for each in said:
                sock.sendall(each)
        except ssl.SSLError as error:
            return b"", "ECONNRESET" if hard else named(error)
        except OSError as error:
            return b"", named(error)
        return self.rest(sock, hard=hard)


def read(sock: socket.socket, count: int) -> bytes:
    """Return so many bytes, or what came before the end, of whatever kind."""
    data = bytearray()
    try:
        while len(data) < count and (chunk := sock.recv(count - len(data))):
            data += chunk
    except OSError:
        pass
    return bytes(data)


def after(sock: socket.socket, seconds: float = QUIET) -> bytes | str:
    """Return what comes next within so many seconds: bytes, an end, or ``"silence"``."""
    sock.settimeout(seconds)
    try:
        return sock.recv(65536) or END
    except OSError as error:
        return named(error)
    finally:
        sock.settimeout(PATIENCE)


class Watch:
    """Measures from now on whether a least time has passed."""

    def __init__(self) -> None:
        self._began = monotonic()

    def least(self, seconds: float) -> str:
        """Return ``"in time"`` if it took so long or longer, else how long it took."""
        took = monotonic() - self._began
        return IN_TIME if took >= seconds else f"{took:.6f} s, less than {seconds} s"


IN_TIME = "in time"
