"""FTP, with ftplib and aioftp: a control connection, and a further one for each transfer."""

from __future__ import annotations

import ftplib
import io
import re
import socket
import ssl
from typing import Any

import aioftp
import pytest
import trustme

from pytest_sockserver import (
    CONNECT,
    Close,
    Gate,
    Request,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    lines,
)

from .relay import byte_by_byte


def fetch(address: Any) -> bytes:
    """Return what the file report.txt has."""
    content = io.BytesIO()
    with ftplib.FTP() as client:
        client.connect(*address)
        client.login("ann", "secret")
        client.retrbinary("RETR report.txt", content.write)
    return content.getvalue()


def numbers(server: StreamTestServer) -> bytes:
    """Return an address as PASV tells it: four numbers of the host, two of the port (RFC 959 section 4.1.2)."""
    return b"%b,%d,%d" % (server.host.replace(".", ",").encode(), *divmod(server.port, 256))


# The same story three times


def test_a_dialogue_over_two_connections(tcp_server: StreamTestServer) -> None:
    dialogue_of_a_transfer(tcp_server)

    assert fetch(tcp_server.address) == b"all is well\r\n"


def dialogue_of_a_transfer(server: StreamTestServer) -> None:
    server.dialogue(
        r"""
            == 0 control
            S: 220 ready
            C: USER ann
            S: 331 password?
            C: PASS secret
            S: 230 welcome
            C: TYPE I
            S: 200 binary
            C: PASV
            S: 227 connect to (\g<data>)
            C: RETR report.txt
            S: 150 here it comes
            S! open transfer
            S! wait transferred
            S: 226 done
            C: QUIT
            S: 221 bye

            == 1 data, to the same server
            S! wait transfer
            S: all is well
            S! close
            S! open transferred
        """,
        data=numbers(server),
    )


def test_a_script_for_each_connection(tcp_server: StreamTestServer) -> None:
    scripts_of_a_transfer(tcp_server)

    assert fetch(tcp_server.address) == b"all is well\r\n"


def scripts_of_a_transfer(server: StreamTestServer) -> None:
    (
        server.script()
        .send(b"220 ready\r\n")
        .expect(b"USER ann\r\n")
        .send(b"331 password?\r\n")
        .expect(b"PASS secret\r\n")
        .send(b"230 welcome\r\n")
        .expect(b"TYPE I\r\n")
        .send(b"200 binary\r\n")
        .expect(b"PASV\r\n")
        .send(b"227 connect to (%b)\r\n" % numbers(server))
        .expect(b"RETR report.txt\r\n")
        .send(b"150 here it comes\r\n")
        .open_gate("transfer")
        .send(Gate("transferred"), b"226 done\r\n")
        .expect(b"QUIT\r\n")
        .send(b"221 bye\r\n")
    )
    server.script().send(Gate("transfer"), b"all is well\r\n").close().open_gate("transferred")


@pytest.fixture
def files() -> dict[str, bytes]:
    return {"report.txt": b"all is well\r\n"}


@pytest.fixture
def ftp_server(sockserver: SockServer, files: dict[str, bytes]) -> StreamTestServer:
    """A server that gives, takes and lists files, over any number of connections to a second server."""
    control = sockserver.tcp(name="control", framing=lines(b"\r\n"))
    data = sockserver.tcp(name="data")

    def say(content: bytes) -> tuple[()]:
        transfer = data.accept()
        transfer.send(content)
        transfer.close()
        return ()

    def take(stor: Request) -> tuple[()]:
        files[stor.match["name"].decode()] = data.accept().recv_all()
        return ()

    control.on(CONNECT).reply(b"220 ready\r\n")
    control.on(re.compile(rb"USER \S+\r\n")).reply(b"331 password?\r\n")
    control.on(re.compile(rb"PASS .*\r\n")).reply(b"530 wrong\r\n")
    control.on(b"PASS secret\r\n").reply(b"230 welcome\r\n")
    control.on(re.compile(rb"TYPE [AI]\r\n")).reply(b"200 ok\r\n")
    control.on(b"PWD\r\n").reply(b'257 "/"\r\n')
    control.on(b"PASV\r\n").reply(b"227 connect to (%b)\r\n" % numbers(data))
    control.on(b"EPSV\r\n").reply(b"229 connect to (|||%d|)\r\n" % data.port)
    control.on(re.compile(rb"RETR (?P<name>\S+)\r\n")).reply(
        b"150 here it comes\r\n", lambda retr: say(files[retr.match["name"].decode()]), b"226 done\r\n"
    )
    control.on(re.compile(rb"STOR (?P<name>\S+)\r\n")).reply(b"150 go ahead\r\n", take, b"226 done\r\n")
    control.on(b"NLST\r\n").reply(
        b"150 here they come\r\n", lambda nlst: say("".join(f"{name}\r\n" for name in files).encode()), b"226 done\r\n"
    )
    control.on(b"QUIT\r\n").reply(b"221 bye\r\n", Close())
    return control


def test_rules_and_a_second_server_for_the_data(ftp_server: StreamTestServer) -> None:
    assert fetch(ftp_server.address) == b"all is well\r\n"


# With the rules at hand


def test_a_file_is_stored_and_fetched_again(ftp_server: StreamTestServer, files: dict[str, bytes]) -> None:
    with ftplib.FTP() as client:
        client.connect(*ftp_server.address)
        client.login("ann", "secret")
        client.storbinary("STOR notes.txt", io.BytesIO(b"remember"))
        assert files["notes.txt"] == b"remember"
        assert client.nlst() == ["report.txt", "notes.txt"]


@pytest.mark.asyncio
async def test_aioftp_asks_for_epsv(ftp_server: StreamTestServer) -> None:
    async with aioftp.Client.context(*ftp_server.address, user="ann", password="secret") as client:
        async with client.download_stream("report.txt") as stream:
            assert await stream.read() == b"all is well\r\n"

    assert b"EPSV\r\n" in ftp_server.requests


@pytest.mark.asyncio
async def test_aioftp_falls_back_to_pasv(ftp_server: StreamTestServer) -> None:
    ftp_server.on(b"EPSV\r\n").reply(b"500 what?\r\n")

    async with aioftp.Client.context(*ftp_server.address, user="ann", password="secret") as client:
        async with client.upload_stream("notes.txt") as stream:
            await stream.write(b"remember")

    assert [each for each in ftp_server.requests if each.endswith(b"PASV\r\n")] == [b"PASV\r\n"]


def test_the_server_connects_to_the_client(ftp_server: StreamTestServer) -> None:
    def call_back(nlst: Request) -> tuple[()]:
        *host, high, low = nlst.connection.captured["port"].decode().split(",")
        with socket.create_connection((".".join(host), int(high) * 256 + int(low)), timeout=5) as data:
            data.sendall(b"report.txt\r\n")
        return ()

    ftp_server.on(re.compile(rb"PORT (?P<port>[\d,]+)\r\n")).reply(b"200 ok\r\n")
    ftp_server.on(b"NLST\r\n").reply(b"150 here they come\r\n", call_back, b"226 done\r\n")

    with ftplib.FTP() as client:
        client.set_pasv(False)
        client.connect(*ftp_server.address)
        client.login("ann", "secret")
        assert client.nlst() == ["report.txt"]


# A transfer that breaks


def test_the_data_connection_is_reset_in_the_middle(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(
        r"""
            == 0 control
            S: 220 ready
            C: TYPE I
            S: 200 binary
            C: PASV
            S: 227 connect to (\g<data>)
            C: RETR report.txt
            S: 150 here it comes
            S! open transfer
            S! wait broken
            S: 426 broken off
            C: QUIT
            S: 221 bye

            == 1 data
            S! wait transfer
            S- all is
            S! reset
            S! open broken
        """,
        data=numbers(tcp_server),
    )

    with ftplib.FTP() as client:
        client.connect(*tcp_server.address)
        with pytest.raises(ConnectionResetError):
            client.retrbinary("RETR report.txt", lambda chunk: None)
        with pytest.raises(ftplib.error_temp, match="^426 broken off$"):
            client.voidresp()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_server(sockserver: SockServer, authority: trustme.CA) -> StreamTestServer:
    """A server that has a certificate, for when AUTH TLS is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return sockserver.tcp(tls=context)


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_dialogue_with_tls_on_both_connections(secure_server: StreamTestServer, trust: ssl.SSLContext) -> None:
    secure_server.dialogue(
        r"""
            == 0 control
            S: 220 ready
            C: AUTH TLS
            S: 234 go ahead
            S! start-tls
            C: USER ann
            S: 331 password?
            C: PASS secret
            S: 230 welcome
            C: PBSZ 0
            S: 200 ok
            C: PROT P
            S: 200 private
            C: TYPE I
            S: 200 binary
            C: PASV
            S: 227 connect to (\g<data>)
            C: STOR notes.txt
            S: 150 go ahead
            S! open transfer
            S! wait transferred
            S: 226 done
            C: QUIT
            S: 221 bye

            == 1 data
            S! wait transfer
            S! start-tls
            C- remember
            C! eof
            S! close
            S! open transferred
        """,
        data=numbers(secure_server),
    )

    with ftplib.FTP_TLS(context=trust) as client:
        client.connect(*secure_server.address)
        client.login("ann", "secret")
        client.prot_p()
        client.storbinary("STOR notes.txt", io.BytesIO(b"remember"))

    assert all(conn.tls.version == "TLSv1.3" for conn in secure_server.connections)


# When the client departs


def test_the_client_says_something_else_than_the_dialogue(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(r"""
        S: 220 ready
        C: USER ann
        S: 331 password?
    """)

    with tcp_server.raises(ScriptMismatch, match=r"got b'USER bob\\r\\n' \(differs at byte 5: b'b' is not b'a'\)"):
        with pytest.raises(ConnectionResetError), ftplib.FTP() as client:
            client.connect(*tcp_server.address)
            client.login("bob", "secret")


def test_the_client_says_what_no_rule_knows(ftp_server: StreamTestServer) -> None:
    with ftp_server.raises(UnexpectedRequest, match=r"no rule matches b'SIZE report.txt\\r\\n'"):
        with pytest.raises(ConnectionResetError), ftplib.FTP() as client:
            client.connect(*ftp_server.address)
            client.size("report.txt")


# However the bytes arrive


@pytest.mark.parametrize("declare", [dialogue_of_a_transfer, scripts_of_a_transfer])
def test_what_is_ordered_hears_a_client_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, declare: Any
) -> None:
    declare(tcp_server)

    assert fetch(byte_by_byte(sockserver, tcp_server)) == b"all is well\r\n"


def test_rules_hear_a_client_byte_by_byte(sockserver: SockServer, ftp_server: StreamTestServer) -> None:
    assert fetch(byte_by_byte(sockserver, ftp_server)) == b"all is well\r\n"
