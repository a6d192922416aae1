"""Share a server between the tests of a module."""

import socket

import pytest


@pytest.fixture(scope="module")
def running_server(sockserver_module):
    return sockserver_module.tcp(name="clock")


@pytest.fixture
def clock(running_server):
    running_server.clear()  # what the previous test declared and recorded

    @running_server.handler
    def tell_time(conn):
        conn.send(b"12:00\n")

    return running_server


def read(address):
    with socket.create_connection(address) as sock, sock.makefile("rb") as lines:
        return lines.readline()


def test_time_is_noon(clock):
    assert read(clock.address) == b"12:00\n"
    assert len(clock.connections) == 1


def test_time_is_midnight(clock):
    @clock.handler  # the latest declared counts
    def midnight(conn):
        conn.send(b"00:00\n")

    assert read(clock.address) == b"00:00\n"
    assert len(clock.connections) == 1
