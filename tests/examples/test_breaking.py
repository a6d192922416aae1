"""Break the network on purpose: by part, by connection, by request, from outside, at the listener."""

import http.client
import os
import socket
from http.server import BaseHTTPRequestHandler

import pytest

from pytest_sockserver import CONNECT, DATA, Close, Cut, Delay, Drip, Gate, Reset, SendEof, Stall
from pytest_sockserver.faults import (
    Corrupt,
    Descriptors,
    EndAfter,
    Hold,
    Prepend,
    ReadSlowly,
    Repeat,
    Replace,
    Split,
    Spoof,
    garbage,
)


def ask(server, tries=1, timeout=5.0):
    """Ask for the time; when the connection fails, connect and ask again."""
    for left in reversed(range(tries)):
        try:
            with socket.create_connection(server.address, timeout=timeout) as sock:
                sock.sendall(b"time\n")
                return read_line(sock)
        except ConnectionError:
            if not left:
                raise


def read_line(sock):
    line = b""
    while not line.endswith(b"\n"):
        data = sock.recv(1024)
        if not data:
            raise ConnectionError(f"the server hung up after {line!r}")
        line += data
    return line


# By part


def test_half_a_reply_and_a_reset(tcp_server):
    tcp_server.on(b"time\n").reply(Cut(b"12:00\n", 3), Reset())

    with pytest.raises(ConnectionResetError):
        ask(tcp_server)


@pytest.mark.parametrize(
    "parts",
    [
        (Close(),),
        (Reset(),),
        (Cut(b"12:00\n", 5), Close()),
        (Cut(b"12:00\n", 5), SendEof()),
        (Replace(b"12:00\n", b"\n", b"\r"), Close()),
        (EndAfter(0.05),),
    ],
)
def test_no_whole_line_is_an_error(tcp_server, parts):
    tcp_server.on(b"time\n").reply(*parts)

    with pytest.raises(ConnectionError):
        ask(tcp_server)


@pytest.mark.parametrize("parts", [(Stall(),), (Cut(b"12:00\n", 5), Stall())])
def test_client_does_not_wait_for_ever(tcp_server, parts):
    tcp_server.on(b"time\n").reply(*parts)

    with pytest.raises(TimeoutError):
        ask(tcp_server, timeout=0.1)


@pytest.mark.parametrize(
    "reply",
    [
        Drip(b"12:00\n", 0.002),
        Split(b"12:00\n", 3, pause=0.01),
        Drip(Prepend(b":00\n", b"12"), 0.002, size=4),
    ],
)
def test_how_a_line_arrives_does_not_matter(tcp_server, reply):
    tcp_server.on(b"time\n").reply(reply)

    assert ask(tcp_server) == b"12:00\n"


def test_script_breaks_off_after_the_second_reply(tcp_server):
    (
        tcp_server.script()
        .expect(b"time\n").send(Drip(b"12:00\n", 0.001))
        .expect(b"time\n").send(Cut(b"12:01\n", 1), Reset())
    )  # fmt: skip

    with socket.create_connection(tcp_server.address) as sock:
        sock.sendall(b"time\n")
        assert read_line(sock) == b"12:00\n"
        sock.sendall(b"time\n")
        with pytest.raises(ConnectionResetError):
            read_line(sock)


def test_handler_says_garbage(tcp_server):
    @tcp_server.handler
    def clock(conn):
        conn.expect_line(b"time")
        conn.send(garbage(20, seed=1), Close())

    with pytest.raises(ConnectionError):
        ask(tcp_server)


def test_pieces_at_the_tests_own_pace(tcp_server):
    tcp_server.on(b"time\n").reply(Split(b"12:00\n", 3, gate="rest"))

    with socket.create_connection(tcp_server.address) as sock:
        sock.sendall(b"time\n")
        assert sock.recv(1024) == b"12:"
        tcp_server.open_gate("rest")
        assert sock.recv(1024) == b"00\n"


def test_upload_is_held_up_by_a_slow_reader(sockserver):
    server = sockserver.tcp(rcvbuf=4096)

    @server.handler
    def slow(conn):
        conn.send(ReadSlowly(1024, 0.01))
        conn.recv_all()

    with socket.create_connection(server.address, timeout=0.1) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with pytest.raises(TimeoutError):
            sock.sendall(b"x" * 1_000_000)


# By connection, by request


def test_first_two_connections_are_reset(tcp_server):
    tcp_server.on(CONNECT).reply(Reset(), uses=2).then()
    tcp_server.on(b"time\n").reply(b"12:00\n")

    assert ask(tcp_server, tries=3) == b"12:00\n"
    assert len(tcp_server.connections) == 3


def test_first_two_requests_fail(tcp_server):
    tcp_server.on(b"time\n").reply(Cut(b"12:00\n", 2), Close(), uses=2).then(b"12:00\n")

    assert ask(tcp_server, tries=3) == b"12:00\n"
    assert tcp_server.requests == [b"time\n"] * 3


def test_each_request_fails_in_its_own_way(tcp_server):
    tcp_server.on(b"time\n").reply(Reset()).then(Close()).then(b"12:00\n")

    assert ask(tcp_server, tries=3) == b"12:00\n"


def test_server_is_down_every_second_time(tcp_server):
    tcp_server.on(CONNECT).reply().then(Reset()).cycle()
    tcp_server.on(b"time\n").reply(b"12:00\n")

    assert ask(tcp_server) == b"12:00\n"
    assert ask(tcp_server, tries=2) == b"12:00\n"
    assert len(tcp_server.connections) == 3


# From outside


class Page(BaseHTTPRequestHandler):
    """A server that a test cannot change: it says its head in one write, and its body in another."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args):
        pass


@pytest.fixture
def web_server(tcp_server):
    tcp_server.handler(Page)
    return tcp_server


def get(server):
    client = http.client.HTTPConnection(*server.address, timeout=5)
    try:
        client.request("GET", "/")
        return client.getresponse().read()
    finally:
        client.close()


def test_body_is_cut_off(web_server):
    web_server.inject(Cut(DATA, 3), Close(), at=1)

    with pytest.raises(http.client.IncompleteRead):
        get(web_server)


def test_a_fault_on_the_second_connection_only(web_server):
    web_server.inject(Reset(), connections=1)

    assert get(web_server) == b"hello"
    with pytest.raises(ConnectionResetError):
        get(web_server)
    assert get(web_server) == b"hello"


def test_network_is_bad_for_a_while(web_server):
    with web_server.inject(Delay(0.02), DATA) as late:
        assert get(web_server) == b"hello"

    assert late.count == 2  # the head and the body
    assert get(web_server) == b"hello"


def test_server_hears_half_of_the_question(tcp_server):
    tcp_server.on(b"tim").reply(b"what?\n")
    tcp_server.inject(Cut(DATA, 3), direction="received")

    assert ask(tcp_server) == b"what?\n"
    assert tcp_server.requests == [b"tim"]
    assert tcp_server.connections[0].received == b"time\n"


def test_one_write_in_three_ends_the_connection(web_server):
    losing = web_server.inject(Close(), probability=1 / 3, seed=7)

    lost = 0
    for _ in range(20):
        try:
            get(web_server)
        except (http.client.HTTPException, ConnectionError):
            lost += 1

    assert lost == losing.count > 0


# Datagrams


def ask_by_udp(server, timeouts=(0.1, 5.0)):
    """Ask, and ask again if no answer comes; answers to somebody else's question are passed over."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(server.address)
        for at, seconds in enumerate(timeouts):
            sock.settimeout(seconds)
            sock.send(b"%d time" % at)
            try:
                while not (answer := sock.recv(1024)).startswith(b"%d " % at):
                    pass
                return answer
            except TimeoutError:
                pass
        raise TimeoutError("no answer")


def answer(request):
    return request[:2] + b"12:00"


def test_first_query_is_lost(udp_server):
    udp_server.handler(answer)
    udp_server.inject(direction="received", at=0)

    assert ask_by_udp(udp_server) == b"1 12:00"
    assert udp_server.requests == [b"0 time", b"1 time"]


def test_first_answer_is_lost(udp_server):
    udp_server.on(b"0 time").reply()
    udp_server.on(b"1 time").reply(b"1 12:00")

    assert ask_by_udp(udp_server) == b"1 12:00"


@pytest.mark.parametrize(
    "parts",
    [
        (Repeat(DATA),),
        (Delay(0.01), DATA),
        (b"", DATA),
        (garbage(40), DATA),
        (Corrupt(DATA, 0), DATA),
        (Spoof(b"0 13:00"), DATA),
        (Spoof(b"0 13:00", "127.0.0.2"), DATA),
    ],
)
def test_right_answer_is_taken_all_the_same(udp_server, parts):
    udp_server.handler(answer)
    udp_server.inject(*parts)

    assert ask_by_udp(udp_server, timeouts=[5.0]) == b"0 12:00"


def test_answers_overtake_each_other(udp_server):
    udp_server.handler(answer)
    udp_server.inject(Hold(DATA), at=0)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(udp_server.address)
        sock.send(b"0 time")
        sock.send(b"1 time")
        assert [sock.recv(1024), sock.recv(1024)] == [b"1 12:00", b"0 12:00"]


def test_answer_comes_when_nobody_waits_any_more(udp_server):
    udp_server.on(b"0 time").reply(Gate("late"), b"0 12:00")

    with pytest.raises(TimeoutError):
        ask_by_udp(udp_server, timeouts=[0.05])
    udp_server.open_gate("late")


def test_nobody_asked(udp_server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((udp_server.host, 0))
        udp_server.send_to(sock.getsockname(), b"0 13:00")

        assert sock.recv(1024) == b"0 13:00"


def test_nobody_is_there_over_udp(udp_server):
    with udp_server.refuse():
        with pytest.raises(ConnectionRefusedError):
            ask_by_udp(udp_server)


# The listener


@pytest.fixture
def clock(tcp_server):
    tcp_server.on(b"time\n").reply(b"12:00\n")
    return tcp_server


def test_connecting_takes_for_ever(clock):
    with clock.blackhole():
        with pytest.raises(TimeoutError):
            ask(clock, timeout=0.1)

    assert ask(clock) == b"12:00\n"


def test_server_restarts_between_two_questions(clock):
    with socket.create_connection(clock.address) as sock:
        sock.sendall(b"time\n")
        assert read_line(sock) == b"12:00\n"
        clock.restart()
        assert sock.recv(1024) == b""

    assert ask(clock) == b"12:00\n"


def test_server_is_away_for_a_while(clock):
    with socket.create_connection(clock.address) as sock:
        with clock.refuse():
            clock.disconnect()
            assert sock.recv(1024) == b""
            with pytest.raises(ConnectionRefusedError):
                ask(clock)

    assert ask(clock) == b"12:00\n"


def test_no_more_than_one_connection(clock):
    clock.limit_connections(1, b"busy\n", Close())

    with socket.create_connection(clock.address) as sock:
        sock.sendall(b"time\n")
        assert read_line(sock) == b"12:00\n"
        assert ask(clock) == b"busy\n"


# Unix sockets


def connect(server):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    try:
        sock.connect(server.path)
    except OSError:
        sock.close()
        raise
    return sock


def test_nobody_listens_on_a_unix_socket(unix_server):
    with unix_server.refuse():
        with pytest.raises(ConnectionRefusedError):
            connect(unix_server)
    with unix_server.overflow():
        with pytest.raises(BlockingIOError):
            connect(unix_server)
    with unix_server.unlink():
        with pytest.raises(FileNotFoundError):
            connect(unix_server)

    connect(unix_server).close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open any path")
def test_unix_socket_is_forbidden(unix_server):
    with unix_server.forbid():
        with pytest.raises(PermissionError):
            connect(unix_server)


def test_open_file_is_passed(unix_server, tmp_path):
    tmp_path.joinpath("greeting").write_text("hello")
    with tmp_path.joinpath("greeting").open() as file:
        unix_server.on(CONNECT).reply(Descriptors(b"!", file))

        with connect(unix_server) as sock:
            data, descriptors, _, _ = socket.recv_fds(sock, 1024, 1)

    assert data == b"!"
    with open(descriptors[0]) as received:
        assert received.read() == "hello"
