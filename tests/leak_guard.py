"""The leak guard: whatever a test leaves behind is an error of that test.

G4 promises that no thread, descriptor or socket file outlives its server, and every server is to be stopped.  No test
has to ask for it: what is there after the teardown of a test, and was not there before its setup, is reported as an
ERROR at teardown, by name.

Rules:

- What a fixture of a wider scope sets up belongs to that fixture, until the fixture is torn down.  What it opens later,
  during a test, is taken for that test's: open it in the fixture.
- A thread that is just ending is no leak: if something is left, the guard looks again for ``PATIENCE`` seconds.
- An unclosed socket that only a cycle of garbage holds is one: left alone, it would warn during some later test.
- A test that failed is not asked for its sockets: its traceback holds its local variables, clients included.
- After the last test the whole run is judged as well: what a test that failed, or a teardown that broke, left for ever.
- What was reported once is not reported again.

Not seen: pipes and files (they are pytest's, xdist's and the event loops' own), and sockets where there is no /proc.
"""

from __future__ import annotations

import gc
import os
import re
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Generator, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Seconds that something may take to end after the teardown.  Threads of a loaded machine took 0.1.
PATIENCE = 2.0

# ------------------------------------------------------------------------------------------------ what can be left


@dataclass(frozen=True)
class Descriptor:
    """An open socket.  The inode tells it from an older socket with the same number."""

    fd: int
    inode: str

    def __str__(self) -> str:
        try:
            copy = Socket(fileno=os.dup(self.fd))
        except OSError:
            return f"socket, fd {self.fd}"
        with copy:
            return f"{described(copy)}, fd {self.fd}"


# pytest-socket puts another class in its place.
Socket = socket.socket


def described(sock: socket.socket) -> str:
    """Say which socket this is: ``tcp 127.0.0.1:41013 listening``, ``unix stream /tmp/x -> (no name)``."""
    # A family or a type that Python does not know is a plain int.
    family, kind = (getattr(each, "name", str(each)) for each in (sock.family, sock.type))
    what = NAMES.get(f"{family} {kind}", f"{family} {kind}")
    try:
        return f"{what} {shown(sock.getsockname())} -> {shown(sock.getpeername())}"
    except OSError:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return f"{what} {shown(sock.getsockname())} {'listening' if listens else 'not connected'}"


NAMES = {
    "AF_INET SOCK_STREAM": "tcp",
    "AF_INET6 SOCK_STREAM": "tcp",
    "AF_INET SOCK_DGRAM": "udp",
    "AF_INET6 SOCK_DGRAM": "udp",
    "AF_UNIX SOCK_STREAM": "unix stream",
    "AF_UNIX SOCK_DGRAM": "unix datagram",
}


def shown(address: Any) -> str:
    """Format the address of any family: ``127.0.0.1:80``, ``[::1]:80``, a path, ``@`` and an abstract name."""
    if isinstance(address, tuple) and isinstance(address[0], str):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(address, bytes):
        return "@" + os.fsdecode(address.lstrip(b"\0"))
    return str(address or "(no name)")


def sockets() -> Iterator[Descriptor]:
    """The sockets that this process has open.  Where there is no /proc: none."""
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return
    for number in numbers:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # closed meanwhile; the listing's own descriptor always is
            continue
        if target.startswith("socket:"):
            yield Descriptor(int(number), target)


def threads() -> Iterator[threading.Thread]:
    """The threads that are running, but for those that nobody can end."""
    for thread in threading.enumerate():
        # Stands for a thread that Python did not start; up to 3.12 it stays listed when that thread has ended.
        foreign = isinstance(thread, threading._DummyThread)
        # trio keeps finished workers of to_thread.run_sync for ten seconds, under this name.
        idle_in_trio = thread.daemon and thread.name.startswith("Trio thread ")
        # The timer of a test, under --timeout-method=thread: cancelled after the guard has looked.
        timer = thread.name.startswith("pytest_timeout ")
        if not foreign and not idle_in_trio and not timer:
            yield thread


def directories() -> Iterator[Path]:
    """The directories of unix sockets that this process made, and not another worker of xdist."""
    # Under a long TMPDIR a socket's path would be too long: they are in /tmp then.
    for parent in {tempfile.gettempdir(), "/tmp"}:
        if os.path.isdir(parent):
            names = os.listdir(parent)
            yield from (Path(parent, name) for name in names if name.startswith(f"sockserver-{os.getpid()}-"))


@dataclass(frozen=True)
class Running:
    """A server that was started and not stopped.  The number stands for it, so that the guard keeps no server."""

    number: int
    text: str = field(compare=False)

    def __str__(self) -> str:
        return f"server {self.text}"


def servers() -> Iterator[Running]:
    """The servers that run in this process.  Where the package was not imported: none."""
    if (module := sys.modules.get("pytest_sockserver.server.forgotten")) is not None:
        yield from (Running(number, f"{name}, started at {place}") for number, name, place in module.running())


def snapshot() -> set[Hashable]:
    """Everything of these kinds that is there now."""
    return {*threads(), *sockets(), *directories(), *servers()}


def named(leftovers: set[Hashable]) -> str:
    """One line for each leftover.  A lone surrogate, of a file name say, would end a run of pytest-xdist."""
    text = "\n".join(sorted(f"  {line(each)}" for each in leftovers))
    return text.encode("utf-8", "backslashreplace").decode()


def line(leftover: Hashable) -> str:
    if isinstance(leftover, threading.Thread):
        frame = sys._current_frames().get(leftover.ident or 0)
        where = "" if frame is None else f", in {frame.f_code.co_name} at {frame.f_code.co_filename}:{frame.f_lineno}"
        return f"thread {leftover.name!r}{' (daemon)' if leftover.daemon else ''}{where}"
    if isinstance(leftover, Path):
        return f"directory {leftover} holding {sorted(os.listdir(leftover)) if leftover.is_dir() else 'nothing'}"
    return str(leftover)


# ------------------------------------------------------------------------------------------------------- the guard


class LeakGuard:
    """Compares what is there after a test with what was there before it, and after the run with before the run."""

    def __init__(self) -> None:
        self.before_run: set[Hashable] | None = None
        self.before_test: set[Hashable] | None = None
        self.reported: set[Hashable] = set()
        self.of_wider_fixture: dict[pytest.FixtureDef[Any], set[Hashable]] = {}
        self.failed = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        self.before_test = snapshot()
        if self.before_run is None:
            self.before_run = set(self.before_test)
        self.failed = False
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, object, object]:
        self.failed = self.failed or call.excinfo is not None
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        if fixturedef.scope == "function" or self.before_test is None:
            return (yield)
        before = snapshot()
        try:
            return (yield)
        finally:
            # What another such fixture made, that this one asked for in its body, is already in that one's name.
            made = snapshot().difference(before, *self.of_wider_fixture.values())
            self.of_wider_fixture[fixturedef] = made
            self.before_test |= made

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        made = self.of_wider_fixture.pop(fixturedef, set())
        if self.before_test is not None:
            self.before_test -= made

    # First in, last out: every finalizer has run.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> Generator[None, object, object]:
        result = yield
        before, self.before_test = self.before_test, None
        if before is None or self.before_run is None:
            return result
        known = before if nextitem is not None else before & self.before_run
        if self.failed:
            known = known.union(sockets())
        leftovers = self.left(known | self.reported, before)
        self.reported |= leftovers
        complaints = []
        if of_test := leftovers - before:
            complaints.append(f"left behind by the test or its fixtures:\n{named(of_test)}")
        if of_run := leftovers & before:
            complaints.append(f"left behind by earlier tests:\n{named(of_run)}")
        if complaints:
            pytest.fail("\n".join(complaints), pytrace=False)
        return result

    def left(self, known: set[Hashable], before: set[Hashable]) -> set[Hashable]:
        """Return what is there and not ``known``, and stays; and which new sockets only garbage held."""
        leftovers = snapshot() - known
        if not leftovers:
            return leftovers
        unclosed = unclosed_garbage(leftovers - before)
        deadline = time.monotonic() + PATIENCE
        while (leftovers := snapshot() - known) and time.monotonic() < deadline:
            time.sleep(0.01)
        return leftovers | unclosed


def unclosed_garbage(suspects: set[Hashable]) -> set[Hashable]:
    """Collect the garbage now, and return what it warns of.  Later that would be blamed on another test."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        # An inner run of pytest, in this process, leaves its failure for a debugger, and so that test's variables.
        inner_failed = [sys.__dict__.pop(name, None) for name in LAST_FAILURE] != [None] * len(LAST_FAILURE)
        gc.collect()
    if inner_failed:
        return set()
    numbers = {each.fd for each in suspects if isinstance(each, Descriptor)}
    texts = [str(each.message) for each in caught]
    return {text for text in texts if (match := re.search(r"\bfd=(\d+)", text)) and int(match[1]) in numbers}


LAST_FAILURE = ("last_type", "last_value", "last_traceback", "last_exc")
