"""Run each fault of the catalogue many times, as a client sees it: ``python tests/faults``, ``--load 4``.

From the root of the repository, with the package installed.  Runs each row on each of its transports, a part in each of
the four places by turns, and prints what went wrong; exits with 1 if anything did.  Rows take turns, so that a run of
few rounds has seen all of them.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

# As a program this directory is no package, and its modules import each other as one.
sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.catalogue import ROWS  # type: ignore[import-not-found]
from faults.rows import Row  # type: ignore[import-not-found]


@dataclass
class Case:
    """A row on one transport, in all the places where it is declared; and how its runs went."""

    name: str
    transport: str
    rows: list[Row] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Run the row of the next place."""
        row, began = self.rows[len(self.seconds) % len(self.rows)], perf_counter()
        try:
            seen, expected = row.run(self.transport)
            if seen != expected:
                self.wrong[f"{row}: saw {seen!r}, expected {expected!r}"[:400]] += 1
        except Exception as error:
            self.wrong[f"{row}: {type(error).__name__}: {error}"[:400]] += 1
        self.seconds.append(perf_counter() - began)


def cases(only: list[str]) -> list[Case]:
    """Return the cases in whose names one of these stands; without any, all of them."""
    found: dict[tuple[str, str], Case] = {}
    for row in ROWS:
        for transport in row.transports:
            name = f"{row.id} {row.name}"
            if not only or any(each in f"{name}, {transport}" for each in only):
                found.setdefault((name, transport), Case(name, transport)).rows.append(row)
    return list(found.values())


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many other processes busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200, help="of each row on each transport (default: %(default)s)")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="beside so many busy processes")
    parser.add_argument(
        "--only", action="append", default=[], help="rows in whose names this stands, 'T11' or ', tls'; repeatable"
    )
    parser.add_argument("--seconds", type=float, default=7200, help="at most so long (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    all_of_them, began = cases(chosen.only), perf_counter()
    with busy(chosen.load):
        for _ in range(chosen.runs):
            for case in all_of_them:
                if perf_counter() - began < chosen.seconds:
                    case.run()
    return tell(all_of_them, chosen.load, perf_counter() - began)


def tell(all_of_them: list[Case], load: int, seconds: float) -> int:
    """Print the table, and what went wrong; return the code to exit with."""
    width = max((len(case.name) for case in all_of_them), default=3)
    print(f"{'row':{width}}  {'transport':13}  {'runs':>5}  {'failures':>8}  median seconds")
    for case in all_of_them:
        middle = median(case.seconds) if case.seconds else 0.0
        print(f"{case.name:{width}}  {case.transport:13}  {len(case.seconds):5}  {case.wrong.total():8}  {middle:.4f}")
    for case in all_of_them:
        for text, number in case.wrong.items():
            print(f"{number} times, {case.transport}: {text}")
    runs, wrong = sum(len(case.seconds) for case in all_of_them), sum(case.wrong.total() for case in all_of_them)
    beside = f"beside {load} busy processes" if load else "idle"
    print(f"{len(all_of_them)} rows, {runs:,} runs, {wrong:,} failures")
    print(f"{platform.python_version()}, {beside}, {seconds:.0f} s")
    return int(wrong > 0 or not runs)


if __name__ == "__main__":
    sys.exit(main())
