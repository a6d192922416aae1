"""requests while the network fails: what it raises, and which broken replies it takes for whole ones."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from time import monotonic

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

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
from pytest_sockserver.faults import Append, Corrupt, Raw, Repeat, Replace, Split, garbage
from pytest_sockserver.sweeps import cuts, splits

from .faults import certificates, handshakes, patience

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"


@pytest.fixture
def server(tcp_server: StreamTestServer) -> StreamTestServer:
    tcp_server.framing = http1
    return tcp_server


@pytest.fixture
def secure_server(tls_server: StreamTestServer) -> StreamTestServer:
    tls_server.framing = http1
    return tls_server


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy between this test and its server
        yield session


def get(session: requests.Session, server: StreamTestServer, timeout: float | tuple[float, float] = 5) -> bytes:
    if server.transport == "tls":
        return session.get(server.url("https"), timeout=timeout, verify=str(server.ca_path)).content
    return session.get(server.url("http"), timeout=timeout).content


# Cut

STATUS = len(b"HTTP/1.1 200")
LENGTH = OK.index(b"5")


@pytest.mark.parametrize("cut", cuts(OK)[:STATUS])
def test_a_reply_cut_within_its_status(server: StreamTestServer, session: requests.Session, cut: Cut) -> None:
    server.on(ANY).reply(cut, Close())

    with pytest.raises(requests.ConnectionError, match="RemoteDisconnected|BadStatusLine"):
        get(session, server)


@pytest.mark.parametrize("cut", cuts(OK)[STATUS : LENGTH + 1])
def test_a_reply_cut_within_its_head_is_taken_for_an_empty_one(
    server: StreamTestServer, session: requests.Session, cut: Cut
) -> None:
    """Its status is known, its length is not: http.client takes the end of the stream for that of the head."""
    server.on(ANY).reply(cut, Close())

    assert get(session, server) == b""


@pytest.mark.parametrize("cut", cuts(OK)[LENGTH + 1 :])
def test_a_reply_cut_after_its_length(server: StreamTestServer, session: requests.Session, cut: Cut) -> None:
    server.on(ANY).reply(cut, Close())

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match=r"IncompleteRead\(\d bytes read, \d more"):
        get(session, server)


@pytest.mark.parametrize("cut", cuts(CHUNKED)[CHUNKED.index(b"2\r\nhe") : CHUNKED.index(b"0\r\n") + 1])
def test_a_reply_cut_within_its_chunks(server: StreamTestServer, session: requests.Session, cut: Cut) -> None:
    server.on(ANY).reply(cut, Close())

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead|Response ended prematurely"):
        get(session, server)


@pytest.mark.parametrize("cut", cuts(CHUNKED)[CHUNKED.index(b"0\r\n") + 1 :])
def test_a_reply_cut_within_its_last_chunk_is_taken_for_a_whole_one(
    server: StreamTestServer, session: requests.Session, cut: Cut
) -> None:
    server.on(ANY).reply(cut, Close())

    assert get(session, server) == b"hello"


@pytest.mark.parametrize("cut", cuts(UNTIL_CLOSED)[-5:])
def test_a_reply_without_a_length_is_whole_wherever_it_is_cut(
    server: StreamTestServer, session: requests.Session, cut: Cut
) -> None:
    server.on(ANY).reply(cut, Close())

    assert get(session, server) == b"hello"[: cut.n - len(UNTIL_CLOSED) + 5]


def test_a_cut_of_what_is_compressed_is_not_noticed(server: StreamTestServer, session: requests.Session) -> None:
    """The sum and the length at the end of gzip are missing, and nobody asks for them (RFC 1952 section 2.3.1)."""
    cut = gzip.compress(b"hello")[:14]
    server.on(ANY).reply(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", cut, Close())

    assert get(session, server) == zlib.decompressobj(wbits=31).decompress(cut) != b"hello"


@pytest.mark.parametrize("split", splits(OK))
def test_a_reply_parted_at_every_byte(server: StreamTestServer, session: requests.Session, split: Split) -> None:
    server.on(ANY).reply(split)

    assert get(session, server) == b"hello"


# Reset


@pytest.mark.parametrize("n", [0, 7, len(OK) - 5, len(OK) - 1])
def test_a_reply_that_is_reset(server: StreamTestServer, session: requests.Session, n: int) -> None:
    server.on(ANY).reply(Cut(OK, n), Reset())

    with pytest.raises(requests.RequestException, match="Connection reset by peer"):
        get(session, server)


def test_a_kept_connection_that_is_reset_by_the_next_request(
    server: StreamTestServer, session: requests.Session
) -> None:
    server.on(ANY).reply(OK, uses=1).then(Reset())

    assert get(session, server) == b"hello"
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        get(session, server)

    assert len(server.connections) == 1


def test_a_kept_connection_that_is_reset_costs_a_retry(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(OK, uses=1).then(Reset(), uses=1).then(OK)
    session.mount("http://", HTTPAdapter(max_retries=Retry(total=1, backoff_factor=0)))

    assert [get(session, server), get(session, server)] == [b"hello", b"hello"]

    assert [len(conn.requests) for conn in server.connections] == [2, 1]


# Late


def test_a_drop_within_the_timeout_is_enough(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(Drip(OK, pause=0.03, size=4))

    began = monotonic()
    assert get(session, server, timeout=(5, 0.25)) == b"hello"

    assert monotonic() - began > 0.25


def test_a_body_that_stalls_is_no_timeout_but_a_connection_error(
    server: StreamTestServer, session: requests.Session
) -> None:
    server.on(ANY).reply(Cut(OK, len(OK) - 1), Stall())

    with pytest.raises(requests.ConnectionError, match="Read timed out") as caught:
        get(session, server, timeout=(5, 0.05))

    assert not isinstance(caught.value, requests.Timeout)


def test_a_black_hole(server: StreamTestServer, session: requests.Session) -> None:
    with server.blackhole():
        with pytest.raises(requests.ConnectTimeout):
            get(session, server, timeout=0.05)


def test_a_body_without_end_ends_where_the_client_has_enough(
    server: StreamTestServer, session: requests.Session
) -> None:
    server.on(ANY).reply(b"HTTP/1.1 200 OK\r\n\r\n", Repeat(b"x", None))

    with session.get(server.url("http"), timeout=5, stream=True) as response:
        assert response.raw.read(100_000) == b"x" * 100_000

    (conn,) = server.connections
    conn.wait_closed()
    assert conn.closed_by == "client"


def test_a_head_without_end(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(b"HTTP/1.1 200 OK\r\n", Repeat(b"X-Again: and again\r\n", None))

    with pytest.raises(requests.ConnectionError, match="got more than 100 headers"):
        get(session, server)


# Wrong


@pytest.mark.parametrize("reply", [garbage(40), b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 OK\r\n\r\n", b"\r\n" + OK])
def test_no_status_line(server: StreamTestServer, session: requests.Session, reply: bytes) -> None:
    server.on(ANY).reply(reply, Close())

    with pytest.raises(requests.ConnectionError, match="BadStatusLine"):
        get(session, server)


def test_lines_without_their_carriage_return_are_lines(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(Replace(OK, b"\r\n", b"\n"))

    assert get(session, server) == b"hello"


def test_chunks_without_their_carriage_return(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(Replace(CHUNKED, b"\r\n", b"\n"))

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="InvalidChunkLength"):
        get(session, server)


def test_a_length_below_zero_is_none(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(Replace(OK, b"5", b"-5"), Close())

    assert get(session, server) == b"hello"


def test_a_length_that_is_too_small_cuts_the_body_unnoticed(
    server: StreamTestServer, session: requests.Session
) -> None:
    server.on(ANY).reply(Replace(OK, b"5", b"3"))

    assert get(session, server) == b"hel"


def test_two_lengths(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(Replace(OK, b"5\r\n", b"5\r\nContent-Length: 3\r\n"))

    with pytest.raises(requests.exceptions.InvalidHeader, match=r"multiple unmatching values \(5, 3\)"):
        get(session, server)


def test_a_byte_flipped_in_what_is_compressed(server: StreamTestServer, session: requests.Session) -> None:
    body = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    server.on(ANY).reply(head, Corrupt(body, 14))

    with pytest.raises(requests.exceptions.ContentDecodingError):
        get(session, server)


def test_a_second_reply_to_one_request_is_dropped(server: StreamTestServer, session: requests.Session) -> None:
    server.on(ANY).reply(Append(OK, OK.replace(b"hello", b"wrong")), uses=1).then(OK)

    assert [get(session, server), get(session, server)] == [b"hello", b"hello"]

    assert b"wrong" in server.connections[0].sent


# TLS


@certificates()
def test_a_bad_certificate(
    sockserver: SockServer, session: requests.Session, certificate: Certificate, reason: str
) -> None:
    server = sockserver.tls(tls=certificate)

    with pytest.raises(requests.exceptions.SSLError, match=f"certificate verify failed: {reason}"):
        get(session, server)

    assert server.requests == []


@handshakes(
    (requests.exceptions.SSLError, "(?i)alert.handshake.failure"),
    plain_text=(requests.exceptions.SSLError, "(?i)wrong.version.number"),
    an_end=(requests.exceptions.SSLError, "EOF occurred in violation of protocol"),
    a_reset=(requests.ConnectionError, "Connection reset by peer"),
    silence=(requests.ReadTimeout, "Read timed out"),
)
def test_a_handshake_that_fails(
    secure_server: StreamTestServer,
    session: requests.Session,
    answer: list[object],
    error: tuple[type[Exception], str],
) -> None:
    secure_server.on(HANDSHAKE).reply(*answer)

    with pytest.raises(error[0], match=error[1]):
        get(session, secure_server, timeout=patience(answer))


@pytest.mark.parametrize("n", range(6))
def test_a_body_cut_without_close_notify_is_taken_for_a_whole_one(
    secure_server: StreamTestServer, session: requests.Session, n: int
) -> None:
    """A truncation attack (RFC 8446 section 6.1) on a reply that has no length: Python's ssl hides it."""
    secure_server.on(ANY).reply(Cut(UNTIL_CLOSED, len(UNTIL_CLOSED) - 5 + n), Close(notify=False))

    assert get(session, secure_server) == b"hello"[:n]


def test_a_body_of_known_length_cut_without_close_notify(
    secure_server: StreamTestServer, session: requests.Session
) -> None:
    secure_server.on(ANY).reply(Cut(OK, len(OK) - 1), Close(notify=False))

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="4 bytes read, 1 more expected"):
        get(session, secure_server)


def test_a_record_that_does_not_decrypt(secure_server: StreamTestServer, session: requests.Session) -> None:
    secure_server.on(ANY).reply(Cut(OK, len(OK) - 1), Raw.bad_record())

    with pytest.raises(requests.exceptions.SSLError, match="(?i)bad.record.mac"):
        get(session, secure_server)


def test_a_record_that_breaks_off(secure_server: StreamTestServer, session: requests.Session) -> None:
    secure_server.on(ANY).reply(Cut(OK, len(OK) - 1), Raw.cut_record(), Close(notify=False))

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="4 bytes read, 1 more expected"):
        get(session, secure_server)
