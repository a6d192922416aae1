"""Programs: what the examples in the documentation of ``socketserver`` exercise, the import aside.

Two TCP handlers (``recv`` by hand, and file objects), a datagram one, and the mix-in for threads; each with its client.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

from ..harness import LOCALHOST, Call, Trace, patience, program


def say(address: Any, text: str) -> str:
    """The clients' half: connect, send a line, read the answer."""
    with socket.create_connection(address, timeout=patience()) as sock:
        sock.sendall(f"{text}\n".encode())
        return sock.recv(1024).decode()


@program("examples: a TCP server that reads pieces with recv")
def tcp_example_with_recv(module: Any) -> Trace:
    trace: Trace = []

    class Handler(module.BaseRequestHandler):
        def handle(self) -> None:
            pieces = [b""]
            total = 0
            while b"\n" not in pieces[-1] and total < 10_000:
                pieces.append(self.request.recv(2000))
                total += len(pieces[-1])
            self.data = b"".join(pieces)
            trace.append(f"from {self.client_address[0]}: {self.data.decode()!r}")
            self.request.sendall(self.data.upper())

    with module.TCPServer(LOCALHOST, Handler) as server:
        loop = Call(server.serve_forever, 0.01)
        trace.append(say(server.server_address, "hello world with TCP"))
        trace.append(say(server.server_address, "python is nice"))
        server.shutdown()
        trace.append(loop.outcome())
    return trace


@program("examples: a TCP server on file objects")
def tcp_example_with_files(module: Any) -> Trace:
    trace: Trace = []

    class Handler(module.StreamRequestHandler):
        def handle(self) -> None:
            self.data = self.rfile.readline(10_000).rstrip()
            trace.append(f"from {self.client_address[0]}: {self.data.decode('utf-8')!r}")
            self.wfile.write(self.data.upper())

    with module.TCPServer(LOCALHOST, Handler) as server:
        loop = Call(server.serve_forever, 0.01)
        trace.append(say(server.server_address, "hello world with TCP"))
        trace.append(say(server.server_address, "python is nice"))
        server.shutdown()
        trace.append(loop.outcome())
    return trace


@program("examples: a datagram server")
def udp_example(module: Any) -> Trace:
    trace: Trace = []

    class Handler(module.BaseRequestHandler):
        def handle(self) -> None:
            data = self.request[0].strip()
            sock = self.request[1]
            trace.append(f"{self.client_address[0]} wrote: {data!r}")
            sock.sendto(data.upper(), self.client_address)

    with module.UDPServer(LOCALHOST, Handler) as server:
        loop = Call(server.serve_forever, 0.01)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience())
            for text in "hello world with UDP", "python is nice":
                sock.sendto(f"{text}\n".encode(), server.server_address)
                trace.append(str(sock.recv(1024), "utf-8"))
        server.shutdown()
        trace.append(loop.outcome())
    return trace


@program("examples: a server with a thread for each request")
def threading_example(module: Any) -> Trace:
    class Handler(module.BaseRequestHandler):
        def handle(self) -> None:
            data = str(self.request.recv(1024), "ascii")
            thread = threading.current_thread()
            self.request.sendall(bytes(f"{thread.name != loop.name}: {data}", "ascii"))

    class Server(module.ThreadingMixIn, module.TCPServer):
        pass

    server = Server(LOCALHOST, Handler)
    with server:
        loop = threading.Thread(target=server.serve_forever, args=(0.01,))
        loop.daemon = True
        loop.start()
        trace = [say(server.server_address, f"hello world {number}") for number in (1, 2, 3)]
        server.shutdown()
        loop.join(patience())
        return [*trace, f"loop ended: {not loop.is_alive()}"]
