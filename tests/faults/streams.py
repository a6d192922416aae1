"""Streams: what is said, when, and how it ends."""

from __future__ import annotations

import select
import socket
from functools import partial
from time import monotonic
from typing import Any

from pytest_sockserver import CONNECT, Close, Cut, Delay, Drip, Gate, OpenGate, Reset, SendEof, Stall
from pytest_sockserver.faults import (
    Alert,
    Append,
    Corrupt,
    EndAfter,
    Hold,
    Jitter,
    Overwrite,
    Prepend,
    Raw,
    ReadSlowly,
    Repeat,
    Replace,
    Split,
    Throttle,
    Urgent,
    garbage,
)

from .client import END, IN_TIME, PATIENCE, RAGGED, SILENCE, Client, Watch, after, named, read
from .rows import ASK, BYE, NEXT, SAID, STREAMS, TCP, Row, in_places, reply

RESET = "ECONNRESET"
BIG = b"x" * 50_000  # bytes that fit into the queues of any kernel
DRAWN = b"01\xcd3456789"  # what Corrupt(SAID, seed=7) is on every machine
GARBAGE = b"\n\x7f\xdd\xc2.7\xea\xf0[tDY\xf6\x12\x9f\xd1\xc9|\xb5\x01"  # what garbage(20, seed=3) is on every machine
LARGE = 1 << 20  # more than a client's kernel takes at once
HUGE = 1 << 23  # bytes that do not: what a client can push into a connection that nobody reads was at most 3.9 MB


# Endings


def write_after_the_end(client: Client) -> object:
    """The first write after the end is answered by a reset, which a later one is told of."""
    sock = client.connected()
    sock.sendall(ASK)
    seen = client.rest(sock)
    until = monotonic() + PATIENCE
    while monotonic() < until:  # a close over unread input discards, for 0.2 seconds, what still comes
        try:
            sock.send(b"more")
        except OSError as error:
            return (*seen, "writes are stuck" if named(error) == SILENCE else "no further writes")
    return (*seen, "writes went on")


def unread_input(client: Client) -> object:
    """Most of the reply is on its way when the server closes: a reset would destroy that."""
    sock = client.connected()
    sock.sendall(BIG)
    client.server.open_gate("all-sent")
    data, end = client.rest(sock)
    return len(data), end


def large_then_closed(client: Client) -> object:
    """The kernel has hardly any room when the server has said all and closes; its end, and TLS's, come all the same."""
    sock = client.connected()
    sock.sendall(ASK)
    data, end = client.rest(sock)
    return len(data), end


def half_closed(client: Client) -> object:
    """All of an upload is taken after the server's end, however much it is; and only then comes the server's close."""
    sock = client.connected()
    sock.sendall(ASK)
    seen = client.rest(sock)
    sock.sendall(b"x" * HUGE)
    sock.shutdown(socket.SHUT_WR)
    return seen


def half_closed_script(server: Any) -> None:
    server.script().expect(ASK).send(SAID, SendEof()).expect(b"x" * HUGE).expect_eof()


def never_read(client: Client) -> object:
    sock = client.connected()
    sock.settimeout(0.1)
    try:
        sock.sendall(b"x" * HUGE)
    except TimeoutError:
        return "blocked"
    return "all was taken"


def end_while_saying(client: Client) -> object:
    sock, watch = client.connected(), Watch()
    sock.sendall(ASK)
    data, end = client.rest(sock)
    whole = data == (SAID * (len(data) // len(SAID) + 1))[: len(data)]
    # The end comes in the midst of a record, or with bytes of the client unread: it need be no clean one.
    return len(data) >= len(SAID) and whole, end in (END, RAGGED, RESET), watch.least(0.03)


def end_after_nothing(client: Client, hard: bool = False) -> object:
    sock, watch = client.connected(), Watch()
    return *client.rest(sock, hard=hard), watch.least(0.02)


ENDINGS = [
    *reply("T1", "close", lambda data: (data, Close()), SAID, end=END, transports=STREAMS),
    Row(
        "T1",
        "writes after a close are refused",
        STREAMS,
        lambda server: server.on(ASK).reply(SAID, Close()),
        write_after_the_end,
        (SAID, END, "no further writes"),
        shows=(Close,),
    ),
    *reply("T2", "reset", lambda data: (Reset(),), end=RESET, transports=TCP),
    Row(
        "T1",
        "close behind a large reply",
        STREAMS,
        lambda server: server.on(ASK).reply(b"r" * HUGE, Close()),
        large_then_closed,
        (HUGE, END),
    ),
    Row(
        "T3",
        "close over unread input is clean",
        STREAMS,
        lambda server: server.on(CONNECT).reply(Gate("all-sent"), b"r" * LARGE, Close()),
        unread_input,
        (LARGE, END),
    ),
    *reply("T4", "data, then a reset", lambda data: (data, Reset()), SAID, end=RESET, transports=TCP),
    *reply("T4", "50 kB, then a reset", lambda data: (BIG, Reset()), BIG, end=RESET, transports=TCP),
    *reply("T5", "half-close", lambda data: (data, SendEof()), SAID, end=END, transports=STREAMS),
    Row("T5", "uploads go on after a half-close", ("tcp", "unix"), half_closed_script, half_closed, (SAID, END)),
    *reply("T18", "close without a word", lambda data: (Close(),), end=END, transports=STREAMS),
    *reply(
        "T15",
        "a limit of time",
        lambda data: (data, EndAfter(0.03)),
        SAID,
        end=END,
        least=0.03,
        transports=("tcp", "unix"),
    ),
    *reply(
        "T15", "a limit of time", lambda data: (data, EndAfter(0.03)), SAID, end=RAGGED, least=0.03, transports=("tls",)
    ),
    *reply(
        "T15",
        "a limit of time, by reset",
        lambda data: (data, EndAfter(0.03, end=Reset())),
        SAID,
        end=RESET,
        least=0.03,
        transports=TCP,
    ),
    *in_places(
        "T15",
        "a limit of time while it says something",
        lambda data: (data, EndAfter(0.03), Repeat(data, None)),
        end_while_saying,
        (True, True, IN_TIME),
        transports=STREAMS,
        open=False,
    ),
    *reply(
        "T16",
        "slow close",
        lambda data: (data, Delay(0.03), Close()),
        SAID,
        end=END,
        least=0.03,
        transports=STREAMS,
    ),
]


# Time


def slow_upload(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    first, watch = read(sock, len(SAID)), Watch()
    sock.sendall(ASK)
    return first, read(sock, len(NEXT)), watch.least(0.03)


def gate(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    before = after(sock)
    client.server.open_gate("gate")
    return before, read(sock, len(SAID))


def split_at_a_gate(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    seen = [read(sock, 4), after(sock)]
    client.server.open_gate("gate")
    seen += [read(sock, 6)]
    sock.sendall(BYE)
    return *seen, client.rest(sock)


def slow_start(client: Client) -> object:
    sock, watch = client.connected(), Watch()
    sock.sendall(ASK)
    return read(sock, len(SAID)), watch.least(0.03)


TIMES = [
    *reply("T9", "stall before a reply", lambda data: (Stall(),), end=SILENCE, transports=STREAMS),
    *reply(
        "T9", "stall within a reply", lambda data: (Cut(data, 4), Stall()), SAID[:4], end=SILENCE, transports=STREAMS
    ),
    *reply("T9", "stall after a reply", lambda data: (data, Stall()), SAID, end=SILENCE, transports=STREAMS),
    *reply("T10", "latency", lambda data: (Delay(0.02), data), SAID, least=0.02, transports=STREAMS),
    *reply("T10", "jitter", lambda data: (Jitter(0.02, 0.03, seed=1), data), SAID, least=0.02, transports=STREAMS),
    *reply("T11", "drip", lambda data: (Drip(data, 0.003),), SAID, least=9 * 0.003, transports=STREAMS),
    *reply("T11", "drip of 4 bytes", lambda data: (Drip(data, 0.01, 4),), SAID, least=0.02, transports=STREAMS),
    # A fiftieth of a second's worth is 8 bytes; the other two come a fiftieth of a second later.
    *reply("T11", "throttle", lambda data: (Throttle(data, 400),), SAID, least=0.02, transports=STREAMS),
    *reply("T11", "split", lambda data: (Split(data, 3, 7, pause=0.01),), SAID, least=0.02, transports=STREAMS),
    *in_places(
        "T11",
        "split at a gate",
        lambda data: (Split(data, 4, gate="gate"),),
        split_at_a_gate,
        (SAID[:4], SILENCE, SAID[4:], (b"", END)),
        transports=STREAMS,
    ),
    *in_places(
        "T8",
        "slow reading",
        lambda data: (ReadSlowly(1, 0.01), data),
        slow_upload,
        (SAID, NEXT, IN_TIME),
        transports=STREAMS,
        asks=2,
        open=False,
    ),
    Row(
        "T7",
        "nothing is read",
        STREAMS,
        lambda server: server.on(CONNECT).reply(Stall()),
        never_read,
        "blocked",
        options={"rcvbuf": 4096},
        shows=(Stall,),
    ),
    *in_places(
        "T21",
        "a reply at a gate",
        lambda data: (Gate("gate"), data),
        gate,
        (SILENCE, SAID),
        transports=STREAMS,
        open=False,
    ),
    *reply("T21", "a gate that a reply opens", lambda data: (OpenGate("g"), Gate("g"), data), SAID, transports=STREAMS),
]


# Bytes


def endless(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    data = read(sock, 300_000)
    return data == SAID * 30_000


def one_receive(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    return sock.recv(100)


def urgent(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    poll = select.poll()
    poll.register(sock, select.POLLPRI)
    arrived = bool(poll.poll(5000))
    beside = sock.recv(1, socket.MSG_OOB) if arrived else b""
    sock.sendall(BYE)
    return beside, client.rest(sock)


BYTES = [
    *reply("T12", "several replies at once", lambda data: (data, NEXT), SAID, NEXT, transports=STREAMS),
    *in_places(
        "T12",
        "several replies in one segment",
        lambda data: (data, NEXT, Prepend(NEXT, b">")),
        one_receive,
        SAID + NEXT + b">" + NEXT,
        transports=STREAMS,
        open=False,
    ),
    *reply("T13", "truncated, then close", lambda data: (Cut(data, 4), Close()), SAID[:4], end=END, transports=STREAMS),
    *reply("T13", "truncated, then reset", lambda data: (Cut(data, 4), Reset()), SAID[:4], end=RESET, transports=TCP),
    *reply("T14", "nothing of it, then close", lambda data: (Cut(data, 0), Close()), end=END, transports=STREAMS),
    *reply("T14", "truncated", lambda data: (Cut(data, 9),), SAID[:9], transports=STREAMS),
    *reply("T17", "garbage instead", lambda data: (garbage(20, seed=3),), GARBAGE, transports=STREAMS),
    *reply("T17", "garbage before", lambda data: (Prepend(data, b"\0\xff"),), b"\0\xff" + SAID, transports=STREAMS),
    *reply("T17", "garbage after", lambda data: (Append(data, b"\0\xff"),), SAID + b"\0\xff", transports=STREAMS),
    *reply("T17", "a corrupt byte", lambda data: (Corrupt(data, 3),), b"012\xcc456789", transports=STREAMS),
    *reply("T17", "a flipped bit", lambda data: (Corrupt(data, 9, 0x01),), b"0123456788", transports=STREAMS),
    *reply("T17", "a byte drawn and corrupted", lambda data: (Corrupt(data, seed=7),), DRAWN, transports=STREAMS),
    *reply("T17", "a wrong length", lambda data: (Overwrite(data, 0, b"99"),), b"9923456789", transports=STREAMS),
    *reply("T17", "a wrong delimiter", lambda data: (Replace(data, b"89", b"-"),), b"01234567-", transports=STREAMS),
    *reply("T17", "a reply twice", lambda data: (Repeat(data),), SAID, SAID, transports=STREAMS),
    *reply("T17", "a reply five times", lambda data: (Repeat(data, 5),), *[SAID] * 5, transports=STREAMS),
    *reply("T17", "replies swapped", lambda data: (Hold(data),), NEXT, SAID, asks=2, transports=STREAMS),
    *reply("T17", "a reply two later", lambda data: (Hold(data, 2),), NEXT, NEXT, SAID, asks=3, transports=STREAMS),
    *reply(
        "T17",
        "modifiers in one another",
        lambda data: (Drip(Append(Corrupt(Cut(data, 4), 0), b"!"), 0.001), Repeat(data, 2)),
        b"\xcf123!",
        SAID,
        SAID,
        transports=STREAMS,
    ),
    *in_places(
        "T17",
        "a reply without end",
        lambda data: (Repeat(data, None),),
        endless,
        True,
        transports=STREAMS,
        open=False,
    ),
    *in_places(
        "T19",
        "urgent data",
        lambda data: (data, Urgent(b"!"), NEXT),
        urgent,
        (b"!", (SAID + NEXT, END)),
        transports=("tcp",),
    ),
    *reply(
        "S8",
        "bytes past TLS, where there is none",
        lambda data: (data, Raw(b"raw")),
        SAID,
        b"raw",
        transports=("tcp", "unix"),
    ),
    *reply(
        "S7",
        "an alert, as bytes",
        lambda data: (Alert("handshake_failure"),),
        b"\x15\x03\x03\x00\x02\x02\x28",
        transports=("tcp", "unix"),
    ),
]


# The connection as a whole


def limited_segments(client: Client) -> object:
    sock = client.connected()
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 88


def pushed(client: Client) -> object:
    sock = client.connected()
    before = after(sock)
    client.server.open_gate("gate")
    return before, read(sock, len(SAID))


def in_turn(client: Client, count: int = 1) -> object:
    said = [client.conversation(ASK, BYE, hard=True) for _ in range(count)]
    return ["said" if data == SAID else end for data, end in said]


def requests_in_turn(client: Client) -> object:
    return client.conversation(ASK * 3)


def no_greeting(client: Client) -> object:
    sock = client.connected()
    before = after(sock)
    sock.sendall(ASK)
    return before, read(sock, len(SAID))


def flapping(server: Any, *, cycle: bool = False) -> None:
    rule = server.on(CONNECT).reply(Reset(), uses=2).then()
    if cycle:
        rule.cycle()
    server.on(ASK).reply(SAID)
    server.on(BYE).reply(Close())


CONNECTIONS = [
    Row("T20", "small segments", TCP, lambda server: None, limited_segments, True, options={"mss": 88}),
    Row(
        "T17",
        "a reply before the request",
        STREAMS,
        lambda server: server.on(CONNECT).reply(SAID, Close()),
        lambda client: client.conversation(),
        (SAID, END),
    ),
    Row(
        "T21",
        "a push at a gate",
        STREAMS,
        lambda server: server.on(CONNECT).reply(Gate("gate"), SAID),
        pushed,
        (SILENCE, SAID),
    ),
    Row(
        "T21",
        "no greeting",
        STREAMS,
        lambda server: (server.on(CONNECT).reply(), server.on(ASK).reply(SAID)),
        no_greeting,
        (SILENCE, SAID),
    ),
    Row(
        "T22",
        "the first two connections fail",
        TCP,
        flapping,
        partial(in_turn, count=4),
        [RESET, RESET, "said", "said"],
    ),
    Row("T22", "flapping", TCP, partial(flapping, cycle=True), partial(in_turn, count=6), [RESET, RESET, "said"] * 2),
    Row(
        "T22",
        "the third reply fails",
        STREAMS,
        lambda server: server.on(ASK).reply(SAID, uses=2).then(Cut(SAID, 1), Close()),
        requests_in_turn,
        (SAID * 2 + SAID[:1], END),
    ),
]

ROWS = ENDINGS + TIMES + BYTES + CONNECTIONS
