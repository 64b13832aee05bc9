"""How much an executor takes, and in which order, without a database."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.runtime.executor import BatchExecutor
from scheduler.runtime.in_hand import InHand
from scheduler.service.results import Ended
from tests.support.eventually import eventually

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
BATCH = 4


class Work:
    """Begins with each batch at once, and is done with it when it may be."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_end = threading.Semaphore(0)

    def fire(self, claimed: Sequence[Any], *, may_wait: bool = False) -> list[Ended]:
        """One batch."""
        assert not may_wait
        self.batches.append([action.dedupe_key for action in claimed])
        assert self.may_end.acquire(timeout=10)
        return []

    def leave(self, _claimed: Sequence[Any]) -> list[Any]:
        """Nothing stays in hand."""
        return []

    def record_rest(self) -> list[Ended]:
        """Nothing is left."""
        return []


class Stage:
    """An executor of one thread, with room for two batches, and who is woken by it."""

    def __init__(self, *, has_express: bool = False) -> None:
        self.work = Work()
        self.wakes = 0
        anything: Any = SimpleNamespace(note=lambda _: None)
        self.executor = BatchExecutor(
            self.work, 1, BATCH, "test", "test", InHand(), anything, anything, has_express=has_express
        )
        scheduler = SimpleNamespace(_create_lock=threading.RLock, has_listeners=False, wakeup=self._wake)
        self.executor.start(scheduler, "test")

    def hand_over(self, *keys: str, first: str = "") -> None:
        """Submit these, of the tenant their first letter names, as one turn of the loop does."""
        for key in keys:
            action = SimpleNamespace(dedupe_key=key, tenant_id=key[0], key=(key[0], key), claim_number=1)
            job: Any = SimpleNamespace(action=action)
            self.executor.submit_job(job, [NOON])
        assert self.executor.seal({first}) == set(keys)

    def begin(self, key: str) -> None:
        """The thread is at work on this one."""
        self.hand_over(key)
        self.wait_for(1)

    def wait_for(self, batches: int) -> None:
        """The thread has begun so many."""
        eventually(lambda: len(self.work.batches) == batches)

    def _wake(self) -> None:
        self.wakes += 1


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.work.may_end.release(100)
    assert stage.executor.wait_idle(10)
    stage.executor.shutdown()


def test_there_is_room_for_half_a_batch_at_least_or_none(stage: Stage) -> None:
    rooms = [stage.executor.free]
    for keys in (("a1", "a2", "a3"), ("a4", "a5", "a6"), ("a7",)):
        stage.hand_over(*keys)
        rooms.append(stage.executor.free)

    assert rooms == [8, 5, 2, 0]


def test_what_goes_first_has_a_batchs_room_more_where_there_is_an_express_for_it(stage: Stage) -> None:
    assert stage.executor.room_first == 0
    express = Stage(has_express=True)
    rooms = []
    for keys in (("a1", "a2", "a3", "a4"), ("a5", "a6", "a7", "a8"), ("b1",), ("b2", "b3", "b4")):
        express.hand_over(*keys, first="b")
        rooms.append((express.executor.free, express.executor.room_first))

    express.work.may_end.release(100)
    assert express.executor.wait_idle(10)
    express.executor.stop_taking()
    rooms.append((express.executor.free, express.executor.room_first))
    express.executor.shutdown()

    # Three are too few.
    assert rooms == [(4, 4), (0, 4), (0, 0), (0, 0), (0, 0)]


def test_who_found_no_room_even_for_what_goes_first_is_woken_once_there_is_some() -> None:
    express = Stage(has_express=True)
    express.hand_over("a1", "a2", "a3", "a4")
    express.hand_over("a5", "a6", "a7", "a8")
    eventually(lambda: len(express.work.batches) == 1)
    express.hand_over("b1", "b2", "b3", "b4", first="b")
    eventually(lambda: len(express.work.batches) == 2)
    rooms = [(express.executor.free, express.executor.room_first)]

    express.work.may_end.release()
    eventually(lambda: express.wakes == 1)
    rooms.append((express.executor.free, express.executor.room_first))
    express.work.may_end.release(100)
    assert express.executor.wait_idle(10)
    express.executor.shutdown()

    assert rooms == [(0, 0), (0, 4)]


def test_what_was_claimed_takes_its_room_before_it_is_submitted(stage: Stage) -> None:
    assert [stage.executor.has_room_beside(claimed) for claimed in (0, 6, 7, 8, 9)] == [True, True, False, False, False]


def test_who_waits_for_room_is_woken_once_there_is_some_for_half_a_batch(stage: Stage) -> None:
    stage.begin("a1")
    stage.hand_over("a2", "a3", "a4", "b1", first="b")
    stage.hand_over("a5", "a6", "a7")
    assert stage.executor.free == 0

    wakes = []
    for begun in (2, 3, 4):
        stage.work.may_end.release()
        stage.wait_for(begun)
        wakes.append(stage.wakes)

    assert stage.work.batches == [["a1"], ["b1"], ["a2", "a3", "a4"], ["a5", "a6", "a7"]]
    # With the first two ended there is room for two of four.
    assert wakes == [0, 1, 1]


def test_what_goes_first_is_a_batch_of_its_own_and_the_rest_is_as_it_was(stage: Stage) -> None:
    stage.begin("z1")
    stage.hand_over("a1", "b1", "a2")
    stage.hand_over("b2", "a3", "b3", first="a")

    stage.work.may_end.release(100)
    assert stage.executor.wait_idle(10)

    assert stage.work.batches == [["z1"], ["a3"], ["a1", "b1", "a2"], ["b2", "b3"]]
