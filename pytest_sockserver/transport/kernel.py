"""What is done to a connection from outside its driver's thread: to look whether it is idle, and to end it.

Closing a descriptor from another thread wakes nobody who is blocked on it; shutting it down does, whatever
he is blocked in.  Each step that touches the descriptor takes the tape's lock, as the driver does to close
it: of numbers that were shut down without it, 68 of 3,000 belonged to another file by then.
"""

from __future__ import annotations

import os
import socket
import struct

from ..recording.recorder import PARKED, SENDING, WAITING, Tape
from .tapped_socket import PlainSocket, inode, ready


def quiet(tape: Tape) -> bool:
    """Tell whether everything that has arrived was taken and handled, and the driver waits for more.

    First the kernel, then the state, in this order: bytes leave the kernel in state BUSY alone, so nothing to
    read and *afterwards* WAITING means that the driver is back from handling whatever there was.
    """
    with tape.lock:
        sock = tape.socket
        if sock is None or sock.fileno() < 0:
            return tape.state is PARKED  # handed over: its reads are not ours to see
        acknowledge_now(sock)  # else a second small write of the client is missed, 60 of 60 times
        readable = ready(sock, False, 0)
        full = tape.state is SENDING and not ready(sock, True, 0)
    state = tape.state
    return (state is WAITING and not readable) or (state is SENDING and full) or state is PARKED


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
    tape.unpark()  # a driver may wait for something that is not his socket


def _cut_descriptor(number: int, expected: int) -> None:
    """Shut down a socket that was detached or wrapped by the handler itself, if the number still is that socket."""
    try:
        if inode(number) != expected:
            return
        borrowed = PlainSocket(fileno=number)
    except OSError:
        return
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    finally:
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


def begins_tls(sock: socket.socket) -> bool:
    """Tell whether what has arrived is a TLS ClientHello: a handshake record of version 3.x (RFC 8446 section 5.1).

    Raises:
        OSError: What the socket has to say instead; it says it once, so it must not be passed over.
    """
    try:
        first = PlainSocket.recv(sock, 6, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return first[:2] == b"\x16\x03" and first[5:] == b"\x01"


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
