r"""TCP is a stream: however a client's bytes are cut on their way, the conversation goes the same.

Hypothesis writes conversations: scripts, rules, dialogues, and what a client says that fits, or departs at some byte.
A real server performs each of them over real connections: the bytes at once, one by one, and in random pieces.  A piece
is sent when the server has received the one before it, so that each of them arrives by itself; that is looked at.

What must be the same: the bytes that the server sends, the requests, what was captured, and the failure with its text.
One thing in it may differ.  A literal fails at its first wrong byte, without waiting for more; so what its message
quotes of the bytes that came is more when more of them came at once.  ``failure_of`` leaves that out, and nothing else.
"""

from __future__ import annotations

import re
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, pairwise
from time import monotonic, process_time
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pytest_sockserver import (
    ANY,
    CONNECT,
    Close,
    Connection,
    Cut,
    Drip,
    Hex,
    Request,
    Script,
    ScriptMismatch,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    fixed,
    length_prefixed,
    lines,
)
from pytest_sockserver.recording.recorder import Tape
from pytest_sockserver.scripting.framing import Framing
from pytest_sockserver.scripting.reading import Steps

from .peers import PATIENCE, connect, read_to_end

Declare = Callable[[StreamTestServer], None]
Draw = Callable[[st.SearchStrategy[Any]], Any]

SOME = settings(deadline=None, max_examples=60)

# Hypothesis chooses where to cut: the places, modulo the number of bytes.
CUTS = st.lists(st.integers(0, 200), min_size=1, max_size=6)


# Performing


@dataclass(frozen=True)
class Outcome:
    """What a test can see of a conversation afterwards."""

    sent: bytes
    requests: list[bytes]
    captured: dict[str, bytes]
    failure: str | None


def performed(declare: Declare, pieces: Sequence[bytes], **options: Any) -> Outcome:
    """Let a client say ``pieces``, end its stream, and read to the end of the server's."""
    with StreamTestServer(**options) as server:
        declare(server)
        read = said_in_pieces(server, pieces)
        server.stop()
        try:
            server.verify()
            failure = None
        except BaseException as error:
            failure = failure_of(error)
    (conn,) = server.connections
    came = [each.data for each in conn.events if each.kind == "received"]
    assert came == list(pieces[: len(came)]), "the pieces have not arrived as they were cut"
    assert read is None or read == conn.sent
    return Outcome(conn.sent, [bytes(each) for each in conn.requests], conn.captured, failure)


def said_in_pieces(server: StreamTestServer, pieces: Sequence[bytes]) -> bytes | None:
    """Return what the server has said, ``None`` if it has reset the connection."""
    with connect(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = server.wait_connection()
        try:
            for piece, count in zip(pieces, accumulate(map(len, pieces)), strict=True):
                client.sendall(piece)
                if not is_received(conn, count):
                    break
            client.shutdown(socket.SHUT_WR)
            return read_to_end(client)
        except OSError:
            assert conn.closed_by == "server"
            return None


def is_received(conn: Connection, count: int) -> bool:
    """Wait until the server has so many bytes; tell whether it has, and has not ended the connection instead."""
    recorder, deadline = conn._tape.recorder, monotonic() + PATIENCE
    with recorder.lock:
        while conn.received_count < count and not conn._tape.server_ended:
            left = deadline - monotonic()
            assert left > 0, f"the server has received {conn.received_count} of {count} bytes, and reads no more"
            recorder.sleep(left)
        return conn.received_count >= count


def failure_of(error: BaseException) -> str:
    """Return the type and the text of a failure, without what it quotes where it did not wait for more."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(map(failure_of, error.exceptions))
    text = getattr(error, "summary", None) or str(error)
    for beginning, quoted, rest in EARLY:
        text = re.sub(f"({beginning}){quoted}({rest})", r"\1...\2", text, flags=re.DOTALL)
    return f"{type(error).__name__}: {text}"


EARLY = [
    (r"expected (?!a line|a frame)[^\n]*\n  got ", r"[^\n]*", r" \(differs at byte [^\n]*\)\Z"),  # a literal
    (r"expected the end of the stream\n  got ", r"[^\n]*", r"\Z"),
    (r"no rule matches ", r"[^\n]*", r"(?:\n  nearest: .*)?\Z"),
]


def segmentations(data: bytes, cuts: list[int]) -> list[list[bytes]]:
    """Cut ``data`` in three ways: not at all, everywhere, and at the given places."""
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)}) if data else []
    return [
        [data] if data else [],
        [data[at : at + 1] for at in range(len(data))],
        [data[start:stop] for start, stop in pairwise(places)],
    ]


def check_all_cuts(declare: Declare, data: bytes, cuts: list[int], **options: Any) -> Outcome:
    """Perform a conversation in each segmentation; return what came of it, which is the same."""
    at_once, one_by_one, in_pieces = [performed(declare, each, **options) for each in segmentations(data, cuts)]
    assert one_by_one == at_once
    assert in_pieces == at_once
    return at_once


@dataclass(frozen=True)
class Departure:
    """How a client leaves the way, at which byte."""

    how: str
    at: int
    byte: bytes

    def of(self, data: bytes) -> bytes:
        """Return the bytes of a client that departs."""
        at = self.at % (len(data) + 1)
        if self.how == "ends":
            return data[:at]
        return data[:at] + (b"" if self.how == "leaves out" else self.byte) + data[at + (self.how != "puts in") :]


DEPARTURES = st.builds(
    Departure,
    st.sampled_from(["ends", "leaves out", "puts in", "says another"]),
    st.integers(0, 200),
    st.sampled_from([bytes([each]) for each in b"ab?!\r\n\0\xff"]),
)


# Conversations in order

# A call of a script's verb: its name, the arguments, and the options.  That of ``repeat`` has calls as its argument.
Call = tuple[str, tuple[Any, ...], dict[str, Any]]

#: What the literals consist of.  "?" begins what is optional and "!" chatter, so that all three can be told apart.
BYTES = st.lists(st.sampled_from([b"a", b"b", b"c", b"\r\n", b"\0", b"\xff"]), min_size=1, max_size=5).map(b"".join)
WORDS = st.text("abc", max_size=4).map(str.encode)


@dataclass
class Talk:
    """What a client says that fits, and what is to come of it."""

    said: bytearray = field(default_factory=bytearray)
    answers: bytearray = field(default_factory=bytearray)
    requests: list[bytes] = field(default_factory=list)
    captured: dict[str, bytes] = field(default_factory=dict)

    def says(self, unit: bytes, captured: Mapping[str, bytes] | None = None) -> None:
        """Say what is taken as one request."""
        self.said += unit
        self.requests += [unit] if unit else []
        self.captured.update(captured or {})

    def outcome(self, failure: str | None = None) -> Outcome:
        """Return what a server makes of it."""
        return Outcome(bytes(self.answers), self.requests, self.captured, failure)


@dataclass(frozen=True)
class Move:
    """A step.

    Attributes:
        calls: How a script declares it.
        lines: How a dialogue does.
        play: Lets the client say what fits.
        wants: It demands something that chatter is not.
        optional: It may be skipped.
    """

    calls: tuple[Call, ...]
    lines: tuple[str, ...]
    play: Callable[[Draw, Talk], None]
    wants: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Conversation:
    """A script, also as the text of a dialogue, and what fits it."""

    calls: tuple[Call, ...]
    lines: tuple[str, ...]
    talk: Talk

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def declared(script: Script, calls: Sequence[Call]) -> Script:
    for verb, args, options in calls:
        if verb == "repeat":
            args = (args[0], declared(Script(), args[1]))
        getattr(script, verb)(*args, **options)
    return script


def call(verb: str, *args: Any, **options: Any) -> tuple[Call, ...]:
    return ((verb, args, options),)


def in_hex(data: bytes) -> str:
    return data.hex(" ")


def escaped(data: bytes) -> str:
    return "".join(chr(each) if chr(each).isalnum() and each < 128 else f"\\x{each:02x}" for each in data)


def says_this(unit: bytes) -> Callable[[Draw, Talk], None]:
    return lambda draw, talk: talk.says(unit)


def literal(draw: Draw, names: list[str]) -> Move:
    data = draw(BYTES)
    ends = data.endswith(b"\r\n") and len(data) > 2
    line = draw(st.sampled_from([f"Cx {in_hex(data)}", f"C- {escaped(data)}"]))
    return Move(call("expect", data), (f"C: {escaped(data[:-2])}" if ends else line,), says_this(data), wants=True)


def literal_with_holes(draw: Draw, names: list[str]) -> Move:
    """A Hex that begins with a byte, has holes, and may demand what was captured."""
    pieces: list[str | bytes | int | tuple[str, int]] = [draw(BYTES)]
    pieces += draw(st.lists(st.one_of(BYTES, st.integers(1, 3)), max_size=3))
    new = []
    if draw(st.booleans()):
        new = [f"n{len(names)}"]
        pieces.append((new[0], draw(st.integers(1, 3))))
    if names and draw(st.booleans()):
        pieces.insert(draw(st.integers(1, len(pieces))), draw(st.sampled_from(names)))
    names += new
    source = " ".join(map(piece_in_hex, pieces))

    def play(draw: Draw, talk: Talk) -> None:
        unit, captured = b"", {}
        for piece in pieces:
            if isinstance(piece, tuple):
                captured[piece[0]] = draw(st.binary(min_size=piece[1], max_size=piece[1]))
                unit += captured[piece[0]]
            elif isinstance(piece, int):
                unit += draw(st.binary(min_size=piece, max_size=piece))
            else:
                unit += talk.captured[piece] if isinstance(piece, str) else piece
        talk.says(unit, captured)

    return Move(call("expect", Hex(source)), (f"Cx {source}",), play, wants=True)


def piece_in_hex(piece: str | bytes | int | tuple[str, int]) -> str:
    if isinstance(piece, bytes):
        return in_hex(piece)
    if isinstance(piece, tuple):
        return f"<{piece[0]}:{piece[1]}>"
    return rf"\g<{piece}>" if isinstance(piece, str) else "??" * piece


def what_was_captured(draw: Draw, names: list[str]) -> Move:
    """A Text that demands what was captured before."""
    if not names:
        return literal(draw, names)
    name = draw(st.sampled_from(names))
    source = rf"a\g<{name}>\0"
    return Move(
        call("expect", Text(source)),
        (f"C- {source}",),
        lambda draw, talk: talk.says(b"a" + talk.captured[name] + b"\0"),
        wants=True,
    )


def line_by_pattern(draw: Draw, names: list[str]) -> Move:
    name = f"n{len(names)}"
    names.append(name)

    def play(draw: Draw, talk: Talk) -> None:
        word = draw(WORDS)
        talk.says(b"a " + word + b"\r\n", {name: word})

    pattern = rf"a (?P<{name}>[abc]*)"
    options = {"ending": b"\r\n"} if draw(st.booleans()) else {}
    return Move(call("expect_line", re.compile(pattern.encode()), **options), (f"C~ {pattern}",), play, wants=True)


def through_a_text(draw: Draw, names: list[str]) -> Move:
    delimiter = draw(st.sampled_from([b"\r\n.\r\n", b"\0\0", b"aab"]))

    def play(draw: Draw, talk: Talk) -> None:
        data = draw(st.one_of(st.just(b""), BYTES)) + delimiter
        talk.says(data[: data.find(delimiter) + len(delimiter)])

    return Move(call("recv_until", delimiter), (f"C> {escaped(delimiter)}",), play)


def says(draw: Draw, names: list[str]) -> Move:
    """Something that the server says."""
    data, name = draw(BYTES), draw(st.sampled_from(names)) if names else None
    lines = (draw(st.sampled_from([f"Sx {in_hex(data)}", f"S- {escaped(data)}"])),)
    parts: list[Any] = [data]
    if name is not None and draw(st.booleans()):
        made, source = draw(st.sampled_from([(Text, rf"x\g<{name}>"), (Hex, rf"78 \g<{name}>")]))
        parts.append(made(source))
        lines += (f"S{'-' if made is Text else 'x'} {source}",)

    def play(draw: Draw, talk: Talk) -> None:
        talk.answers += data
        talk.answers += b"x" + talk.captured[name] if len(parts) > 1 and name is not None else b""

    return Move(call("send", *parts), lines, play)


ORDERED = [literal, literal_with_holes, what_was_captured, line_by_pattern, through_a_text, says]


# Those that only a script has


def other_line(draw: Draw, names: list[str]) -> Move:
    word, ending = draw(WORDS), draw(st.sampled_from([b"\n", b"\r\n", b"|"]))
    options = {} if ending == b"\n" else {"ending": ending}
    match = draw(st.sampled_from([ANY, word, is_short, Text(word.decode()), Hex(in_hex(word))]))
    return Move(call("expect_line", match, **options), (), says_this(word + ending), wants=match is not ANY)


def is_short(line: bytes) -> bool:
    return len(line) < 5


def so_many(draw: Draw, names: list[str]) -> Move:
    data = draw(st.one_of(BYTES, st.just(b"")))
    return Move(call("recv_exactly", len(data)), (), says_this(data))


def a_line(draw: Draw, names: list[str]) -> Move:
    return Move(call("recv_line"), (), says_this(draw(WORDS) + b"\n"))


def through_what_was_captured(draw: Draw, names: list[str]) -> Move:
    if not names:
        return through_a_text(draw, names)
    name = draw(st.sampled_from(names))

    def play(draw: Draw, talk: Talk) -> None:
        data = (delimiter := b"." + talk.captured[name])
        if draw(st.booleans()):
            data = b"b" + data
        talk.says(data[: data.find(delimiter) + len(delimiter)])

    return Move(call("recv_until", Text(rf".\g<{name}>")), (), play)


def says_with_effects(draw: Draw, names: list[str]) -> Move:
    data = draw(BYTES)
    n = draw(st.integers(0, len(data)))
    part, said = draw(st.sampled_from([(Cut(data, n), data[:n]), (Drip(data, 0, 2), data), (echoed, b"<a>")]))

    def play(draw: Draw, talk: Talk) -> None:
        talk.says(b"a")  # what is echoed
        talk.answers += b"(" + said

    return Move((*call("expect", b"a"), *call("send", b"(", part)), (), play, wants=True)


def echoed(request: Request) -> list[Any]:
    return [b"<", request, b">"]


ONLY_SCRIPTED = [other_line, so_many, a_line, through_what_was_captured, says_with_effects]


# Those that take frames


def frame_by_pattern(draw: Draw, names: list[str]) -> Move:
    name = f"n{len(names)}"
    names.append(name)

    def play(draw: Draw, talk: Talk) -> None:
        word = draw(WORDS)
        talk.says(b"b" + word + b"\r\n", {name: word})

    return Move(call("expect", re.compile(rb"b(?P<%b>[abc]*)\r\n" % name.encode())), (), play, wants=True)


def frame_of_any_kind(draw: Draw, names: list[str]) -> Move:
    match = draw(st.sampled_from([ANY, is_short, b"ab\r\n"]))
    return Move(call("expect", match), (), says_this(b"ab\r\n"), wants=match is not ANY)


FRAMED = [frame_by_pattern, frame_of_any_kind]


# Steps of steps, and chatter

Chatter = Callable[[Draw, Talk], None]


def optional(draw: Draw, number: int) -> Move:
    unit, reply = b"?%d" % number, draw(BYTES)

    def play(draw: Draw, talk: Talk) -> None:
        if draw(st.booleans()):
            talk.says(unit)
            talk.answers += reply

    lines = ("% optional", f"C- {escaped(unit)}", f"S- {escaped(reply)}", "% end")
    return Move(call("maybe", unit, reply), lines, play, optional=True)


def repeated(draw: Draw, names: list[str], kinds: list[Any], chatter: Chatter | None, numbers: Iterator[int]) -> Move:
    # What is optional can be told from that of the next round if something that is not stands first.
    moves = [literal(draw, names), *sequence(draw, names, kinds, numbers, 2)]
    times = draw(st.integers(1, 3))

    def play(draw: Draw, talk: Talk) -> None:
        for _ in range(times):
            played(draw, moves, talk, chatter)

    calls = tuple(each for move in moves for each in move.calls)
    lines = tuple(each for move in moves for each in move.lines)
    return Move(call("repeat", times, calls), (f"% repeat {times}", *lines, "% end"), play)


def sequence(draw: Draw, names: list[str], kinds: list[Any], numbers: Iterator[int], most: int) -> list[Move]:
    moves = []
    for kind in draw(st.lists(st.sampled_from([*kinds, None]), max_size=most)):
        moves.append(optional(draw, next(numbers)) if kind is None else kind(draw, names))
    return moves


def chatter(draw: Draw, talk: Talk) -> None:
    """Say what the rules answer."""
    for noop in draw(st.lists(st.booleans(), max_size=2)):
        word = draw(WORDS)
        talk.says(b"!noop\r\n" if noop else b"!echo " + word + b"\r\n", {} if noop else {"w": word})
        talk.answers += b"<noop>" if noop else b"<" + word + b">"


def chatter_rules(server: StreamTestServer) -> None:
    server.on(b"!noop\r\n").reply(b"<noop>")
    server.on(re.compile(rb"!echo (?P<w>\w*)\r\n")).reply(Text(r"<\g<w>>"))


CHATTER = ("% rules", "C: !noop", "S- <noop>", r"C~ !echo (?P<w>\w*)", r"S- <\g<w>>", "% end")


def played(draw: Draw, moves: list[Move], talk: Talk, chatter: Chatter | None) -> None:
    """Let the client say what fits, and in between what the rules answer, wherever that is not taken by a step."""
    for at, move in enumerate(moves):
        demanded = next((each for each in moves[at:] if not each.optional), None)
        if chatter is not None and demanded is not None and demanded.wants:
            chatter(draw, talk)
        move.play(draw, talk)


def says_nothing(draw: Draw, talk: Talk) -> None:
    pass


def says_the_rest(draw: Draw, talk: Talk) -> None:
    talk.says(draw(st.one_of(st.just(b""), BYTES)))


ENDS = [
    Move(call("close"), ("S! close",), says_nothing),
    Move(call("reset"), ("S! reset",), says_nothing),
    Move(call("send_eof"), ("S! send-eof",), says_nothing),
    Move(call("expect_eof"), ("C! eof",), says_nothing, wants=True),
]
ONLY_SCRIPTED_END = Move(call("recv_all"), (), says_the_rest)


@st.composite
def conversations(
    draw: Draw, kinds: list[Any], ends: list[Move], chatter: Chatter | None = None
) -> Conversation:
    names: list[str] = []
    numbers, talk = count(), Talk()
    moves = sequence(draw, names, kinds, numbers, most=4)
    if draw(st.booleans()):
        moves.append(repeated(draw, names, kinds, chatter, numbers))
    moves += sequence(draw, names, kinds, numbers, most=2)
    end = draw(st.sampled_from([None, None, *ends]))
    moves += [end] if end is not None else []
    played(draw, moves, talk, chatter)
    if chatter is not None and end is None:
        chatter(draw, talk)  # after the last step
    calls = tuple(each for move in moves for each in move.calls)
    written = tuple(each for move in moves for each in move.lines)
    return Conversation(calls, written, talk)


@SOME
@given(conversations([*ORDERED, *ONLY_SCRIPTED], [*ENDS, ONLY_SCRIPTED_END]), CUTS, DEPARTURES)
def test_a_script_goes_the_same_however_the_bytes_are_cut(
    conversation: Conversation, cuts: list[int], departure: Departure
) -> None:
    def declare(server: StreamTestServer) -> None:
        declared(server.script(), conversation.calls)

    fits = bytes(conversation.talk.said)

    assert check_all_cuts(declare, fits, cuts) == conversation.talk.outcome()
    check_all_cuts(declare, departure.of(fits), cuts)


@SOME
@given(conversations([*ORDERED, *ONLY_SCRIPTED, *FRAMED], [*ENDS, ONLY_SCRIPTED_END], chatter), CUTS, DEPARTURES)
def test_a_script_beside_rules_goes_the_same_however_the_bytes_are_cut(
    conversation: Conversation, cuts: list[int], departure: Departure
) -> None:
    def declare(server: StreamTestServer) -> None:
        chatter_rules(server)
        declared(server.script(), conversation.calls)

    fits = bytes(conversation.talk.said)

    assert check_all_cuts(declare, fits, cuts, framing=lines()) == conversation.talk.outcome()
    check_all_cuts(declare, departure.of(fits), cuts, framing=lines())


@SOME
@given(conversations(ORDERED, ENDS, chatter), CUTS, DEPARTURES, st.booleans())
def test_a_dialogue_goes_the_same_however_the_bytes_are_cut(
    conversation: Conversation, cuts: list[int], departure: Departure, rules_first: bool
) -> None:
    said = [CHATTER, conversation.lines] if rules_first else [conversation.lines, CHATTER]
    text = "\n".join(line for each in said for line in each)

    def declare(server: StreamTestServer) -> None:
        server.dialogue(text)

    fits = bytes(conversation.talk.said)

    assert check_all_cuts(declare, fits, cuts) == conversation.talk.outcome()
    check_all_cuts(declare, departure.of(fits), cuts)
