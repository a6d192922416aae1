"""Inject faults into what a server says and hears, whatever answers."""

import socket

import pytest

from pytest_sockserver import DATA, Close, Cut, Delay, Drip, Reset, UnsupportedFault, lines
from pytest_sockserver.faults import Append, Repeat


@pytest.fixture
def counter(tcp_server):
    @tcp_server.handler
    def count(conn):
        for word in (b"one\n", b"two\n", b"three\n"):
            conn.send(word)

    return tcp_server


def read_all(server):
    with socket.create_connection(server.address, timeout=5) as sock, sock.makefile("rb") as file:
        return file.read()


def test_second_write_is_lost(counter):
    counter.inject(at=1)

    assert read_all(counter) == b"one\nthree\n"


def test_first_and_third_write_come_twice(counter):
    counter.inject(Repeat(DATA), at=[0, 2])

    assert read_all(counter) == b"one\none\ntwo\nthree\nthree\n"


def test_fault_that_may_hit_nothing(counter):
    counter.inject(Reset(), at=9, times=(0, 1))  # "one", "two", "three": there is no tenth write

    assert read_all(counter) == b"one\ntwo\nthree\n"


def test_writes_of_the_second_connection_are_late(counter):
    counter.inject(Delay(0.01), DATA, connections=1)

    assert read_all(counter) == read_all(counter) == b"one\ntwo\nthree\n"


def test_function_of_what_was_to_be_said(counter):
    counter.inject(lambda data: [data.upper(), Close()] if data == b"two\n" else data)

    assert read_all(counter) == b"one\nTWO\n"


def test_limit_of_bytes_over_all_writes(counter):
    left = 6

    def limited(data):
        nonlocal left
        said, left = data[:left], left - len(data)
        return said if left > 0 else [said, Close()]

    counter.inject(limited)

    assert read_all(counter) == b"one\ntw"


def test_latest_that_hits_counts(counter):
    counter.inject(Append(DATA, b"!"))
    counter.inject(Cut(DATA, 1), at=1)

    assert read_all(counter) == b"one\n!tthree\n!"


def test_until_the_block_ends(counter):
    with counter.inject(Cut(DATA, 1)) as cutting:
        assert read_all(counter) == b"ott"
    assert cutting.count == 3

    assert read_all(counter) == b"one\ntwo\nthree\n"


def count_to_nine(conn):
    for digit in range(10):
        conn.send(b"%d" % digit)


@pytest.mark.parametrize("run", [1, 2, 3])
def test_same_seed_draws_the_same(tcp_server, run):
    tcp_server.handler(count_to_nine)
    tcp_server.inject(probability=0.5, seed=3)

    assert read_all(tcp_server) == b"2459"


def test_script_that_was_cut_short_is_not_missed(tcp_server):
    tcp_server.script().expect(b"a\n").send(b"A\n").expect(b"b\n").send(b"B\n")
    tcp_server.inject(Reset(), at=0)

    with socket.create_connection(tcp_server.address) as sock:
        sock.sendall(b"a\n")
        with pytest.raises(ConnectionResetError):
            sock.recv(1024)


def test_question_arrives_byte_by_byte(tcp_server):
    tcp_server.framing = lines(b"\n")
    tcp_server.on(b"time\n").reply(b"12:00\n", Close())
    tcp_server.inject(Drip(DATA, 0.001), direction="received")

    with socket.create_connection(tcp_server.address) as sock:
        sock.sendall(b"time\n")
        assert sock.recv(1024) == b"12:00\n"


def test_upload_breaks_off(tcp_server):
    heard = []

    @tcp_server.handler
    def keep(conn):
        while data := conn.recv(1024):
            heard.append(data)

    tcp_server.inject(Cut(DATA, 5), Reset(), direction="received")
    with socket.create_connection(tcp_server.address) as sock:
        sock.sendall(b"0123456789")
        with pytest.raises(ConnectionResetError):
            sock.recv(1024)

    assert heard == [b"01234"]
    assert tcp_server.connections[0].received == b"0123456789"


def test_what_is_received_on_a_stream_comes_once(tcp_server):
    with pytest.raises(UnsupportedFault, match="DATA is all of it"):
        tcp_server.inject(Repeat(DATA), direction="received")
    with pytest.raises(TypeError, match="which has no units"):
        tcp_server.inject(at=0, direction="received")


def test_second_datagram_is_heard_twice(udp_server):
    udp_server.handler(lambda request: request)
    udp_server.inject(Repeat(DATA), direction="received", at=1)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(udp_server.address)
        sock.send(b"one")
        sock.send(b"two")
        assert [sock.recv(1024) for _ in range(3)] == [b"one", b"two", b"two"]

    assert udp_server.requests == [b"one", b"two"]
