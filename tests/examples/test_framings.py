"""Write a framing: where one request ends and the next begins."""

import http.client
import re
import smtplib
import socket
import ssl

import h11
import msgpack
import pytest
import trustme

from pytest_sockserver import (
    ANY,
    CONNECT,
    Close,
    IncompleteRequest,
    ScriptMismatch,
    StartTLS,
    length_prefixed,
    lines,
    netstrings,
    sans_io,
    until_eof,
)


def say(address, *pieces):
    """Say the pieces one after the other; return all that is answered."""
    with socket.create_connection(address) as client, client.makefile("rb") as answers:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        return answers.read()


def say_and_be_cut_off(address, said):
    """Say something, after which the server resets the connection."""
    with socket.create_connection(address) as client:
        client.sendall(said)
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def byte_by_byte(data):
    return [data[at : at + 1] for at in range(len(data))]


# Framings of one's own


def memcache():
    line = yield b"\r\n"
    if line.startswith(b"set "):
        yield int(line.split()[4]) + 2


def mqtt():
    yield 1
    size, digit, byte = 0, 1, 0x80
    while byte & 0x80:
        (byte,) = yield 1
        size, digit = size + (byte & 0x7F) * digit, digit * 128
    yield size


def ber():
    yield 1
    (size,) = yield 1
    if size > 0x80:
        size = int.from_bytes((yield size & 0x7F), "big")
    yield size


def test_value_that_has_line_endings_in_it(tcp_server):
    tcp_server.framing = memcache
    tcp_server.on(re.compile(rb"set .*", re.DOTALL)).reply(b"STORED\r\n")
    tcp_server.on(re.compile(rb"get .*\r\n")).reply(b"END\r\n")

    said = b"set greeting 0 0 8\r\nhi\r\nget \r\nget greeting\r\n"

    assert say(tcp_server.address, said) == b"STORED\r\nEND\r\n"
    assert tcp_server.requests == [b"set greeting 0 0 8\r\nhi\r\nget \r\n", b"get greeting\r\n"]


FRAMES = [
    (memcache, [b"set k 0 0 4\r\na\r\nb\r\n", b"get k\r\n"]),
    (mqtt, [b"\xc0\x00", b"\x30\x80\x01" + bytes(128), b"\x30\x02\x00\x00"]),
    (ber, [b"\x30\x03\x02\x01\x05", b"\x30\x81\x80" + bytes(128), b"\x30\x00"]),
]


@pytest.mark.parametrize(("framing", "frames"), FRAMES)
@pytest.mark.parametrize("cut", [byte_by_byte, lambda data: [data]])
def test_frames_are_the_same_however_the_bytes_arrive(tcp_server, framing, frames, cut):
    tcp_server.framing = framing
    tcp_server.on(ANY).reply(b".")

    assert say(tcp_server.address, *cut(b"".join(frames))) == b"." * len(frames)
    assert tcp_server.requests == frames


def tagged():
    tag = yield 1
    yield from {b"M": memcache, b"Q": mqtt}[tag]()


def test_framings_in_a_framing(tcp_server):
    tcp_server.framing = tagged
    tcp_server.on(ANY).reply(b".")

    assert say(tcp_server.address, b"Mget k\r\nQ\xc0\x00") == b".."
    assert tcp_server.requests == [b"Mget k\r\n", b"Q\xc0\x00"]


# Where it is used


def test_frames_in_a_handler(tcp_server):
    @tcp_server.handler
    def count(conn):
        for packet in conn.frames(mqtt):
            packet.reply(b"%d," % len(packet))

    assert say(tcp_server.address, b"\xc0\x00\x30\x02\x00\x00") == b"2,4,"


def test_one_frame_in_a_script(sockserver):
    server = sockserver.tcp(framing=mqtt)
    server.script().expect(re.compile(rb"\x30.*", re.DOTALL)).send(b"published").expect(b"\xc0\x00").send(b", pinged")

    assert say(server.address, b"\x30\x02\x00\x00\xc0\x00") == b"published, pinged"


# Another framing on the same connection


def test_message_after_data(tcp_server):
    def take_message(request):
        conn = request.connection
        conn.send(b"354 go ahead\r\n")
        message = conn.recv_until(b"\r\n.\r\n")
        return b"250 %d bytes\r\n" % len(message)

    tcp_server.framing = lines(b"\r\n")
    tcp_server.on(CONNECT).reply(b"220 mx\r\n")
    tcp_server.on(re.compile(rb"(?i)(ehlo|mail|rcpt) .*\r\n")).reply(b"250 ok\r\n")
    tcp_server.on(re.compile(rb"(?i)data\r\n")).reply(take_message)
    tcp_server.on(re.compile(rb"(?i)quit\r\n")).reply(b"221 bye\r\n", Close())

    with smtplib.SMTP(*tcp_server.address) as client:
        assert client.sendmail("ann@example.org", ["bob@example.org"], "QUIT\r\n") == {}

    assert b"QUIT\r\n.\r\n" in tcp_server.requests


def test_upload_of_an_empty_file(tcp_server):
    tcp_server.framing = until_eof
    tcp_server.on(ANY).reply(lambda request: b"%d bytes\n" % len(request))

    with socket.create_connection(tcp_server.address) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"0 bytes\n"

    assert tcp_server.requests == [b""]


def test_upgrade_to_another_protocol(tcp_server):
    def upgrade(request):
        request.connection.framing = length_prefixed(">H")
        return b"OK\n"

    tcp_server.framing = lines(b"\n")
    tcp_server.on(b"BINARY\n").reply(upgrade)
    tcp_server.on(b"\x00\x03abc").reply(b"\x00\x02ok")

    assert say(tcp_server.address, b"BINARY\n\x00\x03abc") == b"OK\n\x00\x02ok"


def test_upgrade_in_a_handler(tcp_server):
    @tcp_server.handler
    def echo(conn):
        conn.framing = lines(b"\n")
        for frame in conn.frames():
            conn.send(frame)
            if frame == b"BINARY\n":
                conn.framing = length_prefixed(">H")  # from the next frame on

    assert say(tcp_server.address, b"BINARY\n\x00\x03a\nb") == b"BINARY\n\x00\x03a\nb"
    assert tcp_server.requests == [b"BINARY\n", b"\x00\x03a\nb"]


def test_upgrade_in_a_script(tcp_server):
    tcp_server.framing = lines(b"\n")
    (
        tcp_server.script()
        .expect(re.compile(rb"BINARY.*\n"))
        .send(b"OK\n")
        .framing(length_prefixed(">H"))
        .expect(re.compile(rb"..a\nb", re.DOTALL))
        .send(b"\x00\x02ok")
    )

    assert say(tcp_server.address, b"BINARY 1\n\x00\x03a\nb") == b"OK\n\x00\x02ok"


def test_rules_in_a_framing_of_their_own(tcp_server):
    tcp_server.on(ANY).reply(lambda request: b"[%b]" % request)

    @tcp_server.handler
    def after_a_greeting(conn):
        conn.expect_line(b"HELLO")
        conn.rules(netstrings)

    assert say(tcp_server.address, b"HELLO\n3:abc,0:,") == b"[3:abc,][0:,]"


def test_frames_go_on_inside_tls(sockserver):
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(theirs)
    server = sockserver.tcp(tls=ours, framing=lines(b"\n"))
    server.on(b"STARTTLS\n").reply(b"go\n", StartTLS())
    server.on(re.compile(rb"HELLO (\w+)\n")).reply(lambda request: b"hi " + request.match[1] + b"\n")

    with socket.create_connection(server.address) as plain:
        plain.sendall(b"STARTTLS\n")
        assert plain.recv(100) == b"go\n"
        with theirs.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(b"HELLO bob\n")
            assert client.recv(100) == b"hi bob\n"

    assert server.requests == [b"STARTTLS\n", b"HELLO bob\n"]


# Parsers that others have written


def msgpack_value():
    unpacker, fed = msgpack.Unpacker(), 0

    def feed(data):
        nonlocal fed
        unpacker.feed(data)
        fed += len(data)
        try:
            unpacker.skip()
        except msgpack.OutOfData:
            return None
        return fed - unpacker.tell()

    return feed


def test_msgpack(tcp_server):
    tcp_server.framing = sans_io(msgpack_value)
    tcp_server.on(ANY).reply(lambda request: msgpack.packb(len(msgpack.unpackb(request))))

    assert say(tcp_server.address, msgpack.packb([1, 2]), msgpack.packb({"a": None})) == b"\x02\x01"


def http_request():
    parser = h11.Connection(h11.SERVER)

    def feed(data):
        parser.receive_data(data)
        while (event := parser.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.EndOfMessage):
                return len(parser.trailing_data[0])
        return None

    return feed


def test_h11(tcp_server):
    tcp_server.framing = sans_io(http_request)
    tcp_server.on(ANY).reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client = http.client.HTTPConnection(*tcp_server.address)

    client.request("POST", "/", iter([b"in", b"chunks"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)

    assert client.getresponse().read() == b"ok"
    client.close()
    assert tcp_server.requests[0].endswith(b"\r\n\r\n2\r\nin\r\n6\r\nchunks\r\n0\r\n\r\n")


# When it goes wrong


def test_frame_that_is_too_long(sockserver):
    server = sockserver.tcp(framing=memcache, max_frame=100)
    server.on(ANY)

    with server.raises(ScriptMismatch, match=r"expected a frame of at most 100 bytes \(max_frame\)"):
        say_and_be_cut_off(server.address, b"set k 0 0 1000000000\r\n")


def test_client_ends_within_a_frame(tcp_server):
    tcp_server.framing = memcache
    tcp_server.on(ANY)

    with tcp_server.raises(IncompleteRequest, match=r"expected 5 bytes more of a frame \(memcache\)"):
        with pytest.raises(ConnectionResetError):
            say(tcp_server.address, b"set k 0 0 5\r\nab")


def test_client_says_what_the_framing_cannot_read(tcp_server):
    tcp_server.framing = memcache
    tcp_server.on(ANY)

    with tcp_server.raises(ValueError, match="invalid literal for int"):
        say_and_be_cut_off(tcp_server.address, b"set k 0 0 many\r\n")


@pytest.mark.parametrize(
    ("framing", "message"),
    [
        (memcache(), "expected a framing, not a generator: write framing=memcache, without calling it"),
        (lines, r"lines is not a framing yet: call it, lines(b'\r\n')"),
        (b"\n", "expected a framing, a generator function without arguments, not b'\\n': write delimited(b'\\n')"),
    ],
)
def test_no_framing(tcp_server, framing, message):
    with pytest.raises(TypeError) as raised:
        tcp_server.framing = framing

    assert str(raised.value) == message
