"""What fires with whom: the protocol a team with its own campaign tables implements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from scheduler.domain.action import ScheduledAction
from scheduler.domain.outcome import Outcome
from scheduler.store.database import Connection


@runtime_checkable
class StateManager(Protocol):
    """Turns due timeouts into transitions. Timers, claims, retries and operations stay with the scheduler.

    `process` runs inside the scheduler's transaction, in one of several threads, with a batch of due timeouts that
    are locked for it. All it writes through `connection` commits together with the completion of the batch, or not
    at all; it must not commit. It answers one `Outcome` per job, in their order; an exception *in* the answer
    retries that job alone, an exception *raised* rolls the batch back, which is then fired in halves.
    """

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """Apply what the expired timeouts mean."""
