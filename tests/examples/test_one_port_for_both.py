"""Serve TCP and UDP on one port: a resolver's reply that is too long for a datagram."""

import dns.flags
import dns.message
import dns.query
import dns.rrset
import pytest


@pytest.fixture
def name_server(sockserver):
    tcp, udp = sockserver.tcp_and_udp(name="dns")

    @udp.handler
    def truncated(request):
        reply = dns.message.make_response(dns.message.from_wire(request))
        reply.flags |= dns.flags.TC
        return reply.to_wire()

    @tcp.handler
    def whole(conn):
        size = int.from_bytes(conn.recv_exactly(2), "big")
        reply = dns.message.make_response(dns.message.from_wire(conn.recv_exactly(size)))
        reply.answer.append(dns.rrset.from_text("a.example.", 60, "IN", "A", "192.0.2.1"))
        conn.send(reply.to_wire(prepend_length=True))

    return tcp, udp


def test_resolver_asks_again_over_tcp(name_server):
    tcp, udp = name_server

    query = dns.message.make_query("a.example.", "A")
    reply, used_tcp = dns.query.udp_with_fallback(query, tcp.host, port=tcp.port, timeout=5)

    assert used_tcp
    assert [str(record) for record in reply.answer[0]] == ["192.0.2.1"]
    assert tcp.port == udp.port
    assert len(udp.requests) == 1
