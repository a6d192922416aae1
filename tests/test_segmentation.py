r"""TCP is a stream: however a client's bytes are cut on their way, the conversation goes the same.

Hypothesis writes conversations: scripts, rules, dialogues, and what a client says that fits, or departs at some byte.
A real server performs each of them over real connections: the bytes at once, one by one, and in random pieces.  A piece
is sent when the server has received the one before it, so that each of them arrives by itself; that is looked at.

What must be the same: the bytes that the server sends, the requests, what was captured, and the failure with its text.
One thing in it may differ.  A literal fails at its first wrong byte, without waiting for more; so what its message
quotes of the bytes that came is more when more of them came at once.  ``failure_of`` leaves that out, and nothing else.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, pairwise
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sockserver import (
    ANY,
    Close,
    Connection,
    Cut,
    Drip,
    Hex,
    Request,
    Script,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    Text,
    fixed,
    length_prefixed,
    lines,
)
from pytest_sockserver.recording.recorder import RECEIVING, WAITING
from pytest_sockserver.scripting.framing import Framing

from . import insides
from .peers import PATIENCE, connect, read_exactly, read_to_end, until
from .test_framing import CORPUS

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which pytest requires on 3.10

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
    """Return what the server has said; ``None`` if it has ended the connection while the client was still talking."""
    try:
        with connect(server) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conn = server.wait_connection()
            for piece, count in zip(pieces, accumulate(map(len, pieces)), strict=True):
                client.sendall(piece)
                if not is_received(conn, count):
                    break
            client.shutdown(socket.SHUT_WR)
            return read_to_end(client)
    except OSError:
        assert insides.server_ended(server.wait_connection())
        return None


def is_received(conn: Connection, count: int) -> bool:
    """Wait until the server has so many bytes; tell whether it has, and has not ended the connection instead."""
    recorder, deadline = insides.tape(conn).recorder, monotonic() + PATIENCE
    with recorder.lock:
        while conn.received_count < count and not insides.server_ended(conn):
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
    return Move(call("repeat", times, calls), (f"% repeat {times}", *lines, "% end"), play, wants=True)


def sequence(draw: Draw, names: list[str], kinds: list[Any], numbers: Iterator[int], most: int) -> list[Move]:
    moves = []
    for kind in draw(st.lists(st.sampled_from([*kinds, None, None]), max_size=most)):
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
def conversations(draw: Draw, kinds: list[Any], ends: list[Move], chatter: Chatter | None = None) -> Conversation:
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


PIECES = st.sampled_from([b"a", b"b", b"\r\n", b"ab", b"a\r\n", b"ab\r\n"])


@SOME
@given(
    st.lists(st.one_of(PIECES, st.sampled_from([ANY, re.compile(rb"a.*", re.DOTALL)])), min_size=1, max_size=5),
    st.lists(st.sampled_from([b"a\r\n", b"b\r\n", b"ab\r\n", b"aa\r\n", b"\r\n"]), max_size=3),
    st.lists(PIECES, max_size=8),
    CUTS,
)
def test_who_takes_a_frame_is_the_same_however_the_bytes_are_cut(
    steps: list[Any], chatter: list[bytes], said: list[bytes], cuts: list[int]
) -> None:
    """Steps say frames, pieces of frames and several frames, and the rules are there for some that begin alike."""

    def declare(server: StreamTestServer) -> None:
        for each in chatter:
            server.on(each).reply(b"<" + each + b">")
        script = server.script()
        for each in steps:
            script.expect(each).send(b".") if each is ANY else script.expect(each)

    check_all_cuts(declare, b"".join(said), cuts, framing=lines())


# Rules


@dataclass(frozen=True)
class Declared:
    """A rule, in words of its own: what it matches is asked of a regular expression, or a function.

    Attributes:
        match: How it is declared.
        pattern: What its requests are.
        rank: A literal is asked before a pattern or a predicate, this before ``ANY``.
        units: Requests that it matches.
        replies: What it says first, then, and from then on: parts, and the bytes of each.
    """

    match: Any
    pattern: re.Pattern[bytes]
    rank: int
    units: st.SearchStrategy[bytes]
    times: int | tuple[int, int | None] | None
    replies: tuple[tuple[tuple[Any, Callable[[Heard], bytes]], ...], ...]

    @property
    def least(self) -> int:
        return self.times[0] if isinstance(self.times, tuple) else self.times or 0

    @property
    def most(self) -> int | None:
        return self.times[1] if isinstance(self.times, tuple) else self.times


@dataclass
class Heard:
    """A request, and what was captured by then."""

    unit: bytes
    captured: dict[str, bytes]


TIMES = st.sampled_from([None, None, None, 1, 2, (0, 1), (1, None), (0, 2)])


def parts_of_replies(names: Sequence[str]) -> st.SearchStrategy[tuple[Any, Callable[[Heard], bytes]]]:
    """Parts, and what they say."""
    plain = BYTES.map(lambda data: (data, lambda heard: data))
    cut = BYTES.map(lambda data: (Cut(data, len(data) // 2), lambda heard: data[: len(data) // 2]))
    dripped = BYTES.map(lambda data: (Drip(data, 0), lambda heard: data))
    called = st.just((echoed, lambda heard: b"<" + heard.unit + b">"))
    kept = [st.just((Text(rf"={each}=\g<{each}>"), said_of(each))) for each in names]
    return st.one_of(plain, plain, cut, dripped, called, *kept)


def said_of(name: str) -> Callable[[Heard], bytes]:
    return lambda heard: b"=%b=" % name.encode() + heard.captured[name]


@st.composite
def replies(draw: Draw, names: Sequence[str]) -> tuple[tuple[tuple[Any, Callable[[Heard], bytes]], ...], ...]:
    said = [tuple(each) for each in draw(st.lists(st.lists(parts_of_replies(names), max_size=2), max_size=3))]
    if said and not draw(st.integers(0, 4)):
        said[-1] = (*said[-1], (Close(), lambda heard: b""))
    return tuple(said)


PAIRS = st.lists(st.sampled_from(["61", "62", "63", "??"]), min_size=1, max_size=3)
FILL = st.sampled_from([b"a", b"b", b"\xff", b"?"])


@st.composite
def literal_rules(draw: Draw, number: int, ending: bytes = b"") -> Declared:
    """A rule by a literal, which may have holes, for whole frames that end in ``ending``."""
    pairs, name = draw(PAIRS), f"n{number}"
    named = draw(st.booleans())
    last = [f"<{name}:1>"] if named else []
    source = " ".join([*pairs, *last, *([in_hex(ending)] if ending else [])])
    wanted = [b"." if pair == "??" else bytes.fromhex(pair) for pair in pairs]
    pattern = b"".join(wanted) + (b"(?P<%b>.)" % name.encode() if named else b"") + re.escape(ending)
    units = st.tuples(*[FILL if each == b"." else st.just(each) for each in wanted], *([FILL] if named else []))
    plain = not named and "??" not in pairs
    match = draw(st.sampled_from([bytes.fromhex(source), Hex(source)])) if plain else Hex(source)
    return Declared(
        match,
        re.compile(pattern, re.DOTALL),
        0,
        units.map(lambda data: b"".join(data) + ending),
        draw(TIMES),
        draw(replies([name] if named else [])),
    )


def begin_alike(one: Declared, other: Declared) -> bool:
    """Tell whether a request of the one may begin with a request of the other: asked of what they say in hex."""
    pairs = [["??" if "<" in each else each for each in shown(rule).split()] for rule in (one, other)]
    return all(ours == theirs or "??" in (ours, theirs) for ours, theirs in zip(*pairs, strict=False))


def shown(rule: Declared) -> str:
    return rule.match.source if isinstance(rule.match, Hex) else in_hex(rule.match)


@st.composite
def prefix_free_rules(draw: Draw) -> list[Declared]:
    rules: list[Declared] = []
    for number in range(draw(st.integers(1, 5))):
        rule = draw(literal_rules(number))
        if not any(begin_alike(rule, each) for each in rules):
            rules.append(rule)
        if rules and draw(st.booleans()):  # declared again: it is asked first, and steps aside
            again = draw(st.sampled_from(rules))
            if again.pattern.groups == 0:
                rules.append(Declared(again.match, again.pattern, 0, again.units, draw(TIMES), draw(replies([]))))
    return rules


def has_b(data: bytes) -> bool:
    return b"b" in data


@dataclass(frozen=True)
class Frames:
    """A framing, and how a frame is written in it."""

    framing: Framing
    written: Callable[[bytes], bytes]


FRAMINGS = {
    "lines": Frames(lines(b"\n"), lambda data: data + b"\n"),
    "fixed": Frames(fixed(4), lambda data: (data + b"....")[:4]),
    "length": Frames(length_prefixed(">B"), lambda data: bytes([len(data)]) + data),
}


@st.composite
def framed_rules(draw: Draw, frames: Frames) -> list[Declared]:
    rules = []
    for number in range(draw(st.integers(1, 5))):
        kind, name = draw(st.sampled_from(["literal", "holes", "pattern", "predicate", "any"])), f"n{number}"
        data = frames.written(draw(WORDS))
        units = WORDS.map(frames.written)
        match: Any = ANY
        pattern, names, rank = rb".*", [], 2
        if kind == "literal":
            match, pattern, rank, units = data, re.escape(data), 0, st.just(data)
        elif kind == "holes":
            names, rank = [name], 0
            match = Hex(f"{in_hex(data[:-1])} <{name}:1>")
            pattern = re.escape(data[:-1]) + rb"(?P<%b>.)" % name.encode()
            units = st.just(data)
        elif kind == "pattern":
            names, rank, pattern = [name], 1, rb".*?(?P<%b>a?).*" % name.encode()
            match = re.compile(pattern, re.DOTALL)
        elif kind == "predicate":
            match, pattern, rank, units = has_b, rb".*b.*", 1, units.filter(has_b)
        rules.append(Declared(match, re.compile(pattern, re.DOTALL), rank, units, draw(TIMES), draw(replies(names))))
    return rules


@dataclass
class Course:
    """What is to come of requests and rules, by an account of its own."""

    answers: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    captured: dict[str, bytes] = field(default_factory=dict)
    failure: str | None = None

    def run(self, rules: list[Declared], units: list[bytes], *, framed: bool) -> Course:
        counts = [0] * len(rules)
        asked = sorted(range(len(rules)), key=lambda at: (rules[at].rank, -at))
        for unit in units:
            at = next((at for at in asked if rules[at].pattern.fullmatch(unit) and counts[at] != rules[at].most), None)
            known = any(rule.pattern.fullmatch(unit) for rule in rules)
            if at is None:
                self.failure = "UnexpectedRequest"
                self.requests += [unit] if framed or known else []
                return self
            counts[at] += 1
            if self._answer(rules[at], counts[at], unit):
                break
        if any(have < rule.least for have, rule in zip(counts, rules, strict=True)):
            self.failure = "UnmetExpectation"
        return self

    def _answer(self, rule: Declared, count: int, unit: bytes) -> bool:
        """Say what a rule answers; tell whether that ends the connection."""
        found = rule.pattern.fullmatch(unit)
        assert found is not None
        self.captured.update(found.groupdict())
        self.requests.append(unit)
        reply = rule.replies[min(count, len(rule.replies)) - 1] if rule.replies else ()
        for _, said in reply:
            self.answers += said(Heard(unit, self.captured))
        return any(isinstance(part, Close) for part, _ in reply)


def declare_rules(server: StreamTestServer, rules: list[Declared]) -> None:
    for rule in rules:
        on = server.on(rule.match, rule.times)
        for at, reply in enumerate(rule.replies or ((),)):
            (on.then if at else on.reply)(*[part for part, _ in reply])


def check_course(rules: list[Declared], units: list[bytes], outcome: Outcome, *, framed: bool) -> None:
    course = Course().run(rules, units, framed=framed)
    types = {each.partition(":")[0] for each in (outcome.failure or "").splitlines() if not each.startswith(" ")}
    assert types == ({course.failure} if course.failure else set())
    assert (outcome.sent, outcome.requests, outcome.captured) == (course.answers, course.requests, course.captured)


@SOME
@given(st.data(), prefix_free_rules(), CUTS, DEPARTURES)
def test_literals_without_frames_answer_the_same_however_the_bytes_are_cut(
    data: st.DataObject, rules: list[Declared], cuts: list[int], departure: Departure
) -> None:
    unknown = [] if any(shown(rule).startswith("??") for rule in rules) else [st.just(b"\0")]
    units = data.draw(st.lists(st.one_of(*[rule.units for rule in rules], *unknown), max_size=6))

    outcome = check_all_cuts(lambda server: declare_rules(server, rules), b"".join(units), cuts)

    check_course(rules, units, outcome, framed=False)
    check_all_cuts(lambda server: declare_rules(server, rules), departure.of(b"".join(units)), cuts)


@SOME
@given(st.data(), st.sampled_from(sorted(FRAMINGS)), CUTS, DEPARTURES)
def test_rules_on_frames_answer_the_same_however_the_bytes_are_cut(
    data: st.DataObject, name: str, cuts: list[int], departure: Departure
) -> None:
    frames = FRAMINGS[name]
    rules = data.draw(framed_rules(frames))
    units = data.draw(st.lists(st.one_of(*[rule.units for rule in rules], WORDS.map(frames.written)), max_size=6))

    outcome = check_all_cuts(lambda server: declare_rules(server, rules), b"".join(units), cuts, framing=frames.framing)

    check_course(rules, units, outcome, framed=True)
    said = departure.of(b"".join(units))
    check_all_cuts(lambda server: declare_rules(server, rules), said, cuts, framing=frames.framing)


@pytest.mark.parametrize("name", CORPUS)
@settings(deadline=None, max_examples=5)
@given(cuts=CUTS, turns=st.integers(0, 20))
def test_every_framing_brings_the_rules_the_same_frames_however_the_bytes_are_cut(
    name: str, cuts: list[int], turns: int
) -> None:
    framing, frames = CORPUS[name]
    frames = frames[turns % len(frames) :] + frames[: turns % len(frames)]

    outcome = check_all_cuts(lambda server: server.on(ANY).reply(echoed), b"".join(frames), cuts, framing=framing)

    assert outcome.requests == frames
    assert outcome.sent == b"".join(b"<" + each + b">" for each in frames)


@settings(deadline=None, max_examples=30)
@given(st.permutations(["literal", "pattern", "predicate", "any", "later"]))
def test_which_rule_answers_depends_on_their_order_among_equals_alone(order: list[str]) -> None:
    """``later`` is a second pattern: of several patterns and predicates the latest answers."""
    matches: dict[str, Any] = {
        "literal": b"one\n",
        "pattern": re.compile(rb"one\n|two\n"),
        "predicate": begins_with_t,
        "any": ANY,
        "later": re.compile(rb"t.*\n"),
    }
    with StreamTestServer(framing=lines(b"\n")) as server:
        for name in order:
            server.on(matches[name]).reply(name.encode() + b" ")
        with connect(server) as client:
            client.sendall(b"one\ntwo\nten\nelse\n")
            client.shutdown(socket.SHUT_WR)
            said = read_to_end(client).decode().split()

    two = max(["pattern", "predicate", "later"], key=order.index)
    ten = max(["predicate", "later"], key=order.index)
    assert said == ["literal", two, ten, "any"]


def begins_with_t(request: bytes) -> bool:
    return request.startswith(b"t")


# What once depended on how the bytes came


def test_a_literal_that_is_used_up_is_named_however_its_bytes_come() -> None:
    def declare(server: StreamTestServer) -> None:
        server.on(b"PING\n", times=1).reply(b"+PONG\n")
        server.on(b"QUIT\n").reply(b"+BYE\n")

    outcome = check_all_cuts(declare, b"PING\nPING\n", [7])

    line = declare.__code__.co_firstlineno + 1
    assert outcome == Outcome(
        b"+PONG\n",
        [b"PING\n", b"PING\n"],
        {},
        f"UnexpectedRequest: no rule is left for b'PING\\n'\n  rule 1 (test_segmentation.py:{line}) takes it only once",
    )


def test_literals_that_begin_alike_are_refused_after_a_script_too() -> None:
    """Taken as they came, these were b"PINGX" at once, and b"PING" byte by byte."""

    def declare(server: StreamTestServer) -> None:
        server.on(b"PING").reply(b"4")
        server.on(b"PINGX").reply(b"5")
        server.script().send(b"hi")

    outcome = check_all_cuts(declare, b"PINGX", [2])

    line = declare.__code__.co_firstlineno + 1
    assert outcome == Outcome(
        b"hi",
        [],
        {},
        f"TypeError: on(b'PINGX') and rule 1 (test_segmentation.py:{line}), on(b'PING'), begin alike: on a stream "
        "without frames which of them is meant would depend on how the bytes arrive; give the server a framing=",
    )


def test_a_pattern_without_frames_is_refused_after_a_script_too() -> None:
    def declare(server: StreamTestServer) -> None:
        server.on(re.compile(rb"A.*")).reply(b"x")
        server.script().send(b"hi")

    outcome = check_all_cuts(declare, b"A1", [1])

    assert outcome == Outcome(
        b"hi",
        [],
        {},
        "TypeError: on() expected bytes, not the pattern rb'A.*': on a stream without frames what it matches would "
        "depend on how the bytes arrive; give the server a framing=, lines(b'\\r\\n') for example",
    )


def test_a_literal_that_is_declared_while_its_client_waits_answers_it(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"one\n").reply(b"1")

    with connect(tcp_server) as client:
        client.sendall(b"one\n")
        assert client.recv(1) == b"1"
        until(lambda: insides.tape(tcp_server.connections[0]).state in (WAITING, RECEIVING))
        tcp_server.on(b"two\n").reply(b"2")
        client.sendall(b"two\n")
        assert client.recv(1) == b"2"


def test_a_literal_that_begins_like_another_is_refused_while_its_client_waits(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"one").reply(b"1")

    with connect(tcp_server) as client, tcp_server.raises(TypeError, r"begin alike"):
        client.sendall(b"one")
        assert client.recv(1) == b"1"
        tcp_server.on(b"one\n").reply(b"2")
        client.sendall(b"one\n")


def test_chatter_before_the_end_that_a_script_expects() -> None:
    def declare(server: StreamTestServer) -> None:
        chatter_rules(server)
        server.script().expect(b"QUIT\r\n").send(b"bye").expect_eof()

    outcome = check_all_cuts(declare, b"QUIT\r\n!noop\r\n", [8], framing=lines())

    assert outcome == Outcome(b"bye<noop>", [b"QUIT\r\n", b"!noop\r\n"], {}, None)


def test_a_line_that_is_too_long_is_so_before_its_stream_has_ended(sockserver: SockServer) -> None:
    """What came before a script was declared is there with its end; else the end comes last."""
    said = []
    for declared_first in (True, False):
        server = sockserver.tcp(max_frame=4)
        if declared_first:
            server.script().expect_line(b"x")
        with server.raises(ScriptMismatch) as failure, connect(server) as client:
            client.sendall(b"abcdef")
            with contextlib.suppress(OSError):  # reset already
                client.shutdown(socket.SHUT_WR)
            if not declared_first:
                until(lambda server=server: insides.unread(server.wait_connection()).ended)
                server.script().expect_line(b"x")
            with pytest.raises(ConnectionResetError):
                read_to_end(client)
        said.append(getattr(failure.value, "summary", "").partition(", ")[2].partition(", ")[2])

    assert said == ["expected a line matching b'x'\n  got b'abcdef' and no line ending in 4 bytes"] * 2


def test_literals_beside_rules_do_not_wait_for_the_end_of_a_frame(sockserver: SockServer) -> None:
    """None of these ends a line: whoever waits for that here waits for ever."""
    server = sockserver.tcp(framing=lines(), timeout=1)
    chatter_rules(server)
    server.script().expect(b"A").expect(b"B").send(b"b")

    with connect(server) as client:
        client.settimeout(server.timeout / 2)
        client.sendall(b"AB")
        assert client.recv(1) == b"b"


def test_optional_steps_at_the_end_of_a_script_are_not_demanded(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)
    server.script().expect(b"A").send(b"a").maybe(b"B", b"b").maybe(b"C", b"c")

    with connect(server) as client:
        client.sendall(b"A")
        assert client.recv(1) == b"a"
        server.assert_no_traffic(0.15)
        client.sendall(b"C")
        assert client.recv(1) == b"c"


@pytest.mark.parametrize(
    ("calls", "said", "answers"),
    [
        ((*call("maybe", b"?", b"?"), *call("expect", b"A")), b"!noop\r\n?A", b"<noop>?"),
        (
            (*call("maybe", b"?1", b"1"), *call("maybe", b"?2", b"2"), *call("expect", b"A")),
            b"!noop\r\n?1!noop\r\n?2!noop\r\nA",
            b"<noop>1<noop>2<noop>",
        ),
        (call("repeat", 2, (*call("maybe", b"?", b"?"), *call("expect", b"A"))), b"A!noop\r\n?A", b"<noop>?"),
        (
            (*call("repeat", 2, (*call("expect", b"A"), *call("maybe", b"?", b"?"))), *call("expect", b"C")),
            b"A!noop\r\n?AC",
            b"<noop>?",
        ),
        (
            (*call("maybe", b"?", b"?"), *call("repeat", 1, call("expect", b"A"))),
            b"!noop\r\n?A",
            b"<noop>?",
        ),
        ((*call("expect", b"A"), *call("maybe", b"?", b"?")), b"A!noop\r\n?", b"<noop>?"),
    ],
    ids=["before a step", "twice", "in a repeat", "last of a repeat", "before a repeat", "last of all"],
)
def test_chatter_before_an_optional_step(calls: tuple[Call, ...], said: bytes, answers: bytes) -> None:
    def declare(server: StreamTestServer) -> None:
        chatter_rules(server)
        declared(server.script(), calls)

    outcome = check_all_cuts(declare, said, [3], framing=lines())

    assert (outcome.failure, outcome.sent) == (None, answers)


def test_optional_steps_at_the_end_of_a_repeat_at_the_end_are_not_demanded(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)
    server.script().repeat(1, Script().expect(b"A").send(b"a").maybe(b"B", b"b"))

    with connect(server) as client:
        client.sendall(b"A")
        assert client.recv(1) == b"a"
        server.assert_no_traffic(0.15)
        client.sendall(b"B")
        assert client.recv(1) == b"b"


def test_chatter_that_begins_as_a_step_is_the_rules_as_a_whole() -> None:
    """Two steps say one line; what begins like it and is another is not taken in part."""

    def declare(server: StreamTestServer) -> None:
        server.on(b"AX\r\n").reply(b"<AX>")
        server.script().expect(b"A").expect(b"B\r\n").send(b"ok")

    outcome = check_all_cuts(declare, b"AX\r\nAB\r\n", [1, 5], framing=lines())

    assert outcome == Outcome(b"<AX>ok", [b"AX\r\n", b"A", b"B\r\n"], {}, None)
    line = declare.__code__.co_firstlineno + 2
    assert check_all_cuts(declare, b"AY\r\n", [1], framing=lines()).failure == (
        f"ScriptMismatch: step 2 of 3, test_segmentation.py:{line}, expected b'B\\r\\n'\n"
        "  got ... (differs at byte 0: b'Y' is not b'B')"
    )


@pytest.mark.parametrize("match", [b"", Hex(""), Text("")], ids=repr)
def test_a_rule_has_at_least_one_byte(tcp_server: StreamTestServer, match: Any) -> None:
    with pytest.raises(ValueError) as raised:
        tcp_server.on(match)

    assert str(raised.value) == (
        "on() expected at least one byte; a new connection is CONNECT, "
        "and a stream without a byte is a request where framing=until_eof was set before"
    )


# Many clients at once

CLIENTS, EACH = 20, 5


def all_at_once(server: StreamTestServer, client: Callable[[socket.socket], None]) -> None:
    """Run a client in each of so many threads, which begin together."""
    start = threading.Barrier(CLIENTS)

    def run() -> None:
        with connect(server) as sock:
            start.wait(PATIENCE)
            client(sock)

    for future in [server.in_thread(run) for _ in range(CLIENTS)]:
        future.result(PATIENCE)


def test_so_many_times_is_so_many_for_many_clients_at_once(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=lines(b"\n"))
    server.on(b"take\n").reply(b"-")
    server.on(b"take\n", times=7).reply(b"+")
    said: list[bytes] = []

    def client(sock: socket.socket) -> None:
        for _ in range(EACH):
            sock.sendall(b"take\n")
            said.append(read_exactly(sock, 1))

    all_at_once(server, client)

    assert (said.count(b"+"), said.count(b"-")) == (7, CLIENTS * EACH - 7)


def test_a_rule_that_many_requests_have_matched_at_once_is_taken_so_many_times(sockserver: SockServer) -> None:
    server, together = sockserver.tcp(framing=lines(b"\n")), threading.Barrier(CLIENTS)

    def meet(request: bytes) -> bool:
        together.wait(PATIENCE)  # none of them has taken the rule before all of them have found it
        return True

    server.on(ANY).reply(b"-")
    server.on(meet, times=7).reply(b"+")
    said: list[bytes] = []

    def client(sock: socket.socket) -> None:
        sock.sendall(b"take\n")
        said.append(read_exactly(sock, 1))

    all_at_once(server, client)

    assert (said.count(b"+"), said.count(b"-")) == (7, CLIENTS - 7)


def test_each_reply_is_given_once_to_many_clients_at_once(tcp_server: StreamTestServer) -> None:
    replies = [b"%03d" % number for number in range(CLIENTS * EACH)]
    on = tcp_server.on(b"next\n", times=len(replies)).reply(replies[0])
    for each in replies[1:]:
        on.then(each)
    said: list[bytes] = []

    def client(sock: socket.socket) -> None:
        sock.sendall(b"next\n" * EACH)
        said.extend(read_exactly(sock, 3) for _ in range(EACH))

    all_at_once(tcp_server, client)

    assert sorted(said) == replies
    assert on.count == len(replies)


def test_reply_functions_run_for_all_connections_at_once_and_for_one_in_turn(tcp_server: StreamTestServer) -> None:
    together, running, most = threading.Barrier(CLIENTS), Counter[int](), Counter[int]()

    @tcp_server.on(b"meet\n").reply
    def meet(request: Request) -> bytes:
        index = request.connection.index if request.connection is not None else -1
        running[index] += 1
        together.wait(PATIENCE)  # passes if all connections are answered at the same time
        most[index] = max(most[index], running[index])
        running[index] -= 1
        return b"."

    def client(sock: socket.socket) -> None:
        sock.sendall(b"meet\n" * EACH)  # answered one after the other
        assert read_exactly(sock, EACH) == b"." * EACH

    all_at_once(tcp_server, client)

    assert most == dict.fromkeys(range(CLIENTS), 1)


# Memory

MAX_FRAME = 1 << 20
ONE_READ = 1 << 16  # bytes that are asked of the kernel at once


def by_rules(server: StreamTestServer) -> None:
    server.framing = lines()
    server.on(ANY).reply(b"")


def by_a_script_beside_rules(server: StreamTestServer) -> None:
    server.framing = lines()
    server.on(b"!noop\r\n").reply(b"")
    server.script().expect(b"QUIT\r\n")


def by_a_line_of_a_script(server: StreamTestServer) -> None:
    server.script().expect_line(b"QUIT")


def by_a_text_of_a_dialogue(server: StreamTestServer) -> None:
    server.dialogue("C> .QUIT")


def by_frames_of_a_handler(server: StreamTestServer) -> None:
    @server.handler
    def each_frame(conn: Connection) -> None:
        list(conn.frames(lines()))


def by_a_line_of_a_handler(server: StreamTestServer) -> None:
    server.handler(lambda conn: conn.recv_line())


@pytest.mark.parametrize(
    "declare",
    [
        by_rules,
        by_a_script_beside_rules,
        by_a_line_of_a_script,
        by_a_text_of_a_dialogue,
        by_frames_of_a_handler,
        by_a_line_of_a_handler,
    ],
)
def test_a_line_without_an_end_takes_as_much_memory_as_a_frame_may(
    sockserver: SockServer, declare: Callable[[StreamTestServer], object]
) -> None:
    server = sockserver.tcp(max_frame=MAX_FRAME, record_limit=ONE_READ)
    declare(server)

    with server.raises(ScriptMismatch), connect(server) as client:
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionError):
                talk_for_ever(client)
            server.wait_connection().wait_closed()
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    (conn,) = server.connections
    assert MAX_FRAME <= len(insides.unread(conn)) <= MAX_FRAME + ONE_READ
    assert conn.received_count == len(insides.unread(conn))
    # A bytearray that grows has an eighth to spare.  A read is on its way here, one in the client, and one is kept.
    assert most < 1.125 * (MAX_FRAME + ONE_READ) + 5 * ONE_READ


def talk_for_ever(client: socket.socket) -> None:
    data = b"x" * ONE_READ
    while True:
        client.sendall(data)


def test_a_length_that_is_too_large_takes_no_memory_at_all(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=length_prefixed(">I"), max_frame=MAX_FRAME)
    server.on(ANY).reply(b"")

    with server.raises(ScriptMismatch) as failure, connect(server) as client:
        with pytest.raises(ConnectionError):
            client.sendall(b"\xff" * 4)
            talk_for_ever(client)

    assert server.connections[0].received_count <= ONE_READ
    assert getattr(failure.value, "summary", None) == (
        "expected a frame of at most 1,048,576 bytes (max_frame)\n  got b'\\xff\\xff\\xff\\xff' and needs "
        "4,294,967,295 bytes more"
    )


# Size


def test_a_literal_of_a_megabyte_in_a_script(tcp_server: StreamTestServer) -> None:
    data = bytes(range(256)) * 4096
    tcp_server.script().expect(data).send(b"all of it").close()

    with connect(tcp_server) as client:
        client.sendall(data)
        assert read_to_end(client) == b"all of it"

    assert tcp_server.requests == [data]
