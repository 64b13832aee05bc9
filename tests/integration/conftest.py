"""Schedulers for tests: closed at the end, whatever they were doing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from scheduler import TimeoutScheduler
from tests.support.scheduling import make_settings
from tests.support.stage import Stage

OpenScheduler = Callable[..., TimeoutScheduler]


@pytest.fixture
def open_scheduler() -> Iterator[OpenScheduler]:
    """Makes a `TimeoutScheduler` that is shut down after the test; settings of somebody in a hurry by default."""
    with ExitStack() as opened:

        def open_one(url: str | None = None, **options: Any) -> TimeoutScheduler:
            scheduler = TimeoutScheduler(url, **{"settings": make_settings(), **options})
            opened.callback(scheduler.close)
            return scheduler

        yield open_one


@pytest.fixture
def stage(database_url: str, open_scheduler: OpenScheduler) -> Stage:
    """A scheduler whose clock stands still at noon; the test runs once on each backend."""
    return Stage(open_scheduler, database_url)
