"""The runner of CPython's tests must notice a broken module; what it says of ours is for CI, since it takes longer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import UNDER_TEST

TEST = "test_robotparser.PasswordProtectedSiteTestCase"
RUNNER = Path(__file__).with_name("run_cpython.py")

BROKEN = """
import socketserver as _real
from socketserver import *
from socketserver import socket, threading

class TCPServer(_real.TCPServer):
    def server_bind(self):
        raise OSError("broken on purpose")
"""

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("test") and importlib.util.find_spec("test.test_robotparser")),
    reason="this interpreter ships no test package",
)


def run_cpython(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RUNNER, *map(str, arguments), "--time-limit", "60"]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def test_broken_module_is_noticed(tmp_path: Path) -> None:
    tmp_path.joinpath("broken_socketserver.py").write_text(BROKEN)

    done = run_cpython("-m", "broken_socketserver", "--path", tmp_path, TEST)

    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        f"FAIL {TEST} 0 passed, 1 failed, 0 skipped; baseline: 1 passed, 0 failed, 0 skipped",
        f"     test.{TEST}.testPasswordProtectedSite: failed, passes on the baseline",
    ]


def test_module_that_cannot_be_imported_is_noticed(tmp_path: Path) -> None:
    done = run_cpython("-m", "no_such_socketserver", "--path", tmp_path, TEST)

    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        f"FAIL {TEST} 0 passed, 0 failed, 0 skipped; baseline: 1 passed, 0 failed, 0 skipped",
        f"     test.{TEST}.testPasswordProtectedSite: missing, passes on the baseline",
        "     ours: exit status 1: ModuleNotFoundError: No module named 'no_such_socketserver'",
    ]


def test_module_under_test_passes() -> None:
    done = run_cpython("-m", UNDER_TEST, TEST)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"ok   {TEST} 1 passed, 0 failed, 0 skipped; baseline: 1 passed, 0 failed, 0 skipped\n"
