"""Use it without pytest: in unittest, in a script, in another test runner."""

import contextlib
import socket
import unittest

from pytest_sockserver import DatagramTestServer, SockServer, StreamTestServer


def ask(address, question):
    with socket.create_connection(address) as sock, sock.makefile("rb") as lines:
        sock.sendall(question)
        return lines.readline()


def echo(conn):
    while line := conn.recv_line():
        conn.send(line)


class TestOneServer(unittest.TestCase):
    def setUp(self):
        self.server = StreamTestServer()
        stack = contextlib.ExitStack()
        stack.enter_context(self.server)
        self.addCleanup(stack.close)  # stops the server, then raises what went wrong in it

    def test_echo(self):
        self.server.handler(echo)

        self.assertEqual(ask(self.server.address, b"hello\n"), b"hello\n")


def test_factory_as_a_context_manager():
    with SockServer(timeout=1.0) as sockserver:
        first, second = sockserver.tcp(name="first"), sockserver.tcp(name="second")
        first.handler(echo)
        second.handler(lambda conn: conn.send(ask(first.address, conn.recv_line())))

        assert ask(second.address, b"through both\n") == b"through both\n"


def test_other_transports():
    with StreamTestServer(transport="unix") as server, DatagramTestServer() as datagrams:
        assert isinstance(server.address, str)
        assert datagrams.address[0] == "127.0.0.1"
