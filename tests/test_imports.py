"""Who imports whom: no cycles, nothing expensive until it is used, and nobody's private names.

That imports go down the list of folders is import-linter's to say: see pyproject.toml.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import pytest_sockserver

PACKAGE = Path(pytest_sockserver.__file__).parent
FOLDERS = (
    "errors",
    "socketserver",
    "scripting",
    "recording",
    "transport",
    "faults",
    "connection",
    "responders",
    "server",
    "pytest_plugin",
)
BOTTOM = ("bound", "originals", *("errors." + name for name in ("exceptions", "location", "messages", "renamed")))


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name, without the package's own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


MODULES = modules()


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(body: list[ast.stmt], *, lazy: bool) -> Iterator[ast.stmt]:
    """Yield what runs: not what type checkers alone see, and not the bodies of functions unless ``lazy``."""
    for node in body:
        if is_type_checking(node):
            yield from statements(node.orelse, lazy=lazy)
            continue
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not lazy:
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, field, []), lazy=lazy)
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body, lazy=lazy)


def imports(name: str, *, lazy: bool) -> set[str]:
    """Return what a module imports: ours by the name within the package (``""`` is the package), others dotted."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body, lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            base_name = ".".join(part for part in base if part)
            for alias in node.names:
                inner = f"{base_name}.{alias.name}".strip(".")
                found.add("ours:" + (inner if inner in MODULES else base_name))
    return found


def ours(name: str, *, lazy: bool) -> set[str]:
    return {each.removeprefix("ours:") for each in imports(name, lazy=lazy) if each.startswith("ours:")}


def others(name: str, *, lazy: bool) -> set[str]:
    return {each.partition(".")[0] for each in imports(name, lazy=lazy) if not each.startswith("ours:")}


@pytest.mark.one_version
def test_the_reader_of_imports_sees_what_is_there() -> None:
    assert len(MODULES) > 30
    assert "recording.recorder" in ours("transport.tapped_socket", lazy=True)
    assert "ssl" in others("transport.tls_contexts", lazy=True)
    assert "ssl" not in others("transport.tls_contexts", lazy=False)
    assert "server.client_thread" in ours("server.service", lazy=True)
    assert "server.client_thread" not in ours("server.service", lazy=False)


@pytest.mark.one_version
def test_the_package_has_ten_folders_and_no_folder_in_a_folder() -> None:
    assert {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} == {".", *FOLDERS}


@pytest.mark.one_version
@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("socketserver")])
def test_the_framework_imports_the_standard_library_and_the_originals(name: str) -> None:
    theirs = {each for each in ours(name, lazy=True) if not each.startswith("socketserver")}

    assert theirs <= {"bound", "originals"}
    assert others(name, lazy=True) <= {*sys.stdlib_module_names, "typing_extensions"}


@pytest.mark.one_version
@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("scripting")])
def test_scripting_knows_no_socket_no_thread_and_no_clock(name: str) -> None:
    assert not others(name, lazy=True) & {
        "socket", "ssl", "select", "selectors", "threading", "time", "os", "asyncio", "random"
    }  # fmt: skip


@pytest.mark.one_version
@pytest.mark.parametrize("name", MODULES)
def test_the_standard_librarys_socketserver_is_never_imported(name: str) -> None:
    assert "socketserver" not in others(name, lazy=True)


@pytest.mark.one_version
@pytest.mark.parametrize("name", BOTTOM)
def test_the_bottom_imports_nothing_above_it(name: str) -> None:
    assert ours(name, lazy=True) <= {*BOTTOM, "errors", ""}  # the package itself imports nothing before it is used


@pytest.mark.one_version
def test_nothing_below_the_plugin_imports_pytest() -> None:
    top = {name for name in MODULES if name.startswith("pytest_plugin")}

    assert {name for name in MODULES if others(name, lazy=True) & {"pytest", "_pytest", "pluggy"}} <= {*top, "sweeps"}
    assert {name for name in MODULES if ours(name, lazy=True) & top} <= top


@pytest.mark.one_version
def test_there_is_no_cycle_of_imports() -> None:
    """Of those that run when a module is imported."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join([*above[above.index(name) :], name])}"
        if name in done:
            return
        for each in sorted(ours(name, lazy=False) - {""}):
            # A package and its own modules are one: ``from .base import x`` in an __init__ is no cycle.
            if each in MODULES and not name.startswith(f"{each}."):
                visit(each, (*above, name))
        done.add(name)

    for name in sorted(MODULES):
        visit(name, ())


def loaded(program: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after the program."""
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return set(said.stdout.split())


EXPENSIVE = {"ssl", "asyncio", "trio", "socketserver", "http", "unittest", "concurrent.futures"}


def test_importing_the_package_loads_next_to_nothing() -> None:
    new = loaded("import pytest_sockserver") - loaded("pass")

    assert {name for name in new if not name.startswith("pytest_sockserver")} <= {"__future__"}
    assert {name for name in new if name.startswith("pytest_sockserver")} == {"pytest_sockserver"}


def test_importing_the_plugin_loads_nothing_that_pytest_has_not() -> None:
    new = loaded("import pytest, pytest_sockserver.pytest_plugin.plugin") - loaded("import pytest")

    assert {name for name in new if not name.startswith("pytest_sockserver")} == set()
    assert {name for name in new if name.startswith("pytest_sockserver")} == {
        "pytest_sockserver",
        "pytest_sockserver.pytest_plugin",
        "pytest_sockserver.pytest_plugin.plugin",
    }


def test_a_server_that_serves_loads_neither_ssl_nor_asyncio_nor_the_table_of_old_names() -> None:
    program = """
import socket
import pytest_sockserver.faults
from pytest_sockserver import SockServer, faults, originals, socketserver
with SockServer() as sockserver:
    tcp, udp, unix = sockserver.tcp(), sockserver.udp(), sockserver.unix()
    tcp.handler(lambda conn: conn.send(conn.recv_line()))
    with socket.create_connection(tcp.address) as client:
        client.sendall(b"hi\\n")
        assert client.recv(10) == b"hi\\n"
    tcp.wait_for(b"hi\\n")
"""

    assert loaded(program) & EXPENSIVE - {"concurrent.futures"} == set()
    assert "pytest_sockserver.errors.renamed" not in loaded(program)


def test_each_module_can_be_imported_first() -> None:
    """A cycle may hide behind an order of imports that happens to work.

    There is none if the modules can be imported one by one, each loading nothing but itself: then a module finds
    complete whatever it imports, in each other order as well.  A folder whose ``__init__`` imports its modules counts
    as one: whichever of them is imported, that one runs first.
    """
    program = """
import importlib, sys
for name in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(name)
    for new in set(sys.modules) - before:
        if f"{new}.".startswith("pytest_sockserver.") and not f"{new}.".startswith(f"{name}."):
            print(f"{name} loads {new}")
"""
    needs = {
        name: {each for each in ours(name, lazy=False) if not each.startswith(f"{name}.")} | {name.rpartition(".")[0]}
        for name in MODULES
    }
    needs[""] = set()
    names = [f"pytest_sockserver.{name}".strip(".") for name in TopologicalSorter(needs).static_order()]

    said = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=30)

    assert (said.stdout, said.returncode) == ("", 0), said.stderr


# Public names

#: Where they are; the framework's are the standard library's.
PUBLIC = ("pytest_sockserver", "pytest_sockserver.faults", "pytest_sockserver.sweeps")


def names_for_type_checkers(module: str) -> dict[str, str]:
    """Return what a module shows to type checkers alone: each name, and the module that it is from."""
    if module == "pytest_sockserver":
        body = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
    else:
        tree = ast.parse(MODULES[module.partition(".")[2]].read_text(encoding="utf-8"))
        (block,) = (node for node in tree.body if is_type_checking(node))
        body = block.body  # type: ignore[attr-defined]
    found = {}
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module if node.level == 1 else module.rpartition(".")[0]
            assert [alias.name for alias in node.names] == [alias.asname for alias in node.names]
            found |= {alias.name: f"{base}.{node.module}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", ["pytest_sockserver", "pytest_sockserver.faults"])
def test_type_checkers_see_the_public_names_and_no_other(module: str) -> None:
    seen = names_for_type_checkers(module)

    assert sorted(seen) == import_module(module).__all__
    for name, home in seen.items():
        assert getattr(import_module(module), name) is getattr(import_module(home), name)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_there(module: str) -> None:
    names = import_module(module).__all__

    assert set(names) <= set(dir(import_module(module)))
    for name in dir(import_module(module)):
        getattr(import_module(module), name)


def test_no_public_name_is_in_two_places() -> None:
    names = [name for module in PUBLIC for name in import_module(module).__all__]

    assert len(names) == len(set(names))
    assert len(pytest_sockserver.__all__) < 60


@pytest.mark.parametrize("module", ["pytest_sockserver", "pytest_sockserver.faults"])
def test_a_name_that_is_not_there_is_an_attributeerror(module: str) -> None:
    with pytest.raises(AttributeError, match=f"^module '{module}' has no attribute 'Sockserver'$"):
        import_module(module).Sockserver  # noqa: B018


@pytest.mark.parametrize("module", PUBLIC)
def test_a_star_import_brings_the_public_names_and_no_other(module: str) -> None:
    names: dict[str, object] = {}
    exec(f"from {module} import *", names)

    assert {*names} - {"__builtins__"} == {*import_module(module).__all__}
    for name in import_module(module).__all__:
        assert names[name] is getattr(import_module(module), name)


@pytest.mark.parametrize("module", ["pytest_sockserver", "pytest_sockserver.faults"])
def test_nothing_is_imported_before_a_name_is_asked_for(module: str) -> None:
    ours = {name for name in loaded(f"import {module}") if name.startswith("pytest_sockserver")}

    assert ours == {"pytest_sockserver", module}


def test_errors_say_that_they_are_the_packages() -> None:
    for name in ("ScriptMismatch", "DeadlineExceeded", "HandlerStuck"):
        assert getattr(pytest_sockserver, name).__module__ == "pytest_sockserver"
        assert issubclass(getattr(pytest_sockserver, name), pytest_sockserver.SockServerError)


# What a test may replace is reached through ``originals`` alone

#: Modules whose functions and classes tests, freezegun, pytest-socket, gevent and eventlet replace.
REPLACED = ("time", "threading", "_thread", "socket", "_socket", "select", "selectors")

#: What is a value of theirs and nothing that acts: ``socket.AF_INET``, ``selectors.EVENT_READ``; and types of errors.
VALUES = re.compile(r"[A-Z][A-Z0-9_]*|__\w+__|gaierror|AddressFamily|SocketKind")

#: Reached as it is at the moment, on purpose.
AS_IT_IS = {
    # The framework stands in for the standard library's: what its user constructs is made of what the program has.
    ("socketserver.stream", "socket.socket"),
    ("socketserver.concurrency", "threading.Thread"),
    # Whether pytest-socket forbids it.
    ("transport.address", "socket.socket"),
}


def reached(source: str) -> Iterator[str]:
    """Yield what a module takes from those when it runs, as ``time.monotonic``; annotations are not looked at."""
    for node in running(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module in REPLACED:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                f"{alias.name} as {alias.asname}" for alias in node.names if alias.name in REPLACED and alias.asname
            )
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in REPLACED:
            yield f"{node.value.id}.{node.attr}"


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below one, but for annotations and what type checkers alone see."""
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, ast.AST) or name in ("annotation", "returns"):
                continue
            if isinstance(each, ast.stmt) and is_type_checking(each):
                yield from running(ast.Module([*each.orelse], []))  # type: ignore[attr-defined]
                continue
            yield each
            yield from running(each)


@pytest.mark.one_version
def test_the_reader_of_what_is_reached_sees_what_is_there() -> None:
    source = """
import time as clock
from threading import Lock
if TYPE_CHECKING:
    import ssl
    Plain = socket.socket
else:
    Plain = select.poll
def f(sock: socket.socket = socket.socket()) -> threading.Thread:
    at: threading.Lock = time.monotonic()
    return socket.AF_INET, Request.time
"""

    assert sorted(reached(source)) == sorted(
        ["time as clock", "threading.Lock", "select.poll", "socket.socket", "time.monotonic", "socket.AF_INET"]
    )


@pytest.mark.one_version
@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("bound", "originals")])
def test_what_a_test_may_replace_is_reached_through_originals_alone(name: str) -> None:
    found = reached(MODULES[name].read_text(encoding="utf-8"))

    wrong = {each for each in found if not VALUES.fullmatch(each.partition(".")[2])}
    assert {(name, each) for each in wrong} <= AS_IT_IS


@pytest.mark.one_version
@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("originals", "transport.tls_contexts")])
def test_ssl_is_imported_through_originals_alone(name: str) -> None:
    """Whoever imports it first while ``socket.socket`` is replaced would break it for the rest of the run."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))

    imported = [each for node in running(tree) if isinstance(node, ast.Import) for each in node.names]
    assert "ssl" not in {each.name for each in imported}


def test_no_module_but_originals_keeps_an_original_where_freezegun_looks() -> None:
    program = """
import importlib, sys, time, pytest_sockserver.originals
for name in sys.argv[1:]:
    module = importlib.import_module(f"pytest_sockserver.{name}")
    for each, value in vars(module).items():
        if any(value is getattr(time, clock) for clock in ("monotonic", "time", "perf_counter", "sleep")):
            print(name, each)
"""
    names = [name for name in MODULES if name]

    said = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=30)

    assert (said.stdout, said.returncode) == ("", 0), said.stderr


# Private names


def private_accesses() -> dict[str, int]:
    """Return how often each module uses a private name of an object that is not its own, where it uses any."""
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    owners: dict[str, set[str]] = {}
    for name, tree in trees.items():
        for private in privates_defined(tree):
            owners.setdefault(private, set()).add(name)
    found = {}
    for name, tree in trees.items():
        foreign = [each for each in privates_used(tree) if each in owners and name not in owners[each]]
        if foreign:
            found[name] = len(foreign)
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def privates_defined(tree: ast.Module) -> Iterator[str]:
    """Yield the private names of a module's classes: methods, annotated attributes, and what ``self`` is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_private(each.name):
                    yield each.name
                elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    yield from [each.target.id] if is_private(each.target.id) else []
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        for target in targets:
            for each in ast.walk(target):
                if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
                    yield from [each.attr] if is_private(each.attr) else []


def privates_used(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            value = node.value
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super":
                continue
            if not (isinstance(value, ast.Name) and value.id in ("self", "cls")):
                yield node.attr


@pytest.mark.one_version
def test_private_names_cross_no_border() -> None:
    assert private_accesses() == {"connection.waits": 1}  # asyncio.Handle._run, which tells its callbacks apart
