"""Due timeouts to decisions: locks the campaigns, reads what a decision needs in two reads, decides each in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from scheduler.domain import machine, outcome
from scheduler.domain.action import ActionType, ScheduledAction
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import Decision, TimeoutExpired
from scheduler.domain.errors import SchedulerError
from scheduler.domain.outcome import Outcome
from scheduler.domain.plan import CampaignPlan
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.store.database import Transaction
from scheduler.store.settlements import Completion
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
    stores.settlements.complete_unheld(transaction, batch.decided_early)  # before a visit that is left cancels them
    writer.write(transaction, batch.decided)
    return [batch.answers[job.key] for job in jobs]


class TimeoutBatch:
    """One batch of due timeouts on its way to decisions; lives for one transaction."""

    def __init__(self, stores: Stores, transaction: Transaction, jobs: Sequence[ScheduledAction]) -> None:
        self._stores = stores
        self._transaction = transaction
        self._jobs = jobs
        self.answers: dict[Key, Outcome | Exception] = {}
        self.decided: list[Decided] = []
        self.decided_early: list[Completion] = []

    def decide(self) -> None:
        """Fill `answers` (one per job), `decided` (one per campaign that changes) and `decided_early`."""
        stores, transaction = self._stores, self._transaction
        campaigns = stores.campaigns.lock_free(transaction, (job.campaign_key for job in self._jobs))
        self._answer_unlocked(campaigns)
        campaigns = self._without_doubtful(campaigns)
        plans = stores.plans.load(transaction, {(one.tenant_id, one.plan_hash) for one in campaigns.values()})
        unfinished: dict[Key, list[ScheduledAction]] = defaultdict(list)
        for action in stores.actions.unfinished(transaction, campaigns):
            unfinished[action.campaign_key].append(action)
        jobs_of: dict[Key, list[ScheduledAction]] = defaultdict(list)
        for job in self._jobs:
            if job.key not in self.answers:
                jobs_of[job.campaign_key].append(job)
        for key, jobs in jobs_of.items():
            campaign = campaigns[key]
            self._decide_campaign(campaign, plans.get((campaign.tenant_id, campaign.plan_hash)), jobs, unfinished[key])

    def _answer_unlocked(self, locked: dict[Key, Campaign]) -> None:
        """Jobs whose campaign is held by somebody else wait a moment; those without a campaign end."""
        missing = [job for job in self._jobs if job.campaign_key not in locked]
        if not missing:
            return
        busy = self._stores.campaigns.read(self._transaction, (job.campaign_key for job in missing))
        for job in missing:
            known = job.campaign_key in busy
            self.answers[job.key] = Outcome(outcome.BUSY if known else outcome.UNKNOWN_CAMPAIGN)

    def _without_doubtful(self, locked: dict[Key, Campaign]) -> dict[Key, Campaign]:
        """The campaigns but those whose tenant's pause is being lifted, or was since they were read: these wait."""
        held = {key for key, one in locked.items() if one.is_held}
        if not held:
            return locked
        surely = self._stores.pauses.hold_wide(self._transaction, (tenant_id for tenant_id, _ in held))
        doubtful = {key for key in held if key[0] not in surely}
        self.answers.update((job.key, Outcome(outcome.BUSY)) for job in self._jobs if job.campaign_key in doubtful)
        return {key: one for key, one in locked.items() if key not in doubtful}

    def _decide_campaign(
        self,
        campaign: Campaign,
        plan: CampaignPlan | None,
        jobs: Sequence[ScheduledAction],
        unfinished: Sequence[ScheduledAction],
    ) -> None:
        if plan is None:
            error = SchedulerError(f"plan {campaign.plan_hash} of campaign {campaign.campaign_id!r} is missing")
            self.answers.update((job.key, error) for job in jobs)
            return
        now = self._transaction.now
        asked = {job.key for job in jobs}
        current = {action.key: action for action in unfinished}
        for job in jobs:
            row = current.get(job.key)
            if row is None or row.status == "paused":
                self.answers[job.key] = GONE
            elif row.run_at > now:
                self.answers[job.key] = Outcome(outcome.DEFERRED, row.run_at)
        due = sorted(
            (action for action in unfinished if _is_due_timeout(action, now, asked)),
            key=lambda action: (action.deadline, action.dedupe_key),
        )
        send = next((one for one in unfinished if _is_send_of(one, campaign)), None)
        for position, action in enumerate(due):
            if action.key in self.answers:
                continue
            decision = machine.transition(plan, campaign, _expired(action, send), now)
            self._note(action, Outcome(decision.outcome, decision.run_at), asked)
            if decision.transitions or decision.ends:
                self.decided.append(Decided(campaign, decision, action.dedupe_key))
                later = [rest for rest in due[position + 1 :] if rest.key in asked]
                self.answers.update((rest.key, _after(decision, rest)) for rest in later)
                return

    def _note(self, action: ScheduledAction, answer: Outcome, asked: set[Key]) -> None:
        if action.key in asked:
            self.answers[action.key] = answer
        elif answer.is_final:
            self.decided_early.append(Completion(action, answer.name))


def _after(decision: Decision, action: ScheduledAction) -> Outcome:
    """What becomes of a timeout that was to fire after the one that moved its campaign.

    It was canceled with the visit it was for. One for a visit to come is judged anew, with the campaign as it is then.
    """
    is_left = decision.ends or action.node_visit < decision.campaign.node_visit
    return GONE if is_left else Outcome(outcome.BUSY, action.run_at)


def _is_due_timeout(action: ScheduledAction, now: datetime, asked: set[Key]) -> bool:
    """Due timeouts of the campaign, whoever claimed them: the earliest deadline is decided first."""
    if action.action_type != ActionType.TIMEOUT or action.status == "paused":
        return False
    return action.key in asked or action.run_at <= now


def _is_send_of(action: ScheduledAction, campaign: Campaign) -> bool:
    return action.action_type == ActionType.SEND and action.node_visit == campaign.node_visit


def _expired(action: ScheduledAction, send: ScheduledAction | None) -> TimeoutExpired:
    return TimeoutExpired(
        event_type=action.event_type,
        node_id=action.node_id,
        node_visit=action.node_visit,
        deadline=action.deadline,
        dedupe_key=action.dedupe_key,
        send_run_at=None if send is None else send.run_at,
    )
