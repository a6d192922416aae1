"""HTTP/1.1, with requests, httpx and http.client."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from pytest_sockserver import (
    ANY,
    Close,
    Cut,
    Drip,
    Gate,
    Request,
    Reset,
    ScriptMismatch,
    SockServer,
    Stall,
    StreamTestServer,
    UnexpectedRequest,
    http1,
)

from .relay import byte_by_byte

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CREATED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnote\r\n2\r\n 1\r\n0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy between the client and its server
        yield session


# The same story three times


def test_rules_answer_by_path(tcp_server: StreamTestServer, session: requests.Session) -> None:
    tcp_server.framing = http1
    tcp_server.on(re.compile(rb"GET /greeting HTTP/1.1\r\n.*", re.DOTALL)).reply(HELLO)
    tcp_server.on(re.compile(rb"POST /notes HTTP/1.1\r\n.*", re.DOTALL)).reply(CREATED)
    tcp_server.on(ANY).reply(NOT_FOUND)

    url = tcp_server.url("http")
    assert session.get(f"{url}/greeting").text == "hello"
    assert session.post(f"{url}/notes", data=iter([b"milk", b"eggs"])).text == "note 1"
    assert session.get(f"{url}/favicon.ico").status_code == 404

    assert tcp_server.requests[1].endswith(b"\r\n\r\n4\r\nmilk\r\n4\r\neggs\r\n0\r\n\r\n")
    assert len(tcp_server.connections) == 1


def test_a_script_answers_on_one_connection(tcp_server: StreamTestServer, session: requests.Session) -> None:
    (
        tcp_server.script()
        .expect_line(b"GET /greeting HTTP/1.1")
        .recv_until(b"\r\n\r\n")
        .send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .expect_line(b"POST /notes HTTP/1.1")
        .recv_until(b"\r\n\r\n")
        .expect(b"4\r\nmilk\r\n4\r\neggs\r\n0\r\n\r\n")
        .send(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", b"6\r\nnote 1\r\n0\r\n\r\n")
    )

    url = tcp_server.url("http")
    assert session.get(f"{url}/greeting").text == "hello"
    assert session.post(f"{url}/notes", data=iter([b"milk", b"eggs"])).text == "note 1"


def test_a_dialogue_answers_on_one_connection(tcp_server: StreamTestServer, session: requests.Session) -> None:
    tcp_server.dialogue(r"""
        C: GET /greeting HTTP/1.1
        C> \r\n\r\n
        S: HTTP/1.1 200 OK
        S: Content-Length: 5
        S:
        S- hello
        C: POST /notes HTTP/1.1
        C> \r\n\r\n
        C: 4
        C: milk
        C: 4
        C: eggs
        C: 0
        C:
        S: HTTP/1.1 201 Created
        S: Transfer-Encoding: chunked
        S:
        S: 6
        S: note 1
        S: 0
        S:
    """)

    url = tcp_server.url("http")
    assert session.get(f"{url}/greeting").text == "hello"
    assert session.post(f"{url}/notes", data=iter([b"milk", b"eggs"])).text == "note 1"


# What a server may do


def get_with_requests(url: str) -> bytes:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=2).content


def get_with_httpx(url: str) -> bytes:
    return httpx.get(url, timeout=2, trust_env=False).content


def get_with_http_client(url: str) -> bytes:
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().read()


BREAKS_OFF = [
    (get_with_requests, requests.exceptions.ChunkedEncodingError),
    (get_with_httpx, httpx.RemoteProtocolError),
    (get_with_http_client, http.client.IncompleteRead),
]


@pytest.mark.parametrize("n", range(CREATED.index(b"4\r\nnote"), CREATED.index(b"0\r\n\r\n")))
@pytest.mark.parametrize(("get", "error"), BREAKS_OFF)
def test_a_reply_cut_within_its_chunks(
    tcp_server: StreamTestServer, get: Callable[[str], bytes], error: type[Exception], n: int
) -> None:
    tcp_server.framing = http1
    tcp_server.on(ANY).reply(Cut(CREATED, n), Close())

    with pytest.raises(error):
        get(tcp_server.url("http"))


def test_a_reply_in_drops(tcp_server: StreamTestServer, session: requests.Session) -> None:
    tcp_server.framing = http1
    tcp_server.on(ANY).reply(Drip(CREATED, pause=0.0005))

    assert session.get(tcp_server.url("http")).text == "note 1"


def test_a_reply_that_stalls_in_its_body(tcp_server: StreamTestServer, session: requests.Session) -> None:
    tcp_server.framing = http1
    tcp_server.on(ANY).reply(Cut(HELLO, len(HELLO) - 3), Stall())

    with pytest.raises(requests.exceptions.ConnectionError, match="Read timed out"):
        session.get(tcp_server.url("http"), timeout=0.05)


def test_a_kept_connection_that_is_reset_under_the_next_request(
    tcp_server: StreamTestServer, session: requests.Session
) -> None:
    tcp_server.framing = http1
    tcp_server.on(ANY, times=3).reply(HELLO).then(Reset()).then(HELLO)
    session.mount("http://", HTTPAdapter(max_retries=Retry(1)))

    assert [session.get(tcp_server.url("http")).text for _ in range(2)] == ["hello"] * 2

    assert [connection.requests.count(tcp_server.requests[0]) for connection in tcp_server.connections] == [2, 1]


def test_a_server_that_is_busy_once(tcp_server: StreamTestServer, session: requests.Session) -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
    tcp_server.framing = http1
    tcp_server.on(ANY, times=2).reply(busy).then(HELLO)
    session.mount("http://", HTTPAdapter(max_retries=Retry(1, status_forcelist=[503])))

    assert session.get(tcp_server.url("http")).text == "hello"


def test_a_reply_made_of_the_request(tcp_server: StreamTestServer, session: requests.Session) -> None:
    def count_letters(request: Request) -> bytes:
        body = request.partition(b"\r\n\r\n")[2]
        found = json.dumps({"letters": len(json.loads(body)["text"])}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(found), found)

    tcp_server.framing = http1
    tcp_server.on(re.compile(rb"POST /count .*", re.DOTALL)).reply(count_letters)

    assert session.post(tcp_server.url("http") + "/count", json={"text": "hello"}).json() == {"letters": 5}


def test_the_same_rules_on_a_unix_socket(unix_server: StreamTestServer) -> None:
    unix_server.framing = http1
    unix_server.on(ANY).reply(HELLO)

    with httpx.Client(transport=httpx.HTTPTransport(uds=unix_server.path), trust_env=False) as client:
        assert client.get("http://docker/version").text == "hello"


@pytest.mark.asyncio
async def test_requests_at_the_same_time(tcp_server: StreamTestServer) -> None:
    slow_request = re.compile(rb"GET /slow .*", re.DOTALL)
    tcp_server.framing = http1
    tcp_server.on(slow_request).reply(Gate("fast-is-answered"), HELLO)
    tcp_server.on(re.compile(rb"GET /fast .*", re.DOTALL)).reply(HELLO)

    async with httpx.AsyncClient(base_url=tcp_server.url("http"), trust_env=False) as client:
        slow = asyncio.create_task(client.get("/slow"))
        await tcp_server.aio.wait_for(slow_request)
        assert (await client.get("/fast")).text == "hello"
        assert not slow.done()
        tcp_server.open_gate("fast-is-answered")
        assert (await slow).text == "hello"


# When the client departs


def test_another_path_than_the_script_expects(tcp_server: StreamTestServer, session: requests.Session) -> None:
    tcp_server.script().expect_line(b"GET /greeting HTTP/1.1").recv_until(b"\r\n\r\n").send(HELLO)

    with tcp_server.raises(ScriptMismatch, match="expected a line matching b'GET /greeting HTTP/1.1'"):
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(tcp_server.url("http") + "/greetings")


def test_a_path_that_no_rule_knows(tcp_server: StreamTestServer, session: requests.Session) -> None:
    tcp_server.framing = http1
    tcp_server.on(re.compile(rb"GET /greeting .*", re.DOTALL)).reply(HELLO)

    with tcp_server.raises(UnexpectedRequest, match=re.escape(r"no rule matches b'GET /greetings HTTP/1.1\r\n")):
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(tcp_server.url("http") + "/greetings")


# Byte by byte


def declare_script(server: StreamTestServer) -> None:
    server.framing = http1
    (
        server.script()
        .expect(re.compile(rb"GET .*", re.DOTALL))
        .send(HELLO)
        .expect(re.compile(rb"POST .*\r\n\r\n4\r\nmilk\r\n4\r\neggs\r\n0\r\n\r\n", re.DOTALL))
        .send(CREATED)
    )


def declare_rules(server: StreamTestServer) -> None:
    server.framing = http1
    server.on(re.compile(rb"GET .*", re.DOTALL)).reply(HELLO)
    server.on(re.compile(rb"POST .*\r\n\r\n4\r\nmilk\r\n4\r\neggs\r\n0\r\n\r\n", re.DOTALL)).reply(CREATED)


def declare_dialogue(server: StreamTestServer) -> None:
    server.dialogue(
        r"""
        C~ GET .*
        C> \r\n\r\n
        S- \g<hello>
        C~ POST .*
        C> \r\n\r\n
        C- 4\r\nmilk\r\n4\r\neggs\r\n0\r\n\r\n
        S- \g<created>
    """,
        hello=HELLO,
        created=CREATED,
    )


@pytest.mark.parametrize("declare", [declare_script, declare_rules, declare_dialogue])
def test_requests_that_come_byte_by_byte(
    sockserver: SockServer,
    tcp_server: StreamTestServer,
    session: requests.Session,
    declare: Callable[[StreamTestServer], None],
) -> None:
    declare(tcp_server)
    host, port = byte_by_byte(sockserver, tcp_server)

    assert session.get(f"http://{host}:{port}/greeting").text == "hello"
    assert session.post(f"http://{host}:{port}/notes", data=iter([b"milk", b"eggs"])).text == "note 1"
