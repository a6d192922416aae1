"""Where servers listen, what they may be asked to be, and what is said of addresses and options that cannot be."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pytest_sockserver import AddressUnavailable, DatagramTestServer, InvalidState, SockServer, StreamTestServer

from .peers import connect, connect_to, datagram_client, read_to_end, until

ROOT = Path(__file__).parent.parent


def comm() -> str:
    return Path("/proc/self/comm").read_text().strip()


def echoed(server: StreamTestServer) -> bytes:
    server.handler(lambda conn: conn.send(conn.recv_line()))
    with connect(server) as client:
        client.sendall(b"hi\n")
        return read_to_end(client)


# Addresses


def test_a_tcp_server_listens_on_loopback_on_a_port_of_its_own(sockserver: SockServer) -> None:
    servers = [sockserver.tcp() for _ in range(20)]

    assert len({server.port for server in servers}) == 20
    for server in servers:
        assert server.address == (server.host, server.port) == ("127.0.0.1", server.port)
        assert server.port > 1023
    assert echoed(servers[7]) == b"hi\n"


@pytest.mark.parametrize("host", ["::1", "ip6-localhost"])
def test_an_ipv6_server_has_a_pair_for_an_address_as_well(sockserver: SockServer, host: str) -> None:
    server = sockserver.tcp(host=host)

    assert server.address == ("::1", server.port)
    assert server.url("http") == f"http://[::1]:{server.port}"
    assert echoed(server) == b"hi\n"
    assert server.connections[0].peer[0] == "::1"


def test_an_ipv6_datagram_server_answers(sockserver: SockServer) -> None:
    server = sockserver.udp(host="::1")
    server.handler(lambda request: request)

    with datagram_client(server) as client:
        client.send(b"hi")
        assert client.recv(100) == b"hi"


@pytest.mark.parametrize(("host", "bound"), [("localhost", "127.0.0.1"), ("127.0.0.9", "127.0.0.9")])
def test_other_names_of_loopback(sockserver: SockServer, host: str, bound: str) -> None:
    server = sockserver.tcp(host=host)

    assert server.address == (bound, server.port)
    assert echoed(server) == b"hi\n"


def test_a_server_on_all_addresses_is_reached_by_loopback(sockserver: SockServer) -> None:
    server = sockserver.tcp(host="0.0.0.0", allow_remote=True)

    assert server.address == ("127.0.0.1", server.port)
    assert echoed(server) == b"hi\n"


def test_a_fixed_port_is_taken_as_asked(sockserver: SockServer) -> None:
    free = sockserver.tcp()
    port = free.port
    free.stop()

    server = sockserver.tcp(port=port)

    assert server.port == port
    assert echoed(server) == b"hi\n"


def test_tcp_and_udp_share_a_port(sockserver: SockServer) -> None:
    for _ in range(10):
        tcp, udp = sockserver.tcp_and_udp()

        assert tcp.port == udp.port
    assert echoed(tcp) == b"hi\n"
    with datagram_client(udp) as client:
        client.send(b"hi")
        assert udp.wait_for(b"hi")


def test_tcp_and_udp_are_named_apart_and_share_what_says_something_to_both(sockserver: SockServer) -> None:
    tcp, udp = sockserver.tcp_and_udp(name="dns", timeout=3, max_frame=100, host="::1")

    assert (tcp.name, udp.name) == ("dns (tcp)", "dns (udp)")
    assert (tcp.timeout, udp.timeout) == (3, 3)
    assert tcp.address == udp.address == ("::1", tcp.port)


def test_a_unix_server_has_a_short_private_path(sockserver: SockServer) -> None:
    servers = [sockserver.unix(), sockserver.unix_datagram()]

    for server in servers:
        assert isinstance(server.path, str)
        assert server.address == server.path
        assert len(server.path) < 60
        assert Path(server.path).parent.stat().st_mode & 0o777 == 0o700
    assert servers[0].path != servers[1].path
    assert echoed(servers[0]) == b"hi\n"


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_unix_server_takes_a_path_of_any_type_and_removes_its_file_alone(
    sockserver: SockServer, tmp_path_factory: pytest.TempPathFactory, kind: Any
) -> None:
    with SockServer() as outer:
        directory = Path(outer.unix().path).parent
        path = directory / "other"
        server = sockserver.unix(path=kind(str(path)))

        assert path.is_socket()
        assert os.fspath(server.path) == os.fspath(kind(str(path)))
        assert echoed(server) == b"hi\n"
        server.stop()
        assert not path.exists()
        assert directory.exists()


def test_a_file_that_somebody_put_in_the_sockets_place_stays(sockserver: SockServer, tmp_path: Path) -> None:
    with SockServer() as outer:
        path = Path(outer.unix().path).parent / "other"
        server = sockserver.unix(path=path)
        path.unlink()
        path.write_text("mine")

        server.stop()

        assert path.read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's alone")
@pytest.mark.parametrize("name", ["\0", b"\0"])
def test_an_abstract_name_may_be_the_kernels(sockserver: SockServer, name: Any) -> None:
    server = sockserver.unix(path=name)

    assert isinstance(server.path, bytes)
    assert server.path[:1] == b"\0"
    assert len(server.path) == 6
    assert echoed(server) == b"hi\n"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's alone")
@pytest.mark.parametrize("kind", ["unix", "unix_datagram"])
def test_an_abstract_name_may_be_ones_own_and_outlives_the_stop(sockserver: SockServer, kind: str) -> None:
    name = f"\0sockserver test {os.getpid()}"
    server = getattr(sockserver, kind)(path=name)
    address = server.address

    assert address == name.encode()
    server.stop()
    server.start()
    assert server.address == address
    assert repr(server) == f"<{type(server).__name__} {kind} @{name[1:]}, started>"


# URLs


def test_a_url_is_made_of_the_address(sockserver: SockServer) -> None:
    tcp, unix = sockserver.tcp(), sockserver.unix()

    assert tcp.url("redis") == f"redis://127.0.0.1:{tcp.port}"
    assert unix.url("unix") == f"unix://{unix.path}"
    assert unix.url("http+unix") == f"http+unix://{unix.path.replace('/', '%2F')}"


# What a server of one kind has not


@pytest.mark.parametrize(
    ("kind", "what", "message"),
    [
        ("tcp", "path", "tcp is a tcp server: it has a host and a port, no path"),
        ("udp", "path", "udp is a udp server: it has a host and a port, no path"),
        ("unix", "host", "unix is a unix server: it has a path, no host"),
        ("unix_datagram", "port", "unix_datagram is a unix_datagram server: it has a path, no port"),
    ],
)
def test_what_an_address_has_not_is_said(sockserver: SockServer, kind: str, what: str, message: str) -> None:
    with pytest.raises(InvalidState) as raised:
        getattr(getattr(sockserver, kind)(), what)

    assert str(raised.value) == message


# Addresses that cannot be had


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_names_who_has_it(sockserver: SockServer, kind: str, host: str) -> None:
    have = getattr(sockserver, kind)(host=host)
    shown = f"[{host}]" if ":" in host else host

    with pytest.raises(AddressUnavailable) as raised:
        getattr(sockserver, kind)(host=host, port=have.port)

    assert str(raised.value) == (
        f"[Errno {errno.EADDRINUSE}] {shown}:{have.port} is taken by process {os.getpid()} ({comm()}, this process): "
        "use port=0, and the port the server then has"
    )
    assert raised.value.errno == errno.EADDRINUSE
    assert isinstance(raised.value, OSError)
    assert raised.traceback[0].path == Path(__file__)


def test_a_port_taken_by_another_process_names_it(sockserver: SockServer) -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        port = int(other.stdout.readline())
        name = Path(f"/proc/{other.pid}/comm").read_text().strip()

        with pytest.raises(AddressUnavailable) as raised:
            sockserver.tcp(port=port)
        other.communicate("\n", timeout=5)

    assert str(raised.value) == (
        f"[Errno {errno.EADDRINUSE}] 127.0.0.1:{port} is taken by process {other.pid} ({name}): "
        "use port=0, and the port the server then has"
    )


def udp_outside_the_ephemeral_ports(sockserver: SockServer) -> DatagramTestServer:
    """Whose number no client of another process can have meanwhile, for TCP."""
    for port in range(21000 + os.getpid() % 5000, 32000):
        try:
            return sockserver.udp(port=port)
        except AddressUnavailable:
            continue
    raise AssertionError("no port is free")


def test_a_port_taken_for_both_names_it(sockserver: SockServer) -> None:
    have = udp_outside_the_ephemeral_ports(sockserver)

    with pytest.raises(AddressUnavailable, match=f"127.0.0.1:{have.port} is taken by process {os.getpid()} "):
        sockserver.tcp_and_udp(port=have.port)

    with pytest.raises(ConnectionRefusedError):  # the TCP half was given back
        connect_to(have.address)


AS_NOBODY = textwrap.dedent(
    """
    import os, sys
    from pytest_sockserver import AddressUnavailable, SockServer
    import pytest_sockserver.server.factory, pytest_sockserver.server.stream, difflib
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        with SockServer() as sockserver:
            sockserver.tcp(port=80)
    except AddressUnavailable as error:
        print(error)
    else:
        print("it could be bound")
    """
)


def test_a_privileged_port_says_what_to_use() -> None:
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if start.exists() and int(start.read_text()) <= 80:
        pytest.skip("this machine lets everybody bind port 80")

    said = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )

    assert said.stdout == (
        f"[Errno {errno.EACCES}] 127.0.0.1:80 is a privileged port, below 1024: "
        "use port=0, and the port the server then has\n"
    )


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", "host '192.0.2.1' is not local: other machines could connect to it; expected one of 127.0.0.0/8 "
         "or '::1'; pass allow_remote=True if that is meant"),
        ("0.0.0.0", "host '0.0.0.0' is not local: other machines could connect to it; expected one of 127.0.0.0/8 "
         "or '::1'; pass allow_remote=True if that is meant"),
        ("::", "host '::' is not local: other machines could connect to it; expected one of 127.0.0.0/8 "
         "or '::1'; pass allow_remote=True if that is meant"),
        ("example.org", "host 'example.org' is not a local address: expected one of 127.0.0.0/8, '::1' or 'localhost'; "
         "pass allow_remote=True to listen elsewhere"),
        ("", "host '' is not a local address: expected one of 127.0.0.0/8, '::1' or 'localhost'; "
         "pass allow_remote=True to listen elsewhere"),
    ],
)  # fmt: skip
def test_a_host_that_is_not_local_is_refused_unless_allowed(sockserver: SockServer, host: str, message: str) -> None:
    for make in (sockserver.tcp, sockserver.udp, sockserver.tcp_and_udp):
        with pytest.raises(ValueError) as raised:
            make(host=host)

        assert str(raised.value) == message


@pytest.mark.parametrize(("host", "shown"), [("192.0.2.1", "192.0.2.1:0"), ("2001:db8::1", "[2001:db8::1]:0")])
def test_an_address_of_another_machine_says_what_to_use(sockserver: SockServer, host: str, shown: str) -> None:
    with pytest.raises(AddressUnavailable) as raised:
        sockserver.tcp(host=host, allow_remote=True)

    hint = "is no address of this machine: use host='127.0.0.1'"
    if ":" in host:
        hint = f"is no address of this machine ({sys.platform}), is IPv6 off?  Use host='127.0.0.1'"
    assert str(raised.value) == f"[Errno {errno.EADDRNOTAVAIL}] {shown} {hint}"


def test_where_ipv6_is_missing_it_is_said(sockserver: SockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    make = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *args: Any, **kwargs: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *args, **kwargs)

    monkeypatch.setattr("pytest_sockserver.originals.original.socket", without_ipv6)

    with pytest.raises(AddressUnavailable) as raised:
        sockserver.tcp(host="::1")
    assert str(raised.value) == (
        f"[Errno {errno.EAFNOSUPPORT}] this machine ({sys.platform}) has no IPv6: use host='127.0.0.1'"
    )


def test_where_unix_sockets_are_missing_it_is_said(sockserver: SockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("pytest_sockserver.transport.address.socket.AF_UNIX")

    with pytest.raises(AddressUnavailable) as raised:
        sockserver.unix()
    assert str(raised.value) == (
        f"[Errno {errno.EAFNOSUPPORT}] Python has no unix sockets on {sys.platform}: use tcp_server or udp_server"
    )


LIMIT = 107 if sys.platform == "linux" else 103


@pytest.mark.parametrize("kind", ["unix", "unix_datagram"])
@pytest.mark.parametrize("letter", ["x", "ü"])
def test_a_path_over_the_limit_is_refused_with_its_length_in_bytes(
    sockserver: SockServer, kind: str, letter: str
) -> None:
    path = "/tmp/" + letter * (LIMIT - 4)
    size = len(path.encode())

    with pytest.raises(ValueError) as raised:
        getattr(sockserver, kind)(path=path)

    assert str(raised.value) == (
        f"path is {size} bytes long, a unix socket's has at most {LIMIT} on {sys.platform}: {path!r}; "
        "give none for a short one, instead of one below tmp_path"
    )


def test_a_path_at_the_limit_is_taken(sockserver: SockServer) -> None:
    with SockServer() as outer:
        directory = str(Path(outer.unix().path).parent)
        server = sockserver.unix(path=directory + "/" + "x" * (LIMIT - len(directory) - 1))

        assert len(server.path) == LIMIT
        assert echoed(server) == b"hi\n"
        server.stop()


def test_an_empty_path_is_refused(sockserver: SockServer) -> None:
    with pytest.raises(ValueError) as raised:
        sockserver.unix(path="")

    assert str(raised.value) == "path must not be empty: give none for a private one, or '\\0' for an abstract one"


def test_a_path_that_exists_is_not_removed(sockserver: SockServer, tmp_path: Path) -> None:
    with SockServer() as outer:
        path = Path(outer.unix().path).parent / "file"
        path.write_text("mine")

        with pytest.raises(AddressUnavailable) as raised:
            sockserver.unix(path=path)

        assert str(raised.value) == (
            f"[Errno {errno.EADDRINUSE}] {str(path)!r} exists already: use another path=, or none"
        )
        assert path.read_text() == "mine"


def test_a_path_in_no_directory_says_so(sockserver: SockServer) -> None:
    with pytest.raises(AddressUnavailable) as raised:
        sockserver.unix(path="/no/such/directory/s")

    assert str(raised.value) == (
        f"[Errno {errno.ENOENT}] '/no/such/directory/s' cannot be bound: No such file or directory"
    )


# Options


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("tcp", {"tiemout": 3}, TypeError, "sockserver.tcp() got an unknown option 'tiemout': did you mean 'timeout'?"),
        ("udp", {"zzz": 3}, TypeError,
         "sockserver.udp() got an unknown option 'zzz': expected one of allow_remote, host, name, port, rcvbuf, "
         "record_limit, stop_timeout, timeout"),
        ("tcp", {"path": "/tmp/x"}, TypeError,
         "sockserver.tcp() has no option 'path': expected one of allow_remote, backlog, framing, host, ignore_probes, "
         "max_frame, mss, name, port, rcvbuf, record_limit, stop_timeout, timeout, tls"),
        ("unix", {"port": 1}, TypeError,
         "sockserver.unix() has no option 'port': expected one of backlog, framing, ignore_probes, max_frame, name, "
         "path, rcvbuf, record_limit, stop_timeout, timeout, tls"),
        ("unix_datagram", {"backlog": 1}, TypeError,
         "sockserver.unix_datagram() has no option 'backlog': expected one of name, path, rcvbuf, record_limit, "
         "stop_timeout, timeout"),
        ("tcp", {"timeout": -1}, ValueError, "timeout must be above 0 seconds and finite, not -1"),
        ("udp", {"timeout": 0}, ValueError, "timeout must be above 0 seconds and finite, not 0"),
        ("unix", {"timeout": float("inf")}, ValueError, "timeout must be above 0 seconds and finite, not inf"),
        ("tcp", {"timeout": float("nan")}, ValueError, "timeout must be above 0 seconds and finite, not nan"),
        ("tcp", {"timeout": "5"}, TypeError, "timeout must be a number of seconds, not '5'"),
        ("tcp", {"timeout": True}, TypeError, "timeout must be a number of seconds, not True"),
        ("tcp", {"timeout": None}, TypeError, "timeout must be a number of seconds, not None"),
        ("udp", {"stop_timeout": 0}, ValueError, "stop_timeout must be above 0 seconds and finite, not 0"),
        ("tcp", {"stop_timeout": "5"}, TypeError, "stop_timeout must be a number of seconds, not '5'"),
        ("tcp", {"port": 65536}, ValueError,
         "port must be from 0 to 65535, not 65536; 0 lets the system choose"),
        ("tcp", {"port": -1}, ValueError, "port must be from 0 to 65535, not -1; 0 lets the system choose"),
        ("udp", {"port": "80"}, TypeError, "port must be an int, not '80'"),
        ("tcp", {"backlog": 0}, ValueError, "backlog must be at least 1, not 0"),
        ("tcp", {"rcvbuf": 0}, ValueError, "rcvbuf must be at least 1, not 0"),
        ("tcp", {"max_frame": -1}, ValueError, "max_frame must be at least 1, not -1"),
        ("udp", {"record_limit": 0}, ValueError, "record_limit must be at least 1, not 0"),
        ("udp", {"record_limit": 1e6}, TypeError, "record_limit must be an int, not 1000000.0"),
        ("tcp", {"host": 7}, TypeError, "host must be a str, not 7"),
        ("tcp", {"name": 7}, TypeError, "name must be a str, not 7"),
        ("tcp", {"allow_remote": 1}, TypeError, "allow_remote must be True or False, not 1"),
        ("unix", {"path": 7}, TypeError, "path must be a str, bytes or os.PathLike, not 7"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_where_it_is_written(
    sockserver: SockServer, kind: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        getattr(sockserver, kind)(**options)

    assert str(raised.value) == message
    assert raised.traceback[0].path == Path(__file__)
    assert sockserver.servers == []


def test_a_wrong_option_of_the_factory_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError) as unknown:
        SockServer(tiemout=3)
    with pytest.raises(ValueError) as negative:
        SockServer(timeout=-1)

    assert str(unknown.value) == "SockServer() got an unknown option 'tiemout': did you mean 'timeout'?"
    assert str(negative.value) == "timeout must be above 0 seconds and finite, not -1"


def test_a_wrong_option_of_a_server_made_by_hand_is_refused() -> None:
    with pytest.raises(TypeError) as unknown:
        StreamTestServer(tiemout=3)
    with pytest.raises(ValueError) as transport:
        StreamTestServer(transport="udp")
    with pytest.raises(ValueError) as other:
        DatagramTestServer(transport="tcp")

    assert str(unknown.value) == "StreamTestServer() got an unknown option 'tiemout': did you mean 'timeout'?"
    assert str(transport.value) == "transport must be 'tcp', 'tls' or 'unix', not 'udp'"
    assert str(other.value) == "transport must be 'udp' or 'unix_datagram', not 'tcp'"


def test_the_factorys_defaults_go_to_those_whom_they_say_something() -> None:
    with SockServer(timeout=3, host="::1", backlog=7) as sockserver:
        tcp, unix = sockserver.tcp(timeout=4), sockserver.unix()

        assert (tcp.timeout, tcp.host) == (4, "::1")
        assert (unix.timeout, unix.options.backlog) == (3, 7)


def test_a_name_is_what_messages_say(sockserver: SockServer) -> None:
    server = sockserver.tcp(name="mail")

    assert repr(server) == f"<StreamTestServer mail 127.0.0.1:{server.port}, started>"
    server.stop()
    assert repr(server) == f"<StreamTestServer mail 127.0.0.1:{server.port}, stopped>"


def test_a_small_receive_buffer_makes_a_client_wait(sockserver: SockServer) -> None:
    """What "disconnect during the request" needs: a client pushes megabytes into a connection that nobody reads."""
    server = sockserver.tcp(rcvbuf=4096)
    with connect(server) as client:
        server.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.settimeout(0.1)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                sent += client.send(b"x" * 1000)

    assert sent < 100_000


def test_a_burst_of_clients_waits_in_the_queue(sockserver: SockServer) -> None:
    """The standard library's backlog of 5 drops them."""
    server = sockserver.tcp()

    clients = [connect(server) for _ in range(100)]

    until(lambda: len(server.connections) == 100)
    for client in clients:
        client.close()


def test_max_frame_bounds_a_line(sockserver: SockServer) -> None:
    from pytest_sockserver import ScriptMismatch

    server = sockserver.tcp(max_frame=10)
    with connect(server) as client:
        conn = server.accept()
        client.sendall(b"x" * 11 + b"\n")

        with pytest.raises(ScriptMismatch) as raised:
            conn.recv_line()

    assert str(raised.value).splitlines()[0].endswith(": expected b'\\n' within 10 bytes")
