"""Ours beside the standard library's: mix-ins, servers and handlers of the two may meet in one class or one program."""

from __future__ import annotations

import functools
import http.client
import http.server
import os
import socketserver
import wsgiref.simple_server
import xmlrpc.client
import xmlrpc.server
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .harness import LOCALHOST, Call, Loop, ask, connect, echo, is_closed, patience, quiet, serve_one, until
from .programs.forking import is_child, visitor
from .programs.threads import Gate

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


def get(server: Any, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.server_address, timeout=patience())
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def test_standard_http_handler_runs_on_our_server(module: ModuleType, tmp_path: Path) -> None:
    tmp_path.joinpath("page").write_bytes(b"content")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))

    with module.ThreadingTCPServer(LOCALHOST, handler) as server, Loop(server):
        assert get(server, "/page") == (200, b"content")
        assert get(server, "/none")[0] == 404


def test_our_threading_mix_in_runs_a_standard_server(module: ModuleType) -> None:
    gate = Gate(module)
    server_class = type("Server", (module.ThreadingMixIn, http.server.HTTPServer), {})

    with server_class(LOCALHOST, gate.handler) as server, connect(server):
        serve_one(server)
        gate.reached()
        assert len(server._threads) == 1
        closing = Call(server.server_close)
        until(lambda: is_closed(server.socket))
        gate.open()
        assert closing.outcome() == "returned None"

    assert not gate.threads[0].is_alive()


def test_standard_threading_mix_in_runs_our_server(module: ModuleType) -> None:
    server_class = type("Server", (socketserver.ThreadingMixIn, module.TCPServer), {})

    with server_class(LOCALHOST, echo(module)) as server, Loop(server):
        assert ask(server, b"served\n") == "b'SERVED\\n', the end"


@needs_fork
@pytest.mark.parametrize("ours", ["mix-in", "server"])
def test_forking_mix_in_runs_a_server_of_the_other_kind(module: ModuleType, ours: str) -> None:
    bases = (module.ForkingMixIn, socketserver.TCPServer)
    if ours == "server":
        bases = (socketserver.ForkingMixIn, module.TCPServer)
    server_class = type("Server", bases, {})

    with server_class(LOCALHOST, quiet(module, lambda self: self.request.recv(1))) as server:
        with visitor(server):
            serve_one(server)
            (pid,) = server.active_children

    assert not is_child(pid)


def test_standard_stream_handler_and_ours_take_turns(module: ModuleType) -> None:
    with module.TCPServer(LOCALHOST, echo(module)) as server, Loop(server):
        for source in module, socketserver, module:
            server.RequestHandlerClass = echo(source)
            assert ask(server, b"served\n") == "b'SERVED\\n', the end"


def test_our_mix_in_runs_xml_rpc(module: ModuleType) -> None:
    server_class = type("Server", (module.ThreadingMixIn, xmlrpc.server.SimpleXMLRPCServer), {})

    with server_class(LOCALHOST, logRequests=False) as server, Loop(server):
        server.register_function(lambda *words: " ".join(words), "join")
        host, port = server.server_address
        with xmlrpc.client.ServerProxy(f"http://{host}:{port}/") as client:
            assert client.join("several", "words") == "several words"


def test_our_mix_in_runs_wsgi(module: ModuleType) -> None:
    class Handler(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    server_class = type("Server", (module.ThreadingMixIn, wsgiref.simple_server.WSGIServer), {})
    with server_class(LOCALHOST, Handler) as server, Loop(server):
        server.set_app(application)
        assert get(server, "/path") == (200, b"/path")
