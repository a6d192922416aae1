"""Read the connections that nothing was declared for, until somebody accepts them.

One thread for all such connections of a server, started by the first of them.  It reads what arrives into
the connection's buffer, so that it is recorded and can be waited for; ``accept()`` takes the connection
away from it together with that buffer.  From then on nothing is read unless the test asks: reading
ahead would take the beginning of a TLS handshake for plain text.  For the same reason a TLS handshake is
never read here.

It also watches connections for coroutines, which cannot poll by themselves: once, and without reading.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from ..originals import Thread, original
from ..recording.recorder import BUSY, PARKED
from ..socketserver.wakeup import Wakeup

if TYPE_CHECKING:
    from ..connection.conversation import Conversation

# The thread alone touches the selector.  Every other thread changes `_fed` and `_watched` under the lock, enters the
# descriptor in `_stale` and wakes the thread, which registers it anew before its next poll.  So no registration is
# changed while the selector polls.
#
# A descriptor is only a number.  When a socket is closed the number may soon be another connection's, and an event for
# the old one may still be on its way.  Therefore `_read` looks again, under both locks, whether the connection is still
# fed and whether its socket still has this number, and only then receives.
#
# Rules:
#
# - The tape's lock is held from that look to the end of the receive.  So `release()` cannot return in between, and the
#   reader that comes next finds every byte in the buffer.
# - The state is BUSY for just that time: a drain finds a byte either in the kernel or in hand (see `idle`).
# - What cuts frames, and the callback of a watch, run without any lock: they may run code of the user, or take locks.
# - What fails is recorded, and the loop goes on, since it reads for all other connections too.
# - `_closing` is never taken back.  A server that starts again has a new sink.
#
# A watch is for one event.  It is dropped before its callback runs, so that the callback may watch again.
#
# Not done: the sink answers nothing, ends no connection, and does no TLS.


class Sink:
    """The reader of one server's undeclared connections.

    Args:
        name: The thread's name.
        ended: Called, in the thread, with a connection whose stream is over.
        failed: Called, in the thread, with what went wrong in it, and its name; it goes on.
    """

    def __init__(
        self,
        name: str,
        ended: Callable[[Conversation], None],
        failed: Callable[[BaseException, str], None],
    ) -> None:
        self._name = name
        self._ended = ended
        self._failed = failed
        # Guards everything below.  Taken after a tape's lock, and no other is taken under it but the wake-up's.
        # Re-entrant: a __del__ of the user may run anywhere (server/service.py).
        self._lock = original.RLock()
        self._fed: dict[int, Conversation] = {}  # by descriptor: what is read into buffers
        self._watched: dict[int, list[tuple[int, Callable[[], None]]]] = {}  # by descriptor: selected once, not read
        self._stale: set[int] = set()  # descriptors whose registration no longer says what the two above say
        self._thread: threading.Thread | None = None
        self._wakeup: Wakeup | None = None
        self._closing = False

    def feed(self, connection: Conversation) -> None:
        """Begin to read ``connection``.  Any thread."""
        tape = connection.tape
        with tape.lock:
            sock = tape.socket
            if sock is None or sock.fileno() < 0 or connection.stream.buffer.ended:
                return
            tape.state = PARKED
            with self._lock:
                self._fed[sock.fileno()] = connection
                self._renew(sock.fileno())

    def release(self, connection: Conversation) -> None:
        """Stop reading ``connection``: when this returns, not one more byte of it is taken.  Any thread."""
        tape = connection.tape
        with tape.lock:  # the thread reads under this lock
            number = tape.socket.fileno() if tape.socket is not None else -1
            with self._lock:
                if self._fed.get(number) is connection:
                    del self._fed[number]
                    self._renew(number)

    def watch(self, sock: socket.socket, write: bool, wake: Callable[[], None]) -> None:
        """Call ``wake``, in the sink's thread, when ``sock`` can be read or written; once.  It must not block."""
        with self._lock:
            watches = self._watched.setdefault(sock.fileno(), [])
            watches.append((selectors.EVENT_WRITE if write else selectors.EVENT_READ, wake))
            self._renew(sock.fileno())

    def unwatch(self, wake: Callable[[], None]) -> None:
        """Forget what ``watch`` was asked for; it may have been answered and forgotten already."""
        with self._lock:
            for number, watches in list(self._watched.items()):
                if any(each == wake for _, each in watches):
                    self._keep(number, [watch for watch in watches if watch[1] != wake])
                    self._renew(number)

    def _keep(self, number: int, watches: list[tuple[int, Callable[[], None]]]) -> None:
        """Keep only these watches of a descriptor.  The lock must be held."""
        if watches:
            self._watched[number] = watches
        else:
            self._watched.pop(number, None)

    def close(self) -> threading.Thread | None:
        """End the thread; return it, to be joined.  Any thread; also twice."""
        with self._lock:
            self._closing = True
            self._fed.clear()
            watches = [wake for watches in self._watched.values() for _, wake in watches]
            self._watched.clear()
            if self._wakeup is not None:
                self._wakeup.wake()
        for wake in watches:
            # Without the lock, since a callback takes locks of its own.
            wake()  # to find that the server has stopped
        return self._thread

    def close_in_child(self) -> None:
        """In a forked child, where the thread does not exist: close the copies of its descriptors, without a lock."""
        if self._wakeup is not None:
            self._wakeup.close()

    def _renew(self, number: int) -> None:
        """Let the thread, which alone touches the selector, register anew.  The lock must be held."""
        if self._closing:
            return
        self._stale.add(number)
        if self._thread is None:
            wakeup = Wakeup()
            thread = Thread(target=self._run, args=(wakeup,), name=self._name, daemon=True)
            try:
                thread.start()
            except BaseException:  # no thread can be started: the next connection tries again
                wakeup.close()
                raise
            # Only now: a start that fails leaves no trace, and the next descriptor tries again.
            self._wakeup, self._thread = wakeup, thread
        assert self._wakeup is not None
        self._wakeup.wake()

    def _run(self, wakeup: Wakeup) -> None:
        selector = original.PollSelector()
        selector.register(wakeup, selectors.EVENT_READ)
        try:
            while not self._closing:
                for key, mask in selector.select():
                    if key.fileobj is wakeup:
                        wakeup.drain()
                    else:
                        self._happened(key.fd, mask)
                self._register(selector)
        finally:
            with self._lock:
                self._closing = True
                wakeup.close()
            selector.close()

    def _register(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            for number in self._stale:
                if number in selector.get_map():
                    selector.unregister(number)
                wanted = selectors.EVENT_READ if number in self._fed else 0
                wanted = reduce(or_, (events for events, _ in self._watched.get(number, ())), wanted)
                if wanted:
                    # Always a new registration: the one that was removed above may have been an earlier socket's.
                    selector.register(number, wanted)
            self._stale.clear()

    def _happened(self, number: int, mask: int) -> None:
        with self._lock:
            connection = self._fed.get(number)
            watches = self._watched.get(number, [])
            self._keep(number, [watch for watch in watches if not watch[0] & mask])
            # What nobody asks for any more must leave the selector: a socket that stays readable would wake the thread
            # for ever.
            if watches or connection is None:
                self._stale.add(number)
        # What fails is recorded, and the thread goes on: it reads all other connections as well.
        for events, wake in watches:
            if events & mask:
                try:
                    wake()
                except BaseException as error:
                    self._failed(error, self._name)
        if connection is not None and mask & selectors.EVENT_READ:
            try:
                self._read(connection, number)
            except BaseException as error:
                self._failed(error, self._name)
                self.release(connection)  # else it would fail again at once

    def _read(self, connection: Conversation, number: int) -> None:
        tape = connection.tape
        with tape.lock:
            with self._lock:
                if self._fed.get(number) is not connection:
                    return  # released meanwhile
            sock = tape.socket
            if sock is not None and sock.fileno() == number:
                tape.state = BUSY
                if connection.stream.receive_ahead(sock):
                    with self._lock:
                        self._fed.pop(number, None)
                        self._stale.add(number)
                tape.state = PARKED
            else:
                connection.stream.buffer.ended = True
            if connection.stream.buffer.ended:
                with self._lock:
                    self._fed.pop(number, None)
                    self._stale.add(number)
        # Without a lock, since a framing is the user's code.
        connection.cut_what_came()
        if connection.stream.buffer.ended:
            self._ended(connection)
