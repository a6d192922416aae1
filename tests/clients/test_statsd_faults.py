"""statsd while nobody listens: over UDP nothing is noticed, over TCP every metric fails."""

from __future__ import annotations

from contextlib import closing
from time import monotonic

import pytest
import statsd

from pytest_sockserver import DatagramTestServer, StreamTestServer


def test_a_port_that_refuses_is_not_noticed(udp_server: DatagramTestServer) -> None:
    with closing(statsd.StatsClient(*udp_server.address)) as client:
        with udp_server.refuse():
            client.incr("lost")
            client.incr("lost as well")
        client.incr("heard")

    assert udp_server.next_request() == b"heard:1|c"


def test_a_connection_that_was_reset_is_never_made_again(tcp_server: StreamTestServer) -> None:
    with closing(statsd.TCPStatsClient(*tcp_server.address, timeout=5)) as client:
        client.incr("heard")
        tcp_server.wait_connection().wait_received(b"heard:1|c\n")
        tcp_server.disconnect(reset=True)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            until = monotonic() + 5
            while monotonic() < until:  # what is said before the reset has arrived is lost unnoticed
                client.incr("lost")
        with pytest.raises(BrokenPipeError):
            client.incr("lost as well")

        client.reconnect()
        client.incr("again")

    assert tcp_server.wait_for(b"again:1|c\n") == b"again:1|c\n"
