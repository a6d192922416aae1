"""The README's examples: a real client, and the server that each test tells what to do."""

import ast
import poplib
import re
import smtplib
import socket
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_sockserver import ANY, CONNECT, DATA, HANDSHAKE, Certificate, Close, Cut, Drip, Reset, StartTLS, resp
from pytest_sockserver.sweeps import cuts


def test_get_returns_what_the_server_has(tcp_server):
    tcp_server.framing = resp  # where one command of the Redis protocol ends and the next begins
    tcp_server.on(b"*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n").reply(b"$5\r\nhello\r\n")
    tcp_server.on(ANY).reply(b"+OK\r\n")  # what the client says by itself

    with redis.Redis(*tcp_server.address, protocol=2, socket_timeout=1, retry=None) as client:
        assert client.get("greeting") == b"hello"


def test_greylisted(tcp_server):
    (
        tcp_server.script()
        .send(b"220 mx ESMTP\r\n")
        .expect_line(re.compile(rb"(?i)ehlo \S+"))
        .send(b"250 mx\r\n")
        .expect_line(re.compile(rb"(?i)mail from:<ann@x>.*"))
        .send(b"250 ok\r\n")
        .expect_line(re.compile(rb"(?i)rcpt to:<bob@y>"))
        .send(b"451 greylisted\r\n")
        .expect(b"rset\r\n")
        .send(b"250 ok\r\n")
        .expect(b"QUIT\r\n")
        .send(b"221 bye\r\n")
        .close()
    )

    with smtplib.SMTP(*tcp_server.address) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail("ann@x", ["bob@y"], "hi")


def test_locked_mailbox(tcp_server):
    tcp_server.dialogue(r"""
        S: +OK ready
        C~ USER (?P<user>\w+)
        S: +OK \g<user>
        C~ PASS .*
        S: -ERR locked
        S! close
    """)

    client = poplib.POP3(*tcp_server.address)
    assert client.user("bob") == b"+OK bob"
    with pytest.raises(poplib.error_proto, match="locked"):
        client.pass_("secret")
    client.close()


def test_ways_to_break_it(tcp_server, udp_server, tls_server):
    tcp_server.on(b"PING\r\n").reply(Cut(b"+PONG\r\n", 3), Reset())
    tcp_server.on(CONNECT).reply(Reset(), uses=2).then()
    tcp_server.inject(Drip(DATA, 0.01), connections=2)
    udp_server.inject(direction="received", at=0)
    tls_server.on(HANDSHAKE).reply(StartTLS(Certificate.expired()))
    with tcp_server.blackhole():
        ...
    for server in (tcp_server, udp_server):
        server.clear()  # no client comes here, and a fault that hits nothing fails the test


@pytest.mark.parametrize("part", cuts(b"$5\r\nhello\r\n"))  # 11 tests: nothing of it, a byte, two bytes ...
def test_part_of_a_reply_is_no_reply(tcp_server, part):
    tcp_server.framing = resp
    tcp_server.on(b"*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n").reply(part, Close())
    tcp_server.on(ANY).reply(b"+OK\r\n")

    with redis.Redis(*tcp_server.address, protocol=2, retry=None) as client:
        with pytest.raises(redis.ConnectionError):
            client.get("greeting")


def serve(server):
    server.framing = resp
    server.on(b"*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n").reply(b"$5\r\nhello\r\n")
    server.on(ANY).reply(b"+OK\r\n")


def get(server):
    with redis.Redis(*server.address, protocol=2, socket_timeout=0.3, socket_connect_timeout=0.3, retry=None) as client:
        return client.get("greeting")


def test_client_never_hangs(sockserver):
    matrix = sockserver.fault_matrix(get, serve)  # two functions of a server: the client, and what answers it

    print(matrix)
    assert not matrix.hung


def test_client_reconnects_after_a_reset(tcp_server):
    @tcp_server.handler
    def unlucky_first(conn):
        while command := read_command(conn):
            if command == [b"PING"] and conn.index == 0:
                return conn.reset()
            conn.send(b"+PONG\r\n" if command == [b"PING"] else b"+OK\r\n")

    with redis.Redis(*tcp_server.address, protocol=2, retry=Retry(NoBackoff(), 1)) as client:
        assert client.ping()

    assert [conn.closed_by for conn in tcp_server.connections][0] == "server"
    assert len(tcp_server.connections) == 2


def test_metrics_are_sent(udp_server):  # nothing declared: it listens and records
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hits:1|c", udp_server.address)

    assert udp_server.wait_for(re.compile(rb"hits:(\d+)\|c")).match[1] == b"1"


def test_half_a_reply_is_no_reply(tcp_server):  # the test itself drives the server
    with redis.Redis(*tcp_server.address, protocol=2, retry=None) as client:
        value = tcp_server.in_thread(client.get, "greeting")

        conn = tcp_server.accept()
        while read_command(conn) != [b"GET", b"greeting"]:
            conn.send(b"+OK\r\n")
        conn.send(b"$5\r\nhel")
        conn.close()

        with pytest.raises(redis.ConnectionError):
            value.result()


def read_command(conn):
    """Read a command of the Redis protocol: an array of bulk strings."""
    count = int(conn.recv_line()[1:])
    return [conn.recv_exactly(int(conn.recv_line()[1:]) + 2)[:-2] for _ in range(count)]


def test_readme_has_these_tests():
    """Layout and comments aside."""
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    blocks = [ast.parse(block) for block in re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)]
    here = {each.name: each for each in ast.parse(Path(__file__).read_text()).body if hasattr(each, "name")}

    shown = [each for block in blocks for each in block.body if getattr(each, "name", "").startswith("test_")]
    breaking = next(block for block in blocks if "blackhole" in ast.dump(block))

    assert len(shown) == 5
    for each in shown:
        assert ast.unparse(each) == ast.unparse(here[each.name])
    lines = [*map(ast.unparse, here["test_ways_to_break_it"].body)]
    assert [*map(ast.unparse, breaking.body)] == lines[:-1]
