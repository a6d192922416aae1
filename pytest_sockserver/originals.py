"""The clock, the locks, the threads and the sockets that are ours, whatever a test puts in place of the names.

Tests freeze ``time.monotonic``, forbid ``socket.socket``, put a mock in the place of ``threading.Thread``; gevent and
eventlet put greenlets in the place of threads.  A deadline must run out all the same, and a server must serve.  So what
the package uses of these modules is bound once, as it was when the plugin was loaded, and all else takes it from here.

Rules:

- The plugin's load copies the modules' dictionaries, which costs next to nothing; the first use takes from the copies.
- It is kept in a class, :class:`original` of ``bound.py``.  freezegun walks through the attributes of every module and
  replaces those which *are* ``time.monotonic``; a class, or a dictionary, it leaves alone.  So no module of the package
  binds one of these by itself.
- What was replaced before we were loaded is found again: functions of C modules in a second copy of the module, which
  the import system makes afresh; the socket class among the subclasses of ``_socket.socket``; ``Thread`` among the
  bases of the main thread's class.
- gevent and eventlet replace names *inside* ``threading``: its own classes use other locks and other threads from then
  on.  So :class:`Condition` and :class:`Event` take their locks from here, and :class:`Thread` starts itself.
- Where greenlets share the caller's thread, a wait may not block it: a client among them would stand still.  There, and
  only there, a wait looks now and then, and sleeps in the library's way between two looks.

Not done: ``os.fork()`` and ``os.waitpid()`` of gevent; a library that patches the process while a server runs.
"""

from __future__ import annotations

import _socket
import selectors
import socket
import sys
import threading
import time
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any, Final

from . import bound
from .bound import named

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket as _Socket
    from threading import Condition as _Condition
    from threading import Thread as _Thread
    from typing import TypeVar

    T = TypeVar("T")
else:
    _Condition, _Thread = bound.original.library_condition, bound.original.library_thread
    _Socket = named(_socket.socket.__subclasses__(), "socket", "socket", socket.socket)
_getaddrinfo: Callable[..., Any] = named([socket.getaddrinfo], "socket", "getaddrinfo", _socket.getaddrinfo)

# Which wait blocks and which looks now and then is decided at each wait, by `greenlets_sleep`: the calling thread may
# run greenlets or not, and a hub may come or go while a server lives.  The threads of a server run none by themselves,
# and block as usual.
#
# A thread of ours that `threading` cannot start (its functions are patched) starts itself, and then does by hand what
# `threading` does for its own: it has a number, an entry in `_natives`, a lock that is held until it ends.  The lock is
# released last of all, since a thread that joins relies on nothing running after it.
#
# A lock-free dict is enough for `_natives`: each thread writes its own key, in one step, and removes it itself.


class original(bound.original):  # a namespace, as a module is
    """What there was of ``time``, ``threading``, ``select`` and ``socket`` before any test.

    The socket class can be found again whenever it was replaced, so it is not looked for when the plugin is loaded:
    not every run of pytest imports ``socket``.
    """

    socket = _Socket
    accept = _Socket.accept
    getaddrinfo = _getaddrinfo


#: Events of poll(2), for the same reason: their values are the same on all systems that have it.
POLLIN: Final = 1
POLLOUT: Final = 4

# Seconds between two looks of a wait in a greenlet: a client's answer takes a tenth of a millisecond at best.
_FIRST_PAUSE, _LONGEST_PAUSE = 1e-4, 2e-3


def clock_is_real() -> bool:
    """Tell whether the clocks that others look at, an event loop among them, are the system's."""
    return time.monotonic is original.monotonic and time.perf_counter is original.perf_counter


# What waits


def greenlets_sleep() -> Callable[[float], object] | None:
    """Return how a greenlet lets others run for some seconds; ``None`` where none share the calling thread."""
    hubs = sys.modules.get("gevent._hub_local")
    if hubs is not None:
        hub = hubs.get_hub_if_exists()
        if hub is not None and not hub.dead and sys.modules["greenlet"].getcurrent() is not hub:
            return sys.modules["gevent"].sleep  # type: ignore[no-any-return]
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None:
        hub = getattr(hubs._threadlocal, "hub", None)
        if hub is not None and sys.modules["greenlet"].getcurrent() is not hub.greenlet:
            return sys.modules["eventlet"].sleep  # type: ignore[no-any-return]
    return None


def looked_for(look: Callable[[], T], seconds: float | None, sleep: Callable[[float], object]) -> T:
    """Look until there is something, or for so many seconds; sleep between two looks.  Return what was seen last."""
    until, pause = None if seconds is None else original.monotonic() + seconds, _FIRST_PAUSE
    while not (seen := look()) and (until is None or original.monotonic() < until):
        sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return seen


def acquired(lock: threading.Lock, seconds: float | None) -> bool:
    """Take a lock; tell whether it was to be had within so many seconds, ``None`` for any number, 0 for at once."""
    # At once first: the usual case costs one call, and asks nothing about greenlets.
    if lock.acquire(False):
        return True
    if seconds is not None and seconds <= 0:
        return False
    sleep = greenlets_sleep()
    if sleep is not None:
        return looked_for(lambda: lock.acquire(False), seconds, sleep)
    return lock.acquire(True, -1 if seconds is None else seconds)


def selected(selector: selectors.BaseSelector, seconds: float | None) -> list[Any]:
    """Return what a selector selects within so many seconds, ``None`` for any number."""
    sleep = greenlets_sleep()
    if sleep is None or (seconds is not None and seconds <= 0):
        return selector.select(seconds)
    return looked_for(lambda: selector.select(0), seconds, sleep)


class Condition(_Condition):
    """``threading.Condition``, with a lock for each wait that is a lock; see the module's head."""

    def __init__(self, lock: Any = None) -> None:
        super().__init__(lock if lock is not None else original.RLock())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until notified, or for so many seconds; tell which.  The lock is let go meanwhile."""
        if not self._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("cannot wait on un-acquired lock")
        bell = original.Lock()
        bell.acquire()
        waiters = self._waiters  # type: ignore[attr-defined]
        waiters.append(bell)
        saved, rung = self._release_save(), False  # type: ignore[attr-defined]
        try:
            rung = acquired(bell, timeout)
            return rung
        finally:
            self._acquire_restore(saved)  # type: ignore[attr-defined]
            # With the lock held again: a notify() in between has taken the bell from the list by itself.
            if not rung and bell in waiters:
                waiters.remove(bell)


class Event:
    """``threading.Event`` over a :class:`Condition` from here."""

    def __init__(self) -> None:
        self._changed = Condition(original.Lock())
        self._flag = False

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._flag

    def set(self) -> None:
        """Set it, and wake all who wait."""
        with self._changed:
            self._flag = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Let who comes from now on wait."""
        with self._changed:
            self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for so many seconds; tell whether it is."""
        with self._changed:
            return self._flag or self._changed.wait(timeout)


# Threads

# Those that were started past a library's greenlets, by number.  Each enters and leaves itself by one step of a dict.
_natives: dict[int, Thread] = {}


def _threading_is_intact() -> bool:
    starts = getattr(threading, "_start_joinable_thread", None) or threading._start_new_thread  # type: ignore[attr-defined]
    if type(starts) is not BuiltinFunctionType:
        return False
    for name, part in original.thread_parts:  # noqa: SIM110 - a generator is five calls, for each thread
        if getattr(threading, name) is not part:
            return False
    return True


class Thread(_Thread):
    """A thread of the system, also where ``threading`` would start a greenlet, or is made of a test's mocks."""

    _ended: Any = None  # a lock, held until it has ended; of a thread that threading did not start

    def __init__(self, **given: Any) -> None:
        original.thread_init(self, **given)

    def start(self) -> None:
        """Start it; return when it runs."""
        if _threading_is_intact():
            return original.thread_start(self)
        if self._ended is not None:
            raise RuntimeError("threads can only be started once")
        self._ended, began = original.Lock(), original.Lock()
        self._ended.acquire()
        began.acquire()
        try:
            original.start_new_thread(self._run_past_greenlets, (began,))
        except BaseException:
            self._ended = None
            raise
        # A second time: the new thread releases it, when it has its number and its entry.
        began.acquire()

    def run(self) -> None:
        """Call its target."""
        original.thread_run(self)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for so many seconds."""
        if self._ended is None:
            return original.thread_join(self, timeout)
        if self._ended.acquire(True, -1 if timeout is None else max(0, timeout)):
            self._ended.release()

    def is_alive(self) -> bool:
        """Tell whether it has begun and not ended."""
        return original.thread_is_alive(self) if self._ended is None else self._ended.locked()

    def _run_past_greenlets(self, began: Any) -> None:
        self._ident = number = original.get_ident()
        _natives[number] = self
        began.release()
        try:
            self.run()
        except SystemExit:
            pass
        except BaseException:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self)))
        finally:
            try:
                _end_hubs()
            finally:
                del _natives[number]
                self._ended.release()


def _end_hubs() -> None:
    """End the loops that user's code has made in this thread: gevent's and eventlet's keep their descriptors else."""
    gevent, eventlet = sys.modules.get("gevent._hub_local"), sys.modules.get("eventlet.hubs")
    if gevent is not None and (hub := gevent.get_hub_if_exists()) is not None:
        hub.destroy(destroy_loop=True)
    if eventlet is not None and (hub := getattr(eventlet._threadlocal, "hub", None)) is not None:
        if hub.running:  # else abort() would start it, for ever
            hub.abort(wait=True)
        del eventlet._threadlocal.hub


def current_thread() -> threading.Thread:
    """Return the calling thread's object."""
    number = original.get_ident()
    known = _natives.get(number) or threading._active.get(number)  # type: ignore[attr-defined]
    return known or original.current_thread()


def running(threads: list[threading.Thread]) -> list[threading.Thread]:
    """Return those of the threads that have not ended.  The number of one that has may be another thread's by now."""
    # The numbers alone: this very frame is among the frames, and to keep it would be a cycle.
    numbers, active = set(sys._current_frames()), threading._active  # type: ignore[attr-defined]
    return [
        thread
        for thread in threads
        if thread.ident in numbers and (thread.is_alive() or active.get(thread.ident) is thread)
    ]


# Sockets


def accept(listener: Any) -> tuple[Any, Any]:
    """Accept a connection as ``listener.accept()`` does, which makes whatever ``socket.socket`` is at that moment."""
    if getattr(type(listener), "accept", None) is not original.accept:
        return listener.accept()  # type: ignore[no-any-return]
    number, address = listener._accept()
    accepted = original.socket(listener.family, listener.type, listener.proto, fileno=number)
    if socket.getdefaulttimeout() is None and listener.gettimeout():
        accepted.setblocking(True)
    return accepted, address


def socketpair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets."""
    if not hasattr(_socket, "socketpair"):  # Windows: the standard library connects two over loopback; not tried there
        return socket.socketpair()
    one, other = _socket.socketpair()
    return original.socket(fileno=one.detach()), original.socket(fileno=other.detach())


def ssl_module() -> Any:
    """Return the module ``ssl`` whose sockets are derived from the socket class, and that no library has patched.

    It is the one that everybody has, but for two cases.  If it is not imported yet while a test has replaced
    ``socket.socket``, the class is put back for the length of the import: a module made of the replacement would stay
    broken for the rest of the run.  If gevent or eventlet have patched it, its classes no longer work without
    greenlets, so a second copy is made, and kept.
    """
    with _making_ssl:
        for module in (sys.modules.get("ssl"), _copies.get("ssl")):
            if module is not None and not _is_patched(module):
                return module
        from importlib.util import find_spec, module_from_spec

        # What follows is seen by the whole process, other threads included; the `finally` keeps it short.
        known, replaced = sys.modules.pop("ssl", None), socket.socket
        socket.socket = original.socket  # type: ignore[misc]
        try:
            if known is None:
                import ssl

                return ssl
            spec = known.__spec__ or find_spec("ssl")
            assert spec is not None and spec.loader is not None
            # It is found by its name while it is made: enum puts the constants where the name leads.
            _copies["ssl"] = sys.modules["ssl"] = copy = module_from_spec(spec)
            spec.loader.exec_module(copy)
            return copy
        finally:
            socket.socket = replaced  # type: ignore[misc]
            if known is not None:
                sys.modules["ssl"] = known


def _is_patched(ssl: Any) -> bool:
    """Tell whether gevent or eventlet have patched a module ``ssl``.

    The classes alone do not tell: eventlet puts the original ones back while it wraps a client's socket, and another
    thread may look at that moment.
    """
    if ssl.SSLSocket.__module__ != "ssl":
        return True
    # Missing while eventlet is imported.  It patches socket and ssl together, and calls that "socket".
    is_monkey_patched = getattr(sys.modules.get("eventlet.patcher"), "is_monkey_patched", None)
    return ssl is sys.modules.get("ssl") and is_monkey_patched is not None and bool(is_monkey_patched("socket"))


_copies: dict[str, Any] = {}
_making_ssl = original.Lock()  # guards _copies
