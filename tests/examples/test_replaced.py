"""Clocks and sockets that a test replaces."""

import socket

import pytest
from freezegun import freeze_time

# Frozen


@freeze_time("2020-01-01")
def test_the_server_never_answers(tcp_server):
    with pytest.raises(TimeoutError, match="waited 0.1 s"):
        tcp_server.wait_connection(timeout=0.1)


# Guarded


@pytest.fixture
def only_this_machine(monkeypatch):
    connect = socket.socket.connect

    def guard(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            raise RuntimeError(f"no network in unit tests: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guard)


def test_guarded(only_this_machine, tcp_server):
    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"hello")
        tcp_server.wait_connection().wait_received(b"hello")
    with socket.socket() as client, pytest.raises(RuntimeError, match="no network"):
        client.connect(("192.0.2.1", 80))
