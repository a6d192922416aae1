"""Rules: which one answers, how often, what it says, and when it is said."""

from __future__ import annotations

import gc
import re
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    Close,
    Connection,
    Cut,
    DatagramTestServer,
    Delay,
    Drip,
    Gate,
    Hex,
    InvalidState,
    Request,
    Reset,
    SendEof,
    ServerStopping,
    SockServer,
    Stall,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    length_prefixed,
    lines,
)
from pytest_sockserver.recording.recorder import PARKED
from pytest_sockserver.responders import declaration

from . import insides
from .peers import PATIENCE, connect, datagram_client, read_exactly, read_to_end, until


def ask(client: object, data: bytes, size: int = 100) -> bytes:
    client.sendall(data)  # type: ignore[attr-defined]
    return client.recv(size)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def line_server(sockserver: SockServer) -> StreamTestServer:
    return sockserver.tcp(framing=lines(b"\n"), name="line_server")


# Which rule answers


def test_a_literal_is_asked_before_a_pattern_and_this_before_any(line_server: StreamTestServer) -> None:
    line_server.on(b"PING\n").reply(b"literal\n")
    line_server.on(re.compile(rb"P.*\n")).reply(b"pattern\n")
    line_server.on(ANY).reply(b"any\n")

    with connect(line_server) as client:
        said = [ask(client, line) for line in (b"PING\n", b"PONG\n", b"QUIT\n")]

    assert said == [b"literal\n", b"pattern\n", b"any\n"]


def test_among_equals_the_latest_declared_answers(line_server: StreamTestServer) -> None:
    line_server.on(b"PING\n").reply(b"fixture\n")
    line_server.on(b"PING\n").reply(b"test\n")
    line_server.on(re.compile(rb"G.*\n")).reply(b"fixture\n")
    line_server.on(lambda line: line.startswith(b"GET")).reply(b"test\n")

    with connect(line_server) as client:
        assert [ask(client, b"PING\n"), ask(client, b"GET\n")] == [b"test\n", b"test\n"]


def test_a_rule_that_is_used_up_steps_aside(line_server: StreamTestServer) -> None:
    line_server.on(b"PING\n").reply(b"always\n")
    line_server.on(b"PING\n", times=2).reply(b"twice\n")

    with connect(line_server) as client:
        assert [ask(client, b"PING\n") for _ in range(3)] == [b"twice\n", b"twice\n", b"always\n"]


def test_then_gives_the_next_reply_and_the_last_one_stays(line_server: StreamTestServer) -> None:
    line_server.on(b"PING\n").reply(b"1\n").then(b"2\n").then(b"3\n")

    with connect(line_server) as one, connect(line_server) as other:
        assert [ask(client, b"PING\n") for client in (one, other, one, other)] == [b"1\n", b"2\n", b"3\n", b"3\n"]


def test_a_greeting_is_said_before_the_client_says_anything(tcp_server: StreamTestServer) -> None:
    tcp_server.on(CONNECT).reply(b"first\n").then(b"second\n")

    with connect(tcp_server) as one:
        assert one.recv(100) == b"first\n"
    with connect(tcp_server) as other:
        assert other.recv(100) == b"second\n"


def test_a_predicate_gets_the_request_and_what_it_matched_is_known(line_server: StreamTestServer) -> None:
    seen: list[Request] = []

    def predicate(request: bytes) -> bool:
        return request.startswith(b"GET")

    line_server.on(predicate).reply(lambda request: seen.append(request) or b"ok\n")
    line_server.on(re.compile(rb"SET (?P<key>\w+)\n")).reply(lambda request: b"set " + request.match["key"] + b"\n")

    with connect(line_server) as client:
        assert ask(client, b"GET k\n") == b"ok\n"
        assert ask(client, b"SET k\n") == b"set k\n"

    assert seen == [b"GET k\n"]
    assert seen[0].connection is line_server.connections[0]
    assert [request.rule.number for request in line_server.requests] == [1, 2]
    assert line_server.connections[0].captured == {"key": b"k"}


def test_hex_captures_and_templates_answer_with_it(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=length_prefixed(">H", offset=4))
    server.on(Hex("<tid:2> 00 00 00 06 01 03 ?? ?? 00 01")).reply(Hex(r"\g<tid> 00 00 00 05 01 03 02 00 0a"))

    with connect(server) as client:
        said = ask(client, bytes.fromhex("0007 0000 0006 01 03 000a 0001"))

    assert said == bytes.fromhex("0007 0000 0005 01 03 02 000a")
    assert server.requests[0].match["tid"] == b"\x00\x07"


def test_text_answers_with_what_was_captured_earlier_on_the_connection(line_server: StreamTestServer) -> None:
    line_server.on(re.compile(rb"USER (?P<user>\w+)\n")).reply(b"ok\n")
    line_server.on(b"WHO\n").reply(Text(r"\g<user>\n"))

    with connect(line_server) as one, connect(line_server) as other:
        ask(one, b"USER ann\n")
        ask(other, b"USER bob\n")
        assert ask(one, b"WHO\n") == b"ann\n"
        assert ask(other, b"WHO\n") == b"bob\n"


# Streams without frames


def test_literals_are_taken_without_a_framing_however_they_arrive(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"PING").reply(b"+")
    tcp_server.on(Hex("01 ?? 02")).reply(b"-")

    with connect(tcp_server) as client:
        client.sendall(b"PINGPI")
        client.sendall(b"NG\x01\x07\x02PING")
        assert read_exactly(client, 4) == b"++-+"

    assert tcp_server.requests == [b"PING", b"PING", b"\x01\x07\x02", b"PING"]


def test_what_no_literal_begins_fails_at_its_first_wrong_byte(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"PING\n").reply(b"+")

    with tcp_server.raises(UnexpectedRequest, match="no rule matches b'PIX'"), connect(tcp_server) as client:
        client.sendall(b"PIX")
        with pytest.raises(ConnectionResetError):
            client.recv(9)


def test_a_pattern_without_a_framing_resets_the_connection_and_fails(tcp_server: StreamTestServer) -> None:
    tcp_server.on(re.compile(rb"x"))

    with tcp_server.raises(TypeError, match="give the server a framing="):
        with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
            client.recv(9)


def test_a_pattern_without_a_framing_is_refused_at_the_tests_first_wait(tcp_server: StreamTestServer) -> None:
    tcp_server.on(ANY)

    with pytest.raises(TypeError, match="give the server a framing=") as raised:
        tcp_server.wait_for(b"x")

    assert str(raised.traceback[-1].statement).strip() == "tcp_server.on(ANY)"


def test_a_framing_may_still_be_given_after_the_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.on(ANY).reply(b"+\n")
    tcp_server.framing = lines(b"\n")

    with connect(tcp_server) as client:
        assert ask(client, b"x\n") == b"+\n"


def test_a_pattern_that_forgets_the_line_ending_is_told(line_server: StreamTestServer) -> None:
    line_server.on(re.compile(rb"GET \w+")).reply(b"1\n")
    line_server.on(re.compile(rb"SET .*"))

    with line_server.raises(UnexpectedRequest) as caught:
        with pytest.raises(ConnectionResetError), connect(line_server) as client:
            ask(client, b"GET key\n")

    said = r"expects the pattern rb'GET \w+' (matches all but its last b'\n': a pattern is to match the whole)"
    assert said in str(caught.value)


# What is said


def test_parts_are_done_from_left_to_right(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(b"1", Delay(0.001), b"2", lambda request: [b"3", request], SendEof())

    with connect(line_server) as client:
        client.sendall(b"a\n")
        assert read_to_end(client) == b"123a\n"


def test_close_ends_the_connection_after_what_was_said(line_server: StreamTestServer) -> None:
    line_server.on(b"QUIT\n").reply(b"bye\n", Close())

    with connect(line_server) as client:
        client.sendall(b"QUIT\nmore\n")
        assert read_to_end(client) == b"bye\n"

    assert line_server.requests == [b"QUIT\n"]


def test_reset_by_request_then_an_answer(line_server: StreamTestServer) -> None:
    line_server.on(b"GET\n", times=2).reply(Reset()).then(b"ok\n")

    with pytest.raises(ConnectionResetError), connect(line_server) as client:
        ask(client, b"GET\n")
    with connect(line_server) as client:
        assert ask(client, b"GET\n") == b"ok\n"


def test_cut_holds_whatever_it_cuts(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(Cut(lambda request: [b"12", b"34"], 3), Close())
    line_server.on(b"b\n").reply(Cut(Text(r"12\x33"), 2), Close())

    for line, cut in ((b"a\n", b"123"), (b"b\n", b"12")):
        with connect(line_server) as client:
            client.sendall(line)
            assert read_to_end(client) == cut


def test_a_cut_beyond_what_a_function_says_is_a_failure(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(Cut(lambda request: b"12", 3))

    with line_server.raises(ValueError, match="Cut.. was to say 3 bytes, and there were only 2"):
        with connect(line_server) as client:
            client.sendall(b"a\n")


def test_drip_says_the_same_bytes_and_takes_its_time(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(Drip(b"1234", 0.01), Close())

    with connect(line_server) as client:
        client.sendall(b"a\n")
        assert read_to_end(client) == b"1234"

    began, ended = (event.time for event in line_server.events if event.kind in ("received", "close"))
    assert ended - began >= 0.03


def test_stall_says_nothing_more_and_a_stop_ends_it(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(b"1", Stall())

    with connect(line_server) as client:
        assert ask(client, b"a\nb\n") == b"1"
        line_server.stop()
        assert client.recv(9) == b""

    assert line_server.requests == [b"a\n"]


def test_no_parts_are_no_reply(line_server: StreamTestServer) -> None:
    line_server.on(b"quiet\n").reply()
    line_server.on(b"silent\n")
    line_server.on(b"PING\n").reply(b"pong\n")

    with connect(line_server) as client:
        assert ask(client, b"quiet\nsilent\nPING\n") == b"pong\n"


def test_a_reply_function_converses(line_server: StreamTestServer) -> None:
    def data(request: Request) -> bytes:
        conn = request.connection
        assert conn is not None
        conn.send(b"354 go\n")
        conn.recv_until(b"\n.\n")
        return b"250 queued\n"

    line_server.on(b"DATA\n").reply(data)
    line_server.on(b"QUIT\n").reply(b"221 bye\n")

    with connect(line_server) as client:
        assert ask(client, b"DATA\n") == b"354 go\n"
        assert ask(client, b"a\nb\n.\n") == b"250 queued\n"
        assert ask(client, b"QUIT\n") == b"221 bye\n"

    assert line_server.requests == [b"DATA\n", b"a\nb\n.\n", b"QUIT\n"]


def test_a_reply_function_that_waits_in_vain_has_a_deadline(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=lines(b"\n"), timeout=0.1)
    server.on(b"DATA\n").reply(lambda request: request.connection.recv_until(b"\n.\n"))

    with server.raises(TimeoutError, match=r"recv_until\(\) waited 0.1 s"), connect(server) as client:
        client.sendall(b"DATA\n")
        with pytest.raises(ConnectionResetError):
            client.recv(9)


def test_a_reply_function_that_switches_the_framing(line_server: StreamTestServer) -> None:
    def binary(request: Request) -> bytes:
        assert request.connection is not None
        request.connection.framing = length_prefixed(">B")
        return b"ok\n"

    line_server.on(b"BINARY\n").reply(binary)
    line_server.on(Hex("02 ?? 0a")).reply(b"\x01!")

    with connect(line_server) as client:
        assert ask(client, b"BINARY\n") == b"ok\n"
        assert ask(client, b"\x02\n\n") == b"\x01!"


def test_a_generator_of_parts_is_performed_as_it_goes(line_server: StreamTestServer) -> None:
    def parts(request: Request) -> Iterator[bytes]:
        assert request.connection is not None
        yield b"more?\n"
        yield request.connection.recv_line().upper()

    line_server.on(b"a\n").reply(parts)

    with connect(line_server) as client:
        client.sendall(b"a\n")
        client.sendall(b"yes\n")
        assert read_exactly(client, 10) == b"more?\nYES\n"


# Whose turn it is


def test_a_push_from_the_test_waits_for_the_reply_that_is_under_way(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(b"<", Gate("go"), b">\n")

    with connect(line_server) as client:
        assert ask(client, b"a\n") == b"<"
        push = line_server.in_thread(line_server.connections[0].send, b"push\n")
        line_server.open_gate("go")
        push.result()
        assert read_exactly(client, 7) == b">\npush\n"


def test_replies_of_different_connections_overlap_those_of_one_never(line_server: StreamTestServer) -> None:
    meet = threading.Barrier(2)
    line_server.on(b"meet\n").reply(lambda request: b"%d\n" % (meet.wait(PATIENCE) >= 0))
    busy = threading.Lock()

    def alone(request: Request) -> bytes:
        with busy:
            return b"ok\n"

    line_server.on(b"alone\n").reply(alone)

    with connect(line_server) as one, connect(line_server) as other:
        one.sendall(b"meet\n")
        other.sendall(b"meet\n")
        assert one.recv(9) == other.recv(9) == b"1\n"
        assert ask(one, b"alone\nalone\n", 3) == b"ok\n"


def test_counting_is_atomic(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(b"0\n")
    rule = line_server.on(b"a\n", times=50).reply(b"1\n")
    start = threading.Barrier(10)

    def client() -> int:
        with connect(line_server) as sock:
            start.wait(PATIENCE)
            return sum(ask(sock, b"a\n") == b"1\n" for _ in range(10))

    clients = [line_server.in_thread(client) for _ in range(10)]

    assert sum(each.result() for each in clients) == 50
    assert rule.count == 50


def test_a_request_between_on_and_reply_gets_the_reply(
    line_server: StreamTestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule is declared by two calls; the client's request may come in between."""
    monkeypatch.setattr(declaration, "PATIENCE", PATIENCE)  # on a loaded machine what follows may take its time
    line_server.on(b"other\n")
    with connect(line_server) as client:
        rule = line_server.on(b"a\n")
        client.sendall(b"a\n")
        until(lambda: line_server.connections and line_server.connections[0].received == b"a\n")
        rule.reply(b"ok\n")
        assert client.recv(9) == b"ok\n"


def test_a_rule_that_is_dropped_without_a_reply_is_silent_at_once(line_server: StreamTestServer) -> None:
    line_server.on(b"b\n").reply(b"ok\n")
    rule = line_server.on(b"a\n")
    with connect(line_server) as client:
        client.sendall(b"a\nb\n")
        until(lambda: line_server.connections and line_server.connections[0].received == b"a\nb\n")
        del rule
        gc.collect()
        assert client.recv(9) == b"ok\n"


def test_declaring_out_of_turn_is_refused(line_server: StreamTestServer) -> None:
    rule = line_server.on(b"a\n")

    with pytest.raises(InvalidState, match=r"then\(\) follows reply\(\)"):
        rule.then(b"x")
    rule.reply(b"x")
    with pytest.raises(InvalidState, match=r"reply\(\) was called already"):
        rule.reply(b"y")
    line_server.clear()
    with pytest.raises(InvalidState, match=r"is forgotten: clear\(\) was called"):
        rule.then(b"y")


# Connections


def test_a_connection_that_came_before_the_rules_is_answered_by_them(line_server: StreamTestServer) -> None:
    with connect(line_server) as client:
        client.sendall(b"a\n")
        line_server.wait_connection().wait_received(b"a\n")
        line_server.on(b"a\n").reply(b"ok\n")
        assert client.recv(9) == b"ok\n"

    assert line_server.requests == [b"a\n"]


def test_rules_that_are_declared_one_by_one_under_a_client_that_was_faster(line_server: StreamTestServer) -> None:
    with connect(line_server) as client:
        client.sendall(b"b\na\n")
        line_server.wait_connection().wait_received(b"b\na\n")
        line_server.on(b"a\n").reply(b"1\n")
        line_server.on(b"b\n").reply(b"2\n")
        assert read_exactly(client, 4) == b"2\n1\n"


def test_literals_that_are_declared_one_by_one_under_a_client_that_was_faster(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"ba")
        tcp_server.wait_connection().wait_received(b"ba")
        tcp_server.on(b"a").reply(b"1")
        tcp_server.on(b"b").reply(b"2")
        assert read_exactly(client, 2) == b"21"


def test_a_handler_hands_over_to_the_rules_and_goes_on(line_server: StreamTestServer) -> None:
    after: list[str] = []
    line_server.on(b"PING\n").reply(b"pong\n")

    @line_server.handler
    def login(conn: Connection) -> None:
        conn.expect_line(b"LOGIN")
        conn.send(b"welcome\n")
        conn.rules()
        after.append("the client has ended its stream")

    with connect(line_server) as client:
        assert ask(client, b"LOGIN\n") == b"welcome\n"
        assert ask(client, b"PING\n") == b"pong\n"
    line_server.connections[0].wait_closed()
    line_server.verify()

    assert after == ["the client has ended its stream"]


def test_rules_in_another_framing(tcp_server: StreamTestServer) -> None:
    tcp_server.on(re.compile(rb"P.*\n")).reply(b"pong\n")

    @tcp_server.handler
    def login(conn: Connection) -> None:
        conn.expect(b"LOGIN\n")
        conn.rules(lines(b"\n"))

    with connect(tcp_server) as client:
        assert ask(client, b"LOGIN\nPING\n") == b"pong\n"


def test_frames_in_a_handler(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def echo(conn: Connection) -> None:
        for frame in conn.frames(lines(b"\n")):
            frame.reply(frame.upper())

    with connect(tcp_server) as client:
        assert ask(client, b"a\n") == b"A\n"

    assert tcp_server.requests == [b"a\n"]


def test_the_frames_that_a_handler_class_reads_are_requests(line_server: StreamTestServer) -> None:
    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while data := self.rfile.readline():
                self.wfile.write(data)

    line_server.handler(Echo)

    with connect(line_server) as client:
        assert ask(client, b"a\n") == b"a\n"
        assert line_server.requests == [b"a\n"]
        assert ask(client, b"b\n") == b"b\n"

    assert line_server.requests == [b"a\n", b"b\n"]


def test_a_greeting_may_be_a_function_of_an_empty_request(tcp_server: StreamTestServer) -> None:
    tcp_server.on(CONNECT).reply(lambda request: b"hello %d" % request.connection.index)

    for index in range(2):
        with connect(tcp_server) as client:
            assert client.recv(9) == b"hello %d" % index
    assert tcp_server.requests == []


def test_the_frames_of_a_stream_that_nothing_reads_are_requests(line_server: StreamTestServer) -> None:
    with connect(line_server) as client:
        client.sendall(b"a\nb\nc")
        assert line_server.wait_for(b"b\n") == b"b\n"
        conn = line_server.accept()
        assert [conn.recv_line(), conn.recv_line()] == [b"a\n", b"b\n"]

    assert line_server.requests == [b"a\n", b"b\n"]


# Datagrams


def test_datagrams_are_answered_each_by_a_rule(udp_server: DatagramTestServer) -> None:
    udp_server.on(Hex("<id:2> 01")).reply(Hex(r"\g<id> 02"))
    udp_server.on(re.compile(rb"echo (.*)")).reply(lambda request: request.match[1])
    udp_server.on(b"two").reply(b"1", b"2")
    udp_server.on(b"none").reply()

    with datagram_client(udp_server) as client:
        assert ask(client, b"\0\7\1") == b"\0\7\2"
        assert ask(client, b"echo x") == b"x"
        client.send(b"none")
        assert ask(client, b"two") == b"1"
        assert client.recv(9) == b"2"

    assert [request.rule.number for request in udp_server.requests] == [1, 2, 4, 3]


def test_a_reply_that_waits_lets_other_datagrams_pass(udp_server: DatagramTestServer) -> None:
    udp_server.on(b"slow").reply(Gate("go"), b"slow")
    udp_server.on(b"late").reply(Delay(0.01), b"late")
    udp_server.on(b"quick").reply(b"quick")

    with datagram_client(udp_server) as client:
        client.send(b"slow")
        client.send(b"late")
        assert ask(client, b"quick") == b"quick"
        assert client.recv(9) == b"late"
        udp_server.open_gate("go")
        assert client.recv(9) == b"slow"


def test_a_connection_is_no_datagram(udp_server: DatagramTestServer) -> None:
    with pytest.raises(TypeError, match="datagrams have no connections"):
        udp_server.on(CONNECT)


# What an attack found


def test_a_stream_that_ends_while_its_rule_is_declared_is_one_request() -> None:
    """Between the sink, which keeps a stream whole, and the rule that takes it."""
    for turn in range(150):
        with StreamTestServer() as server:
            with connect(server) as client:
                client.sendall(b"x")
            for _ in range(turn % 50):
                time.sleep(0)  # gives the sink its turn, now and then
            server.on(b"x").reply(b"y")
            insides.settle(server)
            assert server.requests == [b"x"]


def test_who_stands_at_a_gate_goes_on_though_it_was_closed_again(line_server: StreamTestServer) -> None:
    line_server.on(b"a\n").reply(b"1", Gate("go"), b"2\n")

    with connect(line_server) as client:
        assert ask(client, b"a\n") == b"1"
        conn = line_server.connections[0]
        until(lambda: insides.tape(conn).state is PARKED)
        line_server.open_gate("go")
        line_server.clear()
        assert client.recv(9) == b"2\n"


def test_an_end_of_the_stream_from_elsewhere_does_not_wait_for_ever_for_a_reply(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.1)
    server.on(b"a").reply(b"x", Stall())

    with connect(server) as client:
        assert ask(client, b"a") == b"x"
        with pytest.raises(TimeoutError, match=r"send_eof\(\) waited 0.1 s"):
            server.connections[0].send_eof()


def test_a_handlers_end_does_not_wait_for_a_push_that_does_not_end(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.1)

    @server.handler
    def one_byte(conn: Connection) -> None:
        conn.recv(1)

    with connect(server) as client:
        conn = server.wait_connection()
        push = server.in_thread(conn.send, b"1", Stall())
        assert client.recv(9) == b"1"
        client.sendall(b"a")
        assert client.recv(9) == b""
        assert isinstance(push.exception(), ServerStopping)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_exception_that_has_a_summary_of_its_own_is_told(sockserver: SockServer, transport: str) -> None:
    class RuleError(Exception):
        def summary(self) -> str:
            return "no str"

    def fail(request: Request) -> bytes:
        raise RuleError("the user's own")

    server = getattr(sockserver, transport)()
    server.on(b"a").reply(fail)
    server.on(b"b").reply(b"B")

    with server.raises(RuleError, match="the user's own"):
        if transport == "tcp":
            with pytest.raises(ConnectionResetError), connect(server) as client:
                ask(client, b"a")
        else:
            with datagram_client(server) as client:
                client.send(b"a")
                assert ask(client, b"b") == b"B"


def test_many_literals_without_a_framing_are_compared_in_order(tcp_server: StreamTestServer) -> None:
    for number in range(3000):
        tcp_server.on(b"%06d" % number).reply(b"%d" % number)
    began = time.process_time()

    with connect(tcp_server) as client:
        assert ask(client, b"002999") == b"2999"

    assert time.process_time() - began < 2  # pairs of them would take ten


def test_a_stop_ends_though_clients_come_back_at_once(sockserver: SockServer) -> None:
    server = sockserver.tcp()
    server.on(b"a").reply(b"1", Close())
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                with connect(server) as sock:
                    sock.sendall(b"a")
                    sock.recv(9)
            except OSError:
                pass

    clients = [threading.Thread(target=client) for _ in range(8)]
    for each in clients:
        each.start()
    try:
        server.wait_for(b"a", 50)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2
    finally:
        over.set()
        for each in clients:
            each.join()
