"""What can be known to be wrong is an error when it is declared, at the line that declares it; and its whole text.

What depends on the framing, which may still be given, is one when a connection comes and at the test's first wait: it
points at the declaration all the same.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    EOF,
    Close,
    Cut,
    DatagramTestServer,
    Delay,
    DialogueError,
    Drip,
    Gate,
    Hex,
    InvalidState,
    Reset,
    Script,
    SendEof,
    SockServer,
    StartTLS,
    StreamTestServer,
    Text,
    UnsupportedFault,
    delimited,
    fixed,
    length_prefixed,
    lines,
    netstrings,
    until_eof,
)

from .peers import connect, datagram_client, read_to_end

FILE = Path(__file__).name


class Servers:
    """One server of each kind."""

    def __init__(self, factory: SockServer) -> None:
        self.tcp, self.unix, self.udp = factory.tcp(name="tcp"), factory.unix(name="unix"), factory.udp(name="udp")

    def clear(self) -> None:
        """Forget what was declared: half a script is no expectation."""
        for server in (self.tcp, self.unix, self.udp):
            server.clear()


@pytest.fixture
def servers(sockserver: SockServer) -> Servers:
    return Servers(sockserver)


async def coroutine(request: bytes) -> bytes:
    return request


class Awaitable:
    async def __call__(self, request: bytes) -> bytes:
        return request


TIMES = "times must be an int of at least 1, a pair (least, most) with most None for any number, or None, not "
MATCH = "expected bytes, a compiled pattern of bytes, Hex, Text, a predicate or ANY, not "
ASYNC = f"the async function coroutine ({FILE}:{coroutine.__code__.co_firstlineno})"
ON_DATAGRAMS_FIT = (
    "they have Append, Corrupt, Cut, Delay, Gate, Hold, Jitter, OpenGate, Overwrite, Prepend, Repeat, Replace, Spoof "
    "and Stall, and no reply is ()"
)
DATAGRAMS = f"with datagrams: they have no connection that could end or change; {ON_DATAGRAMS_FIT}"
VERBS_ON_DATAGRAMS = "expect(), send(), open_gate(), maybe(), repeat()"
ON_DATAGRAMS = f"each expect() takes one datagram, each part of send() is one; it has {VERBS_ON_DATAGRAMS}"
NAMES = r"names the group \g<who>, which neither its match nor anything declared before captures: known so far:"
LINE = "expected a line that begins with S: S- Sx S! C: C- Cx C~ C> C! == % or #"

WRONG: list[tuple[Callable[[Servers], object], type[Exception], str]] = [
    # Matches
    (lambda its: its.tcp.on("PING"), TypeError, "expected bytes, not the text 'PING': write b'PING'"),  # type: ignore[arg-type]
    (
        lambda its: its.tcp.on(re.compile(r"GET \w+")),  # type: ignore[arg-type]
        TypeError,
        r"expected a pattern of bytes, not of text: write re.compile(rb'GET \w+')",
    ),
    (
        lambda its: its.tcp.script().expect_line(re.compile("it's")),  # type: ignore[arg-type]
        TypeError,
        'expected a pattern of bytes, not of text: write re.compile(rb"it\'s")',
    ),
    (lambda its: its.tcp.on(coroutine), TypeError, f"expected a predicate that returns a bool, not {ASYNC}"),
    (
        lambda its: its.tcp.script().expect_line(coroutine),
        TypeError,
        f"expected a predicate that returns a bool, not {ASYNC}",
    ),
    (lambda its: its.tcp.wait_for(coroutine), TypeError, f"expected a predicate that returns a bool, not {ASYNC}"),
    (lambda its: its.tcp.on(5), TypeError, MATCH + "5"),  # type: ignore[arg-type]
    (lambda its: its.tcp.on(bytes), TypeError, MATCH + "<class 'bytes'>"),
    (
        lambda its: its.tcp.on(b""),
        ValueError,
        "on() expected at least one byte; a new connection is CONNECT, "
        "and a stream without a byte is a request where framing=until_eof was set before",
    ),
    (
        lambda its: its.tcp.script().expect(b""),
        ValueError,
        "expect() expected at least one byte; the end of the stream is expect_eof()",
    ),
    (
        lambda its: its.tcp.script().expect("QUIT"),  # type: ignore[arg-type]
        TypeError,
        "expect() expected bytes, not the text 'QUIT': write b'QUIT'",
    ),
    (
        lambda its: its.tcp.script().expect_line(b"QUIT\r\n"),
        ValueError,
        r"expect_line() compares the line without its ending: write b'QUIT', not b'QUIT\r\n'",
    ),
    (
        lambda its: its.udp.on(CONNECT),
        TypeError,
        "on() expected what a datagram is to match, not CONNECT: datagrams have no connections",
    ),
    (lambda its: Text("a\n"), ValueError, r"expected text, not the control character '\n': write r before the string?"),
    (lambda its: Text(r"\q"), ValueError, r"unknown escape \q: expected \\ \r \n \t \0 \xNN or \g<name>"),
    (lambda its: Hex("0g"), ValueError, r"expected pairs of hex digits, ??, <name:n> or \g<name>, not '0g'"),
    # How often
    (lambda its: its.tcp.on(b"A", times=0), ValueError, TIMES + "0"),
    (lambda its: its.tcp.script(times=0), ValueError, TIMES + "0"),
    (lambda its: its.udp.script(times=-1), ValueError, TIMES + "-1"),
    (lambda its: its.tcp.on(b"A", times=(3, 2)), ValueError, TIMES + "(3, 2)"),
    (lambda its: its.tcp.on(b"A", times=True), TypeError, TIMES + "True"),
    (lambda its: its.tcp.on(b"A", times="2"), TypeError, TIMES + "'2'"),  # type: ignore[arg-type]
    (
        lambda its: its.tcp.script().repeat(0, Script().expect(b"A")),
        ValueError,
        "repeat() expected a number of times, 1 or more, not 0",
    ),
    (lambda its: its.tcp.script().repeat(2, Script()), ValueError, "repeat() expected a script that has steps"),
    (
        lambda its: its.tcp.script().repeat(2, b"A"),  # type: ignore[arg-type]
        TypeError,
        "repeat() expected a Script, not b'A': write repeat(2, Script().expect(...))",
    ),
    # Replies
    (
        lambda its: its.tcp.on(b"A").reply("OK"),  # type: ignore[arg-type]
        TypeError,
        "reply() expected bytes, not the text 'OK': write b'OK', or encode it",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(coroutine),
        TypeError,
        f"reply() expected a function that returns parts, not {ASYNC}",
    ),
    (lambda its: its.tcp.on(b"A").reply(None), TypeError, "reply() expected bytes, not None"),  # type: ignore[arg-type]
    (
        lambda its: its.tcp.on(b"A").reply(Close),
        TypeError,
        "reply() expected a part, not the class Close: write Close(...)",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(Close(), b"bye"),
        ValueError,
        "reply() expected nothing after Close(): b'bye' would never be reached",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(SendEof(), b"bye"),
        ValueError,
        "reply() expected no bytes after SendEof(): it ends what the server says",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(Hex("??")),
        ValueError,
        "reply() cannot say Hex(r'??'): ?? and <name:n> are for what is received",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(b"1").reply(b"2"),
        InvalidState,
        "reply() was called already for this rule: the next reply is then(...)",
    ),
    (
        lambda its: its.tcp.on(b"A").then(b"2"),
        InvalidState,
        "then() follows reply(): write on(...).reply(...).then(...)",
    ),
    (lambda its: its.tcp.on(b"A").reply(Text(r"\g<who>")), ValueError, rf"reply() {NAMES} nothing"),
    (
        lambda its: its.tcp.on(re.compile(rb"(?P<name>.)")).reply(Cut(Text(r"\g<who>"), 1)),
        ValueError,
        rf"reply() {NAMES} name",
    ),
    (lambda its: its.tcp.on(Text(r"\g<who>")), ValueError, rf"on() {NAMES} nothing"),
    (
        lambda its: its.tcp.script().expect_line(re.compile(rb"(?P<name>.)")).send(Text(r"\g<who>")),
        ValueError,
        r"send() names the group \g<who>, which nothing before it captures: known so far: name",
    ),
    (
        lambda its: its.tcp.script().repeat(2, Script().expect(Hex(r"\g<who> 00"))),
        ValueError,
        r"expect() names the group \g<who>, which nothing before it captures: known so far: nothing",
    ),
    (
        lambda its: its.tcp.script().send(coroutine),
        TypeError,
        f"send() expected a function that returns parts, not {ASYNC}",
    ),
    # Parts
    (lambda its: Delay(-1), ValueError, "Delay() expected seconds from 0 to 60, not -1"),
    (lambda its: Delay("1"), TypeError, "Delay() expected seconds, 0 or more, not '1'"),  # type: ignore[arg-type]
    (lambda its: Delay(5000), ValueError, "Delay() expected seconds from 0 to 60, not 5000"),
    (lambda its: Gate("go on"), ValueError, "Gate() expected the name of a gate, without blanks, not 'go on'"),
    (lambda its: its.tcp.open_gate(""), ValueError, "open_gate() expected the name of a gate, without blanks, not ''"),
    (lambda its: Cut(b"abc", 4), ValueError, "Cut() expected at most the 3 bytes that there are, not 4"),
    (lambda its: Cut(b"abc", -1), ValueError, "Cut() expected a number of bytes, 0 or more, not -1"),
    (
        lambda its: Cut("abc", 1),  # type: ignore[arg-type]
        TypeError,
        "Cut() expected bytes, not the text 'abc': write b'abc', or encode it",
    ),
    (lambda its: Drip(b"abc", 0.1, 0), ValueError, "Drip() expected pieces of at least 1 byte, not 0"),
    # What a transport cannot do
    (lambda its: its.udp.on(b"A").reply(Close()), UnsupportedFault, f"reply() cannot do Close() {DATAGRAMS}"),
    (
        lambda its: its.udp.script().expect(b"A").send(Drip(b"abc", 0.1)),
        UnsupportedFault,
        f"send() cannot do Drip(b'abc', 0.1) with datagrams: a datagram arrives whole; {ON_DATAGRAMS_FIT}",
    ),
    (lambda its: its.udp.script().close(), ValueError, f"a script of datagrams has no close(): {ON_DATAGRAMS}"),
    (
        lambda its: its.udp.script().expect_line(b"A"),
        ValueError,
        f"a script of datagrams has no expect_line(): {ON_DATAGRAMS}",
    ),
    (
        lambda its: its.udp.script().send(b"A"),
        ValueError,
        "send() expected a datagram before it: its sender is who is answered; expect() one first",
    ),
    (
        lambda its: its.unix.on(b"A").reply(Reset()),
        UnsupportedFault,
        "reply() cannot do Reset() on a unix socket: its client would see a plain end of stream; write Close()",
    ),
    (
        lambda its: its.unix.script().reset(),
        ValueError,
        "a unix stream cannot be reset: its client would see a plain end of stream; use close()",
    ),
    (
        lambda its: its.tcp.on(b"A").reply(StartTLS()),
        ValueError,
        "reply() has no context for StartTLS(): give it one, or give the server tls=",
    ),
    # Scripts that contradict themselves
    (
        lambda its: its.tcp.script().close().send(b"A"),
        ValueError,
        "send() would never be reached: nothing follows close()",
    ),
    (
        lambda its: its.tcp.script().send(b"A", Close()).expect(b"B"),
        ValueError,
        "expect() would never be reached: nothing follows send(b'A', Close())",
    ),
    (
        lambda its: its.tcp.script().maybe(b"AB", b"x").expect(b"ABC"),
        ValueError,
        "expect() may start like the optional step before it: "
        "b'AB' and b'ABC' cannot be told apart by their first bytes",
    ),
    (lambda its: its.tcp.script().recv(0), ValueError, "recv() expected a number of bytes above 0, not 0"),
    (
        lambda its: its.tcp.script().recv_until(b""),
        ValueError,
        "recv_until() expected a delimiter of at least one byte",
    ),
    (lambda its: its.tcp.script().expect(b"A", timeout=0), ValueError, "timeout must be above 0 seconds, not 0"),
    # Dialogues
    (
        lambda its: its.tcp.dialogue("S: hi\n\n  C hello\n"),
        DialogueError,
        f"line 3: {LINE}\n  C hello",
    ),
    (
        lambda its: its.tcp.dialogue("S: hi\nc: hello"),
        DialogueError,
        f"line 2: {LINE}; did you mean C: hello?\n  c: hello",
    ),
    (lambda its: its.tcp.dialogue(""), DialogueError, f"the dialogue is empty: {LINE}"),
    (
        lambda its: its.tcp.dialogue(r"S: \g<who>"),
        DialogueError,
        r"line 1: send() names the group \g<who>, which nothing before it captures: known so far: nothing"
        "\n  S: \\g<who>",
    ),
    (
        lambda its: its.tcp.dialogue("S: hi\nC~ ("),
        DialogueError,
        "line 2, column 4: expected a pattern, but missing ), unterminated subpattern\n  C~ (\n     ^",
    ),
    (
        lambda its: its.tcp.dialogue("% repeat 0\nC: A\n% end"),
        DialogueError,
        "line 1: expected a number of times, 1 or more, as in % repeat 3, not % repeat 0\n  % repeat 0",
    ),
    (
        lambda its: its.unix.dialogue("C: A\nS! reset"),
        DialogueError,
        "line 2: a unix stream cannot be reset: its client would see a plain end of stream; use close()\n  S! reset",
    ),
    (
        lambda its: its.udp.dialogue("S! close"),
        DialogueError,
        "line 1: S! close has no meaning for datagrams: expected delay, wait or open\n  S! close",
    ),
    (
        lambda its: its.tcp.dialogue(b"S: hi"),  # type: ignore[arg-type]
        TypeError,
        "dialogue() expected the text of a dialogue, or the path of a file, not b'S: hi'",
    ),
    (
        lambda its: its.tcp.dialogue("S: hi", who="bob"),
        TypeError,
        "dialogue() expected bytes, or a function of the connection, for who=, not 'bob'",
    ),
]


@pytest.mark.parametrize(("declare", "kind", "text"), WRONG, ids=[text[:40] for _, _, text in WRONG])
def test_what_is_wrong_is_an_error_where_it_is_declared(
    servers: Servers, declare: Callable[[Servers], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        declare(servers)
    servers.clear()

    assert str(caught.value) == text
    last = caught.traceback.filter(caught)[-1]
    assert Path(last.path) == Path(__file__)
    assert last.frame.code.raw is declare.__code__


def test_an_object_whose_call_is_async_is_refused(servers: Servers) -> None:
    awaitable = Awaitable()

    with pytest.raises(TypeError) as match:
        servers.tcp.on(awaitable)
    with pytest.raises(TypeError) as reply:
        servers.tcp.on(b"A").reply(awaitable)

    assert str(match.value) == f"expected a predicate that returns a bool, not the async function {awaitable!r}"
    assert str(reply.value) == f"reply() expected a function that returns parts, not the async function {awaitable!r}"


# Framings


def nothing() -> Iterator[int]:
    return
    yield 1


def zero() -> Iterator[int]:
    yield 0


def took_nothing(framing: Any) -> str:
    line = framing.__code__.co_firstlineno
    return (
        f"framing {framing.__qualname__} took nothing: a frame has at least one byte; "
        f"at test_declarations.py:{line} yield its size, its delimiter, or EOF"
    )


async def later() -> Any:
    yield 1


def plain() -> bytes:
    return b""


def text() -> Iterator[str]:
    yield "a line"


def negative() -> Iterator[int]:
    yield -1


FRAMING = "expected a framing, a generator function without arguments, not"

WRONG_FRAMINGS: list[tuple[object, type[Exception], str]] = [
    (4, TypeError, f"{FRAMING} 4: write fixed(4)"),
    (b"\n", TypeError, rf"{FRAMING} b'\n': write delimited(b'\n')"),
    (EOF, TypeError, f"{FRAMING} EOF: write until_eof"),
    (lines, TypeError, r"lines is not a framing yet: call it, lines(b'\r\n')"),
    (until_eof(), TypeError, "expected a framing, not a generator: write framing=until_eof, without calling it"),
    (later, TypeError, f"{FRAMING} the async function later: write def, without async"),
    (plain, TypeError, f"{FRAMING} plain: it returned b'', it yields nothing"),
    (nothing, ValueError, took_nothing(nothing)),
    (zero, ValueError, took_nothing(zero)),
    (text, TypeError, "framing text yielded 'a line': expected a number of bytes, a delimiter (bytes) or EOF"),
    (negative, ValueError, "framing negative yielded -1: expected a number of bytes, a delimiter (bytes) or EOF"),
    (
        fixed(1 << 30),
        ValueError,
        "framing fixed(1073741824) needs 1,073,741,824 bytes at once: max_frame is 16,777,216",
    ),
]


@pytest.mark.parametrize(("framing", "kind", "said"), WRONG_FRAMINGS, ids=[said[-40:] for _, _, said in WRONG_FRAMINGS])
def test_a_framing_that_is_none_is_an_error_where_it_is_declared(
    sockserver: SockServer, servers: Servers, framing: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as attribute:
        servers.tcp.framing = framing
    with pytest.raises(kind) as option:
        sockserver.tcp(framing=framing)
    with pytest.raises(kind) as step:
        servers.tcp.script().rules(framing)
    servers.clear()

    assert str(attribute.value) == str(option.value) == str(step.value) == said


def test_a_framing_that_needs_no_more_than_its_servers_max_frame_is_taken(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=fixed(1 << 30), max_frame=1 << 30)

    assert server.framing is not None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lines(b""), "lines() expected a delimiter of at least one byte"),
        (lambda: lines("\n"), r"lines() expected bytes, not the text '\n': write b'\n'"),  # type: ignore[arg-type]
        (lambda: delimited(4), "delimited() expected bytes, not 4"),  # type: ignore[arg-type]
        (lambda: fixed(0), "fixed() expected a number of bytes above 0, not 0"),
        (
            lambda: length_prefixed("H"),
            "length_prefixed() expected a byte order (>, < or !) and B, H, I, L, Q, their signed forms b, h, i, l, q, "
            "or a number of bytes from 1 to 8, as '>H', '>i' or '<3', not 'H'",
        ),
    ],
)
def test_the_arguments_of_a_framing_are_checked_where_they_are_given(make: Callable[[], object], said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make()

    assert str(caught.value) == said
    assert caught.traceback.filter(caught)[-1].frame.code.raw is make.__code__


def test_a_framing_that_turns_out_to_take_nothing_fails_at_the_connection(sockserver: SockServer) -> None:
    needs = [1]

    def may_be_empty() -> Iterator[int]:
        yield from needs

    server = sockserver.tcp(framing=may_be_empty, name="server")
    server.on(ANY).reply(b"ok")
    needs.clear()

    with server.raises(ValueError) as caught:
        reset_or_end(server, b"AB")

    assert str(caught.value) == took_nothing(may_be_empty)


def test_a_framing_that_asks_for_what_is_no_need_fails_at_its_own_line(sockserver: SockServer) -> None:
    def below() -> Iterator[int]:
        yield 1
        yield -5  # this one

    server = sockserver.tcp(framing=below, name="server")
    server.on(ANY).reply(b"ok")

    with server.raises(ValueError) as caught:
        reset_or_end(server, b"AB")

    name = "test_a_framing_that_asks_for_what_is_no_need_fails_at_its_own_line.<locals>.below"
    assert str(caught.value) == (f"framing {name} yielded -5: expected a number of bytes, a delimiter (bytes) or EOF")
    assert last_line(caught.value) == "yield -5  # this one"


def test_a_frame_of_more_than_there_may_be_fails_as_soon_as_it_is_known(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=netstrings, max_frame=100, name="server")
    server.on(ANY).reply(b"ok")

    with server.raises(AssertionError) as caught:
        reset_or_end(server, b"1000:")

    assert str(caught.value).split("): ", 1)[1].splitlines()[:2] == [
        "expected a frame of at most 100 bytes (max_frame)",
        "  got b'1000:' and needs 1,001 bytes more",
    ]
    assert last_line(caught.value) == 'server.on(ANY).reply(b"ok")'


# What depends on the framing


def reset_or_end(server: StreamTestServer, said: bytes = b"") -> bytes:
    """Return what a client gets that says something."""
    try:
        with connect(server) as client:
            client.sendall(said)
            return read_to_end(client)
    except OSError:
        return b"(reset)"


def last_line(error: BaseException | None) -> str:
    """Return the innermost line of this file in an exception's traceback."""
    assert error is not None
    line, at = "", error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == __file__:
            line = linecache.getline(__file__, at.tb_lineno).strip()
        at = at.tb_next
    return line


def is_ping(frame: bytes) -> bool:
    return frame == b"PING"


def a_pattern(server: StreamTestServer) -> None:
    server.on(re.compile(rb"PING\r\n")).reply(b"+PONG\r\n")


def a_predicate(server: StreamTestServer) -> None:
    server.on(is_ping).reply(b"+PONG\r\n")


def anything(server: StreamTestServer) -> None:
    server.on(ANY).reply(b"+PONG\r\n")


def literals_that_begin_alike(server: StreamTestServer) -> None:
    server.on(b"PING").reply(b"1")
    server.on(b"PI").reply(b"2")


def holes_that_begin_alike(server: StreamTestServer) -> None:
    server.on(Hex("01 ??")).reply(b"1")
    server.on(Hex("?? 02 03")).reply(b"2")


def a_reference(server: StreamTestServer) -> None:
    server.on(Hex("00 <tid:2>")).reply(b"1")
    server.on(Hex(r"01 \g<tid>")).reply(b"2")


def a_script_with_a_pattern(server: StreamTestServer) -> None:
    server.script().send(b"hi").expect(re.compile(rb"PING\r\n"))


def a_script_that_repeats_a_predicate(server: StreamTestServer) -> None:
    script = Script().expect(is_ping)
    server.script().send(b"hi").repeat(2, script)


DEPENDS = "on a stream without frames what it matches would depend on how the bytes arrive; give the server a framing="
WHICH = (
    "on a stream without frames which of them is meant would depend on how the bytes arrive; give the server a framing="
)
SCRIPT = (
    "on a stream without frames what a pattern or a predicate matches would depend on how the bytes arrive; "
    "give the server a framing=, or use expect_line()"
)
PREDICATE = f"the predicate is_ping ({FILE}:{is_ping.__code__.co_firstlineno})"

UNFRAMED: list[tuple[Callable[[StreamTestServer], None], str, str]] = [
    (
        a_pattern,
        r"on() expected bytes, not the pattern rb'PING\r\n': " + DEPENDS + r", lines(b'\r\n') for example",
        r'server.on(re.compile(rb"PING\r\n")).reply(b"+PONG\r\n")',
    ),
    (
        a_predicate,
        f"on() expected bytes, not {PREDICATE}: " + DEPENDS + r", lines(b'\r\n') for example",
        r'server.on(is_ping).reply(b"+PONG\r\n")',
    ),
    (
        anything,
        "on() expected bytes, not ANY: " + DEPENDS + r", lines(b'\r\n') for example",
        r'server.on(ANY).reply(b"+PONG\r\n")',
    ),
    (
        literals_that_begin_alike,
        "on(b'PI') and rule 1 (LINE-1), on(b'PING'), begin alike: " + WHICH,
        'server.on(b"PI").reply(b"2")',
    ),
    (
        holes_that_begin_alike,
        "on(Hex(r'?? 02 03')) and rule 1 (LINE-1), on(Hex(r'01 ??')), begin alike: " + WHICH,
        'server.on(Hex("?? 02 03")).reply(b"2")',
    ),
    (
        a_reference,
        r"on() cannot compare Hex(r'01 \g<tid>') on a stream without frames: give the server a framing=",
        r'server.on(Hex(r"01 \g<tid>")).reply(b"2")',
    ),
    (
        a_script_with_a_pattern,
        r"expect() expected bytes, not the pattern rb'PING\r\n': " + SCRIPT,
        r'server.script().send(b"hi").expect(re.compile(rb"PING\r\n"))',
    ),
    (
        a_script_that_repeats_a_predicate,
        f"expect() expected bytes, not {PREDICATE}: " + SCRIPT,
        "script = Script().expect(is_ping)",
    ),
]


@pytest.mark.parametrize(("declare", "said", "line"), UNFRAMED)
def test_what_needs_a_framing_is_an_error_when_a_connection_comes(
    tcp_server: StreamTestServer, declare: Callable[[StreamTestServer], None], said: str, line: str
) -> None:
    declare(tcp_server)

    with tcp_server.raises(TypeError) as caught:
        assert reset_or_end(tcp_server, b"PING\r\n") == b"(reset)"

    assert before(caught.value) == said
    assert last_line(caught.value) == line
    assert tcp_server.connections[0].sent == b""


@pytest.mark.parametrize(("declare", "said", "line"), UNFRAMED)
def test_what_needs_a_framing_is_an_error_at_the_first_wait(
    tcp_server: StreamTestServer, declare: Callable[[StreamTestServer], None], said: str, line: str
) -> None:
    declare(tcp_server)

    for wait in (tcp_server.wait_for, tcp_server.next_request, tcp_server.wait_connection):
        with pytest.raises(TypeError) as caught:
            wait()

        assert before(caught.value) == said
        assert last_line(caught.value) == line
    tcp_server.clear()


@pytest.mark.parametrize("declare", [each for each, _, _ in UNFRAMED])
def test_what_needs_a_framing_is_no_error_with_one(
    sockserver: SockServer, declare: Callable[[StreamTestServer], None]
) -> None:
    server = sockserver.tcp(name="server")
    declare(server)
    server.framing = lines(b"\r\n")

    with pytest.raises(TimeoutError):
        server.wait_connection(timeout=0.01)

    server.clear()


def before(error: BaseException | None) -> str:
    """Return the text of an exception with the line before the one that it points at as ``LINE-1``."""
    assert error is not None
    here, at = 0, error.__traceback__
    while at is not None:
        here = at.tb_lineno if at.tb_frame.f_code.co_filename == __file__ else here
        at = at.tb_next
    return str(error).replace(f"{FILE}:{here - 1}", "LINE-1")


# Reply functions, which are known to be wrong once they have returned


def forgets(request: bytes) -> None:
    request.upper()


def text_instead(request: bytes) -> str:
    return request.decode()


def number(request: bytes) -> list[int]:
    return [len(request)]


FUNCTIONS: list[tuple[Callable[[Any], Any], str]] = [
    (
        forgets,
        f"the function forgets ({FILE}:{forgets.__code__.co_firstlineno}) returned None: "
        "return the bytes of the reply, a list of replies, or () for no reply",
    ),
    (
        text_instead,
        f"the function text_instead ({FILE}:{text_instead.__code__.co_firstlineno}) expected bytes, "
        "not the text 'PING': write b'PING', or encode it",
    ),
    (
        number,
        f"the function number ({FILE}:{number.__code__.co_firstlineno}) expected bytes, not 4",
    ),
]


@pytest.mark.parametrize(("function", "said"), FUNCTIONS)
def test_a_reply_function_that_returns_no_parts_fails_at_its_def(
    tcp_server: StreamTestServer, udp_server: DatagramTestServer, function: Callable[[Any], Any], said: str
) -> None:
    tcp_server.on(b"PING").reply(function)
    udp_server.on(b"PING").reply(function)

    with tcp_server.raises(TypeError) as stream:
        assert reset_or_end(tcp_server, b"PING") == b"(reset)"
    with udp_server.raises(TypeError) as datagram, datagram_client(udp_server) as client:
        client.sendall(b"PING")

    assert str(stream.value) == str(datagram.value) == said
    definition = f"def {function.__name__}"
    assert last_line(stream.value).startswith(definition)
    assert last_line(datagram.value).startswith(definition)


def test_a_part_that_turns_out_too_short_to_be_cut_fails_at_the_connection(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"PING").reply(Cut(lambda request: b"abc", 5))

    with tcp_server.raises(ValueError) as caught:
        reset_or_end(tcp_server, b"PING")

    assert str(caught.value) == "Cut() was to say 5 bytes, and there were only 3"
