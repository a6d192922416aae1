"""How a row is measured: two things by turns in one run, medians, and how far they vary.

A ratio is of medians, and its range is that of the same ratio in five consecutive parts of the run: what another run
may say, as far as one run can know.  A time is a median too, and its range is from the 10th to the 90th percentile.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter, process_time

#: Consecutive parts of a run whose ratios are compared.
PARTS = 5


@dataclass(frozen=True)
class Effort:
    """How long a run may take, as a factor of the time that each row asks for."""

    factor: float

    def seconds(self, usual: float) -> float:
        return usual * self.factor

    def count(self, usual: int, least: int = 1) -> int:
        return max(least, round(usual * self.factor))


@dataclass(frozen=True)
class Measured:
    """A figure, the range in which it was found, and what it was made of."""

    value: float
    low: float
    high: float
    detail: str


@dataclass(frozen=True)
class Bound:
    """What a row promises: a ratio or a number of milliseconds, at most or at least."""

    limit: float
    unit: str = "x"
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: What selects the row on the command line.
        measure: Measures it; raises :class:`Unavailable` where that cannot be done.
    """

    name: str
    what: str
    against: str
    bound: Bound
    measure: Callable[[Effort], Measured]


class Unavailable(Exception):
    """This row cannot be measured here; the message says why."""


Samples = list[float]


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    began = perf_counter()
    run()
    return perf_counter() - began


def spent(run: Callable[[], object]) -> float:
    """Return the seconds of the processor that one call takes, which has no wait in it; others may use the machine."""
    began = process_time()
    run()
    return process_time() - began


def by_turns(
    ours: Callable[[], float], theirs: Callable[[], float], seconds: float, least: int = PARTS, most: int = 1_000_000
) -> tuple[Samples, Samples]:
    """Call both by turns for so long, each time the other one first; return what they returned, seconds usually."""
    ours(), theirs()  # what happens only once: imports, first threads, warm caches
    gc.collect()
    samples: tuple[Samples, Samples] = ([], [])
    until = perf_counter() + seconds
    while len(samples[0]) < least or (perf_counter() < until and len(samples[0]) < most):
        if len(samples[0]) % 2:
            samples[0].append(ours())
            samples[1].append(theirs())
        else:
            samples[1].append(theirs())
            samples[0].append(ours())
    return samples


def ratio(upper: Samples, lower: Samples, detail: str = "") -> Measured:
    """Return the ratio of the medians, and the range of it over the run's parts."""
    size = max(1, len(upper) // PARTS)
    starts = range(0, size * min(PARTS, len(upper)), size)
    parts = [median(upper[at : at + size]) / median(lower[at : at + size]) for at in starts]
    made_of = f"{shown(median(upper))} : {shown(median(lower))}, {len(upper)} pairs"
    return Measured(median(upper) / median(lower), min(parts), max(parts), made_of + (f"; {detail}" if detail else ""))


def milliseconds(samples: Samples, detail: str = "") -> Measured:
    """Return the median of times given in seconds, and the range of the middle eighty percent."""
    tenths = quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else samples
    made_of = f"worst {shown(max(samples))}, {len(samples)} times"
    return Measured(
        median(samples) * 1e3, tenths[0] * 1e3, tenths[-1] * 1e3, made_of + (f"; {detail}" if detail else "")
    )


def shown(seconds: float) -> str:
    """Return a time with three digits: ``1.25 ms``."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """Keep the calling thread, and those it starts meanwhile, on one processor.

    Two threads that answer each other take 16 or 80 microseconds, on one processor or on two, whoever serves: without
    this a ratio says where the scheduler put them, and nothing else.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield  # macOS, Windows: nothing to pin with
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
