"""One turn of the scheduling loop after the other: claim, hand over, say when to come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.executor import BatchExecutor
from scheduler.service.owner import Owner
from scheduler.settings import Settings
from scheduler.store.claims import NextDue
from scheduler.store.settlements import Return
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics

Result = TypeVar("Result")

_BACK_OFF: Final = timedelta(milliseconds=20)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_AT_ONCE: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Lane:
    """One kind of actions with the executor that takes them."""

    action_type: ActionType
    executor: BatchExecutor


class LoopTurn:
    """What the scheduling loop does in one turn. `claim` and `finish` are called by its thread only, in this order.

    Idle it costs one cheap query per poll interval; busy, one claim per batch.
    """

    def __init__(
        self, stores: Stores, lanes: Sequence[Lane], settings: Settings, metrics: Metrics, owner: Owner
    ) -> None:
        self._stores = stores
        self._lanes = lanes
        self._settings = settings
        self._metrics = metrics
        self._owner = owner
        self._is_enabled = False
        self._handed: dict[str, ScheduledAction] = {}
        self._claimed: list[ScheduledAction] = []
        self._expected: dict[ActionType, datetime] = {}
        self._more = False
        self._has_claimed = False
        self._has_held = False
        self._fruitless_turns = 0
        self._known: NextDue | None = None
        self._next_recovery = 0.0
        self._is_up = True
        self.last_turn = time.monotonic()

    def enable(self) -> None:
        """Claim from now on."""
        self._expected = {}
        self._fruitless_turns = 0
        self._next_recovery = 0.0
        self._is_enabled = True

    def disable(self) -> None:
        """Claim nothing more."""
        self._is_enabled = False

    def let_go(self, job_id: str) -> bool:
        """Whether the loop removes a job it has just been given: then its claim goes on, and nothing is canceled."""
        return self._handed.pop(job_id, None) is not None

    def claim(self) -> list[ScheduledAction]:
        """Claim what is due, as much as the executors take. Never raises."""
        self._claimed = []
        self._known = None
        self._more = False
        self._has_claimed = False
        self._has_held = False
        if self._is_enabled:
            self._guarded(self._claim_due)
        self._handed = {action.dedupe_key: action for action in self._claimed}
        return self._claimed

    def finish(self) -> datetime:
        """Hand what was submitted to the workers, give back the rest, and say when to turn again. Never raises."""
        submitted = {job_id for lane in self._lanes for job_id in lane.executor.seal()}
        left = [action for action in self._claimed if action.dedupe_key not in submitted]
        if left:
            self._guarded(lambda: self._give_back(left))
        self._handed = {}
        is_fruitful = bool(submitted) or self._has_held
        if is_fruitful or not self._has_claimed:
            self._fruitless_turns = 0
        else:
            self._fruitless_turns += 1
        self.last_turn = time.monotonic()
        self._metrics.loop_turned()
        now = self._stores.database.real_clock.now()
        latest = now + self._settings.poll_interval
        if not self._is_enabled:
            return latest
        if self._more and is_fruitful:
            return now
        return self._guarded(lambda: self._next_turn(now, latest)) or latest

    def _claim_due(self) -> None:
        self._recover()
        lanes = [lane for lane in self._lanes if lane.executor.free > 0]
        now = self._stores.database.real_clock.now()
        due = [lane for lane in lanes if self._expected.get(lane.action_type, _NEVER) <= now]
        if not due:
            known = self._look_ahead()
            due = [lane for lane in lanes if (at := _due_at(known, lane)) is not None and at <= known.now]
        for lane in due:
            self._claim_for(lane)

    def _claim_for(self, lane: Lane) -> None:
        most = min(lane.executor.free, lane.executor.batch_size)
        self._has_claimed = True
        with self._stores.database.transaction() as transaction:
            claimed = self._stores.claims.claim(
                transaction, lane.action_type, most, self._owner.id, self._settings.lease
            )
        self._known = None
        self._claimed += claimed
        self._has_held = self._has_held or claimed.held > 0
        if len(claimed) + claimed.held == most:
            self._expected[lane.action_type] = _AT_ONCE
            self._more = self._more or lane.executor.free > len(claimed)

    def _look_ahead(self) -> NextDue:
        with self._stores.database.reading() as transaction:
            known = self._stores.claims.next_due(transaction)
        self._known = known  # only now: a connection that broke at the end would pass for one that recovered
        return known

    def _next_turn(self, now: datetime, latest: datetime) -> datetime:
        """The earliest due instant of a lane with room, by this machine's clock; for others a completion wakes."""
        known = self._known or self._look_ahead()
        self._expected = {}
        soonest = latest
        for lane in self._lanes:
            at = _due_at(known, lane)
            if at is None:
                continue
            local = now + max(at - known.now, timedelta(0))
            self._expected[lane.action_type] = local
            if lane.executor.free > 0:
                soonest = min(soonest, local)
        if soonest <= now and self._fruitless_turns:
            backed_off = _BACK_OFF * (1 << min(self._fruitless_turns, 6))
            return min(now + backed_off, latest)
        return soonest

    def _give_back(self, left: Sequence[ScheduledAction]) -> None:
        """What APScheduler was given but didn't submit is due again at once."""
        with self._stores.database.transaction() as transaction:
            returns = [Return(action, ActionStatus.PENDING, action.run_at, action.attempts) for action in left]
            self._stores.settlements.give_back(transaction, self._owner.id, returns)
        emit("claims.handed_back", count=len(left))

    def _recover(self) -> None:
        """Claims past their lease are due again, our own too where memory doesn't know them; four times per lease."""
        if time.monotonic() < self._next_recovery:
            return
        self._next_recovery = time.monotonic() + self._settings.lease.total_seconds() / 4
        with self._stores.database.transaction() as transaction:
            recovered = self._stores.claims.release_expired(transaction, self._owner.id)
            forgotten = [
                Return(action, ActionStatus.PENDING, action.run_at, action.attempts)
                for action in self._stores.claims.expired_own(transaction, self._owner.id)
                if not any(lane.executor.is_firing(action.dedupe_key) for lane in self._lanes)
            ]
            recovered += len(self._stores.settlements.give_back(transaction, self._owner.id, forgotten))
        if recovered:
            emit("claims.recovered", count=recovered)

    def _guarded(self, work: Callable[[], Result]) -> Result | None:
        """The loop must go on whatever happens: a database that is away is said once, anything else is an error."""
        try:
            result = work()
        except DatabaseUnavailableError as error:
            if self._is_up:
                emit("database.unavailable", error=str(error))
            self._is_up = False
            self._metrics.database_is_up(up=False)
            return None
        except Exception as error:  # noqa: BLE001 - the loop guard
            emit("loop.error", error=f"{type(error).__name__}: {error}")
            return None
        if not self._is_up:
            emit("database.recovered")
        self._is_up = True
        self._metrics.database_is_up(up=True)
        return result


def _due_at(known: NextDue, lane: Lane) -> datetime | None:
    return known.timeout if lane.action_type == ActionType.TIMEOUT else known.send
