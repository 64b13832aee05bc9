"""The threads of an executor, without a database."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.runtime.claimed_job import Submitted
from scheduler.runtime.shift import Shift
from tests.support.eventually import eventually


def batch(*keys: str) -> Sequence[Submitted]:
    jobs: list[Any] = [SimpleNamespace(action=SimpleNamespace(dedupe_key=key)) for key in keys]
    return [Submitted(job, datetime(2026, 3, 2, tzinfo=UTC)) for job in jobs]


class Stage:
    """A shift of one thread, which is at work on a first batch until it may go on."""

    def __init__(self, *, has_express: bool = False) -> None:
        self.worked: list[list[str]] = []
        self.worked_by: list[tuple[str, list[str]]] = []
        self.left: list[str] = []
        self._begun, self._go_on = threading.Event(), threading.Event()
        self.shift = Shift(self._work, self._done, threads=1, name="test", most=4, has_express=has_express)
        self.shift.submit(batch("a"))
        assert self._begun.wait(10)

    def go_on(self) -> None:
        """Work on all there is."""
        self._go_on.set()
        assert self.shift.wait_idle(10)

    def _work(self, _shift: Shift, batch: Sequence[Submitted]) -> None:
        keys = [one.job_id for one in batch]
        self.worked_by.append((threading.current_thread().name, keys))
        self.worked.append(keys)
        self._begun.set()
        assert self._go_on.wait(10)

    def _done(self, batch: Sequence[Submitted], *, is_over: bool) -> None:
        if is_over:
            self.left += [one.job_id for one in batch]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.go_on()
    stage.shift.end()


def test_small_batches_that_wait_together_are_worked_on_as_one(stage: Stage) -> None:
    """The second and third fit into four; the fourth doesn't fit in with them, and goes with the fifth."""
    for more in (batch("b", "c"), batch("d"), batch("e", "f", "g"), batch("h")):
        stage.shift.submit(more)
    outstanding = stage.shift.outstanding

    stage.go_on()

    assert outstanding == 8
    assert stage.worked == [["a"], ["b", "c", "d"], ["e", "f", "g", "h"]]
    assert stage.shift.outstanding == 0


def test_what_goes_first_goes_before_all_that_wait_and_not_together_with_them(stage: Stage) -> None:
    stage.shift.submit(batch("b"))
    for first in ("c", "d"):
        stage.shift.submit(batch(first), goes_first=True)

    stage.go_on()

    assert stage.worked == [["a"], ["c", "d"], ["b"]]


def test_the_end_of_a_shift_leaves_nothing_that_was_to_go_first(stage: Stage) -> None:
    stage.shift.submit(batch("b"))
    stage.shift.submit(batch("c"), goes_first=True)

    stage.shift.end()
    left = list(stage.left)
    stage.go_on()

    assert left == ["c", "b"]
    assert stage.worked == [["a"]]


@pytest.fixture
def express() -> Iterator[Stage]:
    stage = Stage(has_express=True)
    yield stage
    stage.go_on()
    stage.shift.end()


def test_an_express_begins_what_goes_first_at_once_and_nothing_else(express: Stage) -> None:
    for batches in (batch("b"), batch("c")):
        express.shift.submit(batches)
    express.shift.submit(batch("d"), goes_first=True)
    eventually(lambda: len(express.worked) == 2)
    for first in ("e", "f"):
        express.shift.submit(batch(first), goes_first=True)

    express.go_on()

    assert express.worked_by[:2] == [("test-0", ["a"]), ("test-express", ["d"])]
    # What comes while the express is at work is the next one's, whoever is free sooner.
    assert sorted(express.worked[2:]) == [["b", "c"], ["e", "f"]]
    assert ("test-0", ["b", "c"]) in express.worked_by


@pytest.mark.parametrize("order", ["cd", "dc"])
def test_while_the_express_is_busy_a_worker_takes_both_kinds_in_their_order(order: str) -> None:
    """What goes first (c) isn't put off by what comes later, nor is the rest (d) by more of what goes first."""
    begun, gates = threading.Semaphore(0), {key: threading.Event() for key in "abcd"}
    worked: list[tuple[str, list[str]]] = []

    def work(_shift: Shift, batch: Sequence[Submitted]) -> None:
        worked.append((threading.current_thread().name, [one.job_id for one in batch]))
        begun.release()
        assert gates[batch[0].job_id].wait(10)

    shift = Shift(work, lambda _batch, is_over: None, threads=1, name="one", has_express=True)  # noqa: ARG005
    for key, goes_first in (("a", False), ("b", True)):
        shift.submit(batch(key), goes_first=goes_first)
        assert begun.acquire(timeout=10)
    for key in order:
        shift.submit(batch(key), goes_first=key == "c")
    for key in ("a", *order):
        gates[key].set()
        assert key == order[-1] or begun.acquire(timeout=10)
    gates["b"].set()
    is_idle = shift.wait_idle(10)
    shift.end()

    assert is_idle
    assert worked == [("one-0", ["a"]), ("one-express", ["b"]), *[("one-0", [key]) for key in order]]


def test_whoever_is_idle_is_woken_by_a_batch() -> None:
    """Two threads and an express are idle: all three begin before any of them ends."""
    begun, may_end = threading.Semaphore(0), threading.Event()

    def work(_shift: Shift, _batch: Sequence[Submitted]) -> None:
        begun.release()
        assert may_end.wait(10)

    shift = Shift(work, lambda _batch, is_over: None, threads=2, name="idle", has_express=True)  # noqa: ARG005
    for key, goes_first in (("a", False), ("b", False), ("c", True)):
        shift.submit(batch(key), goes_first=goes_first)
    have_begun = [begun.acquire(timeout=10) for _ in range(3)]
    may_end.set()
    is_idle = shift.wait_idle(10)
    shift.end()

    assert (have_begun, is_idle) == ([True] * 3, True)


def test_an_express_goes_home_with_the_others(express: Stage) -> None:
    express.go_on()
    express.shift.end()

    eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("test-")])
