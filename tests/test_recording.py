"""The sockets that record, the recorder that keeps, and the limit of what it keeps."""

from __future__ import annotations

import contextlib
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_sockserver import Connection, Event, RecordLimitExceeded, SockServer, StreamTestServer
from pytest_sockserver.recording.recorder import OVERHEAD, Recorder
from pytest_sockserver.transport.tapped_socket import RecordingSocket

from . import insides
from .peers import PATIENCE, connect, datagram_client, read_exactly, read_to_end, reset, until

# The sockets


class Pair:
    """A recording socket and the plain one at its other end."""

    def __init__(self, limit: int = 10_000_000) -> None:
        here, self.there = socket.socketpair()
        self.recorder = Recorder(limit)
        self.tape = self.recorder.add_tape("client")
        self.here = RecordingSocket.adopt(here, self.tape)
        self.there.settimeout(PATIENCE)

    def kinds(self) -> list[str]:
        return [kind for _, _, kind, _ in self.tape.events]

    def received(self) -> bytes:
        return self.tape.joined("received")

    def sent(self) -> bytes:
        return self.tape.joined("sent")


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.here.close()
    made.there.close()


def test_a_recording_socket_is_a_socket(pair: Pair) -> None:
    assert isinstance(pair.here, socket.socket)
    assert pair.here.gettimeout() is None
    assert pair.here.fileno() > 0


def test_adopting_keeps_the_timeout_and_closes_the_original() -> None:
    here, there = socket.socketpair()
    here.settimeout(7)

    with RecordingSocket.adopt(here, Recorder(1000).add_tape("client")) as recording, there:
        assert recording.gettimeout() == 7
        assert here.fileno() == -1


def test_the_default_timeout_does_not_leak_into_a_recording_socket() -> None:
    here, there = socket.socketpair()
    socket.setdefaulttimeout(3)
    try:
        recording = RecordingSocket.adopt(here, Recorder(1000).add_tape("client"))
    finally:
        socket.setdefaulttimeout(None)

    with recording, there:
        assert recording.gettimeout() is None


RECEIVE = {
    "recv": lambda sock: sock.recv(100),
    "recv_into": lambda sock: bytes((buffer := bytearray(100))[: sock.recv_into(buffer)]),
    "recv_into nbytes": lambda sock: bytes((buffer := bytearray(100))[: sock.recv_into(buffer, 50)]),
    "recvfrom": lambda sock: sock.recvfrom(100)[0],
    "recvfrom_into": lambda sock: bytes((buffer := bytearray(100))[: sock.recvfrom_into(buffer)[0]]),
    "recvmsg": lambda sock: sock.recvmsg(100)[0],
    "recvmsg_into": lambda sock: bytes((buffer := bytearray(100))[: sock.recvmsg_into([buffer])[0]]),
    "makefile": lambda sock: sock.makefile("rb", 0).read(100),
    "waitall": lambda sock: sock.recv(5, socket.MSG_WAITALL),
    "dontwait": lambda sock: sock.recv(100, socket.MSG_DONTWAIT),
}


@pytest.mark.parametrize("way", RECEIVE)
def test_what_is_received_is_noted_once(pair: Pair, way: str) -> None:
    pair.there.sendall(b"hello")

    assert RECEIVE[way](pair.here) == b"hello"
    assert pair.received() == b"hello"
    assert pair.kinds() == ["received"]
    assert pair.tape.received_count == 5


@pytest.mark.parametrize("way", [each for each in RECEIVE if each not in ("makefile", "waitall")])
def test_the_end_of_the_stream_is_noted_once(pair: Pair, way: str) -> None:
    pair.there.close()

    assert RECEIVE[way](pair.here) == b""
    assert RECEIVE[way](pair.here) == b""
    assert pair.kinds() == ["client-eof"]
    assert pair.tape.ended_by == "client"


NOT_WAITING = {
    "recv": lambda sock: sock.recv(100, socket.MSG_DONTWAIT),
    "recv_into": lambda sock: sock.recv_into(bytearray(100), 0, socket.MSG_DONTWAIT),
    "recvfrom": lambda sock: sock.recvfrom(100, socket.MSG_DONTWAIT),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(100), 0, socket.MSG_DONTWAIT),
    "recvmsg": lambda sock: sock.recvmsg(100, 0, socket.MSG_DONTWAIT),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(100)], 0, socket.MSG_DONTWAIT),
}


@pytest.mark.parametrize("way", NOT_WAITING)
def test_a_receive_that_is_not_to_wait_does_not(pair: Pair, way: str) -> None:
    with pytest.raises(BlockingIOError):
        NOT_WAITING[way](pair.here)

    assert pair.kinds() == []


def test_a_look_is_not_noted(pair: Pair) -> None:
    pair.there.sendall(b"hello")

    assert pair.here.recv(100, socket.MSG_PEEK) == b"hello"
    assert pair.here.recv_into(bytearray(100), 0, socket.MSG_PEEK) == 5
    assert pair.kinds() == []


def test_nothing_wanted_is_no_end(pair: Pair) -> None:
    assert pair.here.recv(0) == b""
    assert pair.here.recv_into(bytearray()) == 0
    assert pair.kinds() == []


def test_a_view_of_larger_items_is_received_into(pair: Pair) -> None:
    import array

    numbers = array.array("I", [0, 0])
    pair.there.sendall(b"\1\0\0\0\2\0\0\0")

    assert pair.here.recv_into(numbers) == 8
    assert pair.received() == b"\1\0\0\0\2\0\0\0"


SEND = {
    "send": lambda sock: sock.send(b"hello"),
    "sendall": lambda sock: sock.sendall(b"hello"),
    "sendall of a view": lambda sock: sock.sendall(memoryview(b"hello")),
    "sendmsg": lambda sock: sock.sendmsg([b"he", b"", bytearray(b"llo")]),
    "makefile": lambda sock: sock.makefile("wb", 0).write(b"hello"),
}


@pytest.mark.parametrize("way", SEND)
def test_what_is_sent_is_noted_once(pair: Pair, way: str) -> None:
    SEND[way](pair.here)

    assert pair.there.recv(100) == b"hello"
    assert pair.sent() == b"hello"
    assert pair.kinds() == ["sent"]
    assert pair.tape.sent_count == 5


def test_a_file_is_sent_from_its_offset_and_noted(pair: Pair, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")

    with (tmp_path / "file").open("rb") as file:
        assert pair.here.sendfile(file, 2, 5) == 5
        assert file.tell() == 7

    assert pair.there.recv(100) == b"23456"
    assert pair.sent() == b"23456"


def test_what_the_kernel_does_not_take_is_taken_back(pair: Pair) -> None:
    pair.here.settimeout(0)
    size = 0
    while True:
        try:
            size += pair.here.send(b"x" * 70_000)
        except BlockingIOError:
            break

    assert pair.tape.sent_count == size
    assert len(pair.sent()) == size
    assert read_exactly(pair.there, size) == pair.sent()


def test_a_send_that_timed_out_is_taken_back(pair: Pair) -> None:
    pair.here.settimeout(0.05)

    with pytest.raises(TimeoutError):
        while True:
            pair.here.sendall(b"x" * 70_000)

    count = pair.tape.sent_count
    assert len(pair.sent()) == count
    assert len(read_exactly(pair.there, count)) == count


def test_a_send_to_a_client_that_is_gone_is_taken_back_and_noted(pair: Pair) -> None:
    pair.there.close()

    with pytest.raises(BrokenPipeError):
        pair.here.sendall(b"hello")

    assert sorted(pair.kinds()) == ["client-reset", "sent", "unsent"]
    assert (pair.sent(), pair.tape.sent_count) == (b"", 0)


def test_the_error_of_a_timeout_is_pythons_own(pair: Pair) -> None:
    pair.here.settimeout(0.01)

    for receive in (pair.here.recv, lambda n: pair.here.recv_into(bytearray(n)), pair.here.recvfrom, pair.here.recvmsg):
        with pytest.raises(TimeoutError, match="^timed out$"):
            receive(10)
    assert pair.kinds() == []


def test_a_non_blocking_socket_does_not_block(pair: Pair) -> None:
    pair.here.setblocking(False)

    with pytest.raises(BlockingIOError):
        pair.here.recv(10)


def test_both_directions_of_a_large_transfer_are_whole(pair: Pair) -> None:
    data = bytes(range(256)) * 20_000
    sending = threading.Thread(target=pair.there.sendall, args=(data,))
    sending.start()

    got = read_exactly(pair.here, len(data))
    sending.join()

    assert got == data
    assert pair.received() == data


# The recorder


def test_events_read_as_objects_that_print_as_the_code_that_makes_them(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"hi")
        tcp_server.wait_connection().wait_received(b"hi")

    event = tcp_server.events[0]

    assert eval(repr(event)) == event
    assert repr(event) == f"Event(time={event.time!r}, connection=0, kind='received', data=b'hi')"
    assert event == Event(event.time, 0, "received", b"hi")
    with pytest.raises(AttributeError):
        event.kind = "sent"


def test_the_three_ends_are_told_apart(tcp_server: StreamTestServer) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(tcp_server)) for _ in range(4)]
        conns = [tcp_server.accept() for _ in range(4)]

        clients[0].close()
        reset(clients[1])
        conns[2].close()
        conns[3].reset()
        for conn in conns:
            conn.wait_closed()

    assert [(conn.closed_by, conn.events[0].kind) for conn in conns] == [
        ("client", "client-eof"),
        ("client", "client-reset"),
        ("server", "close"),
        ("server", "reset"),
    ]


@pytest.mark.parametrize("taken", ["undeclared", "accepted", "handled"])
def test_a_reset_is_recorded_as_one_whoever_reads(tcp_server: StreamTestServer, taken: str) -> None:
    """A look at the socket takes the error off it (SO_ERROR), and the next read says that it just ended."""
    if taken == "handled":
        tcp_server.handler(read_chunks)
    client = connect(tcp_server)
    conn = tcp_server.accept() if taken == "accepted" else tcp_server.wait_connection()

    reset(client)
    conn.wait_closed()

    assert conn.events[0].kind == "client-reset"


def test_whoever_ends_first_has_ended_it(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lambda conn: conn.send(conn.recv_all()))
    with connect(tcp_server) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    conn = tcp_server.connections[0]

    assert [event.kind for event in conn.events] == ["client-eof", "close"]
    assert conn.closed_by == "client"


def test_snapshots_do_not_change_under_their_holder(tcp_server: StreamTestServer) -> None:
    snapshots = [tcp_server.requests, tcp_server.connections, tcp_server.events]

    with connect(tcp_server) as client:
        client.sendall(b"hi")
    tcp_server.wait_for(b"hi")

    assert snapshots == [[], [], []]


def test_events_of_all_connections_are_in_order(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as first, connect(tcp_server) as second:
        for number, client in enumerate((first, second, first)):
            client.sendall(b"%d" % number)
            until(lambda want=number: len(tcp_server.events) == want + 1)

        assert [(event.connection, event.data) for event in tcp_server.events] == [(0, b"0"), (1, b"1"), (0, b"2")]


# The limit


def test_what_fits_is_kept_to_the_last_byte() -> None:
    recorder = Recorder(2 * (OVERHEAD + 10))
    tape = recorder.add_tape("client")
    tape.received(b"x" * 10)
    tape.received(b"y" * 10)

    assert tape.joined("received") == b"x" * 10 + b"y" * 10
    assert recorder.size == recorder.limit


def test_from_the_first_gap_on_no_more_bytes_are_kept() -> None:
    """A recording with holes would be read as whole."""
    recorder = Recorder(OVERHEAD + 20)
    tape = recorder.add_tape("client")
    tape.received(b"too large to be kept")
    tape.received(b"x")
    tape.received(b"small")

    assert [data for *_, data in tape.events] == [b"too large to be kept"]
    with pytest.raises(RecordLimitExceeded):
        tape.joined("received")
    assert tape.received_count == 26


def test_past_the_limit_whoever_asks_for_bytes_is_told_so(sockserver: SockServer) -> None:
    server = sockserver.tcp(record_limit=1000)
    server.handler(lambda conn: conn.send(b"re: " + conn.recv_line()))

    with connect(server) as client:
        client.sendall(b"x" * 2000 + b"\n")
        assert len(read_to_end(client)) == 2005
    conn = server.connections[0]
    conn.wait_closed()

    with pytest.raises(RecordLimitExceeded) as raised:
        conn.received  # noqa: B018
    what, _, rest = str(raised.value).partition(" cannot be told any more: ")
    assert what == "what was received"
    assert rest.startswith("the recording reached its record_limit of 1,000 bytes and ")
    assert rest.endswith(
        " bytes were not kept.  Give the server a larger record_limit=, or look at received_count and sent_count, "
        "which go on counting"
    )
    for ask in (
        lambda: conn.sent,
        lambda: conn.requests,
        lambda: server.requests,
        server.wait_for,
        server.next_request,
    ):
        with pytest.raises(RecordLimitExceeded):
            ask()
    with pytest.raises(RecordLimitExceeded):
        conn.wait_received(b"x")
    assert (conn.received_count, conn.sent_count) == (2001, 2005)


def test_past_the_limit_the_message_counts_each_byte_once(sockserver: SockServer) -> None:
    """A line is received and then a request: these are the same bytes."""
    server = sockserver.tcp(record_limit=1000)
    server.handler(lambda conn: conn.send(conn.recv_line()[:0]))

    with connect(server) as client:
        client.sendall(b"x" * 1999 + b"\n")
        read_to_end(client)

    with pytest.raises(RecordLimitExceeded, match=" and 2,000 bytes were not kept"):
        server.requests  # noqa: B018


def test_past_the_limit_the_conversation_goes_on(sockserver: SockServer) -> None:
    server = sockserver.tcp(record_limit=500)

    @server.handler
    def echo(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())

    with connect(server) as client:
        for number in range(50):
            client.sendall(b"%d\n" % number)
            assert client.recv(100) == b"%d\n" % number


def test_past_the_limit_of_one_server_another_still_tells(sockserver: SockServer) -> None:
    full, other = sockserver.udp(record_limit=200), sockserver.udp()
    for server in (full, other):
        with datagram_client(server) as client:
            client.send(b"x" * 500)
            until(lambda server=server: insides.recorder(server).arrivals)

    assert other.wait_for() == b"x" * 500
    with pytest.raises(RecordLimitExceeded):
        full.requests  # noqa: B018


def test_clear_makes_room_again(sockserver: SockServer) -> None:
    server = sockserver.udp(record_limit=1000)
    with datagram_client(server) as client:
        client.send(b"x" * 2000)
        until(lambda: insides.recorder(server).dropped)

        server.clear()
        client.send(b"small")

        assert server.wait_for() == b"small"


def test_clear_makes_room_again_on_open_connections(sockserver: SockServer) -> None:
    server = sockserver.tcp(record_limit=2000)

    @server.handler
    def echo(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())

    with connect(server) as client:
        for _ in range(20):
            client.sendall(b"x" * 300 + b"\n")
            read_exactly(client, 301)
            server.clear()
            server.handler(echo)
        client.sendall(b"last\n")
        client.recv(100)

    assert server.requests == [b"last\n"]


SIZE = 20_000_000  # bytes that pass
LIMIT = 1_000_000  # bytes that may be kept


def growth(transfer: Any) -> int:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        transfer()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def pour(client: socket.socket) -> None:
    chunk = b"x" * 100_000
    for _ in range(SIZE // len(chunk)):
        client.sendall(chunk)


def read_chunks(conn: Connection) -> None:
    while conn.recv():
        pass


def test_a_transfer_past_the_limit_takes_no_more_memory_than_the_limit(sockserver: SockServer) -> None:
    server = sockserver.tcp(record_limit=LIMIT)
    server.handler(read_chunks)

    with connect(server) as client:

        def transfer() -> None:
            pour(client)
            until(lambda: server.connections[0].received_count == SIZE)

        assert growth(transfer) < 2 * LIMIT
    with pytest.raises(RecordLimitExceeded):
        server.connections[0].received  # noqa: B018


def test_a_reply_past_the_limit_takes_no_more_memory_than_the_limit(sockserver: SockServer) -> None:
    server = sockserver.tcp(record_limit=LIMIT)
    chunk = b"x" * 100_000

    @server.handler
    def reply(conn: Connection) -> None:
        for _ in range(SIZE // len(chunk)):
            conn.send(chunk)

    with connect(server) as client:

        def transfer() -> None:
            while client.recv(65536):
                pass

        assert growth(transfer) < 2 * LIMIT
    assert server.connections[0].sent_count == SIZE


def test_an_undeclared_transfer_past_the_limit_takes_no_more_memory_than_the_limit(sockserver: SockServer) -> None:
    """What is read ahead of accept() is kept in memory as well."""
    server = sockserver.tcp(record_limit=LIMIT)

    with connect(server) as client:
        conn = server.wait_connection()

        def transfer() -> None:
            try:
                client.settimeout(1)
                pour(client)
            except TimeoutError:
                return  # reading less ahead is a way to keep the promise, too
            until(lambda: conn.received_count == SIZE)

        assert growth(transfer) < 3 * LIMIT


def test_one_large_send_is_recorded_about_once(sockserver: SockServer) -> None:
    """What the kernel takes in parts must not be noted anew for each part, whole."""
    server = sockserver.tcp(record_limit=2 * SIZE)
    data = b"x" * SIZE
    server.handler(lambda conn: conn.send(data))

    with connect(server) as client:
        assert len(read_to_end(client)) == SIZE

    assert server.connections[0].sent == data


def test_many_threads_record_everything(sockserver: SockServer) -> None:
    server = sockserver.tcp()

    @server.handler
    def echo(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())

    def talk(name: int) -> None:
        with connect(server) as client:
            for number in range(50):
                client.sendall(b"%d %d\n" % (name, number))
                client.recv(100)

    for talking in [server.in_thread(talk, name) for name in range(10)]:
        talking.result(PATIENCE)

    assert sorted(server.requests) == sorted(b"%d %d\n" % (name, number) for name in range(10) for number in range(50))
    assert all(
        conn.requests == sorted(conn.requests, key=lambda line: int(line.split()[1])) for conn in server.connections
    )
