"""Three clients that many rely on, each under every fault that its transport can show."""

from __future__ import annotations

from pathlib import Path

import dns.message
import dns.query
import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_sockserver import ANY, DatagramTestServer, SockServer, StreamTestServer, http1, resp
from pytest_sockserver.faults import FaultMatrix

# Of a connection that was reset at once Python's ssl leaves an open socket behind, whoever asked it to wrap it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


# redis-py: a pool that tries once more


def serve_redis(server: StreamTestServer) -> None:
    server.framing = resp
    server.on(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").reply(b"$5\r\nhello\r\n")
    server.on(ANY).reply(b"+OK\r\n")  # what the client says by itself


def get_from_redis(server: StreamTestServer) -> bytes:
    once_more = Retry(NoBackoff(), 1)
    with redis.Redis(*server.address, protocol=2, retry=once_more, socket_timeout=0.5) as client:
        return client.get("k")


def test_redis_hangs_only_where_its_time_limit_does_not_reach(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(get_from_redis, serve_redis, replies=4)

    assert [each.fault for each in matrix.hung] == ["connection never made"], matrix
    assert matrix["the first connection reset, the next served"].is_same
    assert matrix["reply 3 half said, closed"].outcome == "raised"


# httpx: over TLS


def serve_https(server: StreamTestServer) -> None:
    server.framing = http1
    server.on(ANY).reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def get_by_httpx(server: StreamTestServer) -> str:
    with httpx.Client(verify=server.client_context(), timeout=0.5) as client:
        return client.get(server.url("https")).raise_for_status().text


def test_httpx_refuses_each_certificate_and_each_truncated_body(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(get_by_httpx, serve_https, transport="tls")

    assert not matrix.hung, matrix
    assert all(each.outcome == "raised" for each in matrix if each.fault.startswith("certificate")), matrix
    assert isinstance(matrix["reply said but for its last byte, closed"].value, httpx.RemoteProtocolError)


# dnspython: one query over UDP


def serve_dns(server: DatagramTestServer) -> None:
    def answer(request: bytes) -> bytes:
        query = dns.message.from_wire(request)
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "A", "192.0.2.7"))
        return response.to_wire()

    server.on(ANY).reply(answer)


def ask_by_dnspython(server: DatagramTestServer) -> str:
    query = dns.message.make_query("a.test.", "A")
    response = dns.query.udp(query, server.host, port=server.port, timeout=0.5, ignore_unexpected=True)
    return response.answer[0].to_text()


def test_dnspython_ignores_whoever_else_answers(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(ask_by_dnspython, serve_dns, transport="udp")

    assert not matrix.hung, matrix
    assert matrix["reply after a forged one from another port"].is_same
    assert matrix["reply after a forged one from another address"].is_same


# The tables of the documentation: `python tests/examples/test_fault_matrix.py` writes them anew.

TABLES = Path(__file__).parents[2] / "docs" / "how-to" / "fault-matrices"


def matrix_of(name: str, sockserver: SockServer) -> FaultMatrix:
    if name == "redis":
        return sockserver.fault_matrix(get_from_redis, serve_redis, replies=4)
    if name == "httpx":
        return sockserver.fault_matrix(get_by_httpx, serve_https, transport="tls")
    return sockserver.fault_matrix(ask_by_dnspython, serve_dns, transport="udp")


@pytest.mark.parametrize("name", ["redis", "httpx", "dnspython"])
def test_the_documented_table_has_each_fault(sockserver: SockServer, name: str) -> None:
    matrix = matrix_of(name, sockserver)

    told = (TABLES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert [line[2:].partition("  ")[0] for line in told[2:]] == [each.fault for each in matrix]


if __name__ == "__main__":
    with SockServer() as factory:
        for name in ("redis", "httpx", "dnspython"):
            (TABLES / f"{name}.txt").write_text(f"{matrix_of(name, factory)}\n", encoding="utf-8")
