"""What is wrong with a fault is told at the line that declares it, or else, when it is performed, as a failure; whole.

It names what the transport can show.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_sockserver import (
    DATA,
    HANDSHAKE,
    TLS,
    Certificate,
    Close,
    Cut,
    Delay,
    Drip,
    InvalidState,
    Reset,
    Script,
    SendEof,
    SockServer,
    Stall,
    StartTLS,
    UnsupportedFault,
)
from pytest_sockserver.faults import (
    Alert,
    Append,
    Corrupt,
    Descriptors,
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
    Spoof,
    Throttle,
    Urgent,
    garbage,
)
from pytest_sockserver.sweeps import breaks, cuts, resets, splits

from .client import Client
from .rows import ASK

FILE = Path(__file__).name


class Servers:
    """One server of each kind."""

    def __init__(self, factory: SockServer) -> None:
        self.factory = factory
        self.tcp, self.tls, self.unix = factory.tcp(name="tcp"), factory.tls(name="tls"), factory.unix(name="unix")
        self.udp, self.dgram = factory.udp(name="udp"), factory.unix_datagram(name="unix_datagram")


@pytest.fixture
def its(sockserver: SockServer) -> Servers:
    return Servers(sockserver)


def reversed_data(data: bytes) -> bytes:
    return data[::-1]


TCP_HAS = (
    "it has Alert, Append, Close, Corrupt, Cut, Delay, Drip, EndAfter, Gate, Hold, Jitter, OpenGate, "
    "Overwrite, Prepend, Raw, ReadSlowly, Repeat, Replace, Reset, SendEof, Split, Stall, StartTLS, "
    "Throttle and Urgent"
)
TLS_HAS = (
    "it has Append, Close, Corrupt, Cut, Delay, Drip, EndAfter, Gate, Hold, Jitter, OpenGate, Overwrite, "
    "Prepend, Raw, ReadSlowly, Repeat, Replace, Reset, SendEof, Split, Stall and Throttle"
)
UNIX_HAS = (
    "it has Alert, Append, Close, Corrupt, Cut, Delay, Descriptors, Drip, EndAfter, Gate, Hold, Jitter, "
    "OpenGate, Overwrite, Prepend, Raw, ReadSlowly, Repeat, Replace, SendEof, Split, Stall, StartTLS and "
    "Throttle"
)
UDP_HAS = (
    "they have Append, Corrupt, Cut, Delay, Gate, Hold, Jitter, OpenGate, Overwrite, Prepend, Repeat, "
    "Replace, Spoof and Stall, and no reply is ()"
)
UNIX_DATAGRAM_HAS = (
    "they have Append, Corrupt, Cut, Delay, Gate, Hold, Jitter, OpenGate, Overwrite, Prepend, Repeat, "
    "Replace and Stall, and no reply is ()"
)
AS_IT_COMES = (
    "to what is received on a stream: it comes as it comes; DATA is all of it, alone or in a modifier, "
    "and beside it can stand Append, Close, Corrupt, Cut, Delay, Drip, EndAfter, Gate, Jitter, OpenGate, "
    "Overwrite, Prepend, ReadSlowly, Reset, Split, Stall, Throttle"
)
NO_RESET = "on a unix socket: its client would see a plain end of stream; write Close()"
PLACES = "to be an index, 0 or more, or several: [0, 2], not"
ALERTS = (
    "close_notify, unexpected_message, bad_record_mac, record_overflow, decompression_failure, "
    "handshake_failure, bad_certificate, unsupported_certificate, certificate_revoked, "
    "certificate_expired, certificate_unknown, illegal_parameter, unknown_ca, access_denied, "
    "decode_error, decrypt_error, protocol_version, insufficient_security, internal_error, "
    "inappropriate_fallback, user_canceled, no_renegotiation, missing_extension, unsupported_extension, "
    "unrecognized_name, bad_certificate_status_response, unknown_psk_identity, certificate_required, "
    "no_application_protocol"
)
CONNECTIONLESS = f"they have no connection that could end or change; {UDP_HAS}"

WRONG: list[tuple[Callable[[Servers], object], type[Exception], str]] = [
    # Times
    (lambda its: Delay(-1), ValueError, "Delay() expected seconds from 0 to 60, not -1"),
    (lambda its: Delay(float("nan")), ValueError, "Delay() expected seconds from 0 to 60, not nan"),
    (lambda its: Delay("1"), TypeError, "Delay() expected seconds, 0 or more, not '1'"),
    (lambda its: Delay(True), TypeError, "Delay() expected seconds, 0 or more, not True"),
    (lambda its: Jitter(2, 1), ValueError, "Jitter() expected the shorter time first, not 2, 1"),
    (lambda its: Jitter(-1, 1), ValueError, "Jitter() expected seconds from 0 to 60, not -1"),
    (lambda its: Jitter(0, 1, seed=0.5), TypeError, "Jitter() expected an int as its seed, not 0.5"),
    (lambda its: EndAfter(-1), ValueError, "EndAfter() expected seconds from 0 to 60, not -1"),
    (lambda its: EndAfter(1, Stall()), TypeError, "EndAfter() expected Close() or Reset(), not Stall()"),
    (lambda its: ReadSlowly(0, 0.1), ValueError, "ReadSlowly() expected a number of bytes, 1 or more, not 0"),
    (lambda its: ReadSlowly(1, -0.1), ValueError, "ReadSlowly() expected seconds from 0 to 60, not -0.1"),
    # Pieces
    (lambda its: Drip(b"abc", -0.1), ValueError, "Drip() expected seconds from 0 to 60, not -0.1"),
    (lambda its: Drip(b"abc", 0.1, 0), ValueError, "Drip() expected pieces of at least 1 byte, not 0"),
    (lambda its: Throttle(b"abc", 0), ValueError, "Throttle() expected bytes per second, 0.001 or more, not 0"),
    (lambda its: Throttle(b"abc", -5), ValueError, "Throttle() expected bytes per second, 0.001 or more, not -5"),
    (lambda its: Throttle(b"abc", "fast"), TypeError, "Throttle() expected bytes per second, not 'fast'"),
    (lambda its: Split(b"abc"), TypeError, "Split() expected where to cut: Split(data, 3)"),
    (lambda its: Split(b"abc", 2, 1), ValueError, "Split() expected offsets in order, each once, not 2, 1"),
    (lambda its: Split(b"abc", 1, 1), ValueError, "Split() expected offsets in order, each once, not 1, 1"),
    (lambda its: Split(b"abc", 3), ValueError, "Split() expected a part of at least 4 bytes, not the 3 that there are"),
    (lambda its: Split(b"abc", 0), ValueError, "Split() expected an offset, 1 or more, not 0"),
    (lambda its: Split(b"abc", 1, pause=-1), ValueError, "Split() expected seconds from 0 to 60, not -1"),
    (
        lambda its: Split(b"abc", 1, gate="a b"),
        ValueError,
        "Split() expected the name of a gate, without blanks, not 'a b'",
    ),
    # Bytes
    (lambda its: Cut(b"abc", 4), ValueError, "Cut() expected at most the 3 bytes that there are, not 4"),
    (lambda its: Cut(b"abc", -1), ValueError, "Cut() expected a number of bytes, 0 or more, not -1"),
    (lambda its: Cut(b"abc", 1.5), TypeError, "Cut() expected a number of bytes, 0 or more, not 1.5"),
    (lambda its: Cut("abc", 1), TypeError, "Cut() expected bytes, not the text 'abc': write b'abc', or encode it"),
    (lambda its: Repeat(b"abc", 0), ValueError, "Repeat() expected a number of times, 1 or more, not 0"),
    (lambda its: Repeat(b"abc", True), TypeError, "Repeat() expected a number of times, 1 or more, not True"),
    (lambda its: Repeat(b"", None), ValueError, "Repeat() expected at least one byte"),
    (lambda its: Prepend(b"abc", b""), ValueError, "Prepend() expected at least one byte"),
    (lambda its: Append(b"abc", "x"), TypeError, "Append() expected bytes, not 'x'"),
    (
        lambda its: Corrupt(b"abc"),
        TypeError,
        "Corrupt() expected which byte, or a seed to draw it from: Corrupt(data, 3)",
    ),
    (
        lambda its: Corrupt(b"abc", 0, seed=1),
        TypeError,
        "Corrupt() expected which byte, or a seed to draw it from: Corrupt(data, 3)",
    ),
    (
        lambda its: Corrupt(b"abc", 3),
        ValueError,
        "Corrupt() expected a part of at least 4 bytes, not the 3 that there are",
    ),
    (lambda its: Corrupt(b"abc", -1), ValueError, "Corrupt() expected the number of a byte, 0 or more, not -1"),
    (lambda its: Corrupt(b"abc", 0, 0), ValueError, "Corrupt() expected the bits to flip, from 1 to 255, not 0"),
    (lambda its: Corrupt(b"abc", 0, 256), ValueError, "Corrupt() expected the bits to flip, from 1 to 255, not 256"),
    (lambda its: Corrupt(b"abc", seed="a"), TypeError, "Corrupt() expected an int as its seed, not 'a'"),
    (
        lambda its: Overwrite(b"abc", 2, b"xy"),
        ValueError,
        "Overwrite() expected a part of at least 4 bytes, not the 3 that there are",
    ),
    (lambda its: Overwrite(b"abc", 0, b""), ValueError, "Overwrite() expected at least one byte"),
    (lambda its: Replace(b"abc", b"x", b"y"), ValueError, "Replace() expected a part that says b'x', not b'abc'"),
    (lambda its: Replace(b"abc", b"", b"y"), ValueError, "Replace() expected at least one byte"),
    (lambda its: Hold(b"abc", 0), ValueError, "Hold() expected a number of replies, 1 or more, not 0"),
    # Elsewhere
    (
        lambda its: Spoof(b"abc", "8.8.8.8"),
        ValueError,
        "Spoof() expected one of 127.0.0.0/8, '127.0.0.2' for example, not '8.8.8.8'",
    ),
    (
        lambda its: Spoof(b"abc", "localhost"),
        ValueError,
        "Spoof() expected one of 127.0.0.0/8, '127.0.0.2' for example, not 'localhost'",
    ),
    (
        lambda its: Spoof(b"abc", 5),
        TypeError,
        "Spoof() expected an address of this machine, '127.0.0.2' for example, not 5",
    ),
    (lambda its: Urgent(b"ab"), ValueError, "Urgent() expected one byte, b'!' for example, not b'ab'"),
    (lambda its: Urgent("!"), ValueError, "Urgent() expected one byte, b'!' for example, not '!'"),
    (lambda its: Descriptors(b"", 0), ValueError, "Descriptors() expected at least one byte to carry them, not b''"),
    (lambda its: Descriptors(b"abc"), ValueError, "Descriptors() expected at least one file"),
    (
        lambda its: Descriptors(b"abc", "file"),
        TypeError,
        "Descriptors() expected open files, sockets or descriptors, not 'file'",
    ),
    # TLS
    (lambda its: Raw(b""), ValueError, "Raw() expected at least one byte, not b''"),
    (
        lambda its: Alert("handshake_failur"),
        ValueError,
        "Alert() knows no alert 'handshake_failur': did you mean 'handshake_failure'?",
    ),
    (lambda its: Alert("nonsense"), ValueError, f"Alert() knows no alert 'nonsense': expected one of {ALERTS}"),
    (lambda its: Alert(256), ValueError, "Alert() expected a number from 0 to 255, not 256"),
    (lambda its: Alert(1.5), TypeError, "Alert() expected the name of an alert, or its number, not 1.5"),
    (
        lambda its: StartTLS("context"),
        TypeError,
        "StartTLS() expected an ssl.SSLContext, a TLS or a Certificate, not 'context'",
    ),
    (
        lambda its: StartTLS(Certificate),
        TypeError,
        "StartTLS() expected an ssl.SSLContext, a TLS or a Certificate, not <class "
        "'pytest_sockserver.transport.certificates.Certificate'>",
    ),
    (lambda its: garbage(-1), ValueError, "garbage() expected a number of bytes, 0 or more, not -1"),
    (lambda its: garbage(1.5), TypeError, "garbage() expected an int for n, not 1.5"),
    (lambda its: garbage(3, seed=None), TypeError, "garbage() expected an int for seed, not None"),
    (
        lambda its: Certificate.expired(on=datetime.date(2999, 1, 1)),
        ValueError,
        "expired() expected a date in the past, not 2999-01-01 00:00:00+00:00: it would be valid until then",
    ),
    (
        lambda its: Certificate.not_yet_valid(until=datetime.date(2001, 1, 1)),
        ValueError,
        "not_yet_valid() expected a date in the future, not 2001-01-01 00:00:00+00:00: it would be valid now",
    ),
    (lambda its: TLS(minimum="1.4"), ValueError, "minimum must be one of '1.0', '1.1', '1.2', '1.3', not '1.4'"),
    # What a transport cannot show
    (
        lambda its: its.tcp.on(b"A").reply(Spoof(b"x")),
        UnsupportedFault,
        f"reply() cannot do Spoof(b'x') on a TCP connection: UDP alone lets a reply come from elsewhere; {TCP_HAS}",
    ),
    (
        lambda its: its.tls.on(b"A").reply(Urgent(b"!")),
        UnsupportedFault,
        f"reply() cannot do Urgent(b'!') over TLS: TLS has no urgent data; {TLS_HAS}",
    ),
    (
        lambda its: its.tls.on(b"A").reply(Alert("handshake_failure")),
        UnsupportedFault,
        "reply() cannot do Alert('handshake_failure') over TLS: its connections speak TLS already, and "
        "Python's ssl sends no alert of ours; on(HANDSHAKE).reply(Alert(...)) refuses them",
    ),
    (
        lambda its: its.tls.on(b"A").reply(StartTLS()),
        UnsupportedFault,
        "reply() cannot do StartTLS() over TLS: its connections speak TLS already; on(HANDSHAKE) says how they begin",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(Descriptors(b"x", 0)),
        UnsupportedFault,
        f"reply() cannot do Descriptors(b'x', 0) on a TCP connection: unix streams alone carry descriptors; {TCP_HAS}",
    ),
    (lambda its: its.unix.on(b"A").reply(Reset()), UnsupportedFault, f"reply() cannot do Reset() {NO_RESET}"),
    (
        lambda its: its.unix.on(b"A").reply(EndAfter(1, Reset())),
        UnsupportedFault,
        f"reply() cannot do EndAfter(1, end=Reset()) {NO_RESET}",
    ),
    (
        lambda its: its.unix.script().send(Spoof(Cut(b"abc", 1))),
        UnsupportedFault,
        "send() cannot do Spoof(Cut(b'abc', 1)) on a unix socket: UDP alone lets a reply come from elsewhere; "
        f"{UNIX_HAS}",
    ),
    (
        lambda its: its.udp.on(b"A").reply(Close()),
        UnsupportedFault,
        f"reply() cannot do Close() with datagrams: {CONNECTIONLESS}",
    ),
    (
        lambda its: its.udp.on(b"A").reply(Repeat(b"x", None)),
        UnsupportedFault,
        "reply() cannot do Repeat(b'x', times=None) with datagrams: a stream alone has no end; give a number of times",
    ),
    (
        lambda its: its.dgram.on(b"A").reply(Spoof(b"x")),
        UnsupportedFault,
        "reply() cannot do Spoof(b'x') with datagrams: UDP alone lets a reply come from elsewhere; "
        f"{UNIX_DATAGRAM_HAS}",
    ),
    (
        lambda its: its.udp.on(b"A").reply(Drip(b"abc", 0.1)),
        UnsupportedFault,
        f"reply() cannot do Drip(b'abc', 0.1) with datagrams: a datagram arrives whole; {UDP_HAS}",
    ),
    (
        lambda its: its.tcp.on(HANDSHAKE),
        TypeError,
        "on() expected HANDSHAKE on a server that speaks TLS: tls_server, or one with tls=True, "
        "whose connections begin it by StartTLS()",
    ),
    # Replies
    (
        lambda its: its.tcp.on(b"A").reply(DATA),
        ValueError,
        "reply() cannot say DATA: DATA stands for what a server says, in server.inject() alone",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(Cut(DATA, 1)),
        ValueError,
        "reply() cannot say Cut(DATA, 1): DATA stands for what a server says, in server.inject() alone",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(Repeat(b"x", None), b"y"),
        ValueError,
        "reply() expected nothing after Repeat(b'x', times=None): b'y' would never be reached",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(b"x", uses=0),
        ValueError,
        "reply() expected uses= to be a number of matches, 1 or more, not 0",
    ),
    (
        lambda its: its.tcp.on(b"A").cycle(),
        InvalidState,
        "cycle() follows reply() and then(): write on(...).reply(...).then(...).cycle()",
    ),
    # Injections
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), probability=2),
        ValueError,
        "inject() expected a probability from 0 to 1, not 2",
    ),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), probability=-0.1),
        ValueError,
        "inject() expected a probability from 0 to 1, not -0.1",
    ),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), probability="0.5"),
        ValueError,
        "inject() expected a probability from 0 to 1, not '0.5'",
    ),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), seed=1),
        TypeError,
        "inject() expected probability= beside seed=: nothing else is drawn",
    ),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), probability=0.5, seed="a"),
        TypeError,
        "inject() expected an int as its seed, not 'a'",
    ),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), direction="up"),
        ValueError,
        "inject() expected direction='sent' or 'received', as the server sees it, not 'up'",
    ),
    (lambda its: its.tcp.inject(Cut(DATA, 1), at=-1), ValueError, f"inject() expected at= {PLACES} -1"),
    (lambda its: its.tcp.inject(Cut(DATA, 1), at=[]), ValueError, f"inject() expected at= {PLACES} []"),
    (lambda its: its.tcp.inject(Cut(DATA, 1), at="0"), TypeError, f"inject() expected at= {PLACES} '0'"),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), connections=-1),
        ValueError,
        f"inject() expected connections= {PLACES} -1",
    ),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), times=0),
        ValueError,
        "inject() expected times= to be how often at most, 1 or more, or (least, most), not 0",
    ),
    (
        lambda its: its.tcp.inject(Cut(DATA, 1), direction="received", at=0),
        TypeError,
        "inject() expected no at= for what is received on a stream, which has no units: give connections=",
    ),
    (
        lambda its: its.tcp.inject(Repeat(DATA), direction="received"),
        UnsupportedFault,
        f"inject() cannot do Repeat(DATA) {AS_IT_COMES}",
    ),
    (
        lambda its: its.tcp.inject(DATA, DATA, direction="received"),
        ValueError,
        "inject() expected DATA once: what is received on a stream can be heard once",
    ),
    (
        lambda its: its.tcp.inject(b"instead", direction="received"),
        UnsupportedFault,
        f"inject() cannot do b'instead' {AS_IT_COMES}",
    ),
    (
        lambda its: its.tcp.inject(reversed_data, direction="received"),
        UnsupportedFault,
        f"inject() cannot do the function reversed_data ({FILE}:{reversed_data.__code__.co_firstlineno}) {AS_IT_COMES}",
    ),
    (
        lambda its: its.udp.inject(Spoof(DATA), direction="received"),
        UnsupportedFault,
        "inject() cannot do Spoof(DATA) to what is received: it came from where it came",
    ),
    (
        lambda its: its.udp.inject(Close()),
        UnsupportedFault,
        f"inject() cannot do Close() with datagrams: {CONNECTIONLESS}",
    ),
    (lambda its: its.unix.inject(Reset()), UnsupportedFault, f"inject() cannot do Reset() {NO_RESET}"),
    (
        lambda its: its.tcp.inject("x"),
        TypeError,
        "inject() expected bytes, not the text 'x': write b'x', or encode it",
    ),
    (
        lambda its: its.tcp.inject(Reset(), DATA),
        ValueError,
        "inject() expected nothing after Reset(): DATA would never be reached",
    ),
    (
        lambda its: its.tcp.inject(SendEof(), DATA),
        ValueError,
        "inject() expected no bytes after SendEof(): it ends what the server says",
    ),
    # Listeners
    (
        lambda its: its.tcp.limit_connections(-1),
        ValueError,
        "limit_connections() expected a number of connections, 0 or more, not -1",
    ),
    (
        lambda its: its.tcp.limit_connections("1"),
        TypeError,
        "limit_connections() expected a number of connections, 0 or more, not '1'",
    ),
    (
        lambda its: its.tcp.limit_connections(1, "busy"),
        TypeError,
        "limit_connections() expected bytes, not the text 'busy': write b'busy', or encode it",
    ),
    (
        lambda its: its.unix.limit_connections(1, Reset()),
        UnsupportedFault,
        f"limit_connections() cannot do Reset() {NO_RESET}",
    ),
    (
        lambda its: its.tls.limit_connections(1, Spoof(b"x")),
        UnsupportedFault,
        "limit_connections() cannot do Spoof(b'x') on a TCP connection: UDP alone lets a reply come from "
        f"elsewhere; {TCP_HAS}",
    ),
    (
        lambda its: its.tcp.overflow(),
        UnsupportedFault,
        "over TCP a full queue is not told to the client: its effect is blackhole()",
    ),
    (
        lambda its: its.tcp.unlink(),
        UnsupportedFault,
        "unlink() is for the path of a unix socket, and a TCP server has no path: use refuse()",
    ),
    (
        lambda its: its.tcp.forbid(),
        UnsupportedFault,
        "forbid() is for the path of a unix socket, and a TCP server has no path: use refuse()",
    ),
    (
        lambda its: its.unix.blackhole(),
        UnsupportedFault,
        "a unix socket cannot be a black hole: its client is told at once that the queue is full, which is "
        "overflow(); a client that connects and hears nothing is on(CONNECT).reply(Stall())",
    ),
    (
        lambda its: its.unix.disconnect(reset=True),
        UnsupportedFault,
        "a unix stream cannot be reset: its client would see a plain end of stream",
    ),
    (lambda its: its.factory.tcp(mss=87), ValueError, "mss must be from 88 to 32767 bytes, not 87"),
    (lambda its: its.factory.tcp(rcvbuf=0), ValueError, "rcvbuf must be at least 1, not 0"),
    (
        lambda its: its.factory.udp(mss=100),
        TypeError,
        "sockserver.udp() has no option 'mss': expected one of allow_remote, host, name, port, rcvbuf, "
        "record_limit, stop_timeout, timeout",
    ),
    (
        lambda its: its.udp.send_to(("127.0.0.1", 9), Close()),
        UnsupportedFault,
        f"send_to() cannot do Close() with datagrams: {CONNECTIONLESS}",
    ),
    # Sweeps
    (lambda its: cuts("abc"), TypeError, "cuts() expected the bytes of a reply, not 'abc'"),
    (lambda its: cuts(b""), ValueError, "cuts() expected a reply of at least one byte"),
    (lambda its: splits(b""), ValueError, "splits() expected a reply of at least one byte"),
    (lambda its: breaks(Script(), Reset()), ValueError, "breaks() expected a script that has steps"),
    (
        lambda its: breaks(Script().expect(b"A")),
        ValueError,
        "breaks() expected what breaks the script off: Reset(), Close() or Stall()",
    ),
    (lambda its: resets(b"A"), TypeError, "resets() expected a Script, not b'A': write Script().expect(...).send(...)"),
]


@pytest.mark.parametrize(("declare", "kind", "text"), WRONG, ids=[text[:50] for _, _, text in WRONG])
def test_a_fault_that_makes_no_sense_is_an_error_where_it_is_declared(
    its: Servers, declare: Callable[[Servers], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        declare(its)
    for server in its.factory.servers:
        server.clear()

    assert str(caught.value) == text
    assert caught.traceback.filter(caught)[-1].frame.code.raw is declare.__code__


# When it is performed


def three(_: object) -> bytes:
    return b"abc"


def nothing(_: object) -> None:
    return None


def closes(_: object) -> Close:
    return Close()


def spoofs(_: object) -> Spoof:
    return Spoof(b"abc")


def of(function: Callable[..., object]) -> str:
    return f"the function {function.__name__} ({FILE}:{function.__code__.co_firstlineno})"


# The part, where DATA, or what ``three`` returns, stands for three bytes, and what a failure says.
TOO_FEW = [
    (lambda data: Cut(data, 4), "Cut() was to say 4 bytes, and there were only 3"),
    (lambda data: Corrupt(data, 3), "Corrupt() was to flip byte 3, and there were only 3 bytes"),
    (lambda data: Overwrite(data, 2, b"xy"), "Overwrite() was to change bytes 2 to 3, and there were only 3"),
    (lambda data: Replace(data, b"x", b"y"), "Replace() was to replace b'x', which the part did not say"),
    (lambda data: Split(data, 3), "Split() was to cut after byte 3, and there were only 3 bytes"),
    (lambda data: Cut(Cut(data, 2), 3), "Cut() was to say 3 bytes, and there were only 2"),
]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("place", ["a function", "inject"])
@pytest.mark.parametrize(("part", "text"), TOO_FEW, ids=[text.partition("(")[0] for _, text in TOO_FEW])
def test_a_fault_that_has_too_few_bytes_is_a_failure_and_no_weaker_fault(
    sockserver: SockServer, part: Any, text: str, place: str, transport: str
) -> None:
    if transport == "udp" and text.startswith("Split"):
        return  # refused
    server = getattr(sockserver, transport)()
    if place == "inject":
        server.on(ASK).reply(b"abc")
        server.inject(part(DATA))
    else:
        server.on(ASK).reply(part(three))

    with server.raises(ValueError) as caught, Client(server) as client:
        sock = client.socket()
        sock.connect(server.address)
        sock.send(ASK)

    assert str(caught.value) == text


PERFORMED = [
    (
        "tcp",
        lambda server: server.on(ASK).reply(spoofs),
        f"{of(spoofs)} cannot do Spoof(b'abc') on a TCP connection: UDP alone lets a reply come from "
        f"elsewhere; {TCP_HAS}",
    ),
    (
        "udp",
        lambda server: server.on(ASK).reply(closes),
        f"{of(closes)} cannot do Close() with datagrams: {CONNECTIONLESS}",
    ),
    (
        "tcp",
        lambda server: (server.on(ASK).reply(b"abc"), server.inject(spoofs)),
        f"{of(spoofs)} cannot do Spoof(b'abc') on a TCP connection: UDP alone lets a reply come from "
        f"elsewhere; {TCP_HAS}",
    ),
    (
        "udp",
        lambda server: (server.on(ASK).reply(b"abc"), server.inject(closes)),
        f"{of(closes)} cannot do Close() with datagrams: {CONNECTIONLESS}",
    ),
    (
        "udp",
        lambda server: (server.on(ASK).reply(b"abc"), server.inject(closes, direction="received")),
        f"{of(closes)} cannot do Close() with datagrams: {CONNECTIONLESS}",
    ),
    (
        "tcp",
        lambda server: (server.on(ASK).reply(b"abc"), server.inject(nothing)),
        f"{of(nothing)} returned None: return the bytes of the reply, a list of replies, or () for no reply",
    ),
    (
        "tcp",
        lambda server: (server.on(ASK).reply(b"abc"), server.inject(Cut(DATA, 40), direction="received")),
        "Cut() was to say 40 bytes, and there were only 4",
    ),
    (
        "udp",
        lambda server: (server.on(ASK).reply(b"abc"), server.inject(Cut(DATA, 40), direction="received")),
        "Cut() was to say 40 bytes, and there were only 4",
    ),
    (
        "udp",
        lambda server: server.on(ASK).reply(Spoof(b"abc", "::1")),
        "Spoof() was to send from ::1, and the server is at 127.0.0.1: of another family",
    ),
    (
        "tcp",
        lambda server: server.on(ASK).reply(Repeat(lambda request: b"", None)),
        "Repeat() was to say something without end, and its part said no byte",
    ),
    (
        "tcp",
        lambda server: server.on(ASK).reply(Corrupt(lambda request: b"", seed=1)),
        "Corrupt() was to flip a byte, and nothing was said",
    ),
]


@pytest.mark.parametrize(
    ("transport", "declare", "text"), PERFORMED, ids=[f"{text[:40]}-{n}" for n, (_, _, text) in enumerate(PERFORMED)]
)
def test_what_cannot_be_known_before_is_a_failure_when_it_is_performed(
    sockserver: SockServer, transport: str, declare: Any, text: str
) -> None:
    server = getattr(sockserver, transport)()
    declare(server)

    with server.raises((ValueError, TypeError)) as caught, Client(server) as client:
        sock = client.socket()
        sock.connect(server.address)
        sock.send(ASK)
        with contextlib.suppress(OSError):  # that is over already
            sock.shutdown(socket.SHUT_WR)

    assert str(caught.value) == text
