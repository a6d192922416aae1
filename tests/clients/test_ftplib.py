"""ftplib: each transfer has a connection of its own, which the client opens (PASV, EPSV) or the server (PORT).

For PASV the handler has the factory make a further server, and accepts on it: recorded, bounded in time and stopped
as every other server of the test.
"""

from __future__ import annotations

import ftplib
import io
import socket

import pytest

from pytest_sockserver import Connection, SockServer, StreamTestServer


@pytest.fixture
def control(sockserver: SockServer) -> StreamTestServer:
    return sockserver.tcp(name="control")


def logged_in(control: StreamTestServer) -> ftplib.FTP:
    client = ftplib.FTP()
    client.connect(*control.address)
    client.login("user", "secret")
    return client


def begin(conn: Connection, *, type: bytes) -> None:
    """Greet, let the user in, and take the TYPE that precedes each transfer."""
    conn.send(b"220-hi\r\n220 there\r\n")
    conn.expect(b"USER user\r\n")
    conn.send(b"331 password?\r\n")
    conn.expect(b"PASS secret\r\n")
    conn.send(b"230 welcome\r\n")
    conn.expect(b"TYPE %b\r\n" % type)
    conn.send(b"200 ok\r\n")


def open_passive(conn: Connection, sockserver: SockServer) -> StreamTestServer:
    """Answer PASV: four numbers of the host, two of the port (RFC 959 section 4.1.2)."""
    conn.expect(b"PASV\r\n")
    data = sockserver.tcp(name="data")
    numbers = *data.host.split("."), data.port >> 8, data.port & 255
    conn.send(b"227 ok (%b)\r\n" % ",".join(map(str, numbers)).encode())
    return data


def end(conn: Connection) -> None:
    conn.send(b"226 done\r\n")
    conn.expect(b"QUIT\r\n")
    conn.send(b"221 bye\r\n")


def test_retr_over_a_connection_to_a_further_server(sockserver: SockServer, control: StreamTestServer) -> None:
    @control.handler
    def serve_a_file(conn: Connection) -> None:
        begin(conn, type=b"I")
        passive = open_passive(conn, sockserver)
        conn.expect(b"RETR a\r\n")
        conn.send(b"150 here it comes\r\n")
        data = passive.accept()
        data.send(b"x" * 300_000)
        data.close()
        end(conn)

    file = io.BytesIO()
    with logged_in(control) as client:
        reply = client.retrbinary("RETR a", file.write)

    assert reply == "226 done"
    assert file.getvalue() == b"x" * 300_000
    assert [server.name for server in sockserver.servers] == ["control", "data"]


def test_stor_ends_where_the_client_ends_its_stream(sockserver: SockServer, control: StreamTestServer) -> None:
    stored: list[bytes] = []

    @control.handler
    def take_a_file(conn: Connection) -> None:
        begin(conn, type=b"I")
        passive = open_passive(conn, sockserver)
        conn.expect(b"STOR b\r\n")
        conn.send(b"150 go on\r\n")
        stored.append(passive.accept().recv_all())
        end(conn)

    with logged_in(control) as client:
        client.storbinary("STOR b", io.BytesIO(b"y" * 50_000))

    assert stored == [b"y" * 50_000]


def test_a_transfer_that_is_reset_in_its_middle(sockserver: SockServer, control: StreamTestServer) -> None:
    @control.handler
    def break_off(conn: Connection) -> None:
        begin(conn, type=b"I")
        passive = open_passive(conn, sockserver)
        conn.expect(b"RETR a\r\n")
        conn.send(b"150 here it comes\r\n")
        data = passive.accept()
        data.send(b"half")
        data.reset()
        conn.send(b"426 broken off\r\n")
        end(conn)

    with logged_in(control) as client:
        with pytest.raises(ConnectionResetError):
            client.retrbinary("RETR a", lambda chunk: None)
        with pytest.raises(ftplib.error_temp, match="^426 broken off$"):
            client.voidresp()


def test_nlst_over_a_connection_that_the_handler_opens(control: StreamTestServer) -> None:
    @control.handler
    def list_names(conn: Connection) -> None:
        begin(conn, type=b"A")
        *host, high, low = conn.recv_line()[len("PORT ") :].decode().split(",")
        conn.send(b"200 ok\r\n")
        conn.expect(b"NLST\r\n")
        conn.send(b"150 here they come\r\n")
        with socket.create_connection((".".join(host), int(high) * 256 + int(low)), timeout=5) as data:
            data.sendall(b"a.txt\r\nb.txt\r\n")
        end(conn)

    with logged_in(control) as client:
        client.set_pasv(False)

        assert client.nlst() == ["a.txt", "b.txt"]


def test_epsv_is_what_an_ipv6_client_asks_for(sockserver: SockServer) -> None:
    control = sockserver.tcp(host="::1", name="control")

    @control.handler
    def list_names(conn: Connection) -> None:
        begin(conn, type=b"A")
        conn.expect(b"EPSV\r\n")
        passive = sockserver.tcp(host="::1", name="data")
        conn.send(b"229 ok (|||%d|)\r\n" % passive.port)
        conn.expect(b"NLST\r\n")
        conn.send(b"150 here they come\r\n")
        data = passive.accept()
        data.send(b"a.txt\r\n")
        data.close()
        end(conn)

    with logged_in(control) as client:
        assert client.nlst() == ["a.txt"]
