"""What is drawn: the same bytes for the same seed, which a failure's report names."""

from __future__ import annotations

import re

import pytest
import trustme

from ..plugin_runs import Runner

# Of each kind of server: echoes forty bytes, one by one; a fault is injected into half of them.
TEST = """
import socket

import pytest

from pytest_sockserver import DATA
from pytest_sockserver.faults import Corrupt

def test_it({fixture}):
    server = {fixture}
    {declare}
    server.inject({inject})
    with {client} as client:
        client.settimeout(10)
        client.connect(server.address)
        {begin}
        got = b""
        for each in range(40):
            client.send(b"a")
            got += client.recv(1)
    print("the client got", got.decode("latin-1").replace("\\x9e", "-"))
    assert not got
"""

ECHO = """
    @server.handler
    def echo(conn):
        while data := conn.recv():
            conn.send(data)
"""
ECHO_CLASS = """
    import socketserver

    @server.handler
    class Echo(socketserver.BaseRequestHandler):
        def handle(self):
            while data := self.request.recv(1):
                self.request.sendall(data)
"""
REQUESTS = """
    server.handler(lambda request: bytes(request))
"""
TCP = "socket.socket(socket.AF_INET, socket.SOCK_STREAM)"
UNIX = "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)"
UDP = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"

CASES = {
    "tcp": ("tcp_server", ECHO, TCP, "pass"),
    "tcp, a handler class": ("tcp_server", ECHO_CLASS, TCP, "pass"),
    "tls": (
        "tls_server",
        ECHO,
        TCP,
        "client = server.client_context().wrap_socket(client, server_hostname='localhost')",
    ),
    "unix": ("unix_server", ECHO, UNIX, "pass"),
    "udp": ("udp_server", REQUESTS, UDP, "pass"),
    "udp, received": ("udp_server", REQUESTS, UDP, "pass"),
}


# An inner run forgets what it imports, and cryptography cannot be imported twice.
trustme.CA()


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


def got(inner: Runner, case: str, inject: str) -> tuple[str, list[str]]:
    """Run the test; return what its client got, and the seeds that its report names."""
    fixture, declare, client, begin = CASES[case]
    if case.endswith("received"):
        inject += ", direction='received'"
    source = TEST.format(fixture=fixture, declare=declare, inject=inject, client=client, begin=begin)
    run = inner(source)
    assert run.phases("test_it") == ["call failed"], run.stdout
    said = re.search(r"^the client got ([a-]{40})$", run.stdout, re.MULTILINE)
    assert said is not None, run.stdout
    return said[1], re.findall(r"seed=(\d+)", run.stdout)


@pytest.mark.parametrize("case", CASES)
def test_a_seed_that_a_report_names_hits_the_same_bytes_again(inner: Runner, case: str) -> None:
    first, seeds = got(inner, case, "Corrupt(DATA, 0), probability=0.5")
    again, named = got(inner, case, f"Corrupt(DATA, 0), probability=0.5, seed={seeds[0]}")
    other, _ = got(inner, case, f"Corrupt(DATA, 0), probability=0.5, seed={int(seeds[0]) + 1}")

    assert set(seeds) == set(named) == {seeds[0]}
    assert again == first
    assert other != first
    assert {*first} == {"a", "-"}


@pytest.mark.parametrize("case", CASES)
def test_probability_0_leaves_the_bytes_of_none_and_1_hits_each(inner: Runner, case: str) -> None:
    never, _ = got(inner, case, "Corrupt(DATA, 0), probability=0")
    always, _ = got(inner, case, "Corrupt(DATA, 0), probability=1")
    without, _ = got(inner, case, "DATA")

    assert never == without == "a" * 40
    assert always == "-" * 40


def test_a_corrupt_byte_that_was_drawn_is_named_with_its_seed_in_the_report(inner: Runner) -> None:
    run = inner(
        """
        from client import ask
        from pytest_sockserver.faults import Corrupt

        def test_it(tcp_server):
            tcp_server.on(b"hi\\n").reply(Corrupt(b"0123456789", seed=7))
            assert ask(tcp_server) == b"0123456789"
        """
    )

    assert "# Corrupt(seed=7) flipped byte 2 of 10" in run.stdout.splitlines()


def test_jitter_that_was_drawn_is_named_with_its_seed_in_the_report_and_is_the_same_each_time(inner: Runner) -> None:
    said = []
    for _ in range(2):
        run = inner(
            """
            from client import ask
            from pytest_sockserver.faults import Jitter

            def test_it(tcp_server):
                tcp_server.on(b"hi\\n").reply(Jitter(0, 0.01, seed=5), b"ok")
                assert ask(tcp_server) == b"0123456789"
            """
        )
        said.append([each for each in run.stdout.splitlines() if each.startswith("# Jitter")])

    assert said[0] == said[1] == ["# Jitter(0, 0.01, seed=5) waits 0.009016 s"]
