"""Claimed timeouts are fired: one transaction for the batch, halves when it fails, the poisonous row alone.

A batch's transaction holds everything: decisions, cancellations, new actions, and the completion of what fired,
fenced by the claim it was fired with. If a claim was lost meanwhile, nothing of it is committed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain.action import ActionStatus, ScheduledAction
from scheduler.domain.errors import SchedulerError
from scheduler.domain.outcome import BUSY, DEFERRED, PAUSED, UNKNOWN_CAMPAIGN, Outcome
from scheduler.service.campaigns import CampaignStateManager
from scheduler.service.canonical_line import BUSY_DELAY, log_action, log_actions
from scheduler.service.deciding import GONE
from scheduler.service.failing import Failures
from scheduler.service.owner import Owner
from scheduler.service.results import Ended
from scheduler.service.state_manager import StateManager
from scheduler.settings import Settings
from scheduler.store.database import Transaction
from scheduler.store.errors import is_lock_timeout, is_refusal, is_transient
from scheduler.store.settlements import PATIENCE, Completion, Return
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit, is_logged
from scheduler.telemetry.metrics import Metrics

HELD_UP_DELAY: Final = timedelta(seconds=2)
_LONGEST_DEFERRAL: Final = timedelta(minutes=1)
_ALONE: Final = Outcome(UNKNOWN_CAMPAIGN)

Key = tuple[str, str]


class ClaimLostError(SchedulerError):
    """Actions of the batch are no longer ours; what was decided for them must not be committed."""

    def __init__(self, keys: set[Key]) -> None:
        self.keys = keys
        super().__init__(f"{len(keys)} claims were lost")


@dataclass(frozen=True, slots=True)
class Fired:
    """One action of a batch and what became of it."""

    action: ScheduledAction
    outcome: Outcome | Exception
    returned: Return | None = None


class Firing:
    """Fires batches of claimed timeouts with one state manager, as one owner. Thread-safe."""

    def __init__(
        self, stores: Stores, state_manager: StateManager, settings: Settings, metrics: Metrics, owner: Owner
    ) -> None:
        self._stores = stores
        self._state_manager = state_manager
        self._settings = settings
        self._metrics = metrics
        self._owner = owner
        self._failures = Failures(settings, metrics)
        self._locks_campaigns = isinstance(state_manager, CampaignStateManager)

    def leave(self, claimed: Sequence[ScheduledAction]) -> list[ScheduledAction]:  # noqa: ARG002 - as of sends
        """Nobody works on these any more. Nothing of a timeout is known that isn't recorded: none is kept."""
        return []

    def record_rest(self) -> list[Ended]:
        """Nothing was left."""
        return []

    def fire(self, claimed: Sequence[ScheduledAction], *, may_wait: bool = False) -> list[Ended]:  # noqa: ARG002 - as of sends
        """Fire claimed timeouts; returns what became of each that was still ours. Never waits for a campaign.

        Raises DatabaseUnavailableError when the database is away: the claims are still ours, and due again when their
        lease ends.
        """
        if not claimed:
            return []
        try:
            return self._fire_together(claimed)
        except ClaimLostError as lost:
            return self.fire([action for action in claimed if action.key not in lost.keys])
        except Exception as error:
            if is_transient(error) and not is_refusal(error.__cause__):
                self._metrics.failed("timeout", "database")
                raise
            if len(claimed) == 1:
                is_held_up = is_lock_timeout(error.__cause__)
                return self._put_off(claimed[0]) if is_held_up else self._fail(claimed[0], error)
        emit("batch.split", size=len(claimed))
        middle = len(claimed) // 2
        return self.fire(claimed[:middle]) + self.fire(claimed[middle:])

    def _fire_together(self, claimed: Sequence[ScheduledAction]) -> list[Ended]:
        started = time.perf_counter()
        fired, now = self._stores.database.run(lambda transaction: self._fire_in(transaction, claimed))
        self._tell(fired, now, time.perf_counter() - started)
        return [_ended(one) for one in fired]

    def _fire_in(
        self, transaction: Transaction, claimed: Sequence[ScheduledAction]
    ) -> tuple[Sequence[Fired], datetime]:
        if self._locks_campaigns:
            # An open transaction may have inserted the very key that a next visit needs.
            transaction.wait_at_most(PATIENCE)
        held = self._hold(transaction, claimed)
        answers = self._still_held(transaction, held, self._ask_unpaused(transaction, held))
        return self._settle(transaction, held, answers), transaction.now

    def _hold(self, transaction: Transaction, claimed: Sequence[ScheduledAction]) -> Sequence[ScheduledAction]:
        """Our own state manager locks the campaigns; for any other the actions are locked here."""
        if self._locks_campaigns:
            return claimed
        held = self._stores.settlements.lock_held(transaction, self._owner.id, claimed)
        return [action for action in claimed if action.key in held]

    def _still_held(
        self, transaction: Transaction, held: Sequence[ScheduledAction], answers: Sequence[Outcome | Exception]
    ) -> Sequence[Outcome | Exception]:
        """What has no campaign is protected by no campaign's lock: it may have been canceled since it was claimed."""
        if not self._locks_campaigns:
            return answers
        alone = [action for action, answer in zip(held, answers, strict=True) if answer == _ALONE]
        if not alone:
            return answers
        ours = self._stores.settlements.lock_held(transaction, self._owner.id, alone)
        lost = {action.key for action in alone} - ours
        return [GONE if action.key in lost else answer for action, answer in zip(held, answers, strict=True)]

    def _ask_unpaused(self, transaction: Transaction, held: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """Our own state manager knows pauses; for any other, what was paused since it was claimed is answered here."""
        paused: set[str] = set()
        if not self._locks_campaigns:
            paused = self._stores.pauses.hold_wide(transaction, (action.tenant_id for action in held))
        answers = iter(self._ask(transaction, [action for action in held if action.tenant_id not in paused]))
        return [Outcome(PAUSED) if action.tenant_id in paused else next(answers) for action in held]

    def _ask(self, transaction: Transaction, held: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        answers = self._state_manager.process(transaction.connection, held) if held else []
        if not isinstance(answers, Sequence):
            raise SchedulerError(f"the state manager answered {answers!r}: give a sequence, an answer per job")
        if len(answers) != len(held):
            raise SchedulerError(f"the state manager gave {len(answers)} answers for {len(held)} jobs")
        for answer in answers:
            if not isinstance(answer, (Outcome, Exception)):
                raise SchedulerError(f"the state manager answered {answer!r}: give an Outcome or an exception")
        return answers

    def _settle(
        self, transaction: Transaction, held: Sequence[ScheduledAction], answers: Sequence[Outcome | Exception]
    ) -> list[Fired]:
        fired = [
            Fired(action, answer, self._returned(action, answer, transaction.now))
            for action, answer in zip(held, answers, strict=True)
            if answer is not GONE
        ]
        completions = [
            Completion(one.action, one.outcome.name)
            for one in fired
            if isinstance(one.outcome, Outcome) and one.outcome.is_final
        ]
        settlements = self._stores.settlements
        completed = settlements.complete(transaction, self._owner.id, completions)
        if len(completed) != len(completions):
            raise ClaimLostError({done.action.key for done in completions} - completed)
        settlements.give_back(transaction, self._owner.id, [one.returned for one in fired if one.returned is not None])
        return fired

    def _returned(self, action: ScheduledAction, answer: Outcome | Exception, now: datetime) -> Return | None:
        if isinstance(answer, Exception):
            return self._failures.after_attempt(action, answer, now)
        if answer.name == PAUSED:
            return Return(action, ActionStatus.PAUSED, action.run_at, action.attempts)
        if answer.name == DEFERRED:
            soonest = now + self._deferral(action)
            return Return(action, ActionStatus.PENDING, max(answer.run_at or soonest, soonest), action.attempts)
        if answer.name == BUSY:
            return Return(action, ActionStatus.PENDING, answer.run_at or now + BUSY_DELAY, action.attempts)
        return None

    def _deferral(self, action: ScheduledAction) -> timedelta:
        """At first the next poll; longer, the longer the mail has been asked for: its confirmation moves its timeouts.

        A state manager of one's own says itself when it wants to be asked again.
        """
        poll = self._settings.poll_interval
        asked_for = action.run_at - action.deadline if self._locks_campaigns else timedelta(0)
        return max(poll, min(asked_for / 4, _LONGEST_DEFERRAL))

    def _put_off(self, action: ScheduledAction) -> list[Ended]:
        """Somebody's open transaction holds what the action needs: later, and no attempt is counted."""
        with self._stores.database.transaction() as transaction:
            later = Return(action, ActionStatus.PENDING, transaction.now + HELD_UP_DELAY, action.attempts)
            self._stores.settlements.give_back(transaction, self._owner.id, [later])
            now = transaction.now
        log_action(action, BUSY, now)
        return [Ended(action, BUSY)]

    def _fail(self, action: ScheduledAction, error: Exception) -> list[Ended]:
        """One attempt of one action failed, and its transaction with it."""
        with self._stores.database.transaction() as transaction:
            returned = self._failures.after_attempt(action, error, transaction.now)
            held = self._stores.settlements.give_back(transaction, self._owner.id, [returned])
        if held:
            self._failures.tell(returned, error, "error")
        return [Ended(action, error=error, is_final=returned.status == ActionStatus.ERROR)]

    def _tell(self, fired: Sequence[Fired], now: datetime, seconds: float) -> None:
        """One line per action, and the metrics: after the commit, so that nothing is told that didn't happen."""
        ended: dict[tuple[str, str], int] = {}
        settled = []
        for one in fired:
            if isinstance(one.outcome, Exception):
                if one.returned is not None:
                    self._failures.tell(one.returned, one.outcome, "error")
                continue
            if one.outcome.is_final:
                label = (one.action.event_type, one.outcome.name)
                ended[label] = ended.get(label, 0) + 1
            settled.append((one.action, one.outcome.name))
        if is_logged("action.completed"):
            log_actions(settled, now, len(fired))
        for (event_type, name), count in ended.items():
            self._metrics.ended("timeout", event_type, name, count)
        self._metrics.fired_batch([(now - one.action.run_at).total_seconds() for one in fired], seconds)


def _ended(one: Fired) -> Ended:
    if isinstance(one.outcome, Exception):
        gave_up = one.returned is not None and one.returned.status == ActionStatus.ERROR
        return Ended(one.action, error=one.outcome, is_final=gave_up)
    return Ended(one.action, one.outcome.name, is_final=one.outcome.is_final)
