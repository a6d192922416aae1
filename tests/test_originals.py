"""A test replaces clocks, threads and sockets: the server goes on, and its deadlines run out."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import freezegun
import pytest
import time_machine
import trio
from freezegun import freeze_time

import pytest_sockserver
from pytest_sockserver import (
    ANY,
    DeadlineExceeded,
    Delay,
    Drip,
    Gate,
    SockServer,
    StreamTestServer,
    UnmetExpectation,
    lines,
    originals,
    socketserver,
)
from pytest_sockserver.faults import Jitter, Throttle
from pytest_sockserver.originals import original

from .peers import connect_to, datagram_client
from .plugin_runs import Runner

LINES = lines(b"\n")

# What gevent and eventlet replace in threading.
STARTS = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"

# By the class itself, whatever is in its place.  A clock kept like this would be replaced by freezegun.
create_socket = original.socket


@contextlib.contextmanager
def taking(seconds: float) -> Iterator[None]:
    """Check that the block takes so long, give or take: not less, and not for ever."""
    began = original.monotonic()
    yield
    took = original.monotonic() - began
    assert seconds - 0.02 <= took < seconds + 3


def ask(address: Any, data: bytes = b"x\n") -> bytes:
    with connect_to(address) as client:
        client.sendall(data)
        return client.recv(100)


def ask_for_all(address: Any, data: bytes = b"x\n") -> bytes:
    with connect_to(address) as client, client.makefile("rb") as file:
        client.sendall(data)
        return file.read()


def ask_unpatched(address: Any, data: bytes = b"x\n") -> bytes:
    """Ask by the socket class itself, as a client does that has bound it before the test replaced it."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with create_socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(address)
        client.sendall(data)
        return client.recv(100)


FROZEN: dict[str, dict[str, Any]] = {
    "still": {},
    "ticking": {"tick": True},
    "leaping": {"auto_tick_seconds": 15},
    "before the machine was started": {"time_to_freeze": "1970-01-01"},
    "nothing is ignored": {"ignore": []},
}


@pytest.fixture(params=FROZEN)
def frozen(request: pytest.FixtureRequest) -> Iterator[None]:
    how = {"time_to_freeze": "2020-01-01", **FROZEN[request.param]}
    if request.param == "nothing is ignored":
        freezegun.configure(default_ignore_list=["no such module"])
    try:
        with freeze_time(**how):
            yield
    finally:
        freezegun.config.reset_config()


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


# A frozen clock


@pytest.mark.usefixtures("frozen")
def test_a_wait_runs_out_after_its_seconds_while_the_clock_is_frozen(sockserver: SockServer) -> None:
    server, datagrams = sockserver.tcp(), sockserver.udp()

    with taking(0.1), pytest.raises(DeadlineExceeded, match=r"waited 0.1 s"):
        server.wait_connection(timeout=0.1)
    with taking(0.1), pytest.raises(DeadlineExceeded):
        server.accept(timeout=0.1)
    with taking(0.1), pytest.raises(DeadlineExceeded):
        datagrams.wait_for(ANY, timeout=0.1)
    with taking(0.1):
        server.assert_no_traffic(0.1)
    with taking(0.1), pytest.raises(UnmetExpectation):
        server.timeout = 0.1
        with server.raises(ValueError):
            pass


@pytest.mark.usefixtures("frozen")
def test_a_live_connection_and_what_takes_time_on_it_while_the_clock_is_frozen(tcp_server: StreamTestServer) -> None:
    reply = tcp_server.in_thread(ask_for_all, tcp_server.address)
    conn = tcp_server.accept()
    assert conn.recv_line() == b"x\n"

    with taking(0.1), pytest.raises(DeadlineExceeded):
        conn.expect(b"more", timeout=0.1)
    with taking(0.1):
        conn.send(Delay(0.1))
    with taking(0.1):
        conn.send(Throttle(bytes(100), 500))
    with taking(0.06):
        conn.send(Drip(b"abc", 0.03), Jitter(0.0, 0.01, seed=1))
    with pytest.raises(DeadlineExceeded):
        conn.send(Gate("shut"), timeout=0.1)
    conn.close()
    assert reply.result(timeout=5)
    with taking(0.1), pytest.raises(DeadlineExceeded):
        tcp_server.in_thread(threading.Event().wait, 0.5).result(timeout=0.1)


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("fixture", ["tcp_server", "unix_server", "tls_server"])
def test_a_script_that_takes_time_while_the_clock_is_frozen(request: pytest.FixtureRequest, fixture: str) -> None:
    server = request.getfixturevalue(fixture)
    server.script().send(Delay(0.1), b"hello\n").expect_line(b"bye", timeout=5).close()

    with taking(0.1), connect_to(server.address) as client:
        if fixture == "tls_server":
            client = server.client_context().wrap_socket(client, server_hostname="localhost")
        with client:
            assert client.recv(100) == b"hello\n"
            client.sendall(b"bye\n")
            assert client.recv(100) == b""
    assert server.connections[0].events[-1].time < 5


@pytest.mark.usefixtures("frozen")
def test_a_step_that_is_not_met_in_time_fails_while_the_clock_is_frozen(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.1)
    server.script().expect_line(b"never")

    with taking(0.1), server.raises(DeadlineExceeded), connect_to(server.address) as client, pytest.raises(OSError):
        assert client.recv(100) == b""
        raise OSError


@freeze_time("2020-01-01")
def test_a_timed_dialogue_keeps_its_times_while_the_clock_is_frozen(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue("[0.000] S: one\n[0.150] S: two\n", timed=True)

    with taking(0.15), connect_to(tcp_server.address) as client, client.makefile("rb") as file:
        assert [file.readline(), file.readline()] == [b"one\r\n", b"two\r\n"]


@freeze_time("2020-01-01")
def test_end_after_ends_a_connection_while_the_clock_is_frozen(tcp_server: StreamTestServer) -> None:
    tcp_server.on(pytest_sockserver.CONNECT).reply(pytest_sockserver.faults.EndAfter(0.1))

    with taking(0.1), connect_to(tcp_server.address) as client:
        assert client.recv(1) == b""


@freeze_time("2020-01-01")
class TestFrozenClass:
    @pytest.fixture
    def served(self, sockserver: SockServer) -> StreamTestServer:
        server = sockserver.tcp()
        server.on(b"x\n").reply(b"y\n")
        return server

    def test_methods_and_fixtures_of_a_frozen_class(self, served: StreamTestServer) -> None:
        assert ask(served.address) == b"y\n"
        with taking(0.1), pytest.raises(DeadlineExceeded):
            served.wait_connection(9, timeout=0.1)


@time_machine.travel(0, tick=False)
def test_time_machine_leaves_the_deadlines_alone(tcp_server: StreamTestServer) -> None:
    with taking(0.1), pytest.raises(DeadlineExceeded):
        tcp_server.wait_connection(timeout=0.1)


def test_handle_request_of_the_framework_times_out_while_the_clock_is_frozen() -> None:
    class Server(socketserver.TCPServer):
        timeout = 0.1
        timed_out = 0

        def handle_timeout(self) -> None:
            self.timed_out += 1

    with Server(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server, freeze_time("2020-01-01"):
        with taking(0.1):
            server.handle_request()
        assert server.timed_out == 1


def test_shutdown_and_close_of_the_framework_while_the_clock_is_frozen() -> None:
    class Server(socketserver.ThreadingTCPServer):
        close_timeout = 0.1
        linger_on_close = 0.1

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    with freeze_time("2020-01-01"), Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert ask(server.server_address) == b"x\n"
        server.shutdown()
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("moment", ["1970-01-01", "2020-01-01"])
def test_a_certificate_that_is_first_made_while_the_clock_is_frozen_is_good(runs: Runner, moment: str) -> None:
    """cryptography keeps what ``datetime.datetime`` is when it first makes a certificate, for the whole process."""
    run = runs.outside(
        f"""
        import socket
        import pytest
        from freezegun import freeze_time

        def talk(server):
            server.on(b"x\\n").reply(b"y\\n")
            context = server.client_context()
            with socket.create_connection(server.address, 5) as plain:
                with context.wrap_socket(plain, server_hostname="localhost") as client:
                    client.sendall(b"x\\n")
                    assert client.recv(9) == b"y\\n"

        @freeze_time("{moment}")
        def test_frozen(tls_server):
            talk(tls_server)

        def test_after(sockserver):
            from pytest_sockserver import TLS, Certificate
            talk(sockserver.tls(tls=TLS(certificate=Certificate("localhost"))))
        """
    )

    run.result.assert_outcomes(passed=2)


# Loops whose clock is frozen


@pytest.mark.asyncio
@freeze_time("2020-01-01")
async def test_awaitable_waits_run_out_while_the_loops_clock_is_frozen(tcp_server: StreamTestServer) -> None:
    with taking(0.1), pytest.raises(DeadlineExceeded):
        await tcp_server.aio.wait_connection(timeout=0.1)
    with taking(0.1):
        await tcp_server.aio.assert_no_traffic(0.1)
    _, writer = await asyncio.open_connection(*tcp_server.address)
    conn = await tcp_server.aio.accept()
    with taking(0.1), pytest.raises(DeadlineExceeded):
        await conn.recv(timeout=0.1)
    with taking(0.14):
        await conn.send(Delay(0.1), b"hi", Drip(b"abc", 0.02))
    await tcp_server.aio.verify()
    writer.close()
    await writer.wait_closed()


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["1980-01-01", "2020-01-01"])
async def test_an_awaitable_wait_runs_out_if_the_clock_freezes_meanwhile(
    tcp_server: StreamTestServer, moment: str
) -> None:
    with taking(0.2):
        waiting = asyncio.ensure_future(tcp_server.aio.wait_connection(timeout=0.2))
        await asyncio.sleep(0)
        with freeze_time(moment), pytest.raises(DeadlineExceeded):
            await waiting


@pytest.mark.asyncio
async def test_awaitable_waits_run_out_while_the_loops_clock_stands_still_at_the_present(
    tcp_server: StreamTestServer,
) -> None:
    with mock.patch("time.monotonic", return_value=time.monotonic()), taking(0.1), pytest.raises(DeadlineExceeded):
        await tcp_server.aio.wait_connection(timeout=0.1)


@pytest.mark.asyncio
async def test_an_awaitable_wait_is_cancelled_cleanly_while_the_clock_is_frozen(tcp_server: StreamTestServer) -> None:
    with freeze_time("2020-01-01"):
        waiting = asyncio.ensure_future(tcp_server.aio.wait_connection())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    # The leak guard sees that the alarm's thread has gone.


def test_a_loop_that_leaps_through_time_leaps_over_no_deadline(tcp_server: StreamTestServer) -> None:
    """Loops that make sleeps instant would run a deadline of five seconds out at once."""

    class Leaping(asyncio.SelectorEventLoop):
        ahead = 0.0

        def time(self) -> float:
            return super().time() + self.ahead

        def call_later(self, delay: float, *args: Any, **named: Any) -> asyncio.TimerHandle:
            self.ahead += delay
            return super().call_later(0, *args, **named)

    loop = Leaping()
    loop.ahead = 1000.0
    client = tcp_server.in_thread(ask, tcp_server.address)

    async def serve() -> None:
        conn = await tcp_server.aio.accept()
        assert await conn.recv_line() == b"x\n"
        await conn.send(b"y\n")

    with contextlib.closing(loop):
        loop.run_until_complete(serve())

    assert client.result() == b"y\n"


@pytest.mark.trio
async def test_awaitable_waits_run_out_while_trios_clock_is_frozen(tcp_server: StreamTestServer) -> None:
    with freeze_time("2020-01-01"):
        with taking(0.1), pytest.raises(DeadlineExceeded):
            await tcp_server.aio.wait_connection(timeout=0.1)
        with taking(0.1):
            await tcp_server.aio.assert_no_traffic(0.1)


def test_awaitable_waits_run_out_by_the_real_clock_under_trios_mock_clock(tcp_server: StreamTestServer) -> None:
    async def main() -> None:
        with taking(0.1), pytest.raises(DeadlineExceeded):
            await tcp_server.aio.wait_connection(timeout=0.1)

    trio.run(main, clock=trio.testing.MockClock(rate=0.0))


# Patched in the midst of a test


REPLACED = [
    "time.monotonic", "time.sleep", "threading.Thread", "threading.Lock", "threading.RLock", "threading.Event",
    "threading.Condition", "threading.current_thread", "threading.get_ident", "socket.socket", "socket.socketpair",
    "socket.getaddrinfo", "select.poll", "select.select", "selectors.PollSelector", "selectors.DefaultSelector",
]  # fmt: skip


@pytest.mark.parametrize("name", [*REPLACED, "all of them"])
@pytest.mark.parametrize("transport", ["tcp", "unix", "udp"])
def test_a_server_is_made_and_serves_while_a_mock_stands_in_the_place(
    sockserver: SockServer, name: str, transport: str
) -> None:
    with contextlib.ExitStack() as patches:
        for each in REPLACED if name == "all of them" else [name]:
            patches.enter_context(mock.patch(each))
        server = getattr(sockserver, transport)()
        server.on(b"x\n").reply(b"y\n")
        if transport == "udp":
            with create_socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.sendto(b"x\n", server.address)
                assert client.recv(100) == b"y\n"
        else:
            assert ask_unpatched(server.address) == b"y\n"
            with server.refuse():
                pass
            assert ask_unpatched(server.address) == b"y\n"
        with taking(0.1), pytest.raises(DeadlineExceeded):
            server.wait_for(b"never", timeout=0.1) if transport == "udp" else server.wait_connection(9, timeout=0.1)
        assert server.in_thread(int, "7").result() == 7
        server.stop()


def test_a_socket_class_that_is_replaced_in_the_midst_changes_nothing_for_the_server(
    tcp_server: StreamTestServer,
) -> None:
    tcp_server.framing = LINES
    tcp_server.on(ANY).reply(b"y\n")
    assert ask(tcp_server.address) == b"y\n"

    with mock.patch("socket.socket") as replaced:
        replaced.return_value.recv.return_value = b"mocked"
        assert socket.socket().recv(10) == b"mocked"
        assert ask_unpatched(tcp_server.address) == b"y\n"
        tcp_server.wait_connection(1)

    assert ask(tcp_server.address) == b"y\n"
    assert tcp_server.requests == [b"x\n"] * 3


def guarded(*args: Any, **named: Any) -> Any:
    raise RuntimeError("no network in unit tests")


class GuardedSubclass(socket.socket):
    def __init__(self, *args: Any, **named: Any) -> None:
        guarded()


GUARDS = {"a function": guarded, "a class": GuardedSubclass, "a mock": mock.MagicMock(side_effect=guarded)}


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("fixture", ["tcp_server", "tls_server", "unix_server", "udp_server", "unix_datagram_server"])
def test_a_guard_of_the_users_own_on_sockets_lets_the_server_be(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, fixture: str, guard: str
) -> None:
    monkeypatch.setattr(socket, "socket", GUARDS[guard])
    for name in ("create_connection", "getaddrinfo", "socketpair", "create_server"):
        monkeypatch.setattr(socket, name, guarded)

    server = request.getfixturevalue(fixture)
    with pytest.raises(DeadlineExceeded):
        server.wait_for(ANY, timeout=0.05) if "datagram" in fixture or "udp" in fixture else server.accept(timeout=0.05)
    with pytest.raises(RuntimeError, match="no network in unit tests"):
        socket.create_connection(("127.0.0.1", 1))


@pytest.mark.parametrize("replacement", ["lambda *args, **named: 1 / 0", "type('Guard', (), {})"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_guard_at_the_first_use_in_a_run_spoils_nothing_for_the_rest(
    runs: Runner, replacement: str, transport: str
) -> None:
    run = runs.outside(
        f"""
        import socket, sys, time
        import pytest
        from client import ask

        def test_guarded(monkeypatch, request):
            assert "ssl" not in sys.modules
            monkeypatch.setattr(socket, "socket", {replacement})
            monkeypatch.setattr(time, "monotonic", lambda: 42.0)
            server = request.getfixturevalue("sockserver").{transport}()
            if "{transport}" == "tls":
                server.client_context()
            with pytest.raises(TimeoutError):
                server.wait_connection(timeout=0.1)

        def test_after(tcp_server, tls_server):
            tcp_server.on(b"hi\\n").reply(b"ho\\n")
            assert ask(tcp_server) == b"ho\\n"
            with pytest.raises(TimeoutError):
                tcp_server.wait_connection(1, timeout=0.1)
            import ssl
            assert ssl.SSLSocket.__mro__[1] is socket.socket
            with socket.create_connection(tls_server.address, 5) as plain:
                tls_server.client_context().wrap_socket(plain, server_hostname="localhost").close()
        """,
        *("-p", "no:faulthandler"),
    )

    run.result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "patch",
    [
        "time.monotonic = lambda: 42.0",
        "import freezegun; freezegun.freeze_time('2020-01-01').start()",
        "true = socket.socket; socket.socket = lambda *args, **named: 1 / 0",
        "socket.socket = type('Guard', (socket.socket,), {})",
        "threading.Thread = None",
        f"start = threading.{STARTS}; threading.{STARTS} = lambda *args: start(*args)",
        "_thread.start_new_thread = _thread.get_ident = lambda *args: 1",
        "select.poll = None",
    ],
)
def test_what_was_replaced_before_we_were_loaded_is_found_again(patch: str) -> None:
    said = used_after(patch)

    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize(
    "patch",
    [
        "time.monotonic = time.perf_counter = time.sleep = lambda *args: 42.0",
        "os.getpid = os.__dict__['getpid'] = sys.modules[os.name].getpid = lambda: 42",
        "import freezegun; freezegun.freeze_time('2020-01-01').start()",
        "threading.Thread = None",
        "threading.enumerate = threading.main_thread = None",
        "threading.Thread.start = threading.Thread.join = threading.Thread.is_alive = threading.Thread.run = None",
        "_thread.start_new_thread = _thread.get_ident = lambda *args: 1; threading.RLock = None",
        "select.poll = select.select = None; selectors.PollSelector = selectors.SelectSelector = None",
    ],
)
def test_what_is_replaced_between_the_load_of_the_plugin_and_our_first_use_is_as_it_was(patch: str) -> None:
    """By a conftest, or in the first test of all, before it asks for the first fixture."""
    said = used_after(
        f"""
import os, selectors, sys
import pytest_sockserver
assert "pytest_sockserver.bound" not in sys.modules
{patch}
""",
        """
original.PollSelector().close()
assert original.getpid() != 42 and original.current_thread() in original.all_threads() and original.main_thread()
with original.RLock(), original.Lock():
    original.sleep(0)
""",
    )

    assert (said.returncode, said.stderr) == (0, "")


def used_after(patch: str, more: str = "") -> subprocess.CompletedProcess[str]:
    program = f"""
import select, socket, threading, _thread, time
original_socket = socket.socket
{patch}
from pytest_sockserver.originals import Condition, Event, Thread, original
assert original.socket is original_socket
assert original.poll().poll(0) == [] and original.get_ident() != 1
began = original.monotonic()
assert not Event().wait(0.05)
assert 0.04 < original.monotonic() - began < 5
done = Event()
thread = Thread(target=done.set, daemon=True)
thread.start()
assert done.wait(5)
thread.join()
assert not thread.is_alive() and thread.ident
{more}
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)


# The pieces


def test_it_is_what_the_standard_library_has() -> None:
    assert original.monotonic is time.monotonic
    assert original.socket is socket.socket
    assert original.poll is select.poll
    assert issubclass(originals.Thread, threading.Thread)


def test_a_thread_past_a_patched_threading_is_a_thread() -> None:
    """As under gevent and eventlet, which put a function of their own in the place of the one that starts threads."""
    seen: list[Any] = []
    go = originals.Event()

    def run() -> None:
        seen.extend([originals.current_thread(), original.get_ident()])
        go.wait(5)

    with mock.patch.object(threading, STARTS, guarded):
        thread = originals.Thread(target=run, name="ours", daemon=True)
        thread.start()
        assert thread.is_alive() and thread.ident != original.get_ident()
        thread.join(0.01)
        assert thread.is_alive()
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        go.set()
        thread.join(5)

    assert not thread.is_alive()
    assert seen == [thread, thread.ident]
    assert originals.current_thread() is threading.current_thread()


def test_what_such_a_thread_raises_goes_where_other_threads_exceptions_go(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    monkeypatch.setattr(threading, STARTS, guarded)
    leaving, failing = originals.Thread(target=sys.exit), originals.Thread(target=guarded)

    for thread in (leaving, failing):
        thread.start()
        thread.join(5)

    assert [(each.exc_type, each.thread) for each in said] == [(RuntimeError, failing)]


def test_a_condition_wakes_who_waits_and_forgets_who_has_left() -> None:
    changed, seen = originals.Condition(), []

    def wait() -> None:
        with changed:
            while not seen:
                changed.wait()
            seen.append("woken")

    with pytest.raises(RuntimeError, match="un-acquired lock"):
        changed.wait()
    with changed, taking(0.05):
        assert not changed.wait(0.05)
    thread = originals.Thread(target=wait, daemon=True)
    thread.start()
    with changed:
        seen.append("told")
        changed.notify_all()
    thread.join(5)

    assert seen == ["told", "woken"]


def test_a_time_out_of_zero_or_less_only_looks() -> None:
    changed, lock = originals.Condition(), original.Lock()

    with changed:
        assert not changed.wait(0)
        assert not changed.wait(-3)
    assert originals.acquired(lock, -1)
    assert not originals.acquired(lock, 0)
    with taking(0.05):
        assert not originals.acquired(lock, 0.05)


def test_an_accepted_socket_is_as_accept_would_make_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        with socket.create_connection(listener.getsockname()) as client:
            accepted, address = originals.accept(listener)
            with accepted:
                assert type(accepted) is socket.socket
                assert address == client.getsockname()
                assert accepted.gettimeout() is None and accepted.getblocking()


def test_an_accept_of_the_listeners_own_is_called() -> None:
    class Listener(socket.socket):
        def accept(self) -> Any:
            return "mine", "here"

    with Listener() as listener:
        assert originals.accept(listener) == ("mine", "here")


def test_datagrams_past_a_guard(udp_server: Any) -> None:
    udp_server.on(b"q").reply(b"a")

    with datagram_client(udp_server) as client:
        client.send(b"q")
        assert client.recv(10) == b"a"


@pytest.mark.parametrize("method", ["__init__", "start", "run", "join", "is_alive"])
@pytest.mark.parametrize("transport", ["tcp", "unix", "udp"])
def test_patched_methods_of_threads_let_the_server_be(method: str, transport: str) -> None:
    """``mock.patch("threading.Thread.start")`` keeps the threads of the code under test from running, not ours."""

    def fake(*_args: object, **_named: object) -> None:
        raise AssertionError("this test starts no thread")

    def serve() -> None:
        with SockServer() as sockserver, mock.patch.object(threading.Thread, method, fake):
            server = getattr(sockserver, transport)(**({} if transport == "udp" else {"framing": LINES}))
            server.on(b"x\n", times=1).reply(b"y\n")
            client = datagram_client(server) if transport == "udp" else connect_to(server.address)
            with client:
                client.sendall(b"x\n")
                assert client.recv(100) == b"y\n"
            server.stop()

    serve()

    assert [each for each in original.all_threads() if "sockserver" in each.name] == []


# The number of the process


@pytest.mark.parametrize("transport", ["tcp", "unix", "udp", "unix_datagram"])
def test_a_patched_getpid_is_no_fork(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """Tests of files that hold a process number patch it: a child's server would judge nothing, and leave threads."""

    def demand_in_vain() -> None:
        with SockServer() as sockserver:
            server = getattr(sockserver, transport)()
            server.script().expect(b"never")
            monkeypatch.setattr("os.getpid", lambda: 42)

    with pytest.raises(UnmetExpectation):
        demand_in_vain()

    assert [each for each in original.all_threads() if "sockserver" in each.name] == []
