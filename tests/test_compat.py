"""Beside loops and debuggers, and in development mode: the same servers, the same reports on each version."""

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

from .plugin_runs import ALWAYS, GREEN, OURS, Runner

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


# Development mode


def test_servers_are_green_in_development_mode_with_every_warning_an_error(inner: Runner) -> None:
    inner.write(GREEN)

    done = inner.pytester.run(
        sys.executable, "-X", "dev", "-X", "tracemalloc=5", "-W", "error", "-m", "pytest", *ALWAYS, *OURS
    )

    done.assert_outcomes(passed=12)
    assert done.stderr.str() == ""


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
