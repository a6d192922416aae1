"""Where a server listens: choosing, binding and giving back an address.

A port is never "found free and bound later": that collided 5 times in 16,000.  It is bound here, and stays
bound for as long as it is published.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from ..errors.exceptions import AddressUnavailable
from ..errors.location import hide_frame
from ..errors.messages import format_peer
from ..originals import original
from ..recording.recorder import DEFAULT_RECORD_LIMIT

__tracebackhide__ = hide_frame


#: Bytes of a unix socket's path, the final NUL taken off: sun_path has 108 on Linux, 104 on the BSDs and macOS.
PATH_LIMIT: Final = 107 if sys.platform == "linux" else 103

#: How often a TCP port is looked for whose UDP twin is free.  With 2,000 UDP ports taken 8 in 100 tries fail.
_PAIR_TRIES: Final = 20

_LOOPBACK_NAMES: Final = {"localhost", "ip6-localhost", "ip6-loopback"}


def checked_host(host: str, *, allow_remote: bool) -> tuple[socket.AddressFamily, str]:
    """Return the family and the numeric host to bind.

    Raises:
        ValueError: The host is not this machine's loopback, and ``allow_remote=True`` was not said.
        AddressUnavailable: The machine has no IPv6.
    """
    if host in _LOOPBACK_NAMES:
        host = "::1" if host.startswith("ip6") else "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not allow_remote:
            raise ValueError(
                f"host {host!r} is not a local address: expected one of 127.0.0.0/8, '::1' or 'localhost'; "
                "pass allow_remote=True to listen elsewhere"
            ) from None
        return _resolved(host)
    if not address.is_loopback and not allow_remote:
        raise ValueError(
            f"host {host!r} is not local: other machines could connect to it; expected one of 127.0.0.0/8 or '::1'; "
            "pass allow_remote=True if that is meant"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return family, str(address)  # one spelling: "::0" is "::"


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        family, _, _, _, address = original.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise AddressUnavailable(error.errno, f"host {host!r} has no address: {error.strerror}") from None
    return socket.AddressFamily(family), str(address[0])


def bind_stream(family: socket.AddressFamily, host: str, port: int, rcvbuf: int | None) -> socket.socket:
    """Return a TCP socket bound to a port by its number, not listening yet.

    A socket that was bound to port 0 loses its port when the listener is shut down, and listens on another
    one afterwards (Linux); one bound to a number keeps it, which is what ``refuse()`` needs.  So a first
    socket finds the number, the listener is bound to it beside that, and the first one goes.
    """
    if port:
        return _bound(family, socket.SOCK_STREAM, (host, port), rcvbuf, reuse=os.name == "posix")
    with _bound(family, socket.SOCK_STREAM, (host, 0), None, reuse=os.name == "posix") as first:
        if os.name != "posix":
            return _rebuilt(first)
        return _bound(family, socket.SOCK_STREAM, first.getsockname(), rcvbuf, reuse=True)


def bind_datagram(
    family: socket.AddressFamily, host: str, port: int, rcvbuf: int | None, *, reuse: bool = False
) -> socket.socket:
    """Return a bound UDP socket; with ``reuse`` beside another one of ours."""
    return _bound(family, socket.SOCK_DGRAM, (host, port), rcvbuf, reuse=reuse)


def enlarge(sock: socket.socket) -> None:
    """Give a datagram socket the largest receive buffer that the system grants: what finds no room in it is lost.

    Linux grants what net.core.rmem_max allows (socket(7)), and other systems refuse what is above their limit.  Not by
    SO_RCVBUFFORCE: what a test loses would depend on who runs it.
    """
    size = DEFAULT_RECORD_LIMIT  # more could not be recorded
    while size > 65536:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            return
        size //= 2


def bind_pair(family: socket.AddressFamily, host: str, rcvbuf: int | None) -> tuple[socket.socket, socket.socket]:
    """Return a TCP and a UDP socket bound to the same port number, as DNS wants them."""
    for _ in range(_PAIR_TRIES):
        stream = bind_stream(family, host, 0, rcvbuf)
        try:
            return stream, bind_datagram(family, host, stream.getsockname()[1], rcvbuf)
        except AddressUnavailable as error:
            stream.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise AddressUnavailable(
        errno.EADDRINUSE, f"no port of {host} was free for both TCP and UDP in {_PAIR_TRIES} tries: give port="
    )


def _bound(
    family: socket.AddressFamily, kind: socket.SocketKind, address: Any, rcvbuf: int | None, *, reuse: bool
) -> socket.socket:
    sock = _made(family, kind)
    try:
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets two servers share a port otherwise
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if rcvbuf is not None:  # before listen(): accepted sockets inherit it, and TCP sizes its window by it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise explained(error, kind, address) from None
    return sock


def _made(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    try:
        if socket.socket.__module__ == "pytest_socket":  # which says of each family whether it may be
            socket.socket(family, kind).close()
        return original.socket(family, kind)
    except OSError as error:
        if family == socket.AF_INET6:
            raise AddressUnavailable(
                error.errno, f"this machine ({sys.platform}) has no IPv6: use host='127.0.0.1'"
            ) from None
        raise
    except RuntimeError as error:
        if type(error).__module__ != "pytest_socket":
            raise
        flag = "--allow-unix-socket" if family == getattr(socket, "AF_UNIX", None) else "--allow-hosts=127.0.0.1,::1"
        raise AddressUnavailable(
            errno.EACCES,
            f"pytest-socket blocks this test's sockets: run pytest with {flag}, "
            "or mark the test with @pytest.mark.enable_socket",
        ) from error


def _rebuilt(sock: socket.socket) -> socket.socket:
    return original.socket(sock.family, sock.type, sock.proto, sock.detach())


def explained(error: OSError, kind: socket.SocketKind, address: Any) -> AddressUnavailable:
    """Return the error of a bind or listen that says who has the address, or what to use instead."""
    place = format_peer(address) if isinstance(address, tuple) else _shown(address)
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(address[1], kind) if isinstance(address, tuple) else None
        by = f" by {holder}" if holder else ""
        what = f"{place} is taken{by}: use port=0, and the port the server then has"
        if not isinstance(address, tuple):
            what = f"{place} exists already: use another path=, or none"
    elif error.errno in (errno.EACCES, errno.EPERM) and isinstance(address, tuple):
        what = f"{place} is a privileged port, below 1024: use port=0, and the port the server then has"
    elif error.errno == errno.EADDRNOTAVAIL:
        what = f"{place} is no address of this machine: use host='127.0.0.1'"
        if isinstance(address, tuple) and ":" in str(address[0]):
            what = f"{place} is no address of this machine ({sys.platform}), is IPv6 off?  Use host='127.0.0.1'"
    else:
        what = f"{place} cannot be bound: {error.strerror}"
    return AddressUnavailable(error.errno, what)


def holder_of(port: int, kind: socket.SocketKind) -> str | None:
    """Return who has a port, as ``process 1234 (redis-server)``; ``None`` where that cannot be told (not Linux)."""
    inodes = set()
    for table in ("tcp", "tcp6") if kind == socket.SOCK_STREAM else ("udp", "udp6"):
        with contextlib.suppress(OSError):
            for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                column = row.split()
                # Listening or not: a client's connection has its port as well.  One that nobody owns has inode 0.
                if int(column[1].rpartition(":")[2], 16) == port and column[9] != "0":
                    inodes.add(f"socket:[{column[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with contextlib.suppress(OSError):
            if any(_link(each) in inodes for each in (process / "fd").iterdir()):
                mine = ", this process" if int(process.name) == os.getpid() else ""
                return f"process {process.name} ({(process / 'comm').read_text().strip()}{mine})"
    return None


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # a descriptor that was closed meanwhile


class UnixPlace:
    """A path for a unix socket: the user's, an abstract name, or one in a private directory that goes with it.

    A relative path is made absolute at once, since the working directory may change.  One that is too long then stays
    relative for the kernel, which has no other way to it; the file is removed by its absolute path all the same.

    Attributes:
        path: What the socket is bound to, and what a client connects to.
        file: The socket's file, absolute; an abstract name is no file.

    Raises:
        ValueError: The path is too long for the kernel.
        AddressUnavailable: The platform has no unix sockets.
    """

    def __init__(self, path: str | bytes | os.PathLike[str] | None) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise AddressUnavailable(
                errno.EAFNOSUPPORT, f"Python has no unix sockets on {sys.platform}: use tcp_server or udp_server"
            )
        self.private = path is None
        self.directory: Path | None = None  # made when the socket is bound, and goes with it
        self.bound: tuple[int, int] | None = None  # device and inode of the socket file that is ours
        self._only_from: str | None = None  # the working directory in which a path that stays relative means the file
        self.path: str | bytes = "" if path is None else os.fspath(path)
        self.file = self.path
        if path is not None:
            self._check()
            self._make_absolute()

    @property
    def abstract(self) -> bool:
        """Whether this is a name of Linux's abstract namespace: it begins with a NUL and is no file."""
        return self.path[:1] in ("\0", b"\0")

    def bind(self, kind: socket.SocketKind, rcvbuf: int | None) -> socket.socket:
        """Return a socket bound to the path."""
        if self.private:
            self._make_directory()
        if self._only_from is not None and self._only_from != os.getcwd():
            raise AddressUnavailable(
                errno.ENAMETOOLONG,
                f"{_shown(self.path)} was relative to {self._only_from!r}, which is no longer the working directory, "
                f"and its absolute path is longer than {PATH_LIMIT} bytes: go back there, or give a shorter path=",
            )
        address: str | bytes = self.path
        self._unlink_ours()  # left by a listener of ours that was closed to refuse connections
        if self.path in ("\0", b"\0"):
            address = ""  # autobind: the kernel chooses an abstract name (unix(7))
        sock = _bound(socket.AF_UNIX, kind, address, rcvbuf, reuse=False)
        if self.abstract:
            self.path = sock.getsockname()
        else:
            status = os.stat(self.file)
            self.bound = status.st_dev, status.st_ino
        return sock

    def _make_absolute(self) -> None:
        if self.abstract or os.path.isabs(self.path):
            return
        directory, name = os.path.split(os.fsdecode(self.path))
        absolute = os.path.join(os.path.realpath(directory), name)  # not abspath(): before .. there may be a link
        self.file = absolute if isinstance(self.path, str) else os.fsencode(absolute)
        if len(os.fsencode(self.file)) <= PATH_LIMIT:
            self.path = self.file
        else:
            self._only_from = os.getcwd()

    def _make_directory(self) -> None:
        if self.directory is not None:  # published already: the same one again
            self.directory.mkdir(mode=0o700, exist_ok=True)
            return
        base = tempfile.gettempdir()
        # Never below pytest's tmp_path: it is deep, and a socket's path is short.
        room = PATH_LIMIT - len("/sockserver-1234567-abcdefgh/s")
        base = base if len(base) <= room else "/tmp"
        self.directory = Path(tempfile.mkdtemp(prefix=f"sockserver-{os.getpid()}-", dir=base))  # which makes it 0700
        self.path = self.file = str(self.directory / "s")

    def release(self) -> OSError | None:
        """Remove what was made: the socket file, unless somebody has put another one there, and the directory.

        Returns:
            Why something is still there.
        """
        try:
            self._unlink_ours()
            if self.directory is not None:
                shutil.rmtree(self.directory)
        except FileNotFoundError:
            pass  # it is gone already
        except OSError as error:
            return error
        return None

    def unlink(self) -> None:
        """Remove the socket file, unless somebody has put another one there; the directory stays."""
        self._unlink_ours()

    def _unlink_ours(self) -> None:
        bound, self.bound = self.bound, None
        if bound is not None:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(self.file)
                if (status.st_dev, status.st_ino) == bound:
                    os.unlink(self.file)

    def _check(self) -> None:
        raw = os.fsencode(self.path)
        if self.abstract and sys.platform != "linux":
            raise AddressUnavailable(
                errno.EAFNOSUPPORT, f"abstract unix names are Linux's alone, and this is {sys.platform}: give a path"
            )
        if len(raw) > PATH_LIMIT:
            raise ValueError(
                f"path is {len(raw)} bytes long, a unix socket's has at most {PATH_LIMIT} on {sys.platform}: "
                f"{_shown(self.path)}; give none for a short one, instead of one below tmp_path"
            )
        if not raw:
            raise ValueError("path must not be empty: give none for a private one, or '\\0' for an abstract one")


def _shown(path: Any) -> str:
    return repr(path if isinstance(path, str) else os.fsdecode(path))
