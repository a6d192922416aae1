"""The verbs of a connection, over real sockets: reading, expecting, sending, ending, TLS."""

from __future__ import annotations

import re
import socket
import ssl
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
    EndOfStream,
    IncompleteRequest,
    Request,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    WrongState,
)

from .peers import PATIENCE, connect, place, read_exactly, read_to_end, reset, tls_contexts, until


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


class Talk:
    """A client and the connection that the test has accepted from it."""

    def __init__(self, server: StreamTestServer) -> None:
        self.client = connect(server)
        self.conn = server.accept()
        self.where = f"{server.name}, connection {self.conn.index} ({place(self.client)})"

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def client_says(self, data: bytes) -> None:
        self.client.sendall(data)

    def client_ends(self) -> None:
        self.client.shutdown(socket.SHUT_WR)


@pytest.fixture
def talk(tcp_server: StreamTestServer) -> Any:
    with Talk(tcp_server) as talk:
        yield talk


def untimed(message: str) -> str:
    """Take the times off the lines of a conversation."""
    return re.sub(r"\[\d+\.\d{3}\] ", "", message)


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
    monkeypatch.setattr("pytest_sockserver.stream.CHUNK", 1)
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

    name = "test_expect_of_a_line_by_a_predicate_names_the_predicate.<locals>.is_digit"
    assert untimed(str(raised.value)) == (
        f"{talk.where}: expected a line matching the predicate {name} "
        f"({__file__}:{is_digit.__code__.co_firstlineno})\n"
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
    ("name", "verb", "text"),
    [
        ("recv", lambda conn: conn.recv(timeout=0.05), ", and nothing came"),
        ("recv_line", lambda conn: conn.recv_line(timeout=0.05), ", and nothing came"),
        ("expect", lambda conn: conn.expect(b"a", timeout=0.05), ", and nothing came"),
        ("expect_eof", lambda conn: conn.expect_eof(timeout=0.05), ", and nothing came"),
    ],
)
def test_a_test_waits_for_everything_with_a_deadline(talk: Talk, name: str, verb: Any, text: str) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        verb(talk.conn)

    assert str(raised.value) == f"{talk.where}: {name}() waited 0.05 s{text}\n    nothing was said so far"
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

    with connect(server) as client, pytest.raises(ConnectionResetError):
        client.recv(1)

    with pytest.raises(DeadlineExceeded, match=r"expect\(\) waited 0.1 s, and nothing came"):
        server.verify()


def test_send_to_a_client_that_does_not_read_has_a_deadline(server: StreamTestServer) -> None:
    client = connect(server)
    conn = server.accept()

    with client, pytest.raises(DeadlineExceeded) as raised:
        conn.send(b"x" * 50_000_000, timeout=0.1)

    assert str(raised.value).partition("\n")[0] == (
        f"{conn._where()}: send() waited 0.1 s: the client does not read, "
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
         "depend on how the bytes arrive; use expect_line(), or recv_until() and an assertion"),
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


# One reader, many writers


def test_a_second_reader_is_refused(talk: Talk, tcp_server: StreamTestServer) -> None:
    line = tcp_server.in_thread(talk.conn.recv_line)
    until(talk.conn._reader.locked)

    with pytest.raises(WrongState) as raised:
        talk.conn.recv()

    assert str(raised.value) == "cannot recv() on connection 0: another thread is reading it"
    talk.client_says(b"hi\n")
    assert line.result(PATIENCE) == b"hi\n"


def test_reading_a_connection_that_nobody_accepted_is_refused(sockserver: SockServer) -> None:
    """The server's own thread reads it; a test that read as well would wait without a deadline for what that took."""
    server = sockserver.tcp(timeout=0.3)
    with connect(server):
        conn = server.wait_connection()
        reading = server.in_thread(conn.recv_line)

        error = reading.exception(2)

    assert isinstance(error, WrongState)


def test_sends_of_several_threads_are_not_mixed(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        size = 300_000
        sending = [server.in_thread(conn.send, letter * size) for letter in (b"a", b"b", b"c", b"d")]
        data = read_exactly(client, 4 * size)
        for each in sending:
            each.result(PATIENCE)

    assert len(re.findall(rb"a+|b+|c+|d+", data)) == 4


class Taken:
    """A client and its accepted connection, on any stream transport."""

    def __init__(self, server: StreamTestServer) -> None:
        self.server = server

    def __enter__(self) -> tuple[socket.socket, Connection]:
        self.client = connect(self.server)
        return self.client, self.server.accept()

    def __exit__(self, *error: object) -> None:
        self.client.close()


def test_the_test_may_push_while_a_handler_reads(server: StreamTestServer) -> None:
    server.handler(lambda conn: conn.send(b"reply to " + conn.recv_line()))
    with connect(server) as client:
        server.wait_connection().send(b"push\n")
        assert client.recv(100) == b"push\n"
        client.sendall(b"hi\n")
        assert read_to_end(client) == b"reply to hi\n"


def test_parts_leave_in_one_write(talk: Talk) -> None:
    talk.conn.send(b"one ", bytearray(b"two "), memoryview(b"three"))

    assert talk.client.recv(100) == b"one two three"
    assert [event.data for event in talk.conn.events if event.kind == "sent"] == [b"one two three"]


def test_a_request_is_answered_by_its_reply(talk: Talk) -> None:
    talk.client_says(b"hi\n")

    talk.conn.recv_line().reply(b"a", b"b")

    assert talk.client.recv(100) == b"ab"


def test_half_close_lets_the_client_go_on(talk: Talk) -> None:
    talk.conn.send(b"bye")
    talk.conn.send_eof()

    assert read_to_end(talk.client) == b"bye"
    talk.client_says(b"more\n")
    assert talk.conn.recv_line() == b"more\n"
    assert talk.conn.closed_by is None


# Ending


def test_close_lets_the_client_read_what_was_sent(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        conn.send(b"x" * 100_000)
        conn.close()

        assert read_to_end(client) == b"x" * 100_000
        assert conn.closed_by == "server"


def test_close_twice_is_close_once(talk: Talk) -> None:
    talk.conn.close()
    talk.conn.close()

    assert [event.kind for event in talk.conn.events] == ["close"]


def test_close_over_unread_input_is_no_reset(server: StreamTestServer) -> None:
    """Over unread input the kernel makes a close a reset, which destroys the reply on its way."""
    with Taken(server) as (client, conn):
        client.sendall(b"never read" * 1000)
        conn.send(b"reply")
        conn.close()

        assert read_to_end(client) == b"reply"


def test_a_handler_that_returns_closes_cleanly_over_unread_input(server: StreamTestServer) -> None:
    said = threading.Event()

    @server.handler
    def answer(conn: Connection) -> None:
        said.wait(PATIENCE)
        conn.send(b"reply")

    for _ in range(20):
        said.clear()
        with connect(server) as client:
            client.sendall(b"never read" * 1000)
            said.set()

            assert read_to_end(client) == b"reply"


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (lambda conn: conn.recv(), "read connection 0"),
        (lambda conn: conn.send(b"x"), "send on connection 0"),
        (lambda conn: conn.send_eof(), "send_eof on connection 0"),
        (lambda conn: conn.detach(), "detach connection 0"),
        (lambda conn: conn.start_tls(tls_contexts()[0]), "start_tls on connection 0"),
    ],
)
def test_a_verb_on_a_closed_connection_says_who_closed_it(talk: Talk, verb: Any, words: str) -> None:
    talk.conn.close()

    with pytest.raises(WrongState) as raised:
        verb(talk.conn)

    assert str(raised.value) == f"cannot {words}: it is closed (by the server)"


def test_reset_is_a_reset_after_what_was_sent(talk: Talk) -> None:
    talk.conn.send(b"half a repl")
    talk.conn.reset()

    assert talk.client.recv(100) == b"half a repl"
    with pytest.raises(ConnectionResetError):
        talk.client.recv(1)
    assert talk.conn.closed_by == "server"
    assert repr(talk.conn) == f"<Connection 0 from {place(talk.client)}, reset by the server>"


def test_reset_of_a_unix_stream_is_refused(unix_server: StreamTestServer) -> None:
    with Taken(unix_server) as (client, conn):
        with pytest.raises(ValueError) as raised:
            conn.reset()

        assert str(raised.value) == (
            "a unix stream cannot be reset: its client would see a plain end of stream; use close()"
        )
        conn.send(b"still open")
        assert client.recv(100) == b"still open"


def test_a_failing_handler_resets_its_client(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with connect(tcp_server) as client:
        client.sendall(b"hi\nunread")
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()


def test_a_failing_handler_ends_a_unix_client_plainly(unix_server: StreamTestServer) -> None:
    """A unix client reads ECONNRESET if there was unread input: whether it does would be a race."""
    read, go_on = [], threading.Event()

    @unix_server.handler
    def fail(conn: Connection) -> None:
        go_on.wait(PATIENCE)
        raise ValueError("boom")

    for _ in range(20):
        go_on.clear()
        with connect(unix_server) as client:
            client.sendall(b"never read")
            go_on.set()
            until(lambda: len(unix_server.connections) > len(read) and unix_server.connections[-1]._done)
            try:
                read.append(client.recv(1))
            except ConnectionResetError as error:
                read.append(error)

    unix_server._take_failures()
    assert read == [b""] * 20
    assert [event.data for event in unix_server.connections[0].events if event.data and event.kind == "note"][-1] == (
        b"a unix stream cannot be reset: the client sees a plain end of stream"
    )


def test_no_text_of_an_error_ever_reaches_the_client(server: StreamTestServer) -> None:
    """G6: the wire is the server's alone."""
    received = []

    @server.handler
    def fail(conn: Connection) -> None:
        conn.send(b"half a re")
        conn.recv_line()
        conn.expect(b"SECRET-EXPECTATION")

    for data in (b"one\ntwo\n", b"one\n", b"half"):
        with connect(server) as client:
            client.sendall(data)
            chunks = []
            try:
                client.shutdown(socket.SHUT_WR)
                while chunk := client.recv(65536):
                    chunks.append(chunk)
            except OSError:
                pass  # ENOTCONN: reset before the shutdown
            received.append(b"".join(chunks))

    assert len(server._take_failures()) == 3
    assert [each for each in received if each not in (b"half a re", b"")] == []


# detach


def test_detach_gives_a_blocking_socket_that_records(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        client.sendall(b"one\n")
        assert conn.recv_line() == b"one\n"

        with conn.detach() as sock:
            assert sock.gettimeout() is None
            client.sendall(b"two\n")
            assert sock.recv(100) == b"two\n"
            sock.sendall(b"three\n")

        assert read_to_end(client) == b"three\n"
    assert (conn.received, conn.sent) == (b"one\ntwo\n", b"three\n")
    with pytest.raises(WrongState, match="^cannot send on connection 0: it was detached$"):
        conn.send(b"x")


def test_detach_with_bytes_read_ahead_is_refused(talk: Talk) -> None:
    talk.client_says(b"one\ntwo\n")
    talk.conn.recv_line()

    with pytest.raises(WrongState) as raised:
        talk.conn.detach()

    assert str(raised.value) == (
        "cannot detach connection 0: 4 bytes were read ahead and not taken yet: b'two\\n'; take them first"
    )
    assert talk.conn.recv_line() == b"two\n"


# TLS


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls_contexts()


def secured(client: socket.socket) -> ssl.SSLSocket:
    return tls_contexts()[1].wrap_socket(client, server_hostname="localhost")


def starttls(conn: Connection) -> None:
    """Upgrade, as SMTP does."""
    conn.expect(b"STARTTLS\r\n")
    conn.send(b"220 go\r\n")
    conn.start_tls(tls_contexts()[0])


def upgraded(server: StreamTestServer) -> ssl.SSLSocket:
    client = connect(server)
    client.sendall(b"STARTTLS\r\n")
    assert client.recv(100) == b"220 go\r\n"
    return secured(client)


def test_tls_is_spoken_after_start_tls_and_recorded_in_plain_text(server: StreamTestServer) -> None:
    @server.handler
    def serve(conn: Connection) -> None:
        starttls(conn)
        while True:
            conn.send(b"echo " + conn.recv_line())

    with upgraded(server) as client:
        client.sendall(b"hi\r\n")
        assert client.recv(100) == b"echo hi\r\n"
        client.sendall(b"x" * 100_000 + b"\r\n")
        assert read_exactly(client, 100_007) == b"echo " + b"x" * 100_000 + b"\r\n"
    conn = server.connections[0]
    conn.wait_closed()

    assert conn.requests == [b"STARTTLS\r\n", b"hi\r\n", b"x" * 100_000 + b"\r\n"]
    assert conn.sent == b"220 go\r\necho hi\r\necho " + b"x" * 100_000 + b"\r\n"
    assert conn.tls.version == "TLSv1.3"
    assert conn.tls.cipher[0].startswith("TLS_")
    assert conn.tls.error is None
    assert [line.partition("] ")[2] for line in str(conn).splitlines()[1:5]] == [
        "C: STARTTLS",
        "S: 220 go",
        "S! start-tls",
        "C: hi",
    ]


def test_tls_ends_with_close_notify_unless_told_otherwise(server: StreamTestServer) -> None:
    for notify in (True, False):

        @server.handler
        def serve(conn: Connection, notify: bool = notify) -> None:
            starttls(conn)
            conn.send(b"bye")
            conn.close(notify=notify)

        with connect(server) as plain:
            plain.sendall(b"STARTTLS\r\n")
            plain.recv(100)
            with tls_contexts()[1].wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            ) as client:
                assert client.recv(100) == b"bye"
                if notify:
                    assert client.recv(100) == b""
                else:
                    with pytest.raises(ssl.SSLEOFError):
                        client.recv(100)


def test_tls_half_close_is_an_end_that_the_client_reads_as_a_clean_one(server: StreamTestServer) -> None:
    """And nothing it says afterwards is taken for plain text: it is read as TLS, or lost."""

    @server.handler
    def serve(conn: Connection) -> None:
        starttls(conn)
        conn.send(b"x")
        conn.send_eof()
        conn.recv_all()

    with upgraded(server) as client:
        assert client.recv(1) == b"x"
        assert client.recv(1) == b""
        client.sendall(b"more")
    server.wait_connection().wait_closed()

    assert server.connections[0].received.removeprefix(b"STARTTLS\r\n") in (b"", b"more")


def test_tls_close_over_unread_input_records_no_ciphertext(server: StreamTestServer) -> None:
    said = threading.Event()

    @server.handler
    def serve(conn: Connection) -> None:
        starttls(conn)
        conn.expect(b"a")
        said.wait(PATIENCE)
        conn.send(b"bye")

    with upgraded(server) as client:
        client.sendall(b"a")
        client.sendall(b"never read")
        said.set()
        assert client.recv(100) == b"bye"
        assert client.recv(100) == b""
    conn = server.connections[0]
    conn.wait_closed()

    assert conn.received[:11] == b"STARTTLS\r\na"
    assert conn.received[11:] in (b"", b"never read")


def test_plain_text_already_there_when_tls_starts_is_refused(server: StreamTestServer) -> None:
    """STARTTLS injection: what a man in the middle sent in plain text would be taken for protected."""
    with Taken(server) as (client, conn):
        client.sendall(b"STARTTLS\r\nMAIL FROM:<evil>\r\n")
        conn.expect(b"STARTTLS\r\n")

        with pytest.raises(ScriptMismatch) as raised:
            conn.start_tls(tls_contexts()[0])

    assert untimed(str(raised.value)) == (
        f"{conn._where()}: expected a TLS handshake, but the client had sent plain text already, "
        "which would be taken for protected (STARTTLS injection)\n"
        "  got b'MAIL FROM:<evil>\\r\\n'\n"
        "    C: STARTTLS\n"
        "    C: MAIL FROM:<evil>"
    )
    assert conn.tls is None


def test_plain_text_still_in_the_kernel_when_tls_starts_is_refused(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        client.sendall(b"STARTTLS\r\n")
        conn.expect(b"STARTTLS\r\n")
        client.sendall(b"MAIL FROM:<evil>\r\n")
        until(lambda: _arrived(conn))

        with pytest.raises(ScriptMismatch, match="STARTTLS injection"):
            conn.start_tls(tls_contexts()[0])


def test_a_client_that_speaks_tls_at_once_is_served_although_nobody_had_accepted_it_yet(
    server: StreamTestServer,
) -> None:
    """What was read ahead of accept() is the beginning of its handshake, and no plain text."""

    def talk_tls() -> bytes:
        with connect(server) as plain, secured(plain) as client:
            return client.recv(100)

    reply = server.in_thread(talk_tls)
    server.wait_connection()
    until(lambda: server.connections[0].received_count or _arrived(server.connections[0]))

    conn = server.accept()
    conn.start_tls(tls_contexts()[0])
    conn.send(b"hi")

    assert reply.result(PATIENCE) == b"hi"
    assert conn.received == b""


def _arrived(conn: Connection) -> bool:
    """Tell whether something has arrived that nobody has received."""
    try:
        return bool(conn._tape.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def test_a_refused_certificate_is_recorded_and_fails_no_handler(server: StreamTestServer) -> None:
    """It may be the test's subject."""
    server.handler(starttls)

    with connect(server) as plain:
        plain.sendall(b"STARTTLS\r\n")
        plain.recv(100)
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
    conn = server.connections[0]
    conn.wait_closed()

    server.verify()
    assert isinstance(conn.tls.error, ssl.SSLError)
    assert conn.tls.version is None


def test_a_refused_certificate_is_an_error_of_the_test_that_drives_the_connection(server: StreamTestServer) -> None:
    def refuse() -> None:
        with connect(server) as plain:
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")

    # Accepted before the client speaks: nothing is read ahead.
    with Taken(server) as (plain, conn):
        refusing = server.in_thread(ssl.create_default_context().wrap_socket, plain, server_hostname="localhost")
        with pytest.raises(ssl.SSLError):
            conn.start_tls(tls_contexts()[0])
        assert isinstance(refusing.exception(PATIENCE), ssl.SSLError)
    assert isinstance(conn.tls.error, ssl.SSLError)


@pytest.mark.parametrize("said", [b"", bytes.fromhex("16030102")], ids=["silent", "half a hello"])
def test_a_handshake_that_does_not_end_has_a_deadline(server: StreamTestServer, said: bytes) -> None:
    with Taken(server) as (client, conn):
        client.sendall(said)
        until(lambda: not said or conn.received_count or _arrived(conn))

        with pytest.raises(DeadlineExceeded) as raised:
            conn.start_tls(tls_contexts()[0], timeout=0.1)

    assert untimed(str(raised.value)) == (
        f"{conn._where()}: start_tls() waited 0.1 s for the client's handshake\n    S! start-tls"
    )
    assert conn.tls.error is raised.value


def test_the_context_is_left_as_it_was(server: StreamTestServer, contexts: Any) -> None:
    server.handler(starttls)
    usual = contexts[0].sslsocket_class

    with upgraded(server):
        pass

    assert contexts[0].sslsocket_class is usual


# What is captured


def test_a_request_is_bytes_in_every_way(talk: Talk) -> None:
    import pickle

    talk.client_says(b"hi\n")

    request = talk.conn.recv_line()

    assert isinstance(request, Request)
    assert request == b"hi\n"
    assert hash(request) == hash(b"hi\n")
    assert repr(request) == "b'hi\\n'"
    assert pickle.loads(pickle.dumps(request)) == b"hi\n"
    assert type(pickle.loads(pickle.dumps(request))) is bytes
    assert (request.connection, request.peer, request.match, request.rule) == (
        talk.conn,
        talk.client.getsockname(),
        None,
        None,
    )
    assert 0 <= request.time < 60


def test_both_directions_are_captured_and_counted(talk: Talk) -> None:
    talk.client_says(b"one\n")
    talk.conn.recv_line().reply(b"two\n")
    talk.client_says(b"three")
    talk.conn.wait_received(b"three")

    assert (talk.conn.received, talk.conn.sent) == (b"one\nthree", b"two\n")
    assert (talk.conn.received_count, talk.conn.sent_count) == (9, 4)
    assert talk.conn.requests == [b"one\n"]


def test_the_state_is_the_users_own(talk: Talk) -> None:
    talk.conn.state.logged_in = True

    assert vars(talk.conn.state) == {"logged_in": True}


def test_a_request_is_recorded_before_any_byte_of_its_reply(tcp_server: StreamTestServer) -> None:
    """G1: whoever has the reply finds the request."""
    missing = []

    @tcp_server.handler
    def answer(conn: Connection) -> None:
        while True:
            conn.send(b"re: " + conn.recv_line())

    with connect(tcp_server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(300):
            client.sendall(b"%d\n" % number)
            client.recv(100)
            if len(tcp_server.requests) != number + 1:
                missing.append(number)

    assert missing == []


def test_a_reply_is_recorded_before_the_client_has_it(tcp_server: StreamTestServer) -> None:
    missing = []

    @tcp_server.handler
    def answer(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())

    with connect(tcp_server) as client:
        for number in range(300):
            client.sendall(b"x\n")
            client.recv(100)
            if tcp_server.connections[0].sent_count != 2 * (number + 1):
                missing.append(number)

    assert missing == []


def test_the_end_is_recorded_before_the_client_can_see_it(server: StreamTestServer) -> None:
    server.handler(lambda conn: None)
    for number in range(100):
        with connect(server) as client:
            assert client.recv(1) == b""

            assert server.connections[number].closed_by == "server"
