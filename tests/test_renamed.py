"""Names that were changed: an old one is an error that says the new one, and each new one is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pytest_sockserver
from pytest_sockserver import Script, SockServer, StreamTestServer
from pytest_sockserver.errors.renamed import RENAMED

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"

IMPORTS = [name for name in RENAMED if name.startswith("pytest_sockserver.")]
ATTRIBUTES = [name for name in RENAMED if name.endswith("()")]
KEYWORDS = [name for name in RENAMED if name.endswith("=)")]

#: What a test calls an object by, and how it gets one.
OWNERS: dict[str, Callable[[SockServer], Any]] = {
    "sockserver": lambda its: its,
    "server": lambda its: its.tcp(),
    "server.aio": lambda its: its.udp().aio,
    "script": lambda its: its.tcp().script(),
}


def test_the_table_has_three_kinds() -> None:
    assert [*RENAMED] == [*IMPORTS, *ATTRIBUTES, *KEYWORDS]
    assert {name.rpartition(".")[0] for name in ATTRIBUTES} == {*OWNERS}


@pytest.mark.parametrize("old", IMPORTS)
def test_an_old_import_is_an_importerror_that_says_the_new_one(old: str) -> None:
    name, (module, _, new) = old.rpartition(".")[2], RENAMED[old].rpartition(".")

    with pytest.raises(ImportError) as raised:
        exec(f"from pytest_sockserver import {name}")

    what = f"is called {new} now" if new != name else f"is in {module} now"
    assert str(raised.value) == f"{name} {what}: from {module} import {new}"
    assert new in import_module(module).__all__
    with pytest.raises(ImportError, match=re.escape(f"from {module} import {new}")):
        getattr(pytest_sockserver, name)


def test_some_of_these_errors() -> None:
    with pytest.raises(
        ImportError, match=r"^WrongState is called InvalidState now: from pytest_sockserver import InvalidState$"
    ):
        from pytest_sockserver import WrongState  # type: ignore[attr-defined] # noqa: F401
    with pytest.raises(
        ImportError, match=r"^Finding is called FaultResult now: from pytest_sockserver\.faults import FaultResult$"
    ):
        from pytest_sockserver import Finding  # type: ignore[attr-defined] # noqa: F401
    with pytest.raises(
        ImportError, match=r"^cuts is in pytest_sockserver\.sweeps now: from pytest_sockserver\.sweeps import cuts$"
    ):
        from pytest_sockserver import cuts  # type: ignore[attr-defined] # noqa: F401


@pytest.mark.parametrize("old", ATTRIBUTES)
def test_an_old_attribute_is_an_attributeerror_that_says_the_new_one(sockserver: SockServer, old: str) -> None:
    owner, _, name = old.removesuffix("()").rpartition(".")
    new_owner, _, new = RENAMED[old].removesuffix("()").rpartition(".")

    with pytest.raises(AttributeError) as raised:
        getattr(OWNERS[owner](sockserver), name)

    assert str(raised.value) == f"{old} is called {RENAMED[old]} now"
    assert callable(getattr(OWNERS[new_owner](sockserver), new))


@pytest.mark.parametrize("make", [SockServer.tcp, SockServer.unix, SockServer.udp, SockServer.unix_datagram])
def test_all_servers_have_the_same_old_names(sockserver: SockServer, make: Callable[[SockServer], Any]) -> None:
    with pytest.raises(AttributeError, match=r"^server\.disturb\(\) is called server\.inject\(\) now$"):
        make(sockserver).disturb()


@pytest.mark.parametrize("old", KEYWORDS)
def test_an_old_keyword_is_a_typeerror_that_says_the_new_one(tcp_server: StreamTestServer, old: str) -> None:
    verb, name = old.removesuffix("=)").split("(")
    rule = tcp_server.on(b"a").reply() if verb == "then" else tcp_server.on(b"a")

    with pytest.raises(TypeError) as raised:
        getattr(rule, verb)(b"b", **{name: 2})

    assert str(raised.value) == f"{old} is called {RENAMED[old]} now"
    getattr(rule, verb)(b"b", uses=2)


def test_other_names_are_pythons_own_errors(sockserver: SockServer) -> None:
    server = sockserver.tcp()
    for owner, kind in ((sockserver, "SockServer"), (server, "StreamTestServer"), (Script(), "Script")):
        with pytest.raises(AttributeError, match=f"^'{kind}' object has no attribute 'take_off'$") as raised:
            owner.take_off  # type: ignore[attr-defined] # noqa: B018
        assert (raised.value.name, raised.value.obj) == ("take_off", owner)  # from which Python says what was meant
        assert not hasattr(owner, "__wrapped__")
    with pytest.raises(TypeError, match=r"^reply\(\) got an unexpected keyword argument 'time'$"):
        server.on(b"a").reply(b"b", time=2)  # type: ignore[call-arg]


def test_a_property_that_fails_by_an_attributeerror_says_so_itself() -> None:
    class Server(StreamTestServer):
        @property
        def device(self) -> object:
            return self.nothing.more  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="^'Server' object has no attribute 'nothing'$"):
        Server().device  # noqa: B018


def test_a_script_can_be_copied() -> None:
    script = Script().send(b"a").open_gate("b")

    assert str(copy(script)) == str(script)


def test_the_changelog_has_the_same_table() -> None:
    text = CHANGELOG.read_text(encoding="utf-8").partition("| old | new |")[2].partition("\n\n")[0]
    rows = [[re.findall("`(.+?)`", cell) for cell in row.split("|")[1:3]] for row in text.splitlines()[2:]]
    short = {old.removeprefix("pytest_sockserver."): new for old, new in RENAMED.items()}

    assert sorted(old for olds, _ in rows for old in olds) == sorted(short)
    for olds, news in rows:
        for old in olds:
            module, _, called = short[old].rpartition(".")
            assert (module if called == old else short[old].removeprefix("pytest_sockserver.")) in news, old
