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


@pytest.fixture(scope="module")  # its demand is for all tests of the module together
def greeter(sockserver_module):
    server = sockserver_module.tcp(name="greeter")
    server.on(b"hello\n", times=(1, None)).reply(b"hi\n")
    return server


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


def test_greeting(greeter):
    with socket.create_connection(greeter.address) as sock, sock.makefile("rwb", buffering=0) as file:
        file.write(b"hello\n")
        assert file.readline() == b"hi\n"


def test_nothing_is_said(greeter):
    with socket.create_connection(greeter.address):
        pass
