"""Sockets that note what passes through them.

A subclass of ``socket.socket`` and not a wrapper around one: ``isinstance``, ``wrap_socket``, ``sendmsg``
and selectors want the real thing, and the standard library's handlers then need not know of us.  Where
bytes pass is tapped once: ``makefile`` arrives through ``recv_into`` and ``send``; of an ``SSLSocket`` only
``read`` and ``send``, which all its other methods call.

The order of noting carries two promises.  What was received is noted before it is handed to the reader,
so a request is recorded before it can be answered.  What is sent is noted *before* the kernel has it
(afterwards, the client had its reply first in 19 of 3,000 runs); what the kernel then refuses is taken
back by an ``unsent`` event.

A blocking receive first peeks, in state WAITING, and takes in state BUSY.  The peek blocks, keeps time-outs
and errors, and takes nothing; so whoever wants to know whether all that arrived was handled looks at
the kernel first and at the state afterwards (see ``kernel.quiet``).  A plain ``recv`` in state WAITING has its
bytes before it has the interpreter's lock again: 239 of 389 one-megabyte uploads were missed by that.
"""

from __future__ import annotations

import math
import os
import select
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import ServerStopping
from ..errors.location import hide_frame
from ..originals import greenlets_sleep, looked_for, original, ssl_module
from ..recording.events import CLIENT_EOF, CLIENT_RESET, CLOSE, NOTE, START_TLS, RawEvent
from ..recording.recorder import BUSY, PARKED, SENDING, WAITING, Tape

if TYPE_CHECKING:
    import ssl

# Plain ints: an operation on socket's enum flags is a dozen Python calls, and these stand in each receive and send.
_PEEK = int(socket.MSG_PEEK)
_UNTAPPED = int(socket.MSG_PEEK | socket.MSG_OOB)  # a look takes nothing; urgent data is beside the stream
DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))  # Windows has none
_NOT_WAITALL = ~int(getattr(socket, "MSG_WAITALL", 0))  # a look for all of it would not return at the first byte
_SENDFILE_CHUNK = 65536  # bytes; what shutil.copyfileobj uses
_SEND_CHUNK = 262144  # bytes offered to the kernel at once: it takes about as many, and the rest is noted anew


_loaded = sys.modules  # a look there costs less than a call, and this is in each receive

if hasattr(select, "poll"):

    def ready(sock: socket.socket, write: bool, seconds: float | None) -> bool:
        """Wait until ``sock`` can be read or written, has ended or failed; tell whether that came in time."""
        poller = original.poll()  # one microsecond to make, holds no descriptor, knows no FD_SETSIZE
        poller.register(sock, select.POLLOUT if write else select.POLLIN)
        if seconds != 0 and "greenlet" in _loaded and (sleep := greenlets_sleep()) is not None:
            return looked_for(lambda: bool(poller.poll(0)), seconds, sleep)
        return bool(poller.poll(None if seconds is None else math.ceil(seconds * 1000)))

else:  # Windows; not tried there

    def ready(sock: socket.socket, write: bool, seconds: float | None) -> bool:
        """Wait until ``sock`` can be read or written, has ended or failed; tell whether that came in time."""
        reading, writing = ([], [sock]) if write else ([sock], [])
        return any(original.select(reading, writing, [sock], seconds))


__tracebackhide__ = hide_frame


def inode(number: int) -> int:
    """Return what tells a descriptor from a later one of the same number; 0 on Windows, whose sockets are no files."""
    return os.fstat(number).st_ino if os.name == "posix" else 0


if TYPE_CHECKING:
    PlainSocket = socket.socket
else:
    PlainSocket = original.socket


class TappedSocket(PlainSocket):
    """What the recording sockets share: their tape, and closing without touching a stranger's descriptor."""

    tape: Tape | None = None  # a class attribute first: wrap_socket reads before anyone can set it

    def await_input(self, seconds: float | None) -> bool:
        """Wait for bytes, the end of the stream or an error.  For the driver's thread, on a non-blocking socket."""
        tape = self.tape
        assert tape is not None
        tape.state = WAITING
        try:
            return ready(self, False, seconds)
        except (OSError, ValueError) as error:  # ValueError: closed by another thread, its number is -1 now
            raise self._explained(error) from None
        finally:
            tape.state = BUSY

    def await_room(self, seconds: float | None) -> bool:
        """Wait until the kernel takes bytes again.  For the driver's thread, on a non-blocking socket."""
        tape = self.tape
        assert tape is not None
        tape.state = SENDING
        try:
            return ready(self, True, seconds)
        except (OSError, ValueError) as error:
            raise self._explained(error) from None
        finally:
            tape.state = BUSY

    def close(self) -> None:
        """Close; noted once the descriptor is really closed, which a live ``makefile()`` puts off."""
        tape = self.tape
        if tape is None:
            return super().close()
        with tape.lock:
            was_open = self.fileno() >= 0
            super().close()
            gone = was_open and self.fileno() < 0
        if gone:
            tape.note(CLOSE)
            tape.went()

    def detach(self) -> int:
        """Give the descriptor away.  Its inode is kept, so that stopping can end it without hitting another file."""
        tape = self.tape
        if tape is None:
            return super().detach()
        with tape.lock:
            number = super().detach()
            if number >= 0 and tape.socket is self:
                tape.handed_over = (number, inode(number))
                tape.state = tape.state if tape.wrapping else PARKED
            return number

    def _noted(self, data: bytes, wanted: int) -> None:
        """Note what a receive returned, the end of the stream included."""
        tape = self.tape
        assert tape is not None
        if data:
            tape.received(data)
            if tape.tap is not None:
                tape.tap()
        elif wanted:
            if tape.cut:
                tape.saw_cut = True
                raise ServerStopping(tape.cut)
            tape.note(CLIENT_EOF)

    def _explained(self, error: BaseException) -> BaseException:
        """Return what to raise for ``error``: our own doing is told from the client's, whose reset is noted."""
        tape = self.tape
        assert tape is not None
        if tape.cut:
            tape.saw_cut = True
            return ServerStopping(tape.cut)
        refused = _is_alert(error)
        if refused:
            tape.note(NOTE, f"the client ended TLS by an alert: {error}".encode("utf-8", "backslashreplace"))
        if refused or isinstance(error, (ConnectionResetError, BrokenPipeError)) or _is_gone(error):
            tape.note(CLIENT_RESET)
            tape.peer_error = error
        return error

    def _send_noted(self, data: Any, flags: int, send: Callable[..., int]) -> int:
        """Send once, by ``send``, noting first; take back what the kernel did not take."""
        tape = self.tape
        assert tape is not None
        chunk = bytes(data)
        noted: RawEvent | None = tape.sending(chunk)
        sent = 0
        try:
            sent = send(chunk, flags)
        except OSError as error:
            if isinstance(error, (BlockingIOError, TimeoutError)) or _wants_retry(error):
                raise
            tape.unsent(len(chunk))
            noted = None
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from None
        finally:
            if noted is not None and sent < len(chunk):
                tape.sent_less(noted, sent)
        return sent


def _wants_retry(error: OSError) -> bool:
    """Tell whether a TLS socket only asks to be called again."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError))


def _is_alert(error: BaseException) -> bool:
    """Tell whether it is a fatal alert of the client, which ends the connection as a reset does (RFC 8446 6.2)."""
    return "ALERT" in (getattr(error, "reason", None) or "")


def _is_gone(error: BaseException) -> bool:
    """Tell whether TLS says of a client that has closed, or reset, the connection: its writes hide ECONNRESET."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))


class RecordingSocket(TappedSocket):
    """A plain stream socket that notes what passes."""

    @classmethod
    def adopt(cls, sock: socket.socket, tape: Tape) -> RecordingSocket:
        """Take over the descriptor of ``sock``, which is left closed."""
        timeout = sock.gettimeout()
        mine = cls(sock.family, sock.type, sock.proto, sock.detach())
        if mine.gettimeout() != timeout:  # socket.setdefaulttimeout() leaks into rebuilt sockets
            mine.settimeout(timeout)
        mine.tape = tape
        tape.socket = mine
        return mine

    def _peek(self, flags: int = 0) -> None:
        """Block until a receive will return at once.  A non-blocking socket never waits, so it need not look."""
        tape = self.tape
        assert tape is not None
        if self.gettimeout() == 0.0:
            return
        tape.state = WAITING
        try:
            PlainSocket.recv(self, 1, _PEEK | flags)
        except OSError as error:
            raise self._explained(error) from None
        finally:
            tape.state = BUSY

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        if self.tape is None or flags & _UNTAPPED:
            return super().recv(bufsize, flags)
        if (front := self.tape.interposer) is not None and (heard := front.recv(self, bufsize)) is not None:
            return heard  # type: ignore[no-any-return]
        if bufsize:
            self._peek(flags & _NOT_WAITALL)
        try:
            data = super().recv(bufsize, flags)
        except OSError as error:
            raise self._explained(error) from None
        self._noted(data, bufsize)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if self.tape is None or flags & _UNTAPPED:
            return super().recv_into(buffer, nbytes, flags)
        with memoryview(buffer) as given, given if given.format == "B" and given.ndim == 1 else given.cast("B") as view:
            wanted = nbytes or len(view)
            if (front := self.tape.interposer) is not None and (heard := front.recv(self, wanted)) is not None:
                view[: len(heard)] = heard
                return len(heard)
            if wanted:
                self._peek(flags & _NOT_WAITALL)
            try:
                count = PlainSocket.recv_into(self, view, nbytes, flags)
            except OSError as error:
                raise self._explained(error) from None
            self._noted(bytes(view[:count]), wanted)
        return count

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        if self.tape is None or flags & _UNTAPPED:
            return super().recvfrom(bufsize, flags)
        return self.recv(bufsize, flags), None  # a stream socket names no sender

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        if self.tape is None or flags & _UNTAPPED:
            return super().recvfrom_into(buffer, nbytes, flags)
        return self.recv_into(buffer, nbytes, flags), None

    if hasattr(PlainSocket, "recvmsg"):

        def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
            if self.tape is None or flags & _UNTAPPED:
                return super().recvmsg(bufsize, ancbufsize, flags)
            if (front := self.tape.interposer) is not None and (heard := front.recv(self, bufsize)) is not None:
                return heard, [], 0, None
            self._peek()
            try:
                answer = super().recvmsg(bufsize, ancbufsize, flags)
            except OSError as error:
                raise self._explained(error) from None
            self._noted(answer[0], bufsize)
            return answer

        def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> tuple[int, list[Any], int, Any]:
            if self.tape is None or flags & _UNTAPPED:
                return super().recvmsg_into(buffers, ancbufsize, flags)
            views = [memoryview(each).cast("B") for each in buffers]
            if (front := self.tape.interposer) is not None:
                heard = front.recv(self, sum(map(len, views)))
                if heard is not None:
                    return _scattered(heard, views), [], 0, None
            self._peek()
            try:
                answer = super().recvmsg_into(views, ancbufsize, flags)
            except OSError as error:
                raise self._explained(error) from None
            self._noted(b"".join(views)[: answer[0]], sum(map(len, views)))
            return answer

        def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
            if self.tape is None:
                return super().sendmsg(buffers, ancdata, flags, address)
            chunk = b"".join(bytes(each) for each in buffers)
            if (front := self.tape.interposer) is not None and not ancdata and front.send(chunk):
                return len(chunk)
            send_message = super().sendmsg
            return self._send_noted(chunk, flags, lambda data, flags: send_message([data], ancdata, flags))

    def send(self, data: Any, flags: int = 0, /) -> int:
        if self.tape is None:
            return super().send(data, flags)
        if (front := self.tape.interposer) is not None and front.send(data):
            return memoryview(data).nbytes
        return self._send_noted(data, flags, self._send_waiting)

    def _send_waiting(self, data: bytes, flags: int) -> int:
        """Send as a blocking socket does, but say SENDING only while the kernel is really full.

        A poll can't tell: a unix socket with room for more is not writable until it is three quarters empty.
        """
        tape, timeout = self.tape, self.gettimeout()
        assert tape is not None
        if timeout == 0.0 or flags & DONTWAIT or not DONTWAIT:
            return super().send(data, flags)
        while True:
            try:
                return PlainSocket.send(self, data, flags | DONTWAIT)
            except BlockingIOError:
                tape.state = SENDING
                in_time = ready(self, True, timeout)
                tape.state = BUSY
                if not in_time:
                    raise TimeoutError("timed out") from None

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        if self.tape is None:
            return super().sendall(data, flags)
        if (front := self.tape.interposer) is not None and front.send(data):
            return None
        sent = 0
        if type(data) is bytes and len(data) <= _SEND_CHUNK:  # the usual case, without a view
            sent = self._send_noted(data, flags, self._send_waiting)
            if sent == len(data):
                return
        with memoryview(data) as view, view.cast("B") as rest:
            # In pieces, each noted as it goes; a loop, unlike the C code, also knows how far it came.
            while sent < len(rest):
                sent += self._send_noted(rest[sent : sent + _SEND_CHUNK], flags, self._send_waiting)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file.  os.sendfile() would pass by the recording, so this reads and sends."""
        if offset:
            file.seek(offset)
        total = 0
        while count is None or total < count:
            chunk = file.read(_SENDFILE_CHUNK if count is None else min(_SENDFILE_CHUNK, count - total))
            if not chunk:
                break
            self.sendall(chunk)
            total += len(chunk)
        return total


def _scattered(data: bytes, views: list[memoryview]) -> int:
    """Write bytes into one buffer after the other; return how many there were."""
    at = 0
    for view in views:
        piece = data[at : at + len(view)]
        view[: len(piece)] = piece
        at += len(piece)
    return at


@cache
def _recording_ssl_socket(plain: type[ssl.SSLSocket]) -> type[ssl.SSLSocket]:
    """Make the class when TLS is first used: importing ssl costs six milliseconds.

    Args:
        plain: The class of an ssl module whose own code knows it by this name: eventlet may rebind that later on, and
            then another copy of the module is used.
    """
    ssl = ssl_module()

    class RecordingSSLSocket(plain, TappedSocket):  # type: ignore[misc, valid-type]
        """A TLS socket that notes what passes, in plain text.  recv and recv_into call read, sendall calls send."""

        def await_input(self, seconds: float | None) -> bool:
            return bool(self.pending()) or super().await_input(seconds)

        def do_handshake(self, block: bool = False) -> None:
            self._refuse_after_reset()
            super().do_handshake(block)

        def read(self, len: int = 1024, buffer: Any = None) -> Any:
            tape = self.tape
            if tape is None:
                return super().read(len, buffer)
            self._refuse_after_reset()
            if (front := tape.interposer) is not None and (heard := front.recv(self, len)) is not None:
                if buffer is None:
                    return heard
                memoryview(buffer)[: heard.__len__()] = heard
                return heard.__len__()
            if self.gettimeout() != 0.0 and not self.pending():
                tape.state = WAITING
                try:
                    PlainSocket.recv(self, 1, _PEEK)
                except OSError as error:
                    raise self._explained(error) from None
                finally:
                    tape.state = BUSY
            try:
                answer = super().read(len, buffer)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except OSError as error:
                raise self._explained(error) from None
            data: bytes = answer if buffer is None else bytes(memoryview(buffer)[: int(answer)])
            self._noted(data, len)
            return answer

        def send(self, data: Any, flags: int = 0) -> int:
            if self.tape is None:
                return super().send(data, flags)
            if (front := self.tape.interposer) is not None and front.send(data):
                return memoryview(data).nbytes
            return self._send_noted(data, flags, super().send)

        def _refuse_after_reset(self) -> None:
            """Raise what tells that another thread has reset the connection: OpenSSL, woken, would send an alert."""
            tape = self.tape
            if tape is not None and tape.cut and tape.ended_how == "reset":
                tape.saw_cut = True
                raise ServerStopping(tape.cut)

    return RecordingSSLSocket


_lent: dict[int, tuple[int, type[ssl.SSLSocket]]] = {}  # by the context's id: how many calls, and the usual class
_lending = original.Lock()  # guards _lent, and the class of each context in it


def _lend(context: ssl.SSLContext, ours: type[ssl.SSLSocket]) -> None:
    """Make a context wrap sockets by our class, until each such call was followed by ``_give_back()``."""
    with _lending:
        calls, usual = _lent.get(id(context)) or (0, context.sslsocket_class)
        context.sslsocket_class = ours
        _lent[id(context)] = calls + 1, usual


def _give_back(context: ssl.SSLContext) -> None:
    with _lending:
        calls, usual = _lent.pop(id(context))
        if calls > 1:
            _lent[id(context)] = calls - 1, usual
        else:
            context.sslsocket_class = usual


def start_tls(plain: TappedSocket, context: ssl.SSLContext, *, noted: bool = True) -> ssl.SSLSocket:
    """Turn ``plain`` into a TLS socket of the same tape, without a byte of handshake yet; it does not block.

    The context is the user's: its ``sslsocket_class`` is ours for the length of the call.  Another thread that wraps
    a socket by the same context at that moment gets a socket of our class without a tape, which behaves as the plain
    one; if it is a thread of ours, the last one puts the usual class back.

    The ``wrap_socket()`` of a class of the user's own is called without that lock.  Until it returns, the connection is
    ended through the detached descriptor, and counts as busy.
    """
    ssl = ssl_module()
    tape = plain.tape
    assert tape is not None
    tape.wrapping = True
    with tape.lock if type(context) is ssl.SSLContext else nullcontext():
        _lend(context, _recording_ssl_socket(ssl.SSLSocket))
        try:
            secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        except OSError:  # the client has reset at this moment, and the socket is closed
            tape.handed_over, tape.state = None, BUSY
            tape.note(CLIENT_RESET)
            raise
        finally:
            _give_back(context)
            tape.wrapping = False
        with tape.lock:
            secured.tape = tape  # type: ignore[attr-defined]
            tape.socket, tape.handed_over, tape.state = secured, None, BUSY  # type: ignore[assignment]
            if tape.cut:
                PlainSocket.shutdown(secured, socket.SHUT_RDWR)
    if noted:
        tape.note(START_TLS)
    return secured
