"""The path of a unix socket when the working directory changes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_sockserver import AddressUnavailable, SockServer
from pytest_sockserver.transport.address import PATH_LIMIT

from .peers import connect, datagram_client, read_to_end
from .plugin_runs import Runner

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets")


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A directory with a short path, which is the working directory; and one that is elsewhere."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        here, there = Path(base, "here"), Path(base, "there")
        (here / "sub").mkdir(parents=True)
        there.mkdir()
        monkeypatch.chdir(here)
        yield here.resolve(), there
        monkeypatch.undo()


def deep(tmp_path: Path) -> Path:
    """Return a directory whose path is too long for a unix socket."""
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    assert len(os.fsencode(directory)) > PATH_LIMIT - 5
    return directory


def say(server: Any, data: bytes) -> bytes:
    if server.transport == "unix_datagram":
        with datagram_client(server) as client:
            client.send(data)
            return client.recv(100)
    with connect(server) as client:
        client.sendall(data)
        return read_to_end(client)


def answering(server: Any) -> Any:
    if server.transport == "unix_datagram":
        server.handler(lambda request: request.upper())
    else:
        server.handler(lambda conn: conn.send(conn.recv_line().upper()))
    return server


@pytest.mark.parametrize("make", [str, os.fsencode, Path], ids=["str", "bytes", "Path"])
@pytest.mark.parametrize("path", ["s", "./s", "sub/s", "sub/../s"])
@pytest.mark.parametrize("transport", ["unix", "unix_datagram"])
def test_a_relative_path_survives_a_chdir_and_is_removed(
    sockserver: SockServer, short: Any, transport: str, path: str, make: Callable[[str], Any]
) -> None:
    here, there = short
    server = answering(getattr(sockserver, transport)(path=make(path)))
    expected = os.path.realpath(here / path)

    os.chdir(there)

    assert os.fsdecode(server.address) == os.fsdecode(server.path) == expected
    assert type(server.address) is (bytes if make is os.fsencode else str)
    assert say(server, b"hi\n") == b"HI\n"
    server.stop()
    assert os.path.lexists(expected) is False
    server.start()
    assert say(server, b"ho\n") == b"HO\n"
    server.stop()
    assert os.path.lexists(expected) is False
    assert os.listdir(there) == []


def test_a_client_may_use_the_relative_path_where_it_means_the_file(sockserver: SockServer, short: Any) -> None:
    here, there = short
    server = sockserver.unix(path="s")
    os.chdir(there)
    os.chdir(here)

    with socket.socket(socket.AF_UNIX) as client:
        client.connect("s")
        assert server.wait_connection().local_address == str(here / "s")


def test_a_directory_behind_a_link_is_the_one_that_the_link_meant(sockserver: SockServer, short: Any) -> None:
    """abspath() would take ``..`` off the link's own name."""
    here, there = short
    (here / "link").symlink_to(there)
    server = sockserver.unix(path="link/../s")

    assert server.path == str(there.resolve().parent / "s")
    server.stop()
    assert not (there.parent / "s").exists()


@pytest.mark.parametrize("fault", ["refuse", "unlink", "forbid"])
def test_faults_of_the_path_survive_a_chdir(sockserver: SockServer, short: Any, fault: str) -> None:
    if fault == "forbid" and os.geteuid() == 0:
        pytest.skip("root may open any path")
    here, there = short
    server = answering(sockserver.unix(path="s"))
    os.chdir(there)

    with getattr(server, fault)(), pytest.raises(OSError):
        connect(server)

    assert say(server, b"hi\n") == b"HI\n"
    server.stop()
    assert os.listdir(here) == ["sub"]
    assert os.listdir(there) == []


@pytest.mark.parametrize("transport", ["unix", "unix_datagram"])
def test_a_path_that_is_too_long_as_an_absolute_one_stays_relative(
    sockserver: SockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    directory = deep(tmp_path)
    monkeypatch.chdir(directory)
    server = answering(getattr(sockserver, transport)(path="app.sock"))

    assert (server.address, server.path) == ("app.sock", "app.sock")
    assert say(server, b"hi\n") == b"HI\n"
    monkeypatch.chdir("/")
    server.stop()
    assert os.listdir(directory) == []


def test_a_path_that_is_too_long_is_not_bound_elsewhere(
    sockserver: SockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, elsewhere = deep(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(directory)
    server = answering(sockserver.unix(path="app.sock"))
    server.stop()
    monkeypatch.chdir(elsewhere)

    with pytest.raises(AddressUnavailable) as raised:
        server.start()

    assert str(raised.value).endswith(
        f"'app.sock' was relative to {str(directory)!r}, which is no longer the working directory, and its absolute "
        f"path is longer than {PATH_LIMIT} bytes: go back there, or give a shorter path="
    )
    assert os.listdir(elsewhere) == []
    monkeypatch.chdir(directory)
    server.start()
    assert say(server, b"hi\n") == b"HI\n"
    server.stop()


def test_a_path_that_is_taken_is_named_whole(sockserver: SockServer, short: Any) -> None:
    here, _ = short
    (here / "s").touch()

    with pytest.raises(AddressUnavailable, match=f"{here / 's'}"):
        sockserver.unix(path="s")
    assert (here / "s").exists()


def test_the_fixture_with_a_marker(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teardown of monkeypatch goes back before or after the server's own, as the test names them."""
    run = Runner(pytester, monkeypatch)(
        """
        import os, pytest

        HERE = os.getcwd()

        @pytest.fixture
        def elsewhere(tmp_path, monkeypatch):
            monkeypatch.chdir(tmp_path)

        @pytest.mark.sockserver(path="a.sock")
        def test_before(elsewhere, unix_server, monkeypatch, tmp_path):
            assert os.path.exists("a.sock")
            monkeypatch.chdir(HERE)

        @pytest.mark.sockserver(path="b.sock")
        def test_after(unix_server, elsewhere):
            assert os.path.exists(os.path.join(HERE, "b.sock"))

        def test_removed(tmp_path):
            assert [name for name in os.listdir(HERE) if name.endswith(".sock")] == []
            assert list(tmp_path.parent.glob("*/*.sock")) == []
        """
    )

    assert run.phases("test_before") == run.phases("test_after") == run.phases("test_removed") == ["call passed"]
