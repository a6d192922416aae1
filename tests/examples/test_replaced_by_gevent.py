"""A client in greenlets.  The patch holds for the whole process, so the tests are a run of pytest by themselves."""

import pytest

pytest.importorskip("gevent")

CONFTEST = """
from gevent import monkey
monkey.patch_all()
"""

TESTS = """
# Greenlets
import socket

import gevent


def ask(address):
    with socket.create_connection(address) as client:
        client.sendall(b"hello\\n")
        return client.recv(100)


def test_clients_in_greenlets(tcp_server):
    client = gevent.spawn(ask, tcp_server.address)
    conn = tcp_server.accept()  # the greenlet runs meanwhile
    assert conn.recv_line() == b"hello\\n"
    conn.send(b"hello yourself\\n")
    assert client.get() == b"hello yourself\\n"


# The run
"""


def test_the_run(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)

    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:trio")

    result.assert_outcomes(passed=1)
