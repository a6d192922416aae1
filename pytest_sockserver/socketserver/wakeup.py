"""Wake a thread that is blocked in ``select()``.

The standard library's loop notices ``shutdown()`` when its poll of 0.5 s is over; a test suite pays that for each
server.  Here one byte through a socket pair ends the poll at once.  A pair of sockets and not a pipe, because on
Windows ``select()`` takes sockets only.

Rules:

- A pair lives as long as one run of the loop: a server that does not serve holds no extra descriptor.
- ``wake()`` may be called from any thread and from a signal handler, also after ``close()``.
- A forked child shares the pair with its parent.  There ``wake()`` and ``drain()`` do nothing: the parent must not
  notice what its child does.
"""

from __future__ import annotations

from ..originals import original, socketpair


class Wakeup:
    """A pair of sockets: its reading end is selected by the loop, ``wake()`` makes it readable.

    Created by the thread that runs the loop; ``thread`` is that thread's ident and ``pid`` its process.
    """

    def __init__(self) -> None:
        self.pid = original.getpid()
        self.thread = original.get_ident()
        self._reader, self._writer = socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # Guards _writer: a send() that has released the GIL while another thread closes may write to a descriptor
        # that by then belongs to somebody else.  Re-entrant, since a signal handler may interrupt wake() to call it.
        self._lock = original.RLock()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable; -1 after ``close()``."""
        return self._reader.fileno()

    def in_this_process(self) -> bool:
        """Return whether the pair was created by this process, not inherited by ``fork()``."""
        return self.pid == original.getpid()

    def in_this_thread(self) -> bool:
        """Return whether the caller is the thread that runs the loop."""
        return self.in_this_process() and self.thread == original.get_ident()

    def wake(self) -> None:
        """Make the loop's ``select()`` return.  Any thread, signal handlers included; never blocks on the network."""
        if not self.in_this_process():
            return
        with self._lock:
            if self._writer.fileno() < 0:
                return
            try:
                self._writer.send(b"\0")
            except BlockingIOError:
                pass  # thousands of wake-ups are pending already; one is enough

    def drain(self) -> None:
        """Take the pending wake-ups, so that the next ``select()`` blocks again.  The loop's thread only."""
        if not self.in_this_process():
            return
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close both ends.  In a forked child this closes the child's copies, which the parent does not see."""
        if not self.in_this_process():
            # Without the lock: a thread that exists only in the parent may have held it when the child was forked.
            self._reader.close()
            self._writer.close()
            return
        with self._lock:
            self._reader.close()
            self._writer.close()
