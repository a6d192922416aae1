"""httpx while the network fails, its client and its asynchronous one: what each raises, and what it takes for whole."""

from __future__ import annotations

import gzip
import ssl
import zlib
from collections.abc import Callable
from time import monotonic

import anyio
import httpx
import pytest

from pytest_sockserver import (
    ANY,
    HANDSHAKE,
    Certificate,
    Close,
    Cut,
    Drip,
    Reset,
    SockServer,
    Stall,
    StreamTestServer,
    http1,
)
from pytest_sockserver.faults import Append, Raw, Repeat, Replace, Split, garbage
from pytest_sockserver.sweeps import cuts, splits

from .faults import certificates, ends, handshakes, patience

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"

SHORT = httpx.Timeout(5, read=0.05)  # seconds

Get = Callable[..., list[bytes]]


def options(server: StreamTestServer, timeout: float | httpx.Timeout) -> dict[str, object]:
    tls = server.transport == "tls"
    return {
        "base_url": server.url("https" if tls else "http"),
        "verify": server.client_context() if tls else False,
        "timeout": timeout,
        "trust_env": False,  # no proxy between this test and its server
    }


def get(server: StreamTestServer, times: int = 1, timeout: float | httpx.Timeout = 5) -> list[bytes]:
    with httpx.Client(**options(server, timeout)) as client:
        return [client.get("/").content for _ in range(times)]


def get_async(server: StreamTestServer, times: int = 1, timeout: float | httpx.Timeout = 5) -> list[bytes]:
    async def get() -> list[bytes]:
        async with httpx.AsyncClient(**options(server, timeout)) as client:
            return [(await client.get("/")).content for _ in range(times)]

    return anyio.run(get)


both = pytest.mark.parametrize("get", [get, get_async])


@pytest.fixture
def server(tcp_server: StreamTestServer) -> StreamTestServer:
    tcp_server.framing = http1
    return tcp_server


@pytest.fixture
def secure_server(tls_server: StreamTestServer) -> StreamTestServer:
    tls_server.framing = http1
    return tls_server


# Cut

HEAD = OK.index(b"hello")


@both
@pytest.mark.parametrize("cut", cuts(OK)[:HEAD])
def test_a_reply_cut_within_its_head(server: StreamTestServer, get: Get, cut: Cut) -> None:
    server.on(ANY).reply(cut, Close())

    with pytest.raises(httpx.RemoteProtocolError, match="^Server disconnected without sending a response.$"):
        get(server)


@both
@pytest.mark.parametrize("cut", cuts(OK)[HEAD:])
def test_a_reply_cut_within_its_body(server: StreamTestServer, get: Get, cut: Cut) -> None:
    server.on(ANY).reply(cut, Close())

    with pytest.raises(httpx.RemoteProtocolError, match=rf"\(received {cut.n - HEAD} bytes, expected 5\)$"):
        get(server)


@both
@pytest.mark.parametrize("cut", cuts(CHUNKED)[CHUNKED.index(b"2\r\nhe") :])
def test_a_reply_cut_within_its_chunks(server: StreamTestServer, get: Get, cut: Cut) -> None:
    server.on(ANY).reply(cut, Close())

    with pytest.raises(httpx.RemoteProtocolError, match=r"^peer (unexpectedly )?closed connection"):
        get(server)


@both
@pytest.mark.parametrize("cut", cuts(UNTIL_CLOSED)[-5:])
def test_a_reply_without_a_length_is_whole_wherever_it_is_cut(server: StreamTestServer, get: Get, cut: Cut) -> None:
    server.on(ANY).reply(cut, Close())

    assert get(server) == [b"hello"[: cut.n - len(UNTIL_CLOSED) + 5]]


@both
def test_a_cut_of_what_is_compressed_is_not_noticed(server: StreamTestServer, get: Get) -> None:
    """The sum and the length at the end of gzip are missing, and nobody asks for them (RFC 1952 section 2.3.1)."""
    cut = gzip.compress(b"hello")[:14]
    server.on(ANY).reply(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", cut, Close())

    assert get(server) == [zlib.decompressobj(wbits=31).decompress(cut)] != [b"hello"]


@both
@pytest.mark.parametrize("split", splits(OK))
def test_a_reply_parted_at_every_byte(server: StreamTestServer, get: Get, split: Split) -> None:
    server.on(ANY).reply(split)

    assert get(server) == [b"hello"]


# Reset


@both
@pytest.mark.parametrize("n", [0, 7, HEAD, len(OK) - 1])
def test_a_reply_that_is_reset(server: StreamTestServer, get: Get, n: int) -> None:
    server.on(ANY).reply(Cut(OK, n), Reset())

    with pytest.raises(httpx.ReadError):
        get(server)


@both
def test_a_kept_connection_that_is_reset_by_the_next_request(server: StreamTestServer, get: Get) -> None:
    server.on(ANY).reply(OK, uses=1).then(Reset())

    with pytest.raises(httpx.ReadError):
        get(server, times=2)

    assert [len(conn.requests) for conn in server.connections] == [2]


@both
def test_a_server_that_refuses(server: StreamTestServer, get: Get) -> None:
    with server.refuse():
        with pytest.raises(httpx.ConnectError):
            get(server)


# Late


@both
def test_a_drop_within_the_timeout_is_enough(server: StreamTestServer, get: Get) -> None:
    server.on(ANY).reply(Drip(OK, pause=0.03, size=4))

    began = monotonic()
    assert get(server, timeout=httpx.Timeout(5, read=0.25)) == [b"hello"]

    assert monotonic() - began > 0.25


@both
@ends(httpx.RemoteProtocolError, a_reset=httpx.ReadError, silence=httpx.ReadTimeout)
def test_a_body_that_breaks_off(
    server: StreamTestServer, get: Get, answer: list[object], error: type[Exception]
) -> None:
    server.on(ANY).reply(Cut(OK, len(OK) - 1), *answer)

    with pytest.raises(error):
        get(server, timeout=httpx.Timeout(5, read=patience(answer)))


@both
def test_a_black_hole(server: StreamTestServer, get: Get) -> None:
    with server.blackhole():
        with pytest.raises(httpx.ConnectTimeout):
            get(server, timeout=0.05)


def test_a_body_without_end_ends_where_the_client_has_enough(server: StreamTestServer) -> None:
    server.on(ANY).reply(b"HTTP/1.1 200 OK\r\n\r\n", Repeat(b"x", None))

    with httpx.stream("GET", server.url("http"), trust_env=False) as response:
        assert next(response.iter_raw(100_000)) == b"x" * 100_000

    (conn,) = server.connections
    conn.wait_closed()
    assert conn.closed_by == "client"


@both
def test_a_head_without_end(server: StreamTestServer, get: Get) -> None:
    server.on(ANY).reply(b"HTTP/1.1 200 OK\r\n", Repeat(b"X-Again: and again\r\n", None))

    with pytest.raises(httpx.RemoteProtocolError, match="^Receive buffer too long$"):
        get(server)


# Wrong


@both
@pytest.mark.parametrize("reply", [b"HTTP/1.1 OK\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"ICY 200 OK\r\n\r\n"])
def test_no_status_line(server: StreamTestServer, get: Get, reply: bytes) -> None:
    server.on(ANY).reply(reply)

    with pytest.raises(httpx.RemoteProtocolError, match="^illegal status line: "):
        get(server)


@both
@pytest.mark.parametrize("reply", [garbage(40), b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_what_has_no_empty_line_is_waited_for_until_the_timeout(
    server: StreamTestServer, get: Get, reply: bytes
) -> None:
    server.on(ANY).reply(reply, Stall())

    with pytest.raises(httpx.ReadTimeout):
        get(server, timeout=SHORT)


@both
def test_lines_without_their_carriage_return_are_lines(server: StreamTestServer, get: Get) -> None:
    server.on(ANY).reply(Replace(OK, b"\r\n", b"\n"))

    assert get(server) == [b"hello"]


@both
def test_chunks_without_their_carriage_return_are_waited_for_until_the_timeout(
    server: StreamTestServer, get: Get
) -> None:
    server.on(ANY).reply(Replace(CHUNKED, b"\r\n", b"\n"))

    with pytest.raises(httpx.ReadTimeout):
        get(server, timeout=SHORT)


@both
def test_a_length_below_zero(server: StreamTestServer, get: Get) -> None:
    server.on(ANY).reply(Replace(OK, b"5", b"-5"))

    with pytest.raises(httpx.RemoteProtocolError, match="^bad Content-Length$"):
        get(server)


@both
def test_a_length_that_is_too_small_cuts_the_body_unnoticed(server: StreamTestServer, get: Get) -> None:
    server.on(ANY).reply(Replace(OK, b"5", b"3"))

    assert get(server) == [b"hel"]


@both
def test_a_second_reply_to_one_request_is_taken_for_the_reply_to_the_next(server: StreamTestServer, get: Get) -> None:
    """Whoever can append to a reply answers somebody else's request: the kept connection is not looked at again."""
    server.on(ANY).reply(Append(OK, OK.replace(b"hello", b"wrong")), uses=1).then(OK)

    assert get(server, times=2) == [b"hello", b"wrong"]


# TLS


@both
@certificates()
def test_a_bad_certificate(sockserver: SockServer, get: Get, certificate: Certificate, reason: str) -> None:
    server = sockserver.tls(tls=certificate)

    with pytest.raises(httpx.ConnectError, match=f"certificate verify failed: {reason}"):
        get(server)

    assert server.requests == []


@both
@handshakes(httpx.ConnectError, silence=httpx.ConnectTimeout)
def test_a_handshake_that_fails(
    secure_server: StreamTestServer, get: Get, answer: list[object], error: type[Exception]
) -> None:
    secure_server.on(HANDSHAKE).reply(*answer)

    with pytest.raises(error):
        get(secure_server, timeout=patience(answer))


@both
@pytest.mark.parametrize("n", range(6))
def test_a_body_cut_without_close_notify_is_taken_for_a_whole_one(
    secure_server: StreamTestServer, get: Get, n: int
) -> None:
    """A truncation attack (RFC 8446 section 6.1) on a reply that has no length: Python's ssl hides it."""
    secure_server.on(ANY).reply(Cut(UNTIL_CLOSED, len(UNTIL_CLOSED) - 5 + n), Close(notify=False))

    assert get(secure_server) == [b"hello"[:n]]


def test_a_record_that_does_not_decrypt(secure_server: StreamTestServer) -> None:
    secure_server.on(ANY).reply(Cut(OK, len(OK) - 1), Raw.bad_record())

    with pytest.raises(httpx.ReadError, match="(?i)bad.record.mac"):
        get(secure_server)


def test_a_record_that_does_not_decrypt_is_no_error_of_httpx_in_the_asynchronous_client(
    secure_server: StreamTestServer,
) -> None:
    """It leaves the client as it is raised: who expects httpx.HTTPError meets ssl.SSLError."""
    secure_server.on(ANY).reply(Cut(OK, len(OK) - 1), Raw.bad_record())

    with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac"):
        get_async(secure_server)


@both
def test_a_record_that_breaks_off(secure_server: StreamTestServer, get: Get) -> None:
    secure_server.on(ANY).reply(Cut(OK, len(OK) - 1), Raw.cut_record(), Close(notify=False))

    with pytest.raises(httpx.RemoteProtocolError, match=r"\(received 4 bytes, expected 5\)$"):
        get(secure_server)
