"""What a server lost before it could record it is in the report: dropped datagrams, failing accepts, a file left."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from pytest_sockserver import (
    DatagramTestServer,
    DeadlineExceeded,
    SockServer,
    SockServerWarning,
    StreamTestServer,
    UnmetExpectation,
)
from pytest_sockserver.server import losses

from . import insides
from .peers import PATIENCE, connect, datagram_client, until
from .plugin_runs import Runner

OPEN = ("-W", "default::pytest_sockserver.SockServerWarning")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="no other system tells")
TOLD = pytest.mark.filterwarnings("ignore:.*the kernel dropped:pytest_sockserver.SockServerWarning")


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


def flood(server: Any, count: int = 300) -> None:
    """Send datagrams faster than they are received: the lock, which the recording needs, is held meanwhile."""
    with insides.recorder(server).lock, datagram_client(server) as client:
        for _ in range(count):
            client.send(b"x")


FLOOD = """
import pytest
from client import tell
from tests import insides

def flood(server):
    with insides.recorder(server).lock:
        for _ in range(300):
            tell(server, b"x")
"""


# Datagrams


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_burst_of_300_datagrams_arrives_as_a_whole(sockserver: SockServer, host: str) -> None:
    server = sockserver.udp(host=host)

    flood(server)

    assert server.wait_for(count=300) == b"x"


def test_the_receive_buffer_of_datagram_servers_alone_is_as_large_as_the_system_grants(sockserver: SockServer) -> None:
    def granted(sock: socket.socket) -> int:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as most, socket.socket() as usual:
        most.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        _, twin = sockserver.tcp_and_udp()
        for server in (sockserver.udp(), twin):
            assert granted(insides.listener(server)) == granted(most)
        assert granted(insides.listener(sockserver.tcp())) == granted(usual)


def test_a_system_that_refuses_a_large_buffer_grants_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_sockserver.transport.address import enlarge

    class Strict:
        size = 0

        def setsockopt(self, level: int, option: int, size: int) -> None:
            if size > 1 << 20:  # as macOS does
                raise OSError(errno.ENOBUFS, "No buffer space available")
            self.size = size

    sock: Any = Strict()
    enlarge(sock)

    assert sock.size == 1 << 20


@LINUX
@TOLD
def test_what_the_kernel_dropped_is_told_by_what_is_missing(sockserver: SockServer) -> None:
    server = sockserver.udp(rcvbuf=2048)
    server.on(b"x").reply()
    server.on(b"never", times=1).reply()
    flood(server)

    with pytest.raises(DeadlineExceeded) as late:
        server.wait_for(count=300, timeout=0.05)
    with pytest.raises(DeadlineExceeded, match="the kernel dropped"):
        server.next_request(b"other", timeout=0.05)
    with pytest.raises(UnmetExpectation, match="the kernel dropped"):
        server.verify()

    dropped = losses.dropped_by_kernel(insides.listener(server))
    size = insides.listener(server).getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert len(server.requests) == 300 - (dropped or 0)
    text = (
        f"the kernel dropped {dropped} datagrams: the receive buffer of {size:,} bytes was full; rcvbuf=2048 is too "
        "small for what came at once; without it the server takes what the system grants"
    )
    assert str(late.value).splitlines()[-1].strip() == f"# {text}"
    assert [event.data.decode() for event in server.events if event.kind == "note" and b"kernel" in event.data] == [
        text
    ]


@LINUX
def test_a_drop_in_a_test_that_passes_is_a_warning_of_that_test(inner: Runner) -> None:
    run = inner(
        FLOOD
        + """
@pytest.mark.sockserver(rcvbuf=2048)
def test_it(udp_server):
    flood(udp_server)

def test_other(udp_server):
    flood(udp_server)
    udp_server.wait_for(count=300)
""",
        *OPEN,
    )

    run.result.assert_outcomes(passed=2, warnings=1)
    said = run.stdout[run.stdout.index("=== warnings summary") :]
    assert "test_it.py::test_it\n" in said
    assert "SockServerWarning: udp_server: the kernel dropped " in said


@LINUX
def test_where_warnings_are_errors_a_drop_fails_the_teardown(inner: Runner) -> None:
    run = inner(
        FLOOD
        + """
@pytest.mark.sockserver(rcvbuf=2048)
def test_it(udp_server):
    flood(udp_server)
"""
    )

    assert run.phases("test_it") == ["call passed", "teardown failed"]


@LINUX
def test_a_drop_in_a_test_that_fails_is_in_its_report_once(inner: Runner) -> None:
    run = inner(
        FLOOD
        + """
@pytest.mark.sockserver(rcvbuf=2048)
def test_it(udp_server):
    flood(udp_server)
    assert len(udp_server.requests) == 300
"""
    )

    assert run.phases("test_it") == ["call failed"]
    assert run.stdout.count("# the kernel dropped ") == 1
    assert "SockServerWarning" not in run.stdout


@LINUX
def test_on_a_server_of_a_wider_scope_drops_are_the_tests_in_which_they_came(inner: Runner) -> None:
    run = inner(
        FLOOD
        + """
@pytest.fixture(scope="module")
def server(sockserver_module):
    return sockserver_module.udp(rcvbuf=2048)

def test_one(server):
    flood(server)

def test_two(server):
    tell(server, b"y")
    server.clear()
    assert "kernel" not in insides.told_so_far(server)

def test_three(server):
    tell(server, b"y")
    server.wait_for(b"y")
    assert 1 == 2
"""
    )

    assert run.phases("test_one") == ["call passed", "teardown failed"]
    assert run.phases("test_two") == ["call passed"]
    assert run.phases("test_three") == ["call failed"]
    assert "kernel dropped" not in run.block("test_three")


@LINUX
@TOLD
def test_drops_are_counted_over_refuse_and_restart_and_faults_are_none(sockserver: SockServer) -> None:
    server = sockserver.udp(rcvbuf=2048)
    with datagram_client(server) as client:
        with server.blackhole():
            for number in range(9):
                client.send(b"unanswered")
                server.wait_for(b"unanswered", count=number + 1)
        with server.refuse():
            for _ in range(9):
                with pytest.raises(ConnectionRefusedError):
                    client.send(b"refused")
                    client.recv(1)
    assert "kernel" not in insides.told_so_far(server)

    flood(server)
    until(lambda: insides.has_settled(server))
    first = insides.note_drops(server)
    with server.refuse():
        pass
    assert insides.note_drops(server) == first > 0
    server.stop()
    server.start()
    assert insides.note_drops(server) == first


@LINUX
def test_a_unix_datagram_client_waits_and_nothing_is_dropped(unix_datagram_server: DatagramTestServer) -> None:
    with insides.recorder(unix_datagram_server).lock, datagram_client(unix_datagram_server) as client:
        client.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                client.send(b"x")
                sent += 1

    assert unix_datagram_server.wait_for(count=sent) == b"x"
    assert insides.losses(unix_datagram_server) == []


def test_where_the_system_does_not_tell_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_sockserver.server.losses.sys.platform", "darwin")

    with DatagramTestServer(rcvbuf=2048) as server:
        flood(server)
        until(lambda: insides.has_settled(server))
        assert insides.losses(server) == []


def test_a_kernel_without_the_option_claims_nothing() -> None:
    class Old:
        def getsockopt(self, *args: int) -> bytes:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    sock: Any = Old()

    assert losses.dropped_by_kernel(sock) is None


def test_datagrams_beyond_the_record_limit_are_remarked(sockserver: SockServer) -> None:
    server = sockserver.udp(record_limit=1000)
    with datagram_client(server) as client:
        client.send(b"a")
        server.wait_for(b"a")
        client.send(b"b" * 2000)
    until(lambda: insides.recorder(server).dropped)

    assert "#! the recording reached its record_limit" in insides.told_so_far(server)


# Accepting


class Refusals:
    """Lets ``accept()`` of every listening socket fail, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
        self.count, self.error, self.seen = 0, error, threading.Event()
        monkeypatch.setattr(socket.socket, "accept", self.accept)

    def accept(self) -> Any:
        self.count += 1
        self.seen.set()
        raise type(self.error)(*self.error.args)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "close descriptors in the test, or raise the limit (ulimit -n)"),
        (OSError(errno.ENOBUFS, "No buffer space"), "a stop resets the others"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "is there a firewall rule, or a sandbox?"),
        (OSError("not in this test"), "does a fixture or a plugin replace socket.socket, or its methods?"),
    ],
)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_a_failing_accept_is_told_and_does_not_spin(
    transport: str, error: OSError, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.warns(SockServerWarning, match=r"accept\(\) failed") as caught,
        StreamTestServer(transport=transport) as server,
        pytest.MonkeyPatch.context() as patched,
    ):
        refusals = Refusals(patched, error)
        with connect(server), pytest.raises(DeadlineExceeded) as late:
            server.accept(timeout=0.3)
        count = refusals.count

    assert 1 <= count < 40  # some 17 at once, then one in 50 ms
    last = str(late.value).splitlines()[-1].strip()
    assert last.startswith("# accept() failed ")
    assert f": {type(error).__name__}: {error}; " in last
    assert last.endswith(advice)
    assert len(caught) == 1
    assert capsys.readouterr().err == ""


def test_a_client_that_was_gone_before_it_was_accepted_is_a_remark_and_no_warning() -> None:
    with StreamTestServer() as server, pytest.MonkeyPatch.context() as patched:
        refusals = Refusals(patched, ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort"))
        with connect(server):
            assert refusals.seen.wait(PATIENCE)
        until(lambda: "the client was gone before it was accepted" in insides.told_so_far(server))


def test_an_accept_that_succeeds_again_serves_who_has_waited(inner: Runner) -> None:
    """With a real limit on descriptors, in a process of its own."""
    pytest.importorskip("resource")

    run = inner.outside(
        """
        import os, resource, socket
        import pytest

        def test_it(tcp_server):
            tcp_server.on(b"hi\\n").reply(b"ho\\n")
            client = socket.create_connection(tcp_server.address, 5)
            client.sendall(b"hi\\n")
            assert client.recv(9) == b"ho\\n"

            client2 = socket.socket()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            kept = []
            with pytest.raises(OSError):
                while True:
                    kept.append(os.open(os.devnull, os.O_RDONLY))
            with client, client2:
                client2.settimeout(5)
                client2.connect(tcp_server.address)
                client2.sendall(b"hi\\n")
                with pytest.raises(TimeoutError):
                    client2.settimeout(0.2)
                    client2.recv(9)
                for each in kept:
                    os.close(each)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                client2.settimeout(5)
                assert client2.recv(9) == b"ho\\n"
        """,
        *OPEN,
    )

    run.result.assert_outcomes(passed=1, warnings=1)
    assert "accept() failed" in run.stdout
    assert "[Errno 24] Too many open files; clients wait until one succeeds" in run.stdout
    assert "cannot accept" not in run.stderr


def test_a_failing_accept_is_in_the_report_of_a_test_that_fails(inner: Runner) -> None:
    run = inner(
        """
        import socket
        import pytest

        def test_it(tcp_server, monkeypatch):
            def accept(self):
                raise OSError("not in this test")
            monkeypatch.setattr(socket.socket, "accept", accept)
            with socket.create_connection(tcp_server.address, 5) as client:
                client.settimeout(0.1)
                client.recv(9)
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert run.stdout.count("OSError: not in this test; the client may be lost") == 1


# Stopping


def test_a_socket_file_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def unlink(path: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    with (
        pytest.warns(SockServerWarning, match="could not remove a file of its socket: .*/s'"),
        pytest.MonkeyPatch.context() as patched,
        StreamTestServer(transport="unix", path=path),
    ):
        patched.setattr(os, "unlink", unlink)

    assert path.exists()


def test_a_socket_file_that_is_gone_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"

    with warnings.catch_warnings(record=True) as caught, StreamTestServer(transport="unix", path=path):
        path.unlink()

    assert caught == []
