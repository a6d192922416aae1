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


@pytest.mark.parametrize(
    "start",
    [
        "server = StreamTestServer(); server.start()",
        "SockServer().tcp()",
        "sockserver = SockServer(); sockserver.udp()",
        "server = DatagramTestServer(transport='unix_datagram'); server.start()",
        "server = StreamTestServer(); server.start(); server.refuse()",
        "server = StreamTestServer(); server.start(); server.stop(); server.start()",
        "server = StreamTestServer(); server.start(); server = None; gc.collect()",
        "server = StreamTestServer(); server.handler(lambda conn: threading.Event().wait()); server.start();"
        " client = socket.create_connection(server.address); server.wait_connection()",
    ],
)
def test_a_server_that_is_never_stopped_is_told_at_the_end_of_the_process(tmp_path: Path, start: str) -> None:
    program = "import gc, socket, threading\nfrom pytest_sockserver import *\n" + start + "\n"

    said = run(tmp_path, program, "-W", "default").stderr

    warned = [line for line in said.splitlines() if "never stopped" in line]
    assert len(warned) == 1
    assert re.match(
        rf"{re.escape(str(tmp_path))}/program.py:3: ResourceWarning: (tcp|udp|unix_datagram) \S+ was started here, "
        r"and never stopped: use it as `with \w+TestServer\(\) as server:`, or call stop\(\)",
        warned[0],
    )


@pytest.mark.parametrize(
    "used",
    [
        "server = StreamTestServer(); server.start(); server.stop()",
        "with StreamTestServer() as server: pass",
        "with SockServer() as sockserver: sockserver.tcp()",
        "server = StreamTestServer(); server.start(); atexit.register(server.stop)",
        "server = StreamTestServer()",
        "server = StreamTestServer(); server.start(); pid = os.fork()\n"
        "if pid == 0: raise SystemExit\nos.waitpid(pid, 0); server.stop()",
    ],
)
def test_a_server_that_is_stopped_is_not(tmp_path: Path, used: str) -> None:
    if "fork" in used and not hasattr(os, "fork"):
        pytest.skip("no fork")

    said = run(tmp_path, "import atexit, os\nfrom pytest_sockserver import *\n" + used + "\n", "-W", "default").stderr

    assert "never stopped" not in said


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
