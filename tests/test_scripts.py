"""Scripts: the verbs of a connection, deferred, one script after the other, in order and growing."""

from __future__ import annotations

import re
import threading
from time import monotonic

import pytest

from pytest_sockserver import (
    ANY,
    Close,
    Connection,
    DatagramTestServer,
    Delay,
    Gate,
    Hex,
    InvalidState,
    Request,
    Script,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    UnmetExpectation,
    lines,
    resp,
)

from .peers import PATIENCE, connect, datagram_client, read_exactly, read_to_end, reset, tls_contexts, until


def ask(client: object, data: bytes, size: int = 100) -> bytes:
    client.sendall(data)  # type: ignore[attr-defined]
    return client.recv(size)  # type: ignore[attr-defined, no-any-return]


# Which script a connection takes


def test_the_nth_script_is_for_the_nth_connection(tcp_server: StreamTestServer) -> None:
    tcp_server.script().send(b"1").close()
    tcp_server.script(times=2).send(b"2").close()
    tcp_server.script(times=None).send(b"3").close()

    said = []
    for _ in range(5):
        with connect(tcp_server) as client:
            said.append(read_to_end(client))

    assert said == [b"1", b"2", b"2", b"3", b"3"]


def test_scripts_come_before_the_handler_and_this_before_the_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"a").reply(b"rules")
    tcp_server.script().send(b"script").close()

    with connect(tcp_server) as client:
        assert read_to_end(client) == b"script"
    with connect(tcp_server) as client:
        assert ask(client, b"a") == b"rules"

    @tcp_server.handler
    def handler(conn: Connection) -> None:
        conn.send(b"handler")

    with connect(tcp_server) as client:
        assert read_to_end(client) == b"handler"


def test_a_connection_that_came_before_its_script_takes_it(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        tcp_server.wait_connection().wait_received(b"hi\n")
        tcp_server.script().expect(b"hi\n").send(b"ho\n")
        assert client.recv(9) == b"ho\n"


def test_connections_that_came_before_their_scripts_take_one_each(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as one, connect(tcp_server) as other:
        tcp_server.wait_connection(1)
        tcp_server.script().send(b"1\n")
        tcp_server.script().send(b"2\n")
        assert [one.recv(9), other.recv(9)] == [b"1\n", b"2\n"]


def test_a_connection_that_came_early_and_for_which_there_is_no_script_is_one_too_many(
    tcp_server: StreamTestServer,
) -> None:
    with connect(tcp_server) as one, connect(tcp_server):
        tcp_server.wait_connection(1)
        tcp_server.script().send(b"1\n")
        assert one.recv(9) == b"1\n"
        with pytest.raises(UnexpectedRequest, match="expected no further connection"):
            tcp_server.verify()


def test_what_a_script_demands_after_its_only_client_has_left_is_unmet(tcp_server: StreamTestServer) -> None:
    script = tcp_server.script().send(b"hi\n")
    with connect(tcp_server) as client:
        assert read_exactly(client, 3) == b"hi\n"
    tcp_server.connections[0].wait_closed()
    script.expect(b"x")

    with pytest.raises(UnmetExpectation, match=r"step 2 of 2, test_scripts.py:\d+, was never reached: expected b'x'"):
        tcp_server.verify()


def test_what_a_script_says_after_its_only_client_has_left_is_no_demand(tcp_server: StreamTestServer) -> None:
    script = tcp_server.script().send(b"hi\n")
    with connect(tcp_server) as client:
        assert read_exactly(client, 3) == b"hi\n"
    tcp_server.connections[0].wait_closed()
    script.send(b"more\n").close()

    tcp_server.verify()


def test_a_script_may_grow_while_it_is_performed(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        tcp_server.wait_connection()
        script = tcp_server.script()
        script.send(b"1\n")
        assert client.recv(9) == b"1\n"
        script.expect(b"hi\n").send(b"2\n")
        assert ask(client, b"hi\n") == b"2\n"
        script.send(b"3\n").close()
        assert read_to_end(client) == b"3\n"


def test_accept_is_refused_where_a_script_takes_the_connections(tcp_server: StreamTestServer) -> None:
    tcp_server.script(times=None).send(b"1")

    with pytest.raises(InvalidState, match=r"accept\(\) is for servers with nothing declared: a script \("):
        tcp_server.accept()


# Nothing waits for what will not come

#: Seconds.  Half of what a declaration is waited for that may go on, far above what the rest takes.
AT_ONCE = 0.5


def test_a_dialogue_is_whole_when_it_was_declared(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue("S: hi\nC: QUIT\nS! close")
    began = monotonic()

    with connect(tcp_server) as client:
        client.recv(9)
        client.sendall(b"QUIT\r\n")
        assert client.recv(9) == b""

    assert monotonic() - began < AT_ONCE


def test_a_script_in_a_variable_ends_with_its_client(tcp_server: StreamTestServer) -> None:
    script = tcp_server.script()
    script.expect(b"a\n").send(b"1\n")
    began = monotonic()

    with connect(tcp_server) as client:
        assert ask(client, b"a\n") == b"1\n"
    until(lambda: tcp_server.connections[0].closed_by)
    tcp_server.stop()

    assert monotonic() - began < AT_ONCE
    assert len(script.steps) == 2


def test_a_client_that_writes_twice_before_it_reads_is_not_held_up(tcp_server: StreamTestServer) -> None:
    """Nagle's algorithm there and a delayed acknowledgement here would cost 40 ms each time."""
    tcp_server.script().repeat(20, Script().expect(b"a LOGIN\r\n").send(b"OK\r\n"))
    began = monotonic()

    with connect(tcp_server) as client:
        for _ in range(20):
            client.sendall(b"a LOGIN")
            client.sendall(b"\r\n")
            assert client.recv(9) == b"OK\r\n"

    assert monotonic() - began < AT_ONCE


# The verbs


def test_every_reading_verb(tcp_server: StreamTestServer) -> None:
    (
        tcp_server.script()
        .recv_line()
        .recv_exactly(3)
        .recv_until(b";")
        .expect(Hex("00 ?? <two:2>"))
        .expect_line(re.compile(rb"USER (?P<user>\w+)"))
        .expect_line(b"exact", ending=b"\r\n")
        .expect(Text(r"\g<user>"))
        .recv(2)
        .send(b"ok")
        .recv_all()
        .close()
    )

    with connect(tcp_server) as client:
        client.sendall(b"line\nabcx;\0\1\2\3USER bob\nexact\r\nbobzz")
        assert client.recv(9) == b"ok"
        client.sendall(b"rest")
        client.shutdown(1)
        assert read_to_end(client) == b""

    assert tcp_server.requests == [
        b"line\n", b"abc", b"x;", b"\0\1\2\3", b"USER bob\n", b"exact\r\n", b"bob", b"rest",
    ]  # fmt: skip
    assert tcp_server.connections[0].captured == {"two": b"\2\3", "user": b"bob"}


def test_parts_in_a_script(tcp_server: StreamTestServer) -> None:
    (
        tcp_server.script()
        .expect_line(re.compile(rb"(?P<n>\d)"))
        .send(b"<", Delay(0.001), Text(r"\g<n>"), lambda request: request.strip(), Close())
    )

    with connect(tcp_server) as client:
        client.sendall(b"7\n")
        assert read_to_end(client) == b"<77"


def test_send_eof_then_the_client_goes_on(tcp_server: StreamTestServer) -> None:
    tcp_server.script().send(b"1").send_eof().expect(b"more").expect_eof()

    with connect(tcp_server) as client:
        assert read_to_end(client) == b"1"
        client.sendall(b"more")


def test_reset_as_a_step_and_reset_as_what_is_expected(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"a").reset()
    tcp_server.script().expect(b"a").expect_reset()

    with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
        ask(client, b"a")
    client = connect(tcp_server)
    client.sendall(b"a")
    until(lambda: len(tcp_server.requests) == 2)
    reset(client)


def test_an_end_of_stream_is_no_reset(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect_reset()

    with tcp_server.raises(ScriptMismatch, match="expected a reset\n  got the end of the stream"):
        connect(tcp_server).close()


def test_start_tls_with_the_servers_own_context(sockserver: SockServer) -> None:
    context, trusting = tls_contexts()
    server = sockserver.tcp(tls=context, framing=lines(b"\n"))
    server.script().expect(b"STARTTLS\n").send(b"go\n").start_tls().expect(ANY).send(b"secret\n")

    with connect(server) as client:
        assert ask(client, b"STARTTLS\n") == b"go\n"
        with trusting.wrap_socket(client, server_hostname="localhost") as secured:
            assert ask(secured, b"hi\n") == b"secret\n"
        assert server.connections[0].tls is not None


def test_a_script_switches_its_framing(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"up").send(b"ok").framing(lines(b"\n")).expect(re.compile(rb"b.*\n")).send(b"1")

    with connect(tcp_server) as client:
        assert ask(client, b"up") == b"ok"
        assert ask(client, b"bcd\n") == b"1"


# Steps of steps


def test_an_optional_step_is_taken_if_it_comes_and_passed_over_if_not(tcp_server: StreamTestServer) -> None:
    script = tcp_server.script(times=2)
    script.expect(b"HELO\n").send(b"1\n").maybe(b"NOOP\n", b"noop\n").expect(b"QUIT\n").send(b"bye\n").close()

    with connect(tcp_server) as client:
        assert ask(client, b"HELO\n") == b"1\n"
        assert ask(client, b"QUIT\n") == b"bye\n"
    with connect(tcp_server) as client:
        assert ask(client, b"HELO\n") == b"1\n"
        assert ask(client, b"NOOP\n") == b"noop\n"
        assert ask(client, b"QUIT\n") == b"bye\n"


def test_an_optional_step_at_the_end_has_no_deadline_and_is_not_missed(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)
    server.script(times=2).expect(b"a\n").send(b"1\n").maybe(b"b\n", b"2\n")

    with connect(server) as client:
        assert ask(client, b"a\n") == b"1\n"
        server.assert_no_traffic(0.1)
        assert ask(client, b"b\n") == b"2\n"
    with connect(server) as client:
        assert ask(client, b"a\n") == b"1\n"
    server.connections[1].wait_closed()
    server.verify()


def test_repeat(tcp_server: StreamTestServer) -> None:
    tcp_server.script().repeat(3, Script().expect(b"PING\n").send(b"pong\n")).close()

    with connect(tcp_server) as client:
        client.sendall(b"PING\n" * 3)
        assert read_to_end(client) == b"pong\n" * 3


def test_a_script_hands_over_to_the_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.on(ANY).reply(b"any\n")
    tcp_server.script().expect(b"LOGIN\n").send(b"ok\n").rules(lines(b"\n"))

    with connect(tcp_server) as client:
        assert ask(client, b"LOGIN\n") == b"ok\n"
        assert ask(client, b"x\n") == b"any\n"


def test_after_its_last_step_the_rules_answer(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"PING\n").reply(b"pong\n")
    tcp_server.script().expect(b"LOGIN\n").send(b"ok\n")

    with connect(tcp_server) as client:
        assert ask(client, b"LOGIN\n") == b"ok\n"
        assert ask(client, b"PING\n") == b"pong\n"


# Rules in the background


@pytest.fixture
def chatty(sockserver: SockServer) -> StreamTestServer:
    server = sockserver.tcp(framing=lines(b"\n"), name="chatty")
    server.on(b"PING\n").reply(b"pong\n")
    return server


def test_what_a_step_does_not_match_is_offered_to_the_rules(chatty: StreamTestServer) -> None:
    chatty.script().expect(b"A\n").send(b"1\n").expect_line(re.compile(rb"B.*")).send(b"2\n")

    with connect(chatty) as client:
        assert ask(client, b"PING\n") == b"pong\n"
        assert ask(client, b"A\n") == b"1\n"
        client.sendall(b"PING\nPING\n")
        assert read_exactly(client, 10) == b"pong\npong\n"
        assert ask(client, b"BCD\n", 2) == b"2\n"
        assert ask(client, b"PING\n") == b"pong\n"


def test_chatter_does_not_cost_an_optional_step(chatty: StreamTestServer) -> None:
    chatty.script().maybe(b"NOOP\n", b"noop\n").expect(b"QUIT\n").send(b"bye\n").close()

    with connect(chatty) as client:
        assert ask(client, b"PING\n") == b"pong\n"
        assert ask(client, b"NOOP\n") == b"noop\n"
        client.sendall(b"QUIT\n")
        assert read_to_end(client) == b"bye\n"


def test_a_frame_in_pieces_is_the_steps_or_the_rules_as_a_whole(sockserver: SockServer) -> None:
    """The lines of a command of Redis, say: other commands begin as it does."""
    server = sockserver.tcp(framing=resp)
    server.on(b"*1\r\n$4\r\nPING\r\n").reply(b"+PONG\r\n")
    server.dialogue("C: *1\nC: $3\nC: GET\nS: _\nC: *1\nC: $4\nC: QUIT\nS: +OK\nS! close")

    with connect(server) as client:
        for piece in (b"*1\r\n", b"$4\r\nPING", b"\r\n"):
            client.sendall(piece)
        assert client.recv(9) == b"+PONG\r\n"
        assert ask(client, b"*1\r\n$3\r\nGET\r\n") == b"_\r\n"
        assert ask(client, b"*1\r\n$4\r\nPING\r\n") == b"+PONG\r\n"
        assert ask(client, b"*1\r\n$4\r\nQUIT\r\n") == b"+OK\r\n"


def test_a_frame_in_pieces_that_nobody_takes_is_the_failure_of_its_step(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=resp)
    server.on(b"*1\r\n$4\r\nPING\r\n").reply(b"+PONG\r\n")
    server.dialogue("C: *1\nC: $3\nC: GET\nS: _")

    with server.raises(ScriptMismatch, match=r"step 3 of 4, .*, expected b'GET"), connect(server) as client:
        with pytest.raises(ConnectionResetError):
            ask(client, b"*1\r\n$3\r\nSET\r\n")


def test_a_step_that_takes_anything_takes_chatter_too(chatty: StreamTestServer) -> None:
    chatty.script().expect(ANY).send(b"1\n")

    with connect(chatty) as client:
        assert ask(client, b"PING\n") == b"1\n"


def test_what_fails_in_chatter_is_not_the_steps_failure(chatty: StreamTestServer) -> None:
    def more(request: Request) -> bytes:
        assert request.connection is not None
        request.connection.expect(b"more\n")
        return b"ok\n"

    chatty.on(b"MORE\n").reply(more)
    chatty.script().expect(b"A\n").send(b"1\n")

    with chatty.raises(ScriptMismatch) as caught:
        with connect(chatty) as client:
            client.sendall(b"MORE\nless\n")

    assert caught.value is not None
    assert caught.value.summary == "expected b'more\\n'\n  got b'less\\n' (differs at byte 0: b'l' is not b'm')"


def test_what_neither_the_step_nor_a_rule_takes_is_the_steps_failure(chatty: StreamTestServer) -> None:
    chatty.script().expect(b"A\n").send(b"1\n")

    with chatty.raises(ScriptMismatch, match=r"step 1 of 2, test_scripts.py:\d+, expected b'A\\n'"):
        with pytest.raises(ConnectionResetError), connect(chatty) as client:
            ask(client, b"B\n")


# Gates, and live driving


def test_a_gate_lets_the_test_say_when(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"a\n").send(Gate("go"), b"1\n")

    with connect(tcp_server) as client:
        client.sendall(b"a\n")
        tcp_server.wait_for(b"a\n")
        tcp_server.open_gate("go")
        assert client.recv(9) == b"1\n"


def test_a_gate_that_is_open_stays_open(tcp_server: StreamTestServer) -> None:
    tcp_server.open_gate("go")
    tcp_server.script(times=2).send(Gate("go"), b"1\n").close()

    for _ in range(2):
        with connect(tcp_server) as client:
            assert read_to_end(client) == b"1\n"


def test_one_script_opens_a_gate_for_another(tcp_server: StreamTestServer) -> None:
    tcp_server.script().send(Gate("second"), b"late\n").close()
    tcp_server.script().expect(b"x").open_gate("second").close()

    with connect(tcp_server) as first, connect(tcp_server) as second:
        second.sendall(b"x")
        assert read_to_end(first) == b"late\n"


def test_a_gate_that_nobody_opens_fails_by_name(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)
    server.script().send(Gate("go"), b"1\n")

    text = r"the gate 'go' was not opened within 0.05 s: server.open_gate\('go'\) opens it"
    with server.raises(TimeoutError, match=text):
        with pytest.raises(ConnectionResetError), connect(server) as client:
            client.recv(9)


def test_a_stop_ends_a_gate_at_once(tcp_server: StreamTestServer) -> None:
    tcp_server.script().send(Gate("go"), b"1\n")

    with connect(tcp_server) as client:
        until(lambda: tcp_server.connections)
        tcp_server.stop()
        assert client.recv(9) == b""


def test_parts_driven_by_the_test_itself(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        client.sendall(b"a\n")
        conn.expect_line(b"a")
        conn.send(b"1", Delay(0.001), lambda request: request, Close())
        assert read_to_end(client) == b"1a\n"


# Datagrams


def test_a_script_of_datagrams_answers_whoever_asked(udp_server: DatagramTestServer) -> None:
    (
        udp_server.script()
        .expect(Hex("<id:2> 01"))
        .send(Hex("00 00 81"), Hex(r"\g<id> 81"))
        .maybe(b"again", b"yes")
        .repeat(2, Script().expect(re.compile(rb"ping.*")).send(b"pong"))
    )

    with datagram_client(udp_server) as one, datagram_client(udp_server) as other:
        assert ask(one, b"\1\2\1") == b"\0\0\x81"
        assert one.recv(9) == b"\1\2\x81"
        assert ask(other, b"ping 1") == b"pong"
        assert ask(one, b"ping 2") == b"pong"


def test_datagrams_that_come_while_a_script_answers_wait(udp_server: DatagramTestServer) -> None:
    udp_server.script().expect(b"a").send(Gate("go"), b"1").expect(b"b").send(b"2")

    with datagram_client(udp_server) as client:
        client.send(b"a")
        client.send(b"b")
        until(lambda: len(udp_server.requests) == 2)
        udp_server.open_gate("go")
        assert [client.recv(9), client.recv(9)] == [b"1", b"2"]


def test_a_datagram_that_is_not_what_comes_next_is_offered_to_the_rules(udp_server: DatagramTestServer) -> None:
    udp_server.on(b"ping").reply(b"pong")
    udp_server.script().expect(b"a").send(b"1").expect(b"b").send(b"2")

    with datagram_client(udp_server) as client:
        assert ask(client, b"a") == b"1"
        assert ask(client, b"ping") == b"pong"
        assert ask(client, b"b") == b"2"
        assert ask(client, b"ping") == b"pong"


def test_a_script_of_which_only_an_optional_step_is_left_gives_way_to_the_next(udp_server: DatagramTestServer) -> None:
    udp_server.script().expect(b"a").send(b"1").maybe(b"again", b"yes")
    udp_server.script().expect(b"b").send(b"2")

    with datagram_client(udp_server) as client:
        assert ask(client, b"a") == b"1"
        assert ask(client, b"b") == b"2"


def test_a_datagram_that_nothing_takes_names_the_step(udp_server: DatagramTestServer) -> None:
    udp_server.script().expect(b"a").send(b"1")

    with udp_server.raises(ScriptMismatch, match=r"step 1 of 2, test_scripts.py:\d+, expected b'a'\n  got b'b'"):
        with datagram_client(udp_server) as client:
            client.send(b"b")


def test_scripts_of_threads_at_once(tcp_server: StreamTestServer) -> None:
    tcp_server.script(times=20).expect(b"a\n").send(lambda request: request).close()
    start = threading.Barrier(20)

    def client() -> bytes:
        with connect(tcp_server) as sock:
            start.wait(PATIENCE)
            sock.sendall(b"a\n")
            return read_to_end(sock)

    clients = [tcp_server.in_thread(client) for _ in range(20)]

    assert [each.result() for each in clients] == [b"a\n"] * 20
    with pytest.raises(UnexpectedRequest):
        try:
            client_result = tcp_server.in_thread(lambda: connect(tcp_server).close())
            client_result.exception()
            tcp_server.wait_connection(20)
        finally:
            tcp_server.verify()
