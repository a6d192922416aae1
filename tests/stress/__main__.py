"""Look for what happens once in ten thousand times: ``python tests/stress missed``, ``start-stop``, ``races``.

From the root of the repository, with the package installed.  Each command is bounded in rounds and in time, prints what
it counted, and exits with 1 if anything was wrong.  ``--load`` runs it beside two busy processes and a busy thread.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from contextlib import nullcontext
from statistics import median
from time import perf_counter

import many
import missed
import races
from load import busy, held


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
    text = "hold what is received for up to 2 ms before it is recorded"
    commands.choices["missed"].add_argument("--held", action="store_true", help=text)
    chosen = parser.parse_args(arguments)
    began = perf_counter()
    with busy() if chosen.load else nullcontext():
        wrong = COMMANDS[chosen.command][2](chosen)
    print(f"{platform.python_version()}, {'loaded' if chosen.load else 'idle'}, {perf_counter() - began:.0f} s")
    return int(wrong)


def run_missed(chosen: argparse.Namespace) -> bool:
    with held() if chosen.held else nullcontext():
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


def run_many(chosen: argparse.Namespace) -> bool:
    counts = many.run(chosen.rounds, seconds=chosen.seconds)
    told = ", ".join(f"{number:,} {transport}" for transport, number in sorted(counts.servers.items()))
    print(f"{counts.servers.total():,} servers in 8 threads ({told}), {len(counts.wrong):,} went wrong")
    print(f"a life: median {1e3 * median(counts.lives):.2f} ms, worst {1e3 * max(counts.lives):.1f} ms")
    return told_wrong(counts.wrong, counts.left)


def run_races(chosen: argparse.Namespace) -> bool:
    counts = races.run(chosen.rounds, seconds=chosen.seconds)
    for name, number in counts.rounds.items():
        print(f"{number:7,} rounds  {name}")
    print(f"{len(counts.wrong):,} went wrong")
    print(f"stop: median {1e3 * median(counts.stops):.2f} ms, worst {1e3 * max(counts.stops):.1f} ms")
    return told_wrong(counts.wrong, counts.left)


def told_wrong(wrong: list[str], left: list[str]) -> bool:
    for text, number in Counter(wrong).most_common(20):
        print(f"  {number:5}  {text}")
    for each in left:
        print(f"  left behind: {each}")
    return bool(wrong or left)


COMMANDS = {
    "missed": ("clients send and end at once, then the server is stopped", 20_000, run_missed),
    "start-stop": ("many servers are started and stopped in eight threads at once", 10_000, run_many),
    "races": ("servers are stopped in the midst of everything", 5_000, run_races),
}

if __name__ == "__main__":
    sys.exit(main())
