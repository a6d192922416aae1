"""Run one program against any module that claims to be ``socketserver``, and keep its trace.

A program is a function of the module.  It returns its trace: a list of lines that say what a caller, a client or a
subclass could see, and nothing that may differ between two runs (no port, no time, no thread number).  The same
program on the standard library's module and on another one must return the same trace.

Rules for programs:

- Prefer ``handle_request()`` with the client already queued: one thread, no race.
- A wait has a limit, ``patience()``.  What did not come in time is a line of the trace, never an exception.
- "X waits for Y" cannot be seen without time.  There, and only there, Y gives X ``GRACE`` seconds to be wrong in:
  a slow machine can hide a fault by it, but not invent one.
- Accepted sockets are held by ``accepted()``: only ``close()`` closes them, never the collector of garbage.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import selectors
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

STANDARD = "socketserver"

# Seconds given to what must not happen.  Some hundred times what a fault needs to show on an idle machine.
GRACE = 0.15

# Seconds that any other wait may take: far above a loaded machine's delays, far below a job's limit.
_PATIENCE = 10.0

LOCALHOST = ("127.0.0.1", 0)

Trace = list[str]


# ---------------------------------------------------------------------------------------------------- programs


@dataclass(frozen=True)
class Program:
    """A program, and the row of the contract that it exercises."""

    name: str
    row: str
    function: Callable[[Any], Trace]
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """What this platform lacks of what the program needs."""
        return [need for need in self.needs if not _AVAILABLE[need]()]


PROGRAMS: dict[str, Program] = {}


def program(row: str, *, needs: tuple[str, ...] = ()) -> Callable[[Callable[[Any], Trace]], Callable[[Any], Trace]]:
    """Register the decorated function as a program."""

    def register(function: Callable[[Any], Trace]) -> Callable[[Any], Trace]:
        name = function.__name__
        if name in PROGRAMS:
            raise ValueError(f"two programs are called {name}")
        PROGRAMS[name] = Program(name, row, function, needs)
        return function

    return register


def run(name: str, module: ModuleType) -> Trace:
    """Run the program on *module* and return its trace.

    A forked child that escapes from its server must not go on to run the rest of the suite: it ends here.
    """
    parent = os.getpid()
    with warnings.catch_warnings():
        # Programs that mean to hear of it (defect 35) listen themselves.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        try:
            return PROGRAMS[name].function(module)
        finally:
            if os.getpid() != parent:
                os._exit(70)


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


_AVAILABLE: dict[str, Callable[[], bool]] = {
    "fork": lambda: hasattr(os, "fork"),
    "AF_UNIX": lambda: hasattr(socket, "AF_UNIX"),
    "IPv6": _has_ipv6,
    "Linux": lambda: sys.platform == "linux",
    "allow_reuse_port": lambda: sys.version_info >= (3, 11) and hasattr(socket, "SO_REUSEPORT"),
    "forking unix servers": lambda: sys.version_info >= (3, 12) and hasattr(os, "fork"),
}


# ------------------------------------------------------------------------------------------------------ modules


@contextlib.contextmanager
def fresh_copy(name: str) -> Iterator[ModuleType]:
    """Import the module *name* a second time, submodules included; it is the imported one while the block lasts."""

    def family() -> list[str]:
        return [key for key in sys.modules if key == name or key.startswith(name + ".")]

    kept = {key: sys.modules.pop(key) for key in family()}
    parent, _, leaf = name.rpartition(".")
    try:
        yield importlib.import_module(name)
    finally:
        for key in family():
            del sys.modules[key]
        sys.modules.update(kept)
        if parent and name in kept:
            setattr(sys.modules[parent], leaf, kept[name])


@contextlib.contextmanager
def shadowed(subject: Any, **attributes: Any) -> Iterator[None]:
    """Set attributes of one instance for a while: they hide what its class says."""
    kept = {name: vars(subject)[name] for name in attributes if name in vars(subject)}
    vars(subject).update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            vars(subject).pop(name, None)
        vars(subject).update(kept)


# -------------------------------------------------------------------------------------------------------- waits


def patience() -> float:
    """Seconds that a wait may take."""
    return _PATIENCE


@contextlib.contextmanager
def short_patience(seconds: float) -> Iterator[None]:
    """Wait less: for modules that are known to be broken, whose programs may wait in vain."""
    global _PATIENCE
    kept, _PATIENCE = _PATIENCE, seconds
    try:
        yield
    finally:
        _PATIENCE = kept


def until(claim: Callable[[], Any]) -> bool:
    """Wait until the claim holds; false if it does not in time.  For what no event announces."""
    deadline = time.monotonic() + patience()
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def readable(file: Any, seconds: float = 0) -> bool:
    """Wait so long at most until the file, or number, or server, is readable.  No limit to descriptors: no select()."""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        return bool(selector.select(seconds))


class Call(threading.Thread):
    """A call in a thread of its own, which the trace can report on."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._call = lambda: function(*args)
        self._report = "still running"
        self.start()

    def run(self) -> None:
        try:
            result = self._call()
        except BaseException as error:
            self._report = f"raised {type(error).__name__}"
        else:
            self._report = f"returned {result!r}"
        finally:
            del self._call

    def outcome(self) -> str:
        """Wait for the end, if it comes in time, and say how the call ended."""
        self.join(patience())
        return self._report


class Loop(Call):
    """``serve_forever`` in a thread; leaving the block shuts it down."""

    def __init__(self, server: Any, poll_interval: float = 0.01) -> None:
        self.server = server
        super().__init__(server.serve_forever, poll_interval)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.is_alive():
            Call(self.server.shutdown).outcome()
        self.join(patience())


class Pipe:
    """Bytes from a forked child to its parent, or back."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)  # of two readers, both told that there is something, one gets it

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self.reader)
        os.close(self.writer)

    def tell(self, data: bytes) -> None:
        os.write(self.writer, data)

    def receive(self, seconds: float | None = None) -> bytes:
        """What has been told, or nothing if nothing comes in time."""
        readable(self.reader, patience() if seconds is None else seconds)
        try:
            return os.read(self.reader, 65536)
        except BlockingIOError:
            return b""


# ------------------------------------------------------------------------------------------------------ clients


def connect(server: Any) -> socket.socket:
    """A stream client, connected, with a limit to its patience."""
    client = socket.socket(server.socket.family, socket.SOCK_STREAM)
    client.settimeout(patience())
    client.connect(server.server_address)
    return client


def send(client: socket.socket, data: bytes, *, end: bool = True) -> None:
    """Send all of it; the peer may have gone already."""
    with contextlib.suppress(OSError):
        client.sendall(data)
        if end:
            client.shutdown(socket.SHUT_WR)


def read(client: socket.socket) -> str:
    """Read to the end of the stream, and say what came and how it ended."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except TimeoutError:
        return f"{received!r}, no end"
    except OSError:
        return f"{received!r}, an error"
    return f"{received!r}, the end"


def ask(server: Any, data: bytes = b"") -> str:
    """One whole conversation with a server that runs in another thread."""
    with connect(server) as client:
        send(client, data)
        return read(client)


def serve_one(server: Any) -> Any:
    """``handle_request``, if there is a client.  On a broken server there may be none, and no end of waiting."""
    return server.handle_request() if readable(server, patience()) else "nobody came"


def handle_one(server: Any, data: bytes = b"") -> str:
    """One whole conversation with a server that runs in this thread, by ``handle_request``."""
    with connect(server) as client:
        send(client, data)
        serve_one(server)
        return read(client)


def datagram_client(server: Any, path: str | None = None) -> socket.socket:
    """A datagram client, not connected; *path* binds an ``AF_UNIX`` one."""
    client = socket.socket(server.socket.family, socket.SOCK_DGRAM)
    client.settimeout(patience())
    if path is not None:
        client.bind(path)
    elif client.family == socket.AF_INET:
        client.bind(LOCALHOST)
    return client


def receive(client: socket.socket) -> str:
    """One datagram, if it comes in time."""
    try:
        return repr(client.recv(65536))
    except TimeoutError:
        return "nothing"


def reset(client: socket.socket) -> None:
    """Close with a RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


# ------------------------------------------------------------------------------------------------------ servers


@contextlib.contextmanager
def accepted(server: Any) -> Iterator[list[socket.socket]]:
    """Hold every socket that the server accepts; those left open are closed at the end of the block."""
    requests: list[socket.socket] = []
    get_request = server.get_request

    def get_and_hold() -> Any:
        request, client_address = get_request()
        requests.append(request)
        return request, client_address

    server.get_request = get_and_hold
    try:
        yield requests
    finally:
        for request in requests:
            request.close()


def is_closed(sock: socket.socket) -> bool:
    return sock.fileno() == -1


def leave(server: Any) -> None:
    """Ask the loop to end as a signal handler would: the flag and nothing else."""
    server._BaseServer__shutdown_request = True


def serve_here(module: Any, server: Any) -> Any:
    """``serve_forever`` in this thread, since who forks must not have others; ended when patience is.

    The loop's own selector looks at the clock: of all that a broken loop may leave out, it must come back to this.
    """
    deadline = time.monotonic() + 2 * patience()

    class Selector(module._ServerSelector):
        def select(self, *args: Any, **kwargs: Any) -> Any:
            if time.monotonic() > deadline:
                leave(server)
            return super().select(*args, **kwargs)

    with mock.patch.object(module, "_ServerSelector", Selector):
        return server.serve_forever(0.01)


def expire(server: Any) -> str:
    """How ``handle_request`` ends when no client comes; one comes after all if it does not."""
    call = Call(server.handle_request)
    outcome = call.outcome()
    if call.is_alive():
        with connect(server):
            call.outcome()
    return outcome


def echo(module: Any, base: str = "StreamRequestHandler", **attributes: Any) -> type:
    """A handler class that answers each line in capitals."""

    def handle(self: Any) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())

    return type("Echo", (getattr(module, base),), {"handle": handle, **attributes})


def quiet(module: Any, function: Callable[[Any], Any], base: str = "BaseRequestHandler", **attributes: Any) -> type:
    """A handler class whose ``handle`` is the function."""

    def handle(self: Any) -> None:
        function(self)

    return type("Handler", (getattr(module, base),), {"handle": handle, **attributes})


@contextlib.contextmanager
def directory() -> Iterator[str]:
    """A directory whose path is short enough for ``AF_UNIX`` (108 bytes, unix(7))."""
    path = tempfile.mkdtemp(prefix="conf-")
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def stderr() -> Iterator[io.StringIO]:
    """What is printed on ``sys.stderr`` meanwhile, by whichever thread."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        yield text
