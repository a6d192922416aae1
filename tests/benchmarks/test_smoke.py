"""The benchmarks run, and print what they promise to print.  What they measure is judged by nobody here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_sockserver

HERE = Path(__file__).parent

#: Whatever a row came to, but not that it could not be measured.
LINE = re.compile(r".* (<=|>=) [\d.]+ (x|ms) .* (met|MISSED|skipped) .*")


def command(*arguments: str, program: Path = HERE) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=str(Path(pytest_sockserver.__file__).parents[1]))
    return subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, env=environment, timeout=50
    )


def printed(*arguments: str) -> list[str]:
    """Return the lines that the command prints; it must find nothing amiss."""
    done = command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("rows", ["life-verbs", "stop", "echo", "bulk", "growth"])
def test_rows_are_measured_in_no_time(rows: str) -> None:
    wanted = [line.split()[0] for line in printed("--list", rows)]

    said = printed("--factor", "0.001", rows)
    if said[0].endswith("wait a minute"):  # other tests of this machine have used up many ports
        del said[0]
    head, columns, rule, *lines, seconds = said

    assert head.startswith(("CPython ", "PyPy "))
    assert columns.split() == ["what", "against", "bound", "measured"]
    assert set(rule) == {"-", " "}
    assert len(lines) == len(wanted)
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert re.fullmatch(r"\d+ s", seconds)


ONE_ROW = """
from measure import Bound, Measured, Row

ROWS = [Row("never", "what takes 2", "what takes 1", Bound(1), lambda effort: Measured(2, 2, 2, ""))]
"""


def test_a_missed_bound_is_an_error_if_so_told(tmp_path: Path) -> None:
    for name, text in {name: (HERE / name).read_text() for name in ("__main__.py", "measure.py")}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "rows.py").write_text(ONE_ROW)

    done = [command(*arguments, program=tmp_path) for arguments in ((), ("--strict",))]

    assert all("MISSED" in each.stdout for each in done)
    assert [each.returncode for each in done] == [0, 1]


def test_row_that_does_not_exist_is_refused() -> None:
    done = command("nonsense")

    assert done.returncode == 2
    assert done.stderr.endswith("error: no row's name begins with nonsense; --list names them\n")
