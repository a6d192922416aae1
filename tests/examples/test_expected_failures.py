"""Expect a failure of the server's side."""

import socket

import pytest

from pytest_sockserver import IncompleteRequest, ScriptMismatch


def test_client_departs_from_the_protocol(tcp_server):
    @tcp_server.handler
    def strict(conn):
        conn.expect_line(b"HELLO")

    with tcp_server.raises(ScriptMismatch, match="differs at byte 0: b'h' is not b'H'"):
        with socket.create_connection(tcp_server.address) as client:
            client.sendall(b"hello\n")


def test_client_ends_in_the_middle_of_a_line(tcp_server):
    @tcp_server.handler
    def lines(conn):
        while conn.recv_line():
            pass

    with tcp_server.raises(IncompleteRequest):
        with socket.create_connection(tcp_server.address) as client:
            client.sendall(b"one\ntwo")


def test_another_failure_is_not_taken(tcp_server):
    """What ``raises`` does not mean is still there for ``verify()``, and would fail the test."""

    @tcp_server.handler
    def broken(conn):
        raise {"1": KeyError, "2": ValueError}[conn.recv_line().decode().strip()](conn.index)

    with tcp_server.raises(ValueError):
        for number in (b"1\n", b"2\n"):
            with socket.create_connection(tcp_server.address) as client:
                client.sendall(number)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)

    with pytest.raises(KeyError):
        tcp_server.verify()
