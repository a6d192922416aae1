"""Requests without a byte: empty datagrams, and streams that their client ends before it has sent anything."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Generator
from typing import Any

import anyio
import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    EOF,
    Connection,
    DatagramTestServer,
    DeadlineExceeded,
    EndOfStream,
    Hex,
    Request,
    Script,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    UnmetExpectation,
    lines,
    until_eof,
)
from pytest_sockserver.faults import Hold
from pytest_sockserver.scripting.buffer import Buffer
from pytest_sockserver.scripting.framing import Cutter, may_be_empty
from pytest_sockserver.scripting.matching import Shape

from . import insides
from .peers import connect, datagram_client, read_to_end, reset, until
from .plugin_runs import Runner
from .reading import Ended, EndedWithin, agrees, take_frame

# Datagrams


@pytest.fixture(params=["udp", "unix_datagram"])
def datagrams(request: pytest.FixtureRequest, sockserver: SockServer) -> DatagramTestServer:
    return getattr(sockserver, request.param)()


def answer(server: DatagramTestServer, data: bytes = b"") -> bytes:
    """Send one datagram, and return the reply to it."""
    with datagram_client(server) as client:
        client.send(data)
        return client.recv(100)


@pytest.mark.parametrize("match", [b"", bytearray(b""), Hex(""), Text(""), re.compile(rb"\d*"), lambda data: not data])
def test_a_rule_matches_an_empty_datagram(datagrams: DatagramTestServer, match: Any) -> None:
    """RFC 868: the request of the Time Protocol over UDP is an empty datagram."""
    datagrams.on(match, times=1).reply(b"\xe0\0\0\0")

    assert answer(datagrams) == b"\xe0\0\0\0"
    assert datagrams.requests == [b""]


def test_an_empty_literal_takes_no_other_datagram(datagrams: DatagramTestServer) -> None:
    datagrams.on(b"").reply(b"empty")
    datagrams.on(ANY).reply(b"any")

    assert [answer(datagrams, each) for each in (b"", b"x", b"")] == [b"empty", b"any", b"empty"]


def test_an_empty_datagram_that_no_rule_matches_is_a_failure(udp_server: DatagramTestServer) -> None:
    udp_server.on(b"x").reply(b"y")

    with udp_server.raises(UnexpectedRequest, match="b''"), datagram_client(udp_server) as client:
        client.send(b"")


def test_waits_find_an_empty_datagram(datagrams: DatagramTestServer) -> None:
    with datagram_client(datagrams) as client:
        client.send(b"x")
        client.send(b"")
        client.send(b"")

        assert datagrams.wait_for(b"") == b""
        assert datagrams.wait_for(Hex(""), count=2) == b""
        request = datagrams.next_request(b"")
        request.reply(b"got it", b"")
        assert [client.recv(100), client.recv(100)] == [b"got it", b""]
    assert datagrams.requests == [b"x", b"", b""]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_coroutines_find_an_empty_datagram(udp_server: DatagramTestServer, backend: str) -> None:
    async def found() -> list[Request]:
        return [await udp_server.aio.wait_for(b""), await udp_server.aio.next_request(b"")]

    with datagram_client(udp_server) as client:
        client.send(b"")

        assert anyio.run(found, backend=backend) == [b"", b""]


@pytest.mark.parametrize("match", [b"", bytearray(b""), Hex(""), Text("")])
def test_a_script_expects_an_empty_datagram(datagrams: DatagramTestServer, match: Any) -> None:
    datagrams.script().expect(b"HELO").send(b"who").expect(match).send(b"bye")

    assert [answer(datagrams, b"HELO"), answer(datagrams)] == [b"who", b"bye"]


def test_a_script_may_be_asked_by_an_empty_datagram(datagrams: DatagramTestServer) -> None:
    datagrams.script().maybe(b"", b"pong").expect(b"end").send(b"bye")

    assert [answer(datagrams), answer(datagrams, b"end")] == [b"pong", b"bye"]


def test_a_part_of_a_script_expects_an_empty_datagram(datagrams: DatagramTestServer) -> None:
    datagrams.script().repeat(2, Script().expect(b"").send(b"pong")).extend(Script().maybe(b"", b"x").expect(b"end"))

    assert [answer(datagrams), answer(datagrams), answer(datagrams)] == [b"pong", b"pong", b"x"]
    with datagram_client(datagrams) as client:
        client.send(b"end")


def test_a_part_that_expects_no_byte_cannot_stand_in_a_stream(tcp_server: StreamTestServer) -> None:
    for declare in (tcp_server.script().extend, lambda part: tcp_server.script().repeat(2, part)):
        with pytest.raises(ValueError, match=r"^expect\(\) expected at least one byte"):
            declare(Script().expect(b""))
    tcp_server.clear()


def test_optional_datagrams_are_told_apart_as_wholes(udp_server: DatagramTestServer) -> None:
    udp_server.script().maybe(b"AB", b"x").expect(b"ABC").send(b"y")

    assert answer(udp_server, b"ABC") == b"y"


def test_a_script_that_waits_for_an_empty_datagram_is_unmet(udp_server: DatagramTestServer) -> None:
    udp_server.script().expect(b"").send(b"bye")

    with pytest.raises(UnmetExpectation, match="expected b''"):
        udp_server.verify()


@pytest.mark.parametrize("line", ["C:", "C-", "Cx", "C~ .{0}"])
def test_a_dialogue_has_empty_datagrams_both_ways(datagrams: DatagramTestServer, line: str) -> None:
    datagrams.dialogue(f"""
        {line}
        S:
        S: end
    """)

    with datagram_client(datagrams) as client:
        client.send(b"")
        assert [client.recv(100), client.recv(100)] == [b"", b"end"]


def test_rules_of_a_dialogue_match_empty_datagrams(udp_server: DatagramTestServer) -> None:
    udp_server.dialogue("""
        % rules
        C:
        S: pong
        % end
        C: end
        S:
    """)

    assert [answer(udp_server), answer(udp_server), answer(udp_server, b"end")] == [b"pong", b"pong", b""]


def test_what_is_written_of_empty_datagrams_reads_back(sockserver: SockServer) -> None:
    first, second = sockserver.udp(), sockserver.udp()
    first.on(b"").reply(b"", b"end")
    with datagram_client(first) as client:
        client.send(b"")
        assert [client.recv(100), client.recv(100)] == [b"", b"end"]

    second.dialogue(insides.told_so_far(first))

    with datagram_client(second) as client:
        client.send(b"")
        assert [client.recv(100), client.recv(100)] == [b"", b"end"]


@pytest.mark.parametrize("declare", [lambda s: s.on(ANY).reply(b""), lambda s: s.handler(lambda request: b"")])
def test_an_empty_reply_is_an_empty_datagram(datagrams: DatagramTestServer, declare: Any) -> None:
    declare(datagrams)

    assert answer(datagrams, b"x") == b""


def test_an_empty_reply_lets_a_held_one_go(udp_server: DatagramTestServer) -> None:
    """A reply is counted by its datagrams and not by their bytes."""
    udp_server.on(b"1").reply(Hold(b"late", 1))
    udp_server.on(b"2").reply(b"")

    with datagram_client(udp_server) as client:
        client.send(b"1")
        client.send(b"2")
        assert [client.recv(100), client.recv(100)] == [b"", b"late"]


# Streams


@pytest.fixture(params=["tcp", "unix", "tls"])
def streams(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    server: StreamTestServer = getattr(sockserver, request.param)()
    server.framing = until_eof
    return server


class HalfClosing:
    """A TLS client that can end its own half and go on reading, which Python's SSLSocket cannot."""

    def __init__(self, server: StreamTestServer) -> None:
        self.sock = connect(server)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = server.client_context().wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self._done(self.tls.do_handshake)

    def __enter__(self) -> HalfClosing:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def sendall(self, data: bytes) -> None:
        self._done(lambda: self.tls.write(data))

    def recv(self, size: int) -> bytes:
        try:
            return self._done(lambda: self.tls.read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def shutdown(self, how: int) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()  # which writes close_notify
        self._flush()

    def _done(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                self._flush()
                if data := self.sock.recv(65536):
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        self.sock.sendall(self.outgoing.read())


def connected(server: StreamTestServer) -> Any:
    return HalfClosing(server) if server.transport == "tls" else connect(server)


def end(client: Any) -> None:
    """End the client's half."""
    client.shutdown(socket.SHUT_WR)


def send_nothing(server: StreamTestServer) -> bytes:
    """End a stream without having sent a byte; return the reply."""
    with connected(server) as client:
        end(client)
        return read_to_end(client)


def probe(server: StreamTestServer) -> None:
    """Connect and close, as one does that only wants to know whether a port is open."""
    before = len(server.connections)
    with connected(server) as client:
        if server.transport == "tls":  # a close over a session ticket that was not read would be a reset
            end(client)
            server.wait_connection(before).wait_closed()
    server.wait_connection(before).wait_closed()


def yields_eof() -> Generator[Any, bytes, None]:
    yield EOF


def yields_nothing_then_eof() -> Generator[Any, bytes, None]:
    yield 0
    yield EOF


def delegates() -> Generator[Any, bytes, None]:
    yield from until_eof()


MATCHES = [ANY, b"", Hex(""), re.compile(rb"[a-z]*"), lambda data: len(data) < 3]


@pytest.mark.parametrize("match", MATCHES)
def test_a_rule_matches_an_empty_stream(streams: StreamTestServer, match: Any) -> None:
    streams.on(match, times=1).reply(lambda request: b"%d bytes" % len(request))

    assert send_nothing(streams) == b"0 bytes"
    assert streams.requests == [b""]
    assert streams.connections[0].requests == [b""]


@pytest.mark.parametrize("framing", [yields_eof, yields_nothing_then_eof, delegates])
def test_a_framing_of_ones_own_that_begins_with_the_end(tcp_server: StreamTestServer, framing: Any) -> None:
    tcp_server.framing = framing
    tcp_server.on(b"").reply(b"empty")
    tcp_server.on(b"x").reply(b"one")

    with connect(tcp_server) as client:
        client.sendall(b"x")
        end(client)
        assert read_to_end(client) == b"one"
    assert send_nothing(tcp_server) == b"empty"
    assert tcp_server.requests == [b"x", b""]


def test_an_empty_stream_is_one_request_and_not_many(streams: StreamTestServer) -> None:
    streams.on(ANY).reply(b"once")

    assert send_nothing(streams) == b"once"
    with connected(streams) as client:
        client.sendall(b"x")
        end(client)
        assert read_to_end(client) == b"once"
    assert streams.requests == [b"", b"x"]


def test_a_full_close_is_an_empty_request_as_well(streams: StreamTestServer) -> None:
    streams.on(ANY).reply(b"too late")

    probe(streams)

    until(lambda: streams.requests == [b""])


def test_a_reset_is_no_empty_request(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    tcp_server.on(ANY).reply(b"x")

    reset(connect(tcp_server))

    tcp_server.wait_connection().wait_closed()
    tcp_server.verify()
    assert tcp_server.requests == []


NO_MATCHES = [b"x", Hex("??"), re.compile(rb".+", re.DOTALL), lambda data: data[0] == 1, CONNECT]


@pytest.mark.parametrize("match", NO_MATCHES)
def test_a_probe_is_nothing_where_no_rule_could_match_it(streams: StreamTestServer, match: Any) -> None:
    streams.on(match).reply(b"x")

    probe(streams)

    streams.verify()
    assert streams.requests == []


@pytest.mark.parametrize("framing", [lines(), None])
def test_a_probe_is_nothing_where_frames_do_not_begin_with_the_end(sockserver: SockServer, framing: Any) -> None:
    server = sockserver.tcp(framing=framing)
    server.on(ANY if framing is not None else b"x").reply(b"x")

    probe(server)

    server.verify()
    assert server.requests == []


def test_a_rule_is_not_used_more_often_than_it_may_be(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    tcp_server.on(b"", times=1).reply(b"once")
    assert send_nothing(tcp_server) == b"once"

    with tcp_server.raises(UnexpectedRequest), pytest.raises(ConnectionResetError):
        send_nothing(tcp_server)

    assert tcp_server.requests == [b"", b""]


@pytest.mark.parametrize("framing", [None, lines(), lines(b"\n")])
def test_a_rule_for_no_byte_is_refused_where_there_can_be_no_such_request(sockserver: SockServer, framing: Any) -> None:
    server = sockserver.tcp(framing=framing)

    for match in (b"", bytearray(b""), Hex(""), Text("")):
        with pytest.raises(ValueError) as raised:
            server.on(match)
        assert str(raised.value) == (
            "on() expected at least one byte; a new connection is CONNECT, "
            "and a stream without a byte is a request where framing=until_eof was set before"
        )


def test_a_rule_for_no_byte_is_refused_where_the_framing_is_taken_away(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    tcp_server.on(b"").reply(b"x")
    tcp_server.framing = None

    with tcp_server.raises(TypeError, match=r"on\(b''\) matches a stream without a byte"):
        # The server resets as soon as it has accepted: sometimes before connect() has returned.
        with contextlib.suppress(ConnectionResetError), connect(tcp_server) as client:
            client.sendall(b"x")
            client.recv(1)


def test_rules_that_come_after_their_client(streams: StreamTestServer) -> None:
    with connected(streams) as client:
        end(client)
        streams.wait_connection().wait_closed()
        streams.on(b"x").reply(b"no")
        streams.on(b"").reply(b"empty")

        assert read_to_end(client) == b"empty"
    assert streams.requests == [b""]


def test_rules_from_here_on(streams: StreamTestServer) -> None:
    """After a line of another framing the rest is a request too, though it has no byte."""
    streams.framing = None
    streams.on(b"PUT").reply(b"unused")

    @streams.handler
    def put(conn: Connection) -> None:
        conn.recv_line()
        for body in conn.frames(until_eof):
            conn.send(b"%d bytes" % len(body))

    with connected(streams) as client:
        client.sendall(b"PUT x\n")
        end(client)
        assert read_to_end(client) == b"0 bytes"


# Streams: handlers, scripts and waits


def test_frames_of_an_empty_stream(streams: StreamTestServer) -> None:
    @streams.handler
    def count(conn: Connection) -> None:
        for request in conn.frames():
            conn.send(b"%d bytes;" % len(request))

    assert send_nothing(streams) == b"0 bytes;"
    assert streams.requests == [b""]


@pytest.mark.parametrize("framing", [until_eof, lines(), None])
def test_all_of_an_empty_stream_is_a_request_where_a_frame_may_be_empty(
    streams: StreamTestServer, framing: Any
) -> None:
    streams.framing = framing
    streams.handler(lambda conn: conn.send(b"%d bytes" % len(conn.recv_all())))

    assert send_nothing(streams) == b"0 bytes"
    assert streams.requests == ([b""] if framing is until_eof else [])


def test_the_rest_after_a_line_is_no_request_if_it_has_no_byte(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def drain(conn: Connection) -> None:
        conn.recv_line()
        assert conn.recv_all() == b""
        with pytest.raises(EndOfStream):
            conn.recv_all()
        assert list(conn.frames(until_eof)) == []

    with connect(tcp_server) as client:
        client.sendall(b"x\n")
        end(client)
        read_to_end(client)
    assert tcp_server.requests == [b"x\n"]


@pytest.mark.parametrize("match", [ANY, re.compile(rb"[a-z]*"), lambda data: data == b""])
def test_a_script_expects_an_empty_stream(streams: StreamTestServer, match: Any) -> None:
    streams.script().send(b"hello ").expect(match).send(b"bye")

    assert send_nothing(streams) == b"hello bye"
    assert streams.requests == [b""]


@pytest.mark.parametrize("match", [re.compile(rb".+"), lambda data: data[0] == 1])
def test_a_script_that_expects_something_else(tcp_server: StreamTestServer, match: Any) -> None:
    tcp_server.framing = until_eof
    tcp_server.script().expect(match)

    with tcp_server.raises(ScriptMismatch, match="got the end of the stream"):
        with connect(tcp_server) as client:
            end(client)
            with contextlib.suppress(ConnectionResetError):
                client.recv(1)


def test_what_a_step_does_not_match_is_offered_to_the_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    tcp_server.on(b"").reply(b"empty")
    tcp_server.script().expect(re.compile(rb".+"))

    with tcp_server.raises(ScriptMismatch), connect(tcp_server) as client:
        end(client)
        assert client.recv(100) == b"empty"


def test_what_literal_steps_do_not_match_is_offered_to_the_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    tcp_server.on(b"").reply(b"empty")
    tcp_server.script().expect(b"a").expect(b"b")

    with tcp_server.raises(ScriptMismatch), connect(tcp_server) as client:
        end(client)
        assert client.recv(100) == b"empty"


@pytest.mark.parametrize("is_held", [True, False])
def test_after_a_script_the_rules_answer_an_empty_stream(streams: StreamTestServer, is_held: bool) -> None:
    streams.on(ANY).reply(b"empty")
    script = streams.script().send(b"hello ")
    if not is_held:
        del script

    assert send_nothing(streams) == b"hello empty"


def test_a_script_that_took_the_end_leaves_none_to_the_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    tcp_server.on(ANY).reply(b"empty")
    tcp_server.script().expect_eof().send(b"bye")

    assert send_nothing(tcp_server) == b"bye"
    assert tcp_server.requests == []


def test_the_test_itself_reads_an_empty_stream(streams: StreamTestServer) -> None:
    with connected(streams) as client:
        end(client)
        conn = streams.accept()

        assert conn.expect(ANY) == b""
        with pytest.raises(ScriptMismatch):
            conn.expect(ANY)
        conn.send(b"ok")
        assert client.recv(2) == b"ok"
    assert streams.requests == [b""]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_coroutine_reads_an_empty_stream(tcp_server: StreamTestServer, backend: str) -> None:
    tcp_server.framing = until_eof

    async def read() -> list[bytes]:
        conn = await tcp_server.aio.accept()
        return [frame async for frame in conn.frames()]

    with connect(tcp_server) as client:
        end(client)
        assert anyio.run(read, backend=backend) == [b""]
    assert tcp_server.requests == [b""]


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("verb", ["wait_for", "next_request"])
def test_a_wait_makes_a_request_of_an_empty_stream(streams: StreamTestServer, match: Any, verb: str) -> None:
    probe(streams)
    assert streams.requests == []

    assert getattr(streams, verb)(match) == b""
    assert streams.requests == [b""]


def test_a_wait_that_began_before(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    waiting = tcp_server.in_thread(tcp_server.wait_for, b"")

    probe(tcp_server)

    assert waiting.result() == b""


def test_a_wait_for_something_else_passes_probes_over(streams: StreamTestServer) -> None:
    probe(streams)
    with connected(streams) as client:
        client.sendall(b"data")
        end(client)
        streams.wait_for(lambda data: data[0] == ord("d"))

    assert streams.requests == [b"data"]
    with pytest.raises(DeadlineExceeded):
        streams.wait_for(b"other", timeout=0.05)
    assert streams.requests == [b"data"]


def test_a_connection_that_is_open_when_the_server_stops_is_no_empty_request(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = until_eof
    with connect(tcp_server):
        tcp_server.wait_connection()
        tcp_server.stop()

    assert insides.recorder(tcp_server).requests == []


def test_a_probe_beside_a_request_in_a_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runner(pytester, monkeypatch)(
        """
        from client import connect
        from pytest_sockserver import until_eof
        import socket

        def test_probed(tcp_server):
            tcp_server.framing = until_eof
            tcp_server.on(b"x", times=1).reply(b"y")
            connect(tcp_server).close()
            with connect(tcp_server) as client:
                client.sendall(b"x")
                client.shutdown(socket.SHUT_WR)
                assert client.recv(9) == b"y"
            assert tcp_server.requests == [b"x"]

        def test_empty_and_not_answered(tcp_server):
            tcp_server.framing = until_eof
            tcp_server.on(b"", times=1).reply(b"y")
            with connect(tcp_server) as client:
                client.sendall(b"x")
        """
    )

    assert run.phases("test_probed") == ["call passed"]
    assert run.phases("test_empty_and_not_answered") == ["call failed"]


# Without a socket


def ended() -> Buffer:
    buffer = Buffer()
    buffer.ended = True
    return buffer


def test_the_end_is_taken_once() -> None:
    buffer = ended()

    with pytest.raises(StopIteration) as frame:
        next(take_frame(buffer, until_eof, 100))
    assert frame.value.value == b""
    with pytest.raises(Ended):
        next(take_frame(buffer, until_eof, 100))


def test_the_end_that_a_frame_went_through_is_no_further_one() -> None:
    buffer = ended()
    buffer.feed(b"all")

    with pytest.raises(StopIteration) as frame:
        next(take_frame(buffer, until_eof, 100))
    assert frame.value.value == b"all"
    with pytest.raises(Ended):
        next(take_frame(buffer, until_eof, 100))


def test_a_broken_end_is_no_frame() -> None:
    buffer = ended()
    buffer.broken = True

    with pytest.raises(Ended):
        next(take_frame(buffer, until_eof, 100))


def test_a_frame_without_a_byte_needs_the_end() -> None:
    def asks_for_nothing() -> Generator[Any, bytes, None]:
        yield 0

    with pytest.raises(ValueError, match="took nothing"):
        next(take_frame(ended(), asks_for_nothing, 100))


def test_more_after_the_end_is_missing() -> None:
    def asks_for_more() -> Generator[Any, bytes, None]:
        yield EOF
        yield 1

    buffer = ended()
    with pytest.raises(Ended):
        next(take_frame(buffer, asks_for_more, 100))
    buffer.feed(b"x")
    with pytest.raises(EndedWithin):
        next(take_frame(buffer, asks_for_more, 100))


def test_a_cutter_cuts_the_empty_frame_once() -> None:
    cutter = Cutter(until_eof, 100)

    assert (cutter.end(), cutter.end()) == ([b""], [])
    cutter = Cutter(until_eof, 100)
    assert (cutter.feed(b"x"), cutter.end(), cutter.end()) == ([], [b"x"], [])


def test_an_empty_frame_is_not_that_of_literals() -> None:
    with pytest.raises(StopIteration) as done:
        next(agrees(ended(), until_eof, 100, iter([Shape(b"a"), Shape(b"b")])))

    assert done.value.value == 0


@pytest.mark.parametrize(
    ("framing", "may"),
    [(until_eof, True), (yields_eof, True), (yields_nothing_then_eof, True), (delegates, True), (lines(), False)],
)
def test_which_framings_have_empty_frames(framing: Any, may: bool) -> None:
    assert may_be_empty(framing) is may
