"""The leak guard, in runs of their own: what it must report, and what it must not.

They run in subprocesses, because what they leave behind would be this run's.  A subprocess takes longer than all tests
in it: what needs the same options is in one run.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from .plugin_runs import ROOT

TESTS = Path(__file__).parent

# What the root conftest.py does, and tests/conftest.py for the guard.
CONFTEST = (
    (TESTS.parent / "conftest.py").read_text(encoding="utf-8")
    + """
import leak_guard

def pytest_configure(config):
    config.pluginmanager.register(leak_guard.LeakGuard(), "leak-guard")
"""
)

# The inner run's wait, in seconds: each of the leaks is there for good.
PATIENCE = 0.1

OWN = "left behind by the test or its fixtures:"
EARLIER = "left behind by earlier tests:"


@pytest.fixture
def guarded(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory whose tests are guarded as ours are, with no plugin."""
    text = (TESTS / "leak_guard.py").read_text(encoding="utf-8")
    assert "PATIENCE = 2.0\n" in text
    pytester.makepyfile(leak_guard=text.replace("PATIENCE = 2.0\n", f"PATIENCE = {PATIENCE}\n"))
    pytester.makeconftest(CONFTEST)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", ROOT)
    return pytester


def run(guarded: pytest.Pytester, source: str, *args: str) -> pytest.RunResult:
    guarded.makepyfile("import os, pathlib, socket, sys, tempfile, threading, pytest\nkept = []\n" + source)
    return guarded.runpytest_subprocess(*args)


def errors(result: pytest.RunResult) -> dict[str, list[str]]:
    """Return what the guard said after each test of which it said something."""
    said: dict[str, list[str]] = {}
    lines = None
    for line in result.stdout.lines:
        if title := re.match(r"_+ ERROR at teardown of (\S+) _+$", line):
            lines = said[title[1]] = []
        elif re.match(r"(___|===)", line):
            lines = None
        elif lines is not None:
            lines.append(line)
    return said


# What a test does, and the lines that name what it left.
LEAKS = {
    "thread": (
        "threading.Thread(target=threading.Event().wait, name='left', daemon=True).start()",
        ["  thread 'left' (daemon), in wait at *threading.py:*"],
    ),
    "listening": ("kept.append(socket.create_server(('127.0.0.1', 0)))", ["  tcp 127.0.0.1:* listening, fd *"]),
    "unconnected": ("kept.append(socket.socket())", ["  tcp 0.0.0.0:0 not connected, fd *"]),
    "connected": (
        "server = socket.create_server(('127.0.0.1', 0)); kept.append(server)\n"
        "    kept.append(socket.create_connection(server.getsockname()))",
        ["  tcp 127.0.0.1:* -> 127.0.0.1:*, fd *", "  tcp 127.0.0.1:* listening, fd *"],
    ),
    "udp": (
        "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); kept.append(udp); udp.bind(('127.0.0.1', 0))",
        ["  udp 127.0.0.1:* not connected, fd *"],
    ),
    "pair": ("kept.extend(socket.socketpair())", ["  unix stream (no name) -> (no name), fd *"]),
    "abstract": (
        "unix = socket.socket(socket.AF_UNIX); kept.append(unix)\n"
        "    unix.bind(b'\\0in\\xffvisible%d' % os.getpid()); unix.listen()",
        [r"  unix stream @in\udcffvisible* listening, fd *"],
    ),
    "directory": (
        "(pathlib.Path(tempfile.gettempdir()) / f'sockserver-{os.getpid()}-x').mkdir()",
        ["  directory */sockserver-*-x holding [[][]]"],
    ),
    "cycle": ("cycle = [socket.socket()]; cycle.append(cycle)", ["  unclosed <socket.socket fd=*"]),
    "server": (
        "import pytest_sockserver; pytest_sockserver.StreamTestServer(name='left').start()",
        [
            "  server left, started at *.py:*",
            "  tcp 127.0.0.1:* listening, fd *",
            "  thread 'sockserver *",
        ],
    ),
}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sockets are seen through /proc")
def test_what_is_left_is_an_error_of_its_test_that_names_it(
    guarded: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(guarded.mkdir("tmp")))
    source = "\n".join(
        f"def test_{name}():\n    {action}\n\ndef test_after_{name}(): pass\n" for name, (action, _) in LEAKS.items()
    )
    result = run(guarded, source)

    result.assert_outcomes(passed=2 * len(LEAKS), errors=len(LEAKS))
    said = errors(result)
    for name, (_, expected) in LEAKS.items():
        head, *lines = said[f"test_{name}"]
        assert head == OWN, name
        for pattern in expected:
            assert any(fnmatchcase(line, pattern) for line in lines), (pattern, lines)


def test_what_is_no_leak(guarded: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options of plugins that are not loaded are known as well, in spite of --strict-config."""
    monkeypatch.setenv("TMPDIR", str(guarded.mkdir("tmp")))
    guarded.makeini(
        """
[pytest]
addopts = --strict-config
timeout = 60
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
"""
    )
    result = run(
        guarded,
        """
def test_clean():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

def test_server():
    import pytest_sockserver
    with pytest_sockserver.StreamTestServer():
        pass

def test_ends_soon():
    threading.Timer(0.03, int).start()

def test_of_another_process():
    (pathlib.Path(tempfile.gettempdir()) / f"sockserver-{os.getppid()}-x").mkdir()

@pytest.fixture(scope="session")
def inner():
    with socket.socket() as sock:
        yield sock

@pytest.fixture(scope="module")
def outer(request):
    request.getfixturevalue("inner")
    with socket.socket() as sock:
        yield sock

def test_first_of_wider(outer): pass
def test_second_of_wider(outer): pass
""",
    )

    result.assert_outcomes(passed=6)


def test_what_a_wider_fixture_leaves_is_an_error_of_the_last_test_that_used_it(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
class TestFirst:
    @pytest.fixture(scope="class")
    def wide(self):
        kept.append(socket.socket())

    def test_one(self, wide): pass
    def test_two(self, wide): pass

def test_after(): pass
""",
    )

    result.assert_outcomes(passed=3, errors=1)
    ((test, said),) = errors(result).items()
    assert test == "TestFirst.test_two"
    assert (said[0], said[1][:6], len(said)) == (OWN, "  tcp ", 2)


def test_what_the_traceback_of_a_failed_test_holds_is_no_leak(guarded: pytest.Pytester) -> None:
    """Of a test here, and of one of a run within: sys.last_value keeps the variables of that."""
    result = run(
        guarded,
        """
def test_fails():
    client = socket.socket()
    assert not client

def test_after(): pass

def test_outer(pytester):
    pytester.makepyfile("def test_inner():\\n    import socket\\n    s = socket.socket()\\n    assert not s")
    pytester.runpytest_inprocess().assert_outcomes(failed=1)
""",
        "-W",
        "ignore",
    )

    result.assert_outcomes(failed=1, passed=2)


def test_what_a_failed_test_leaves_for_ever_is_an_error_of_the_run_and_nothing_is_reported_twice(
    guarded: pytest.Pytester,
) -> None:
    result = run(
        guarded,
        """
def test_fails():
    kept.append(socket.socket())
    assert False

def test_leaky(): kept.append(socket.create_server(("127.0.0.1", 0)))
def test_after(): pass
def test_last(): pass
""",
    )

    result.assert_outcomes(failed=1, passed=3, errors=2)
    said = errors(result)
    assert [said["test_leaky"][0], said["test_last"][0]] == [OWN, EARLIER]
    assert fnmatchcase(said["test_leaky"][1], "  tcp * listening, fd *")
    assert fnmatchcase(said["test_last"][1], "  tcp * not connected, fd *")
    assert [len(each) for each in said.values()] == [2, 2]


def test_a_leak_is_an_error_under_xdist_too(guarded: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = run(guarded, "def test_leaky(): kept.append(socket.socket())\n", "-p", "xdist", "-n", "1")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([OWN, "  tcp *"])


def test_the_timer_of_pytest_timeout_is_no_leak(guarded: pytest.Pytester) -> None:
    pytest.importorskip("pytest_timeout")
    result = run(
        guarded,
        """
@pytest.mark.parametrize("method", [
    pytest.param(method, marks=pytest.mark.timeout(30, method=method)) for method in ("signal", "thread")
])
def test_clean(method): pass
""",
        "-p",
        "timeout",
    )

    result.assert_outcomes(passed=2)
