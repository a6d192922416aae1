"""The reading and expecting verbs of a connection, over real sockets."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from itertools import pairwise
from time import monotonic, thread_time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sockserver import (
    ANY,
    Connection,
    DeadlineExceeded,
    Delay,
    EndOfStream,
    Gate,
    IncompleteRequest,
    ScriptMismatch,
    SockServer,
    Stall,
    StreamTestServer,
)

from . import insides
from .peers import (
    PATIENCE,
    Talk,
    connect,
    place,
    read_to_end,
    reset,
    until,
    untimed,
)


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


@pytest.fixture
def talk(tcp_server: StreamTestServer) -> Any:
    with Talk(tcp_server) as talk:
        yield talk


# Any segmentation

DATA = st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n", b"ab\r\n"]), max_size=12).map(b"".join)

VERBS: dict[str, Callable[[Connection], Any]] = {
    "recv_exactly": lambda conn: conn.recv_exactly(5),
    "recv_until": lambda conn: conn.recv_until(b"\r\n"),
    "recv_until max_bytes": lambda conn: conn.recv_until(b"ab", max_bytes=5),
    "recv_line": lambda conn: conn.recv_line(),
    "recv_line max_bytes": lambda conn: conn.recv_line(max_bytes=4),
    "recv_all": lambda conn: conn.recv_all(),
    "expect": lambda conn: conn.expect(b"ab\r\n"),
    "expect_line": lambda conn: conn.expect_line(re.compile(rb"[ab]+")),
    "expect_line longer than max_frame": lambda conn: conn.expect_line(),
    "expect_eof": lambda conn: conn.expect_eof(),
}


def came_of(verb: Callable[[Connection], Any], server: StreamTestServer, segments: list[bytes]) -> tuple[Any, ...]:
    """Perform a verb while a client sends these segments, each received before the next is sent, and then ends."""
    server.clear()
    with Talk(server) as talk:
        conn, came = talk.conn, []

        def perform() -> None:
            try:
                came.append(("returned", verb(conn)))
            except (EndOfStream, ScriptMismatch) as error:
                came.append((type(error).__name__, None))

        reading = threading.Thread(target=perform)
        reading.start()
        count = 0
        for segment in segments:
            talk.client_says(segment)
            count += len(segment)
            until(lambda want=count: came or conn.received_count == want)
            if came:
                break
        talk.client_ends()
        reading.join(PATIENCE)
        assert not reading.is_alive()
        return (*came[0], conn.requests)


@pytest.mark.parametrize("name", VERBS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=DATA, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_a_verb_does_the_same_however_the_bytes_arrive(
    sockserver: SockServer, name: str, data: bytes, cuts: list[int]
) -> None:
    server = sockserver.servers[0] if sockserver.servers else sockserver.tcp(max_frame=8)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    whole = came_of(VERBS[name], server, [data] if data else [])

    assert came_of(VERBS[name], server, [data[a:b] for a, b in pairwise(places)]) == whole
    assert came_of(VERBS[name], server, [data[i : i + 1] for i in range(len(data))]) == whole


def test_units_that_arrive_in_one_burst_are_taken_one_by_one(talk: Talk) -> None:
    talk.client_says(b"PING\r\n\x00\x03abcrest;x\n")
    talk.client_ends()

    conn = talk.conn
    taken = [
        conn.expect(b"PING\r\n"),
        conn.recv_exactly(2),
        conn.recv_exactly(3),
        conn.recv_until(b";"),
        conn.expect_line(b"x"),
    ]

    assert taken == [b"PING\r\n", b"\x00\x03", b"abc", b"rest;", b"x\n"]
    assert conn.requests == taken
    conn.expect_eof()


LINES: dict[str, Callable[[Connection], Any]] = {
    "recv_line": lambda conn: conn.recv_line(),
    "recv_until": lambda conn: conn.recv_until(b"\r\n"),
    "recv_all": lambda conn: conn.recv_all(),
}


@pytest.mark.parametrize("name", LINES)
def test_a_unit_read_byte_by_byte_costs_the_same_for_each_byte_however_long_it_is(
    tcp_server: StreamTestServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("pytest_sockserver.transport.stream.CHUNK", 1)
    spent: list[float] = []

    @tcp_server.handler
    def read(conn: Connection) -> None:
        began = thread_time()
        LINES[name](conn)
        spent.append(thread_time() - began)

    def per_byte(size: int) -> float:
        spent.clear()
        with connect(tcp_server) as client:
            client.sendall(b"x" * (size - 2) + b"\r\n")
            client.shutdown(socket.SHUT_WR)
            until(lambda: spent)
        tcp_server.clear()
        tcp_server.handler(read)
        return spent[0] / size

    short = min(per_byte(10_000) for _ in range(3))

    assert per_byte(100_000) < 3 * short


# recv


def test_recv_returns_what_has_come_and_is_no_request(talk: Talk) -> None:
    talk.client_says(b"hello")

    assert talk.conn.recv(2) == b"he"
    assert talk.conn.recv() == b"llo"
    assert talk.conn.requests == []
    assert talk.conn.received == b"hello"


def test_recv_tells_the_end_once_and_then_raises(talk: Talk) -> None:
    talk.client_ends()

    assert talk.conn.recv() == b""
    with pytest.raises(EndOfStream) as raised:
        talk.conn.recv()

    assert str(raised.value) == f"{talk.where}: expected more, but the client ended its stream"
    assert not isinstance(raised.value, IncompleteRequest)


def test_no_bytes_are_there_at_once(talk: Talk) -> None:
    """A length prefix may say 0."""
    assert talk.conn.recv_exactly(0) == b""


def test_recv_all_returns_all_as_one_request(talk: Talk) -> None:
    talk.client_says(b"one\n")
    talk.client_says(b"two\n")
    talk.client_ends()

    assert talk.conn.recv_all() == b"one\ntwo\n"
    assert talk.conn.requests == [b"one\ntwo\n"]


def test_recv_all_of_nothing_is_no_request(talk: Talk) -> None:
    talk.client_ends()

    assert talk.conn.recv_all() == b""
    assert talk.conn.requests == []


# The end of the stream

UNITS: list[Callable[[Connection], Any]] = [
    lambda conn: conn.recv_exactly(9),
    lambda conn: conn.recv_until(b";"),
    lambda conn: conn.recv_line(),
]


@pytest.mark.parametrize("verb", UNITS)
def test_the_end_where_a_unit_would_begin_is_endofstream(talk: Talk, verb: Callable[[Connection], Any]) -> None:
    talk.client_ends()

    with pytest.raises(EndOfStream) as raised:
        verb(talk.conn)

    assert type(raised.value) is EndOfStream
    assert str(raised.value).startswith(f"{talk.where}: expected ")
    assert str(raised.value).endswith(", but the client ended its stream")


def test_the_end_within_a_unit_is_incomplete_and_holds_the_conversation(talk: Talk) -> None:
    talk.client_says(b"one\r\nhal")
    talk.client_ends()
    talk.conn.recv_line()
    talk.conn.send(b"ok\r\n")

    with pytest.raises(IncompleteRequest) as raised:
        talk.conn.recv_line()

    assert untimed(str(raised.value)) == (
        f"{talk.where}: expected bytes through b'\\n'\n"
        "  got b'hal', and then the client ended its stream\n"
        "    C: one\n"
        "    C- hal\n"
        "    S: ok\n"
        "    C! eof"
    )


def test_a_reset_within_a_unit_is_told_from_an_end(talk: Talk) -> None:
    talk.client_says(b"hal")
    talk.conn.wait_received(b"hal")
    reset(talk.client)

    with pytest.raises(IncompleteRequest) as raised:
        talk.conn.recv_line()

    assert untimed(str(raised.value)) == (
        f"{talk.where}: expected bytes through b'\\n'\n"
        "  got b'hal', and then the client reset the connection\n"
        "    C- hal\n"
        "    C! reset"
    )


def test_a_reset_where_a_unit_would_begin_says_so(talk: Talk) -> None:
    reset(talk.client)

    with pytest.raises(EndOfStream) as raised:
        talk.conn.recv_line()

    assert str(raised.value) == f"{talk.where}: expected bytes through b'\\n', but the client reset the connection"


def test_a_reset_is_no_end_for_recv_all(talk: Talk) -> None:
    """Half an upload is no request."""
    talk.client_says(b"half an upload")
    talk.conn.wait_received(b"half an upload")
    reset(talk.client)

    with pytest.raises(IncompleteRequest):
        talk.conn.recv_all()

    assert talk.conn.requests == []


def test_a_reset_is_no_end_for_expect_eof(talk: Talk) -> None:
    """``C! eof`` and ``C! reset`` are two things."""
    reset(talk.client)

    with pytest.raises(ScriptMismatch):
        talk.conn.expect_eof()


@pytest.mark.parametrize("verb", UNITS)
def test_the_end_between_units_ends_a_handler_quietly(tcp_server: StreamTestServer, verb: Any) -> None:
    ended = []

    @tcp_server.handler
    def read(conn: Connection) -> None:
        try:
            while True:
                verb(conn)
        finally:
            ended.append(True)

    with connect(tcp_server) as client:
        client.sendall(b"8 bytes;" if verb is UNITS[1] else b"8 bytes \n")
    tcp_server.wait_connection().wait_closed()
    until(lambda: ended)

    tcp_server.verify()


def test_the_end_within_a_unit_fails_a_handler(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lambda conn: conn.recv_line())

    with connect(tcp_server) as client:
        client.sendall(b"half")

    with pytest.raises(IncompleteRequest):
        tcp_server.wait_connection().wait_closed()
        tcp_server.verify()


def test_a_client_that_is_gone_ends_a_sending_handler_quietly(server: StreamTestServer) -> None:
    @server.handler
    def talk_for_ever(conn: Connection) -> None:
        while True:
            conn.send(b"x" * 1000)

    with connect(server) as client:
        client.recv(1)
    conn = server.wait_connection()
    conn.wait_closed()

    server.verify()
    assert [event.kind for event in conn.events if event.kind not in ("sent", "unsent")] == ["client-reset", "close"]


# expect


def test_expect_fails_at_the_first_wrong_byte_without_waiting_for_the_rest(talk: Talk) -> None:
    talk.client_says(b"PI")

    with pytest.raises(ScriptMismatch) as raised:
        talk.conn.expect(b"PONG\r\n")

    assert untimed(str(raised.value)) == (
        f"{talk.where}: expected b'PONG\\r\\n'\n"
        "  got b'PI' (differs at byte 1: b'I' is not b'O')\n"
        "    C- PI"
    )  # fmt: skip


def test_expect_of_a_line_returns_it_with_its_ending_and_its_match(talk: Talk) -> None:
    talk.client_says(b"EHLO me\r\n")

    line = talk.conn.expect_line(re.compile(rb"EHLO (\w+)"))

    assert line == b"EHLO me\r\n"
    assert line.match is not None
    assert line.match[1] == b"me"
    assert line.connection is talk.conn
    assert line.peer == talk.client.getsockname()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_expect_of_a_line_matches_it_without_its_ending(talk: Talk, ending: bytes) -> None:
    talk.client_says(b"QUIT" + ending)

    assert talk.conn.expect_line(b"QUIT") == b"QUIT" + ending


def test_expect_of_a_line_by_a_predicate_names_the_predicate(talk: Talk) -> None:
    def is_digit(line: bytes) -> bool:
        return line.isdigit()

    talk.client_says(b"one\r\n")

    with pytest.raises(ScriptMismatch) as raised:
        talk.conn.expect_line(is_digit)

    assert untimed(str(raised.value)) == (
        f"{talk.where}: expected a line matching the predicate is_digit "
        f"(test_connection.py:{is_digit.__code__.co_firstlineno})\n"
        "  got b'one\\r\\n'\n"
        "    C: one"
    )


def test_expect_of_the_end_fails_on_bytes(talk: Talk) -> None:
    talk.client_says(b"more")

    with pytest.raises(ScriptMismatch) as raised:
        talk.conn.expect_eof()

    assert untimed(str(raised.value)) == (
        f"{talk.where}: expected the end of the stream\n  got b'more'\n    C- more"
    )  # fmt: skip


@pytest.mark.parametrize(
    "verb",
    [lambda conn: conn.expect(b"a"), lambda conn: conn.expect_eof(), lambda conn: conn.recv_until(b"\n", max_bytes=1)],
)
def test_a_mismatch_fails_a_handler_and_is_an_assertionerror(tcp_server: StreamTestServer, verb: Any) -> None:
    tcp_server.handler(lambda conn: verb(conn) and None)

    with connect(tcp_server) as client:
        client.sendall(b"xx")
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    with pytest.raises(AssertionError) as raised:
        tcp_server.verify()
    assert isinstance(raised.value, ScriptMismatch)


# Deadlines


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        (lambda conn: conn.recv(timeout=0.05), "recv() waited 0.05 s, and nothing came"),
        (lambda conn: conn.recv_line(timeout=0.05), "recv_line() waited 0.05 s, and nothing came"),
        (lambda conn: conn.expect(b"a", timeout=0.05), "expected b'a' within 0.05 s\n  got nothing"),
        (
            lambda conn: conn.expect_line(b"a", timeout=0.05),
            "expected a line matching b'a' within 0.05 s\n  got nothing",
        ),
        (lambda conn: conn.expect_eof(timeout=0.05), "expected the end of the stream within 0.05 s\n  got nothing"),
        (lambda conn: conn.expect_reset(timeout=0.05), "expected a reset within 0.05 s\n  got nothing"),
    ],
    ids=["recv", "recv_line", "expect", "expect_line", "expect_eof", "expect_reset"],
)
def test_a_test_waits_for_everything_with_a_deadline(talk: Talk, verb: Any, text: str) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        verb(talk.conn)

    assert str(raised.value) == f"{talk.where}: {text}\n    nothing was said so far"
    assert isinstance(raised.value, TimeoutError)


def test_a_deadline_within_a_unit_says_what_has_come_and_takes_nothing(talk: Talk) -> None:
    talk.client_says(b"hal")

    with pytest.raises(DeadlineExceeded) as raised:
        talk.conn.recv_line(timeout=0.05)

    assert untimed(str(raised.value)) == f"{talk.where}: recv_line() waited 0.05 s\n  got b'hal'\n    C- hal"
    talk.client_says(b"f\n")
    assert talk.conn.recv_line() == b"half\n"


def test_the_servers_timeout_is_that_of_the_tests_verbs(sockserver: SockServer) -> None:
    with Talk(sockserver.tcp(timeout=0.05)) as talk, pytest.raises(DeadlineExceeded) as raised:
        talk.conn.recv()

    assert str(raised.value) == f"{talk.where}: recv() waited 0.05 s, and nothing came\n    nothing was said so far"


def test_a_handler_waits_for_the_start_of_a_unit_without_a_deadline_and_for_its_rest_with_one(
    sockserver: SockServer,
) -> None:
    server = sockserver.tcp(timeout=0.2)
    server.handler(lambda conn: conn.send(conn.recv_line()))

    with connect(server) as quiet, connect(server) as half:
        until(lambda: len(server.connections) == 2)
        began = monotonic()
        half.sendall(b"half")
        with pytest.raises(ConnectionResetError):
            half.recv(1)
        assert 0.2 <= monotonic() - began < 2
        assert repr(server.connections[0]) == f"<Connection 0 from {place(quiet)}, open>"
        quiet.sendall(b"whole\n")
        assert read_to_end(quiet) == b"whole\n"

    with pytest.raises(DeadlineExceeded, match=r"recv_line\(\) waited 0.2 s"):
        server.verify()


def test_a_handlers_expect_has_a_deadline_from_the_start(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.1)
    server.handler(lambda conn: conn.expect(b"PING") and None)

    with pytest.raises(ConnectionResetError), connect(server) as client:
        client.recv(1)

    with pytest.raises(DeadlineExceeded, match=r"expected b'PING' within 0.1 s\n  got nothing"):
        server.verify()


def test_send_to_a_client_that_does_not_read_has_a_deadline(server: StreamTestServer) -> None:
    client = connect(server)
    conn = server.accept()

    with client, pytest.raises(DeadlineExceeded) as raised:
        conn.send(b"x" * 50_000_000, timeout=0.1)

    assert str(raised.value).partition("\n")[0] == (
        f"{insides.where(conn)}: send() waited 0.1 s: the client does not read, "
        "and the kernel takes no more of the 50,000,000 bytes"
    )
    assert 0 < conn.sent_count < 50_000_000
    assert len(conn.sent) == conn.sent_count


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.recv(0), ValueError, "recv() expected a number of bytes above 0, not 0"),
        (lambda c: c.recv("5"), TypeError, "recv() expected a number of bytes above 0, not '5'"),
        (lambda c: c.recv_exactly(-1), ValueError, "recv_exactly() expected a number of bytes, 0 or more, not -1"),
        (lambda c: c.recv_exactly(True), TypeError, "recv_exactly() expected a number of bytes, 0 or more, not True"),
        (lambda c: c.recv_until("\n"), TypeError, "recv_until() expected bytes, not the text '\\n': write b'\\n'"),
        (lambda c: c.recv_until(b""), ValueError, "recv_until() expected a delimiter of at least one byte"),
        (lambda c: c.recv_until(7), TypeError, "recv_until() expected bytes, not 7"),
        (lambda c: c.recv_line(max_bytes=0), ValueError, "max_bytes must be at least 1, not 0"),
        (lambda c: c.recv_until(b"\n", max_bytes="9"), TypeError, "max_bytes must be at least 1, not '9'"),
        (lambda c: c.expect("PING"), TypeError, "expect() expected bytes, not the text 'PING': write b'PING'"),
        (lambda c: c.expect(b""), ValueError,
         "expect() expected at least one byte; the end of the stream is expect_eof()"),
        (lambda c: c.expect(ANY), TypeError,
         "expect() expected bytes, not ANY: on a stream without frames what a pattern or a predicate matches would "
         "depend on how the bytes arrive; give the server a framing=, or use expect_line()"),
        (lambda c: c.expect_line("PING"), TypeError, "expected bytes, not the text 'PING': write b'PING'"),
        (lambda c: c.send("hi"), TypeError, "send() expected bytes, not the text 'hi': write b'hi', or encode it"),
        (lambda c: c.send(b"hi", None), TypeError, "send() expected bytes, not None"),
        (lambda c: c.recv(timeout=0), ValueError, "timeout must be above 0 seconds, not 0"),
        (lambda c: c.recv_line(timeout=-1), ValueError, "timeout must be above 0 seconds, not -1"),
        (lambda c: c.expect(b"a", timeout="5"), TypeError, "timeout must be above 0 seconds, not '5'"),
        (lambda c: c.send(b"a", timeout=float("nan")), ValueError, "timeout must be above 0 seconds, not nan"),
        (lambda c: c.wait_closed(timeout=float("inf")), ValueError, "timeout must be above 0 seconds, not inf"),
        (lambda c: c.wait_received(b"", timeout=1), ValueError,
         "wait_received() expected at least one byte; the end of the stream is expect_eof()"),
        (lambda c: c.start_tls(None, timeout=-5), ValueError, "timeout must be above 0 seconds, not -5"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_at_once(
    talk: Talk, call: Callable[[Connection], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        call(talk.conn)

    assert str(raised.value) == message
    assert type(raised.value) is error
    talk.client_says(b"still usable\n")
    assert talk.conn.recv_line() == b"still usable\n"


@pytest.mark.parametrize("wait", [Stall(), Gate("never"), Delay(30)], ids=repr)
@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_an_end_from_outside_ends_a_driver_that_waits_for_no_socket(
    tcp_server: StreamTestServer, wait: Any, reset: bool
) -> None:
    tcp_server.on(b"x").reply(b"y", wait)
    with connect(tcp_server) as client:
        client.sendall(b"x")
        assert client.recv(10) == b"y"
        conn = tcp_server.connections[0]

        tcp_server.disconnect(reset=reset)

        until(lambda: insides.is_done(conn))
