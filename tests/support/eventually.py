"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

INTERVAL_SECONDS = 0.01


def eventually(predicate: Callable[[], Answer], timeout: float = 10) -> Answer:
    """Ask `predicate` until its answer is true, and return that answer.

    `timeout` is in seconds. AssertionError when the answer is still false by then; what `predicate` raises,
    this raises.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            name = getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"{name} was still {answer!r} after {timeout} s")
        # The one place in the tests that waits: for what another process does, which can't signal us. It ends
        # as soon as the condition holds, so a slow machine makes a test slower, not wrong.
        time.sleep(INTERVAL_SECONDS)  # noqa: TID251
    return answer
