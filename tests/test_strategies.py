"""Strategies: each value can be said and shows what it says, and a broken client is shown the smallest that breaks it.

What shrinks is looked at twice: by a wire that is no socket, over which thousands of examples cost nothing, and for the
two headline bugs by a real server.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from pytest_sockserver import (
    DATA,
    Close,
    Cut,
    DatagramTestServer,
    Delay,
    Drip,
    Reset,
    Script,
    SendEof,
    SockServer,
    Stall,
    StreamTestServer,
)
from pytest_sockserver.faults import Append, Corrupt, Overwrite, Prepend, Raw, Repeat, Replace, Split, Spoof
from pytest_sockserver.faults.arguments import checked_fault_rule
from pytest_sockserver.scripting.matching import nothing_kept
from pytest_sockserver.scripting.parts import actions, check_fit, checked_parts
from pytest_sockserver.strategies import broken_scripts, corruptions, faults, injections, segmentations, truncations

from .peers import PATIENCE, connect, datagram_client, read_exactly

REPLY = b"+PONG\r\n"
STREAMS = ("tcp", "tls", "unix")
DATAGRAMS = ("udp", "unix_datagram")
EVERYWHERE = STREAMS + DATAGRAMS

# Seconds.  A client that is to find silence waits so long.
SILENCE = 0.05

MANY = settings(max_examples=200, database=None, deadline=None)
# Without what hypothesis explains of a counterexample, which stands in the midst of it.
PRINTED = settings(database=None, deadline=None, phases=[Phase.generate, Phase.shrink])
ON_SOCKETS = settings(max_examples=100, deadline=None)


# What parts say, in words of this file's own


def said(parts: Sequence[Any], data: bytes = REPLY) -> list[bytes]:
    """Return the bytes of each part that says some: on datagrams one datagram each."""
    return [each for part in parts for each in said_by(part, data)]


def said_by(part: Any, data: bytes) -> list[bytes]:
    if isinstance(part, bytes):
        return [part]
    if part is DATA:
        return [data]
    if not hasattr(part, "data") or isinstance(part, Raw):
        return []
    (inner,) = said_by(part.data, data)
    if isinstance(part, Repeat):
        return [inner, inner]
    return [changed(part, inner)]


def changed(part: Any, inner: bytes) -> bytes:
    if isinstance(part, Cut):
        return inner[: part.n]
    if isinstance(part, Append):
        return inner + part.extra
    if isinstance(part, Prepend):
        return part.extra + inner
    if isinstance(part, Replace):
        return inner.replace(part.old, part.new)
    if isinstance(part, Overwrite):
        return inner[: part.at] + part.new + inner[part.at + len(part.new) :]
    if isinstance(part, Corrupt):
        assert part.at is not None
        return inner[: part.at] + bytes([inner[part.at] ^ part.flip]) + inner[part.at + 1 :]
    assert isinstance(part, (Split, Drip, Spoof)), part
    return inner


def kind(parts: Sequence[Any]) -> str:
    """Return what the parts are, without their arguments."""
    names = ["bad_record" if part == Raw.bad_record() else type(part).__name__ for part in parts]
    return " ".join("bytes" if name == "bytes" else name for name in names)


# Validity, without a socket

replies = st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from([b"a\r\n", b"a\n", b"\n", b"\r\n\r\n"]))


@pytest.mark.parametrize("transport", EVERYWHERE)
@MANY
@given(data=st.data(), reply=replies, stalls=st.booleans())
def test_every_value_can_be_said_on_its_transport(
    transport: Any, data: st.DataObject, reply: bytes, stalls: bool
) -> None:
    kinds = [truncations(reply, transport, stalls=stalls), corruptions(reply, transport, stalls=stalls)]
    parts = data.draw(st.one_of(*kinds, faults(reply, transport, stalls=stalls)))

    check_fit(checked_parts(parts, "reply()"), transport, "reply()")


@pytest.mark.parametrize("transport", EVERYWHERE)
@MANY
@given(data=st.data(), stalls=st.booleans())
def test_every_injection_can_be_declared_on_its_transport(transport: Any, data: st.DataObject, stalls: bool) -> None:
    parts = data.draw(injections(transport, stalls=stalls))

    nothing: Any = dict.fromkeys(["connections", "at", "probability", "seed", "times"])
    assert checked_fault_rule(parts, transport, direction="sent", **nothing).parts == parts


@MANY
@given(data=st.data(), reply=replies, most=st.none() | st.integers(1, 6))
def test_a_segmentation_is_the_whole_or_pieces_of_it_none_of_them_empty(
    data: st.DataObject, reply: bytes, most: int | None
) -> None:
    part = data.draw(segmentations(reply, pause=0.5, max_pieces=most))

    pieces = Wire((part,)).pieces
    assert b"".join(pieces) == reply
    assert all(pieces)
    assert len(pieces) <= (most or len(reply))
    if isinstance(part, Split):
        assert (part.pause, len(pieces)) == (0.5, len(part.at) + 1)
    else:
        assert part == reply


@MANY
@given(data=st.data(), reply=replies)
def test_a_corruption_says_other_bytes(data: st.DataObject, reply: bytes) -> None:
    assert said(data.draw(corruptions(reply, "udp")), reply) != [reply]
    assert b"".join(said(data.draw(corruptions(reply)), reply)) != reply


@MANY
@given(parts=corruptions(b"\xff\xff\xff", "udp"))
def test_what_is_overwritten_was_not_there_before(parts: Any) -> None:
    assert said(parts) != [b"\xff\xff\xff"]


@MANY
@given(data=st.data(), reply=replies)
def test_a_truncation_says_less(data: st.DataObject, reply: bytes) -> None:
    parts = data.draw(truncations(reply))

    assert reply.startswith(b"".join(said(parts, reply)))
    assert b"".join(said(parts, reply)) != reply


@MANY
@given(parts=faults(bytes(100_000), "tcp", pause=0.001))
def test_a_long_reply_makes_no_long_example(parts: Any) -> None:
    assert sum(each.seconds for each in Wire(parts).acts if isinstance(each, Delay)) <= 0.015001


CLOSED = {"Replace Close", "Prepend Close", "Corrupt Close", "Overwrite Close"}
OF_STREAMS = {"Repeat", "Append", "Split", "Drip"}
ON_DATAGRAMS = {"", "bytes", "Cut", "Repeat", "Replace", "Append", "Prepend", "Corrupt", "Overwrite"}

KINDS = {
    "tcp": {before + end for before in ("", "Cut ", "bytes ") for end in ("Close", "Reset", "SendEof")}
    | CLOSED | OF_STREAMS | {"Urgent bytes"},
    "tls": {before + end for before in ("", "Cut ", "bytes ") for end in ("Close", "Reset", "SendEof")}
    | CLOSED | OF_STREAMS | {"bad_record Close", "Cut bad_record Close", "Raw Close", "Cut Raw Close"},
    "unix": {before + end for before in ("", "Cut ", "bytes ") for end in ("Close", "SendEof")} | CLOSED | OF_STREAMS,
    "udp": ON_DATAGRAMS | {"Spoof"},
    "unix_datagram": ON_DATAGRAMS,
}  # fmt: skip


@pytest.mark.parametrize("transport", EVERYWHERE)
def test_faults_are_of_these_kinds(transport: Any) -> None:
    assert kinds_of(faults(REPLY, transport)) == KINDS[transport]


@pytest.mark.parametrize("transport", STREAMS)
def test_faults_with_stalls_leave_the_connection_open_as_well(transport: Any) -> None:
    unclosed = {name.removesuffix(" Close") for name in CLOSED}

    assert kinds_of(faults(REPLY, transport, stalls=True)) == (
        KINDS[transport] - CLOSED | unclosed | {"Stall", "Cut Stall"}
    )


@pytest.mark.parametrize("transport", DATAGRAMS)
def test_stalls_change_nothing_on_datagrams(transport: Any) -> None:
    assert kinds_of(faults(REPLY, transport, stalls=True)) == KINDS[transport]


OF_INJECTIONS = {"Repeat", "Append", "Prepend Close", "Corrupt Close"}
INJECTIONS = {
    "tcp": {"Close", "Reset", "SendEof", "Data Close", "Data Reset", "Data SendEof"} | OF_INJECTIONS,
    "tls": {"Close", "Reset", "SendEof", "Data Close", "Data Reset", "Data SendEof"} | OF_INJECTIONS,
    "unix": {"Close", "SendEof", "Data Close", "Data SendEof"} | OF_INJECTIONS,
    "udp": {"", "Repeat", "Append", "Prepend", "Corrupt", "Spoof"},
    "unix_datagram": {"", "Repeat", "Append", "Prepend", "Corrupt"},
}


@pytest.mark.parametrize("transport", EVERYWHERE)
def test_injections_are_of_these_kinds(transport: Any) -> None:
    assert kinds_of(injections(transport)) == INJECTIONS[transport]


@pytest.mark.parametrize("transport", EVERYWHERE)
def test_injections_with_stalls_are_of_these_kinds(transport: Any) -> None:
    more = {"", "Stall", "Data Stall", "Prepend", "Corrupt"} if transport in STREAMS else set()
    less = {"Prepend Close", "Corrupt Close"} if transport in STREAMS else set()

    assert kinds_of(injections(transport, stalls=True)) == INJECTIONS[transport] - less | more


def test_over_tls_an_end_may_lack_its_close_notify() -> None:
    assert find(truncations(REPLY, "tls"), lambda parts: parts[-1] == Close(notify=False)) == (Close(notify=False),)


def test_a_reply_of_one_byte_is_not_parted() -> None:
    assert kinds_of(faults(b"!")) == KINDS["tcp"] - {
        *(f"Cut {end}" for end in ("Close", "Reset", "SendEof")),
        *("Split", "Drip", "Overwrite Close", "Replace Close"),
    }
    assert find(segmentations(b"!"), bool) == b"!"


@pytest.mark.parametrize(
    ("reply", "endings"),
    [
        (b"a\r\nb\n", {(b"\r\n", b"\n"), (b"\r\n", b"\r"), (b"\r\n", b"")}),
        (b"a\nb", {(b"\n", b"\r\n"), (b"\n", b"\r"), (b"\n", b"")}),
        (b"a\rb", set()),
    ],
)
def test_line_endings_become_other_ones(reply: bytes, endings: set[tuple[bytes, bytes]]) -> None:
    seen = {(part.old, part.new) for part, *_ in values_of(corruptions(reply)) if isinstance(part, Replace)}

    assert seen == endings


def test_an_absurd_length_is_among_what_is_overwritten() -> None:
    found = find(corruptions(b"\x00\x00\x00\x05hello"), lambda parts: b"\xff\xff\xff\xff" in said(parts)[0])

    assert found[0] == Overwrite(b"\x00\x00\x00\x05hello", 0, b"\xff\xff\xff\xff")


def kinds_of(strategy: st.SearchStrategy[Any]) -> set[str]:
    return {kind(parts) for parts in values_of(strategy)}


def values_of(strategy: st.SearchStrategy[Any]) -> list[Any]:
    values = []

    @settings(max_examples=600, database=None, deadline=None, derandomize=True)
    @given(strategy)
    def see(value: Any) -> None:
        values.append(value)

    see()
    return values


# Shrinking, without a socket


class Wire:
    """What a client reads: ``recv`` gives the next piece, which is what was said between two pauses.

    A reset raises as it does on a socket.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.acts = list(actions(parts, lambda function: (), nothing_kept))
        self.pieces = [b""]
        self.is_reset = Reset() in self.acts
        for act in self.acts:
            if isinstance(act, bytes):
                self.pieces[-1] += act
            elif isinstance(act, Delay):
                self.pieces.append(b"")
        self._left = [piece for piece in self.pieces if piece]

    def recv(self) -> bytes:
        if not self._left and self.is_reset:
            raise ConnectionResetError
        return self._left.pop(0) if self._left else b""

    def read_line(self) -> bytes:
        """Read through a line feed, or to the end: the mistake of many clients."""
        line = b""
        while not line.endswith(b"\n") and (piece := self.recv()):
            line += piece
        return line


def smallest(strategy: st.SearchStrategy[Any], is_broken: Callable[[Wire], bool]) -> Any:
    """Return the smallest that breaks a client."""

    def breaks(parts: Any) -> bool:
        try:
            return is_broken(Wire(parts))
        except ConnectionResetError:
            return False

    return find(strategy, breaks, settings=settings(MANY, max_examples=5000))


in_pieces = segmentations(REPLY).map(lambda part: (part,))


def test_a_client_of_one_recv_is_shown_the_cut_behind_the_first_byte() -> None:
    assert smallest(in_pieces, lambda wire: wire.recv() != REPLY) == (Split(REPLY, 1),)


def test_a_client_that_breaks_at_one_place_is_shown_that_cut_alone() -> None:
    assert smallest(in_pieces, lambda wire: b"+PONG\r" in [wire.recv()]) == (Split(REPLY, 6),)


def test_a_client_of_two_recvs_is_shown_two_early_cuts() -> None:
    assert smallest(in_pieces, lambda wire: wire.recv() + wire.recv() != REPLY) == (Split(REPLY, 1, 2),)


def test_a_client_that_always_breaks_is_shown_the_whole() -> None:
    assert smallest(in_pieces, lambda wire: True) == (REPLY,)


def test_a_client_that_takes_an_end_for_a_reply_is_shown_nothing_but_the_end() -> None:
    assert smallest(faults(REPLY), lambda wire: wire.read_line() != REPLY) == (Close(),)


@pytest.mark.parametrize("strategy", [truncations(REPLY), faults(REPLY)], ids=["truncations", "faults"])
def test_a_client_that_takes_half_a_reply_for_one_is_shown_the_first_byte(strategy: Any) -> None:
    def believes(wire: Wire) -> bool:
        line = wire.read_line()
        return bool(line) and REPLY.startswith(line) and line != REPLY

    assert smallest(strategy, believes) == (Cut(REPLY, 1), Close())


def test_a_client_that_strips_lines_is_shown_the_other_line_ending() -> None:
    def believes(wire: Wire) -> bool:
        line = wire.read_line()
        return line.strip() == b"+PONG" and line != REPLY

    assert smallest(corruptions(REPLY), believes) == (Replace(REPLY, b"\r\n", b"\n"), Close())


def test_a_client_that_knows_no_reset_is_shown_one_at_once() -> None:
    def breaks(wire: Wire) -> bool:
        try:
            wire.read_line()
        except ConnectionResetError:
            return True
        return False

    assert smallest(faults(REPLY), breaks) == (Reset(),)


def test_a_client_that_checks_no_sum_is_shown_one_bit_of_the_first_byte() -> None:
    def believes(wire: Wire) -> bool:
        line = wire.read_line()
        return len(line) == len(REPLY) and line != REPLY and line.endswith(b"\r\n")

    assert smallest(corruptions(REPLY), believes) == (Corrupt(REPLY, 0, 1), Close())


def test_a_client_that_looks_behind_no_reply_is_shown_it_twice() -> None:
    assert smallest(faults(REPLY), lambda wire: wire.recv() == REPLY * 2) == (Repeat(REPLY),)


def test_a_client_that_trusts_a_length_is_shown_its_lowest_wrong_bit() -> None:
    reply = b"\x00\x05hello"

    def would_wait_for_more(wire: Wire) -> bool:
        frame = wire.recv()
        return len(frame) >= 2 and int.from_bytes(frame[:2], "big") > 1000

    found = smallest(corruptions(reply), would_wait_for_more)
    assert found[0] in (Corrupt(reply, 0, 4), Prepend(reply, b"\x04")), found


def test_a_script_is_shown_broken_at_the_earliest_step_that_matters() -> None:
    script = Script().send(b"1\r\n").expect(b"a").send(b"2\r\n").expect(b"b").send(b"3\r\n").close()

    whole = find(broken_scripts(script), lambda broken: True)
    third = find(broken_scripts(script), lambda broken: "2" in str(broken))

    assert str(whole) == "S! close"
    assert str(third).splitlines() == ["S: 1", "C- a", "S: 2", "S! close"]


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [
        ("Cut Close", "parts=(Cut(b'+PONG\\r\\n', 1), Close()),"),
        ("Urgent bytes", "parts=(Urgent(b'!'), b'+PONG\\r\\n'),"),
        ("Corrupt Close", "parts=(Corrupt(b'+PONG\\r\\n', at=0, flip=1), Close()),"),
        ("Split", "parts=(Split(b'+PONG\\r\\n', 1),),"),
    ],
)
def test_a_counterexample_prints_as_the_code_that_makes_it(wanted: str, printed: str) -> None:
    @settings(PRINTED, max_examples=2000)
    @given(parts=faults(REPLY))
    def claim(parts: Any) -> None:
        assert kind(parts) != wanted

    with pytest.raises(AssertionError) as caught:
        claim()

    notes = "\n".join(caught.value.__notes__) if hasattr(caught.value, "__notes__") else printed  # from 3.11 on
    assert printed in [line.strip() for line in notes.splitlines()]


# Scripts that are broken off


def test_a_broken_script_prints_as_the_place_and_the_end() -> None:
    @PRINTED
    @given(script=broken_scripts(Script().send(b"1\n").send(b"2\n")))
    def claim(script: Any) -> None:
        assert len(script.steps) < 3

    with pytest.raises(AssertionError) as caught:
        claim()

    printed = "script=broken_after(2, Close()),"
    notes = "\n".join(caught.value.__notes__) if hasattr(caught.value, "__notes__") else printed  # from 3.11 on
    assert printed in [line.strip() for line in notes.splitlines()]


def test_a_script_is_broken_off_at_each_of_its_places_by_each_end() -> None:
    script = Script().send(b"1\n").expect(b"a").close().open_gate("g")

    seen = {repr(each.steps) for each in values_of(broken_scripts(script, stalls=True))}

    assert seen == {
        repr([*script.steps[:n], each.steps[0]])
        for n in (0, 1, 2)
        for each in (Script().send(end) for end in (Close(), Reset(), Stall()))
    }


def test_each_broken_script_is_one_of_its_own() -> None:
    strategy = broken_scripts(Script().send(b"1\n"))

    first = find(strategy, lambda broken: True)
    first.open_gate("gate")

    assert str(find(strategy, lambda broken: True)) == "S! close"


def test_the_end_of_a_broken_script_stands_where_the_strategy_was_made() -> None:
    strategy = broken_scripts(Script().send(b"1\n"))

    end = find(strategy, lambda broken: True).steps[-1]

    assert end.origin.code is test_the_end_of_a_broken_script_stands_where_the_strategy_was_made.__code__


def test_a_unix_script_is_never_reset() -> None:
    with pytest.raises(NoSuchExample):
        find(broken_scripts(Script().send(b"1\n"), "unix"), lambda broken: "reset" in str(broken))


# On real servers


class Servers:
    """One server of each transport, for all examples."""

    def __init__(self, factory: SockServer) -> None:
        self.tcp, self.tls, self.unix = factory.tcp(), factory.tls(), factory.unix()
        self.udp, self.unix_datagram = factory.udp(), factory.unix_datagram()
        for server in (self.udp, self.unix_datagram):  # so that the thread that answers is the fixture's
            server.on(b"PING").reply(REPLY)
            datagrams_seen(server)

    def stream(self, transport: str) -> StreamTestServer:
        server: StreamTestServer = getattr(self, transport)
        server.clear()
        return server

    def datagram(self, transport: str) -> DatagramTestServer:
        server: DatagramTestServer = getattr(self, transport)
        server.clear()
        return server


@contextmanager
def client_of(server: StreamTestServer) -> Iterator[socket.socket]:
    with connect(server) as client:
        if server.transport != "tls":
            yield client
            return
        context = server.client_context()
        with context.wrap_socket(client, server_hostname="localhost", suppress_ragged_eofs=False) as secure:
            yield secure


@pytest.fixture(scope="module")
def servers(sockserver_module: SockServer) -> Servers:
    return Servers(sockserver_module)


#: How a client may see each end.  TLS has its own words for the end of TCP, and Python's ssl hides a reset.
SEEN = {
    Close(): {"end"},
    SendEof(): {"end"},
    Reset(): {"reset"},
    Close(notify=False): {"without close_notify"},
    Stall(): {"silence"},
}


def seen_by(client: socket.socket, count: int, ends: bool) -> tuple[bytes, str]:
    """Return what a client reads, so many bytes or to the end, and how that ended."""
    data = b""
    try:
        if not ends:
            return read_exactly(client, count), "open"
        while piece := client.recv(4096):
            data += piece
    except ConnectionResetError:
        return data, "reset"
    except TimeoutError:
        return data, "silence"
    except ssl.SSLEOFError:
        return data, "without close_notify"
    except ssl.SSLError as error:
        return data, error.reason or "tls"
    return data, "end"


def ends_of(parts: Sequence[Any], transport: str) -> set[str]:
    """Return how the parts may be seen to end."""
    if Raw.bad_record() in parts:
        return {"SSLV3_ALERT_BAD_RECORD_MAC", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"}
    if transport == "tls" and Reset() in parts:
        return {"reset", "without close_notify"}
    return SEEN.get(parts[-1], {"open"}) if parts and not isinstance(parts[-1], bytes) else {"open"}


@pytest.mark.parametrize("transport", STREAMS)
@ON_SOCKETS
@given(data=st.data())
def test_a_fault_of_a_stream_shows_what_it_says(transport: Any, data: st.DataObject, servers: Servers) -> None:
    parts = data.draw(faults(REPLY, transport, pause=0.0005))
    server = servers.stream(transport)
    server.on(b"PING\r\n").reply(*parts)

    with client_of(server) as client:
        client.sendall(b"PING\r\n")
        wanted = b"".join(said(parts))
        read, end = seen_by(client, len(wanted), ends="open" not in ends_of(parts, transport))

    assert (read, end) in {(wanted, each) for each in ends_of(parts, transport)}
    server.verify()


@pytest.mark.parametrize("transport", STREAMS)
def test_a_stall_leaves_a_client_waiting(transport: Any) -> None:
    parts = find(truncations(REPLY, transport, stalls=True), lambda parts: len(parts) == 2 and parts[1] == Stall())

    with StreamTestServer(transport=transport) as server:
        server.on(b"PING\r\n").reply(*parts)
        with client_of(server) as client:
            client.sendall(b"PING\r\n")
            client.settimeout(SILENCE)
            assert seen_by(client, 0, ends=True) == (b"+", "silence")


@pytest.mark.parametrize("transport", STREAMS)
@ON_SOCKETS
@given(data=st.data())
def test_a_segmentation_arrives_as_the_whole(transport: Any, data: st.DataObject, servers: Servers) -> None:
    part = data.draw(segmentations(REPLY, pause=0.0005))
    server = servers.stream(transport)
    server.on(b"PING\r\n").reply(part, Close())

    with client_of(server) as client:
        client.sendall(b"PING\r\n")
        assert seen_by(client, 0, ends=True) == (REPLY, "end")


@pytest.mark.parametrize("transport", DATAGRAMS)
@ON_SOCKETS
@given(data=st.data())
def test_a_fault_of_a_datagram_shows_what_it_says(transport: Any, data: st.DataObject, servers: Servers) -> None:
    parts = data.draw(faults(REPLY, transport))
    server = servers.datagram(transport)
    server.on(b"PING").reply(*parts)

    assert datagrams_seen(server, ours=not isinstance(parts[0] if parts else None, Spoof)) == said(parts)
    server.verify()


def datagrams_seen(server: DatagramTestServer, *, ours: bool = True) -> list[bytes]:
    """Return what answers a PING, up to the answer to what is asked next.

    Args:
        ours: It comes from the server's address.
    """
    server.on(b"over?").reply(b"over")
    seen = []
    with datagram_client(server) as client:
        if ours:
            client.send(b"PING")
        else:
            stranger = socket.socket(client.family, socket.SOCK_DGRAM)  # not connected: it hears everybody
            with stranger:
                stranger.settimeout(PATIENCE)
                stranger.sendto(b"PING", server.address)
                data, sender = stranger.recvfrom(100)
            assert sender != server.address
            seen.append(data)
        client.send(b"over?")
        while (data := client.recv(100)) != b"over":
            seen.append(data)
    return seen


@pytest.mark.parametrize("transport", STREAMS)
@ON_SOCKETS
@given(data=st.data())
def test_an_injection_of_a_stream_shows_what_it_says(transport: Any, data: st.DataObject, servers: Servers) -> None:
    parts = data.draw(injections(transport))
    server = servers.stream(transport)
    server.on(b"PING\r\n").reply(REPLY)

    with server.inject(*parts, at=0), client_of(server) as client:
        client.sendall(b"PING\r\n")
        wanted = faulty(parts)
        read, end = seen_by(client, len(wanted), ends="open" not in ends_of(parts, transport))

    assert end in ends_of(parts, transport)
    if is_drawn(parts):
        assert differing_bytes(read, REPLY) == 1
    else:
        assert read == wanted


@pytest.mark.parametrize("transport", DATAGRAMS)
@ON_SOCKETS
@given(data=st.data())
def test_an_injection_of_a_datagram_shows_what_it_says(transport: Any, data: st.DataObject, servers: Servers) -> None:
    parts = data.draw(injections(transport))
    server = servers.datagram(transport)
    server.on(b"PING").reply(REPLY)

    with server.inject(*parts, at=0):
        seen = datagrams_seen(server, ours=parts != (Spoof(DATA),))

    if is_drawn(parts):
        assert [differing_bytes(each, REPLY) for each in seen] == [1]
    else:
        assert seen == said(parts)


def is_drawn(parts: Sequence[Any]) -> bool:
    return bool(parts) and isinstance(parts[0], Corrupt)


def faulty(parts: Sequence[Any]) -> bytes:
    return REPLY if is_drawn(parts) else b"".join(said(parts))


def differing_bytes(one: bytes, other: bytes) -> int:
    assert len(one) == len(other)
    return sum(a != b for a, b in zip(one, other, strict=True))


@ON_SOCKETS
@given(script=broken_scripts(Script().expect(b"PING\r\n").send(REPLY).send(b"bye\r\n")))
def test_a_broken_script_ends_where_it_says(script: Script, servers: Servers) -> None:
    server = servers.stream("tcp")
    server.script().extend(script)

    read, end = b"", "reset"
    try:
        with client_of(server) as client:
            if any(step.verb == "expect" for step in script.steps):
                client.sendall(b"PING\r\n")
            read, end = seen_by(client, 0, ends=True)
    except ConnectionResetError:
        assert len(script.steps) == 1  # a reset that comes at once may be met in connect() already

    *before, last = script.steps
    assert read == b"".join(step.args[0] for step in before if step.verb == "send")
    assert {end} == SEEN[last.args[0]]
    server.verify()


# Seconds.  Pieces that are parted by it arrive apart on a busy machine as well.
LONG = 0.03


def test_a_real_client_of_one_recv_is_shown_the_cut_behind_the_first_byte(servers: Servers) -> None:
    def breaks(part: Any) -> bool:
        server = servers.stream("tcp")
        server.on(b"PING\r\n").reply(part)
        with client_of(server) as client:
            client.sendall(b"PING\r\n")
            return client.recv(100) != REPLY

    found = find(segmentations(REPLY, pause=LONG), breaks, settings=settings(ON_SOCKETS, database=None))

    assert found == Split(REPLY, 1, pause=LONG)


def test_a_real_client_that_believes_half_a_reply_is_shown_the_first_byte(servers: Servers) -> None:
    def breaks(parts: Any) -> bool:
        server = servers.stream("tcp")
        server.on(b"PING\r\n").reply(*parts)
        with client_of(server) as client, client.makefile("rb") as file:
            client.sendall(b"PING\r\n")
            try:
                line = file.readline()
            except ConnectionResetError:
                return False
            return bool(line) and line != REPLY

    found = find(truncations(REPLY), breaks, settings=settings(ON_SOCKETS, database=None))

    assert found == (Cut(REPLY, 1), Close())


# Bad arguments

TRANSPORT = "expected a transport, 'tcp', 'tls', 'unix', 'udp' or 'unix_datagram', not "

WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: segmentations("PONG"), TypeError, "segmentations() expected the bytes of a reply, not 'PONG'"),  # type: ignore[arg-type]
    (lambda: segmentations(b""), ValueError, "segmentations() expected a reply of at least one byte"),
    (lambda: segmentations(b"x", pause=-1), ValueError, "segmentations() expected seconds from 0 to 60, not -1"),
    (
        lambda: segmentations(b"x", pause="1"),  # type: ignore[arg-type]
        TypeError,
        "segmentations() expected seconds, 0 or more, not '1'",
    ),
    (
        lambda: segmentations(b"xy", max_pieces=0),
        ValueError,
        "segmentations() expected a number of pieces, 1 or more, not 0",
    ),
    (
        lambda: segmentations(b"xy", max_pieces=True),
        TypeError,
        "segmentations() expected a number of pieces, 1 or more, not True",
    ),
    (
        lambda: truncations(bytearray(b"x")),
        TypeError,
        "truncations() expected the bytes of a reply, not bytearray(b'x')",
    ),  # type: ignore[arg-type]
    (lambda: truncations(b"", "udp"), ValueError, "truncations() expected a reply of at least one byte"),
    (lambda: truncations(b"x", "http"), ValueError, f"truncations() {TRANSPORT}'http'"),  # type: ignore[arg-type]
    (
        lambda: truncations(b"x", stalls=1),  # type: ignore[arg-type]
        TypeError,
        "truncations() expected stalls= to be True or False, not 1",
    ),
    (lambda: corruptions(None), TypeError, "corruptions() expected the bytes of a reply, not None"),  # type: ignore[arg-type]
    (lambda: corruptions(b"x", "ssl"), ValueError, f"corruptions() {TRANSPORT}'ssl'"),  # type: ignore[arg-type]
    (lambda: faults(b""), ValueError, "faults() expected a reply of at least one byte"),
    (lambda: faults(b"x", None), ValueError, f"faults() {TRANSPORT}None"),  # type: ignore[arg-type]
    (lambda: faults(b"x", pause=4000), ValueError, "faults() expected seconds from 0 to 60, not 4000"),
    (
        lambda: faults(b"x", stalls="yes"),  # type: ignore[arg-type]
        TypeError,
        "faults() expected stalls= to be True or False, not 'yes'",
    ),
    (lambda: injections(b"x"), ValueError, f"injections() {TRANSPORT}b'x'"),  # type: ignore[arg-type]
    (
        lambda: injections("udp", stalls=0),  # type: ignore[arg-type]
        TypeError,
        "injections() expected stalls= to be True or False, not 0",
    ),
    (
        lambda: broken_scripts("S: hi"),  # type: ignore[arg-type]
        TypeError,
        "broken_scripts() expected a Script, not 'S: hi': write Script().expect(...).send(...)",
    ),
    (lambda: broken_scripts(Script()), ValueError, "broken_scripts() expected a script that has steps"),
    (
        lambda: broken_scripts(Script().send(b"x"), "udp"),  # type: ignore[arg-type]
        ValueError,
        "broken_scripts() expected a transport, 'tcp', 'tls' or 'unix', not 'udp'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), WRONG, ids=[f"{at}" for at in range(len(WRONG))])
def test_what_is_wrong_is_an_error_where_it_is_written(
    call: Callable[[], object], kind: type[Exception], text: str
) -> None:
    """And not where hypothesis draws."""
    with pytest.raises(kind) as caught:
        call()

    assert str(caught.value) == text
    assert caught.traceback.filter(caught)[-1].frame.code.raw is call.__code__


def test_without_hypothesis_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['hypothesis'] = None; import pytest_sockserver.strategies"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert ended.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: strategies are made of hypothesis, which is not installed: "
        'pip install "pytest-sockserver[strategies]"'
    )
    assert "During handling" not in ended.stderr


def test_a_broken_hypothesis_is_not_said_to_be_missing(tmp_path: Any) -> None:
    (tmp_path / "hypothesis.py").write_text("import a_module_that_is_not_there\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pytest_sockserver.strategies"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert ended.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
