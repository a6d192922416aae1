"""Set options: by keyword, by marker."""

import socket

import pytest


def test_options_as_keywords(sockserver):
    server = sockserver.tcp(host="localhost", timeout=1.0, backlog=1, name="small")

    with socket.create_connection(server.address):
        server.wait_connection()

    assert server.timeout == 1.0
    assert server.name == "small"


@pytest.mark.sockserver(timeout=0.5, rcvbuf=4096)
def test_options_by_marker(tcp_server, udp_server):  # for every server of the test, as far as they mean something to it
    assert tcp_server.timeout == udp_server.timeout == 0.5


@pytest.mark.sockserver(timeout=0.5)
class TestNearerWins:
    @pytest.mark.sockserver(timeout=1.0)
    def test_marker_of_the_function(self, tcp_server):
        assert tcp_server.timeout == 1.0

    def test_keyword(self, sockserver):
        assert sockserver.tcp(timeout=2.0).timeout == 2.0
