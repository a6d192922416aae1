"""Programs: how a server comes to be, and how it goes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any

from ..harness import LOCALHOST, Trace, directory, echo, handle_one, is_closed, program


def recording(module: Any, trace: Trace, base: str = "TCPServer", **attributes: Any) -> type:
    """A server class that tells the trace of each step of its construction and of its end."""

    class Server(getattr(module, base)):
        def server_bind(self) -> None:
            trace.append(f"server_bind, not bound yet: {self.socket.getsockname()[1] == 0}")
            super().server_bind()

        def server_activate(self) -> None:
            listening = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            trace.append(f"server_activate, listening already: {bool(listening)}")
            super().server_activate()

        def server_close(self) -> None:
            trace.append("server_close")
            super().server_close()

    return type("Server", (Server,), attributes)


class Backlogs(socket.socket):
    """A socket that remembers what it was told to listen with."""

    def listen(self, *backlog: int) -> None:
        self.backlogs = [*getattr(self, "backlogs", []), *backlog]
        super().listen(*backlog)


@program("construction: __init__ binds, then activates")
def binds_then_activates(module: Any) -> Trace:
    trace: Trace = []
    handler = echo(module)
    with recording(module, trace)(LOCALHOST, handler) as server:
        host, port = server.server_address
        trace += [
            f"address {host}, a port of its own: {port != 0}",
            f"address is the socket's: {server.server_address == server.socket.getsockname()}",
            f"class kept: {server.RequestHandlerClass is handler}",
            f"fileno is the socket's: {server.fileno() == server.socket.fileno()}",
            f"socket blocks: {server.socket.gettimeout() is None}",
        ]
    return trace


@program("construction: bind_and_activate=False leaves both to the caller")
def leaves_binding_to_the_caller(module: Any) -> Trace:
    trace: Trace = []
    with recording(module, trace)(LOCALHOST, echo(module), bind_and_activate=False) as server:
        trace.append(f"address as given: {server.server_address == LOCALHOST}")
        server.server_bind()
        server.server_activate()
        trace.append(handle_one(server, b"served\n"))
    return trace


@program("construction: the caller may bring a listening socket of its own")
def takes_a_socket_from_elsewhere(module: Any) -> Trace:
    with socket.create_server(LOCALHOST) as mine, module.TCPServer(LOCALHOST, echo(module), False) as server:
        server.socket.close()
        server.socket = socket.socket(fileno=os.dup(mine.fileno()))
        server.server_address = server.socket.getsockname()
        return [handle_one(server, b"served\n")]


@program("construction: TCPServer calls BaseServer.__init__ by name, not through super()")
def calls_base_init_by_name(module: Any) -> Trace:
    trace: Trace = []

    class Between(module.BaseServer):
        def __init__(self, *args: Any) -> None:
            trace.append("Between.__init__")
            super().__init__(*args)

    class Server(module.TCPServer, Between):
        pass

    with Server(LOCALHOST, echo(module)) as server:
        trace.append(handle_one(server, b"served\n"))
    return trace


@program("construction: a bare BaseServer holds the address and the class")
def base_server_holds_its_arguments(module: Any) -> Trace:
    with module.BaseServer("anywhere", "anything") as server:
        server.server_activate()
        return [
            f"{server.server_address} {server.RequestHandlerClass} {server.timeout}",
            f"{server.service_actions()} {server.handle_timeout()} {server.verify_request(None, None)}",
        ]


@program("construction: instance attributes set before __init__ decide the socket", needs=("AF_UNIX",))
def instance_attributes_decide_the_socket(module: Any) -> Trace:
    class Server(module.TCPServer):
        def __init__(self, address: Any, **attributes: Any) -> None:
            vars(self).update(attributes)
            super().__init__(address, echo(module))

    trace: Trace = []
    with directory() as folder, Server(f"{folder}/s", address_family=socket.AF_UNIX) as server:
        trace.append(f"{server.socket.family.name}, address kept: {server.server_address == f'{folder}/s'}")
        trace.append(handle_one(server, b"served\n"))
    with Server(LOCALHOST, request_queue_size=3, allow_reuse_address=True) as server:
        trace.append(f"reuse: {bool(server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))}")
    return trace


@program("construction: address_family = AF_INET6", needs=("IPv6",))
def ipv6_by_address_family(module: Any) -> Trace:
    server_class = type("Server", (module.TCPServer,), {"address_family": socket.AF_INET6})
    with server_class(("::1", 0), echo(module)) as server:
        return [handle_one(server, b"served\n"), f"{len(server.server_address)} fields, {server.server_address[0]}"]


@program("construction: server_bind sets SO_REUSEADDR and SO_REUSEPORT as the class asks", needs=("allow_reuse_port",))
def reuse_options_follow_the_attributes(module: Any) -> Trace:
    trace: Trace = []
    for base in "TCPServer", "UDPServer":
        for name in "allow_reuse_address", "allow_reuse_port":
            for value in False, True:
                server_class = type("Server", (getattr(module, base),), {name: value})
                with server_class(LOCALHOST, echo(module)) as server:
                    reuse = [
                        bool(server.socket.getsockopt(socket.SOL_SOCKET, option))
                        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
                    ]
                trace.append(f"{base} {name}={value}: SO_REUSEADDR, SO_REUSEPORT = {reuse}")
    return trace


@program("construction: server_bind sets SO_REUSEADDR as the class asks")
def reuse_address_follows_the_attribute(module: Any) -> Trace:
    trace: Trace = []
    for value in False, True:
        server_class = type("Server", (module.TCPServer,), {"allow_reuse_address": value})
        with server_class(LOCALHOST, echo(module)) as server:
            reuse = bool(server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
        trace.append(f"allow_reuse_address={value}: SO_REUSEADDR={reuse}")
    return trace


@program("construction: server_activate listens with request_queue_size")
def listens_with_request_queue_size(module: Any) -> Trace:
    trace: Trace = []
    for attributes in {}, {"request_queue_size": 3}:
        server_class = type("Server", (module.TCPServer,), dict(attributes))
        with server_class(LOCALHOST, echo(module), bind_and_activate=False) as server:
            server.socket.close()
            server.socket = Backlogs(socket.AF_INET, socket.SOCK_STREAM)
            server.server_bind()
            server.server_activate()
            trace.append(f"{attributes or 'default'}: listen{server.socket.backlogs}")
    return trace


@program("construction: a failure to bind closes the socket and leaves __init__ (bpo-22435)")
def bind_failure_closes_the_socket(module: Any) -> Trace:
    trace: Trace = []
    sockets = []

    class Server(recording(module, trace)):
        def server_bind(self) -> None:
            sockets.append(self.socket)
            super().server_bind()

    with socket.create_server(LOCALHOST) as taken:
        try:
            Server(taken.getsockname(), echo(module))
        except OSError as error:
            trace.append(f"raised EADDRINUSE: {error.errno == errno.EADDRINUSE}")
    trace.append(f"closed: {[is_closed(sock) for sock in sockets]}")
    for sock in sockets:
        sock.close()
    return trace


@program("construction: any exception, KeyboardInterrupt too, closes the socket and leaves __init__")
def interrupt_in_activate_closes_the_socket(module: Any) -> Trace:
    trace: Trace = []
    servers = []

    class Server(recording(module, trace)):
        def server_activate(self) -> None:
            servers.append(self)
            raise KeyboardInterrupt

    try:
        Server(LOCALHOST, echo(module))
    except KeyboardInterrupt:
        trace.append("raised KeyboardInterrupt")
    trace.append(f"closed: {[is_closed(server.socket) for server in servers]}")
    for server in servers:
        server.socket.close()
    return trace


@program("construction: two servers cannot have one port")
def second_server_on_a_port_is_refused(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as first:
        try:
            second = module.TCPServer(first.server_address, echo(module))
        except OSError as error:
            return [f"refused: {type(error).__name__}", handle_one(first, b"still served\n")]
        second.server_close()
        return ["two servers"]


@program("construction: server_close closes the socket, once or twice")
def server_close_is_idempotent(module: Any) -> Trace:
    server = module.TCPServer(LOCALHOST, echo(module))
    trace = [f"returned {server.server_close()}, fileno {server.fileno()}"]
    trace.append(f"returned {server.server_close()}, fileno {server.fileno()}")
    return trace


@program("construction: the context manager closes, and neither shuts down nor hides an exception")
def context_manager_only_closes(module: Any) -> Trace:
    trace: Trace = []

    class Server(recording(module, trace)):
        def shutdown(self) -> None:
            trace.append("shutdown")

    server = Server(LOCALHOST, echo(module))
    with contextlib.suppress(ZeroDivisionError), server as entered:
        trace.append(f"enters as itself: {entered is server}")
        raise ZeroDivisionError
    trace.append(f"closed: {is_closed(server.socket)}")
    return trace


@program("construction: a unix server's address is its path, which server_close leaves", needs=("AF_UNIX",))
def unix_path_is_the_address_and_stays(module: Any) -> Trace:
    trace: Trace = []
    for base in "UnixStreamServer", "UnixDatagramServer":
        with directory() as folder:
            path = f"{folder}/s"
            server_class = getattr(module, base)
            with server_class(path, echo(module)) as server:
                trace.append(f"{base}: address is the path: {server.server_address == path}")
            trace.append(f"left behind: {os.path.exists(path)}")
            try:
                server_class(path, echo(module)).server_close()
            except OSError as error:
                trace.append(f"again: {type(error).__name__}")
    return trace


@program("construction: a datagram server binds and never listens")
def datagram_server_never_listens(module: Any) -> Trace:
    with module.UDPServer(LOCALHOST, echo(module), bind_and_activate=False) as server:
        server.socket.close()
        server.socket = Backlogs(socket.AF_INET, socket.SOCK_DGRAM)
        server.server_bind()
        server.server_activate()
        return [f"listened: {hasattr(server.socket, 'backlogs')}, bound: {server.server_address[1] != 0}"]


@program("construction: an IPv6 address needs address_family (defect 19)", needs=("IPv6",))
def ipv6_address_alone_is_refused(module: Any) -> Trace:
    try:
        module.TCPServer(("::1", 0), echo(module)).server_close()
    except socket.gaierror:
        return ["gaierror"]
    return ["bound"]


@program("defect 38: descriptors above FD_SETSIZE are served", needs=("fork",))
def descriptor_above_fd_setsize_is_served(module: Any) -> Trace:
    import fcntl
    import resource

    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
        return ["not enough descriptors to tell"]
    with module.TCPServer(LOCALHOST, echo(module), bind_and_activate=False) as server:
        high = fcntl.fcntl(server.fileno(), fcntl.F_DUPFD, 1100)
        server.socket.close()
        server.socket = socket.socket(fileno=high)
        server.server_bind()
        server.server_activate()
        return [f"descriptor {server.fileno() >= 1100}, {handle_one(server, b'served' + bytes([10]))}"]
