"""Processes that do their work at the same moment, each with a scheduler of its own.

They are forked from a server that imports everything once: sixteen of them cost hardly more than one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import reduce
from multiprocessing.connection import Connection
from typing import Any, Final

from scheduler import SchedulerError, TimeoutScheduler
from tests.support.scheduling import make_settings

_PATIENCE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the scheduler's: `Call("campaigns.stop", ("acme", "c-1"))`."""

    name: str
    arguments: Sequence[Any] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def on(self, scheduler: TimeoutScheduler) -> Any:
        """What the call answers; what it raises is its answer, too."""
        try:
            return reduce(getattr, self.name.split("."), scheduler)(*self.arguments, **self.options)  # type: ignore[operator]
        except SchedulerError as error:
            return error


Calls = Sequence[Call]


def from_processes(url: str, *members: Calls, **settings: Any) -> list[list[Any]]:
    """Let each member make its calls, in a process of its own, beginning at the same moment; returns the answers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    barrier = context.Barrier(len(members))
    crowd = []
    for calls in members:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_live, args=(url, settings, calls, barrier, theirs), daemon=True)
        process.start()
        theirs.close()
        crowd.append((process, ours))
    answers = [_answers_from(ours) for _, ours in crowd]
    for process, ours in crowd:
        process.join(_PATIENCE_SECONDS)
        assert process.exitcode == 0
        process.close()
        ours.close()
    return answers


def _answers_from(connection: Connection) -> list[Any]:
    assert connection.poll(_PATIENCE_SECONDS), "a process didn't answer"
    answers: list[Any] = connection.recv()
    return answers


def _live(url: str, settings: dict[str, Any], calls: Calls, barrier: Any, answer: Connection) -> None:
    with closing(TimeoutScheduler(url, settings=make_settings(**settings))) as scheduler:
        scheduler.pending()  # so that it is connected when the others begin
        barrier.wait(_PATIENCE_SECONDS)
        answer.send([call.on(scheduler) for call in calls])
