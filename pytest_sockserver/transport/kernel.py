"""What is done to a connection from outside its driver's thread: to look whether it is idle, and to end it.

Closing a descriptor from another thread wakes nobody who is blocked on it; shutting it down does, whatever
it is blocked in.  Each step that touches the descriptor takes the tape's lock, as the driver does to close
it: of numbers that were shut down without it, 68 of 3,000 belonged to another file by then.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from typing import Final

from ..originals import original
from ..recording.recorder import PARKED, RECEIVING, SENDING, WAITING, Tape
from .tapped_socket import DONTWAIT, PlainSocket, inode, ready, received_by_kernel

# Rules:
#
# - Nothing here blocks, and another thread than the connection's may call it.  So each answer may be out of date when
#   it is used, and is made such that this does no harm: "idle" is only said of a moment that lies after all arrivals
#   that it speaks of, and ends may be done twice.
# - Another thread does something to the descriptor only under the tape's lock.  The state and our own count are read
#   without it, *after* the kernel was asked: in that order they prove something, in the other they prove nothing.
#   Between a look at the state and a later look at the kernel, bytes can arrive and be taken.
# - ``cut`` is set before the shutdown, in one step under the lock, and the bells are rung after it.  ``cut`` keeps its
#   first reason.
#
# Counts.  The kernel's count has the end of the stream as one byte, and urgent bytes, which a receive may not return.
# So unequal counts do not prove that bytes are on their way; equal ones prove that none are.  Unequal counts that stand
# still for ``_COUNT_SETTLES`` are taken for settled.  Elsewhere than on Linux, on unix sockets and under TLS there is
# no count: there the peek in ``tapped_socket`` does the same work for one more system call.
#
# What cannot be seen: bytes that are still in the client's kernel (but for what ``acknowledge_now`` releases) or in the
# client's own buffers, and a handler that waits in a poll of its own, which looks busy.
#
# Not done: a shutdown of reading alone, to let a driver receive what is queued and then see the end.  Systems differ in
# what they do with input that is queued then; so the drain comes before the cut.
_LOOK: Final = 4096  # bytes: what stands before a hello is a line, or a header

_HELLO: Final = re.compile(rb"\x16\x03[\x00-\x04]..\x01", re.DOTALL)

#: Seconds.  A thread in a receive that the kernel has given its bytes to has them within milliseconds; if for so long
#: the counts differ and nothing changes, bytes went another way: urgent ones, or through a copy of the descriptor.
_COUNT_SETTLES: Final = 0.25


def quiet(tape: Tape) -> bool:
    """Tell whether everything that has arrived was taken and handled, and the driver waits for more.

    First the kernel, then the state, in this order: bytes leave the kernel in state BUSY alone, so nothing to
    read and *afterwards* WAITING means that the driver is back from handling whatever there was.  In state RECEIVING
    they leave it unseen; but ours grows while it is BUSY, so the kernel's count, *afterwards* ours, and then RECEIVING
    says the same if the two are equal.
    """
    with tape.lock:
        sock = tape.socket
        if sock is None or sock.fileno() < 0:
            return tape.state is PARKED  # handed over: its reads are not ours to see
        acknowledge_now(sock)  # else a second small write of the client is missed, 60 of 60 times
        readable = ready(sock, False, 0)
        kernel = received_by_kernel(sock) if tape.is_counted else None
        full = tape.state is SENDING and not ready(sock, True, 0)
    # Without the lock, and in this order: the count grows in BUSY, so a state read afterwards is not older than it.
    ours = tape.received_count + tape.client_ended  # Linux counts the end as a byte
    state = tape.state
    if state is RECEIVING:
        return not readable and (kernel == ours or _has_settled(tape, (kernel, ours)))
    return (state is WAITING and not readable) or (state is SENDING and full) or state is PARKED


def _has_settled(tape: Tape, counts: tuple[int | None, int]) -> bool:
    """Tell whether these counts, which differ, have not changed for long."""
    now = original.monotonic()
    before, since = tape.unequal_counts
    if before != counts:
        tape.unequal_counts = counts, now
        return False
    return now > since + _COUNT_SETTLES


def acknowledge_now(sock: socket.socket) -> None:
    """Let a client's further bytes come: a second small write sits in *its* kernel until the first is acknowledged.

    Nagle's algorithm there and a delayed acknowledgement here cost 40 ms (RFC 1122 section 4.2.3.4).  Linux alone has
    the option, and forgets it with the next acknowledgement.
    """
    if sock.family != getattr(socket, "AF_UNIX", None) and hasattr(socket, "TCP_QUICKACK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def cut(tape: Tape, why: str) -> None:
    """End a live connection from another thread: whatever its driver is blocked in returns at once."""
    with tape.lock:
        tape.cut = tape.cut or why
        sock = tape.socket
        try:
            if sock is not None and sock.fileno() >= 0:
                # Not SSLSocket.shutdown(): it drops the TLS state, and the driver would read ciphertext as plain.
                PlainSocket.shutdown(sock, socket.SHUT_RDWR)
            elif tape.handed_over is not None:
                _cut_descriptor(*tape.handed_over)
        except OSError:
            pass  # ENOTCONN: the client was faster
    tape.bells.ring()  # its driver may wait for something else than the socket


def _cut_descriptor(number: int, expected: int) -> None:
    """Shut down a socket that was detached or wrapped by the handler itself, if the number still is that socket."""
    try:
        # The handler may have closed it since, and the number may be another file's.  The inode tells them apart;
        # between this look and the shutdown there is a gap that nothing can close, as the new owner takes no lock of
        # ours.
        if inode(number) != expected:
            return
        borrowed = PlainSocket(fileno=number)
    except OSError:
        return
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    finally:
        # Not a close: the number is the handler's.
        borrowed.detach()


def unacknowledged(sock: socket.socket) -> int:
    """Return the bytes that the peer's kernel has not taken yet; 0 where that cannot be told."""
    try:
        import fcntl
        import termios

        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    except (ImportError, AttributeError, OSError):
        return 0


def unread(sock: socket.socket) -> int:
    """Return the bytes that have arrived and were not received; 0 where that cannot be told."""
    try:
        import fcntl
        import termios

        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0" * 4))[0])
    except (ImportError, AttributeError, OSError):
        return 0


def hello_at(sock: socket.socket) -> int:
    """Return where in what has arrived a TLS ClientHello begins, -1 if there is none.

    That is a handshake record of version 3.x with a message of type 1 (RFC 8446 sections 5.1 and 4).

    Raises:
        OSError: What the socket has to report instead; it does so once, so it must not be passed over.
    """
    try:
        arrived = PlainSocket.recv(sock, _LOOK, socket.MSG_PEEK | DONTWAIT)
    except BlockingIOError:
        return -1
    found = _HELLO.search(arrived)
    return found.start() if found is not None else -1


def hard_close(sock: socket.socket) -> None:
    """Close with a reset instead of an end of stream.  The tape's lock must be held.

    Linger of zero seconds and close is a reset only while nobody else holds the socket: a live
    ``makefile()`` puts ``close()`` off, so the descriptor is detached and closed by itself; a thread that is
    blocked in a receive keeps it alive, so reading is shut down first, which ends that receive.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii" if os.name != "nt" else "hh", 1, 0))
        PlainSocket.shutdown(sock, socket.SHUT_RD)  # not SSLSocket's, as above
    except OSError:
        pass  # the client has reset already
    family, kind, proto = sock.family, sock.type, sock.proto
    number = PlainSocket.detach(sock)
    if number >= 0:
        PlainSocket(family, kind, proto, number).close()
