"""A busy machine: other processes want the processors, another thread wants the interpreter."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
