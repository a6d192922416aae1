"""Run under pytest-socket."""

TESTS = """
import socket

import pytest


def test_blocked(tcp_server):
    pass


@pytest.mark.enable_socket
def test_allowed(tcp_server):
    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"hello")
        tcp_server.wait_connection().wait_received(b"hello")
"""


def test_pytest_socket_blocks_a_server_and_the_error_names_the_flag(pytester):
    pytester.makepyfile(TESTS)

    result = pytester.runpytest_subprocess("--disable-socket", "-p", "no:randomly")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        "E   pytest_sockserver.AddressUnavailable: [[]Errno 13[]] pytest-socket blocks this test's sockets: run "
        "pytest with --allow-hosts=127.0.0.1,::1, or mark the test with @pytest.mark.enable_socket"
    )


def test_pytest_socket_lets_servers_through_by_their_host(pytester):
    pytester.makepyfile(TESTS)

    result = pytester.runpytest_subprocess("--disable-socket", "--allow-hosts=127.0.0.1,::1")

    result.assert_outcomes(passed=2)
