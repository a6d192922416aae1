"""A short run of ``python tests/stress missed``."""

from __future__ import annotations

from .load import held
from .missed import run

#: Each case at least once.
ROUNDS = 200


def test_stop_misses_no_message_of_clients_that_send_and_end_at_once() -> None:
    counts = run(ROUNDS, seconds=40)

    assert counts.examples == []


def test_stop_misses_no_message_of_clients_in_another_process() -> None:
    counts = run(ROUNDS // 2, seconds=15, apart=True, only="tcp")

    assert counts.examples == []


def test_stop_misses_nothing_that_a_thread_holds_between_the_kernel_and_its_record() -> None:
    with held():
        counts = run(ROUNDS, seconds=40)

    assert counts.examples == []
