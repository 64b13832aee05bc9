"""The threads of an executor, from one start of it to its shutdown."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from scheduler.runtime.claimed_job import Submitted
from scheduler.telemetry.sentry import report_unexpected

Batch = Sequence[Submitted]
_Numbered = tuple[int, Batch]


def _number_of_its_head(queue: deque[_Numbered]) -> int:
    return queue[0][0]


class Done(Protocol):
    """What is called when a batch is worked off, or won't be. `is_over`: the shift is ending, or has ended."""

    def __call__(self, batch: Batch, *, is_over: bool) -> None:
        """Called in the thread that worked, or in the one that ends the shift."""


class Shift:
    """Threads that work on batches in the order they are submitted, those that go first before the others. Thread-safe.

    With `has_express` one thread more works on nothing but what goes first, which then waits for no other batch. The
    others take both kinds in the order they are submitted: neither is put off by more and more of the other.

    Batches that wait together are worked on as one, of up to `most`: a small one goes at once while there is a thread
    for it, and they grow with what is left over.

    A new start is a new shift: what is still busy after a shutdown ends with the old one. The threads are daemons,
    so that one that hangs in somebody's code can't keep the process from leaving.
    """

    def __init__(
        self,
        work: Callable[[Shift, Batch], None],
        done: Done,
        threads: int,
        name: str,
        most: int = 1,
        *,
        has_express: bool = False,
    ) -> None:
        self.stopping = threading.Event()
        self._work = work
        self._done = done
        self._is_over = False
        self._most = most
        self._has_express = has_express
        self._first: deque[_Numbered] = deque()
        self._waiting: deque[_Numbered] = deque()
        self._submitted = 0
        # One lock for all. Threads that wait for a batch aren't woken by the end of another.
        lock = threading.RLock()
        self._has_come = threading.Condition(lock)
        self._has_first_come = threading.Condition(lock)
        self._has_ended = threading.Condition(lock)
        self._outstanding: Counter[str] = Counter()
        self._at_work: dict[threading.Thread, Batch] = {}
        takers = {f"{name}-{number}": self._take for number in range(threads)}
        if has_express:
            takers[f"{name}-express"] = self._take_first
        self._threads = [
            threading.Thread(target=self._run, args=(take,), name=name, daemon=True) for name, take in takers.items()
        ]
        for thread in self._threads:
            thread.start()

    @property
    def outstanding(self) -> int:
        """How many jobs were submitted and aren't done."""
        with self._has_come:
            return self._outstanding.total()

    def submit(self, batch: Batch, *, goes_first: bool = False) -> None:
        """Have a batch worked on; `goes_first`: before all that wait and don't, or by the express if there is one."""
        with self._has_come:
            self._outstanding.update(one.job_id for one in batch)
            self._submitted += 1
            (self._first if goes_first else self._waiting).append((self._submitted, batch))
            self._has_come.notify()
            if goes_first:
                self._has_first_come.notify()

    def wait_idle(self, timeout: float | None) -> bool:
        """Wait until nothing is outstanding; False when that took longer than `timeout` seconds.

        Called from a batch (by a listener), it waits for all but that one.
        """
        own = len(self._at_work.get(threading.current_thread(), ()))
        with self._has_ended:
            return self._has_ended.wait_for(lambda: self._outstanding.total() <= own, timeout)

    def end(self) -> None:
        """Begin no further batch, and let the threads go; doesn't wait for them."""
        self.stopping.set()
        with self._has_come:
            self._is_over = True
            unbegun = [batch for _, batch in (*self._first, *self._waiting)]
            self._first.clear()
            self._waiting.clear()
            self._has_come.notify_all()
            self._has_first_come.notify_all()
        for batch in unbegun:
            self._settle(batch)
            self._done(batch, is_over=True)

    def _take(self) -> Batch | None:
        """The next batch, with what waits behind it; None when the shift is over."""
        with self._has_come:
            self._has_come.wait_for(lambda: self._first or self._waiting or self._is_over)
            if self._has_express and self._first and self._waiting:
                return self._next_of(min(self._first, self._waiting, key=_number_of_its_head))
            return self._next_of(self._first or self._waiting)

    def _take_first(self) -> Batch | None:
        """The same of what goes first."""
        with self._has_first_come:
            self._has_first_come.wait_for(lambda: self._first or self._is_over)
            return self._next_of(self._first)

    def _next_of(self, queue: deque[_Numbered]) -> Batch | None:
        if not queue:
            return None
        _, batch = queue.popleft()
        with suppress(MemoryError):  # then it goes alone
            while queue and len(batch) + len(queue[0][1]) <= self._most:
                batch = [*batch, *queue[0][1]]
                queue.popleft()
        return batch

    def _run(self, take: Callable[[], Batch | None]) -> None:
        while (batch := take()) is not None:
            self._at_work[threading.current_thread()] = batch
            try:
                if not self._is_over:
                    self._work(self, batch)
            except BaseException as error:  # noqa: BLE001 - a thread must outlive whatever a batch does to it
                with suppress(MemoryError):
                    report_unexpected("loop.error", error)
            del self._at_work[threading.current_thread()]
            self._settle(batch)
            self._done(batch, is_over=self.stopping.is_set())

    def _settle(self, batch: Batch) -> None:
        """In place, so that it needs no memory: there may be none when a batch ends for want of it."""
        with self._has_ended:
            for one in batch:
                self._outstanding[one.job_id] -= 1
                if not self._outstanding[one.job_id]:
                    del self._outstanding[one.job_id]
            self._has_ended.notify_all()
