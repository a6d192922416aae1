"""What fails no test is a warning with its traceback, of the right test, and never in the way of a stop."""

from __future__ import annotations

import os
import ssl
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from pytest_sockserver import (
    Connection,
    DeadlineExceeded,
    Request,
    ServerStopping,
    SockServer,
    SockServerWarning,
    StreamTestServer,
    lines,
    socketserver,
)
from pytest_sockserver.originals import Thread

from .peers import connect, datagram_client, read_to_end
from .plugin_runs import OURS, Runner

OPEN = ("-W", "default::pytest_sockserver.SockServerWarning")


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


# A client that comes when the call is over

LATE_CLIENT = """
import socket, socketserver
import pytest
from client import ask, tell
from pytest_sockserver import ANY, Cut, lines, until_eof

@pytest.fixture
def late(tcp_server, udp_server, request):
    yield
    if "datagram" in request.node.name:
        tell(udp_server, b"FLUSH")
        return
    with socket.create_connection(tcp_server.address, 5) as client:
        try:
            client.sendall(b"FLUSH\\n")
            client.shutdown(socket.SHUT_WR)
            client.recv(100)
        except OSError:
            pass  # it is reset

def boom(*args):
    raise ValueError("a bug that only the sign-off shows")

def failing():
    yield 1
    boom()

class ReadsFirst(socketserver.StreamRequestHandler):  # else its reset may be faster than the client's connect()
    def handle(self):
        boom(self.rfile.readline())
"""

DECLARATIONS = {
    "function": "tcp_server.handler(lambda conn: boom(conn.recv_line()))",
    "handler_class": "tcp_server.handler(ReadsFirst)",
    "script": "tcp_server.script(times=(0, None)).expect(b'OTHER\\n')",
    "used_up_script": "tcp_server.script().send(b'x').close(); ask(tcp_server)",
    "rule": "tcp_server.on(b'OTHER\\n').reply(b'x')",
    "reply_function": "tcp_server.on(b'FLUSH\\n').reply(boom)",
    "framing": "tcp_server.framing = failing; tcp_server.on(ANY).reply(b'x')",
    "injection": "tcp_server.on(b'FLUSH\\n').reply(b'x'); tcp_server.inject(boom, times=(0, 1))",
    "datagram_function": "udp_server.handler(boom)",
    "datagram_class": "udp_server.handler(type('H', (socketserver.BaseRequestHandler,), {'handle': boom}))",
    "datagram_rule": "udp_server.on(b'OTHER').reply(b'x')",
    "datagram_script": "udp_server.script(times=(0, None)).expect(b'OTHER')",
    "datagram_fault_rule": "udp_server.on(b'FLUSH').reply(b'x'); udp_server.inject(boom, times=(0, None))",
}
#: Where scripts were declared and are used up, a connection that comes after the call is ended without more.
QUIET = {"used_up_script"}


def test_whatever_fails_on_a_client_that_comes_after_the_call_is_a_warning(inner: Runner) -> None:
    tests = "".join(
        f"\ndef test_{name}(tcp_server, udp_server, late):\n    {line}\n" for name, line in DECLARATIONS.items()
    )

    run = inner(LATE_CLIENT + tests, *OPEN)

    assert [name for name in DECLARATIONS if run.phases(f"test_{name}") != ["call passed"]] == []
    warned = [name for name in DECLARATIONS if f"test_it.py::test_{name}\n" in run.stdout]
    assert warned == [name for name in DECLARATIONS if name not in QUIET]
    assert run.stdout.count("SockServerWarning: ") == len(warned)


def test_the_warning_has_peer_index_traceback_and_what_to_do_at_the_users_line(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture
        def late(tcp_server):
            yield
            ask(tcp_server)

        def test_it(tcp_server, late):
            @tcp_server.handler
            def fail(conn):
                conn.recv_line()
                raise ValueError("boom")
        """,
        *OPEN,
    )

    said = run.stdout[run.stdout.index("=== warnings summary") : run.stdout.index("-- Docs")]
    (path,) = {line.partition('"')[2].partition('"')[0] for line in said.splitlines() if 'File "' in line}
    assert os.path.basename(path) == "test_it.py"
    assert said.splitlines()[1:] == [
        "test_it.py::test_it",
        f"  {path}:13: SockServerWarning: tcp_server, connection 0 (127.0.0.1:PORT): the server's side failed on what "
        "the client began after the test's call",
        "  Traceback (most recent call last):",
        f'    File "{path}", line 13, in fail',
        '      raise ValueError("boom")',
        "  ValueError: boom",
        "  The outcome of the test was known by then.  Declare what answers this as well, or let the client finish "
        'within the test; @pytest.mark.filterwarnings("ignore::pytest_sockserver.SockServerWarning") accepts it',
        '    raise ValueError("boom")',
    ]


@pytest.mark.parametrize("fixture", ["unix_server", "tls_server"])
def test_late_failures_of_other_streams_are_warnings_too(inner: Runner, fixture: str) -> None:
    run = inner(
        f"""
        import socket
        import pytest

        @pytest.fixture
        def late({fixture}):
            yield
            if "{fixture}" == "unix_server":
                client = socket.socket(socket.AF_UNIX)
                client.connect({fixture}.address)
            else:
                client = {fixture}.client_context().wrap_socket(
                    socket.create_connection({fixture}.address, 5), server_hostname="localhost")
            with client:
                client.settimeout(5)
                client.sendall(b"hi\\n")
                try:
                    client.recv(9)
                except OSError:
                    pass

        def test_it({fixture}, late):
            @{fixture}.handler
            def fail(conn):
                conn.recv_line()
                raise KeyError("boom")
        """,
        *OPEN,
    )

    assert run.phases("test_it") == ["call passed"]
    assert run.stdout.count("  KeyError: 'boom'") == 1


TWO_TESTS = """
    import pytest
    from client import ask

    @pytest.fixture
    def late(tcp_server):
        yield
        ask(tcp_server)
        ask(tcp_server)

    def test_one(tcp_server, late):
        tcp_server.on(b"other\\n").reply(b"x")

    def test_two(tcp_server):
        tcp_server.on(b"hi\\n").reply(b"ho\\n")
        assert ask(tcp_server) == b"ho\\n"
"""


def test_where_warnings_are_errors_that_teardown_fails_with_all_of_them_and_the_next_test_runs(inner: Runner) -> None:
    run = inner(TWO_TESTS)  # a run here has -W error

    assert run.phases("test_one") == ["call passed", "teardown failed"]
    assert run.phases("test_two") == ["call passed"]
    assert run.stdout.count("no rule matches b'hi\\n'") >= 2
    assert "2 failures on the server's side: tcp_server, connection 0" in run.stdout
    assert "INTERNALERROR" not in run.stdout


@pytest.mark.one_version
def test_warnings_of_xdist_workers_arrive(inner: Runner) -> None:
    pytest.importorskip("xdist")

    run = inner.outside(TWO_TESTS, "-n", "2", *OPEN, loaded=(*OURS, "-p", "xdist"))

    run.result.assert_outcomes(passed=2, warnings=2)
    assert run.stdout.count("SockServerWarning: tcp_server, connection") == 2


def test_on_a_server_of_a_wider_scope_the_warning_is_the_tests_during_whose_teardown_it_came(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="module")
        def server(sockserver_module):
            server = sockserver_module.tcp()
            @server.handler
            def answer(conn):
                assert conn.recv_line() != b"BAD\\n"
                conn.send(b"ho\\n")
            return server

        @pytest.fixture
        def late(server):
            yield
            ask(server, b"BAD\\n")

        def test_one(server, late):
            assert ask(server) == b"ho\\n"

        def test_two(server):
            assert ask(server) == b"ho\\n"
        """
    )

    assert run.phases("test_one") == ["call passed", "teardown failed"]
    assert run.phases("test_two") == ["call passed"]


def test_a_teardown_that_fails_by_itself_stays_itself_and_has_the_warning_as_a_note(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="module")
        def server(sockserver_module):
            server = sockserver_module.tcp()
            server.on(b"other\\n").reply(b"x")
            return server

        @pytest.fixture
        def late(server):
            yield
            ask(server)
            raise RuntimeError("of the fixture")

        def test_it(server, late):
            pass

        def test_next(server):
            pass  # so that the server goes on
        """
    )

    assert run.phases("test_it") == ["call passed", "teardown failed"]
    assert run.phases("test_next") == ["call passed"]
    assert run.summary() == ["ERROR test_it.py::test_it - RuntimeError: of the fixture", "2 passed, 1 error"]
    assert "E       on the server's side, tcp, connection 0 (127.0.0.1:PORT):" in run.stdout
    assert "no rule matches b'hi\\n'" in run.stdout


def test_a_test_that_failed_gets_the_warning_and_no_second_failure(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture
        def late(tcp_server):
            yield
            ask(tcp_server)

        def test_it(tcp_server, late):
            tcp_server.on(b"other\\n").reply(b"x")
            assert 1 == 2
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert run.stdout.count("SockServerWarning: tcp_server, connection 0") == 1


# The clean-up of a handler whose connection a stop has ended


def clean_up_fails(conn: Connection) -> None:
    try:
        conn.recv_line()
    finally:
        raise KeyError("of the clean-up")


def translates(conn: Connection) -> None:
    try:
        conn.recv_line()
    except ServerStopping as error:
        raise RuntimeError("the client is gone") from error


def hides(conn: Connection) -> None:
    try:
        conn.recv_line()
    except ServerStopping:
        raise RuntimeError("the client is gone") from None


def ends_as_a_stream_does(conn: Connection) -> None:
    try:
        conn.recv_line()
    finally:
        raise EOFError


def looks_for_its_file(conn: Connection) -> None:
    try:
        conn.recv_line()
    finally:
        os.unlink("/does/not/exist")


def sends_a_goodbye(conn: Connection) -> None:
    try:
        conn.recv_line()
    finally:
        conn.send(b"bye\n")


def goes_on_with_nothing(conn: Connection) -> None:
    line = b""
    try:
        line = conn.recv_line()
    except ConnectionError:
        pass
    line[0]


class CleanUp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()

    def finish(self) -> None:
        super().finish()
        raise KeyError("of the clean-up")


def after_tls_of_its_own(conn: Connection) -> None:
    try:
        conn.recv_line()
    finally:
        raise ssl.SSLEOFError("of a wrapped socket")


@pytest.mark.parametrize(
    ("handler", "warns"),
    [
        (clean_up_fails, "KeyError: 'of the clean-up'"),
        (looks_for_its_file, "FileNotFoundError"),
        (goes_on_with_nothing, "IndexError"),
        (CleanUp, "KeyError: 'of the clean-up'"),
        (translates, None),
        (hides, None),
        (ends_as_a_stream_does, None),
        (sends_a_goodbye, None),
        (after_tls_of_its_own, None),
    ],
)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_what_fails_by_itself_in_the_clean_up_is_a_warning_and_what_comes_of_the_cut_is_none(
    transport: str, handler: Any, warns: str | None
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with StreamTestServer(transport=transport) as server:
            server.handler(handler)
            client = connect(server)
            server.wait_connection()
        client.close()

    said = [str(each.message) for each in caught if each.category is SockServerWarning]
    assert len(said) == (warns is not None)
    if warns is not None:
        assert warns in said[0]
        assert "the handler failed after this side had ended its connection" in said[0]
        assert caught[0].filename == __file__


def test_a_clean_up_that_fails_when_the_test_disconnects_is_a_warning() -> None:
    with pytest.warns(SockServerWarning, match="of the clean-up"), StreamTestServer() as server:
        server.handler(clean_up_fails)
        with connect(server) as client:
            server.wait_connection()
            server.disconnect()
            read_to_end(client)


# Without pytest


def late_in(server: Any) -> None:
    """Let a server end a connection whose handler fails in its clean-up."""
    server.handler(clean_up_fails)
    with connect(server):
        server.wait_connection()
        server.stop()


@pytest.mark.parametrize("end", ["factory", "server", "verify"])
def test_without_pytest_the_owner_warns_at_the_failing_line(end: str) -> None:
    with pytest.warns(SockServerWarning) as caught:
        if end == "factory":
            with SockServer() as sockserver:
                late_in(sockserver.tcp())
        elif end == "server":
            with StreamTestServer() as server:
                late_in(server)
        else:
            server = StreamTestServer()
            server.start()
            late_in(server)
            server.verify()

    assert [(each.filename, each.lineno) for each in caught] == [(__file__, clean_up_fails.__code__.co_firstlineno + 4)]


def test_where_warnings_are_errors_the_block_raises_when_all_servers_are_stopped() -> None:
    before = set(threading.enumerate())

    with pytest.raises(SockServerWarning, match="of the clean-up") as caught, SockServer() as sockserver:
        first, second = sockserver.tcp(), sockserver.udp()
        late_in(first)

    assert not second.is_running
    assert set(threading.enumerate()) <= before
    assert caught.traceback[-1].lineno == clean_up_fails.__code__.co_firstlineno + 3  # counted from 0


def test_a_block_that_raises_by_itself_is_not_replaced_by_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError), StreamTestServer() as server:
            late_in(server)
            _ = 1 / 0

    assert [each.category for each in caught] == [SockServerWarning]


def test_a_stop_by_hand_never_raises_a_warning() -> None:
    server = StreamTestServer()
    server.start()
    late_in(server)  # the filters here make each warning an error

    with pytest.raises(SockServerWarning, match="of the clean-up"):
        server.verify()


# Threads of ours that must not end in silence


def test_a_pytest_fail_in_a_framing_where_no_verb_reads_is_a_failure(tcp_server: StreamTestServer) -> None:
    def framing() -> Any:
        yield 1
        pytest.fail("of the framing")

    tcp_server.framing = framing
    with connect(tcp_server) as client, tcp_server.raises(pytest.fail.Exception, match="of the framing"):
        client.sendall(b"xx")

    tcp_server.framing = lines(b"\n")
    with connect(tcp_server) as client:
        client.sendall(b"still read\n")
        assert tcp_server.wait_for(b"still read\n") == b"still read\n"


def test_a_thread_that_cannot_be_started_is_a_failure_and_tried_again(
    udp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start: Callable[[threading.Thread], None] = Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.endswith("answers"):
            raise RuntimeError("can't start new thread")
        start(thread)

    @udp_server.handler
    def echo(request: Request) -> bytes:
        return request

    with datagram_client(udp_server) as client:
        with monkeypatch.context() as patched, udp_server.raises(RuntimeError, match="can't start new thread"):
            patched.setattr(Thread, "start", refuse)
            client.send(b"lost")
        client.send(b"answered")
        assert {client.recv(100), client.recv(100)} == {b"lost", b"answered"}


def test_a_client_that_was_waited_for_too_briefly_is_still_heard(sockserver: SockServer) -> None:
    server, gate = sockserver.tcp(), threading.Event()

    def fail() -> None:
        gate.wait(5)
        raise KeyError("of the client")

    future = server.in_thread(fail)
    with pytest.raises(DeadlineExceeded):
        future.result(0.01)
    gate.set()

    with server.raises(KeyError):
        server.verify()


def test_one_stop_that_fails_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = SockServer()
    first, second, third = factory.tcp(), factory.tcp(), factory.tcp()

    def broken() -> None:
        raise OSError("of the stop")

    with monkeypatch.context() as patched:
        patched.setattr(second.service, "is_in_own_thread", broken)
        with pytest.raises(OSError, match="of the stop"):
            factory.stop()

    assert not first.is_running
    assert not third.is_running
    factory.stop()
