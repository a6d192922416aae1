"""Make the server refuse connections, then accept."""

import socket
import time

import pytest


def connect(address, tries=3, pause=time.sleep):
    """Connect to a server that may be starting still."""
    for seconds in range(1, tries):
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            pause(seconds)
    return socket.create_connection(address)


def test_client_tells_that_nobody_is_there(tcp_server):
    with tcp_server.refuse():
        with pytest.raises(ConnectionRefusedError):
            connect(tcp_server.address, tries=1)

    connect(tcp_server.address).close()

    tcp_server.wait_connection()


def test_client_tries_again_until_the_server_is_up(tcp_server):
    pauses = []

    def server_comes_up(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            tcp_server.listen()

    tcp_server.refuse()
    connect(tcp_server.address, pause=server_comes_up).close()

    assert pauses == [1, 2]
    tcp_server.wait_connection()


def test_client_survives_a_restart(tcp_server):
    with connect(tcp_server.address) as sock:
        tcp_server.wait_connection()
        tcp_server.restart()
        assert sock.recv(1024) == b""

    connect(tcp_server.address).close()
    tcp_server.wait_connection(1)


def test_server_is_stopped_and_started_again(tcp_server):
    address = tcp_server.address

    connect(address).close()
    tcp_server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(address, tries=1)
    tcp_server.start()
    connect(address).close()

    tcp_server.wait_connection(1)
    assert tcp_server.address == address


def test_connecting_takes_too_long(tcp_server):
    with tcp_server.blackhole():
        with pytest.raises(TimeoutError):
            socket.create_connection(tcp_server.address, timeout=0.1)

    connect(tcp_server.address).close()


def test_nobody_takes_the_datagrams(udp_server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(udp_server.address)
        with udp_server.refuse():
            sock.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(1024)
        sock.send(b"hello")

    assert udp_server.wait_for() == b"hello"
