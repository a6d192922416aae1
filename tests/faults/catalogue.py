"""The catalogue of faults: each row with what a client sees of it, and why some have none.

The numbers are those of the project's list: ``L`` the listener's, ``T`` of streams, ``S`` of TLS; ``D`` of datagrams,
``U`` of unix sockets, in its order; ``X`` what ``inject()`` adds.
"""

from __future__ import annotations

from . import datagrams, injections, listeners, streams, tls, unix

ROWS = [*listeners.ROWS, *streams.ROWS, *tls.ROWS, *datagrams.ROWS, *unix.ROWS, *injections.ROWS]

IDS = [
    *[f"L{n}" for n in range(1, 12)],
    *[f"T{n}" for n in range(1, 23)],
    *[f"S{n}" for n in range(1, 15)],
    *[f"D{n}" for n in range(1, 20)],
    *[f"U{n}" for n in range(1, 14)],
    *[f"X{n}" for n in range(1, 4)],
]

# Why there is no row; the docs say the same.
IMPOSSIBLE = {
    "T6": "shutdown(SHUT_RD) says nothing to a client of Linux, whose sends go on succeeding; systems differ.  "
    "Stall() with rcvbuf= is a server that does not read, Reset() one that says so",
    "D18": "which datagrams overflow a server's small buffer depends on when its thread runs; what the client sees is "
    "loss, and inject(direction='received', at=...) loses the ones that are named",
    "U1": "a unix stream has no reset: Reset() raises UnsupportedFault",
    "U11": "SOCK_SEQPACKET is no transport of this library",
}

# What of a row cannot be shown, or not everywhere.
PARTLY = {
    "L8": "of unix sockets there is no reset: who waits there reads an end of stream",
    "L10": "over TLS restart() and disconnect() send no close_notify: they do not write where a handler may be writing",
    "T5": "over TLS what a client sends after the server's end may be lost: Python's ssl reads while it says goodbye",
    "T15": "over TLS EndAfter() sends no close_notify, for the reason of L10",
    "S3": "Python's ssl hides ECONNRESET from a client: any end of the stream is taken for a reset",
    "S12": "revoked certificates: Python's ssl asks no OCSP responder, and loads lists that the client must have",
}

# What is no fault of a server, and is tested where it belongs.
ELSEWHERE = {
    "U8": "tests/test_addresses_options.py: a path that is too long",
    "U13": "tests/test_addresses_options.py: a file that the server did not create is not removed",
}
