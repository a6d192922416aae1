"""One recorded stream, as its driver uses it: receive, send, end, without waiting.

Nothing here blocks for long and nothing knows of deadlines; whoever drives a stream waits for its socket, a
thread by polling, a coroutine by its loop.  What has to be waited for is therefore a generator that yields
``True`` when the socket must become writable and ``False`` when it must become readable.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from array import array
from collections.abc import Generator, Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import InvalidState, ScriptMismatch, ServerStopping, UnsupportedFault
from ..errors.location import hide_frame
from ..originals import original, ssl_module
from ..recording.events import CLOSE, NOTE, RESET, SEND_EOF, SENT
from ..recording.recorder import PARKED, Tape
from ..scripting.buffer import Buffer
from ..scripting.matching import shortened
from .kernel import acknowledge_now, cut, hard_close, hello_at, unacknowledged, unread
from .read_ahead import ReadAhead
from .tapped_socket import DONTWAIT, PlainSocket, TappedSocket, ready
from .tapped_socket import start_tls as wrap_tls

if TYPE_CHECKING:
    import ssl

__tracebackhide__ = hide_frame

# Order, at each end, and what goes wrong otherwise:
#
# - An end is noted before it is done.  Noted afterwards, a client could see the end, and the test could look for it in
#   the record before it is there.  That it *was* done is said afterwards (``Tape.went``), which waits look at.
# - close: note; close_notify; ``SHUT_WR`` and discard, if something is unread; ``SHUT_RDWR``; close.  A close over
#   unread input is a reset in the kernel, and the client may then lose a reply that it has not read.  Measured: 30 of
#   30 uploads ended in a reset without the discard, and none with it.  It is done only where something is unread:
#   always, it would hide from a client that it writes to a closed connection.
# - reset: wait until the client's kernel has what was sent; note; reset.  No shutdown of writing may come before it:
#   the client would read an end of stream.
# - TLS: the plain socket is replaced under the tape's lock, before the first byte of the handshake.
#
# Threads.  Methods are for the thread that drives the stream, but for ``cut``, ``close_from_outside`` and
# ``reset_from_outside``, which any thread may call, and ``receive_ahead``, which the sink calls with the tape's lock
# held.  ``take_the_rest`` takes that lock itself, and is for a caller that has kept all other readers away.
#
# Generators here are steps of an end or a handshake.  A caller that gives one up closes it; the ``finally`` of
# ``close`` then closes the descriptor all the same.
#
# Fields that tell how it went: ``quiet_end`` is compared by identity.  A handler that lets just this exception through
# has not failed; one that raises another of the same type may have.  ``lost`` is set once and stays: the bytes are
# gone.
#
# TLS and early bytes.  OpenSSL receives from the descriptor by itself, so what was read ahead cannot be given to it.
# Therefore a hello is looked at and left in the kernel.  What a client sends in plain text ahead of the handshake would
# count as protected afterwards; it is an error, as is a hello that did not wait for the server's go-ahead.
#
# Not done: to wait for the client's close_notify.  A client that does not send one would hold up each close.


#: Bytes asked of the kernel at once, and offered to it: a loopback segment holds as many, so one call takes a
#: burst; and a send that the kernel takes in part is noted anew for the rest, which must not be megabytes.
CHUNK = 65536

#: Seconds.  A reset waits so long for what was sent before it to reach the client's kernel.
RESET_PATIENCE = 0.1

#: Seconds.  A clean close discards input that was never read for so long, waiting for the client's end of
#: stream: closing over unread input would be a reset, and destroy the reply that is still on its way.
LINGER = 0.2

# Of a handshake that is not done yet.
_UNKNOWN = dict.fromkeys(("version", "cipher", "alpn", "resumed", "server_name", "certificate"))

_TLS_HANDSHAKE = b"\x16\x03"  # how the first record of a handshake begins (RFC 8446 section 5.1)


class Stream:
    """The server's end of one stream.

    Attributes:
        buffer: What has arrived and no verb has taken.
        detached: Its socket was given away.
        left: A TLS handshake was left in the kernel, for whoever will read.
        may_begin_tls: TLS may begin after what is read next: a verb then takes from the kernel what its unit needs, and
            leaves a hello that follows it.
        early_hello: The client began TLS before the server's go-ahead.
        silent: A client that was to begin with TLS has left without a byte of it.
        lost: Bytes were received that nobody can be given any more.
        quiet_end: The exception, raised to the driver, that ends a handler without being its failure.
        tls: Once TLS was asked for: ``version``, ``cipher``, ``alpn``, ``resumed``, ``server_name``, ``certificate``
            (the client's), and ``error`` if the handshake failed.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.buffer = Buffer()
        self.detached = False
        self.lost = False
        self.left = False
        self.may_begin_tls = self.early_hello = False
        self.silent = False
        self.quiet_end: BaseException | None = None
        self.tls: SimpleNamespace | None = None

    @property
    def can_reset(self) -> bool:
        """Whether the transport has a reset: TCP has, unix streams have not."""
        sock = self.tape.socket
        return sock is None or sock.family != getattr(socket, "AF_UNIX", None)

    @property
    def secured(self) -> bool:
        """Whether TLS has begun."""
        return self.tls is not None and self.tls.error is None

    def tls_error(self) -> BaseException:
        """Return why the handshake failed."""
        assert self.tls is not None
        error: BaseException = self.tls.error
        return error

    def socket_for(self, verb: str) -> TappedSocket:
        """Return the open socket.

        Raises:
            InvalidState: It was closed or given away.
            ServerStopping: It was closed because the server stops.
        """
        sock = self.tape.socket
        if self.detached:
            raise InvalidState(f"cannot {verb} connection {self.tape.index}: it was detached")
        if sock is None or sock.fileno() < 0:
            if self.tape.cut:
                self.tape.saw_cut = True
                raise ServerStopping(self.tape.cut)
            raise InvalidState(
                f"cannot {verb} connection {self.tape.index}: it is closed (by the {self.tape.ended_by})"
            )
        return sock  # type: ignore[no-any-return]

    def refuse_detached(self, verb: str) -> None:
        """Refuse to end a socket that was given away and is open: its new owner closes it.

        Raises:
            InvalidState: It was detached.
        """
        sock = self.tape.socket
        if self.detached and sock is not None and sock.fileno() >= 0:
            raise InvalidState(f"cannot {verb} connection {self.tape.index}: it was detached, its new owner closes it")

    def make_blocking(self) -> None:
        """Make the socket of a handler class as it was accepted: it blocks, without a time-out."""
        if self.secured or not DONTWAIT:  # else nothing has touched it
            self.socket_for("read").settimeout(None)

    # Receiving

    def receive(self, size: int = CHUNK, into: Buffer | None = None) -> bool:
        """Feed the buffer with what is there, or with the end of the stream; tell whether there was anything.

        Args:
            size: Bytes at most.
            into: Another buffer than the stream's own.
        """
        sock, buffer = self.socket_for("read"), self.buffer if into is None else into
        try:
            # Recorded in there, before it is in the buffer.
            data = sock.take(size)
        except OSError as error:
            if error is not self.tape.peer_error:
                raise
            data, buffer.broken = b"", True  # the client's reset is an end of its stream, if not a good one
        if data is None:
            return False
        if data:
            buffer.feed(data)
        else:
            buffer.ended = True
        return True

    def up_to_hello(self, size: int) -> int:
        """Return how much of so many bytes to receive at most, so that a client's hello behind them is left."""
        if not self.may_begin_tls:
            return size
        try:
            at = hello_at(self.socket_for("read"))
        except OSError as error:
            self.socket_for("read").explained(error)  # which notes a reset; the receive finds the end
            return size
        return min(size, at) if at > 0 else size

    def peek(self) -> bytes | None:
        """Return what is there and leave it; ``b""`` for an end or an error, ``None`` if there is nothing."""
        try:
            return PlainSocket.recv(self.socket_for("read"), CHUNK, socket.MSG_PEEK | DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def note_early_hello(self) -> None:
        """Note, before something is sent, whether the client has begun TLS without waiting for it."""
        sock = self.tape.socket
        if not self.early_hello and sock is not None and sock.fileno() >= 0:
            try:
                self.early_hello = hello_at(sock) == 0
            except OSError:
                pass  # the send raises it

    def has_input(self) -> bool:
        """Whether anything has come that was not taken, the end of the stream included."""
        return bool(len(self.buffer)) or self.buffer.ended or _readable(self.socket_for("read"))

    def receive_ahead(self, sock: TappedSocket) -> bool:
        """Receive for a reader who has not come yet; tell whether he has to be left the rest.

        A TLS handshake is left in the kernel: ``start_tls`` could not give it back.  Past the record's limit
        bytes are counted and not kept: here they would be held in memory as well.
        """
        try:
            # Looked at only where a handshake may come: a look costs a system call for each chunk.
            at = hello_at(sock) if self.may_begin_tls or self._may_begin_tls() else -1
            if at == 0:
                self.left = True
                return True
            self.receive(at if at > 0 else CHUNK)
        except OSError as error:
            sock.explained(error)  # which notes a reset
            self.buffer.ended = self.buffer.broken = True
        # After the receive, which has counted the bytes and may be what went over the limit.
        if self.tape.recorder.dropped:
            self.lost = True
            self.buffer.take(len(self.buffer))
        return False

    def _may_begin_tls(self) -> bool:
        """Whether a handshake may come now: first of all, or after we have said something (STARTTLS)."""
        events = self.tape.events
        return self.tls is None and (not events or events[-1][2] == SENT)

    def expect_more(self) -> None:
        """Let the rest of a unit of which something has come arrive at once."""
        try:
            acknowledge_now(self.socket_for("read"))
        except OSError:
            pass  # the client is gone, which the next receive says

    # Sending

    def offer(self, data: bytes) -> int:
        """Send what the kernel takes at once; return how many bytes."""
        sock = self.tape.socket
        if self.detached or sock is None or sock.fileno() < 0:
            sock = self.socket_for("send on")  # which raises
        if self.may_begin_tls:
            self.note_early_hello()
        try:
            return sock.offer(data)  # type: ignore[no-any-return]
        except OSError as error:
            raise self.lost_by(error) from None

    def send_raw(self, data: bytes) -> Iterator[bool]:
        """Send all of ``data`` past TLS, unrecorded, yielding whenever the kernel takes no more."""
        sock, rest = self.socket_for("send on"), memoryview(data)
        while rest:
            try:
                rest = rest[PlainSocket.send(sock, rest[:CHUNK], DONTWAIT) :]
            except BlockingIOError:
                yield True
            except OSError as error:
                raise self.lost_by(sock.explained(error)) from None  # type: ignore[arg-type]

    def send_urgent(self, byte: bytes) -> None:
        """Send a byte of urgent data."""
        sock = self.socket_for("send on")
        self.tape.note(NOTE, f"urgent data: {byte!r}".encode())
        try:
            PlainSocket.send(sock, byte, socket.MSG_OOB)
        except OSError as error:
            raise self.lost_by(sock.explained(error)) from None  # type: ignore[arg-type]

    def send_descriptors(self, data: bytes, files: Sequence[Any]) -> Iterator[bool]:
        """Send ``data`` with open files attached to its first byte."""
        sock = self.socket_for("send on")
        numbers = [each if isinstance(each, int) else each.fileno() for each in files]
        self.tape.note(NOTE, f"{len(numbers)} descriptors attached".encode())
        rest = memoryview(data)
        while rest:
            try:
                if len(rest) == len(data):
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", numbers))]
                    rest = rest[sock.sendmsg([rest], rights, DONTWAIT) :]
                else:
                    rest = rest[sock.offer(bytes(rest[:CHUNK])) :]
                    if rest:
                        raise BlockingIOError
            except BlockingIOError:
                yield True
            except OSError as error:
                raise self.lost_by(error) from None

    def send_eof(self) -> None:
        """End the server's half of the stream."""
        sock = self.socket_for("send_eof on")
        self.tape.note(SEND_EOF)
        try:
            self._say_goodbye()
            # Not SSLSocket.shutdown(): it drops the TLS state, and the client may go on in TLS.
            PlainSocket.shutdown(sock, socket.SHUT_WR)
        except OSError as error:
            gone: Any = error
            if error.errno == errno.ENOTCONN:  # what shutdown(2) says once the client has reset
                gone = sock.explained(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
            raise self.lost_by(gone) from None

    def lost_by(self, error: OSError) -> OSError:
        """Return an error of sending; that the client is gone ends a handler quietly."""
        if error is self.tape.peer_error:
            self.quiet_end = error
        return error

    # Ending

    def close(self, notify: bool) -> Generator[float, None, None]:
        """End cleanly: noted first, unread input discarded, the client reads an end of stream.

        Yields the seconds that may be waited for more input to discard.
        """
        tape = self.tape
        with tape.lock:
            # Under the lock: an end from outside at this moment has noted its own end, or finds this one.
            sock = tape.socket
            if sock is None or sock.fileno() < 0:
                return
            tape.note(CLOSE)
        try:
            if notify:
                self._say_goodbye()
            # A client whose handshake fails may have said something already, to be reset before it reads the alert.
            refused = self.tls is not None and self.tls.error is not None
            if not tape.cut and not tape.client_ended and (refused or unread(sock)):
                PlainSocket.shutdown(sock, socket.SHUT_WR)
                yield from self._discard(sock)
            # Another thread's poll(), or a forked child, may hold the socket: close() alone would say nothing then.
            PlainSocket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster
        finally:
            sock.close()  # also if nobody waits for the rest

    def reset(self) -> Iterator[float]:
        """Reset once the client's kernel has what was sent, or after 0.1 seconds; yields the seconds between looks.

        Raises:
            UnsupportedFault: A unix socket cannot be reset.
        """
        if not self.can_reset:
            raise UnsupportedFault(
                "a unix stream cannot be reset: its client would see a plain end of stream; use close()"
            )
        sock, until = self.tape.socket, original.monotonic() + RESET_PATIENCE
        while sock is not None and sock.fileno() >= 0 and unacknowledged(sock) and original.monotonic() < until:
            yield 0.001  # nothing tells when the other kernel has acknowledged
        self.reset_now()

    def reset_now(self) -> None:
        """End the hard way, on a unix socket plainly; noted before the client can see it."""
        tape = self.tape
        with tape.lock:
            sock = tape.socket
            if sock is None or sock.fileno() < 0:
                return
            if self.can_reset:
                tape.note(RESET)
                hard_close(sock)
                tape.went()
                return
            tape.note(NOTE, b"a unix stream cannot be reset: the client sees a plain end of stream")
            tape.tap = None  # what comes of this is cut by the driver at its end, without a lock
            self.take_the_rest()  # closing over unread input would be a reset after all, now and then (unix(7))
            tape.note(CLOSE)
            try:
                PlainSocket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster
            sock.close()

    def detach(self, undelivered: Buffer | None = None) -> TappedSocket:
        """Give the socket away, blocking and without a time-out, and with it what was received and not taken.

        Args:
            undelivered: What was received after that, for an injection, which has not handed it on.
        """
        sock = self.socket_for("detach")
        # What was received and not read goes along, in front of the socket: its new owner must not miss it.
        ahead, self.buffer = self.buffer, Buffer()
        if undelivered is not None:
            ahead.feed(undelivered.take(len(undelivered)))
            ahead.ended, ahead.broken = ahead.ended or undelivered.ended, ahead.broken or undelivered.broken
        sock.settimeout(None)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
        self.tape.interposer = ReadAhead(self.tape, ahead) if len(ahead) or ahead.ended else None
        self.tape.state = PARKED
        self.detached = True
        return sock

    def cut(self, why: str) -> None:
        """End it from outside its driver's thread: whatever he waits for is over, and he closes the socket."""
        cut(self.tape, why)

    def close_from_outside(self) -> None:
        """End a stream that another thread drives: the client reads an end of stream."""
        with self.tape.lock:
            # Noted first, then cut: a client that sees the end finds it recorded.
            self.tape.note(CLOSE)
            self.cut("the test closed the connection")
            self.tape.went()  # as far as the client can see

    def reset_from_outside(self) -> None:
        """Reset a stream that another thread drives."""
        with self.tape.lock:
            self.tape.cut = self.tape.cut or "the test reset the connection"
            self.reset_now()
        self.tape.bells.ring()  # a driver that waits for a time or a gate, and for no socket, looks again

    def take_the_rest(self) -> None:
        """Record what is in the kernel, before a stream that no thread reads is cut."""
        with self.tape.lock:
            sock = self.tape.socket
            try:
                while sock is not None and sock.fileno() >= 0 and not self.buffer.ended and not self.detached:
                    at = hello_at(sock) if self.may_begin_tls else -1  # which OpenSSL has to receive by itself
                    if at == 0 or not self.receive(at if at > 0 else CHUNK):
                        return
            except OSError as error:
                if sock is not None:
                    sock.explained(error)  # which notes a reset
                self.buffer.ended = True  # it was ended from outside before, or the record says why

    def _say_goodbye(self) -> None:
        """Send TLS's close_notify without waiting for the client's."""
        sock: Any = self.tape.socket
        if not hasattr(sock, "unwrap") or self.tape.cut or self.tls is None or self.tls.error is not None:
            return
        try:
            sock.settimeout(0.0)
            sock.unwrap()
        except (OSError, ValueError):
            pass  # SSLWantReadError: it was sent and we do not wait; anything else: the client is gone

    def _discard(self, sock: TappedSocket) -> Iterator[float]:
        until = original.monotonic() + LINGER
        while (left := until - original.monotonic()) > 0 and not self.tape.cut and not self.buffer.ended:
            if not (self.receive() if self.tls is None else self._receive_past_tls(sock)):
                yield left

    def _receive_past_tls(self, sock: TappedSocket) -> bool:
        """Throw away what is there: OpenSSL decrypts nothing any more once it has said goodbye over unread input."""
        try:
            self.buffer.ended = not PlainSocket.recv(sock, CHUNK, DONTWAIT)
        except BlockingIOError:
            return False
        return True

    # TLS

    def start_tls(self, context: ssl.SSLContext, *, at_once: bool = False) -> Iterator[bool]:
        """Do the server's side of a TLS handshake.

        Args:
            at_once: The connection begins with it: it is no event of the conversation.

        Raises:
            ScriptMismatch: Plain text had come already; its text is a summary.
            OSError: The handshake failed, and ``tls.error`` says why.
        """
        ssl = ssl_module()
        plain = self.socket_for("start_tls on")
        if self.secured:
            raise InvalidState(f"cannot start_tls on connection {self.tape.index}: it speaks TLS already")
        if at_once:
            yield from self._await_hello()
        if self.early_hello:
            raise ScriptMismatch(
                "expected the client to begin TLS after the server's go-ahead, but its ClientHello had come before "
                "that: it must wait for the reply (RFC 3207 section 4)"
            )
        self.may_begin_tls = False
        early = bytes(self.buffer)
        if not early:
            early = _peeked(plain)
            early = b"" if early[:2] == _TLS_HANDSHAKE[: len(early)] else early
        if early:
            raise ScriptMismatch(
                f"expected a TLS handshake, but the client had sent plain text already, which would be taken for "
                f"protected (STARTTLS injection)\n  got {shortened(early)}"
            )
        self.tls = SimpleNamespace(error=None, **_UNKNOWN)
        try:
            secured: Any = wrap_tls(plain, context, noted=not at_once)
        except OSError as error:
            raise self.handshake_failed(error).with_traceback(None) from None
        # Non-blocking from here on: the caller waits, with its own deadline and its own way of waiting.
        secured.settimeout(0.0)
        while True:
            try:
                secured.do_handshake()
                break
            except ssl.SSLWantReadError:
                yield False
            except ssl.SSLWantWriteError:
                yield True
            except OSError as error:
                self.tls.server_name = getattr(secured, "server_name", None)
                raise self.handshake_failed(error).with_traceback(None) from None
        self.tls.server_name = getattr(secured, "server_name", None)  # which our contexts note (certificates.py)
        self.tls.certificate = secured.getpeercert() or None
        self.tls.version, self.tls.cipher = secured.version(), secured.cipher()
        self.tls.alpn, self.tls.resumed = secured.selected_alpn_protocol(), secured.session_reused
        if at_once:
            asked = f" for {self.tls.server_name}" if self.tls.server_name else ""
            self.tape.note(NOTE, f"{self.tls.version}{asked}".encode())

    def _await_hello(self) -> Iterator[bool]:
        """Wait for the first bytes of a client who is to begin with TLS; one who says something else fails at once.

        OpenSSL would wait for five bytes before it says so.

        Raises:
            OSError: It is plain text.
        """
        ssl = ssl_module()
        while not self.has_input():
            yield False
        early = self.peeked()  # which may have been ended from outside meanwhile
        if early[:2] != _TLS_HANDSHAKE[: len(early)]:
            self.tls = SimpleNamespace(error=None, **_UNKNOWN)
            text = f"the client sent plain text instead of a TLS handshake: {shortened(early)}"
            raise self.handshake_failed(ssl.SSLError(text))

    def peeked(self) -> bytes:
        """Return the first bytes of what has come; note if it is the end of the stream, and nothing came before."""
        early = _peeked(self.socket_for("start_tls on"))
        self.silent = not early and not self.tape.received_count
        return early

    def handshake_failed(self, error: OSError) -> OSError:
        """Note why a handshake failed; return what to raise.  A handler is ended by it and not failed.

        A refused certificate may be just what the test is about.
        """
        if self.tape.cut:
            self.tape.saw_cut = True
            return ServerStopping(self.tape.cut)
        assert self.tls is not None
        self.tls.error = self.quiet_end = error
        self.tape.note(NOTE, f"the TLS handshake failed: {str(error).partition(chr(10))[0]}".encode())
        return error


def _readable(sock: TappedSocket) -> bool:
    """Tell whether a receive would not wait; one that was closed by another thread says so at once."""
    try:
        return ready(sock, False, 0)
    except (OSError, ValueError):
        return True


def _peeked(sock: TappedSocket) -> bytes:
    try:
        return sock.recv(64, socket.MSG_PEEK | DONTWAIT)
    except OSError:
        return b""


def _wants_more(error: OSError) -> bool:
    """Tell whether a non-blocking TLS socket only asks to be called again when the network has moved."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError))
