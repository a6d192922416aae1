"""The least that a server can be: what the others are measured against.

Written by hand for one purpose, and fair: it can be stopped at once, whatever its clients do, and leaves nothing.  It
records nothing, knows no deadline, waits for no handler that is busy, and reports no error.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable


class FloorServer:
    """A listener, a selector, a pair of sockets to wake it, and a thread for each connection.

    Args:
        handle: Called with each connection's socket, in its thread; the socket is closed afterwards.
    """

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._live: list[tuple[threading.Thread, socket.socket]] = []

    def start(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.address = self._listener.getsockname()
        self._reader, self._writer = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._writer.send(b"\0")
        self._thread.join()
        for thread, connection in self._live:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its client, or its handler, has ended it
            thread.join()
        for each in (self._listener, self._reader, self._writer):
            each.close()

    def _serve(self) -> None:
        with selectors.PollSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._reader, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._reader:
                        return
                    self._accept()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
        self._live.append((thread, connection))
        thread.start()

    def _run(self, connection: socket.socket) -> None:
        with connection:
            self._handle(connection)
