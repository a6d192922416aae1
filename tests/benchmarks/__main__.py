"""Measure every speed that is promised, and print one table: ``python tests/benchmarks``.

From the root of the repository, with the package and pytest installed; nothing else should run meanwhile.  About three
minutes, with ``--quick`` about forty seconds.  What a missed bound means is for the reader to say: the exit status is 0
whenever everything could be measured, unless ``--strict`` is given.  CI gives it for ``growth`` alone, whose ratios are
of the processor's time and hold on a busy machine; no test depends on a time.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import traceback
from pathlib import Path
from time import perf_counter

sys.path.append(str(Path(__file__).parents[1]))  # for insides.py

from measure import Effort, Measured, Row, Unavailable
from rows import ROWS

QUICK = 0.12

WIDTHS = (52, 34, 13, 20, 7)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", help="rows whose names begin so (default: all)", metavar="ROW")
    parser.add_argument("--quick", action="store_true", help="a sixth of the time, and a wider spread")
    parser.add_argument("--factor", type=float, help="so many times the usual time", metavar="X")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bound is missed")
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and measure nothing")
    chosen = parser.parse_args(arguments)
    rows = [row for row in ROWS if not chosen.rows or row.name.startswith(tuple(chosen.rows))]
    if not rows:
        parser.error(f"no row's name begins with {' or '.join(chosen.rows)}; --list names them")
    if chosen.list:
        for row in rows:
            print(f"{row.name:24}{row.what}, against {row.against}")
        return 0
    broken, missed = table(rows, Effort(chosen.factor or (QUICK if chosen.quick else 1.0)))
    return int(bool(broken or (missed and chosen.strict)))


def table(rows: list[Row], effort: Effort) -> tuple[int, int]:
    """Print a line for each row as soon as it is measured; return how many could not, and how many missed."""
    began = perf_counter()
    print(head())
    print(line("what", "against", "bound", "measured", ""))
    print(line(*("-" * (width - 1) for width in WIDTHS)))
    broken = missed = 0
    for row in rows:
        try:
            measured = row.measure(effort)
            missed += not row.bound.met(measured.value)
            print(judged(row, measured), flush=True)
        except Unavailable as reason:
            print(line(row.what, row.against, str(row.bound), "-", "skipped", str(reason)), flush=True)
        except Exception:
            broken += 1
            print(line(row.what, row.against, str(row.bound), "-", "BROKEN"), flush=True)
            traceback.print_exc()
    print(f"{perf_counter() - began:.0f} s")
    return broken, missed


def judged(row: Row, measured: Measured) -> str:
    verdict = "met" if row.bound.met(measured.value) else "MISSED"
    return line(row.what, row.against, str(row.bound), figure(measured), verdict, measured.detail)


def figure(measured: Measured) -> str:
    """Return the median and its range with three digits that say something: ``1.12 (1.08-1.15)``."""
    digits = 0 if measured.value >= 100 else 1 if measured.value >= 10 else 2
    value, low, high = (f"{each:.{digits}f}" for each in (measured.value, measured.low, measured.high))
    return f"{value} ({low}-{high})"


def line(*columns: str) -> str:
    padded = (column.ljust(width) for column, width in zip(columns, WIDTHS, strict=False))
    return " ".join([*padded, *columns[len(WIDTHS) :]]).rstrip()


def head() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    waiting = closed_connections()
    if waiting > 5000:
        print(f"{waiting:,} closed connections still keep their ports: the first rows will be slow; wait a minute")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{python}, {platform.system()} {platform.release()}, {os.cpu_count()} processors{load}"


def closed_connections() -> int:
    """Return how many closed TCP connections still keep their ports (TIME_WAIT); 0 where that cannot be told."""
    try:
        words = Path("/proc/net/sockstat").read_text().split()
    except OSError:
        return 0
    return int(words[words.index("tw") + 1])


if __name__ == "__main__":
    sys.exit(main())
