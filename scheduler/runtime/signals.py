"""Signals that the main thread waits for, and none of them too late."""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

_AT_ONCE: Final = 65_536


class Signals:
    """Signals as they come in. For the main thread.

    Python calls a signal's handler in the main thread, and only once that runs Python again. Where it is just about to
    wait for something else, or another thread was the one that the system interrupted, that is when its wait is over.
    So it waits for the byte that is written the moment a signal comes.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._reading = -1

    @contextmanager
    def heeding(self, numbers: Sequence[signal.Signals], heed: Callable[[int], None]) -> Iterator[None]:
        """`heed` is called with each of these signals, between any two steps of the main thread, and must not block."""
        with _pipe() as (self._reading, writing):

            def handle(number: int, _frame: FrameType | None) -> None:
                heed(number)
                self._waiting.append(number)
                # Where somebody's code in this thread has taken Python's own byte away.
                _write(writing)

            # First, so that no handler is called whose byte goes nowhere.
            previous_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
            previous = {number: signal.signal(number, handle) for number in numbers}
            try:
                yield
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(previous_descriptor)

    def next(self, timeout: float) -> int | None:
        """The next signal; None when there was none for so many seconds."""
        if not self._waiting:
            # Not `select`, which knows no descriptor above 1023.
            poll = select.poll()
            poll.register(self._reading, select.POLLIN)
            poll.poll(timeout * 1000)
        with suppress(BlockingIOError):
            os.read(self._reading, _AT_ONCE)
        return self._waiting.popleft() if self._waiting else None


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Both ends, neither of which blocks."""
    ends = os.pipe()
    try:
        for end in ends:
            os.set_blocking(end, False)
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _write(descriptor: int) -> None:
    with suppress(BlockingIOError):
        os.write(descriptor, b"\0")
