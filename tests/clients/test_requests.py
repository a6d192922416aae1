"""requests: a pool that keeps connections, follows redirects, and tries again where it was told to."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from pytest_sockserver import Connection, StreamTestServer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy between this test and its server
        yield session


def try_again(session: requests.Session, retry: Retry) -> None:
    session.mount("http://", HTTPAdapter(max_retries=retry))


def test_a_session_keeps_its_connection(tcp_server: StreamTestServer, session: requests.Session) -> None:
    @tcp_server.handler
    def serve(conn: Connection) -> None:
        while True:
            conn.recv_until(b"\r\n\r\n")
            conn.send(OK)

    url = tcp_server.url("http")
    assert [session.get(f"{url}/{name}").text for name in "abc"] == ["ok"] * 3

    assert [request.split()[1] for request in tcp_server.requests] == [b"/a", b"/b", b"/c"]
    assert len(tcp_server.connections) == 1


def test_a_kept_connection_that_the_server_has_closed_is_replaced(
    tcp_server: StreamTestServer, session: requests.Session
) -> None:
    closed = Event()

    @tcp_server.handler
    def serve_once(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(OK)
        conn.close()
        closed.set()

    session.get(tcp_server.url("http"))
    assert closed.wait(5)
    session.get(tcp_server.url("http"))

    assert len(tcp_server.connections) == 2


def test_a_redirect_is_followed_with_the_cookie_that_it_set(
    tcp_server: StreamTestServer, session: requests.Session
) -> None:
    @tcp_server.handler
    def redirect(conn: Connection) -> None:
        conn.expect_line(b"GET /old HTTP/1.1")
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 302 Found\r\nLocation: /new\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
        conn.expect_line(b"GET /new HTTP/1.1")
        assert b"\r\nCookie: a=b\r\n" in conn.recv_until(b"\r\n\r\n")
        conn.send(OK)

    response = session.get(tcp_server.url("http") + "/old")

    assert response.url == tcp_server.url("http") + "/new"
    assert [each.status_code for each in response.history] == [302]


def test_resets_are_survived_by_a_session_that_tries_again(
    tcp_server: StreamTestServer, session: requests.Session
) -> None:
    @tcp_server.handler
    def reset_twice(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        if conn.index < 2:
            conn.reset()
        else:
            conn.send(OK)

    try_again(session, Retry(total=2, backoff_factor=0))

    assert session.get(tcp_server.url("http")).text == "ok"
    assert [conn.closed_by for conn in tcp_server.connections[:2]] == ["server", "server"]
    assert len(tcp_server.connections) == 3


def test_a_reset_is_an_error_of_a_session_that_tries_once(
    tcp_server: StreamTestServer, session: requests.Session
) -> None:
    @tcp_server.handler
    def reset(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.reset()

    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        session.get(tcp_server.url("http"))

    assert len(tcp_server.connections) == 1


def test_503_is_asked_again_on_the_same_connection(tcp_server: StreamTestServer, session: requests.Session) -> None:
    @tcp_server.handler
    def be_busy_once(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
        conn.recv_until(b"\r\n\r\n")
        conn.send(OK)

    try_again(session, Retry(total=1, status_forcelist=[503]))

    assert session.get(tcp_server.url("http")).text == "ok"
    assert len(tcp_server.connections) == 1
    assert len(tcp_server.requests) == 2


def test_a_reply_that_does_not_come_is_a_read_timeout(tcp_server: StreamTestServer, session: requests.Session) -> None:
    @tcp_server.handler
    def say_nothing(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.expect_eof()

    with pytest.raises(requests.ReadTimeout):
        session.get(tcp_server.url("http"), timeout=0.05)

    conn = tcp_server.wait_connection()
    conn.wait_closed()
    assert conn.closed_by == "client"


def test_a_body_shorter_than_announced(tcp_server: StreamTestServer, session: requests.Session) -> None:
    @tcp_server.handler
    def stop_short(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="2 bytes read, 3 more expected"):
        session.get(tcp_server.url("http"))


def test_a_server_that_refuses_and_listens_again(tcp_server: StreamTestServer, session: requests.Session) -> None:
    @tcp_server.handler
    def serve(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(OK)

    with tcp_server.refuse():
        with pytest.raises(requests.ConnectionError, match="Connection refused"):
            session.get(tcp_server.url("http"))

    assert session.get(tcp_server.url("http")).text == "ok"


def test_https_with_a_certificate_that_the_session_trusts(
    tcp_server: StreamTestServer, session: requests.Session, server_context: ssl.SSLContext, ca_path: Path
) -> None:
    @tcp_server.handler
    def serve(conn: Connection) -> None:
        conn.start_tls(server_context)
        conn.recv_until(b"\r\n\r\n")
        conn.send(OK)

    assert session.get(tcp_server.url("https"), verify=str(ca_path)).text == "ok"
    assert tcp_server.requests[0].startswith(b"GET / HTTP/1.1\r\n")


def test_a_server_goes_on_after_a_session_that_does_not_trust_its_certificate(
    tcp_server: StreamTestServer, session: requests.Session, server_context: ssl.SSLContext, ca_path: Path
) -> None:
    @tcp_server.handler
    def serve(conn: Connection) -> None:
        conn.start_tls(server_context)
        conn.recv_until(b"\r\n\r\n")
        conn.send(OK)

    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        session.get(tcp_server.url("https"))
    assert session.get(tcp_server.url("https"), verify=str(ca_path)).text == "ok"

    distrusted, trusted = tcp_server.connections
    distrusted.wait_closed()
    assert "UNKNOWN_CA" in str(distrusted.tls.error)
    assert trusted.tls.error is None
