"""Defect 31: TLS whose handshake stops the loop.  Opt-in: ``TLSMixIn`` shakes hands in the handler's thread."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from types import ModuleType
from typing import Any

import pytest
import trustme

from .harness import LOCALHOST, Loop, accepted, connect, is_closed, patience, quiet, read, send

pytestmark = pytest.mark.defect(31, "opt-in")


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's context, and one that trusts it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def upper(self: Any) -> None:
    self.wfile.write(self.rfile.readline().upper())


def tls_server(module: ModuleType, base: str, context: ssl.SSLContext, handle: Any = upper, **attributes: Any) -> Any:
    bases = (module.ThreadingMixIn, module.TLSMixIn, module.TCPServer)[0 if base == "threading" else 1 :]
    server_class = type("Server", bases, {"ssl_context": context, **attributes})
    return server_class(LOCALHOST, quiet(module, handle, "StreamRequestHandler"))


def ask_tls(server: Any, context: ssl.SSLContext) -> bytes:
    with connect(server) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
        client.sendall(b"secret\n")
        return client.recv(100)


@pytest.mark.parametrize("base", ["threading", "plain"])
def test_tls_request_is_handled_with_its_timeout_restored(module: ModuleType, base: str, contexts: Any) -> None:
    timeouts = []

    def handle(self: Any) -> None:
        timeouts.append(self.connection.gettimeout())
        upper(self)

    with tls_server(module, base, contexts[0], handle) as server, Loop(server):
        assert ask_tls(server, contexts[1]) == b"SECRET\n"
    assert timeouts == [None]


def test_silent_client_stops_nobody(module: ModuleType, contexts: Any) -> None:
    with tls_server(module, "threading", contexts[0], handle_error=lambda *args: None) as server, Loop(server) as loop:
        with connect(server), connect(server) as half:
            send(half, b"\x16\x03\x01", end=False)  # the beginning of a ClientHello (RFC 8446, 5.1)

            assert ask_tls(server, contexts[1]) == b"SECRET\n"
            server.shutdown()
            assert loop.outcome() == "returned None"


@pytest.mark.parametrize("base", ["threading", "plain"])
def test_silent_client_is_dropped_after_handshake_timeout(module: ModuleType, base: str, contexts: Any) -> None:
    errors: list[Any] = []
    known = threading.Event()

    def note(self: Any, request: Any, client_address: Any) -> None:
        errors.append((sys.exc_info()[1], client_address))
        known.set()

    assert module.TLSMixIn.handshake_timeout == 5.0
    server = tls_server(module, base, contexts[0], handshake_timeout=0.05, handle_error=note)
    with server, Loop(server), connect(server) as silent:
        assert known.wait(patience())
        assert read(silent) == "b'', the end"
        ((error, client_address),) = errors

        assert isinstance(error, TimeoutError)
        assert client_address == silent.getsockname()


@pytest.mark.parametrize("base", ["threading", "plain"])
def test_failed_handshake_is_an_error_of_the_request(module: ModuleType, base: str, contexts: Any) -> None:
    errors: list[Any] = []
    server = tls_server(module, base, contexts[0], handle_error=lambda self, *args: errors.append(sys.exc_info()[1]))
    with server, accepted(server) as requests, Loop(server):
        with connect(server) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(OSError):
                while client.recv(100):
                    pass
        assert ask_tls(server, contexts[1]) == b"SECRET\n"
        server.server_close()
        assert [type(error) for error in errors] == [ssl.SSLError]
        assert [is_closed(request) for request in requests] == [True, True]


def test_end_of_a_tls_request_is_announced(module: ModuleType, contexts: Any) -> None:
    """Without close_notify a client cannot tell the end from a truncation (RFC 8446, 6.1)."""
    with tls_server(module, "threading", contexts[0]) as server, Loop(server), connect(server) as plain:
        context = contexts[1]
        with context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as client:
            client.sendall(b"secret\n")

            assert client.recv(100) == b"SECRET\n"
            assert client.recv(100) == b""


def test_without_the_mix_in_there_is_no_tls(module: ModuleType) -> None:
    assert not issubclass(module.TCPServer, module.TLSMixIn)
    assert module.TLSMixIn.ssl_context is None
    with module.TCPServer(LOCALHOST, quiet(module, lambda self: self.request.sendall(b"plain"))) as server:
        with Loop(server), socket.create_connection(server.server_address, patience()) as client:
            assert read(client) == "b'plain', the end"
