"""Under gevent and eventlet: a client in greenlets, against servers in threads of the system.

Both patch the whole process, so each run of pytest is a process of its own.  They are never imported here.
"""

from __future__ import annotations

import importlib.util

import pytest

from .plugin_runs import Runner

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}

# Before the plugin is loaded (by -p, which loads in order), or after it, as a conftest does.
ORDERS = {
    "before": ("-p", "patches", "-p", "pytest_sockserver.pytest_plugin.plugin"),
    "after": ("-p", "pytest_sockserver.pytest_plugin.plugin"),
}

GREEN = """
import socket, sys, threading, time
import pytest

if "gevent" in sys.modules:
    import gevent
    spawn = gevent.spawn
    def outcome(greenlet):
        return greenlet.get(timeout=5)
    sleep = gevent.sleep
else:
    import eventlet
    spawn = eventlet.spawn
    def outcome(greenlet):
        return greenlet.wait()
    sleep = eventlet.sleep

assert not socket.socket.__module__ == "socket"

def ask(server, data=b"x\\n"):
    with socket.create_connection(server.address, 5) as client:
        client.sendall(data)
        try:
            return client.recv(100)
        except ConnectionResetError:
            return b"(reset)"
"""

TESTS = """
import os, socket, threading, time
import pytest
from green import ask, outcome, sleep, spawn
from pytest_sockserver import ANY, DeadlineExceeded, Delay, Drip, Gate, HandlerStuck, lines, socketserver

def test_handlers_answer_many_clients_at_once(tcp_server):
    @tcp_server.handler
    def greet(conn):
        line = conn.recv_line()
        time.sleep(0.01)  # the library's, in a thread that is not its own
        conn.send(b"hello " + line)

    clients = [spawn(ask, tcp_server) for _ in range(20)]
    assert [outcome(each) for each in clients] == [b"hello x\\n"] * 20

def test_rules_and_a_wait_in_the_midst(tcp_server):
    tcp_server.framing = lines(b"\\n")
    tcp_server.on(ANY).reply(b"y\\n")
    client = spawn(ask, tcp_server)
    assert tcp_server.wait_for(b"x\\n") == b"x\\n"
    assert outcome(client) == b"y\\n"

def test_a_script_and_a_gate(tcp_server):
    tcp_server.script().expect_line(b"x").send(Gate("go"), b"gone").close()
    client = spawn(ask, tcp_server)
    tcp_server.wait_connection()
    tcp_server.open_gate("go")
    assert outcome(client) == b"gone"

def test_live(tcp_server):
    client = spawn(ask, tcp_server)
    conn = tcp_server.accept()
    assert conn.recv_line() == b"x\\n"
    conn.send(Delay(0.02), b"slow")
    conn.expect_eof()
    assert outcome(client) == b"slow"

def test_two_greenlets_send_on_one_connection(tcp_server):
    def listen():
        with socket.create_connection(tcp_server.address, 5) as client, client.makefile("rb") as file:
            return file.read(6)
    client = spawn(listen)
    conn = tcp_server.accept()
    one = spawn(conn.send, Delay(0.05), b"one")
    sleep(0.01)
    other = spawn(conn.send, b"two")  # whose turn comes when the first is done
    assert outcome(client) == b"onetwo"
    outcome(one), outcome(other)

def test_greenlets_go_on_while_a_wait_waits(tcp_server):
    ticks = []
    def tick():
        for _ in range(5):
            sleep(0.01)
            ticks.append(1)
    ticking = spawn(tick)
    began = time.perf_counter()
    with pytest.raises(DeadlineExceeded, match="waited 0.2 s"):
        tcp_server.wait_connection(timeout=0.2)
    assert 0.15 < time.perf_counter() - began < 3
    assert len(ticks) == 5
    outcome(ticking)

def test_quiet(tcp_server):
    tcp_server.assert_no_traffic(0.05)

def test_a_failure_that_must_come(tcp_server):
    @tcp_server.handler
    def fail(conn):
        conn.recv_line()
        raise ValueError("as it must")

    with tcp_server.raises(ValueError):
        client = spawn(ask, tcp_server)
    assert outcome(client) in (b"(reset)", b"")

def test_a_client_in_a_thread(tcp_server):
    reply = tcp_server.in_thread(ask, tcp_server)
    conn = tcp_server.accept()
    assert conn.recv_line() == b"x\\n"
    conn.send(b"y\\n")
    assert reply.result() == b"y\\n"

def test_a_client_in_a_thread_that_needs_a_greenlet_here(tcp_server):
    tcp_server.on(b"x\\n").reply(b"y\\n")
    go = threading.Event()  # the library's
    reply = tcp_server.in_thread(ask, tcp_server)
    spawn(go.set)
    assert reply.result() == b"y\\n" and go.wait(1)

@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors")
def test_threads_that_used_the_library_leave_no_loop_behind(tcp_server):
    @tcp_server.handler
    def answer(conn):
        time.sleep(0.001)
        conn.send(conn.recv_line())

    def opened():
        assert tcp_server.in_thread(ask, tcp_server).result() == b"x\\n"
        return len(os.listdir("/proc/self/fd"))
    first = opened()
    assert max(opened() for _ in range(20)) < first + 10

def test_datagrams(udp_server):
    udp_server.on(b"q").reply(b"a")
    def query():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(b"q", udp_server.address)
            return client.recv(100)
    client = spawn(query)
    udp_server.wait_for(b"q")
    assert outcome(client) == b"a"

def test_unix(unix_server):
    unix_server.on(b"x\\n").reply(b"y\\n")
    def talk():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(unix_server.address)
            client.sendall(b"x\\n")
            return client.recv(100)
    assert outcome(spawn(talk)) == b"y\\n"

def test_tls(tls_server):
    tls_server.on(b"x\\n").reply(b"y\\n")
    context = tls_server.client_context()
    def talk():
        with socket.create_connection(tls_server.address, 5) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(b"x\\n")
                return client.recv(100)
    assert [outcome(each) for each in [spawn(talk) for _ in range(3)]] == [b"y\\n"] * 3
    assert tls_server.connections[0].tls.version == "TLSv1.3"

def test_a_handler_class(tcp_server):
    @tcp_server.handler
    class Echo(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())
    assert outcome(spawn(ask, tcp_server)) == b"x\\n"

def test_a_stop_with_clients_that_stay(tcp_server):
    tcp_server.on(b"x\\n").reply(b"y\\n")
    with socket.create_connection(tcp_server.address, 5) as client:
        client.sendall(b"x\\n")
        assert client.recv(10) == b"y\\n"
        began = time.perf_counter()
        tcp_server.stop()
        assert time.perf_counter() - began < 2
        assert client.recv(10) == b""

def test_the_framework_by_itself(tcp_server):
    class Echo(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline())
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.address = server.server_address
        loop = threading.Thread(target=server.serve_forever)  # a greenlet
        loop.start()
        assert outcome(spawn(ask, server)) == b"x\\n"
        server.shutdown()
        loop.join()
"""


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("library", PATCH)
def test_clients_in_greenlets_against_servers_in_threads(runs: Runner, library: str, order: str) -> None:
    pytest.importorskip("greenlet")
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"no {library}")
    runs.write(PATCH[library], "conftest" if order == "after" else "patches")
    runs.write(GREEN, "green")

    # eventlet's TLS clients leave their plain socket to the garbage collector.
    run = runs.outside(TESTS, *("-W", "ignore::ResourceWarning"), loaded=ORDERS[order])

    run.result.assert_outcomes(passed=TESTS.count("\ndef test_"))


def test_gevents_own_sockets_without_any_patch(runs: Runner) -> None:
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("no gevent")

    run = runs.outside(
        """
        import gevent, gevent.socket

        def ask(server):
            with gevent.socket.create_connection(server.address) as client:
                gevent.sleep(0.05)
                client.sendall(b"x\\n")
                return client.recv(100)

        def test_live(tcp_server):
            client = gevent.spawn(ask, tcp_server)
            conn = tcp_server.accept()
            assert conn.recv_line() == b"x\\n"
            conn.send(b"y\\n")
            assert client.get(timeout=5) == b"y\\n"

        def test_more_than_the_kernel_takes_at_once(tcp_server):
            def read():
                with gevent.socket.create_connection(tcp_server.address) as client, client.makefile("rb") as file:
                    return len(file.read())
            client = gevent.spawn(read)
            conn = tcp_server.accept()
            conn.send(bytes(20_000_000))
            conn.close()
            assert client.get(timeout=5) == 20_000_000
        """
    )

    run.result.assert_outcomes(passed=2)


def test_eventlet_wraps_a_clients_socket_while_a_server_looks_for_the_module(runs: Runner) -> None:
    """It puts the original classes back meanwhile, in the module that it has patched."""
    if importlib.util.find_spec("eventlet") is None:
        pytest.skip("no eventlet")
    runs.write(PATCH["eventlet"], "conftest")
    runs.write(GREEN, "green")

    run = runs.outside(
        """
        import contextlib, socket, ssl
        import eventlet.green.ssl
        import pytest
        from green import outcome, spawn
        from pytest_sockserver.originals import ssl_module

        @pytest.fixture
        def moments(monkeypatch):
            found, original_classes = [], eventlet.green.ssl._original_ssl_context

            @contextlib.contextmanager
            def look():
                with original_classes():
                    assert ssl.SSLSocket.__module__ == "ssl"
                    found.append(ssl_module())  # as another thread may look
                    yield

            monkeypatch.setattr(eventlet.green.ssl, "_original_ssl_context", look)
            return found

        def test_tls(tls_server, moments):
            tls_server.on(b"x\\n").reply(b"y\\n")
            context = tls_server.client_context()
            def talk():
                with socket.create_connection(tls_server.address, 5) as plain:
                    with context.wrap_socket(plain, server_hostname="localhost") as client:
                        client.sendall(b"x\\n")
                        return client.recv(100)

            assert [outcome(each) for each in [spawn(talk) for _ in range(3)]] == [b"y\\n"] * 3
            assert moments == [ssl_module()] * 3
            assert ssl_module() is not ssl
        """,
        *("-W", "ignore::ResourceWarning"),
    )

    run.result.assert_outcomes(passed=1)


@pytest.mark.parametrize("library", PATCH)
def test_a_handler_that_never_ends_is_named_under_a_patch_too(runs: Runner, library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"no {library}")
    runs.write(PATCH[library], "conftest")
    runs.write(GREEN, "green")

    run = runs.outside(
        """
        import threading
        import pytest
        from green import ask, outcome, spawn
        from pytest_sockserver import HandlerStuck

        def test_stuck(sockserver):
            server = sockserver.tcp(stop_timeout=0.5)
            @server.handler
            def wait(conn):
                conn.send(conn.recv_line())
                threading.Event().wait(3)
            assert outcome(spawn(ask, server)) == b"x\\n"
            server.stop()
            with pytest.raises(HandlerStuck, match="did not end within"):
                server.verify()
        """
    )

    run.result.assert_outcomes(passed=1)
