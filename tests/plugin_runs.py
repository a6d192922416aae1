"""Run pytest on a test file of its own, with the plugin, and read what its user would.

Most runs are in this process: they take some 40 ms.  Other plugins are not loaded unless a test names them, and ours
is loaded by name, so that neither the environment nor the way of installing matters.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import pytest

import pytest_sockserver.pytest_plugin.hooks

# An inner run in this process forgets what it imports; what is there already it keeps, and need not load again.
import pytest_sockserver.server.aio
import pytest_sockserver.server.client_thread

from .expected_texts import steady

# Runs outside import this package, installed or not.
ROOT = str(Path(pytest_sockserver.__file__).parent.parent)

# What the tests of a run may import: a client that says something and takes what comes, however it ends.
CLIENT = """
import socket

def connect(server):
    return socket.create_connection(server.address, 5)

def ask(server, data=b"hi\\n"):
    with connect(server) as client:
        client.sendall(data)
        try:
            return client.recv(100)
        except ConnectionResetError:
            return b"(reset)"

def tell(server, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(data, server.address)
"""

# Twelve tests that pass.
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

OURS = ("-p", "pytest_sockserver.pytest_plugin.plugin")
ALWAYS = (
    *("-p", "no:cacheprovider"),
    *("-W", "error"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # the plugin is imported by the outer run already
)


class Run:
    """What a run of pytest did and said."""

    def __init__(self, result: pytest.RunResult) -> None:
        self.result = result
        self.code = result.ret
        self.stdout = steady(result.stdout.str())
        self.stderr = steady(result.stderr.str())

    def phases(self, test: str) -> list[str]:
        """Return how each phase of a test ended, but for setups and teardowns that passed; of in-process runs only."""
        reports = self.result.reprec.getreports("pytest_runtest_logreport")  # type: ignore[attr-defined]
        said = [
            f"{each.when} {'x' if hasattr(each, 'wasxfail') else ''}{each.outcome}"
            for each in reports
            if each.nodeid.rpartition("::")[2] == test
        ]
        return [each for each in said if each not in ("setup passed", "teardown passed")]

    def block(self, title: str) -> str:
        """Return what stands under the line ``___ title ___``, to the next such line."""
        lines = self.stdout.splitlines()
        start = lines.index(f"___ {title} ___") + 1
        end = next(i for i in range(start, len(lines)) if re.match(r"(___|===) .* (___|===)$", lines[i]))
        return "\n".join(lines[start:end])

    def summary(self) -> list[str]:
        """Return the lines of the short summary, and pytest's last line without the time."""
        lines = self.stdout.splitlines()
        start = next((i for i, line in enumerate(lines) if "short test summary info" in line), len(lines) - 2)
        return [re.sub(r"=+ (.*) in [\d.]+s =+", r"\1", line) for line in lines[start + 1 :]]


class Runner:
    """Makes the files of runs, and runs them."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]))
        for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER", "PYTEST_XDIST_WORKER"):
            monkeypatch.delenv(name, raising=False)
        pytester.makepyfile(client=CLIENT)

    def write(self, source: str, name: str = "test_it") -> None:
        """Write a test file, or another module."""
        self.pytester.makepyfile(**{name: "\n" + textwrap.dedent(source).strip("\n")})

    def __call__(self, source: str | None = None, *args: str, loaded: tuple[str, ...] = OURS) -> Run:
        """Run pytest in this process."""
        if source is not None:
            self.write(source)
        result = self.pytester.runpytest_inprocess(*ALWAYS, *loaded, *args, no_reraise_ctrlc=True)
        return Run(result)

    def outside(self, source: str | None = None, *args: str, loaded: tuple[str, ...] = OURS) -> Run:
        """Run pytest in a process of its own."""
        if source is not None:
            self.write(source)
        return Run(self.pytester.runpytest_subprocess(*ALWAYS, *loaded, *args, timeout=30))


def dedent(text: str) -> str:
    """Return the text of a triple-quoted literal, to be compared with what a run said."""
    return textwrap.dedent(text).strip("\n")
