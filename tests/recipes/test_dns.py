"""DNS, over UDP and over TCP, with dnspython."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from pytest_sockserver import (
    ANY,
    Close,
    Cut,
    DatagramTestServer,
    Hex,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    length_prefixed,
)

from .relay import byte_by_byte


def answer(query: bytes, address: str = "192.0.2.7") -> bytes:
    """Answer a query with one address."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer.append(dns.rrset.from_text(response.question[0].name, 60, "IN", "A", address))
    return response.to_wire()


def refusal(query: bytes, rcode: dns.rcode.Rcode) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    response.set_rcode(rcode)
    return response.to_wire()


def truncated(query: bytes) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    response.flags |= dns.flags.TC
    return response.to_wire()


@dataclass(frozen=True)
class Asks:
    """Match the queries for a name; a class, so that a report can show for which."""

    name: str
    kind: str = "A"

    def __call__(self, query: bytes) -> bool:
        (question,) = dns.message.from_wire(query).question
        return question.to_text() == f"{self.name}. IN {self.kind}"


@pytest.fixture
def resolver(udp_server: DatagramTestServer) -> dns.resolver.Resolver:
    return resolver_for(udp_server)


def resolver_for(server: DatagramTestServer) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=False)  # without it: the nameservers of /etc/resolv.conf
    resolver.nameservers, resolver.port = [server.host], server.port
    resolver.timeout, resolver.lifetime = 2, 5
    return resolver


def addresses(found: Iterable[Any]) -> list[str]:
    return [record.address for record in found]


# The same story three times


def test_rules_answer_by_name(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.on(Asks("a.test")).reply(answer)
    udp_server.on(ANY).reply(lambda query: refusal(query, dns.rcode.NXDOMAIN))

    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("b.test")
    assert addresses(resolver.resolve("a.test")) == ["192.0.2.7"]


def test_a_script_answers_in_order(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    (
        udp_server.script()
        .expect(Asks("b.test"))
        .send(lambda query: refusal(query, dns.rcode.NXDOMAIN))
        .expect(Asks("a.test"))
        .send(answer)
    )

    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("b.test")
    assert addresses(resolver.resolve("a.test")) == ["192.0.2.7"]


def test_a_dialogue_answers_in_order(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.dialogue(r"""
        # each line is a datagram: the id, the flags, how many of what; the question; the answer
        C~ (?P<id>..)\x01\x00.{8}(?P<question>\x01b\x04test\x00\x00\x01\x00\x01)
        Sx \g<id> 81 03 00 01 00 00 00 00 00 00 \g<question>
        C~ (?P<id>..)\x01\x00.{8}(?P<question>\x01a\x04test\x00\x00\x01\x00\x01)
        Sx \g<id> 81 00 00 01 00 01 00 00 00 00 \g<question> c0 0c 00 01 00 01 00 00 00 3c 00 04 c0 00 02 07
    """)

    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("b.test")
    assert addresses(resolver.resolve("a.test")) == ["192.0.2.7"]


# What a nameserver may do


def test_a_spoofed_answer_comes_first(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.on(ANY).reply(spoofed, answer)

    assert addresses(resolver.resolve("a.test")) == ["192.0.2.7"]


def spoofed(query: bytes) -> bytes:
    """Answer as somebody does who has to guess the id."""
    guess = bytes([query[0] ^ 255, query[1]])
    return guess + answer(query, "203.0.113.66")[2:]


def test_a_query_that_is_lost(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.on(Asks("a.test"), times=(2, None)).reply().then(answer)
    resolver.timeout = 0.05

    assert addresses(resolver.resolve("a.test")) == ["192.0.2.7"]


def test_a_nameserver_that_fails_once(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.on(Asks("a.test"), times=2).reply(lambda query: refusal(query, dns.rcode.SERVFAIL)).then(answer)
    resolver.retry_servfail = True

    assert addresses(resolver.resolve("a.test")) == ["192.0.2.7"]


def test_two_queries_in_any_order(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.on(Asks("a.test"), times=1).reply(answer)
    udp_server.on(Asks("a.test", "AAAA"), times=1).reply(lambda query: refusal(query, dns.rcode.NOERROR))

    assert list(resolver.resolve_name("a.test").addresses()) == ["192.0.2.7"]


# Over TCP


def test_a_truncated_answer_is_asked_for_over_tcp(sockserver: SockServer) -> None:
    tcp, udp = sockserver.tcp_and_udp()
    udp.on(ANY).reply(truncated)
    tcp.framing = length_prefixed(">H")
    tcp.on(ANY).reply(lambda query: with_length(answer(query[2:])))

    assert addresses(resolver_for(udp).resolve("a.test")) == ["192.0.2.7"]

    assert tcp.requests[0][4:] == udp.requests[0][2:]  # the same but for the length and the id


def with_length(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message


QUERY = dns.message.make_query("a.test", "A")


@pytest.mark.parametrize("n", range(2 + len(answer(QUERY.to_wire()))))
def test_an_answer_cut_at_every_byte(tcp_server: StreamTestServer, n: int) -> None:
    tcp_server.framing = length_prefixed(">H")
    tcp_server.on(ANY).reply(Cut(lambda query: with_length(answer(query[2:])), n), Close())

    with pytest.raises(EOFError):
        dns.query.tcp(QUERY, tcp_server.host, port=tcp_server.port, timeout=2)


# When the client departs


def test_another_name_than_the_script_expects(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.script().expect(Asks("a.test")).send(answer)
    resolver.lifetime = 0.05

    with udp_server.raises(ScriptMismatch, match=r"expected the predicate Asks\(name='a.test', kind='A'\)"):
        with pytest.raises(dns.resolver.LifetimeTimeout):
            resolver.resolve("c.test")


def test_a_name_that_no_rule_knows(udp_server: DatagramTestServer, resolver: dns.resolver.Resolver) -> None:
    udp_server.on(Asks("a.test")).reply(answer)
    resolver.lifetime = 0.05

    with udp_server.raises(UnexpectedRequest, match="no rule matches hex .. .. 01 00 .* 01 63 04 74 65 73 74 00"):
        with pytest.raises(dns.resolver.LifetimeTimeout):
            resolver.resolve("c.test")


# Byte by byte


def declare_script(server: StreamTestServer) -> None:
    query = Hex("00 18 <id:2> 01 00 00 01 00 00 00 00 00 00 01 61 04 74 65 73 74 00 00 01 00 01")
    server.script().expect(query).send(lambda query: with_length(answer(query[2:])))


def declare_rules(server: StreamTestServer) -> None:
    server.framing = length_prefixed(">H")
    server.on(ANY).reply(lambda query: with_length(answer(query[2:])))


def declare_dialogue(server: StreamTestServer) -> None:
    server.dialogue(r"""
        Cx 00 18 <id:2> 01 00 00 01 00 00 00 00 00 00 <question:12>
        Sx 00 28 \g<id> 81 00 00 01 00 01 00 00 00 00 \g<question> c0 0c 00 01 00 01 00 00 00 3c 00 04 c0 00 02 07
    """)


@pytest.mark.parametrize("declare", [declare_script, declare_rules, declare_dialogue])
def test_queries_that_come_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, declare: Callable[[StreamTestServer], None]
) -> None:
    declare(tcp_server)
    host, port = byte_by_byte(sockserver, tcp_server)

    response = dns.query.tcp(QUERY, host, port=port, timeout=2)

    assert addresses(response.answer[0]) == ["192.0.2.7"]
