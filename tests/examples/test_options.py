"""Set options: by keyword, by marker."""

import os
import socket
import sys

import pytest

from pytest_sockserver import AddressUnavailable, SockServer


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


@pytest.mark.sockserver(ignore_probes=True)
def test_port_that_is_probed_first(tcp_server):
    tcp_server.script().send(b"220 ready\r\n").expect(b"QUIT\r\n").send(b"221 bye\r\n")

    socket.create_connection(tcp_server.address).close()  # is it up?
    with socket.create_connection(tcp_server.address) as client, client.makefile("rb") as lines:
        assert lines.readline() == b"220 ready\r\n"
        client.sendall(b"QUIT\r\n")
        assert lines.readline() == b"221 bye\r\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a port")
def test_taken_port_is_an_error_that_names_who_has_it(sockserver):
    """Also if the search's own descriptor, which is gone when it is looked at, has a lower number than the listener."""
    hole = os.open(os.devnull, os.O_RDONLY)
    first = sockserver.tcp()
    os.close(hole)

    with pytest.raises(AddressUnavailable, match=f"{first.port} is taken by process {os.getpid()}"):
        sockserver.tcp(port=first.port)


def test_misspelt_default_of_the_factory_is_an_error():
    with pytest.raises(TypeError, match="got an unknown option 'timeoutt': did you mean 'timeout'"):
        SockServer(timeoutt=1.0)
