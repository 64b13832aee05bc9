"""One turn of the scheduling loop after the other: claim, hand over, say when to come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from scheduler.domain.action import ActionType, ScheduledAction
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.claim_turns import Taken
from scheduler.runtime.clock_watch import ClockWatch
from scheduler.runtime.database_watch import DatabaseWatch
from scheduler.runtime.executor import BatchExecutor
from scheduler.runtime.foresight import Foresight
from scheduler.runtime.lookout import Lookout
from scheduler.runtime.newcomers import Newcomers
from scheduler.runtime.own_claims import OwnClaims
from scheduler.settings import Settings
from scheduler.store.outlook import Outlook
from scheduler.store.stores import Stores
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.sentry import report_unexpected

Result = TypeVar("Result")

_BACK_OFF: Final = timedelta(milliseconds=20)
_LONGEST_WAIT_SECONDS: Final = 3600.0
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_AT_ONCE: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Lane:
    """One kind of actions with the executor that takes them."""

    action_type: ActionType
    executor: BatchExecutor


class LoopTurn:
    """What the scheduling loop does in one turn. `claim` and `finish` are called by its thread only, in this order.

    Idle it costs one cheap query per poll interval; busy, one claim per batch. When single timeouts fall due one after
    the other, one look at the table serves for all that it has seen.
    """

    def __init__(
        self,
        stores: Stores,
        lanes: Sequence[Lane],
        settings: Settings,
        metrics: Metrics,
        claims: OwnClaims,
        watch: DatabaseWatch,
        lookout: Lookout,
    ) -> None:
        self._stores = stores
        self._lookout = lookout
        self._lanes = lanes
        self._settings = settings
        self._metrics = metrics
        self._claims = claims
        self._watch = watch
        self._clock_watch = ClockWatch(metrics)
        self._is_enabled = False
        self._handed: dict[str, ScheduledAction] = {}
        self._claimed: list[ScheduledAction] = []
        self._expected: dict[ActionType, datetime] = {}
        self._go_first: dict[ActionType, frozenset[str]] = {}
        self._more = False
        self._leaves_more = False
        self._has_claimed = False
        self._goes_on = False
        self._has_failed = False
        self._fruitless_turns = 0
        self._known: Outlook | None = None
        self._known_at = stores.database.real_clock.now()
        self._began_at = self._known_at
        self._foresight = Foresight([lane.action_type for lane in lanes], settings.poll_interval)
        self._later: dict[ActionType, datetime | None] = {}
        self._newcomers = {lane.action_type: Newcomers(settings.poll_interval) for lane in lanes}
        self._backlogs: set[ActionType] = set()
        self._next_reconciliation = 0.0
        self.last_turn = time.monotonic()
        self._last_sign = self.last_turn
        self._is_asking = False

    @property
    def silence(self) -> float:
        """For how many seconds the loop has been silent for no reason.

        Waiting for the database is one, for as long as that may take: to connect, and to be answered.
        """
        silence = time.monotonic() - max(self.last_turn, self._last_sign)
        longest = 2 * self._settings.database_timeout.total_seconds() if self._is_asking else 0.0
        return max(silence - longest, 0.0)

    def enable(self) -> None:
        """Claim from now on."""
        self._expected = {}
        self._fruitless_turns = 0
        self._next_reconciliation = 0.0
        self._is_enabled = True

    def doubt(self) -> None:
        """There may be something new that is due soon. Thread-safe; called before a wake-up."""
        self._foresight.doubt()
        for newcomers in self._newcomers.values():
            newcomers.doubt()

    def disable(self) -> None:
        """Claim nothing more."""
        self._is_enabled = False

    def let_go(self, job_id: str) -> bool:
        """Whether the loop removes a job it has just been given: then its claim goes on, and nothing is canceled."""
        return self._handed.pop(job_id, None) is not None

    def claim(self) -> list[ScheduledAction]:
        """Claim what is due, as much as the executors take. Never raises."""
        self._has_failed = False
        self._give_back_unsealed()
        self._known = None
        self._go_first = {}
        self._more = False
        self._leaves_more = False
        self._has_claimed = False
        self._goes_on = False
        if self._is_enabled:
            self._guarded(self._claim_due)
        self._handed = {action.dedupe_key: action for action in self._claimed}
        return self._claimed

    def finish(self) -> datetime:
        """Hand what was submitted to the workers, give back the rest, and say when to turn again. Never raises."""
        submitted = {job_id for lane in self._lanes for job_id in self._seal(lane)}
        self._give_back_but(submitted)
        is_fruitful = bool(submitted) or self._goes_on
        if is_fruitful or not (self._has_claimed or self._has_failed):
            self._fruitless_turns = 0
        else:
            self._fruitless_turns += 1
        self.last_turn = time.monotonic()
        self._metrics.loop_turned()
        now = self._stores.database.real_clock.now()
        latest = now + self._settings.poll_interval
        if not self._is_enabled:
            return latest
        is_at_once = self._more and is_fruitful
        soonest = now if is_at_once else self._guarded(lambda: self._next_turn(now, latest)) or latest
        if not self._has_failed:
            self._watch.answered()
        return soonest

    def _seal(self, lane: Lane) -> set[str]:
        """Who was waiting for nothing isn't made to wait behind what others have too much of."""
        return lane.executor.seal(self._go_first.get(lane.action_type, frozenset()))

    def _give_back_unsealed(self) -> None:
        """A turn that an error ended before it was finished: nobody will work on what it had claimed."""
        for lane in self._lanes:
            lane.executor.discard()
        self._give_back_but(())

    def _give_back_but(self, submitted: Iterable[str]) -> None:
        """What APScheduler was given but didn't submit is due again at once."""
        taken = frozenset(submitted)
        left = [action for action in self._claimed if action.dedupe_key not in taken]
        self._claimed, self._handed = [], {}
        if left:
            self._guarded(lambda: self._claims.give_back(left))
            self.doubt()

    def _claim_due(self) -> None:
        self._reconcile()
        lanes = [lane for lane in self._lanes if lane.executor.free > 0]
        now = self._began_at = self._stores.database.real_clock.now()
        due = [lane for lane in lanes if self._expected.get(lane.action_type, _NEVER) <= now]
        if not due:
            known = self._look_ahead()
            due = [lane for lane in lanes if (at := known.of(lane.action_type)) is not None and at <= known.now]
        for lane in self._lanes:
            # They needn't wait for a claim of everybody's: the next turn makes that.
            if not self._has_found_newcomers(lane, is_its_turn=lane in due) and lane in due:
                self._claim_for(lane)

    def _claim_for(self, lane: Lane) -> None:
        most = min(lane.executor.free, lane.executor.batch_size)
        if self._claims.wait(lane.action_type) > 0:
            return
        self._has_claimed = True
        self._newcomers[lane.action_type].everybody_is_asked(self._stores.database.real_clock.now())
        taken = self._claims.claim(lane.action_type, most)
        self._known = None
        self._note(lane, taken)
        self._goes_on = self._goes_on or taken.held > 0 or taken.is_searching
        self._backlogs.discard(lane.action_type)
        if taken.has_more:
            self._backlogs.add(lane.action_type)
            self._expected[lane.action_type] = _AT_ONCE
            self._more = self._more or lane.executor.has_room_beside(len(taken.actions))

    def _note(self, lane: Lane, taken: Taken) -> None:
        self._claimed += taken.actions
        self._go_first[lane.action_type] = taken.go_first
        self._foresight.took(lane.action_type, (action.run_at for action in taken.actions))
        self._leaves_more = self._leaves_more or taken.has_more

    def _has_found_newcomers(self, lane: Lane, *, is_its_turn: bool) -> bool:
        """Who has no backlog is claimed for, if there may be anybody, whether there is room for everybody's or not.

        Something may be new, as far as anybody knows: if it is everybody's turn, that serves as well.
        """
        newcomers, now = self._newcomers[lane.action_type], self._stores.database.real_clock.now()
        # Without a look in this turn this machine's clock has to do.
        may_be_there = (is_its_turn or self._known is None) and newcomers.have_come(now)
        may_be_there = may_be_there or (not is_its_turn and newcomers.is_due(now))
        if not (may_be_there and self._serves_newcomers(lane)):
            return False
        newcomers.search(now)
        try:
            taken = self._claims.claim_for_newcomers(lane.action_type, lane.executor.room_first)
        except BaseException:
            newcomers.doubt()
            raise
        if taken.held or taken.is_searching:
            newcomers.doubt()
        self._note(lane, taken)
        if taken.actions and is_its_turn:
            self._expected[lane.action_type], self._more = _AT_ONCE, True
        return bool(taken.actions)

    def _serves_newcomers(self, lane: Lane) -> bool:
        return lane.action_type in self._backlogs and lane.executor.room_first > 0 and not self._claims.is_paced

    def _look_ahead(self) -> Outlook:
        self._foresight.begin()
        look = self._lookout.look()
        if self._stores.database.clock is None:
            self._clock_watch.compare(look.asked_at, look.outlook.now, look.answered_at)
        self._known, self._known_at = look.outlook, look.at
        self._foresight.saw(look.outlook, look.at)
        for action_type, newcomers in self._newcomers.items():
            newcomers.saw(look.outlook.now, look.outlook.later_of(action_type), look.at - look.outlook.now)
        return look.outlook

    def _next_turn(self, now: datetime, latest: datetime) -> datetime:
        """The earliest due instant of a lane with room, by this machine's clock; for others a completion wakes."""
        if self._is_foreseen():
            return self._foreseen_turn(now)
        known = self._known or self._look_ahead()
        self._expected = {}
        soonest = latest
        for lane in self._lanes:
            due_in = self._due_in(known, lane.action_type)
            if due_in is None:
                continue
            # By when the question was answered, not asked: a turn that comes early claims nothing, and is made again.
            local = self._known_at + due_in
            self._expected[lane.action_type] = local
            if lane.executor.free > 0:
                soonest = min(soonest, local)
            elif self._serves_newcomers(lane):
                soonest = min(soonest, now + self._newcomers[lane.action_type].due_in(now))
        if self._fruitless_turns and (soonest <= self._known_at or self._has_failed):
            # Not after the first: what is due now may have fallen due just after that claim, which was a hair early.
            backed_off = _BACK_OFF * ((1 << min(self._fruitless_turns - 1, 6)) - 1)
            return min(max(soonest, now + backed_off), latest)
        return soonest

    def _is_foreseen(self) -> bool:
        """Whether this turn claimed all that was due when it began, and an earlier look tells what is next."""
        has_all = self._has_claimed and not (self._has_failed or self._leaves_more or self._claims.is_paced)
        return has_all and self._known is None and self._foresight.holds(self._began_at)

    def _foreseen_turn(self, now: datetime) -> datetime:
        """The same from an earlier look. What was due when this turn began is claimed; more may be by now."""
        coming = {lane: at for lane in self._lanes if (at := self._foresight.next_of(lane.action_type)) is not None}
        self._expected = {lane.action_type: at for lane, at in coming.items()}
        next_look = now + self._foresight.remaining()
        return min([next_look, *(at for lane, at in coming.items() if lane.executor.free > 0)])

    def _due_in(self, known: Outlook, action_type: ActionType) -> timedelta | None:
        """When the next of that type is due and the rates allow it; None when there is none."""
        at = known.of(action_type)
        if at is None:
            return None
        due_in = max(at - known.now, timedelta(0))
        held_back, later = self._claims.wait_of_held_back(action_type), known.later_of(action_type)
        before, self._later[action_type] = self._later.get(action_type), later
        has_come = before is not None and before <= known.now
        if held_back is not None and not due_in and not has_come:
            # What is due already waits for its tenant's rate; what falls due meanwhile may be another one's. What has
            # come since the last look may have been missed by the claim: that one is made again.
            due_in = _seconds(held_back) if later is None else min(_seconds(held_back), later - known.now)
        return max(due_in, _seconds(self._claims.wait(action_type)))

    def _reconcile(self) -> None:
        """At once when in doubt, else four times per lease, unless there was no claim at all a moment ago."""
        now, quarter = time.monotonic(), self._settings.lease / 4
        if not self._claims.is_in_doubt:
            if now < self._next_reconciliation:
                return
            last = self._lookout.last(within=quarter)
            if last is not None and not last.is_anything_claimed:
                # What is older than its lease would have been seen.
                return
        self._claims.reconcile()
        self._foresight.doubt()
        self._next_reconciliation = now + quarter.total_seconds()

    def _guarded(self, work: Callable[[], Result]) -> Result | None:
        """The loop must go on whatever happens."""
        self._last_sign = time.monotonic()
        self._is_asking = True
        try:
            result = work()
        except DatabaseUnavailableError as error:
            self._has_failed = True
            self._watch.failed(error)
            return None
        except Exception as error:  # noqa: BLE001 - the loop guard
            self._has_failed = True
            report_unexpected("loop.error", error)
            return None
        finally:
            self._is_asking = False
            self._last_sign = time.monotonic()
        return result


def _seconds(wait: float) -> timedelta:
    return timedelta(seconds=min(wait, _LONGEST_WAIT_SECONDS))
