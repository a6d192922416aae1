"""A server that was started by hand and never stopped is a ResourceWarning that names where it was started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .plugin_runs import OURS, ROOT, Runner


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


def run(tmp_path: Path, source: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a program without pytest; it ends by itself."""
    path = tmp_path / "program.py"
    path.write_text(source)
    return subprocess.run(
        [sys.executable, *args, str(path)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            "PYTHONPATH": ROOT,
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )


# Without pytest


# Each on a line of its own, all in one process.
FORGOTTEN = [
    "tcp = StreamTestServer(); tcp.start()",
    "SockServer().tcp()",
    "sockserver = SockServer(); sockserver.udp()",
    "unix_datagram = DatagramTestServer(transport='unix_datagram'); unix_datagram.start()",
    "refusing = StreamTestServer(); refusing.start(); refusing.refuse()",
    "again = StreamTestServer(); again.start(); again.stop(); again.start()",
    "collected = StreamTestServer(); collected.start(); collected = None; gc.collect()",
    "busy = StreamTestServer(); busy.handler(lambda conn: threading.Event().wait()); busy.start();"
    " client = socket.create_connection(busy.address); busy.wait_connection()",
]

STOPPED = [
    "server = StreamTestServer(); server.start(); server.stop()",
    "with StreamTestServer() as server: pass",
    "with SockServer() as sockserver: sockserver.tcp()",
    "at_exit = StreamTestServer(); at_exit.start(); atexit.register(at_exit.stop)",
    "never_started = StreamTestServer()",
]


def test_a_server_that_is_never_stopped_is_told_at_the_end_of_the_process_and_a_stopped_one_is_not(
    tmp_path: Path,
) -> None:
    program = "import atexit, gc, socket, threading; from pytest_sockserver import *\n" + "\n".join(FORGOTTEN + STOPPED)

    said = run(tmp_path, program, "-W", "default").stderr

    warned = [line for line in said.splitlines() if "never stopped" in line]
    for number, line in enumerate(warned, 2):
        assert re.match(
            rf"{re.escape(str(tmp_path))}/program.py:{number}: ResourceWarning: (tcp|udp|unix_datagram) \S+ was "
            r"started here, and never stopped: use it as `with \w+TestServer\(\) as server:`, or call stop\(\)",
            line,
        )
    assert len(warned) == len(FORGOTTEN)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_a_child_does_not_tell_of_the_servers_of_its_parent(tmp_path: Path) -> None:
    program = """
import os
from pytest_sockserver import *

server = StreamTestServer()
server.start()
pid = os.fork()
if pid == 0:
    raise SystemExit
os.waitpid(pid, 0)
server.stop()
"""

    assert "never stopped" not in run(tmp_path, program, "-W", "default").stderr


def test_its_socket_file_goes_with_the_process(tmp_path: Path) -> None:
    program = (
        "from pytest_sockserver import *\nserver = StreamTestServer(transport='unix'); server.start()\n"
        "print(server.path)\n"
    )

    path = Path(run(tmp_path, program).stdout.strip())

    assert not path.parent.exists()


def test_where_warnings_are_errors_the_process_ends_all_the_same(tmp_path: Path) -> None:
    program = "from pytest_sockserver import *\na, b = StreamTestServer(), StreamTestServer()\na.start()\nb.start()\n"

    said = run(tmp_path, program, "-W", "error").stderr

    assert "ResourceWarning: tcp 127.0.0.1:" in said


# Through pytest

FORGETS = """
    from pytest_sockserver import SockServer, StreamTestServer

    kept = []

    def test_forgets():
        server = StreamTestServer()
        server.start()
        kept.append(SockServer().udp())

    def test_other(tcp_server):
        pass
"""


def test_the_summary_of_a_run_names_the_line_and_the_test(inner: Runner) -> None:
    run = inner.outside(FORGETS, "-W", "default::ResourceWarning")

    run.result.assert_outcomes(passed=2, warnings=2)
    assert re.search(
        r"test_it\.py:7: ResourceWarning: tcp 127\.0\.0\.1:PORT was started here in test_it\.py::test_forgets, and",
        run.stdout,
    )
    assert "test_it.py:8: ResourceWarning: udp 127.0.0.1:PORT was started here" in run.stdout
    assert run.stderr == ""


def test_the_warning_names_what_went_wrong_in_the_server(inner: Runner) -> None:
    run = inner.outside(
        """
        from client import ask
        from pytest_sockserver import StreamTestServer

        def test_it():
            server = StreamTestServer()
            server.start()

            @server.handler
            def fail(conn):
                raise KeyError("lost")

            ask(server)
        """,
        "-W",
        "default::ResourceWarning",
    )

    assert "this went wrong in it: tcp, connection 0 (127.0.0.1:PORT): KeyError: test_it.py:10, 'lost'" in run.stdout


def test_where_warnings_are_errors_the_run_fails_and_its_report_is_printed(inner: Runner) -> None:
    run = inner.outside(FORGETS)

    assert run.code == pytest.ExitCode.TESTS_FAILED
    run.result.assert_outcomes(passed=2, warnings=2)
    assert "INTERNALERROR" not in run.stdout + run.stderr


@pytest.mark.one_version
def test_warnings_of_xdist_workers_arrive(inner: Runner) -> None:
    pytest.importorskip("xdist")

    run = inner.outside(FORGETS, "-n", "2", "-W", "default::ResourceWarning", loaded=(*OURS, "-p", "xdist"))

    run.result.assert_outcomes(passed=2, warnings=2)


def test_a_server_of_a_users_fixture_is_stopped_by_then(inner: Runner) -> None:
    run = inner.outside(
        """
        import pytest
        from pytest_sockserver import StreamTestServer

        @pytest.fixture(scope="session")
        def server():
            with StreamTestServer() as server:
                yield server

        def test_it(server, tcp_server):
            pass
        """
    )

    run.result.assert_outcomes(passed=1)
    assert run.code == 0


def test_a_run_within_a_run_does_not_tell_of_the_outer_ones_servers(inner: Runner, tcp_server: object) -> None:
    run = inner("def test_it(udp_server): pass")

    assert run.code == 0
    assert "never stopped" not in run.stdout
