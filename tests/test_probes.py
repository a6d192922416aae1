"""Clients that connect and leave without a byte: a failure that names ``ignore_probes``, and with it nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    DATA,
    HANDSHAKE,
    Close,
    Connection,
    DatagramTestServer,
    DeadlineExceeded,
    Delay,
    Gate,
    ScriptMismatch,
    SockServer,
    StartTLS,
    StreamTestServer,
    UnexpectedRequest,
    UnmetExpectation,
    lines,
    until_eof,
)
from pytest_sockserver.connection import probes
from pytest_sockserver.faults import Prepend
from pytest_sockserver.recording.recorder import RECEIVING, WAITING
from pytest_sockserver.transport.tapped_socket import ready

from . import insides
from .peers import PATIENCE, connect, read_exactly, read_to_end, reset, until
from .plugin_runs import Runner

HINT = "the client has left without sending a byte: if that is a probe of the port, the option ignore_probes=True"
REMARK = "a probe, ignored: the client has left without sending a byte"


def leave(server: Any) -> None:
    connect(server).close()


def leave_by_reset(server: Any) -> None:
    """On a unix socket, which has no reset, close."""
    client = connect(server)
    if client.family == socket.AF_INET:
        reset(client)
    client.close()


def leave_by_half(server: Any) -> None:
    client = connect(server)
    client.shutdown(socket.SHUT_WR)
    client.close()


def leave_three_times(server: Any) -> None:
    for _ in range(3):
        leave(server)


@pytest.fixture(params=[leave, leave_by_reset, leave_by_half, leave_three_times])
def probe(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    return request.param


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)(ignore_probes=True)


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


def ask(server: Any, request: bytes, size: int, greeting: bytes = b"", *, end: bool = False) -> bytes:
    with connect(server) as client:
        assert read_exactly(client, len(greeting)) == greeting
        client.sendall(request)
        if end:
            client.shutdown(socket.SHUT_WR)
        return read_exactly(client, size)


def be_reset(server: Any) -> None:
    """Connect to a server that may be faster with its reset than this kernel with the connection."""
    with contextlib.suppress(ConnectionResetError), connect(server) as client:
        assert read_to_end(client) == b""


def remarks(server: StreamTestServer, index: int) -> list[str]:
    return [each.data.decode() for each in server.connections[index].events if each.kind == "note"]


# Without the option


def test_a_script_that_meets_a_probe_names_the_option(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"PING\n").send(b"PONG\n")

    with tcp_server.raises(ScriptMismatch) as first:
        leave(tcp_server)

    assert f"expected b'PING\\n'\n  got the end of the stream\n  {HINT} ignores it\n" in str(first.value)
    with tcp_server.raises(UnexpectedRequest) as second:
        be_reset(tcp_server)
    assert HINT.replace("client has", "client of connection 0 has") in str(second.value)


@pytest.mark.parametrize("verb", ["recv_line", "recv_exactly"])
def test_a_step_that_only_reads_names_the_option_as_well(tcp_server: StreamTestServer, verb: str) -> None:
    script = tcp_server.script()
    script.recv_line() if verb == "recv_line" else script.recv_exactly(2)

    with tcp_server.raises(ScriptMismatch, match="ignore_probes=True"):
        leave(tcp_server)


def test_a_greeting_that_no_probe_waits_for_names_the_option(tcp_server: StreamTestServer) -> None:
    tcp_server.script().send(Gate("gone"), b"220 hi\r\n").expect(b"QUIT\r\n")

    with tcp_server.raises((UnmetExpectation, ScriptMismatch), match="ignore_probes=True"):
        leave_by_reset(tcp_server)
        until(lambda: tcp_server.connections)
        tcp_server.open_gate("gone")


def test_a_handler_that_expects_names_the_option(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lambda conn: conn.expect(b"PING\n") and None)

    with tcp_server.raises(ScriptMismatch, match="ignore_probes=True"):
        leave(tcp_server)


def test_a_greeting_used_up_by_a_probe_names_the_option(tcp_server: StreamTestServer) -> None:
    tcp_server.on(CONNECT, times=1).reply(b"hi\n")
    leave(tcp_server)
    until(lambda: tcp_server.connections and tcp_server.connections[0].closed_by)

    with tcp_server.raises(UnexpectedRequest, match="client of connection 0 has left without sending a byte"):
        be_reset(tcp_server)


def test_a_client_that_sent_something_and_left_is_no_probe(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"PING\n")

    with tcp_server.raises(ScriptMismatch) as raised:
        with connect(tcp_server) as client:
            client.sendall(b"PI")
    assert "ignore_probes" not in str(raised.value)


# With it: scripts


def test_a_script_is_left_for_the_next_client(server: StreamTestServer, probe: Callable[[Any], None]) -> None:
    server.script().expect(b"PING\n").send(b"PONG\n")
    probe(server)

    assert ask(server, b"PING\n", 5) == b"PONG\n"

    until(lambda: server.connections[0].closed_by == "client")
    assert server.connections[-1].received == b"PING\n"
    until(lambda: REMARK in remarks(server, 0))


def test_a_script_that_greets_is_left_for_the_next_client(
    server: StreamTestServer, probe: Callable[[Any], None]
) -> None:
    server.script().send(b"220 hi\r\n").expect(b"QUIT\r\n").send(b"221 bye\r\n").close()
    probe(server)

    assert ask(server, b"QUIT\r\n", 9, b"220 hi\r\n") == b"221 bye\r\n"


def test_scripts_are_left_in_their_order(server: StreamTestServer, probe: Callable[[Any], None]) -> None:
    for each in (b"1", b"2", b"3"):
        server.script().expect(b"?").send(each)

    for each in (b"1", b"2", b"3"):
        probe(server)
        assert ask(server, b"?", 1) == each


def test_sections_of_a_dialogue_are_left_in_their_order(server: StreamTestServer) -> None:
    server.dialogue("== 0\nS: hi\nC: a\nS: 1\n== 1\nC: b\nS: 2")
    leave(server)
    assert ask(server, b"a\r\n", 3, b"hi\r\n") == b"1\r\n"
    leave(server)
    assert ask(server, b"b\r\n", 3) == b"2\r\n"


def test_a_probe_before_the_script_is_declared(server: StreamTestServer, probe: Callable[[Any], None]) -> None:
    """The usual readiness check of a fixture."""
    probe(server)
    server.script().expect(b"PING\n").send(b"PONG\n")

    assert ask(server, b"PING\n", 5) == b"PONG\n"


@pytest.mark.parametrize("declared", ["script", "greeting"])
def test_a_probe_that_nothing_is_left_for(
    sockserver: SockServer, declared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves a moment after its connection's thread has begun."""
    waits = threading.Event()

    def watched(sock: socket.socket, write: bool, seconds: float | None) -> bool:
        if seconds:
            waits.set()
        return ready(sock, write, seconds)

    monkeypatch.setattr(probes, "_LEAVING", 30.0)
    monkeypatch.setattr(probes, "ready", watched)
    server = sockserver.tcp(ignore_probes=True)
    if declared == "script":
        server.script().expect(b"PING\n").send(b"PONG\n")
    else:
        server.framing = lines(b"\n")
        server.on(CONNECT, times=1)
        server.on(b"PING\n").reply(b"PONG\n")
    assert ask(server, b"PING\n", 5) == b"PONG\n"
    probe = connect(server)
    assert waits.wait(PATIENCE)
    probe.close()

    until(lambda: REMARK in remarks(server, 1))
    server.verify()


def test_a_probe_that_leaves_later_gives_its_script_to_who_waits(server: StreamTestServer) -> None:
    server.script().expect(b"PING\n").send(b"PONG\n")
    probe = connect(server)
    server.wait_connection()
    with connect(server) as client:
        client.sendall(b"PING\n")
        server.wait_connection(1)
        probe.close()

        assert read_exactly(client, 5) == b"PONG\n"


def test_a_probe_and_a_client_before_the_script(server: StreamTestServer) -> None:
    probe = connect(server)
    with connect(server) as client:
        server.wait_connection(1)
        server.script().expect(b"PING\n").send(b"PONG\n")
        client.sendall(b"PING\n")
        probe.close()

        assert read_exactly(client, 5) == b"PONG\n"


def test_one_too_many_is_one_too_many_when_the_first_has_sent_something(server: StreamTestServer) -> None:
    server.script().expect(b"PING\n").send(b"PONG\n").expect_eof()
    with connect(server) as first, server.raises(UnexpectedRequest, match="expected no further connection"):
        first.sendall(b"PING\n")
        assert read_exactly(first, 5) == b"PONG\n"
        be_reset(server)


def test_one_too_many_waits_no_longer_than_the_timeout(sockserver: SockServer) -> None:
    server = sockserver.tcp(ignore_probes=True, timeout=0.1)
    server.on(CONNECT, times=(0, 1))
    with connect(server), server.raises(UnexpectedRequest, match="greets only once"):
        until(lambda: server.connections and insides.tape(server.connections[0]).state in (WAITING, RECEIVING))
        be_reset(server)


def test_a_client_that_only_listens_completes_a_script_that_demands_nothing(server: StreamTestServer) -> None:
    server.script().send(b"12:00\n")
    with connect(server) as client:
        assert read_exactly(client, 6) == b"12:00\n"

    server.stop()
    server.verify()


@pytest.mark.parametrize("verb", ["send", "expect"])
def test_a_probe_that_meets_half_a_script_leaves_it_whole(
    server: StreamTestServer, probe: Callable[[Any], None], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that comes again and again while the test declares: known is what is demanded when all is there."""
    monkeypatch.setattr("pytest_sockserver.responders.declaration.PATIENCE", 30.0)
    script = server.script().send(b"220 hi\r\n")
    probe(server)
    until(lambda: server.connections and server.connections[0].closed_by)
    if verb == "send":
        script.send(b"250 hello\r\n")
    script.expect(b"QUIT\r\n").send(b"221 bye\r\n").close()
    greeting = b"220 hi\r\n250 hello\r\n" if verb == "send" else b"220 hi\r\n"

    assert ask(server, b"QUIT\r\n", 9, greeting) == b"221 bye\r\n"


def test_a_script_under_probes_all_the_time(sockserver: SockServer) -> None:
    server, over = sockserver.tcp(ignore_probes=True), threading.Event()

    def leave_again_and_again() -> None:
        while not over.is_set():
            leave(server)

    leaving = server.in_thread(leave_again_and_again)
    until(lambda: len(server.connections) > 3)
    server.script().send(b"hi\n").expect(b"1\n").send(b"a").expect(b"2\n").send(b"b").close()
    assert ask(server, b"1\n2\n", 2, b"hi\n") == b"ab"
    over.set()
    leaving.result()


def test_an_empty_request_after_a_line_is_of_no_probe(server: StreamTestServer) -> None:
    server.framing = until_eof
    server.on(b"").reply(b"nothing more")

    @server.handler
    def converse(conn: Connection) -> None:
        conn.recv_line()
        conn.rules()

    assert ask(server, b"hi\n", 12, end=True) == b"nothing more"


def test_a_script_whose_only_clients_were_probes_is_missing(server: StreamTestServer) -> None:
    server.script().send(b"hi\n").expect(b"PING\n")
    leave(server)
    until(lambda: server.connections and server.connections[0].closed_by)

    with pytest.raises(UnmetExpectation, match="was not taken: no connection came for it"):
        server.verify()


def test_a_probe_under_a_slow_greeting_is_found_by_the_verdict(server: StreamTestServer) -> None:
    server.script().send(Delay(30.0), b"hi\n").expect(b"PING\n")
    leave(server)
    until(lambda: server.connections)

    with pytest.raises(UnmetExpectation, match="was not taken: no connection came for it"):
        server.verify()


def test_a_client_that_left_within_its_request_fails_as_ever(server: StreamTestServer) -> None:
    server.script().expect(b"PING\n")
    with server.raises(ScriptMismatch):
        with connect(server) as client:
            client.sendall(b"P")


# Rules, handlers, limits


def test_a_greeting_is_left_for_the_next_client(server: StreamTestServer, probe: Callable[[Any], None]) -> None:
    server.framing = lines(b"\n")
    server.on(CONNECT, times=2).reply(b"first\n").then(b"second\n")
    server.on(ANY).reply(b"ok\n")

    for greeting in (b"first\n", b"second\n"):
        probe(server)
        assert ask(server, b"x\n", 3, greeting) == b"ok\n"


def test_a_hit_of_an_injection_is_left_for_the_next_client(
    server: StreamTestServer, probe: Callable[[Any], None]
) -> None:
    server.on(CONNECT).reply(b"hello")
    server.on(b"hi").reply(b"ho")
    injection = server.inject(b"HELLO", times=1)

    probe(server)

    assert ask(server, b"hi", 2, greeting=b"HELLO") == b"ho"
    assert ask(server, b"hi", 2, greeting=b"hello") == b"ho"
    assert injection.count == 1


def test_a_hit_of_what_is_received_is_left_for_the_next_client(
    server: StreamTestServer, probe: Callable[[Any], None]
) -> None:
    server.on(b"hi").reply(b"ho")
    server.inject(Prepend(DATA, b"h"), direction="received", times=1)

    probe(server)

    assert ask(server, b"i", 2) == b"ho"


def test_an_injection_that_has_hit_only_probes_is_missing(server: StreamTestServer) -> None:
    server.on(CONNECT).reply(b"hello")
    server.inject(b"HELLO")

    leave(server)

    with pytest.raises(UnmetExpectation, match="was to hit at least once, and never did"):
        server.verify()


def test_a_handler_is_quiet_about_a_probe(server: StreamTestServer, probe: Callable[[Any], None]) -> None:
    @server.handler
    def converse(conn: Connection) -> None:
        conn.send(b"hi\n")
        conn.expect_line(b"PING")
        conn.send(b"PONG\n")

    probe(server)
    assert ask(server, b"PING\n", 5, b"hi\n") == b"PONG\n"


def test_what_a_handler_makes_of_a_probe_is_a_remark(server: StreamTestServer) -> None:
    @server.handler
    def converse(conn: Connection) -> None:
        if not conn.recv():
            raise ValueError("nothing")
        conn.send(b"ok")

    leave(server)
    until(lambda: server.connections and any("ValueError" in each for each in remarks(server, 0)))
    assert ask(server, b"hi", 2) == b"ok"


def test_a_handler_that_fails_before_the_client_has_left_fails_the_test(server: StreamTestServer) -> None:
    @server.handler
    def converse(conn: Connection) -> None:
        raise ValueError("its own")

    with server.raises(ValueError, match="its own"):
        be_reset(server)


def test_a_probe_does_not_count_against_the_limit(server: StreamTestServer, probe: Callable[[Any], None]) -> None:
    server.handler(lambda conn: conn.send(conn.recv_line()))
    server.limit_connections(1, Close())

    probe(server)
    assert ask(server, b"hi\n", 3) == b"hi\n"


# accept()


def test_accept_skips_probes(server: StreamTestServer, probe: Callable[[Any], None]) -> None:
    probe(server)
    with connect(server) as client:
        conn = server.accept()
        client.sendall(b"hi\n")

        assert conn.recv_line() == b"hi\n"
        assert conn.index > 0
        until(lambda: REMARK in remarks(server, 0))


def test_accept_that_waits_skips_probes(server: StreamTestServer) -> None:
    def come() -> bytes:
        leave_three_times(server)
        return ask(server, b"hi\n", 3)

    client = server.in_thread(come)
    conn = server.accept()
    conn.send(conn.recv_line())

    assert client.result() == b"hi\n"


def test_accept_does_not_wait_for_the_client_to_speak(server: StreamTestServer) -> None:
    with connect(server) as client:
        server.accept().send(b"220 hi\r\n")

        assert read_exactly(client, 8) == b"220 hi\r\n"


def test_accept_of_probes_alone_is_late(sockserver: SockServer) -> None:
    server = sockserver.tcp(ignore_probes=True, timeout=0.05)
    leave(server)
    with pytest.raises(DeadlineExceeded, match=r"accept\(\) waited 0.05 s, and nobody connected"):
        server.accept()


def test_a_client_that_sent_and_left_is_accepted(server: StreamTestServer) -> None:
    with connect(server) as client:
        client.sendall(b"hi")
    assert server.accept().recv_all() == b"hi"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_accept_of_aio_skips_probes(tcp_server: StreamTestServer, sockserver: SockServer) -> None:
    server = sockserver.tcp(ignore_probes=True)
    leave(server)
    async with await anyio.connect_tcp(*server.address) as client:
        await client.send(b"hi\n")

        assert await (await server.aio.accept()).recv_line() == b"hi\n"


def test_probes_keep_their_index(server: StreamTestServer) -> None:
    server.script().expect(b"PING\n").send(b"PONG\n")
    leave(server)
    ask(server, b"PING\n", 5)

    assert [each.index for each in server.connections] == [0, 1]
    assert server.wait_connection(1).received == b"PING\n"
    assert server.requests == [b"PING\n"]


# TLS


def test_tls_probes_before_the_handshake(sockserver: SockServer, probe: Callable[[Any], None]) -> None:
    server = sockserver.tls(ignore_probes=True)
    server.on(HANDSHAKE, times=1).reply(StartTLS())
    server.script().send(b"hi").expect(b"PING").send(b"PONG")
    probe(server)
    with connect(server) as plain, server.client_context().wrap_socket(plain, server_hostname="localhost") as client:
        assert client.recv(2) == b"hi"
        client.sendall(b"PING")
        assert client.recv(4) == b"PONG"
    until(lambda: REMARK in remarks(server, 0))


def test_tls_accept_skips_probes(sockserver: SockServer, probe: Callable[[Any], None]) -> None:
    server = sockserver.tls(ignore_probes=True)

    def come() -> bytes:
        probe(server)
        with connect(server) as plain, server.client_context().wrap_socket(plain, server_hostname="localhost") as tls:
            return tls.recv(2)

    client = server.in_thread(come)
    server.accept().send(b"hi")
    assert client.result() == b"hi"


def test_tls_probes_after_the_handshake(sockserver: SockServer) -> None:
    server = sockserver.tls(ignore_probes=True)
    server.script().send(b"hi").expect(b"PING").send(b"PONG")
    context = server.client_context()
    with connect(server) as plain, context.wrap_socket(plain, server_hostname="localhost"):
        pass
    with connect(server) as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        assert client.recv(2) == b"hi"
        client.sendall(b"PING")
        assert client.recv(4) == b"PONG"


def test_a_handshake_that_fails_is_no_probe(sockserver: SockServer) -> None:
    server = sockserver.tls(ignore_probes=True)
    with connect(server) as plain, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
    until(lambda: server.connections[0].tls is not None and server.connections[0].tls.error)
    assert REMARK not in remarks(server, 0)


# The option


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_the_option_is_true_or_false(sockserver: SockServer, value: Any) -> None:
    with pytest.raises(TypeError, match="ignore_probes must be True or False, not"):
        sockserver.tcp(ignore_probes=value)


def test_datagram_servers_have_no_probes(sockserver: SockServer) -> None:
    with pytest.raises(TypeError, match=r"sockserver.udp\(\) has no option 'ignore_probes'"):
        sockserver.udp(ignore_probes=True)


@pytest.mark.sockserver(ignore_probes=True)
def test_by_the_marker(tcp_server: StreamTestServer, udp_server: DatagramTestServer) -> None:
    tcp_server.script().expect(b"PING\n").send(b"PONG\n")
    leave(tcp_server)
    assert ask(tcp_server, b"PING\n", 5) == b"PONG\n"


WITHOUT = """
import pytest
from client import connect

def test_it(tcp_server):
    tcp_server.script().expect(b"PING\\n").send(b"PONG\\n")
    connect(tcp_server).close()
    with connect(tcp_server) as client:
        client.sendall(b"PING\\n")
        assert client.recv(9) == b"PONG\\n"
"""


def test_a_run_without_and_with_it(inner: Runner) -> None:
    run = inner(WITHOUT)
    assert run.phases("test_it") == ["call failed"]
    assert "the option ignore_probes=True ignores it" in run.block("test_it")

    run = inner(WITHOUT.replace("def test_it", "@pytest.mark.sockserver(ignore_probes=True)\ndef test_it"))
    assert run.result.parseoutcomes() == {"passed": 1}
