"""What the user's own generators and functions do without an end is an error, and nothing spins on.

Each test is bounded by the client's time-out; that no thread is left is the leak guard's business (leak_guard.py).
"""

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from pytest_sockserver import (
    ANY,
    EOF,
    Close,
    Connection,
    DatagramTestServer,
    Delay,
    Drip,
    Part,
    Request,
    Script,
    StreamTestServer,
    Text,
    lines,
    sans_io,
)
from pytest_sockserver.faults import Append, Corrupt, Hold, Prepend, Repeat
from pytest_sockserver.scripting.framing import EMPTY_NEEDS, Cutter, checked_framing
from pytest_sockserver.scripting.parts import actions, parts_of
from pytest_sockserver.scripting.script_cursor import Agenda

MAX_FRAME = 1 << 20
Framing = Callable[[], Generator[Any, bytes, object]]


def ask(server: StreamTestServer, data: bytes) -> bytes:
    """Say something; return all that comes."""
    said = b""
    with socket.create_connection(server.address, 5) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                said += data
        except TimeoutError:
            raise
        except OSError:  # to shut down what was reset is ENOTCONN
            said += b"(reset)"
    return said


def line_of(error: BaseException, name: str) -> int:
    """Return the line at which an error left the function of that name."""
    at, found = error.__traceback__, 0
    while at is not None:
        found = at.tb_lineno if at.tb_frame.f_code.co_name == name else found
        at = at.tb_next
    return found


# Framings


def chunked() -> Generator[Any, bytes, None]:
    """A slip that is easily made: no end at the chunk of size 0."""
    while True:
        size = yield b"\r\n"
        while True:
            yield int(size)


def zeros() -> Generator[Any, bytes, None]:
    while True:
        yield 0


def ends_again() -> Generator[Any, bytes, None]:
    while True:
        yield EOF


def ends_and_zeros() -> Generator[Any, bytes, None]:
    yield 1
    while True:
        yield EOF
        yield 0


def inner() -> Generator[Any, bytes, None]:
    while True:
        yield 0


def outer() -> Generator[Any, bytes, None]:
    yield 1
    yield from inner()


def stubborn() -> Generator[Any, bytes, None]:
    while True:
        try:
            yield 0
        except ValueError:
            pass


def text(framing: Framing, line: int, need: str = "0") -> str:
    return (
        f"framing {framing.__qualname__} makes no progress: its yield (test_no_progress.py:{line}) took no byte 65,536 "
        f"times in a row, the last time it yielded {need}; write return where the frame is whole"
    )


@pytest.mark.parametrize(("framing", "ahead"), [(zeros, 3), (stubborn, 4)])
def test_framing_that_yields_0_for_ever_is_refused_where_it_is_declared(
    framing: Framing, ahead: int, tcp_server: StreamTestServer
) -> None:
    began = time.thread_time()
    with pytest.raises(ValueError) as caught:
        tcp_server.framing = framing

    assert str(caught.value) == text(framing, framing.__code__.co_firstlineno + ahead - 1)  # type: ignore[attr-defined]
    assert time.thread_time() - began < 2


@pytest.mark.parametrize(
    ("framing", "function", "ahead", "need", "data"),
    [
        (chunked, "chunked", 5, "0", b"0\r\n"),
        (ends_again, "ends_again", 2, "EOF", b"x"),
        (ends_and_zeros, "ends_and_zeros", 3, "EOF", b"xy"),
        (outer, "inner", 2, "0", b"x"),
    ],
)
def test_framing_that_makes_no_progress_fails_within_its_frame(
    framing: Framing, function: str, ahead: int, need: str, data: bytes, tcp_server: StreamTestServer
) -> None:
    tcp_server.framing = framing
    tcp_server.on(ANY).reply(b"never")

    with tcp_server.raises(ValueError) as caught:
        assert ask(tcp_server, data) == b"(reset)"

    line = globals()[function].__code__.co_firstlineno + ahead
    assert str(caught.value) in (text(framing, line, need), text(framing, line + 1, "0"))
    assert line_of(caught.value, function) in (line, line + 1)  # the traceback ends at the yield


@pytest.mark.parametrize("declare", ["frames", "script", "undeclared", "until"])
def test_it_is_an_error_wherever_frames_are_cut(declare: str, tcp_server: StreamTestServer) -> None:
    if declare == "frames":

        @tcp_server.handler
        def talk(connection: Connection) -> None:
            for _ in connection.frames(chunked):
                pass

    elif declare == "script":
        tcp_server.framing = chunked
        tcp_server.script().expect(ANY).send(b"never")
    elif declare == "until":
        tcp_server.script().rules(chunked)
        tcp_server.on(ANY).reply(b"never")
    else:
        tcp_server.framing = chunked

    with tcp_server.raises(ValueError, match="framing chunked makes no progress"):
        with socket.create_connection(tcp_server.address, 5) as client:
            client.sendall(b"0\r\n")
            if declare != "undeclared":
                with pytest.raises(ConnectionResetError):
                    client.recv(1)


def test_needs_of_no_byte_are_allowed_within_reason() -> None:
    def table() -> Generator[Any, bytes, None]:
        """A count of two bytes, and as many empty fields."""
        count = int.from_bytes((yield 2), "big")
        for _ in range(count):
            yield 0
        yield 1

    cutter = Cutter(table, MAX_FRAME)
    assert cutter.feed(b"\xff\xff.\0\0.") == [b"\xff\xff.", b"\0\0."]
    assert EMPTY_NEEDS >= 0xFFFF


def test_progress_begins_the_count_anew() -> None:
    def pairs() -> Generator[Any, bytes, None]:
        for _ in range(3):
            for _ in range(EMPTY_NEEDS):
                yield 0
            yield 1

    assert Cutter(pairs, MAX_FRAME).feed(b"abc") == [b"abc"]
    assert checked_framing(pairs, MAX_FRAME) is pairs


@pytest.mark.parametrize(
    ("need", "kind"),
    [(-1, ValueError), (b"", ValueError), (True, TypeError), (False, TypeError), (None, TypeError), ("x", TypeError)],
)
@pytest.mark.parametrize("first", [True, False])
def test_needs_that_are_none_are_refused(need: Any, kind: type[Exception], first: bool) -> None:
    def wrong() -> Generator[Any, bytes, None]:
        if not first:
            yield 1
        yield need

    expected = f"yielded {need!r}: expected a number of bytes, a delimiter (bytes) or EOF"
    with pytest.raises(kind, match=re.escape(expected)):
        if first:
            checked_framing(wrong, MAX_FRAME)
        else:
            Cutter(wrong, MAX_FRAME).feed(b"abc")


def test_framing_that_returns_without_a_byte_is_an_error() -> None:
    def nothing() -> Generator[Any, bytes, None]:
        yield from ()

    def sometimes() -> Generator[Any, bytes, None]:
        yield 0

    for framing in (nothing, sometimes):
        with pytest.raises(ValueError) as caught:
            checked_framing(framing, MAX_FRAME)
        assert str(caught.value) == (
            f"framing {framing.__qualname__} took nothing: a frame has at least one byte; "
            f"at test_no_progress.py:{framing.__code__.co_firstlineno} yield its size, its delimiter, or EOF"
        )


def test_parser_that_uses_nothing_is_an_error(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = sans_io(lambda: len)  # each message is over before it begins

    with tcp_server.raises(ValueError, match=r"framing sans_io\(.*\) took nothing: a frame has at least one byte$"):
        tcp_server.on(ANY).reply(b"never")
        ask(tcp_server, b"x")


# What a reply function returns


def nothing_for_ever(request: Request) -> Iterator[bytes]:
    while True:
        yield b""


def pauses_for_ever(request: Request) -> Iterator[Delay]:
    while True:
        yield Delay(0)


def empty(request: Request) -> tuple[()]:
    return ()


def functions_for_ever(request: Request) -> Iterator[Any]:
    return itertools.repeat(empty)


def itself(request: Request) -> Any:
    return itself


def echo_and_itself(request: Request) -> Any:
    return [b".", echo_and_itself]


NO_PROGRESS = (
    r"the function {} \(test_no_progress.py:\d+\) makes no progress: it came to 10,000 parts in a row without a byte; "
    r"return, or write Stall\(\) to stay silent"
)


@pytest.mark.parametrize("within", [None, Append, Prepend, Corrupt, Drip, Repeat, Hold])
@pytest.mark.parametrize("function", [nothing_for_ever, pauses_for_ever, functions_for_ever])
def test_function_that_says_nothing_for_ever_is_an_error(
    function: Any, within: Any, tcp_server: StreamTestServer
) -> None:
    extra = {Append: (b"x",), Prepend: (b"x",), Corrupt: (0,), Drip: (0,), Repeat: (None,)}.get(within, ())
    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(function if within is None else within(function, *extra))

    with tcp_server.raises(ValueError, match=NO_PROGRESS.format(function.__name__)):
        assert ask(tcp_server, b"hello\n").endswith(b"(reset)")


@pytest.mark.parametrize("function", [nothing_for_ever, pauses_for_ever, functions_for_ever])
def test_on_datagrams_too(function: Any, udp_server: DatagramTestServer) -> None:
    udp_server.on(ANY).reply(function)

    with udp_server.raises(ValueError, match=NO_PROGRESS.format(function.__name__)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", udp_server.address)


def test_handler_of_datagrams_that_returns_parts_for_ever(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    def chatter(request: Request) -> Iterator[bytes]:
        return itertools.repeat(b"x")

    with udp_server.raises(ValueError, match=r"handler .*chatter returned more than 10,000 parts: expected a reply"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", udp_server.address)


@pytest.mark.parametrize(("function", "said"), [(itself, b""), (echo_and_itself, b"." * 50)])
def test_function_that_returns_itself_is_an_error(function: Any, said: bytes, tcp_server: StreamTestServer) -> None:
    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(function)

    text = rf"the function {function.__name__} \(.*\) was returned through 50 functions: one that returns itself has no"
    with tcp_server.raises(ValueError, match=text):
        ask(tcp_server, b"hello\n")
    assert tcp_server.connections[0].sent == said


def test_functions_may_return_functions(tcp_server: StreamTestServer) -> None:
    def nested(depth: int) -> Any:
        return lambda request: nested(depth - 1) if depth else [b"", Delay(0), Text(r"there\n"), Close()]

    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(nested(20))

    assert ask(tcp_server, b"hello\n") == b"there\n"


def test_stream_that_is_said_for_ever_is_none_of_this(tcp_server: StreamTestServer) -> None:
    """It makes progress: it ends when the client is gone."""
    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(lambda request: itertools.repeat(b"x"))

    with socket.create_connection(tcp_server.address, 5) as client:
        client.sendall(b"hello\n")
        assert client.recv(1) == b"x"


# Repetition


@pytest.mark.parametrize("said", [(), [b"", b""], Delay(0), lambda request: ()])
def test_repetition_of_nothing_ends(said: Any) -> None:
    def function(request: None) -> Any:
        return said

    def call(function: Any) -> Iterator[Part]:
        return parts_of(function(None), "function")

    done = 0
    with pytest.raises(ValueError, match=r"Repeat\(\) makes no progress: it came to 10,000 parts in a row"):
        for _ in actions([Repeat(function, times=10**18)], call, lambda name: b""):
            done += 1
    assert done == 10_000
    assert len(list(actions([Repeat(function, times=9)], call, lambda name: b""))) <= 9 * 3


@pytest.mark.parametrize(
    "script", [Script().send(b""), Script().send(), Script().open_gate("gate"), Script().open_gate("a").send(b"")]
)
def test_script_that_does_nothing_is_not_repeated(script: Script) -> None:
    with pytest.raises(ValueError, match=r"repeat\(\) expected a script that sends or takes something"):
        Script().repeat(10**9, script)


def test_optional_steps_may_be_repeated_as_often_as_one_likes(tcp_server: StreamTestServer) -> None:
    noop = Script().maybe(b"NOOP\r\n", b"250 ok\r\n")
    script = tcp_server.script().repeat(10**9, noop).expect(b"QUIT\r\n").send(b"221 bye\r\n").close()

    assert ask(tcp_server, b"NOOP\r\n" * 3 + b"QUIT\r\n") == b"250 ok\r\n" * 3 + b"221 bye\r\n"
    assert len(script.steps) == 4


def test_agenda_passes_over_a_repetition_whose_round_was_passed_over() -> None:
    inner = Script().maybe(b"a").repeat(5, Script().maybe(b"b").maybe(b"c"))
    steps = Script().repeat(10**9, inner).expect(b"z").steps
    agenda = Agenda(steps)

    said = []
    while (item := agenda.now) is not None and item.step.verb == "maybe":
        said.append(item.step.steps[0].args[0])
        agenda.pass_over()
    assert said == [b"a", b"b", b"c"]
    assert agenda.now is not None
    assert agenda.now.step.args == (b"z",)

    agenda.look_again()  # chatter was answered meanwhile: all of them may come
    agenda.pass_over()
    assert agenda.took().step.steps[0].args == (b"b",)  # taken in its first round
    agenda.took()  # its reply, of no part
    left = []
    while (item := agenda.now) is not None and item.step.verb == "maybe":
        left.append(item.step.steps[0].args[0])
        agenda.pass_over()
    # The rest of that round, and one further round of each of the two; these bring nothing, and are the last.
    assert left == [b"c", b"b", b"c", b"a", b"b", b"c"]
