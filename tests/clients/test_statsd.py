"""statsd: metrics that nobody answers, as datagrams or as lines of a stream.  Most servers need no handler."""

from __future__ import annotations

import re
from contextlib import closing

import statsd

from pytest_sockserver import Connection, DatagramTestServer, StreamTestServer


def test_metrics_are_datagrams(udp_server: DatagramTestServer) -> None:
    with closing(statsd.StatsClient(*udp_server.address, prefix="app")) as client:
        client.incr("hits")
        client.timing("load", 12)
        client.set("users", "u1")

    assert udp_server.wait_for(re.compile(rb"app\.load:([\d.]+)\|ms")).match[1] == b"12.000000"
    udp_server.wait_for(b"app.users:u1|s")
    assert udp_server.requests[0] == b"app.hits:1|c"


def test_a_negative_gauge_is_reset_to_zero_first_in_the_same_datagram(udp_server: DatagramTestServer) -> None:
    with closing(statsd.StatsClient(*udp_server.address)) as client:
        client.gauge("depth", -5)

    assert udp_server.next_request() == b"depth:0|g\ndepth:-5|g"


def test_a_pipeline_is_one_datagram(udp_server: DatagramTestServer) -> None:
    with closing(statsd.StatsClient(*udp_server.address)) as client:
        with client.pipeline() as pipeline:
            pipeline.incr("a")
            pipeline.incr("b", 3)
            udp_server.assert_no_traffic(0.01)

    assert udp_server.next_request() == b"a:1|c\nb:3|c"


def test_a_server_that_is_gone_is_no_error_of_the_client(udp_server: DatagramTestServer) -> None:
    with closing(statsd.StatsClient(*udp_server.address)) as client:
        udp_server.stop()

        client.incr("lost")
        client.incr("lost as well")

    assert udp_server.requests == []


def test_metrics_over_tcp_are_lines(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def read_lines(conn: Connection) -> None:
        while True:
            conn.recv_line()

    with closing(statsd.TCPStatsClient(*tcp_server.address)) as client:
        client.incr("a")
        tcp_server.wait_for(b"a:1|c\n")
        with client.pipeline() as pipeline:
            pipeline.incr("b")
            pipeline.incr("c")

    tcp_server.wait_for(b"c:1|c\n")
    assert tcp_server.requests == [b"a:1|c\n", b"b:1|c\n", b"c:1|c\n"]


def test_metrics_over_a_unix_socket_without_a_handler_are_one_request_at_the_end(unix_server: StreamTestServer) -> None:
    with closing(statsd.UnixSocketStatsClient(unix_server.path)) as client:
        client.incr("a")
        unix_server.wait_connection().wait_received(b"a:1|c\n")
        client.incr("b")

    assert unix_server.wait_for() == b"a:1|c\nb:1|c\n"
    assert unix_server.connections[0].closed_by == "client"
