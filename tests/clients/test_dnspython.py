"""dnspython: a resolver that asks over UDP and, when told that there is more, over TCP on the same port number."""

from __future__ import annotations

import ssl
import struct

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.resolver
import dns.rrset
import pytest

from pytest_sockserver import Connection, DatagramTestServer, Request, SockServer, StreamTestServer


def answer_to(query: bytes, address: str = "192.0.2.7") -> bytes:
    question = dns.message.from_wire(query)
    response = dns.message.make_response(question)
    response.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", address))
    return response.to_wire()


def truncated(query: bytes) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    response.flags |= dns.flags.TC
    return response.to_wire()


def recv_query(conn: Connection) -> bytes:
    """Over a stream each message has two bytes of length before it (RFC 1035 section 4.2.2)."""
    return conn.recv_exactly(int.from_bytes(conn.recv_exactly(2), "big"))


def with_length(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message


def addresses(response: dns.message.Message) -> list[str]:
    return [record.address for rrset in response.answer for record in rrset]


@pytest.fixture
def query() -> dns.message.QueryMessage:
    return dns.message.make_query("a.test", "A")


def test_an_answer_over_udp(udp_server: DatagramTestServer, query: dns.message.QueryMessage) -> None:
    @udp_server.handler
    def answer(request: Request) -> bytes:
        return answer_to(request)

    response = dns.query.udp(query, udp_server.host, port=udp_server.port, timeout=5)

    assert addresses(response) == ["192.0.2.7"]
    assert udp_server.requests == [query.to_wire()]


def test_a_truncated_answer_is_asked_for_again_over_tcp(
    sockserver: SockServer, query: dns.message.QueryMessage
) -> None:
    tcp, udp = sockserver.tcp_and_udp()

    @udp.handler
    def say_that_there_is_more(request: Request) -> bytes:
        return truncated(request)

    @tcp.handler
    def answer_byte_by_byte(conn: Connection) -> None:
        for byte in with_length(answer_to(recv_query(conn))):
            conn.send(bytes([byte]))

    response, used_tcp = dns.query.udp_with_fallback(query, udp.host, port=udp.port, timeout=5)

    assert used_tcp
    assert addresses(response) == ["192.0.2.7"]
    assert udp.requests == [query.to_wire()]
    assert tcp.requests[1] == query.to_wire()


def test_an_answer_with_a_wrong_id_that_comes_first_is_ignored(
    udp_server: DatagramTestServer, query: dns.message.QueryMessage
) -> None:
    @udp_server.handler
    def be_spoofed(request: Request) -> list[bytes]:
        wrong_id = bytes([request[0] ^ 255, request[1]])
        return [wrong_id + answer_to(request, "203.0.113.66")[2:], answer_to(request)]

    response = dns.query.udp(query, udp_server.host, port=udp_server.port, timeout=5, ignore_errors=True)

    assert addresses(response) == ["192.0.2.7"]


def test_a_lost_query_is_asked_again_by_the_resolver(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    def lose_the_first(request: Request) -> bytes | tuple[()]:
        return answer_to(request) if len(udp_server.requests) > 1 else ()

    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [udp_server.host], udp_server.port
    resolver.timeout, resolver.lifetime = 0.1, 5

    assert [record.address for record in resolver.resolve("a.test")] == ["192.0.2.7"]
    assert len(udp_server.requests) > 1


def test_silence_is_a_timeout(udp_server: DatagramTestServer, query: dns.message.QueryMessage) -> None:
    with pytest.raises(dns.exception.Timeout):
        dns.query.udp(query, udp_server.host, port=udp_server.port, timeout=0.05)

    udp_server.wait_for(query.to_wire())


def test_an_answer_over_tls(
    tcp_server: StreamTestServer,
    query: dns.message.QueryMessage,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    @tcp_server.handler
    def answer(conn: Connection) -> None:
        conn.start_tls(server_context)
        conn.send(with_length(answer_to(recv_query(conn))))

    response = dns.query.tls(
        query, tcp_server.host, port=tcp_server.port, timeout=5, ssl_context=client_context, server_hostname="localhost"
    )

    assert addresses(response) == ["192.0.2.7"]
