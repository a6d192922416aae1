"""A server that is over, and that no test holds, is freed without the garbage collector, its recording with it.

And whoever still holds a connection, or a request, has lost nothing.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_sockserver import (
    DATA,
    DatagramTestServer,
    Delay,
    Drip,
    EndOfStream,
    Gate,
    InvalidState,
    Request,
    ServerStopping,
    StreamTestServer,
    length_prefixed,
    socketserver,
)
from pytest_sockserver.faults import EndAfter
from pytest_sockserver.recording.demands import Period

from .peers import connect, datagram_client, read_to_end, reset

pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="reference counting is CPython's")


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


Server = StreamTestServer | DatagramTestServer


def ask(server: Server, data: bytes = b"x\n") -> bytes:
    if isinstance(server, DatagramTestServer):
        with datagram_client(server) as client:
            client.send(data)
            return client.recv(100)
    with connect(server) as client:
        client.sendall(data)
        return client.recv(100)


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


def nothing(server: Server) -> None:
    pass


def rules(server: Server) -> None:
    server.on(b"x\n").reply(b"y")
    ask(server)


def a_rule_with_a_function(server: Server) -> None:
    server.on(b"x\n").reply(lambda request: request * 2)
    ask(server)


def a_wait(server: Server) -> None:
    rules(server)
    server.wait_for(b"x\n")
    server.next_request()


def an_injection(server: Server) -> None:
    server.inject(Delay(0.001), DATA)
    server.inject(DATA, direction="received")
    rules(server)


def a_gate(server: Server) -> None:
    server.on(b"x\n").reply(Gate("open"), b"y")
    server.open_gate("open")
    ask(server)


def a_script(server: Server) -> None:
    server.script().expect(b"x\n").send(b"y")
    ask(server)


def clear(server: Server) -> None:
    rules(server)
    server.clear()


def clear_beside_a_client(server: StreamTestServer) -> None:
    server.on(b"x\n").reply(b"y")
    with connect(server) as client:
        client.sendall(b"x\n")
        client.recv(1)
        server.clear()


def a_client_in_a_thread(server: Server) -> None:
    server.on(b"x\n").reply(b"y")
    server.in_thread(ask, server).result()


def a_failure(server: StreamTestServer) -> None:
    def fail(conn: Any) -> None:
        conn.recv_line()
        raise ValueError("of the handler")

    server.handler(fail)
    with connect(server) as client, contextlib.suppress(ConnectionResetError):  # over a unix socket a plain end
        client.sendall(b"x\n")
        client.recv(1)
    with pytest.raises(ValueError, match="of the handler"):
        server.verify()


def a_handler(server: StreamTestServer) -> None:
    def answer(conn: Any) -> None:
        conn.recv_line()
        conn.send(lambda request: request)

    server.handler(answer)
    ask(server)


def a_handler_class(server: StreamTestServer) -> None:
    server.handler(Echo)
    ask(server)


def a_framed_handler_class(server: StreamTestServer) -> None:
    server.framing = length_prefixed(">B")
    server.handler(Echo)
    ask(server, b"\x01\n")


def a_reset(server: StreamTestServer) -> None:
    server.handler(lambda conn: conn.recv())
    reset(connect(server))
    server.wait_connection().wait_closed()


def accept(server: StreamTestServer) -> None:
    with connect(server) as client:
        conn = server.accept()
        client.sendall(b"x\n")
        conn.recv_line()
        conn.send(b"y")


def detach(server: StreamTestServer) -> None:
    with connect(server) as client:
        client.sendall(b"x")
        sock = server.accept().detach()
        sock.recv(1)
        sock.close()


def nothing_declared(server: StreamTestServer) -> None:
    with connect(server) as client:
        client.sendall(b"x\n")
        server.wait_connection().wait_received(b"x\n")


def an_end_by_time(server: StreamTestServer) -> None:
    server.on(b"x\n").reply(EndAfter(0.001))
    with connect(server) as client:
        client.sendall(b"x\n")
        read_to_end(client)


def refuse(server: StreamTestServer) -> None:
    with server.refuse():
        pass
    rules(server)


def restart(server: StreamTestServer) -> None:
    rules(server)
    server.restart()
    ask(server)
    server.stop()
    server.start()
    ask(server)


BOTH: list[Callable[..., None]] = [
    nothing,
    rules,
    a_rule_with_a_function,
    a_wait,
    an_injection,
    a_gate,
    a_script,
    clear,
    a_client_in_a_thread,
]

STREAMS: list[Callable[..., None]] = [
    clear_beside_a_client,
    a_failure,
    a_handler,
    a_handler_class,
    a_framed_handler_class,
    a_reset,
    accept,
    detach,
    nothing_declared,
    an_end_by_time,
    refuse,
    restart,
]


def parts_of(server: Server) -> dict[str, weakref.ref[Any]]:
    service = server.service
    parts = {
        "face": server,
        "service": service,
        "context": service.context,
        "recorder": service.context.recorder,
        "traffic": service.traffic,
        "rules": service.book,
        "framework": service.traffic.framework,
    }
    parts |= {f"tape {number}": tape for number, tape in enumerate(service.context.recorder.tapes)}
    return {name: weakref.ref(part) for name, part in parts.items() if part is not None}


def left(parts: dict[str, weakref.ref[Any]]) -> list[str]:
    return [name for name, part in parts.items() if part() is not None]


@pytest.mark.parametrize("use", [*BOTH, *STREAMS])
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_a_server_of_streams_is_freed(transport: str, use: Callable[[Any], None]) -> None:
    server = StreamTestServer(transport=transport)
    with server:
        use(server)
    parts = parts_of(server)

    del server

    assert left(parts) == []


@pytest.mark.parametrize("use", BOTH)
@pytest.mark.parametrize("transport", ["udp", "unix_datagram"])
def test_a_server_of_datagrams_is_freed(transport: str, use: Callable[[Any], None]) -> None:
    server = DatagramTestServer(transport=transport)
    with server:
        use(server)
    parts = parts_of(server)

    del server

    assert left(parts) == []


def test_a_server_that_was_never_started_is_freed() -> None:
    server = StreamTestServer()
    parts = parts_of(server)

    del server

    assert left(parts) == []


def test_one_whose_options_are_refused_is_freed_in_silence() -> None:
    with pytest.raises(TypeError, match="unknown option"):
        StreamTestServer(prot=1)


def held() -> tuple[Request, dict[str, weakref.ref[Any]]]:
    """Return a request, which nothing else of its server outlives, and the parts of that."""

    def answer(conn: Any) -> None:
        conn.mine, conn.state.mine = "mine", "mine"
        conn.send(conn.recv_line())
        conn.send(conn.recv_line())

    with StreamTestServer() as server:
        server.handler(answer)
        with connect(server) as client:
            client.sendall(b"one\ntwo\n")
            assert client.recv(4) == b"one\n"
            read_to_end(client)
    assert server.connections[0].requests == server.requests
    assert server.connections[0].requests[0] is server.requests[0]
    return server.requests[0], parts_of(server)


def test_who_holds_a_request_has_its_connection_and_all_of_its_conversation() -> None:
    request, parts = held()

    conn = request.connection

    assert not {"face", "service", "traffic", "framework"} & {*left(parts)}
    assert conn is not None
    assert (conn.mine, conn.state.mine) == ("mine", "mine")  # type: ignore[attr-defined]
    assert (conn.received, conn.sent) == (b"one\ntwo\n", b"one\ntwo\n")
    assert conn.closed_by == "server"
    assert [event.kind for event in conn.events][:2] == ["received", "sent"]
    assert "S: one" in str(conn)
    assert conn.requests == [b"one\n", b"two\n"]
    assert [each.connection for each in conn.requests] == [conn, conn]
    assert [each.time for each in conn.requests][0] == request.time


def test_and_when_that_goes_all_is_gone() -> None:
    request, parts = held()
    conn: Any = request.connection
    requests = conn.requests

    del request, conn, requests

    assert left(parts) == []


def test_who_has_left_the_block_has_all_and_the_same_objects() -> None:
    with StreamTestServer() as server:
        server.on(b"x\n").reply(b"y")
        ask(server)
        conn = server.connections[0]

    assert server.connections == [conn]
    assert server.requests == [b"x\n"]
    assert server.requests[0] is conn.requests[0] is server.requests[0]
    assert server.requests[0].connection is conn
    assert [event.kind for event in server.events][:2] == ["received", "sent"]
    server.start()
    assert ask(server) == b"y"
    server.stop()
    assert len(server.connections) == 2


def test_who_holds_a_datagrams_request_is_told_that_the_server_is_stopped() -> None:
    with DatagramTestServer() as server:
        server.on(b"x\n").reply(b"y")
        ask(server)
        request = server.requests[0]
    parts = parts_of(server)
    del server

    with pytest.raises(InvalidState, match=r"cannot reply\(\) in state 'stopped'"):
        request.reply(b"late")
    del request

    assert left(parts) == []


def test_who_holds_an_accepted_connection_finds_it_closed() -> None:
    with StreamTestServer() as server, connect(server):
        conn = server.accept()
    parts = parts_of(server)
    del server

    assert "service" not in left(parts)
    with pytest.raises((EndOfStream, ServerStopping)):
        conn.recv_line()
    with pytest.raises((InvalidState, ServerStopping)):
        conn.send(b"x")
    conn.wait_closed()
    conn.close()
    del conn

    assert left(parts) == []


def test_an_injection_that_is_held_still_counts() -> None:
    with StreamTestServer() as server:
        server.on(b"x\n").reply(b"y")
        injection = server.inject(DATA)
        ask(server)
    parts = parts_of(server)
    del server

    assert "service" not in left(parts)
    assert injection.count == 1
    injection.end()


RUN = """
import gc
import socket
import weakref

import pytest

REFS = {}


@pytest.fixture(autouse=True, scope="module")
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def keep(server):
    REFS[server.name] = weakref.ref(server), weakref.ref(server.service.context.recorder)


@pytest.mark.parametrize("kind", ["tcp_server", "udp_server", "unix_server", "unix_datagram_server", "tls_server"])
def test_use(kind, request):
    keep(request.getfixturevalue(kind))


def test_a_factory(sockserver):
    keep(sockserver.tcp(name="of the factory"))


@pytest.fixture
def own():
    from pytest_sockserver import StreamTestServer
    with StreamTestServer(name="own") as server:
        yield server


def test_a_fixture_of_ones_own(own):
    keep(own)


def test_a_conversation(tcp_server):
    tcp_server.name = "with a conversation"
    tcp_server.on(b"x").reply(b"y")
    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"x")
        client.recv(1)
    keep(tcp_server)


def test_all_are_gone():
    assert len(REFS) == 8
    assert [name for name, refs in REFS.items() for ref in refs if ref() is not None] == []
"""


def test_a_server_whose_fixture_has_ended_is_freed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(RUN)

    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=9)


def test_a_period_that_nothing_belongs_to_any_more_is_freed() -> None:
    test = Period("test", is_body=True)
    refs = [weakref.ref(test), weakref.ref(Period("fixture", test))]
    del test

    assert [ref() for ref in refs] == [None, None]


KEPT = """
import pytest




def pytest_sessionfinish(session):
    from pytest_sockserver.pytest_plugin import hooks
    for item in session.items:
        assert hooks._ours_key not in item.stash, item
    print("nothing is kept")
"""


def test_an_item_keeps_nothing_after_its_last_report(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(KEPT)
    pytester.makepyfile(
        """
        def test_good(tcp_server):
            pass


        def test_bad(tcp_server):
            tcp_server.on(b"x", times=1).reply(b"y")
        """
    )

    result = pytester.runpytest_subprocess("-s")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*nothing is kept*"])


def ended_while_it_sends(server: StreamTestServer, how: str) -> None:
    if how == "stopped":
        server.on(b"x").reply(b"y" * 20_000_000)
        with connect(server) as client:
            client.sendall(b"x")
            client.recv(1)
            server.stop()
        return
    server.on(b"x").reply(Drip(b"y" * 30, 0.005))
    with connect(server) as client:
        client.sendall(b"x")
        client.recv(1)
        if how == "reset":
            reset(client)
    server.connections[0].wait_closed()


def changed_while_it_stays(server: StreamTestServer, how: str) -> None:
    server.on(b"x").reply(b"y")
    server.inject(DATA, direction="received")
    with connect(server) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"y"
        server.stop()


@pytest.mark.parametrize(
    ("use", "how"),
    [
        (ended_while_it_sends, "stopped"),
        (ended_while_it_sends, "closed"),
        (ended_while_it_sends, "reset"),
        (changed_while_it_stays, ""),
    ],
)
def test_a_recording_is_freed_however_its_conversation_ended(use: Callable[..., None], how: str) -> None:
    def lives() -> Any:
        server = StreamTestServer()
        with server:
            use(server, how)
        return weakref.ref(server.service.context.recorder)

    assert lives()() is None
