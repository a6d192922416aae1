"""A short run of ``python tests/faults``, and what it says when something is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest_sockserver

ROOT = Path(__file__).parents[2]

# Runs the command, with a row that is wrong in the catalogue.
WRONG = """
import sys
sys.argv[0] = "tests/faults"
sys.path[:0] = ["tests/faults", "tests"]
from dataclasses import replace
from faults import catalogue
row = next(row for row in catalogue.ROWS if row.name == "latency")
catalogue.ROWS[:] = [replace(row, name="wrong", expected="nothing")]
from faults.__main__ import main
sys.exit(main(["--runs", "2"]))
"""


def run(*arguments: str) -> tuple[int, list[str]]:
    path = os.pathsep.join([str(Path(pytest_sockserver.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, [re.sub(r"\d+\.\d{4}$|\d+ s$", "T", line) for line in done.stdout.splitlines()]


def test_the_command_prints_each_row_its_runs_and_its_failures() -> None:
    code, said = run("tests/faults", "--only", "T10 jitter", "--runs", "5", "--load", "1")

    version = ".".join(map(str, sys.version_info[:3]))
    assert said == [
        "row         transport       runs  failures  median seconds",
        "T10 jitter  tcp                5         0  T",
        "T10 jitter  tls                5         0  T",
        "T10 jitter  unix               5         0  T",
        "3 rows, 15 runs, 0 failures",
        f"{version}, beside 1 busy processes, T",
    ]
    assert code == 0


def test_the_command_says_what_was_seen_instead_and_fails() -> None:
    code, said = run("-c", WRONG)

    assert said[1] == "T10 wrong  tcp                2         2  T"
    assert said[4] == "2 times, tcp: T10 wrong, script: saw (b'0123456789', 'end', 'in time'), expected 'nothing'"
    assert said[-2] == "3 rows, 6 runs, 6 failures"
    assert code == 1


def test_the_command_fails_where_no_row_was_run() -> None:
    code, said = run("tests/faults", "--only", "no such row")

    assert said[-2] == "0 rows, 0 runs, 0 failures"
    assert code == 1
