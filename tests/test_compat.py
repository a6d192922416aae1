"""Beside other plugins, loops, workers, debuggers and strict interpreters: the same servers, the same reports."""

from __future__ import annotations

import bdb
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from pytest_sockserver import DeadlineExceeded, StreamTestServer
from pytest_sockserver.connection import deadline

from .plugin_runs import ALWAYS, OURS, Runner

TIMEOUT = (*OURS, "-p", "pytest_timeout")
SOCKET = (*OURS, "-p", "pytest_socket")
XDIST = (*OURS, "-p", "xdist.plugin", "-p", "xdist.looponfail")
LOOPS = (*OURS, "-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin", "-p", "pytest_trio.plugin")


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


# Event loops

COROUTINES = """
import asyncio, anyio, pytest, trio

@pytest.fixture
def broken(tcp_server):
    @tcp_server.handler
    def greet(conn):
        raise ValueError(f"cannot parse {conn.recv_line()!r}")
    return tcp_server

async def ask_by_asyncio(server):
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(b"hi\\n")
        return await reader.read()
    except ConnectionResetError:
        return b"(reset)"
    finally:
        writer.close()
        await asyncio.sleep(0)

@pytest.mark.asyncio
async def test_asyncio_ignoring(broken):
    await ask_by_asyncio(broken)

@pytest.mark.asyncio
async def test_asyncio_failing(broken):
    assert await ask_by_asyncio(broken) == b"hello"

@pytest.mark.asyncio
async def test_asyncio_waiting(broken):
    await ask_by_asyncio(broken)
    await broken.aio.wait_for(b"bye\\n")

@pytest.mark.asyncio
async def test_asyncio_mismatch(tcp_server):
    _, writer = await asyncio.open_connection(*tcp_server.address)
    try:
        writer.write(b"hi\\n")
        conn = await tcp_server.aio.accept()
        await conn.expect_line(b"hello")
    finally:
        writer.close()
        await asyncio.sleep(0)

@pytest.mark.asyncio
async def test_asyncio_blocking(tcp_server):
    tcp_server.accept()

@pytest.mark.trio
async def test_trio_ignoring(broken):
    async with await trio.open_tcp_stream(*broken.address) as stream:
        await stream.send_all(b"hi\\n")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(10)

@pytest.mark.trio
async def test_trio_blocking(tcp_server):
    tcp_server.accept()

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_anyio_ignoring(broken):
    async with await anyio.connect_tcp(*broken.address) as stream:
        await stream.send(b"hi\\n")
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive(10)
"""


def test_coroutines_of_every_loop_fail_as_plain_tests_do(inner: Runner) -> None:
    inner.pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")

    # pytest-asyncio of pytest 8.4 leaves a loop of its own unclosed on 3.10.
    unclosed = ("-W", "ignore::ResourceWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning")
    run = inner(COROUTINES, *unclosed, loaded=LOOPS)

    assert run.result.parseoutcomes() == {"failed": 9}
    ignoring = ["asyncio_ignoring", "trio_ignoring", "anyio_ignoring[asyncio]", "anyio_ignoring[trio]"]
    for name in ignoring:
        assert run.phases(f"test_{name}") == ["call failed"]
        assert run.block(f"test_{name}").splitlines()[3:6] == [
            '>       raise ValueError(f"cannot parse {conn.recv_line()!r}")',
            r"E       ValueError: cannot parse b'hi\n'",
            "test_it.py:7: ValueError",
        ]
    said = run.block("test_asyncio_failing").splitlines()
    assert "E       on the server's side, tcp_server, connection 0 (127.0.0.1:PORT):" in said
    assert r"E         ValueError: test_it.py:7, cannot parse b'hi\n'" in said
    assert (
        "E       pytest_sockserver.ServerFailed: wait_for() ended early, since the server's side failed: ValueError: "
        r"cannot parse b'hi\n'"
    ) in run.block("test_asyncio_waiting").splitlines()
    mismatch = run.block("test_asyncio_mismatch").splitlines()
    assert [line for line in mismatch if line[0] == ">"] == ['>           await conn.expect_line(b"hello")']
    assert "test_it.py:40: ScriptMismatch" in mismatch
    blocking = (
        "pytest_sockserver.BlockingCallInCoroutine: accept() blocks, and was called inside a coroutine: the {} loop, "
        "and with it the client, would stand still.  Use await server.aio.accept(...), or call it in a thread, "
        "by to_thread()"
    )
    assert f"E       {blocking.format('asyncio')}" in run.block("test_asyncio_blocking").splitlines()
    assert f"    | {blocking.format('trio')}" in run.block("test_trio_blocking").splitlines()


# pytest-timeout

LIMITED = """
import threading, time, pytest
from client import connect

def test_first(tcp_server):  # what is imported for a first report takes time that the others may not have
    tcp_server.accept(timeout=0.01)

@pytest.mark.timeout(0.8)
def test_wait(tcp_server):
    tcp_server.accept(timeout=5)

@pytest.mark.timeout(0.8)
def test_verb(tcp_server):
    with connect(tcp_server):
        tcp_server.accept().recv_line(timeout=5)

@pytest.mark.timeout(0.8)
def test_handler(tcp_server):
    @tcp_server.handler
    def log_in(conn):
        conn.expect(b"USER")

    with connect(tcp_server) as client:
        client.recv(1)

def test_unlimited(tcp_server):
    with pytest.raises(TimeoutError, match="accept.. waited 0.6 s, and nobody connected"):
        tcp_server.accept(timeout=0.6)
"""


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_our_deadlines_stay_below_the_time_limit_of_the_test(inner: Runner, method: str) -> None:
    run = inner.outside(LIMITED, f"--timeout-method={method}", loaded=TIMEOUT)

    assert run.result.parseoutcomes() == {"failed": 4, "passed": 1}
    kind = "pytest_sockserver.DeadlineExceeded: "
    said = [line.partition(kind)[2] for line in run.stdout.splitlines() if line.startswith("E  ") and kind in line][1:]
    assert [re.sub(r"(waited|within) 0\.[0-3]\d*( s \(.*?\)| s)", r"\1 0.3 s", each) for each in said] == [
        "accept() waited 0.3 s, and nobody connected",
        "recv_line() waited 0.3 s, and nothing came",
        "expected b'USER' within 0.3 s",
    ]
    assert "from pytest-timeout" not in run.stdout


def test_a_wait_that_a_time_limit_shortens_says_so_in_round_numbers(inner: Runner) -> None:
    run = inner.outside(LIMITED, "-k", "test_first or test_wait", loaded=TIMEOUT)

    said = next(line for line in run.block("test_wait").splitlines() if line.startswith("E  "))
    assert re.sub(r"(waited|within) 0\.([0-3]|0\d) s", "waited 0.3 s", said) == (
        "E       pytest_sockserver.DeadlineExceeded: accept() waited 0.3 s (not 5 s: the test's time limit is near), "
        "and nobody connected"
    )


def test_a_time_limit_that_runs_out_in_the_test_has_the_servers_side_in_its_report(inner: Runner) -> None:
    run = inner(
        """
        import time, pytest
        from client import ask

        @pytest.mark.timeout(1, method="signal")
        def test_client(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            ask(tcp_server)
            time.sleep(5)

        def test_next(tcp_server):
            with pytest.raises(TimeoutError, match="accept.. waited 0.01 s"):
                tcp_server.accept(timeout=0.01)
        """,
        loaded=TIMEOUT,
    )

    assert run.phases("test_client") == ["call failed"]
    assert run.phases("test_next") == ["call passed"]
    said = run.block("test_client").splitlines()
    first = next(i for i, line in enumerate(said) if line.startswith("E  "))
    assert said[first - 1 : first + 3] == [
        ">       time.sleep(5)",
        "E       Failed: Timeout (>1.0s) from pytest-timeout.",
        "E       on the server's side, tcp_server, connection 0 (127.0.0.1:PORT):",
        r"E         ValueError: test_it.py:8, cannot parse b'hi\n'",
    ]


def test_a_time_limit_that_runs_out_while_the_end_of_the_call_waits_still_reports(inner: Runner) -> None:
    """The handler is busy for ever; what is left to say is said by the teardown, within its own bound."""
    run = inner(
        """
        import threading, pytest
        from client import connect

        done = threading.Event()

        @pytest.fixture(scope="module", autouse=True)
        def finally_done():
            yield
            done.set()

        @pytest.mark.timeout(0.8, method="signal", func_only=False)
        @pytest.mark.sockserver(stop_timeout=0.2)
        def test_it(tcp_server):
            @tcp_server.handler
            def wait(conn):
                conn.send(b"!")
                done.wait(10)

            with connect(tcp_server) as client:
                client.recv(1)
        """,
        loaded=TIMEOUT,
    )

    assert run.phases("test_it")[-1] == "teardown failed"
    (said,) = [line for line in run.stdout.splitlines() if line.startswith("E  ") and "HandlerStuck: " in line]
    assert re.match(
        r"E       pytest_sockserver.HandlerStuck: a handler did not end within 0\.\d+ s"
        r" \((stop_timeout|not 0\.2 s: the test's time limit is near)\): thread 'sock",
        said,
    )


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_servers_are_green_under_a_time_limit(inner: Runner, method: str) -> None:
    run = inner.outside(GREEN, "--timeout=30", f"--timeout-method={method}", loaded=TIMEOUT)

    assert run.result.parseoutcomes() == {"passed": 12}


# Green runs

GREEN = """
import socket, pytest
from client import ask, connect, tell

@pytest.mark.parametrize("n", range(5))
def test_tcp(tcp_server, n):
    @tcp_server.handler
    def echo(conn):
        while True:
            conn.send(conn.recv_line())
    assert ask(tcp_server) == b"hi\\n"
    assert tcp_server.requests == [b"hi\\n"]

@pytest.mark.parametrize("n", range(3))
def test_udp(udp_server, n):
    tell(udp_server, b"hi")
    assert udp_server.wait_for(b"hi").peer

@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs unix sockets")
def test_unix(unix_server, unix_datagram_server):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(unix_server.path)
        unix_server.accept().send(b"hi")
        assert client.recv(10) == b"hi"

def test_several(sockserver, sockserver_module, sockserver_session):
    servers = [each.tcp() for each in (sockserver, sockserver_module, sockserver_session)]
    for server in servers:
        connect(server).close()
    assert len({server.port for server in servers}) == 3

def test_threads(tcp_server):
    reply = tcp_server.in_thread(ask, tcp_server)
    conn = tcp_server.accept()
    assert conn.recv_line() == b"hi\\n"
    conn.send(b"hello")
    conn.close()
    assert reply.result() == b"hello"

def test_idle(tcp_server):
    client = connect(tcp_server)
    tcp_server.wait_connection()
    tcp_server.stop()
    client.close()
"""


def test_servers_are_green_on_four_workers(inner: Runner) -> None:
    run = inner.outside(GREEN, "-n4", loaded=XDIST)

    assert run.result.parseoutcomes() == {"passed": 12}


def test_servers_are_green_in_random_order(inner: Runner) -> None:
    pytest.importorskip("pytest_randomly")

    run = inner.outside(GREEN, loaded=(*OURS, "-p", "pytest_randomly"))

    assert run.result.parseoutcomes() == {"passed": 12}


def test_servers_are_green_in_development_mode_with_every_warning_an_error(inner: Runner) -> None:
    inner.write(GREEN)

    done = inner.pytester.run(
        sys.executable, "-X", "dev", "-X", "tracemalloc=5", "-W", "error", "-m", "pytest", *ALWAYS, *OURS
    )

    done.assert_outcomes(passed=12)
    assert done.stderr.str() == ""


# pytest-socket

BLOCKED = """
def test_tcp(tcp_server): pass
def test_udp(udp_server): pass
def test_unix(unix_server): pass
def test_unix_datagram(unix_datagram_server): pass
def test_factory(sockserver): sockserver.tcp_and_udp()
"""


def test_a_blocked_socket_is_an_error_that_names_the_flags(inner: Runner) -> None:
    run = inner.outside(BLOCKED, "--disable-socket", "-W", "ignore::UserWarning", loaded=SOCKET)

    assert run.result.parseoutcomes() == {"errors": 4, "failed": 1}
    said = "pytest_sockserver.AddressUnavailable: [Errno 13] pytest-socket blocks this test's sockets: run pytest with "
    rest = ", or mark the test with @pytest.mark.enable_socket"
    internet, unix = f"{said}--allow-hosts=127.0.0.1,::1{rest}", f"{said}--allow-unix-socket{rest}"
    assert [line.lstrip("E ") for line in run.stdout.splitlines() if re.match("E  .*Unavailable: ", line)] == [
        internet,
        internet,
        unix,
        unix,
        internet,
    ]


@pytest.mark.parametrize(
    ("flags", "passed"),
    [
        (["--disable-socket", "--allow-hosts=127.0.0.1,::1", "--allow-unix-socket"], 5),
        (["--allow-hosts=127.0.0.1"], 5),
        (["--disable-socket", "--allow-unix-socket"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_named_flags_let_servers_run(inner: Runner, flags: list[str], passed: int) -> None:
    run = inner.outside(BLOCKED, *flags, "-W", "ignore::UserWarning", loaded=SOCKET)

    assert run.result.parseoutcomes()["passed"] == passed


def test_a_marked_test_may_use_sockets_although_they_are_blocked(inner: Runner) -> None:
    run = inner.outside(
        """
        import pytest
        from client import ask

        @pytest.mark.enable_socket
        def test_it(tcp_server):
            @tcp_server.handler
            def echo(conn):
                conn.send(conn.recv_line())
            assert ask(tcp_server) == b"hi\\n"
        """,
        "--disable-socket",
        loaded=SOCKET,
    )

    assert run.result.parseoutcomes() == {"passed": 1}


# Debuggers


def test_the_debugger_of_a_failure_stands_in_the_handler(inner: Runner) -> None:
    inner.write(
        """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                secret = 42
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            ask(tcp_server)
        """
    )

    said = scripted(inner, "p secret * 2\nc\n", "--pdb")

    assert re.search(r"^> \S+test_it\.py\(7\)greet\(\)\n-> raise ValueError\(.*\n\(Pdb\) 84$", said, re.MULTILINE)


def test_no_wait_runs_out_while_somebody_looks_around_in_a_handler(inner: Runner) -> None:
    inner.write(
        """
        from client import connect

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                breakpoint()
                conn.send(b"!")
                conn.recv_line()

            with connect(tcp_server) as client:
                client.sendall(b"hi\\n")
                tcp_server.wait_for(b"hi\\n", timeout=0.2)
        """
    )

    said = scripted(inner, "import time\ntime.sleep(0.6)\nc\n")

    assert re.search(r"^=+ 1 passed in .*=$", said, re.MULTILINE), said


def scripted(inner: Runner, commands: str, *args: str) -> str:
    """Run pytest outside, with somebody who types ``commands``; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *ALWAYS, *OURS, *args],
        cwd=inner.pytester.path,
        input=commands,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout


@pytest.fixture
def traced() -> Iterator[Any]:
    """Set a trace function for the rest of a test."""
    before = sys.gettrace()
    yield sys.settrace
    sys.settrace(before)


def waits_for_ever(seconds: float = 0.05) -> bool:
    """Tell whether a deadline does not run out: whether some time after it, there is some left."""
    limit = deadline.Deadline(seconds)
    threading.Event().wait(seconds * 1.5)
    return limit.left() != 0.0


def test_deadlines_do_not_run_out_under_a_trace_function_of_bdb(traced: Any) -> None:
    debugger = bdb.Bdb()  # sees each line and stops at none
    debugger.reset()
    traced(debugger.trace_dispatch)

    assert waits_for_ever()


@pytest.mark.parametrize(
    "module", ["pydevd", "_pydevd_bundle.pydevd_trace_dispatch", "debugpy.tracing", "IPython.core"]
)
def test_deadlines_do_not_run_out_under_the_trace_function_of_a_debugger(traced: Any, module: str) -> None:
    def dispatch(frame: FrameType, event: str, arg: object) -> None:
        return None

    dispatch.__module__ = module
    traced(dispatch)

    assert waits_for_ever()


def test_deadlines_run_out_under_any_other_trace_function(traced: Any) -> None:
    """Coverage sets one as well."""

    def count(frame: FrameType, event: str, arg: object) -> None:
        return None

    traced(count)

    assert not waits_for_ever()


def test_deadlines_do_not_run_out_while_pytests_debugger_is_open() -> None:
    deadline.pause(True)
    try:
        assert waits_for_ever()
    finally:
        deadline.pause(False)

    assert not waits_for_ever()


def test_a_wait_goes_on_after_its_time_while_the_debugger_is_open_and_ends_after_it(
    tcp_server: StreamTestServer,
) -> None:
    deadline.pause(True)
    began = time.monotonic()
    timer = threading.Timer(0.3, deadline.pause, [False])
    timer.start()

    with pytest.raises(DeadlineExceeded) as caught:
        tcp_server.accept(timeout=0.1)
    took = time.monotonic() - began
    timer.join()

    assert str(caught.value).splitlines()[0] == "tcp_server: accept() waited 0.1 s, and nobody connected"
    assert took >= 0.3
