"""Look for what happens once in ten thousand times: ``python tests/stress missed``, ``start-stop``, ``races``.

From the root of the repository, with the package installed.  Each command is bounded in rounds and in time, prints what
it counted, and exits with 1 if anything was wrong.  ``--load`` runs it beside two busy processes and a busy thread.
"""

from __future__ import annotations

import argparse
import platform
import sys
from contextlib import nullcontext
from statistics import median
from time import perf_counter

import missed
from load import busy


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/stress", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (text, rounds, _) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--rounds", type=int, default=rounds, help="how many (default: %(default)s)")
        command.add_argument("--seconds", type=float, default=600, help="at most so long (default: %(default)s)")
        command.add_argument("--load", action="store_true", help="beside two busy processes and a busy thread")
    commands.choices["missed"].add_argument("--apart", action="store_true", help="clients in a process of their own")
    commands.choices["missed"].add_argument("--only", default="", help="cases in whose names this stands")
    chosen = parser.parse_args(arguments)
    began = perf_counter()
    with busy() if chosen.load else nullcontext():
        wrong = COMMANDS[chosen.command][2](chosen)
    print(f"{platform.python_version()}, {'loaded' if chosen.load else 'idle'}, {perf_counter() - began:.0f} s")
    return int(wrong)


def run_missed(chosen: argparse.Namespace) -> bool:
    counts = missed.run(chosen.rounds, seconds=chosen.seconds, apart=chosen.apart, only=chosen.only)
    stops = sorted(counts.stops)
    print(f"{counts.rounds:,} rounds, {counts.missed.total():,} missed, {counts.failed.total():,} failed")
    print(f"stop: median {1e3 * median(stops):.2f} ms, worst {1e3 * stops[-1]:.1f} ms")
    for what, cases in (("missed", counts.missed), ("failed", counts.failed)):
        for case, number in cases.most_common():
            print(f"  {what} {number:5}  {case}")
    for example in counts.examples:
        print(example)
    return bool(counts.missed or counts.failed)


COMMANDS = {
    "missed": ("clients send and end at once, then the server is stopped", 20_000, run_missed),
}

if __name__ == "__main__":
    sys.exit(main())
