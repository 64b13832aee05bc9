"""Due timeouts to decisions: locks the campaigns, reads what a decision needs in two reads, decides each in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from scheduler.domain import machine, outcome
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction, UnfinishedAction
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import Decision, TimeoutExpired
from scheduler.domain.errors import SchedulerError
from scheduler.domain.outcome import Outcome
from scheduler.domain.plan import CampaignPlan
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores

Key = tuple[str, str]

GONE = Outcome(outcome.GONE)
"""The action was canceled or finished by somebody else: there is nothing left to do for it."""


def decide_timeouts(
    stores: Stores, writer: DecisionWriter, transaction: Transaction, jobs: Sequence[ScheduledAction]
) -> list[Outcome | Exception]:
    """Decide and write a batch of due timeouts; one answer per job, in their order."""
    batch = TimeoutBatch(stores, transaction, jobs)
    batch.decide()
    stores.settlements.finish_unheld(transaction, batch.decided_early)  # before a visit that is left cancels them
    writer.write(transaction, batch.decided)
    return [batch.answers[job.key] for job in jobs]


class TimeoutBatch:
    """One batch of due timeouts on its way to decisions; lives for one transaction."""

    def __init__(self, stores: Stores, transaction: Transaction, jobs: Sequence[ScheduledAction]) -> None:
        self._stores = stores
        self._transaction = transaction
        self._jobs_of: dict[Key, list[ScheduledAction]] = defaultdict(list)
        for job in jobs:
            self._jobs_of[job.campaign_key].append(job)
        self.answers: dict[Key, Outcome | Exception] = {}
        self.decided: list[Decided] = []
        self.decided_early: list[tuple[str, str, str]] = []

    def decide(self) -> None:
        """Fill `answers` (one per job), `decided` (one per campaign that changes) and `decided_early`."""
        stores, transaction = self._stores, self._transaction
        campaigns = stores.campaigns.lock_free(transaction, self._jobs_of)
        self._answer_unlocked(campaigns)
        campaigns = self._without_doubtful(campaigns)
        plans = stores.plans.load(transaction, {(one.tenant_id, one.plan_hash) for one in campaigns.values()})
        unfinished: dict[Key, list[UnfinishedAction]] = defaultdict(list)
        for action in stores.actions.to_decide(transaction, campaigns):
            unfinished[action.tenant_id, action.campaign_id].append(action)
        for key, campaign in campaigns.items():
            plan = plans.get((campaign.tenant_id, campaign.plan_hash))
            self._decide_campaign(campaign, plan, self._jobs_of[key], unfinished[key])

    def _answer_unlocked(self, locked: dict[Key, Campaign]) -> None:
        """Jobs whose campaign is held by somebody else wait a moment; those without a campaign end."""
        missing = self._jobs_of.keys() - locked.keys()
        if not missing:
            return
        busy = self._stores.campaigns.read(self._transaction, missing)
        for key in missing:
            self._answer_all(key, Outcome(outcome.BUSY if key in busy else outcome.UNKNOWN_CAMPAIGN))

    def _without_doubtful(self, locked: dict[Key, Campaign]) -> dict[Key, Campaign]:
        """The campaigns but those whose tenant's pause is being lifted, or was since they were read: these wait."""
        held = {key for key, one in locked.items() if one.is_held}
        if not held:
            return locked
        surely = self._stores.pauses.hold_wide(self._transaction, (tenant_id for tenant_id, _ in held))
        doubtful = {key for key in held if key[0] not in surely}
        for key in doubtful:
            self._answer_all(key, Outcome(outcome.BUSY))
        return {key: one for key, one in locked.items() if key not in doubtful}

    def _answer_all(self, campaign: Key, answer: Outcome | Exception) -> None:
        self.answers.update((job.key, answer) for job in self._jobs_of[campaign])

    def _decide_campaign(
        self,
        campaign: Campaign,
        plan: CampaignPlan | None,
        jobs: Sequence[ScheduledAction],
        unfinished: Sequence[UnfinishedAction],
    ) -> None:
        if plan is None:
            missing = f"plan {campaign.plan_hash} of campaign {campaign.campaign_id!r} is missing"
            self._answer_all(campaign.key, SchedulerError(missing))
            return
        now = self._transaction.now
        asked = {job.key for job in jobs}
        self._answer_changed(asked, unfinished, now)
        due = [action for action in unfinished if _is_due_timeout(action, now, asked)]
        if len(due) > 1:
            due.sort(key=lambda action: (action.deadline, action.dedupe_key))
        send_run_at = _send_run_at(campaign, unfinished)
        for position, action in enumerate(due):
            if action.key in self.answers:
                continue
            decision = machine.transition(plan, campaign, _expired(action, send_run_at), now)
            self._note(action, decision, asked)
            if decision.transitions or decision.ends:
                self.decided.append(Decided(campaign, decision, action.dedupe_key))
                later = [rest for rest in due[position + 1 :] if rest.key in asked]
                self.answers.update((rest.key, _after(decision, rest)) for rest in later)
                return

    def _answer_changed(self, asked: set[Key], unfinished: Sequence[UnfinishedAction], now: datetime) -> None:
        """Jobs that were finished, paused or moved to a later instant since they were claimed."""
        found = {action.key: action for action in unfinished}
        for key in asked:
            action = found.get(key)
            if action is None or action.status == ActionStatus.PAUSED:
                self.answers[key] = GONE
            elif action.run_at > now:
                self.answers[key] = Outcome(outcome.DEFERRED, action.run_at)

    def _note(self, action: UnfinishedAction, decision: Decision, asked: set[Key]) -> None:
        answer = Outcome(decision.outcome, decision.run_at)
        if action.key in asked:
            self.answers[action.key] = answer
        elif answer.is_final:
            self.decided_early.append((*action.key, answer.name))


def _after(decision: Decision, action: UnfinishedAction) -> Outcome:
    """What becomes of a timeout that was to fire after the one that moved its campaign.

    It was canceled with the visit it was for. One for a visit to come is judged anew, with the campaign as it is then.
    """
    is_left = decision.ends or action.node_visit < decision.campaign.node_visit
    return GONE if is_left else Outcome(outcome.BUSY, action.run_at)


def _is_due_timeout(action: UnfinishedAction, now: datetime, asked: set[Key]) -> bool:
    """Due timeouts of the campaign, whoever claimed them: the earliest deadline is decided first."""
    if action.action_type != ActionType.TIMEOUT or action.status == ActionStatus.PAUSED:
        return False
    return action.run_at <= now or action.key in asked


def _send_run_at(campaign: Campaign, unfinished: Iterable[UnfinishedAction]) -> datetime | None:
    """When the unfinished send of the visit is due, if there is one."""
    for action in unfinished:
        if action.action_type == ActionType.SEND and action.node_visit == campaign.node_visit:
            return action.run_at
    return None


def _expired(action: UnfinishedAction, send_run_at: datetime | None) -> TimeoutExpired:
    return TimeoutExpired(
        action.event_type, action.node_id, action.node_visit, action.deadline, action.dedupe_key, send_run_at
    )
