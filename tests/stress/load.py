"""A busy machine: other processes want the processors, another thread wants the interpreter."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from time import sleep
from typing import Any

from pytest_sockserver.recording.recorder import Tape


@contextmanager
def busy(processes: int = 2, threads: int = 1) -> Iterator[None]:
    """Keep so many processes, and so many threads of this one, busy for the length of the block."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    spinning = [threading.Thread(target=spin) for _ in range(threads)]
    for thread in spinning:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for process in started:
            process.kill()
            process.wait()
        for thread in spinning:
            thread.join()


@contextmanager
def held(seconds: float = 0.002) -> Iterator[None]:
    """Hold each thread that receives for up to so long, with bytes that have left the kernel and are not recorded yet.

    That is where a server that asks the kernel and its own buffers whether all is done sees nothing of them.
    """
    received, random = Tape.received, Random(0)

    def late(tape: Tape, data: Any) -> None:
        sleep(random.random() * seconds)
        received(tape, data)

    Tape.received = late  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tape.received = received  # type: ignore[method-assign]
