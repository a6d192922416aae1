"""Sockets that note what passes through them.

A subclass of ``socket.socket`` and not a wrapper around one: ``isinstance``, ``wrap_socket``, ``sendmsg``
and selectors want the real thing, and the standard library's handlers then need not know of us.  Where
bytes pass is tapped once: ``makefile`` arrives through ``recv_into`` and ``send``; of an ``SSLSocket`` only
``read`` and ``send``, which all its other methods call.

The order of noting carries two promises.  What was received is noted before it is handed to the reader,
so a request is recorded before it can be answered.  What is sent is noted *before* the kernel has it
(afterwards, the client had its reply first in 19 of 3,000 runs); what the kernel then refuses is taken
back by an ``unsent`` event.

A blocking receive has its bytes before it has the interpreter's lock again: by looking whether the kernel has any,
239 of 389 one-megabyte uploads were missed.  Where the kernel counts the bytes that it has received (TCP on Linux), it
receives at once, in state RECEIVING, and ``kernel.quiet`` compares the counts.  Elsewhere it peeks first, in state
WAITING, and takes in state BUSY; the peek blocks, keeps time-outs and errors, and takes nothing.

Two pairs of ways lead through here.  A handler class calls ``recv`` and ``send`` as of any socket, which an interposer
may change.  The verbs call ``take`` and ``offer``, which note the same and neither wait nor know of faults: the verbs
apply these themselves, to what was taken.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import ServerStopping
from ..errors.location import hide_frame
from ..originals import POLLIN, POLLOUT, greenlets_sleep, looked_for, original, ssl_module
from ..recording.events import CLIENT_EOF, CLIENT_RESET, CLOSE, NOTE, START_TLS, RawEvent
from ..recording.recorder import BUSY, PARKED, RECEIVING, SENDING, WAITING, Tape

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

# The state of a connection's thread (``tape.state``), as this file writes it:
#
#   BUSY -> RECEIVING -> BUSY   around a receive that blocks, where the kernel counts
#   BUSY -> WAITING -> BUSY     around a peek that blocks; the receive that follows is done in BUSY
#   BUSY -> SENDING -> BUSY     around a wait for room
#   BUSY -> PARKED              by ``detach``: from there on nothing is seen of what the new owner does
#
# The thread that drives the connection writes it, and others only read it.  ``kernel.quiet`` relies on two orders: the
# state changes *before* the call that may block, and it is BUSY again *before* ``received_count`` grows.  In another
# order a look from outside could find the counts equal, or the thread waiting, while bytes are on their way to it.
#
# A receive is, in this order: ask the interposer; set the state; call the kernel; BUSY; note; call ``tap``; ask the
# interposer again.  The second time is for an injection that began while the call was blocked.
# A send is: ask the interposer; note; call the kernel; take back what it refused.
#
# Who ended the stream is decided here, at each ``b""`` and each error, by ``tape.cut``: it is set before the socket is
# shut down.  With it set, the driver gets ``ServerStopping`` and nothing is noted as the client's.
#
# Locks.  ``tape.lock`` is held where the descriptor is closed, given away or replaced, and never during a receive or a
# send that may block.  So a number that Python has read from the object, and then uses without the interpreter's lock,
# may have been closed by then; that is why other threads, but for a reset, shut a socket down and leave the close to
# its driver.
#
# Not tapped: looks (MSG_PEEK), urgent data read by MSG_OOB, and what a handler does past its socket object, by
# ``os.read`` or by a copy of the descriptor.
if original.poll is not None:  # a library may have taken it out of ``select``

    def ready(sock: socket.socket, write: bool, seconds: float | None) -> bool:
        """Wait until ``sock`` can be read or written, has ended or failed; tell whether that came in time."""
        poller = original.poll()  # one microsecond to make, holds no descriptor, knows no FD_SETSIZE
        poller.register(sock, POLLOUT if write else POLLIN)
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

# Looked up once: these are in each receive and each send.
_recv, _recv_into, _send = PlainSocket.recv, PlainSocket.recv_into, PlainSocket.send

# As plain numbers: of a socket's own attributes each is made an enum's member, which costs as much as a system call.
_c_socket: Any = original.socket.__base__
_family_of, _type_of = _c_socket.family.__get__, _c_socket.type.__get__
_INTERNET = (int(socket.AF_INET), int(socket.AF_INET6))
_SOL_SOCKET, _SO_OOBINLINE = int(socket.SOL_SOCKET), int(socket.SO_OOBINLINE)
_IPPROTO_TCP, _TCP_NODELAY = int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY)

_COUNT_END = 136  # bytes of struct tcp_info through tcpi_bytes_received, which Linux has since 4.1


def _kernel_counts(sock: socket.socket) -> bool:
    """Tell whether the kernel counts what it receives on a TCP socket; it does so on all, or on none."""
    global _known_to_count
    if _known_to_count is None:
        _known_to_count = bool(DONTWAIT) and received_by_kernel(sock) is not None
    return _known_to_count


_known_to_count: bool | None = None


def received_by_kernel(sock: socket.socket) -> int | None:
    """Return how many bytes the kernel has received, urgent ones and the end of the stream included; else ``None``."""
    if sys.platform != "linux" or _family_of(sock) not in _INTERNET:
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNT_END)
    return int.from_bytes(info[-8:], sys.byteorder) if len(info) == _COUNT_END else None


class TappedSocket(PlainSocket):
    """What the recording sockets share: their tape, and closing without touching a stranger's descriptor."""

    tape: Tape | None = None  # a class attribute first: wrap_socket reads before anyone can set it

    def take(self, size: int) -> bytes | None:
        """Receive what is there, at most ``size`` bytes; ``b""`` at the end, ``None`` if there is nothing."""
        raise NotImplementedError

    def take_waiting(self, size: int) -> bytes | None:
        """Receive as ``take`` does, but wait for it in the kernel, where that can be done; else return ``None``."""
        raise NotImplementedError

    def offer(self, data: bytes) -> int:
        """Send what the kernel takes at once; return how many bytes."""
        raise NotImplementedError

    def close(self) -> None:
        """Close; noted once the descriptor is really closed, which a live ``makefile()`` puts off."""
        tape = self.tape
        if tape is None:
            return super().close()
        with tape.lock:
            # Asked before and after: a ``makefile()`` that is alive puts the real close off, and then nothing is noted
            # yet.
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
                # In one step with the detach, so that a stop always finds the socket or this.
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
            self._note_end()

    def _note_end(self) -> None:
        """Note the end of the stream, unless it is our own doing."""
        tape = self.tape
        assert tape is not None
        if tape.cut:
            tape.saw_cut = True
            raise ServerStopping(tape.cut)
        tape.note(CLIENT_EOF)

    def explained(self, error: BaseException) -> BaseException:
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
        # Noted whole and first, see above; corrected below by what the kernel says.
        noted: RawEvent | None = tape.sending(chunk)
        sent = 0
        try:
            sent = send(chunk, flags)
        except OSError as error:
            if isinstance(error, (BlockingIOError, TimeoutError)) or _wants_retry(error):
                raise
            # The client is gone, and this is not offered again: an event takes it back.  What will be offered again is
            # corrected where it was noted.
            tape.unsent(len(chunk))
            noted = None
            raise self.explained(error) from None  # and no name for it, whose traceback would hold itself
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
        timeout, family = sock.gettimeout(), _family_of(sock)
        mine = cls(family, _type_of(sock), sock.proto, sock.detach())
        if mine.gettimeout() != timeout:  # socket.setdefaulttimeout() leaks into rebuilt sockets
            mine.settimeout(timeout)
        if not DONTWAIT:
            mine.settimeout(0.0)
        mine.tape = tape
        tape.socket = mine
        if family in _INTERNET:
            # Else an urgent byte of the client is left behind, and FTP's ABOR is never seen (RFC 959 section 4.1.3).
            mine.setsockopt(_SOL_SOCKET, _SO_OOBINLINE, 1)
            # A second send must not wait 40 ms for the client to acknowledge the first (Nagle, delayed ACK).
            mine.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
            tape.is_counted = _kernel_counts(mine)
        return mine

    # For the verbs

    def take(self, size: int) -> bytes | None:
        """Receive what is there, at most ``size`` bytes; ``b""`` at the end, ``None`` if there is nothing."""
        if self.gettimeout() and not ready(self, False, 0):
            return None  # with a time-out Python waits by itself, whatever the flags say
        try:
            data = _recv(self, size, DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self.explained(error) from None
        if data:
            self.tape.received(data)  # type: ignore[union-attr]
        else:
            self._note_end()
        return data

    def take_waiting(self, size: int) -> bytes | None:
        """Receive as ``take`` does, but wait for it in the kernel, where that can be done; else return ``None``.

        For the thread that drives the connection.  What ends the wait is bytes, the end, or a shutdown.
        """
        tape = self.tape
        if not tape.is_counted or "greenlet" in _loaded:  # type: ignore[union-attr]
            return None
        # Without a peek: where the kernel counts, the state need not tell whether the bytes are still there.
        tape.state = RECEIVING  # type: ignore[union-attr]
        try:
            data = _recv(self, size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self.explained(error) from None
        finally:
            tape.state = BUSY  # type: ignore[union-attr]
        if data:
            tape.received(data)  # type: ignore[union-attr]
        else:
            self._note_end()
        return data

    def offer(self, data: bytes) -> int:
        """Send what the kernel takes at once; return how many bytes."""
        if self.gettimeout() and not ready(self, True, 0):
            return 0  # as above
        tape = self.tape
        noted: RawEvent | None = tape.sending(data)  # type: ignore[union-attr]
        sent = 0
        try:
            sent = _send(self, data, DONTWAIT)
        except BlockingIOError:
            pass
        except OSError as error:
            tape.unsent(len(data))  # type: ignore[union-attr]
            noted = None
            raise self.explained(error) from None  # and no name for it, whose traceback would hold itself
        finally:
            if sent < len(data) and noted is not None:
                tape.sent_less(noted, sent)  # type: ignore[union-attr]
        return sent

    # For handler classes

    def _begin_receive(self, flags: int = 0) -> None:
        """Say that a receive begins; where the kernel counts nothing, block until it will return at once."""
        tape = self.tape
        assert tape is not None
        if tape.is_counted:
            tape.state = RECEIVING
        elif self.gettimeout() != 0.0:  # else it never waits, and need not look
            tape.state = WAITING
            try:
                _recv(self, 1, _PEEK | flags & _NOT_WAITALL)
            except OSError as error:
                raise self.explained(error) from None
            finally:
                tape.state = BUSY

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        tape = self.tape
        if tape is None or flags & _UNTAPPED:
            return super().recv(bufsize, flags)
        if (front := tape.interposer) is not None and (made := front.recv(self, bufsize)) is not None:
            return made  # type: ignore[no-any-return]
        if bufsize:
            self._begin_receive(flags)
        try:
            data = _recv(self, bufsize, flags)
        except OSError as error:
            raise self.explained(error) from None
        finally:
            tape.state = BUSY
        self._noted(data, bufsize)
        return data if (front := tape.interposer) is None else front.received(data, bufsize)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        tape = self.tape
        if tape is None or flags & _UNTAPPED:
            return super().recv_into(buffer, nbytes, flags)
        if tape.interposer is not None or not tape.is_counted or type(buffer) is not memoryview or buffer.format != "B":
            return self._recv_into_any(buffer, nbytes, flags)
        # The usual case, of a makefile(), without a further call but the record's.
        tape.state = RECEIVING
        try:
            count = _recv_into(self, buffer, nbytes, flags)
        except OSError as error:
            raise self.explained(error) from None
        finally:
            tape.state = BUSY
        if count:
            tape.received(bytes(buffer[:count]))
            if tape.tap is not None:
                tape.tap()
        elif len(buffer):
            self._note_end()
        if (front := tape.interposer) is None:
            return count
        return _scattered(front.received(bytes(buffer[:count]), nbytes or len(buffer)), [buffer])

    def _recv_into_any(self, buffer: Any, nbytes: int, flags: int) -> int:
        tape = self.tape
        assert tape is not None
        with memoryview(buffer) as given, given if given.format == "B" and given.ndim == 1 else given.cast("B") as view:
            wanted = nbytes or len(view)
            if (front := tape.interposer) is not None and (made := front.recv(self, wanted)) is not None:
                return _scattered(made, [view])
            if wanted:
                self._begin_receive(flags)
            try:
                count = _recv_into(self, view, nbytes, flags)
            except OSError as error:
                raise self.explained(error) from None
            finally:
                tape.state = BUSY
            data = bytes(view[:count])
            self._noted(data, wanted)
            return count if (front := tape.interposer) is None else _scattered(front.received(data, wanted), [view])

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
            self._begin_receive(flags)
            try:
                answer = super().recvmsg(bufsize, ancbufsize, flags)
            except OSError as error:
                raise self.explained(error) from None
            finally:
                self.tape.state = BUSY
            self._noted(answer[0], bufsize)
            if (front := self.tape.interposer) is not None:
                return (front.received(answer[0], bufsize), *answer[1:])
            return answer

        def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> tuple[int, list[Any], int, Any]:
            if self.tape is None or flags & _UNTAPPED:
                return super().recvmsg_into(buffers, ancbufsize, flags)
            views = [memoryview(each).cast("B") for each in buffers]
            if (front := self.tape.interposer) is not None:
                made = front.recv(self, sum(map(len, views)))
                if made is not None:
                    return _scattered(made, views), [], 0, None
            self._begin_receive(flags)
            try:
                answer = super().recvmsg_into(views, ancbufsize, flags)
            except OSError as error:
                raise self.explained(error) from None
            finally:
                self.tape.state = BUSY
            data, wanted = b"".join(views)[: answer[0]], sum(map(len, views))
            self._noted(data, wanted)
            if (front := self.tape.interposer) is not None:
                return (_scattered(front.received(data, wanted), views), *answer[1:])
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
        tape = self.tape
        if tape is None:
            return super().sendall(data, flags)
        if (front := tape.interposer) is not None and front.send(data):
            return None
        sent = 0
        if (
            type(data) is bytes and len(data) <= _SEND_CHUNK and DONTWAIT and not flags
        ):  # the usual case: taken at once, no view
            sent = self.offer(data)
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

        def take(self, size: int) -> bytes | None:
            try:
                return self.read(size)  # type: ignore[no-any-return]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None

        def take_waiting(self, size: int) -> bytes | None:
            return None

        def offer(self, data: bytes) -> int:
            if self.gettimeout() != 0.0 and not ready(self, True, 0):
                return 0  # a handler class's own, which blocks
            try:
                return self._send_noted(data, 0, super().send)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return 0

        def do_handshake(self, block: bool = False) -> None:
            self._refuse_after_reset()
            super().do_handshake(block)

        def read(self, len: int = 1024, buffer: Any = None) -> Any:
            tape = self.tape
            if tape is None:
                return super().read(len, buffer)
            self._refuse_after_reset()
            if (front := tape.interposer) is not None and (made := front.recv(self, len)) is not None:
                return made if buffer is None else _scattered(made, [memoryview(buffer)])
            # The peek is at the encrypted bytes.  Those that OpenSSL has decrypted already are invisible to it, so with
            # any pending it would block over input that is there.
            if self.gettimeout() != 0.0 and not self.pending():
                tape.state = WAITING
                try:
                    _recv(self, 1, _PEEK)
                except OSError as error:
                    raise self.explained(error) from None
                finally:
                    tape.state = BUSY
            try:
                answer = super().read(len, buffer)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except OSError as error:
                raise self.explained(error) from None
            data: bytes = answer if buffer is None else bytes(memoryview(buffer)[: int(answer)])
            self._noted(data, len)
            if (front := tape.interposer) is None:
                return answer
            made = front.received(data, len)
            return made if buffer is None else _scattered(made, [memoryview(buffer)])

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
    # Counted, as calls of several threads overlap: the first keeps the usual class, and the last puts it back.
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
        # One step: from here on a cut finds the new socket.  One that came during the wrapping is done again on it.
        with tape.lock:
            secured.tape = tape  # type: ignore[attr-defined]
            tape.socket, tape.handed_over, tape.state, tape.is_counted = secured, None, BUSY, False
            if tape.cut:
                PlainSocket.shutdown(secured, socket.SHUT_RDWR)
    if noted:
        tape.note(START_TLS)
    return secured
