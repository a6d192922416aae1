"""The leak guard of the root conftest.py, in runs of their own: what it must report, and what it must not.

They run in subprocesses, because what they leave behind would be this run's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"

# The inner run's wait, in seconds: each of the leaks is there for good.
PATIENCE = 0.1


@pytest.fixture
def guarded(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory whose tests are guarded as ours are, with no plugin."""
    text = CONFTEST.read_text(encoding="utf-8")
    assert "PATIENCE = 2.0\n" in text
    pytester.makeconftest(text.replace("PATIENCE = 2.0\n", f"PATIENCE = {PATIENCE}\n"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester


def run(guarded: pytest.Pytester, source: str, *args: str) -> pytest.RunResult:
    guarded.makepyfile("import os, pathlib, socket, sys, tempfile, threading, pytest\nkept = []\n" + source)
    return guarded.runpytest_subprocess(*args)


def test_a_thread_left_running_is_an_error_that_names_it_and_where_it_is(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
def test_leaky():
    threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()

def test_after(): pass
""",
    )

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaky*",
            "left behind by the test or its fixtures:",
            "  thread 'left' (daemon), in wait at *threading.py:*",
            "ERROR *::test_leaky*",
        ]
    )


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("kept.append(socket.create_server(('127.0.0.1', 0)))", "  tcp 127.0.0.1:* listening, fd *"),
        ("kept.append(socket.socket())", "  tcp 0.0.0.0:0 not connected, fd *"),
        (
            "kept.append(socket.create_server(('127.0.0.1', 0)))\n"
            "    kept.append(socket.create_connection(kept[0].getsockname()))",
            "  tcp 127.0.0.1:* -> 127.0.0.1:*, fd *",
        ),
        (
            "kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)); kept[0].bind(('127.0.0.1', 0))",
            "  udp 127.0.0.1:* not connected, fd *",
        ),
        ("kept.extend(socket.socketpair())", "  unix stream (no name) -> (no name), fd *"),
        (
            "kept.append(socket.socket(socket.AF_UNIX)); kept[0].bind(b'\\0in\\xffvisible%d' % os.getpid())\n"
            "    kept[0].listen()",
            r"  unix stream @in\udcffvisible* listening, fd *",
        ),
    ],
    ids=["listening", "unconnected", "connected", "udp", "pair", "abstract"],
)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sockets are seen through /proc")
def test_a_socket_left_open_is_an_error_that_names_its_addresses(
    guarded: pytest.Pytester, source: str, named: str
) -> None:
    result = run(guarded, f"\ndef test_leaky():\n    {source}\n\ndef test_after(): pass\n")

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaky*", named.replace("[", "[[]")])


def test_a_directory_of_this_process_left_is_an_error_and_one_of_another_process_is_none(
    guarded: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(guarded.mkdir("tmp")))
    result = run(
        guarded,
        """
def test_leaky():
    (pathlib.Path(tempfile.gettempdir()) / f"sockserver-{os.getpid()}-x").mkdir()

def test_neighbour():
    (pathlib.Path(tempfile.gettempdir()) / f"sockserver-{os.getppid()}-x").mkdir()
""",
    )

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaky*", "  directory */sockserver-*-x holding []"])


def test_a_clean_test_and_a_thread_that_ends_soon_are_no_errors(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
def test_clean():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

def test_ends_soon():
    threading.Timer(0.03, int).start()
""",
    )

    result.assert_outcomes(passed=2)


def test_an_unclosed_socket_in_a_cycle_of_garbage_is_an_error_of_its_own_test(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
def test_cycle():
    cycle = [socket.socket()]
    cycle.append(cycle)

def test_after(): pass
""",
        "-W",
        "error",
    )

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_cycle*", "  unclosed <socket.socket fd=*"])


def test_what_a_wider_fixture_opens_is_its_own_until_it_ends(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
@pytest.fixture(scope="session")
def inner():
    with socket.socket() as sock:
        yield sock

@pytest.fixture(scope="module")
def outer(request):
    request.getfixturevalue("inner")
    with socket.socket() as sock:
        yield sock

def test_first(outer): pass
def test_second(outer): pass
""",
    )

    result.assert_outcomes(passed=2)


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
    result.stdout.fnmatch_lines(["*ERROR at teardown of TestFirst.test_two*", "left behind by the test or*", "  tcp *"])


def test_a_failed_test_is_not_asked_for_the_sockets_that_its_traceback_holds(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
def test_fails():
    client = socket.socket()
    assert not client

def test_after(): pass
""",
        "-W",
        "ignore",
    )

    result.assert_outcomes(failed=1, passed=1)


def test_what_a_failed_test_leaves_for_ever_is_an_error_of_the_run(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
def test_fails():
    kept.append(socket.socket())
    assert False

def test_after(): pass
def test_last(): pass
""",
    )

    result.assert_outcomes(failed=1, passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_last*", "left behind by earlier tests:", "  tcp *"])


def test_what_was_reported_is_not_reported_again_at_the_end(guarded: pytest.Pytester) -> None:
    result = run(
        guarded,
        """
def test_leaky(): kept.append(socket.socket())
def test_after(): pass
def test_last(): pass
""",
    )

    result.assert_outcomes(passed=3, errors=1)


def test_a_failing_run_inside_the_process_is_no_leak(guarded: pytest.Pytester) -> None:
    """sys.last_value keeps the locals of the inner test that failed."""
    result = run(
        guarded,
        """
def test_outer(pytester):
    pytester.makepyfile("def test_inner():\\n    import socket\\n    s = socket.socket()\\n    assert not s")
    pytester.runpytest_inprocess().assert_outcomes(failed=1)
""",
        "-W",
        "ignore",
    )

    result.assert_outcomes(passed=1)


def test_a_leak_is_an_error_under_xdist_too(guarded: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = run(guarded, "def test_leaky(): kept.append(socket.socket())\n", "-p", "xdist", "-n", "1")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["left behind by the test or its fixtures:", "  tcp *"])


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_the_timer_of_pytest_timeout_is_no_leak(guarded: pytest.Pytester, method: str) -> None:
    pytest.importorskip("pytest_timeout")
    result = run(guarded, "def test_clean(): pass\n", "-p", "timeout", "--timeout=30", f"--timeout-method={method}")

    result.assert_outcomes(passed=1)


def test_strict_config_holds_without_the_plugins_whose_options_are_set(guarded: pytest.Pytester) -> None:
    guarded.makeini(
        """
[pytest]
addopts = --strict-config
timeout = 60
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
"""
    )
    result = run(guarded, "def test_clean(): pass\n")

    result.assert_outcomes(passed=1)
