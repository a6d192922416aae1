"""pg8000, which asks for TLS in the midst of the stream: eight bytes, one byte of an answer, then a handshake."""

from __future__ import annotations

import gc
import ssl
import struct
from collections.abc import Generator
from contextlib import closing

import pg8000.exceptions
import pg8000.native
import pytest

from pytest_sockserver import (
    Certificate,
    Close,
    Cut,
    Hex,
    Reset,
    SockServer,
    Stall,
    StartTLS,
    StreamTestServer,
)
from pytest_sockserver.faults import Append, Overwrite, Raw, Split
from pytest_sockserver.sweeps import cuts, splits

from .faults import certificates, ends, handshakes, hello, patience


def postgres() -> Generator[int, bytes, None]:
    """Take a message: a letter, which the first messages have not, and a length that counts itself."""
    letter = yield 1
    head = letter + (yield 3) if letter == b"\0" else (yield 4)
    yield int.from_bytes(head, "big") - 4


def message(letter: bytes, data: bytes = b"") -> bytes:
    return letter + struct.pack(">I", len(data) + 4) + data


SSL_REQUEST = Hex("00 00 00 08 04 d2 16 2f")
STARTUP = Hex("00 00 00 10 00 03 00 00 75 73 65 72 00 75 00 00")  # the user u
READY = message(b"Z", b"I")
WELCOME = message(b"R", struct.pack(">I", 0)) + READY
QUERY = message(b"Q", b"select 42\0")
ROWS = (
    message(b"T", b"\0\x01n\0" + struct.pack(">IHIHIH", 0, 0, 23, 4, 0xFFFFFFFF, 0))
    + message(b"D", b"\0\x01" + struct.pack(">I", 2) + b"42")
    + message(b"C", b"SELECT 1\0")
    + READY
)


@pytest.fixture
def server(sockserver: SockServer) -> StreamTestServer:
    server = sockserver.tcp(tls=True, framing=postgres)
    server.on(SSL_REQUEST).reply(b"S", StartTLS())
    server.on(STARTUP).reply(WELCOME)
    server.on(QUERY).reply(ROWS)
    server.on(message(b"X")).reply(Close())
    return server


def select(server: StreamTestServer, **options: object) -> list[list[int]]:
    options = {"ssl_context": server.client_context(), "timeout": 5, **options}
    host, port = server.address
    with closing(pg8000.native.Connection("u", host=host, port=port, **options)) as client:
        return client.run("select 42")


def test_a_query_over_tls(server: StreamTestServer) -> None:
    assert select(server) == [[42]]

    (conn,) = server.connections
    assert conn.tls.version == "TLSv1.3"
    assert conn.requests[0] == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
    assert conn.requests[2] == QUERY


# The answer of one byte


@pytest.mark.parametrize("answer", [b"N", b"G", message(b"E", b"SFATAL\0C0A000\0Mno TLS\0\0")])
def test_tls_is_refused(server: StreamTestServer, answer: bytes) -> None:
    server.on(SSL_REQUEST).reply(answer, Close())

    with pytest.raises(pg8000.exceptions.InterfaceError, match="^Server refuses SSL$"):
        select(server)


def test_an_end_of_stream_instead_of_an_answer_is_told_as_a_refusal(server: StreamTestServer) -> None:
    server.on(SSL_REQUEST).reply(Close())

    with pytest.raises(pg8000.exceptions.InterfaceError, match="^Server refuses SSL$"):
        select(server)


def test_a_refusal_is_taken_without_a_context_and_the_query_goes_out_in_plain_text(server: StreamTestServer) -> None:
    server.on(SSL_REQUEST).reply(b"N")

    assert select(server, ssl_context=None) == [[42]]

    assert server.connections[0].tls is None


@pytest.mark.parametrize("end", [Reset(), Stall()], ids=repr)
def test_an_answer_that_does_not_come_leaves_the_socket_to_the_garbage_collector(
    server: StreamTestServer, end: Reset | Stall
) -> None:
    server.on(SSL_REQUEST).reply(end)

    with pytest.warns(ResourceWarning, match="^unclosed <socket.socket "):
        with pytest.raises((ConnectionResetError, TimeoutError)):
            select(server, timeout=0.05)
        gc.collect()


# Injection


@pytest.mark.parametrize("injected", [b"X", WELCOME, message(b"E", b"SFATAL\0C28000\0Mgo away\0\0")])
def test_what_comes_with_the_answer_is_not_buffered_and_meets_the_handshake(
    server: StreamTestServer, injected: bytes
) -> None:
    """CVE-2021-23222 is of clients that read on, and take it for protected; one byte is read here, and no more."""
    server.on(SSL_REQUEST).reply(Append(b"S", injected), StartTLS())

    with pytest.raises(ssl.SSLError, match="(?i)wrong.version.number"):
        select(server)


# The handshake


@certificates()
def test_a_bad_certificate(server: StreamTestServer, certificate: Certificate, reason: str) -> None:
    server.on(SSL_REQUEST).reply(b"S", StartTLS(certificate))

    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        select(server)


@pytest.mark.parametrize("context", [None, True])
def test_a_bad_certificate_is_taken_without_a_context(server: StreamTestServer, context: bool | None) -> None:
    server.on(SSL_REQUEST).reply(b"S", StartTLS(Certificate.expired()))

    assert select(server, ssl_context=context) == [[42]]


@handshakes(ssl.SSLError, an_end=ssl.SSLEOFError, a_reset=ConnectionResetError, silence=TimeoutError)
def test_a_handshake_that_fails_is_no_error_of_pg8000(
    server: StreamTestServer, answer: list[object], error: type[Exception]
) -> None:
    server.on(SSL_REQUEST).reply(b"S", hello, *answer)

    with pytest.raises(error) as caught:
        select(server, timeout=patience(answer))

    assert not isinstance(caught.value, pg8000.exceptions.Error)


# Rows over TLS


@pytest.mark.parametrize("cut", cuts(ROWS))
def test_rows_cut_at_every_byte(server: StreamTestServer, cut: Cut) -> None:
    server.on(QUERY).reply(cut, Close())

    with pytest.raises(pg8000.exceptions.InterfaceError, match="^network error$"):
        select(server)


@pytest.mark.parametrize("split", splits(ROWS))
def test_rows_parted_at_every_byte(server: StreamTestServer, split: Split) -> None:
    server.on(QUERY).reply(split)

    assert select(server) == [[42]]


@ends(pg8000.exceptions.InterfaceError, silence=TimeoutError)
def test_rows_that_break_off(server: StreamTestServer, answer: list[object], error: type[Exception]) -> None:
    server.on(QUERY).reply(Cut(ROWS, 20), *answer)

    with pytest.raises(error):
        select(server, timeout=patience(answer))


@pytest.mark.parametrize("end", [Reset(), Raw.bad_record(), Close(notify=False)], ids=repr)
def test_rows_whose_tls_breaks_off(server: StreamTestServer, end: Reset | Raw | Close) -> None:
    server.on(QUERY).reply(Cut(ROWS, 20), end)

    with pytest.raises(pg8000.exceptions.InterfaceError, match="^network error$"):
        select(server)


def test_a_length_that_is_too_small_is_an_error_of_struct(server: StreamTestServer) -> None:
    server.on(QUERY).reply(Overwrite(ROWS, 1, b"\0\0\0\x10"))

    with pytest.raises(struct.error):
        select(server)


def test_an_unknown_message_is_a_key_error(server: StreamTestServer) -> None:
    server.on(QUERY).reply(Overwrite(ROWS, 0, b"?"))

    with pytest.raises(KeyError):
        select(server)
