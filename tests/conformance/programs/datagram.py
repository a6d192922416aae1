"""Programs: datagram servers and ``DatagramRequestHandler``."""

from __future__ import annotations

import io
from typing import Any

from ..harness import LOCALHOST, Loop, Trace, datagram_client, directory, program, quiet, receive, serve_one
from .one_request import Fake, fail, hooked
from .stream import Silent


def exchange(server: Any, *packets: bytes) -> Trace:
    """Send each packet to a server in this thread; what came back for it."""
    trace: Trace = []
    with datagram_client(server) as client:
        for packet in packets:
            client.sendto(packet, server.server_address)
            serve_one(server)
            trace.append(receive(client))
    return trace


def echoing(module: Any) -> type:
    return quiet(module, lambda self: self.wfile.write(self.rfile.read().upper()), "DatagramRequestHandler")


@program("datagrams: one reply each")
def one_reply_for_each_datagram(module: Any) -> Trace:
    with module.UDPServer(LOCALHOST, echoing(module)) as server:
        trace = exchange(server, b"first", b"second", b"")
        with Loop(server), datagram_client(server) as client:
            client.sendto(b"by the loop", server.server_address)
            return [*trace, receive(client)]


@program("datagrams: the hooks, in order")
def datagram_hooks_in_order(module: Any) -> Trace:
    trace: Trace = []
    with hooked(module, trace, "UDPServer")(LOCALHOST, echoing(module)) as server:
        trace += exchange(server, b"data")
    return trace


@program("datagrams: the request is (data, the server's socket)")
def request_is_data_and_socket(module: Any) -> Trace:
    trace: Trace = []

    def answer(self: Any) -> None:
        data, sock = self.request
        trace.append(f"{data!r}, the server's socket: {sock.fileno() == self.server.fileno()}")
        sock.sendto(data.upper(), self.client_address)

    with module.UDPServer(LOCALHOST, quiet(module, answer)) as server:
        trace += exchange(server, b"data")
    return trace


@program("datagram handler: packet, socket, rfile and wfile")
def datagram_handler_attributes(module: Any) -> Trace:
    trace: Trace = []

    def tell(self: Any) -> None:
        trace.append(f"{self.packet!r} {self.rfile.read(2)!r} {self.rfile.read()!r}")
        trace.append(f"{self.socket.fileno() == self.server.fileno()} {self.request[0] is self.packet}")
        trace.append(f"{isinstance(self.rfile, io.BytesIO)} {isinstance(self.wfile, io.BytesIO)}")
        self.wfile.write(b"in two ")
        self.wfile.write(b"writes")

    with module.UDPServer(LOCALHOST, quiet(module, tell, "DatagramRequestHandler")) as server:
        trace += exchange(server, b"data")
    return trace


@program("defect 14: a datagram handler that writes nothing sends an empty datagram")
def silent_handler_sends_an_empty_datagram(module: Any) -> Trace:
    handler = quiet(module, lambda self: None, "DatagramRequestHandler")
    server_class = type("Server", (module.UDPServer,), {})
    with server_class(LOCALHOST, handler) as server, datagram_client(server) as client:
        client.sendto(b"no answer?", server.server_address)
        serve_one(server)
        server.socket.sendto(b"the next datagram", client.getsockname())
        return [receive(client)]


@program("datagram handler: what was written before an error is sent")
def reply_is_sent_despite_an_error(module: Any) -> Trace:
    def half(self: Any) -> None:
        self.wfile.write(b"half a rep")
        fail()

    server_class = type("Server", (Silent, module.UDPServer), {})
    with server_class(LOCALHOST, quiet(module, half, "DatagramRequestHandler")) as server:
        return exchange(server, b"data")


@program("defect 16: a datagram longer than max_packet_size is cut")
def long_datagram_is_cut(module: Any) -> Trace:
    trace: Trace = []
    handler = quiet(module, lambda self: self.wfile.write(b"%d" % len(self.packet)), "DatagramRequestHandler")
    for attributes in {}, {"max_packet_size": 5}:
        with type("Server", (module.UDPServer,), dict(attributes))(LOCALHOST, handler) as server:
            trace += exchange(server, bytes(5), bytes(6), bytes(8192), bytes(8193))
    return trace


@program("datagrams: neither shutdown_request nor close_request touches the request")
def datagram_requests_are_not_closed(module: Any) -> Trace:
    trace: Trace = []
    with hooked(module, trace, "UDPServer")(LOCALHOST, None) as server:
        server.shutdown_request(Fake(trace))
    return trace


@program("datagrams: a thread each")
def datagrams_in_threads(module: Any) -> Trace:
    with module.ThreadingUDPServer(LOCALHOST, echoing(module)) as server:
        return exchange(server, b"first", b"second")


@program("datagrams: between bound unix sockets", needs=("AF_UNIX",))
def unix_datagrams(module: Any) -> Trace:
    trace: Trace = []
    for name in "UnixDatagramServer", "ThreadingUnixDatagramServer":
        with directory() as folder, getattr(module, name)(f"{folder}/server", echoing(module)) as server:
            with datagram_client(server, f"{folder}/client") as client:
                client.sendto(b"data", server.server_address)
                serve_one(server)
                trace.append(receive(client))
    return trace


@program("datagrams: an unbound unix client is heard, and has no address", needs=("AF_UNIX", "Linux"))
def unbound_unix_client_is_heard(module: Any) -> Trace:
    trace: Trace = []
    handler = quiet(module, lambda self: trace.append(f"{self.request[0]!r}, address {self.client_address or 'none'}"))
    with directory() as folder, module.UnixDatagramServer(f"{folder}/server", handler) as server:
        with datagram_client(server) as client:
            client.sendto(b"data", server.server_address)
            serve_one(server)
    return trace
