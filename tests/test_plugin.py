"""Options, markers and fixtures: what may be said where, who wins, what the wrong ones are told, and what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from .plugin_runs import Runner, dedent

ROOT = Path(__file__).parent.parent


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


# Which option wins

PRECEDENCE = """
import pytest

def of(server):
    return float(server.timeout), server.options.record_limit, server.host

def test_nothing(tcp_server, udp_server, sockserver_module):
    print("nothing nearer:", of(tcp_server), of(udp_server), of(sockserver_module.tcp()))

@pytest.mark.sockserver(timeout=3, record_limit=300, host="127.0.0.3")
def test_marker(tcp_server, udp_server, sockserver):
    print("marker:", of(tcp_server), of(udp_server), of(sockserver.tcp()))

@pytest.mark.sockserver(timeout=3, record_limit=300, host="127.0.0.3")
def test_keyword(sockserver):
    print("keyword:", of(sockserver.tcp(timeout=4, record_limit=400, host="127.0.0.4")))

@pytest.mark.sockserver(timeout=2, record_limit=200)
class TestClass:
    @pytest.mark.sockserver(timeout=3)
    def test_method(self, tcp_server):
        print("nearer marker:", of(tcp_server))
"""

DEFAULTS = (5.0, 64 * 1024 * 1024, "127.0.0.1")
INI = {
    "pytest.ini": """
        [pytest]
        sockserver_timeout = 1
        sockserver_record_limit = 100
        sockserver_host = 127.0.0.1
        """,
    "pyproject.toml [tool.pytest.ini_options]": """
        [tool.pytest.ini_options]
        sockserver_timeout = "1"
        sockserver_record_limit = "100"
        sockserver_host = "127.0.0.1"
        """,
    "pyproject.toml [tool.pytest.ini_options], numbers": """
        [tool.pytest.ini_options]
        sockserver_timeout = 1.0
        sockserver_record_limit = 100
        sockserver_host = "127.0.0.1"
        """,
    "pyproject.toml [tool.pytest]": """
        [tool.pytest]
        sockserver_timeout = 1.0
        sockserver_record_limit = 100
        sockserver_host = "127.0.0.1"
        """,
    "pyproject.toml [tool.pytest], a whole number of seconds": """
        [tool.pytest]
        sockserver_timeout = 1
        sockserver_record_limit = 100
        sockserver_host = "127.0.0.1"
        """,
    "no file": "",
}
FLAGS = ("--sockserver-timeout=2.5", "--sockserver-record-limit=250", "--sockserver-host=127.0.0.2")


@pytest.mark.parametrize("flags", [(), FLAGS], ids=["no flags", "flags"])
@pytest.mark.parametrize("ini", INI)
def test_the_nearer_option_wins(inner: Runner, ini: str, flags: tuple[str, ...]) -> None:
    if "[tool.pytest]" in ini and pytest.version_tuple < (9,):
        pytest.skip("[tool.pytest] came with pytest 9")
    (inner.pytester.path / ini.partition(" ")[0]).write_text(dedent(INI[ini]), encoding="utf-8")

    run = inner(PRECEDENCE, "-rP", *flags)

    outer = (2.5, 250, "127.0.0.2") if flags else DEFAULTS if ini == "no file" else (1.0, 100, "127.0.0.1")
    marked = (3.0, 300, "127.0.0.3")
    assert [line for line in run.stdout.splitlines() if ": (" in line] == [
        f"nothing nearer: {outer} {outer} {outer}",
        f"marker: {marked} {marked} {marked}",
        f"keyword: {(4.0, 400, '127.0.0.4')}",
        f"nearer marker: {(3.0, 200, outer[2])}",
    ]


@pytest.mark.parametrize(("flags", "outer"), [((), 1.5), (("--sockserver-stop-timeout=2.5",), 2.5)])
def test_stop_timeout_is_set_wherever_timeout_is(inner: Runner, flags: tuple[str, ...], outer: float) -> None:
    inner.pytester.makeini("[pytest]\nsockserver_stop_timeout = 1.5")

    run = inner(
        f"""
        import pytest

        def test_nothing_nearer(tcp_server, udp_server):
            assert [tcp_server.stop_timeout, udp_server.stop_timeout, tcp_server.timeout] == [{outer}, {outer}, 5]

        @pytest.mark.sockserver(stop_timeout=3)
        def test_marker(unix_server, unix_datagram_server, sockserver):
            assert [unix_server.stop_timeout, unix_datagram_server.stop_timeout] == [3, 3]
            assert sockserver.tcp(stop_timeout=4).stop_timeout == 4
        """,
        *flags,
    )

    run.result.assert_outcomes(passed=2)


def test_a_marker_speaks_to_the_servers_it_says_something_to(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from socket import SOMAXCONN

        pytestmark = pytest.mark.sockserver(backlog=7, host="::1", name="named", timeout=1)

        def test_it(tcp_server, udp_server, unix_server, unix_datagram_server, sockserver):
            servers = [tcp_server, udp_server, unix_server, unix_datagram_server, sockserver.tcp(host="127.0.0.1")]
            assert [server.options.backlog for server in servers] == [7, SOMAXCONN, 7, SOMAXCONN, 7]
            assert [server.timeout for server in servers] == [1, 1, 1, 1, 1]
            assert [tcp_server.host, udp_server.host, servers[-1].host] == ["::1", "::1", "127.0.0.1"]

        def test_module(sockserver_module):
            assert sockserver_module.tcp().timeout == 1

        @pytest.mark.sockserver(timeout=2)
        def test_function(sockserver_module):
            assert sockserver_module.tcp().timeout == 1  # its markers are the module's
        """
    )

    run.result.assert_outcomes(passed=3)


# Bad options


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--sockserver-timeout=abc", "argument --sockserver-timeout: expected seconds above 0, not 'abc'"),
        ("--sockserver-timeout=0", "argument --sockserver-timeout: expected seconds above 0, not '0'"),
        ("--sockserver-timeout=-1", "argument --sockserver-timeout: expected seconds above 0, not '-1'"),
        ("--sockserver-timeout=inf", "argument --sockserver-timeout: expected seconds above 0, not 'inf'"),
        ("--sockserver-stop-timeout=0", "argument --sockserver-stop-timeout: expected seconds above 0, not '0'"),
        ("--sockserver-timeout=nan", "argument --sockserver-timeout: expected seconds above 0, not 'nan'"),
        (
            "--sockserver-record-limit=1.5",
            "argument --sockserver-record-limit: expected a number of bytes above 0, not '1.5'",
        ),
        (
            "--sockserver-record-limit=0",
            "argument --sockserver-record-limit: expected a number of bytes above 0, not '0'",
        ),
    ],
)
def test_a_flag_that_makes_no_sense_is_an_error_of_usage(inner: Runner, flag: str, said: str) -> None:
    run = inner("def test_it(): pass", flag)

    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert run.stderr.splitlines()[1].partition(": error: ")[2] == said


@pytest.mark.parametrize(
    ("ini", "said"),
    [
        ("timeout = abc", "sockserver_timeout: expected seconds above 0, not 'abc'"),
        ("stop_timeout = 0", "sockserver_stop_timeout: stop_timeout must be above 0 seconds and finite, not 0.0"),
        ("timeout = ", "sockserver_timeout: expected seconds above 0, not ''"),
        ("timeout = -1", "sockserver_timeout: timeout must be above 0 seconds and finite, not -1.0"),
        ("timeout = nan", "sockserver_timeout: timeout must be above 0 seconds and finite, not nan"),
        ("record_limit = 1.5", "sockserver_record_limit: expected a number of bytes above 0, not '1.5'"),
        ("record_limit = 0", "sockserver_record_limit: record_limit must be at least 1, not 0"),
        (
            "host = example.com",
            "sockserver_host: host 'example.com' is not a local address: expected one of 127.0.0.0/8, '::1' or "
            "'localhost'; pass allow_remote=True to listen elsewhere",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error_of_usage_that_names_it(inner: Runner, ini: str, said: str) -> None:
    inner.pytester.makeini(f"[pytest]\nsockserver_{ini}")

    run = inner("def test_it(): pass")

    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert run.stderr.splitlines() == [f"ERROR: {said}"]


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="[tool.pytest] came with pytest 9")
def test_a_native_setting_of_the_wrong_type_is_an_error_of_usage_that_names_it(inner: Runner) -> None:
    inner.pytester.makepyprojecttoml('[tool.pytest]\nsockserver_timeout = "2.5"')

    run = inner("def test_it(): pass")

    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert run.stderr.splitlines() == [
        f"ERROR: {inner.pytester.path / 'pyproject.toml'}: config option 'sockserver_timeout' expects a float, "
        "got str: '2.5'"
    ]


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (
            "timeoutt=3",
            "TypeError: pytest.mark.sockserver got an unknown option 'timeoutt': did you mean 'timeout'?",
        ),
        (
            "wibble=3",
            "TypeError: pytest.mark.sockserver got an unknown option 'wibble': expected one of allow_remote, backlog, "
            "framing, host, ignore_probes, max_frame, mss, name, path, port, rcvbuf, record_limit, stop_timeout, "
            "timeout, tls",
        ),
        ("'tcp'", "TypeError: pytest.mark.sockserver takes options by name alone, not 'tcp'"),
        ("timeout='3'", "TypeError: timeout must be a number of seconds, not '3'"),
        ("timeout=True", "TypeError: timeout must be a number of seconds, not True"),
        ("timeout=-3", "ValueError: timeout must be above 0 seconds and finite, not -3"),
        ("port=65536", "ValueError: port must be from 0 to 65535, not 65536; 0 lets the system choose"),
        ("record_limit=0", "ValueError: record_limit must be at least 1, not 0"),
        ("allow_remote=1", "TypeError: allow_remote must be True or False, not 1"),
        ("host=8", "TypeError: host must be a str, not 8"),
        (
            "host='192.0.2.1'",
            "ValueError: host '192.0.2.1' is not local: other machines could connect to it; expected one of "
            "127.0.0.0/8 or '::1'; pass allow_remote=True if that is meant",
        ),
        (
            "host='192.0.2.1', allow_remote=True",
            "pytest_sockserver.AddressUnavailable: [Errno 99] 192.0.2.1:0 is no address of this machine: use "
            "host='127.0.0.1'",
        ),
    ],
)
def test_a_marker_that_makes_no_sense_is_an_error_at_its_own_line(inner: Runner, marker: str, said: str) -> None:
    run = inner(
        f"""
        import pytest

        @pytest.mark.sockserver(max_frame=1)
        @pytest.mark.parametrize("x", [1])
        @pytest.mark.sockserver({marker})
        def test_it(tcp_server, x):
            pass
        """
    )

    kind = said.partition(":")[0].rpartition(".")[2]
    assert run.phases("test_it[1]") == ["setup failed"]
    assert run.block("ERROR at setup of test_it[1]") == dedent(
        f"""
            @pytest.mark.sockserver(max_frame=1)
            @pytest.mark.parametrize("x", [1])
        >   @pytest.mark.sockserver({marker})
        E   {said}
        test_it.py:5: {kind}
        """
    )


def test_a_marker_of_a_class_or_module_is_an_error_at_its_own_line_too(inner: Runner) -> None:
    inner.write(
        """
        import pytest

        class TestClass:
            pytestmark = []

            @pytest.mark.parametrize("x", [1])
            def test_other(self, x):
                pass

        @pytest.mark.sockserver(timeoutt=3)
        class TestMarked:
            def test_it(self, tcp_server):
                pass
        """
    )
    inner.write(
        """
        import pytest

        pytestmark = [pytest.mark.sockserver(timeoutt=3)]

        def test_function(tcp_server):
            pass

        def test_module(sockserver_module):
            pass
        """,
        "test_module",
    )

    run = inner()

    said = "pytest.mark.sockserver got an unknown option 'timeoutt': did you mean 'timeout'?"
    assert run.block("ERROR at setup of TestMarked.test_it") == dedent(
        f"""
        >   @pytest.mark.sockserver(timeoutt=3)
        E   TypeError: {said}
        test_it.py:10: TypeError
        """
    )
    for test in "test_function", "test_module":
        assert run.block(f"ERROR at setup of {test}").splitlines()[-3:] == [
            ">   pytestmark = [pytest.mark.sockserver(timeoutt=3)]",
            f"E   TypeError: {said}",
            "test_module.py:3: TypeError",
        ]


def test_an_option_of_the_factory_that_makes_no_sense_is_an_error_at_the_call(inner: Runner) -> None:
    run = inner(
        """
        def test_unknown(sockserver):
            sockserver.tcp(timeoutt=3)

        def test_foreign(sockserver):
            sockserver.udp(backlog=3)

        def test_pair(sockserver):
            sockserver.tcp_and_udp(path="x")
        """
    )

    said = [line for line in run.stdout.splitlines() if line[:2] in ("> ", "E ")]
    assert said == [
        ">       sockserver.tcp(timeoutt=3)",
        "E       TypeError: sockserver.tcp() got an unknown option 'timeoutt': did you mean 'timeout'?",
        ">       sockserver.udp(backlog=3)",
        "E       TypeError: sockserver.udp() has no option 'backlog': expected one of allow_remote, host, name, port, "
        "rcvbuf, record_limit, stop_timeout, timeout",
        '>       sockserver.tcp_and_udp(path="x")',
        "E       TypeError: sockserver.tcp_and_udp() has no option 'path': expected one of allow_remote, backlog, "
        "framing, host, ignore_probes, max_frame, mss, name, port, rcvbuf, record_limit, stop_timeout, timeout, tls",
    ]


# Fixtures


def test_a_fixture_may_wrap_ours_in_class_module_and_conftest_and_keeps_its_verification(inner: Runner) -> None:
    inner.pytester.makeconftest(
        """
import pytest

@pytest.fixture
def tcp_server(tcp_server):
    tcp_server.layers = ["conftest"]
    @tcp_server.handler
    def greet(conn):
        raise ValueError(f"cannot parse {conn.recv_line()!r}")
    return tcp_server
"""
    )
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture
        def tcp_server(tcp_server):
            tcp_server.layers.append("module")
            yield tcp_server

        def test_module(tcp_server):
            assert tcp_server.layers == ["conftest", "module"]
            ask(tcp_server)

        class TestClass:
            @pytest.fixture
            def tcp_server(self, tcp_server):
                tcp_server.layers.append("class")
                return tcp_server

            def test_class(self, tcp_server):
                assert tcp_server.layers == ["conftest", "module", "class"]
                ask(tcp_server)

            def test_overridden(self, tcp_server):
                @tcp_server.handler
                def echo(conn):
                    conn.send(conn.recv_line())
                assert ask(tcp_server) == b"hi\\n"
        """
    )

    assert run.phases("test_module") == ["call failed"]
    assert run.phases("test_class") == ["call failed"]
    assert run.phases("test_overridden") == ["call passed"]
    assert r"E       ValueError: cannot parse b'hi\n'" in run.block("TestClass.test_class").splitlines()


def test_a_fixture_of_ours_asked_for_in_a_tests_body_is_verified(inner: Runner) -> None:
    run = inner(
        """
        from client import ask

        def test_first(sockserver):
            pass  # our hooks come with the first fixture

        def test_it(request):
            server = request.getfixturevalue("tcp_server")
            @server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")
            ask(server)
        """
    )

    assert run.phases("test_it") == ["call failed"]


def test_the_first_fixture_of_a_run_asked_for_in_a_tests_body_fails_it_in_its_teardown(inner: Runner) -> None:
    """A call that runs already sees no hooks that are registered in it, where no server's class was imported before."""
    run = inner.outside(
        """
        from client import ask

        def test_it(request):
            server = request.getfixturevalue("tcp_server")
            @server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")
            ask(server)
        """
    )

    run.result.assert_outcomes(passed=1, errors=1)


def test_setup_show_tells_when_our_fixtures_are_set_up(inner: Runner) -> None:
    run = inner("def test_it(sockserver_session, sockserver_module, udp_server): pass", "--setup-show")

    assert [line.strip() for line in run.stdout.splitlines() if "TUP " in line or "DOWN " in line] == [
        "SETUP    S sockserver_session",
        "SETUP    M sockserver_module",
        "SETUP    F udp_server",
        "TEARDOWN F udp_server",
        "TEARDOWN M sockserver_module",
        "TEARDOWN S sockserver_session",
    ]


def test_leaving_after_the_first_failure_stops_the_servers_of_every_scope(inner: Runner) -> None:
    run = inner(
        """
        import threading
        from client import ask

        def test_it(sockserver, sockserver_module, sockserver_session):
            server, _, _ = servers = [each.tcp() for each in (sockserver, sockserver_module, sockserver_session)]
            @server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")
            ask(server)

        def test_never_run(tcp_server):
            pass
        """,
        "-x",
    )

    run.result.assert_outcomes(failed=1)  # and this run's leak guard sees to the rest
    assert run.stdout.splitlines()[-2].strip("! ") == "stopping after 1 failures"


def test_the_fixtures_and_the_marker_introduce_themselves(inner: Runner) -> None:
    markers = inner("", "--markers", "--strict-markers").stdout.splitlines()
    fixtures = inner("", "--fixtures").stdout

    assert markers[0] == (
        "@pytest.mark.sockserver(**options): options of every server that the test's fixtures make: host, port, path, "
        "framing, timeout, stop_timeout, tls, rcvbuf, mss, backlog, record_limit, max_frame, ignore_probes, "
        "allow_remote, name"
    )
    told = fixtures.partition("fixtures defined from pytest_sockserver.pytest_plugin.plugin")[2].splitlines()[1:]
    lines = [line for line in told if line[0] != " " and "plugin.py" in line]
    assert sorted(line.partition(" -- ")[0] for line in lines) == [
        "sockserver",
        "sockserver_module [module scope]",
        "sockserver_session [session scope]",
        "tcp_server",
        "tls_server",
        "udp_server",
        "unix_datagram_server",
        "unix_server",
    ]
    assert told[told.index(next(line for line in lines if line.startswith("tcp_server"))) + 1] == (
        "    A running TCP server on a free port of 127.0.0.1; declare what it does with .handler."
    )


def test_help_tells_the_options(inner: Runner) -> None:
    said = inner("", "--help").stdout

    assert (
        dedent(
            """
            servers for tests of network clients:
              --sockserver-timeout=SECONDS
                                    seconds that each wait and verb of a server may take
                                    (default: 5)
              --sockserver-stop-timeout=SECONDS
                                    seconds that a stop gives the threads of a server to end
                                    (default: 5)
              --sockserver-record-limit=BYTES
                                    bytes of memory that a server's recording may take
                                    (default: 64 MiB)
              --sockserver-host=HOST
                                    address that servers listen on (default: 127.0.0.1)
            """
        )
        in said
    )


def test_strict_runs_know_our_marker_and_settings(inner: Runner) -> None:
    inner.pytester.makeini(
        "[pytest]\nsockserver_timeout = 1\naddopts = --strict-markers --strict-config\nxfail_strict = true"
    )

    run = inner(
        """
        import pytest

        @pytest.mark.sockserver(timeout=2)
        def test_it(tcp_server):
            assert tcp_server.timeout == 2
        """
    )

    run.result.assert_outcomes(passed=1)


# As it is installed

ENTRY_POINTS = "[pytest11]\nsockserver = pytest_sockserver.pytest_plugin.plugin\n"


@pytest.fixture
def installed(inner: Runner, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Runs outside find the entry point, whether the package is installed here or merely importable."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    found = inner.pytester.mkdir("installed")
    about = found / "pytest_sockserver_here-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-sockserver-here\nVersion: 0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (about / "RECORD").write_text("")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", f"{found}:{ROOT}")
    return inner


NO_OTHERS = [
    argument
    for name in ("asyncio", "anyio", "trio", "xdist", "timeout", "randomly", "socket", "hypothesispytest", "subtests")
    for argument in ("-p", f"no:{name}")
]


def test_the_installed_plugin_is_loaded_by_itself_and_left_out_by_its_name(installed: Runner) -> None:
    source = "def test_it(tcp_server): pass"

    loaded = installed.outside(source, *NO_OTHERS, loaded=())
    left_out = installed.outside(None, *NO_OTHERS, "-p", "no:sockserver", loaded=())

    loaded.result.assert_outcomes(passed=1)
    left_out.result.assert_outcomes(errors=1)
    assert "E       fixture 'tcp_server' not found" in left_out.stdout.splitlines()


COSTLY = (
    "pytest_sockserver.pytest_plugin.hooks",
    "pytest_sockserver.server.factory",
    "pytest_sockserver.connection.deadline",
    "pytest_sockserver.server.options",
    "ssl",
    "asyncio",
    "secrets",
)


def test_a_run_without_our_fixtures_imports_nothing_and_registers_no_hook(installed: Runner) -> None:
    run = installed.outside(
        f"""
        import sys

        def test_it(request):
            plugins = request.config.pluginmanager
            assert plugins.has_plugin("sockserver") and not plugins.has_plugin("sockserver-reports")
            assert [name for name in {COSTLY!r} if name in sys.modules] == []
            assert sorted(name for name in sys.modules if name.partition(".")[0] == "pytest_sockserver") == [
                "pytest_sockserver", "pytest_sockserver.pytest_plugin",
                "pytest_sockserver.pytest_plugin.plugin", "pytest_sockserver.pytest_plugin.settings",
            ]
            ours = sys.modules["pytest_sockserver.pytest_plugin.plugin"]
            hooks = [name for name in dir(ours) if name.startswith("pytest_") and callable(getattr(ours, name))]
            assert hooks == [
                "pytest_addoption", "pytest_collection_finish", "pytest_configure", "pytest_keyboard_interrupt",
                "pytest_sessionfinish", "pytest_timeout_cancel_timer", "pytest_timeout_set_timer",
            ]
        """,
        *NO_OTHERS,
        "--sockserver-timeout=1",
        loaded=(),
    )

    run.result.assert_outcomes(passed=1)


def test_the_first_fixture_registers_the_hooks_once_and_still_needs_no_ssl_and_no_asyncio(installed: Runner) -> None:
    run = installed.outside(
        """
        import sys, pytest
        from client import ask, tell

        def test_before(request):
            assert not request.config.pluginmanager.has_plugin("sockserver-reports")

        @pytest.mark.parametrize("again", [0, 1])
        def test_it(request, tcp_server, udp_server, again):
            @tcp_server.handler
            def echo(conn):
                conn.send(conn.recv_line())
            ask(tcp_server)
            tell(udp_server, b"hi")
            assert udp_server.wait_for() == b"hi"
            assert request.config.pluginmanager.has_plugin("sockserver-reports")
            assert [name for name in ("ssl", "asyncio", "trio", "secrets", "hypothesis") if name in sys.modules] == []
        """,
        *NO_OTHERS,
        loaded=(),
    )

    run.result.assert_outcomes(passed=3)


def test_every_public_name_is_there_and_no_other() -> None:
    import pytest_sockserver

    assert [name for name in dir(pytest_sockserver) if not hasattr(pytest_sockserver, name)] == []
    with pytest.raises(AttributeError, match=r"^module 'pytest_sockserver' has no attribute 'TcpServer'$"):
        pytest_sockserver.TcpServer  # noqa: B018
