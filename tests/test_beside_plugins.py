"""Beside other plugins: the same servers, the same reports.  What these do does not depend on the version of Python."""

from __future__ import annotations

import re

import pytest

from .plugin_runs import GREEN, OURS, Runner

TIMEOUT = (*OURS, "-p", "pytest_timeout")
SOCKET = (*OURS, "-p", "pytest_socket")
XDIST = (*OURS, "-p", "xdist.plugin", "-p", "xdist.looponfail")


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


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


# Workers, order


def test_servers_are_green_on_four_workers(inner: Runner) -> None:
    run = inner.outside(GREEN, "-n4", loaded=XDIST)

    assert run.result.parseoutcomes() == {"passed": 12}


def test_servers_are_green_in_random_order(inner: Runner) -> None:
    pytest.importorskip("pytest_randomly")

    run = inner.outside(GREEN, loaded=(*OURS, "-p", "pytest_randomly"))

    assert run.result.parseoutcomes() == {"passed": 12}


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
