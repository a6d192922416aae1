"""HTTP/1.1, with requests, httpx and http.client."""

from __future__ import annotations

import http.client
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


def test_rules(tcp_server: StreamTestServer, session: requests.Session) -> None:
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


def test_a_script(tcp_server: StreamTestServer, session: requests.Session) -> None:
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


def test_a_dialogue(tcp_server: StreamTestServer, session: requests.Session) -> None:
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


BREAKS_OFF = {
    get_with_requests: requests.exceptions.ChunkedEncodingError,
    get_with_httpx: httpx.RemoteProtocolError,
    get_with_http_client: http.client.IncompleteRead,
}


@pytest.mark.parametrize("get", BREAKS_OFF)
@pytest.mark.parametrize("n", range(CREATED.index(b"4\r\n"), len(CREATED)))
def test_x(tcp_server, get, n):
    tcp_server.framing = http1
    tcp_server.on(ANY).reply(Cut(CREATED, n), Close())
    try:
        got = get(tcp_server.url("http"))
    except Exception as e:
        got = type(e), str(e)
    print(n, CREATED[n-4:n], get.__name__, got)
