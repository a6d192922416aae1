"""Leaving a run is never made worse: Ctrl-C, ``pytest.exit()``, ``q`` in the debugger.

Each test runs a real pytest in a process group of its own and sends it real signals, as a terminal does.  When to send
them the run announces itself: over a connection that was made before, so that a single send does it.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugin_runs import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="Ctrl-C is sent to a process group")

# Seconds that our fixtures may add to the way out of a run, and the most that all servers of one take together.
LATER, WAY_OUT = 0.3, 0.5

# Seconds after which a run hangs.
PATIENCE = 30

# A machine under load is slow in any run: the best of so many tries counts.
TRIES = 3

# Ctrl-C that comes just before a thread blocks is noticed when it wakes, in any program; so it is announced when the
# main thread has been blocked for a moment: it sleeps, and has not run since the last look.
ANNOUNCE = """
import os, socket, threading, time

_line = socket.create_connection(("127.0.0.1", int(os.environ["ANNOUNCE"])))
_main = f"/proc/self/task/{threading.main_thread().native_id}/status"

def announce(word="now", at_once=False):
    if at_once or not os.path.exists(_main):
        _line.sendall(word.encode() + b"\\n")
    else:
        threading.Thread(target=_when_blocked, args=(word,), daemon=True).start()

def _when_blocked(word):
    before = ""
    while True:
        with open(_main) as file:
            status = file.read()
        if "(sleeping)" in status and status == before:
            return announce(word, at_once=True)
        before = status
        time.sleep(0.02)
"""

# Announced: that the earlier failure is reported, by the controller under xdist; and how long the way out takes.
CONFTEST = """
import os, time
import pytest
from announcing import announce

@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        announce("failed", at_once=True)

@pytest.hookimpl(wrapper=True, trylast=True)  # around what tears down, and our plugin; the summary is not in it
def pytest_sessionfinish(session):
    began = time.monotonic()
    try:
        return (yield)
    finally:
        if not session.config.pluginmanager.has_plugin("dsession"):
            announce(f"{time.monotonic() - began}", at_once=True)
"""

HEAD = """
import os, signal, socket, threading, time
import pytest
from announcing import announce
from pytest_sockserver import *

def connect(server):
    return socket.create_connection(server.address)

def test_fails_first():
    assert 0, "an earlier failure"
"""


class Left:
    """How a run was left.

    Attributes:
        seconds: What tearing down at the end of the run has taken, in the process that ran the test.
    """

    def __init__(self, pid: int, code: int, text: str, words: list[str]) -> None:
        self.pid, self.code = pid, code
        self.text = re.sub(r"(127\.0\.0\.1|\[::1\]):\d{4,5}\b", r"\1:PORT", text)
        self.seconds = max([float(word) for word in words if word[0].isdigit()], default=0.0)

    def pending(self) -> list[str]:
        """Return the first line of each warning about what was pending."""
        return re.findall(r"PytestWarning: this was pending when the run was left: (.*)", self.text)


class Runs:
    """Runs Python in processes of their own, in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "announcing.py").write_text(ANNOUNCE)
        (path / "conftest.py").write_text(CONFTEST)
        (path / "pytest.ini").write_text("[pytest]\n")

    def pytest(self, source: str, *args: str, wait_for: tuple[str, ...] = ("failed", "now"), **given: Any) -> Left:
        """Run pytest on a test that comes after one that fails; leave it when all these words were announced."""
        (self.path / "test_it.py").write_text(HEAD + textwrap.dedent(source))
        plugins = ("-p", "pytest_sockserver.pytest_plugin.plugin", "-p", "no:cacheprovider")
        return self.python("-m", "pytest", *plugins, "test_it.py", *args, wait_for=wait_for, **given)

    def python(
        self, *args: str, wait_for: tuple[str, ...] = ("now",), presses: int = 1, entered: str | None = None
    ) -> Left:
        """Run Python; press Ctrl-C when all these words were announced, and again at each further ``now``.

        Args:
            entered: What the run may read from its terminal.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            environ = dict(
                os.environ,
                ANNOUNCE=str(server.getsockname()[1]),
                PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
                PYTEST_DEBUG_TEMPROOT=str(self.path),
                PYTHONPATH=os.pathsep.join([ROOT, str(Path(__file__).parent)]),  # the latter for insides.py
                COLUMNS="80",
            )
            for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
                environ.pop(name, None)
            child = subprocess.Popen(
                [sys.executable, *args],
                cwd=self.path,
                env=environ,
                stdin=subprocess.DEVNULL if entered is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            said: list[str] = []

            def press() -> None:
                words, wanted = _announced(server, said), wait_for
                for _ in range(presses):
                    missing = {*wanted}
                    while missing:
                        word = next(words, None)
                        if word is None:
                            return
                        missing.discard(word)
                    wanted = ("now",)
                    os.killpg(child.pid, signal.SIGINT)
                for _ in words:
                    pass

            presser = threading.Thread(target=press)
            presser.start()
            try:
                text, _ = child.communicate(entered, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                raise AssertionError(f"the run hangs:\n{child.communicate()[0]}") from None
            finally:
                server.shutdown(socket.SHUT_RDWR)
                presser.join()
        return Left(child.pid, child.returncode, text, said)


def _announced(server: socket.socket, said: list[str]) -> Iterator[str]:
    """Yield the words that a run's processes announce, until the server is shut down; keep them in ``said``."""
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is server:
                        selector.register(server.accept()[0], selectors.EVENT_READ)
                        continue
                    data = key.fileobj.recv(100)  # type: ignore[union-attr]
                    if not data:
                        selector.unregister(key.fileobj).fileobj.close()  # type: ignore[union-attr]
                    words = data.decode().split()
                    said += words
                    yield from words
        except OSError:
            return  # the server is shut down
        finally:
            for key in list(selector.get_map().values()):
                if key.fileobj is not server:
                    key.fileobj.close()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("leaving"))


def assert_left(left: Left, failed: int = 1) -> None:
    assert left.code == pytest.ExitCode.INTERRUPTED, left.text
    assert "AssertionError: an earlier failure" in left.text
    assert re.search(rf"= {failed} failed.* =", left.text.splitlines()[-1])


# What a run with workers does more is pytest-xdist's.
WORKERS = pytest.mark.parametrize(
    "workers",
    [(), pytest.param(("-p", "xdist", "-n", "2"), marks=pytest.mark.one_version)],
    ids=["alone", "-n 2"],
)

# Where Ctrl-C comes, and what is reported as pending.
PLACES = {
    "a client's read": (
        """
        def test_it(tcp_server):
            tcp_server.script().send(b"220 hi\\r\\n").expect(b"QUIT\\r\\n")
            client = connect(tcp_server)
            client.recv(8, socket.MSG_WAITALL)
            announce()
            client.recv(1)
        """,
        ["UnmetExpectation: tcp_server, connection 0 (127.0.0.1:PORT): step 2 of 2, test_it.py:14, was never reached: "
         "expected b'QUIT\\r\\n'"],
    ),
    "a wait of ours": (
        """
        def test_it(udp_server):
            udp_server.on(b"never", times=1).reply(b"!")
            announce()
            udp_server.wait_for(b"never", timeout=60)
        """,
        ["UnmetExpectation: udp_server: rule 1 (test_it.py:14), on(b'never'), was to be taken once, and was never"],
    ),
    "a script": (
        """
        def test_it(unix_server):
            unix_server.script().send(Gate("never")).expect(b"QUIT\\r\\n")
            client = socket.socket(socket.AF_UNIX)
            client.connect(unix_server.address)
            unix_server.wait_connection()
            announce()
            client.recv(1)
        """,
        ["UnmetExpectation: unix_server, connection 0 (an unbound socket): step 2 of 2, test_it.py:14, was never "
         "reached: expected b'QUIT\\r\\n'"],
    ),
    "a stuck handler": (
        """
        def test_it(tcp_server):
            @tcp_server.handler
            def hang(conn):
                announce()
                time.sleep(60)
            connect(tcp_server).recv(1)
        """,
        ["HandlerStuck: tcp_server: a handler did not end within 0.2 s (not 5 s: the run is being left): thread "
         "'sockserver tcp 127.0.0.1:PORT #0' for 127.0.0.1:PORT stands at test_it.py:17"],
    ),
    "a fixture's setup": (
        """
        @pytest.fixture
        def client(tcp_server):
            tcp_server.on(CONNECT).reply(b"ok", lambda req: 1 / 0)
            with connect(tcp_server) as client:
                with pytest.raises(ConnectionResetError):
                    while client.recv(8):
                        pass
                announce()
                time.sleep(60)
            yield
        def test_it(client):
            pass
        """,
        ["ZeroDivisionError: tcp_server, connection 0 (127.0.0.1:PORT): division by zero"],
    ),
    "a fixture's teardown": (
        """
        @pytest.fixture
        def client(tcp_server):
            tcp_server.script().expect(b"QUIT\\r\\n")
            with connect(tcp_server) as client:
                yield client
                announce()
                client.recv(1)
        def test_it(client):
            pass
        """,
        ["ScriptMismatch: tcp_server, connection 0 (127.0.0.1:PORT): step 1 of 1, test_it.py:15, "
         "expected b'QUIT\\r\\n'"],
    ),
    "a teardown of ours": (
        """
        @pytest.fixture
        def client(tcp_server):
            client = connect(tcp_server)
            yield client
        def test_it(client, tcp_server):
            @tcp_server.handler
            def hang(conn):
                try:
                    conn.recv()
                finally:
                    announce()
                    time.sleep(60)
            tcp_server.accept = None
        """.replace("            tcp_server.accept = None\n", ""),
        ["HandlerStuck: tcp_server: a handler did not end within 0.2 s (not 5 s: the run is being left): thread "
         "'sockserver tcp 127.0.0.1:PORT #0' for 127.0.0.1:PORT stands at test_it.py:24"],
    ),
}  # fmt: skip


@WORKERS
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_the_run_with_its_report(runs: Runs, place: str, workers: tuple[str, ...]) -> None:
    source, pending = PLACES[place]
    took = []
    for _ in range(TRIES):
        left = runs.pytest(source, *workers)

        assert_left(left)
        if not workers:  # from the workers nothing is read any more
            assert left.pending() == pending
        took.append(left.seconds)
        if took[-1] <= LATER:
            break
    assert min(took) <= LATER


@WORKERS
@pytest.mark.parametrize("phase", ["call", "setup", "teardown"])
def test_pytest_exit_ends_the_run_with_its_report(runs: Runs, phase: str, workers: tuple[str, ...]) -> None:
    """In a teardown it is raised beside a failure of ours: in a group with that it would be an ordinary error."""
    source = f"""
    import insides

    def leave(phase):
        if phase == {phase!r}:
            pytest.exit("enough")

    @pytest.fixture
    def client(tcp_server):
        @tcp_server.handler
        def fail(conn):
            conn.recv()
            insides.add_failure(tcp_server, ValueError("after the call"), "tcp_server")
        with connect(tcp_server) as client:
            leave("setup")
            yield client
            client.sendall(b"x")
            insides.settle(tcp_server)
            leave("teardown")

    def test_it(client):
        leave("call")
    """
    left = runs.pytest(source, *workers, presses=0)

    assert_left(left, failed=2 if workers else 1)  # xdist itself counts the test of a worker that has left
    assert "Exit: enough" in left.text or "keyboard-interrupt" in left.text
    if phase == "teardown":
        assert left.pending() == ["ValueError: tcp_server: after the call"]


def test_ctrl_c_in_the_midst_of_a_stop_ends_the_run_soon_and_all_servers(runs: Runs) -> None:
    """The second one comes while the stop, in haste already, waits for a stuck thread."""
    source = """
    import insides

    @pytest.fixture
    def stuck(sockserver):
        for server in [sockserver.tcp(name=f"server {n}") for n in range(4)]:
            @server.handler
            def hang(conn):
                while True:
                    try:
                        conn.recv()
                    except ServerStopping:
                        announce(at_once=True)
                    time.sleep(60)
            connect(server)
            server.wait_connection()
            insides.settle(server)
        yield
    def test_it(stuck, unix_server):
        announce()
        time.sleep(60)
    """
    for _ in range(TRIES):
        left = runs.pytest(source, presses=2)

        assert_left(left)
        assert len(left.pending()) == 4
        assert list(Path("/tmp").glob(f"sockserver-{left.pid}-*")) == []
        if left.seconds <= WAY_OUT + 0.1:
            return
    raise AssertionError(f"expected all servers to be stopped within {WAY_OUT} s, not {left.seconds}")


def test_ctrl_c_in_another_teardown_leaves_no_server_and_no_socket_file(runs: Runs) -> None:
    """pytest forgets the teardowns of the same test that come after it; a server made by hand is left to gc."""
    source = """
    @pytest.fixture
    def by_hand():
        with StreamTestServer(transport="unix") as server:
            yield server

    @pytest.fixture
    def slow(unix_server, by_hand):
        yield
        unix_server.on(b"never", times=1).reply(b"")
        announce()
        time.sleep(60)

    def test_it(slow):
        pass
    """
    left = runs.pytest(source)

    assert_left(left)
    assert left.pending() == [
        "UnmetExpectation: unix_server: rule 1 (test_it.py:21), on(b'never'), was to be taken once, and was never"
    ]
    assert list(Path("/tmp").glob(f"sockserver-{left.pid}-*")) == []


def test_a_server_made_by_hand_in_a_fixture_does_not_cost_the_report_either(runs: Runs) -> None:
    source = """
    @pytest.fixture
    def server():
        with SockServer() as sockserver, StreamTestServer(name="mine") as server:
            sockserver.udp().on(b"never", times=1).reply(b"")
            server.script().expect(b"never")
            yield server

    def test_it(server):
        announce()
        time.sleep(60)
    """
    left = runs.pytest(source, "-W", "error")

    assert_left(left)
    assert [text.partition(",")[0] for text in left.pending()] == [
        "UnmetExpectation: mine: the script at test_it.py:17",
        "UnmetExpectation: udp: rule 1 (test_it.py:16)",
    ]


def test_a_run_that_stops_at_a_failed_teardown_keeps_its_report(runs: Runs) -> None:
    """-x: the first error is one of a teardown, and only pytest's own ending tears down the module."""
    source = """
    @pytest.fixture(scope="module")
    def server(sockserver_module):
        server = sockserver_module.tcp()
        yield server
        server.script().expect(b"never")

    @pytest.fixture
    def broken():
        yield
        assert 0, "a teardown"

    def test_it(server, broken):
        pass
    def test_not_run(server):
        pass
    """
    left = runs.pytest(source, "-x", "-k", "not fails_first", presses=0)

    assert left.code == pytest.ExitCode.TESTS_FAILED
    assert "AssertionError: a teardown" in left.text
    pending = [text.partition(",")[0] for text in left.pending()]
    assert pending == ["UnmetExpectation: tcp: the script at test_it.py:17"]


def test_ctrl_c_while_the_end_of_a_failed_call_waits_does_not_lose_that_failure(runs: Runs) -> None:
    source = """
    def test_it(tcp_server):
        begun = threading.Event()
        @tcp_server.handler
        def busy(conn):
            begun.set()
            announce()
            time.sleep(60)
        connect(tcp_server)
        begun.wait()
        assert 0, "its own failure"
    """
    left = runs.pytest(source)

    assert left.code == pytest.ExitCode.INTERRUPTED
    assert "AssertionError: its own failure" in left.text
    assert "= 2 failed" in left.text


SCRIPT_UNDER_WAY = """
    def test_it(tcp_server):
        tcp_server.script().send(b"220 hi\\r\\n").expect(b"QUIT\\r\\n")
        with connect(tcp_server) as client:
            client.recv(8, socket.MSG_WAITALL)
            {}
    def test_last():
        pass
"""


@pytest.mark.parametrize("way", ["breakpoint()", "assert 0", "time.sleep(60)"])
@pytest.mark.parametrize("entered", ["q", "c"])
def test_the_debugger_is_left(runs: Runs, way: str, entered: str) -> None:
    """Both by the failing step of a script; ``time.sleep()`` is interrupted by Ctrl-C."""
    presses = int(way.startswith("time"))
    source = SCRIPT_UNDER_WAY.format(f"announce(); {way}" if presses else way)

    left = runs.pytest(
        source, "--pdb", "-k", "not fails_first", entered=f"{entered}\n" * 3, wait_for=("now",), presses=presses
    )

    counts = re.sub(r" in .*", "", left.text.splitlines()[-1].strip("= "))
    if entered == "q":
        assert left.code == pytest.ExitCode.INTERRUPTED
        assert "Quitting debugger" in left.text
        assert "INTERNALERROR" not in left.text
    else:
        assert left.code == pytest.ExitCode.TESTS_FAILED
        assert re.fullmatch(r"1 failed, 1 passed, 1 deselected(, 1 warning)?", counts), left.text


def test_the_end_of_the_debuggers_input_does_not_stop_our_deadlines(runs: Runs) -> None:
    source = """
    def test_it(tcp_server):
        breakpoint()
    def test_last(tcp_server):
        from pytest_sockserver.connection.deadline import debugging
        assert not debugging()
    """
    left = runs.pytest(source, "-k", "not fails_first", entered="", presses=0)

    assert "1 failed, 1 passed" in left.text.splitlines()[-1]


def test_ctrl_c_leaves_a_block_unharmed_and_soon(runs: Runs) -> None:
    """Without pytest: the exception itself goes on, with a note, and nothing waits for the handler that is stuck."""
    program = """
    import socket, sys, time
    sys.path.insert(0, "")
    from announcing import announce
    from pytest_sockserver import SockServer

    try:
        with SockServer() as sockserver:
            server = sockserver.tcp()
            @server.handler
            def hang(conn):
                time.sleep(60)
            client = socket.create_connection(server.address)
            server.wait_connection()
            announce()
            time.sleep(60)
    except KeyboardInterrupt as error:
        note, = error.__notes__
        assert "HandlerStuck: " in note and "the run is being left" in note, note
        assert not server.is_running
        print("left")
    """
    (runs.path / "program.py").write_text(textwrap.dedent(program))

    left = runs.python("program.py")

    assert (left.code, left.text) == (0, "left\n")


def test_blocks_around_each_other_share_the_time_of_one_way_out(runs: Runs) -> None:
    program = """
    import contextlib, socket, sys, time
    sys.path.insert(0, "")
    from announcing import announce
    from pytest_sockserver import StreamTestServer

    def hang(conn):
        time.sleep(60)

    try:
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                server = stack.enter_context(StreamTestServer())
                server.handler(hang)
                stack.enter_context(socket.create_connection(server.address))
                server.wait_connection()
            stack.callback(lambda: print(time.monotonic()))
            announce()
            time.sleep(60)
    except KeyboardInterrupt as error:
        print(time.monotonic())
        print(len(error.__notes__) if hasattr(error, "__notes__") else 5)
    """
    (runs.path / "program.py").write_text(textwrap.dedent(program))
    took = []
    for _ in range(TRIES):
        left = runs.python("program.py")

        began, ended, notes = left.text.split()
        assert (left.code, notes) == (0, "5")
        took.append(float(ended) - float(began))
        if took[-1] <= WAY_OUT + 0.1:
            break
    assert min(took) <= WAY_OUT + 0.1


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_ctrl_c_leaves_an_awaited_wait(runs: Runs, loop: str) -> None:
    pytest.importorskip(loop)
    source = f"""
    def test_it(udp_server):
        import {loop}
        async def wait():
            announce()
            await udp_server.aio.wait_for(b"never", timeout=60)
        {"asyncio.run(wait())" if loop == "asyncio" else "trio.run(wait)"}
    """

    assert_left(runs.pytest(source))


def test_a_time_limit_in_the_midst_of_a_stop_is_an_error_that_names_what_was_stuck(runs: Runs) -> None:
    """By a signal, whose exception may come at any line of ours; and the run goes on."""
    source = """
    def give_up(*_):
        pytest.fail("too late")

    def test_it(unix_server):
        @unix_server.handler
        def hang(conn):
            try:
                conn.recv()
            finally:
                os.kill(os.getpid(), signal.SIGALRM)
                time.sleep(60)
        signal.signal(signal.SIGALRM, give_up)
        global client
        client = socket.socket(socket.AF_UNIX)
        client.connect(unix_server.address)
        unix_server.wait_connection()

    def test_last(tcp_server):
        assert [each.name for each in threading.enumerate() if "accept" in each.name] == []
    """
    left = runs.pytest(source, "-k", "not fails_first", presses=0)

    assert left.code == pytest.ExitCode.TESTS_FAILED
    assert "Failed: too late" in left.text
    assert "HandlerStuck: " in left.text
    assert "2 passed, 1 deselected, 1 error" in left.text.splitlines()[-1]


def test_ctrl_c_in_a_fault_matrix_does_not_wait_for_the_rest_of_it(runs: Runs) -> None:
    source = """
    from pytest_sockserver import fault_matrix

    def client(server):
        with connect(server) as client:
            return client.recv(1)

    def test_it():
        threading.Timer(0.01, announce).start()
        fault_matrix(client, lambda server: server.on(CONNECT).reply(b"x"), workers=1, patience=1)
    """
    left = runs.pytest(source)

    assert_left(left)
