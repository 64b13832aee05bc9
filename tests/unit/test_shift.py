"""The threads of an executor, without a database."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from scheduler.runtime.claimed_job import Submitted
from scheduler.runtime.shift import Shift


def batch(*keys: str) -> Sequence[Submitted]:
    jobs: list[Any] = [SimpleNamespace(action=SimpleNamespace(dedupe_key=key)) for key in keys]
    return [Submitted(job, datetime(2026, 3, 2, tzinfo=UTC)) for job in jobs]


def test_small_batches_that_wait_together_are_worked_on_as_one() -> None:
    """The second and third fit into four; the fourth doesn't fit in with them, and goes with the fifth."""
    worked: list[list[str]] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(_shift: Shift, batch: Sequence[Submitted]) -> None:
        worked.append([one.job_id for one in batch])
        begun.set()
        assert go_on.wait(10)

    def done(batch: Sequence[Submitted], *, is_over: bool) -> None:
        """Nobody is told."""

    shift = Shift(work, done, threads=1, name="test", most=4)
    shift.submit(batch("a"))
    assert begun.wait(10)
    for more in (batch("b", "c"), batch("d"), batch("e", "f", "g"), batch("h")):
        shift.submit(more)
    outstanding = shift.outstanding
    go_on.set()

    assert shift.wait_idle(10)
    shift.end()
    assert outstanding == 8
    assert worked == [["a"], ["b", "c", "d"], ["e", "f", "g", "h"]]
    assert shift.outstanding == 0
