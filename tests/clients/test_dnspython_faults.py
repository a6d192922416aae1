"""dnspython while the network fails: a query raises what it meets, a resolver waits for better and asks again."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import closing

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.resolver
import dns.rrset
import pytest

from pytest_sockserver import (
    ANY,
    Certificate,
    Close,
    Cut,
    DatagramTestServer,
    Delay,
    Gate,
    Reset,
    SockServer,
    StreamTestServer,
    length_prefixed,
)
from pytest_sockserver.faults import Append, Corrupt, Overwrite, Repeat, Replace, Split, Spoof
from pytest_sockserver.sweeps import cuts, splits

from .faults import certificates

# With asyncio, dnspython 2.8 loses what comes while it looks at another datagram; 2.9 does not.
MOMENT = Delay(0.01)

QUERY = dns.message.make_query("a.test", "A", id=0x1234)


def answer(query: bytes, address: str = "192.0.2.7") -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer.append(dns.rrset.from_text(response.question[0].name, 60, "IN", "A", address))
    return response.to_wire()


def wrong(query: bytes) -> bytes:
    return answer(query, "203.0.113.66")


def truncated(query: bytes) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    response.flags |= dns.flags.TC
    return response.to_wire()


def addresses(response: dns.message.Message) -> list[str]:
    return [record.address for rrset in response.answer for record in rrset]


def ask(server: DatagramTestServer, timeout: float = 5, **options: object) -> list[str]:
    return addresses(dns.query.udp(QUERY, server.host, port=server.port, timeout=timeout, **options))


def ask_with_asyncio(server: DatagramTestServer, timeout: float = 5, **options: object) -> list[str]:
    asking = dns.asyncquery.udp(QUERY, server.host, port=server.port, timeout=timeout, **options)
    return addresses(asyncio.run(asking))


both = pytest.mark.parametrize("ask", [ask, ask_with_asyncio])
Ask = Callable[..., list[str]]


@pytest.fixture
def resolver(udp_server: DatagramTestServer) -> dns.resolver.Resolver:
    return resolver_for(udp_server)


def resolver_for(server: DatagramTestServer) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=False)  # without it: the nameservers of /etc/resolv.conf
    resolver.nameservers, resolver.port = [server.host], server.port
    resolver.timeout, resolver.lifetime = 5, 5  # seconds, for one try and for all of them
    return resolver


def resolve(resolver: dns.resolver.Resolver) -> list[str]:
    return [record.address for record in resolver.resolve("a.test")]


# Lost


@both
def test_an_answer_that_is_lost(udp_server: DatagramTestServer, ask: Ask) -> None:
    udp_server.on(ANY).reply(answer)

    with udp_server.inject(at=0):
        with pytest.raises(dns.exception.Timeout):
            ask(udp_server, timeout=0.05)
        assert ask(udp_server) == ["192.0.2.7"]


@pytest.mark.parametrize("direction", ["received", "sent"])
def test_a_resolver_asks_again_for_what_was_lost_on_either_way(
    udp_server: DatagramTestServer, resolver: dns.resolver.Resolver, direction: str
) -> None:
    udp_server.on(ANY).reply(answer)
    lost = udp_server.inject(direction=direction, times=1)
    resolver.timeout = 0.05

    assert resolve(resolver) == ["192.0.2.7"]

    assert lost.count == 1
    assert len(udp_server.requests) >= 2


def test_a_resolver_gives_up_at_the_end_of_its_lifetime(
    udp_server: DatagramTestServer, resolver: dns.resolver.Resolver
) -> None:
    resolver.timeout, resolver.lifetime = 0.05, 0.3

    with udp_server.blackhole():
        with pytest.raises(dns.resolver.LifetimeTimeout, match="^The resolution lifetime expired after 0[.]"):
            resolve(resolver)

    assert len(udp_server.requests) > 1


@both
def test_a_port_that_refuses_is_not_noticed(udp_server: DatagramTestServer, ask: Ask) -> None:
    """The kernel tells (ICMP) those sockets alone that are connected, and dnspython's are not."""
    with udp_server.refuse():
        with pytest.raises(dns.exception.Timeout):
            ask(udp_server, timeout=0.05)


def test_a_nameserver_that_is_back_after_a_while(
    udp_server: DatagramTestServer, resolver: dns.resolver.Resolver
) -> None:
    udp_server.on(ANY).reply(answer)
    resolver.timeout = 0.05

    with udp_server.refuse():
        resolving = udp_server.in_thread(resolve, resolver)
        with pytest.raises(dns.exception.Timeout):
            ask(udp_server, timeout=0.1)

    assert resolving.result() == ["192.0.2.7"]


# Spoofed


@both
@pytest.mark.parametrize("host", [None, "127.0.0.2"])
def test_an_answer_from_elsewhere_is_raised(udp_server: DatagramTestServer, ask: Ask, host: str | None) -> None:
    udp_server.on(ANY).reply(Spoof(wrong, host), answer)

    with pytest.raises(dns.query.UnexpectedSource, match=r"^got a response from .* instead of "):
        ask(udp_server)


@both
@pytest.mark.parametrize("host", [None, "127.0.0.2"])
def test_an_answer_from_elsewhere_is_ignored_if_so_told(
    udp_server: DatagramTestServer, ask: Ask, host: str | None
) -> None:
    udp_server.on(ANY).reply(Spoof(wrong, host), MOMENT, answer)

    assert ask(udp_server, ignore_unexpected=True) == ["192.0.2.7"]


WRONG = {
    "another id": (Overwrite(wrong, 0, b"\x43\x21"), dns.query.BadResponse),
    "another question": (Replace(wrong, b"\x01a\x04test", b"\x01b\x04test"), dns.query.BadResponse),
    "the query itself": (lambda query: query, dns.query.BadResponse),
    "cut within the head": (Cut(wrong, 11), dns.message.ShortHeader),
    "cut within the question": (Cut(wrong, 20), dns.exception.FormError),
    "empty": (b"", dns.message.ShortHeader),
    "two bytes too many": (Append(wrong, b"\0\0"), dns.message.TrailingJunk),
    "one record too few": (Overwrite(wrong, 6, b"\0\x02"), dns.exception.FormError),
    "a pointer that points to itself": (Replace(wrong, b"\xc0\x0c", b"\xc0\x18"), dns.name.BadPointer),
}
wrongs = pytest.mark.parametrize(("reply", "error"), WRONG.values(), ids=WRONG)


@both
@wrongs
def test_a_wrong_answer_is_raised(
    udp_server: DatagramTestServer, ask: Ask, reply: object, error: type[Exception]
) -> None:
    udp_server.on(ANY).reply(reply, answer)

    with pytest.raises(error):
        ask(udp_server)


@both
@wrongs
def test_a_wrong_answer_is_ignored_if_so_told(
    udp_server: DatagramTestServer, ask: Ask, reply: object, error: type[Exception]
) -> None:
    udp_server.on(ANY).reply(reply, MOMENT, answer)

    assert ask(udp_server, ignore_errors=True) == ["192.0.2.7"]


@wrongs
def test_a_resolver_ignores_a_wrong_answer(
    udp_server: DatagramTestServer, resolver: dns.resolver.Resolver, reply: object, error: type[Exception]
) -> None:
    udp_server.on(ANY).reply(Spoof(wrong), reply, answer)

    assert resolve(resolver) == ["192.0.2.7"]

    assert len(udp_server.requests) == 1


def test_a_flipped_bit_of_an_address_is_taken_for_the_address(
    udp_server: DatagramTestServer, resolver: dns.resolver.Resolver
) -> None:
    """Nothing in a message tells: that is what DNSSEC is for."""
    udp_server.on(ANY).reply(Corrupt(answer, len(answer(QUERY.to_wire())) - 1, flip=1))

    assert resolve(resolver) == ["192.0.2.6"]


# Twice, and late


@both
def test_a_second_answer_is_left(udp_server: DatagramTestServer, ask: Ask) -> None:
    udp_server.on(ANY).reply(Repeat(answer, 2))

    assert [ask(udp_server), ask(udp_server)] == [["192.0.2.7"]] * 2


def test_a_late_answer_comes_to_a_socket_that_is_closed(udp_server: DatagramTestServer) -> None:
    udp_server.on(ANY).reply(Gate("late"), wrong, uses=1).then(answer)
    with pytest.raises(dns.exception.Timeout):
        ask(udp_server, timeout=0.05)
    udp_server.open_gate("late")

    assert ask(udp_server) == ["192.0.2.7"]


def test_a_late_answer_on_a_kept_socket_is_an_answer_to_another_question(udp_server: DatagramTestServer) -> None:
    udp_server.on(ANY).reply(Gate("late"), wrong, uses=1).then(answer)
    other = dns.message.make_query("a.test", "A", id=0x4321)

    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as kept:
        kept.setblocking(False)
        with pytest.raises(dns.exception.Timeout):
            ask(udp_server, timeout=0.05, sock=kept)
        udp_server.open_gate("late")
        with pytest.raises(dns.query.BadResponse):
            dns.query.udp(other, udp_server.host, port=udp_server.port, timeout=5, sock=kept)


def test_a_slow_nameserver_is_asked_again_and_answers_the_first_query_too_late(
    udp_server: DatagramTestServer, resolver: dns.resolver.Resolver
) -> None:
    udp_server.on(ANY).reply(Delay(0.1), wrong, uses=1).then(answer)
    resolver.timeout = 0.05

    assert resolve(resolver) == ["192.0.2.7"]


# Over TCP


def over_tcp(query: bytes) -> bytes:
    """Over a stream each message has two bytes of length before it (RFC 1035 section 4.2.2)."""
    message = answer(query[2:])
    return struct.pack(">H", len(message)) + message


@pytest.fixture
def pair(sockserver: SockServer) -> tuple[StreamTestServer, DatagramTestServer]:
    """A nameserver that has more to say than it says over UDP."""
    tcp, udp = sockserver.tcp_and_udp()
    udp.on(ANY).reply(truncated)
    tcp.framing = length_prefixed(">H")
    tcp.on(ANY).reply(over_tcp)
    return tcp, udp


def test_a_truncated_answer_is_asked_for_over_tcp(pair: tuple[StreamTestServer, DatagramTestServer]) -> None:
    tcp, udp = pair

    assert resolve(resolver_for(udp)) == ["192.0.2.7"]

    assert [len(udp.requests), len(tcp.requests)] == [1, 1]


@pytest.mark.parametrize("end", [Close(), Reset()], ids=repr)
def test_a_nameserver_whose_tcp_breaks_off_once_is_given_up(
    pair: tuple[StreamTestServer, DatagramTestServer], end: Close | Reset
) -> None:
    tcp, udp = pair
    tcp.on(ANY).reply(Cut(over_tcp, 20), end, uses=1).then(over_tcp)

    with pytest.raises(dns.resolver.NoNameservers):
        resolve(resolver_for(udp))

    assert [len(udp.requests), len(tcp.requests)] == [1, 1]


def test_a_nameserver_without_tcp_is_given_up(pair: tuple[StreamTestServer, DatagramTestServer]) -> None:
    tcp, udp = pair

    with tcp.refuse():
        with pytest.raises(dns.resolver.NoNameservers, match="Connection refused"):
            resolve(resolver_for(udp))

    assert len(udp.requests) == 1


@pytest.mark.parametrize("cut", cuts(over_tcp(b"\0\0" + QUERY.to_wire())))
def test_an_answer_over_tcp_cut_at_every_byte(tcp_server: StreamTestServer, cut: Cut) -> None:
    tcp_server.framing = length_prefixed(">H")
    tcp_server.on(ANY).reply(cut, Close())

    with pytest.raises(EOFError):
        dns.query.tcp(QUERY, tcp_server.host, port=tcp_server.port, timeout=5)


@pytest.mark.parametrize("split", splits(over_tcp(b"\0\0" + QUERY.to_wire())))
def test_an_answer_over_tcp_parted_at_every_byte(tcp_server: StreamTestServer, split: Split) -> None:
    tcp_server.framing = length_prefixed(">H")
    tcp_server.on(ANY).reply(split)

    response = dns.query.tcp(QUERY, tcp_server.host, port=tcp_server.port, timeout=5)

    assert addresses(response) == ["192.0.2.7"]


@certificates(of_another_host="Hostname mismatch, certificate is not valid for 'localhost'")
def test_a_bad_certificate(sockserver: SockServer, certificate: Certificate, reason: str) -> None:
    server = sockserver.tls(tls=certificate)

    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        ask_over_tls(server, server_hostname="localhost")


def test_a_certificate_of_another_host_is_taken_unless_a_name_is_given(sockserver: SockServer) -> None:
    server = sockserver.tls(tls=Certificate.wrong_host())
    server.framing = length_prefixed(">H")
    server.on(ANY).reply(over_tcp)

    assert ask_over_tls(server) == ["192.0.2.7"]


def ask_over_tls(server: StreamTestServer, **options: object) -> list[str]:
    ca = str(server.ca_path)
    return addresses(dns.query.tls(QUERY, server.host, port=server.port, timeout=5, verify=ca, **options))
