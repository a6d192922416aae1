"""Names, hierarchy, class attributes and signatures: those of the standard library, and no more than was announced."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from types import FunctionType, ModuleType
from typing import Any

import pytest

from .conftest import UNDER_TEST

# Of the newest version of the standard library; what the platform cannot have is taken off.
NAMES = {
    "BaseServer", "TCPServer", "UDPServer", "UnixStreamServer", "UnixDatagramServer",
    "ThreadingMixIn", "ThreadingTCPServer", "ThreadingUDPServer",
    "ThreadingUnixStreamServer", "ThreadingUnixDatagramServer",
    "ForkingMixIn", "ForkingTCPServer", "ForkingUDPServer", "ForkingUnixStreamServer", "ForkingUnixDatagramServer",
    "BaseRequestHandler", "StreamRequestHandler", "DatagramRequestHandler",
}  # fmt: skip

# What is ours: opt-in attributes, with the default that is the standard library's behaviour.
OPT_IN: dict[str, dict[str, Any]] = {
    "BaseServer": {"collect_errors": False},
    "TCPServer": {
        "end_connections_on_close": False,
        "infer_address_family": False,
        "dual_stack": False,
        "linger_on_close": 0.0,
    },
    "UDPServer": {"reply_from_destination": False},
    "UnixStreamServer": {"unlink_on_close": False},
    "UnixDatagramServer": {"unlink_on_close": False},
    "ThreadingMixIn": {"close_timeout": None, "max_threads": None, "join_daemon_threads": False},
}

# On 3.10 the standard library does not have it yet.
NEWER = {"allow_reuse_port": False}


def platform_names() -> set[str]:
    missing = set()
    if not hasattr(os, "fork"):
        missing |= {name for name in NAMES if name.startswith("Forking")}
    import socket

    if not hasattr(socket, "AF_UNIX"):
        missing |= {name for name in NAMES if "Unix" in name}
    return NAMES - missing


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in {"__init__", "__enter__", "__exit__"}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each, annotations aside; the names of ``*args`` are nobody's business."""
    return [
        ("*" if each.kind is each.VAR_POSITIONAL else each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
    ]


@pytest.fixture(params=sorted(platform_names()))
def pair(request: pytest.FixtureRequest, module: ModuleType, standard: ModuleType) -> tuple[type, type]:
    """A class of the standard library, and ours of the same name."""
    if not hasattr(standard, request.param):
        pytest.skip(f"socketserver has no {request.param} before Python 3.12")
    return getattr(standard, request.param), getattr(module, request.param)


def test_all_names_the_union_of_all_versions(module: ModuleType, standard: ModuleType) -> None:
    assert set(standard.__all__) <= set(module.__all__)
    if module is not standard:
        assert set(module.__all__) == platform_names() | {"TLSMixIn"}
    assert len(module.__all__) == len(set(module.__all__))
    assert [name for name in module.__all__ if not isinstance(getattr(module, name), type)] == []
    assert module.__version__ == standard.__version__


def test_all_names_every_public_class(module: ModuleType) -> None:
    own = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and not name.startswith("_") and value.__module__.startswith(module.__name__)
    }

    assert own == set(module.__all__)


def test_class_has_the_standard_bases(pair: tuple[type, type]) -> None:
    theirs, ours = pair

    assert ours.__name__ == ours.__qualname__ == theirs.__name__
    assert [base.__name__ for base in ours.__bases__] == [base.__name__ for base in theirs.__bases__]
    assert [base.__name__ for base in ours.__mro__] == [base.__name__ for base in theirs.__mro__]


def test_class_has_the_standard_attributes(pair: tuple[type, type]) -> None:
    theirs, ours = pair
    expected = {
        name: value for name, value in vars(theirs).items() if is_public(name) and not isinstance(value, FunctionType)
    }

    assert {name: vars(ours).get(name, "missing") for name in expected} == expected


def test_class_defines_the_standard_methods_with_their_signatures(pair: tuple[type, type]) -> None:
    theirs, ours = pair
    expected = {
        name: parameters(value)
        for name, value in vars(theirs).items()
        if is_public(name) and isinstance(value, FunctionType)
    }
    defined = {name: parameters(vars(ours)[name]) for name in expected if name in vars(ours)}
    for exit_parameters in defined.get("__exit__"), expected.get("__exit__"):
        if exit_parameters is not None:
            exit_parameters[1:] = []  # (*args) or the three by name

    assert defined == expected


def test_class_has_no_public_attribute_but_the_announced(pair: tuple[type, type], module: ModuleType) -> None:
    theirs, ours = pair
    known = {name for base in theirs.__mro__ for name in vars(base)} | set(NEWER)
    extra = {name: value for name, value in vars(ours).items() if not name.startswith("_") and name not in known}

    if ours is not theirs:
        assert extra == OPT_IN.get(theirs.__name__, {})


def test_newer_attributes_are_there_on_every_version(module: ModuleType) -> None:
    for name, value in NEWER.items():
        for cls in module.TCPServer, module.UDPServer:
            if sys.version_info >= (3, 11) or UNDER_TEST != "socketserver":
                assert vars(cls)[name] == value


def test_mix_ins_define_no_init(module: ModuleType) -> None:
    """python/cpython#81374: one would break every subclass that does not call it."""
    for name in {"ThreadingMixIn", "ForkingMixIn", "TLSMixIn"} & set(module.__all__):
        assert getattr(module, name).__init__ is object.__init__


def test_threads_of_the_class_are_a_list_that_stays_empty(module: ModuleType) -> None:
    threads = module.ThreadingMixIn._threads

    threads.append(None)
    threads.join()

    assert list(threads if hasattr(threads, "__iter__") else ()) == []


def loaded_by(statement: str, *names: str) -> str:
    """Which of the modules a fresh interpreter has loaded after the statement."""
    script = f"import sys\n{statement}\nprint(*sorted(set({names!r}) & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_import_loads_neither_the_standard_module_nor_pytest_nor_ssl() -> None:
    if UNDER_TEST == "socketserver":
        pytest.skip("this is the standard library's module")

    loaded = loaded_by(f"import {UNDER_TEST}", UNDER_TEST, "socketserver", "pytest", "_pytest", "ssl", "asyncio")

    assert loaded == f"{UNDER_TEST}\n"
