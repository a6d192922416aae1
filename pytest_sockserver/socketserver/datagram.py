"""Servers of datagrams: UDP and unix sockets.

A "request" is a pair: the data, and the socket through which to answer.

A UDP socket that is bound to all addresses answers from whichever one the kernel's routing prefers.  A client that
asked 127.0.0.5 with a connected socket never sees an answer from 127.0.0.1.  With ``reply_from_destination`` the
kernel is asked for each datagram's destination (ip(7), IP_PKTINFO; RFC 3542, section 6), and the answer names it as
its source.

Not done: O_NONBLOCK, as on listening sockets.  Handlers use this very socket to reply, and must be able to block.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any, NamedTuple

from .stream import SocketFile, TCPServer


class _PacketInfo(NamedTuple):
    """How one address family speaks of a datagram's destination."""

    level: int
    ask: int  # the socket option that turns it on
    kind: int  # the type of the control message, both ways
    size: int  # of the control message's data, in bytes


_PACKET_INFO: dict[int, _PacketInfo] = {}
if sys.platform == "linux":
    # Older versions of Python do not have socket.IP_PKTINFO; 8 is its value on Linux (linux/in.h).
    _IP_PKTINFO: int = getattr(socket, "IP_PKTINFO", 8)
    _PACKET_INFO = {
        socket.AF_INET: _PacketInfo(socket.IPPROTO_IP, _IP_PKTINFO, _IP_PKTINFO, 12),
        socket.AF_INET6: _PacketInfo(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, socket.IPV6_PKTINFO, 20),
    }


class ReplySocket:
    """A server's socket, as the handler of one datagram sees it: ``sendto()`` answers from the address that was asked.

    All else is the server's socket itself.  ``truncated`` says whether the datagram was longer than
    ``max_packet_size``.
    """

    def __init__(self, sock: socket.socket, source: list[tuple[int, int, bytes]], truncated: bool) -> None:
        self._sock = sock
        self._source = source  # control messages
        self.truncated = truncated

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendto(self, data: Any, *flags_and_address: Any) -> int:
        """``sendto(data, [flags,] address)``: send, return the number of bytes sent."""
        if not self._source:
            return self._sock.sendto(data, *flags_and_address)
        *flags, address = flags_and_address
        return self._sock.sendmsg([data], self._source, flags[0] if flags else 0, address)


class UDPServer(TCPServer):
    """A server of UDP datagrams.

    Datagrams longer than ``max_packet_size`` bytes are cut off, and nothing tells but ``reply_from_destination``'s
    ``truncated``: UDP allows 65,507 bytes over IPv4.

    The socket blocks: a datagram that ``select()`` has announced and that then turns out to be damaged (its checksum
    is looked at late on Linux) stops the loop until the next one comes.
    """

    socket_type: int = socket.SOCK_DGRAM
    max_packet_size = 8192
    allow_reuse_address = False
    allow_reuse_port = False

    #: True: replies leave from the address to which the request was sent, and the socket in ``request`` is a thin
    #: object before the real one, with the attribute ``truncated``.  On systems other than Linux it has no effect.
    reply_from_destination = False

    def server_activate(self) -> None:
        """Do nothing: datagrams need no listening."""

    def get_request(self) -> tuple[Any, Any]:
        """Receive a datagram; return ``(data, socket)`` and the client's address."""
        if (info := self._packet_info()) is not None:
            return self._get_request_with_destination(info)
        data, client_address = self.socket.recvfrom(self.max_packet_size)
        return (data, self.socket), client_address

    def shutdown_request(self, request: Any) -> None:
        """Close the request, which has nothing to shut down."""
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Do nothing: the socket is the server's."""

    def _after_bind(self) -> None:
        if (info := self._packet_info()) is not None:
            self.socket.setsockopt(info.level, info.ask, 1)

    def _packet_info(self) -> _PacketInfo | None:
        return _PACKET_INFO.get(self.address_family) if self.reply_from_destination else None

    def _get_request_with_destination(self, info: _PacketInfo) -> tuple[Any, Any]:
        data, control, flags, client_address = self.socket.recvmsg(self.max_packet_size, socket.CMSG_SPACE(info.size))
        source = [
            (level, kind, _as_source(value))
            for level, kind, value in control
            if (level, kind) == (info.level, info.kind) and _can_be_source(value)
        ]
        return (data, ReplySocket(self.socket, source, bool(flags & socket.MSG_TRUNC))), client_address

    def _request_accepted(self, request: Any) -> None:
        pass  # there is no connection to end


if hasattr(socket, "AF_UNIX"):

    class UnixDatagramServer(UDPServer):
        """A server of datagrams on a unix socket; ``server_address`` is its path.

        A client that is not bound has the address None: it cannot be answered.
        """

        address_family = socket.AF_UNIX

        #: As ``UnixStreamServer.unlink_on_close``.
        unlink_on_close = False

        __file: SocketFile | None = None

        def _after_bind(self) -> None:
            self.__file = SocketFile.of(self.server_address)

        def _before_close(self) -> None:
            if self.unlink_on_close and self.__file is not None and self.fileno() >= 0:
                self.__file.unlink()


def _can_be_source(packet_info: bytes) -> bool:
    """Return whether one can answer from there: not from an IPv6 multicast group, ff00::/8."""
    return len(packet_info) == 12 or packet_info[0] != 0xFF


def _as_source(packet_info: bytes) -> bytes:
    """Turn what was received into what is to be sent.

    struct in_pktinfo: the interface's index, the local address, the header's destination.  For a broadcast the two
    differ, and only the local one can be a source.  The index is left out: routing decides; but a link-local IPv6
    address means nothing without it.
    """
    if len(packet_info) == 12:
        _, local, _ = struct.unpack("=I4s4s", packet_info)
        return struct.pack("=I4s4s", 0, local, b"\0" * 4)
    link_local = packet_info[0] == 0xFE and packet_info[1] & 0xC0 == 0x80
    return packet_info if link_local else packet_info[:16] + b"\0" * 4
