"""Whether attempt after attempt fails in this process: told once when it begins, once when one succeeds again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from scheduler.domain.action import ActionType
from scheduler.domain.alerting import FailureRun, Turn
from scheduler.domain.outcome import SENT
from scheduler.service.owner import Owner
from scheduler.service.results import Ended
from scheduler.store.errors import is_transient
from scheduler.telemetry.alerts import tell_failures
from scheduler.telemetry.metrics import Metrics


@dataclass(slots=True)
class _Lane:
    """Timeouts and sends fail for different reasons: a mail server that is away is no matter of timeouts."""

    run: FailureRun
    raised_at: float = 0.0


class FailureWatch:
    """Hears of everything that was fired, batch by batch. Thread-safe.

    A database that is away is no failure of an action; the database watch tells of it.
    """

    def __init__(self, metrics: Metrics, threshold: int, owner: Owner) -> None:
        self._metrics = metrics
        self._threshold = threshold
        self._owner = owner
        self._mutex = threading.Lock()
        self._lanes = {kind: _Lane(FailureRun()) for kind in ActionType}

    def note(self, batch: Sequence[Ended]) -> None:
        """What became of the actions of one batch, all of one type."""
        failed = [one for one in batch if one.error is not None and not is_transient(one.error)]
        succeeded = any(_is_success(one) for one in batch)
        if not failed and not succeeded:
            return
        kind = ActionType(batch[0].action.action_type)
        with self._mutex:
            lane = self._lanes[kind]
            if succeeded and not lane.run.keys:
                return
            before, raised_at = lane.run, lane.raised_at
            keys = (one.action.key for one in failed)
            lane.run, turn = before.after(keys, self._threshold, succeeded=succeeded)
            self._metrics.consecutive_failures(max(len(one.run.keys) for one in self._lanes.values()))
            if turn is not None:
                lane.raised_at = time.monotonic()
                self._tell(kind, before if succeeded else lane.run, turn, raised_at, failed)

    def forget_parent(self) -> None:
        """In a forked child: the parent may have held the lock."""
        self._mutex = threading.Lock()

    def _tell(self, kind: ActionType, run: FailureRun, turn: Turn, raised_at: float, failed: Sequence[Ended]) -> None:
        is_raised = turn == Turn.RAISED
        error = failed[-1].error if is_raised and failed else None
        tell_failures(
            is_raised=is_raised,
            action_type=kind,
            instance=self._owner.id,
            failures=len(run.keys),
            error=None if error is None else type(error).__name__,
            lasted=None if is_raised else timedelta(seconds=time.monotonic() - raised_at),
        )


def _is_success(one: Ended) -> bool:
    """Something was really done: a send that ended unsent says nothing of the mail server."""
    if one.error is not None or not one.is_final:
        return False
    return one.action.action_type == ActionType.TIMEOUT or one.outcome == SENT
