"""Wake a thread that is blocked in ``select()``.

The standard library's loop notices ``shutdown()`` when its poll of 0.5 s is over; a test suite pays that for each
server.  Here a write to a descriptor ends the poll at once: on Linux to a counter of the kernel (eventfd(2)), elsewhere
to one end of a pair of sockets.  Not to a pipe, because on Windows ``select()`` takes sockets only.

Rules:

- It lives as long as one run of the loop: a server that does not serve holds no extra descriptor.
- ``wake()`` may be called from any thread and from a signal handler, also after ``close()``.
- A forked child shares it with its parent.  There ``wake()`` and ``drain()`` do nothing: the parent must not notice
  what its child does.
"""

from __future__ import annotations

import os

from ..originals import original, socketpair


class _Counter:
    """A counter of the kernel's: readable while it is not zero."""

    def __init__(self) -> None:
        self._number = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._number

    def write(self) -> None:
        os.eventfd_write(self._number, 1)

    def read(self) -> None:
        os.eventfd_read(self._number)

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)


class _Pair:
    """A pair of sockets: its reading end is readable while there are bytes."""

    def __init__(self) -> None:
        self._reader, self._writer = socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def write(self) -> None:
        self._writer.send(b"\0")

    def read(self) -> None:
        self._reader.recv(4096)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


_make = _Counter if hasattr(os, "eventfd") else _Pair


class Wakeup:
    """What is selected by the loop, and made readable by ``wake()``.

    Created by the thread that runs the loop; ``thread`` is that thread's ident and ``pid`` its process.
    """

    def __init__(self) -> None:
        self.pid = original.getpid()
        self.thread = original.get_ident()
        self._signal = _make()
        # Guards it: a write that has released the GIL while another thread closes may hit a descriptor that by then
        # belongs to somebody else.  Re-entrant, since a signal handler may interrupt wake() to call it.
        self._lock = original.RLock()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable; -1 after ``close()``."""
        return self._signal.fileno()

    def in_this_process(self) -> bool:
        """Return whether it was created by this process, not inherited by ``fork()``."""
        return self.pid == original.getpid()

    def in_this_thread(self) -> bool:
        """Return whether the caller is the thread that runs the loop."""
        return self.in_this_process() and self.thread == original.get_ident()

    def wake(self) -> None:
        """Make the loop's ``select()`` return.  Any thread, signal handlers included; never blocks on the network."""
        if not self.in_this_process():
            return
        with self._lock:
            if self._signal.fileno() < 0:
                return
            try:
                self._signal.write()
            except BlockingIOError:
                pass  # thousands of wake-ups are pending already; one is enough

    def drain(self) -> None:
        """Take the pending wake-ups, so that the next ``select()`` blocks again.  The loop's thread only."""
        if not self.in_this_process():
            return
        try:
            self._signal.read()
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close it.  In a forked child this closes the child's copies, which the parent does not see."""
        if not self.in_this_process():
            # Without the lock: a thread that exists only in the parent may have held it when the child was forked.
            self._signal.close()
            return
        with self._lock:
            self._signal.close()
