"""The fault matrix: a client under every fault, and the table of what it made of each."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pytest_sockserver import TLS, Certificate, SockServer, fault_matrix
from pytest_sockserver.faults import FaultMatrix, FaultResult
from pytest_sockserver.faults.catalogue import ANYTHING, ERROR, SAME, SAME_OR_ERROR, faults_for
from pytest_sockserver.scripting.parts import EVERYWHERE

from .peers import connect, datagram_client, read_to_end

QUICK = 0.4  # seconds: the client's own time-out, below the fault matrix's patience


def greet(server: Any) -> None:
    server.on(b"hello\r\n").reply(b"hello yourself\r\n")


def reach(server: Any) -> socket.socket:
    """Connect, with a time-out for that as well."""
    family = socket.AF_UNIX if isinstance(server.address, str) else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(QUICK)
    try:
        client.connect(server.address)
    except BaseException:
        client.close()
        raise
    return client


def greeted(client: socket.socket) -> bytes:
    """Ask, and accept nothing but one whole line."""
    client.sendall(b"hello\r\n")
    answer = b""
    while not answer.endswith(b"\n"):
        more = client.recv(100)
        if not more:
            raise ConnectionError(f"the server ended the stream after {answer!r}")
        answer += more
    if answer != b"hello yourself\r\n":
        raise ValueError(f"no greeting: {answer!r}")
    return answer


def sound(server: Any) -> bytes:
    with reach(server) as client:
        return greeted(client)


def credulous(server: Any) -> bytes:
    """Take whatever a single recv brings."""
    with reach(server) as client:
        client.sendall(b"hello\r\n")
        return client.recv(100)


def patient(server: Any) -> bytes:
    """Wait for ever."""
    with connect(server) as client:
        client.settimeout(None)
        client.sendall(b"hello\r\n")
        answer = b""
        while not answer.endswith(b"\n") and (more := client.recv(100)):
            answer += more
        return answer


def ask_by_datagram(server: Any) -> bytes:
    with datagram_client(server) as client:
        client.settimeout(QUICK)
        client.send(b"hello\r\n")
        return client.recv(100)


def ask_by_tls(server: Any) -> bytes:
    # Wrapped before it is connected: of a connection that was reset at once wrap_socket() leaves an open socket behind.
    with server.client_context().wrap_socket(socket.socket(), server_hostname="localhost") as client:
        client.settimeout(QUICK)
        client.connect(server.address)
        return greeted(client)


def test_a_sound_client_is_no_surprise(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(sound, greet)

    assert not matrix.surprises, matrix
    assert matrix.result == b"hello yourself\r\n"
    assert matrix["reply in two halves"].is_same
    assert matrix["connection refused"].outcome == "raised"
    assert isinstance(matrix["connection refused"].value, ConnectionRefusedError)
    assert isinstance(matrix["connection never made"].value, TimeoutError)
    assert matrix["connection refused"].value.__traceback__ is None
    assert "in reach\n    client.connect(server.address)\n" in matrix["connection refused"].traceback
    assert matrix["reply late"].seconds >= 0.2
    assert str(matrix["reply half said, closed"].value) == "the server ended the stream after b'hello yo'"


def test_a_sound_client_is_no_surprise_on_a_unix_socket(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(sound, greet, transport="unix")

    assert not matrix.surprises, matrix
    assert isinstance(matrix["the queue of connections full"].value, BlockingIOError)
    assert isinstance(matrix["no such path"].value, FileNotFoundError)
    assert not [each.fault for each in matrix if "reset" in each.fault]


def test_a_sound_client_is_no_surprise_over_tls(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(ask_by_tls, greet, transport="tls")

    assert not matrix.surprises, matrix
    assert "certificate has expired" in str(matrix["certificate expired"].value)
    assert "WRONG_VERSION_NUMBER" in str(matrix["handshake answered in plain text"].value)
    assert "HANDSHAKE_FAILURE" in str(matrix["handshake refused: handshake_failure"].value)


def test_a_client_that_checks_no_certificate_is_a_surprise(sockserver: SockServer) -> None:
    def trusting(server: Any) -> bytes:
        context = server.client_context()
        context.check_hostname = False
        context.verify_mode = 0
        with reach(server) as plain, context.wrap_socket(plain) as client:
            client.sendall(b"hello\r\n")
            return client.recv(100)

    matrix = sockserver.fault_matrix(trusting, greet, transport="tls", only="certificate")

    # A weak key is refused by OpenSSL itself, whatever is verified... or not: it is a matter of its security level.
    assert {"certificate expired", "certificate self-signed", "certificate for another host"} <= {
        each.fault for each in matrix.surprises
    }
    assert all(each.is_same for each in matrix.surprises)


def test_a_client_that_takes_the_first_piece_for_all_returns_something_else(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(credulous, greet)

    changed = {each.fault: each.value for each in matrix.changed}
    assert changed["reply half said, closed"] == b"hello yo"
    assert changed["reply not said, closed"] == b""
    assert changed["reply with LF for CRLF"] == b"hello yourself\n"
    assert matrix["reply half said, closed"] in matrix.surprises
    assert not matrix.hung


def test_a_client_without_a_timeout_hangs_and_does_not_outlive_its_server(sockserver: SockServer) -> None:
    before = threading.active_count()

    matrix = sockserver.fault_matrix(patient, greet, only="silence", patience=0.2)

    assert {each.fault for each in matrix.hung} == {each.fault for each in matrix}
    assert all(each.ended and each.is_surprise for each in matrix)
    assert threading.active_count() == before


@pytest.mark.parametrize("transport", ["udp", "unix_datagram"])
def test_a_credulous_client_of_datagrams(sockserver: SockServer, transport: str) -> None:
    matrix = sockserver.fault_matrix(ask_by_datagram, greet, transport=transport)

    assert matrix["reply empty"].value == b""
    assert matrix["reply cut in half"].value == b"hello yo"
    assert matrix["reply said twice"].is_same
    assert matrix["every datagram lost"].outcome == "raised"
    assert isinstance(matrix["nobody there"].value, ConnectionRefusedError)
    if transport == "udp":
        assert matrix["reply after a forged one from another port"].is_same  # its socket is connected


def test_a_client_that_takes_datagrams_from_anybody_is_a_surprise(sockserver: SockServer) -> None:
    def anybody(server: Any) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(QUICK)
            client.sendto(b"hello\r\n", server.address)
            return client.recv(100)

    matrix = sockserver.fault_matrix(anybody, greet, transport="udp", only="forged")

    assert [each.fault for each in matrix.surprises] == [
        "reply after a forged one from another port",
        "reply after a forged one from another address",
    ]


def test_an_async_client_is_run_by_asyncio(sockserver: SockServer) -> None:
    async def ask(server: Any) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        try:
            writer.write(b"hello\r\n")
            return await asyncio.wait_for(reader.readuntil(b"\r\n"), QUICK)
        finally:
            writer.transport.abort()

    matrix = sockserver.fault_matrix(ask, greet, only=" hal")

    assert not matrix.hung, matrix
    assert matrix["reply in two halves"].is_same
    assert isinstance(matrix["reply half said, closed"].value, asyncio.IncompleteReadError)


def test_faults_are_injected_into_each_reply_by_itself_and_of_many_into_the_first_ones_and_the_last(
    sockserver: SockServer,
) -> None:
    def chat(server: Any) -> list[bytes]:
        with reach(server) as client:
            said = []
            for number in range(5):
                client.sendall(b"%d\n" % number)
                said.append(client.recv(100))
            return said

    def echo(server: Any) -> None:
        @server.handler
        def say_it_again(conn: Any) -> None:
            while True:
                conn.send(conn.recv_line())

    matrix = sockserver.fault_matrix(chat, echo, only="last byte corrupt", replies=3)

    assert [each.fault for each in matrix] == [f"reply {n} with its last byte corrupt" for n in (1, 2, 5)]
    assert [each.value.index(b"%d\xf5" % at) for each, at in zip(matrix, (0, 1, 4), strict=True)] == [0, 1, 4]


def test_the_table_says_what_a_reader_wants_to_know() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    fault_results = [
        FaultResult("reply late", SAME, "returned", b"x", 0.2, True, True, 1),
        FaultResult("connection refused", ERROR, "raised", refused, 0.001, False, True, 0),
        FaultResult("reply empty", SAME_OR_ERROR, "returned", b"", 0.002, False, True, 1),
        FaultResult("connected, then silence", ERROR, "hung", None, 2.0, False, True, 1),
        FaultResult("reply lost", SAME_OR_ERROR, "hung", None, 2.0, False, False, 1),
        FaultResult("reply long", ANYTHING, "returned", b"y" * 200, 0.1, False, True, 1),
    ]

    assert str(FaultMatrix("ask over tcp", b"x", fault_results)).splitlines() == [
        "ask over tcp: 6 faults, 3 surprises (!)",
        "without a fault it returned b'x'",
        "  reply late                0.200 s  returned the same",
        "  connection refused        0.001 s  ConnectionRefusedError: [Errno 111] Connection refused",
        "! reply empty               0.002 s  returned b''",
        "! connected, then silence   2.000 s  hung",
        "! reply lost                2.000 s  hung, even when its server was gone",
        "  reply long                0.100 s  returned b'" + "y" * 56 + "...",
    ]


@pytest.mark.parametrize(
    ("sound_of_it", "outcome", "is_same", "surprises"),
    [
        (SAME, "returned", True, False),
        (SAME, "returned", False, True),
        (SAME, "raised", False, True),
        (SAME_OR_ERROR, "returned", True, False),
        (SAME_OR_ERROR, "returned", False, True),
        (SAME_OR_ERROR, "raised", False, False),
        (ERROR, "returned", True, True),
        (ERROR, "raised", False, False),
        (ANYTHING, "returned", False, False),
        (ANYTHING, "raised", False, False),
        (ANYTHING, "hung", False, True),
    ],
)
def test_what_a_sound_client_would_have_made_of_it(
    sound_of_it: str, outcome: str, is_same: bool, surprises: bool
) -> None:
    fault_result = FaultResult("x", sound_of_it, outcome, None, 0.0, is_same, True, 1)

    assert fault_result.is_surprise is surprises


@pytest.mark.parametrize("transport", sorted(EVERYWHERE))
@pytest.mark.parametrize("reply", [b"a", b"ab\r\n", b"x" * 1000])
def test_each_fault_has_a_name_of_its_own(transport: str, reply: bytes) -> None:
    names = [each.name for each in faults_for(transport, [reply, reply], most=3, seed=0)]

    assert len(names) == len(set(names)) > 10


def test_the_options_are_those_of_the_servers() -> None:
    seen = []

    def look(server: Any) -> int:
        seen.append(server.options.tls)
        reach(server).close()
        return 1

    matrix = fault_matrix(
        look, lambda server: None, transport="tls", only="refused", tls=TLS(Certificate("other.test")), patience=1.0
    )

    assert len(matrix) == 3
    assert seen == [TLS(Certificate("other.test"))] * 4


def test_a_factorys_options_are_options_of_its_fault_matrices() -> None:
    seen = []

    def look(server: Any) -> None:
        seen.append(server.options.max_frame)
        reach(server).close()

    with SockServer(timeout=3, max_frame=77) as factory:
        factory.fault_matrix(look, greet, only="refused")

    assert seen == [77, 77]


def test_a_fault_that_was_not_tried_is_named(sockserver: SockServer) -> None:
    matrix = sockserver.fault_matrix(sound, greet, only="halves")

    with pytest.raises(KeyError) as raised:
        matrix["reply in three thirds"]

    assert raised.value.args == ("no fault 'reply in three thirds' was tried; those that were: reply in two halves",)


def test_a_client_that_fails_without_a_fault_is_told_with_its_own_error(sockserver: SockServer) -> None:
    def broken(server: Any) -> None:
        raise LookupError("nothing here")

    with pytest.raises(RuntimeError) as raised:
        sockserver.fault_matrix(broken, greet)

    assert str(raised.value) == "the client has to work when nothing is wrong, and LookupError: nothing here"
    assert isinstance(raised.value.__cause__, LookupError)


def test_a_server_that_fails_without_a_fault_is_told_with_its_own_error(sockserver: SockServer) -> None:
    def serve(server: Any) -> None:
        server.on(b"something else").reply(b"x")

    with pytest.raises(RuntimeError, match=r"^the server fails when nothing is wrong$") as raised:
        sockserver.fault_matrix(lambda server: read_a_reset(server), serve)

    assert "no rule matches b'hello" in str(raised.value.__cause__)


def test_a_client_that_never_connects_is_an_error(sockserver: SockServer) -> None:
    with pytest.raises(RuntimeError) as raised:
        sockserver.fault_matrix(lambda server: 1, greet)

    text = "the client has to connect when nothing is wrong, and it did not: see server.address"
    assert str(raised.value) == text


def read_a_reset(server: Any) -> str:
    with connect(server) as client:
        client.sendall(b"hello\r\n")
        try:
            return read_to_end(client).decode()
        except ConnectionError:
            return "reset"


WRONG: list[tuple[Callable[[SockServer], object], type[Exception], str]] = [
    (
        lambda its: its.fault_matrix(sound, greet, transport="quic"),
        ValueError,
        "fault_matrix() expected a transport, one of tcp, tls, unix, udp, unix_datagram, not 'quic'",
    ),
    (
        lambda its: its.fault_matrix(b"x", greet),  # type: ignore[arg-type]
        TypeError,
        "fault_matrix() expected client to be a function of a server, not b'x'",
    ),
    (
        lambda its: its.fault_matrix(sound, None),  # type: ignore[arg-type]
        TypeError,
        "fault_matrix() expected serve to be a function of a server, not None",
    ),
    (
        lambda its: its.fault_matrix(sound, greet, patience=0),
        ValueError,
        "fault_matrix() expected patience above 0 seconds, not 0",
    ),
    (
        lambda its: its.fault_matrix(sound, greet, workers=0),
        ValueError,
        "fault_matrix() expected workers to be 1 or more, not 0",
    ),
    (
        lambda its: its.fault_matrix(sound, greet, replies=0),
        ValueError,
        "fault_matrix() expected replies to be 1 or more, not 0",
    ),
    (
        lambda its: its.fault_matrix(sound, greet, only="wibble"),
        ValueError,
        "fault_matrix() expected only= to be part of a fault's name, not 'wibble': connection refused, connection "
        "never",
    ),
    (
        lambda its: its.fault_matrix(sound, greet, path="/tmp/x"),
        TypeError,
        "fault_matrix() has no option 'path': expected one of allow_remote, backlog, framing, host, ignore_probes, "
        "max_frame, mss, name, port, rcvbuf, record_limit, stop_timeout, timeout, tls",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), WRONG, ids=[text[:40] for _, _, text in WRONG])
def test_what_is_wrong_is_said_at_once(
    sockserver: SockServer, call: Callable[[SockServer], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as raised:
        call(sockserver)

    assert str(raised.value)[: len(text)] == text
