"""Each fault of the catalogue, on every transport that claims it, as a plain socket sees it."""

from __future__ import annotations

import pytest

import pytest_sockserver
from pytest_sockserver import (
    DATA,
    Close,
    Cut,
    Delay,
    Drip,
    Gate,
    OpenGate,
    Reset,
    SendEof,
    SockServer,
    Stall,
    StartTLS,
    UnsupportedFault,
    faults,
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
)
from pytest_sockserver.scripting.parts import Effect, Modifier

from .catalogue import ELSEWHERE, IDS, IMPOSSIBLE, ROWS
from .client import Client
from .rows import ASK, DATAGRAMS, EVERYWHERE, Row

CASES = [
    pytest.param(row, transport, id=f"{row}, {transport}".replace(", ", "-").replace(" ", "-"))
    for row in ROWS
    for transport in row.transports
]


@pytest.mark.parametrize(("row", "transport"), CASES)
def test_a_client_sees_what_the_fault_says(row: Row, transport: str) -> None:
    seen, expected = row.run(transport)

    assert seen == expected


def test_each_number_of_the_catalogue_has_a_row_or_a_reason() -> None:
    with_rows = {row.id for row in ROWS}

    assert with_rows | {*IMPOSSIBLE} | {*ELSEWHERE} == {*IDS}
    assert not with_rows & ({*IMPOSSIBLE} | {*ELSEWHERE})


def test_no_row_stands_there_twice() -> None:
    cases = [(str(row), transport) for row in ROWS for transport in row.transports]

    assert len(cases) == len(set(cases))


# Refused, or shown

# Each part, in each form that fits elsewhere than its usual one.
SAMPLES = [
    Alert("handshake_failure"),
    Append(b"data", b"!"),
    Close(),
    Close(notify=False),
    Corrupt(b"data", 0),
    Cut(b"data", 2),
    Delay(0),
    Descriptors(b"data", 0),
    Drip(b"data", 0),
    EndAfter(0),
    EndAfter(0, Reset()),
    Gate("gate"),
    Hold(b"data"),
    Jitter(0, 0),
    OpenGate("gate"),
    Overwrite(b"data", 0, b"D"),
    Prepend(b"data", b"!"),
    Raw(b"data"),
    ReadSlowly(1, 0),
    Repeat(b"data"),
    Repeat(b"data", None),
    Replace(b"data", b"d", b"D"),
    Reset(),
    SendEof(),
    Split(b"data", 2),
    Spoof(b"data"),
    Stall(),
    StartTLS(),
    Throttle(b"data", 1000),
    Urgent(b"!"),
    Spoof(Cut(b"data", 2)),
    Append(Drip(b"data", 0), b"!"),
]

PARTS = {
    value
    for module in (pytest_sockserver, faults)
    for name in module.__all__
    if isinstance(value := getattr(module, name), type) and issubclass(value, (Effect, Modifier))
}

ON = {
    "tcp": "on a TCP connection",
    "tls": "over TLS",
    "unix": "on a unix socket",
    "udp": "with datagrams",
    "unix_datagram": "with datagrams",
}


def fits(part: object, transport: str) -> bool:
    """Tell whether a part, and what it holds, says that a transport can show it."""
    return transport in getattr(part, "fits", EVERYWHERE) and (
        not isinstance(part, Modifier) or fits(part.data, transport)
    )


def test_the_samples_are_of_all_parts() -> None:
    assert {type(sample) for sample in SAMPLES} == PARTS


@pytest.mark.parametrize("transport", EVERYWHERE)
@pytest.mark.parametrize("sample", SAMPLES, ids=repr)
def test_a_part_is_refused_where_it_is_declared_or_is_shown_by_a_row(
    sample: Effect | Modifier, transport: str, sockserver: SockServer
) -> None:
    server = getattr(sockserver, transport)(**({} if transport in DATAGRAMS else {"tls": True}))
    if fits(sample, transport):
        server.on(b"fits").reply(sample)
        server.inject(sample).end()
        assert any(type(sample) in row.shows and transport in row.transports for row in ROWS)
        return

    declared = {
        "send()": lambda: server.script().send(sample) if transport not in DATAGRAMS else in_script(server, sample),
        "reply()": lambda: server.on(b"reply").reply(sample),
        "then()": lambda: server.on(b"then").reply(b"ok").then(sample),
        "inject()": lambda: server.inject(sample),
    }
    if transport in DATAGRAMS:
        declared["send_to()"] = lambda: server.send_to(("127.0.0.1", 9), sample)

    for verb, declare in declared.items():
        with pytest.raises(UnsupportedFault) as caught:
            declare()
        assert refused(sample, transport, verb, str(caught.value))
    server.clear()


def in_script(server: object, sample: object) -> None:
    server.script().expect(ASK).send(sample)  # type: ignore[attr-defined]


def refused(sample: object, transport: str, verb: str, message: str) -> bool:
    """Tell whether a message names the verb, the part, or the one that it holds, the transport and a reason."""
    inner = [sample]
    while isinstance(inner[-1], Modifier):
        inner.append(inner[-1].data)
    head, colon, why = message.partition(f" {ON[transport]}: ")
    return bool(colon and len(why) > 10) and head in [f"{verb} cannot do {each!r}" for each in inner]


REFUSED = [(sample, transport) for sample in SAMPLES for transport in EVERYWHERE if not fits(sample, transport)]


@pytest.mark.parametrize(("sample", "transport"), REFUSED, ids=[f"{each!r}-{where}" for each, where in REFUSED])
def test_a_part_is_refused_live_where_it_is_refused_when_declared(
    sample: Effect | Modifier, transport: str, sockserver: SockServer
) -> None:
    server = getattr(sockserver, transport)(**({} if transport in DATAGRAMS else {"tls": True}))
    with Client(server) as client:
        if transport in DATAGRAMS:
            sock = client.socket()
            sock.sendto(ASK, server.address)
            answer, verb = server.next_request(ASK).reply, "reply()"
        else:
            sock = client.connected()
            answer, verb = server.accept().send, "send()"
        with pytest.raises(UnsupportedFault) as caught:
            answer(sample)
        answer(b"ok")

        assert sock.recv(100) == b"ok"
    assert refused(sample, transport, verb, str(caught.value))


def test_data_is_known_in_inject_alone(sockserver: SockServer) -> None:
    server = sockserver.tcp()

    for declare in (server.script().send, server.on(ASK).reply):
        with pytest.raises(ValueError, match=r"^(send|reply)\(\) cannot say Cut\(DATA, 1\): DATA stands for what a"):
            declare(Cut(DATA, 1))
    server.clear()
