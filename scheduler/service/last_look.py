"""The last look at a due send, right before it is handed to whoever sends: what no longer applies isn't sent.

A campaign that turns out to be suppressed, paused or held is looked at once more with its row locked (`settle`):
whoever stops or resumes it has that lock too, so that no send is left behind in a state that nobody ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain import machine, outcome
from scheduler.domain.action import ActionStatus, ScheduledAction
from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.errors import SchedulerError
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.sending import SendRequest, fill_in
from scheduler.service.canonical_line import BUSY_DELAY, log_action
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.service.results import Ended
from scheduler.service.suppression import SUPPRESSED
from scheduler.store.contacts import Contact
from scheduler.store.database import Transaction
from scheduler.store.settlements import Completion, Return
from scheduler.store.stores import Stores
from scheduler.telemetry.metrics import Metrics

Key = tuple[str, str]
Ready = tuple[ScheduledAction, SendRequest | Exception]

CANCELED: Final = "canceled"
_DOUBTFUL: Final = "doubtful"
_FINAL: Final = (outcome.UNKNOWN_CAMPAIGN, outcome.CAMPAIGN_INACTIVE, outcome.STALE)


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of it: what is to be sent (or why it can't be), what isn't, and what `settle` decides."""

    ready: list[Ready] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    doubtful: list[ScheduledAction] = field(default_factory=list)


class LastLook:
    """Looks at claimed sends. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter, metrics: Metrics) -> None:
        self._stores = stores
        self._writer = writer
        self._metrics = metrics

    def look(
        self, transaction: Transaction, owner: str, claimed: Sequence[ScheduledAction], lease: timedelta
    ) -> Looked:
        """Sort what `owner` still holds; the claims of what is to be sent last `lease` from now on."""
        stores = self._stores
        held = stores.settlements.lock_held(transaction, owner, claimed)
        actions = [action for action in claimed if action.key in held]
        campaigns = stores.campaigns.read(transaction, (action.campaign_key for action in actions))
        plans = stores.plans.load(transaction, {(one.tenant_id, one.plan_hash) for one in campaigns.values()})
        contacts = stores.contacts.read(transaction, ((one.tenant_id, one.contact_id) for one in campaigns.values()))
        stopped = stores.pauses.hold_sends(transaction, (one.tenant_id for one in campaigns.values()))
        looked = Looked()
        over: list[Completion] = []
        later: list[Return] = []
        for action in actions:
            campaign = campaigns.get(action.campaign_key)
            reason = _why_not(action, campaign)
            if campaign is None or reason in _FINAL:
                over.append(Completion(action, reason or outcome.UNKNOWN_CAMPAIGN))
            elif reason is not None:
                looked.doubtful.append(action)
            elif action.tenant_id in stopped:
                later.append(Return(action, ActionStatus.PAUSED, action.run_at, action.attempts))
            else:
                plan = plans.get((campaign.tenant_id, campaign.plan_hash))
                ready = _ready(action, campaign, plan, contacts, transaction.now)
                later.append(ready) if isinstance(ready, Return) else looked.ready.append(ready)
        stores.settlements.complete(transaction, owner, over)
        looked.ended.extend(self._over(transaction, over))
        looked.ended.extend(self._give_back(transaction, owner, later))
        stores.claims.renew(transaction, owner, [action for action, _ in looked.ready], lease)
        return looked

    def settle(self, transaction: Transaction, owner: str, doubtful: Sequence[ScheduledAction]) -> list[Ended]:
        """Stop the campaigns whose contact is suppressed, and pause what is held. Never waits for a campaign."""
        if not doubtful:
            return []
        stores = self._stores
        locked = stores.campaigns.lock_free(transaction, (action.campaign_key for action in doubtful))
        # The statement that locks may have read contact and pauses before it had the lock.
        campaigns = stores.campaigns.read(transaction, locked)
        stopped = {key: one for key, one in campaigns.items() if one.is_suppressed and not one.is_finished}
        held = stores.pauses.hold_wide(transaction, (one.tenant_id for one in campaigns.values() if one.is_held))
        returns = [
            _settled(action, campaigns.get(action.campaign_key), held, transaction.now)
            for action in doubtful
            if action.campaign_key not in stopped
        ]
        given_back = self._give_back(transaction, owner, returns)
        now = transaction.now
        self._writer.write(
            transaction,
            [Decided(campaign, machine.stop(campaign, SUPPRESSED, now, now)) for campaign in stopped.values()],
        )
        canceled = [action for action in doubtful if action.campaign_key in stopped]
        return given_back + [Ended(action, CANCELED, is_final=True) for action in canceled]

    def _over(self, transaction: Transaction, over: Sequence[Completion]) -> list[Ended]:
        now = transaction.now

        def tell() -> None:
            for done in over:
                self._metrics.ended(done.action.action_type, done.action.event_type, done.outcome)
                log_action(done.action, done.outcome, now)

        transaction.on_commit(tell)
        return [Ended(done.action, done.outcome, is_final=True) for done in over]

    def _give_back(self, transaction: Transaction, owner: str, returns: Sequence[Return]) -> list[Ended]:
        self._stores.settlements.give_back(transaction, owner, returns)
        ended = [Ended(back.action, _name_of(back)) for back in returns]
        now = transaction.now

        def tell() -> None:
            for one in ended:
                log_action(one.action, one.outcome or "", now)

        transaction.on_commit(tell)
        return ended


def _name_of(back: Return) -> str:
    return outcome.PAUSED if back.status == ActionStatus.PAUSED else outcome.DEFERRED


def _why_not(action: ScheduledAction, campaign: Campaign | None) -> str | None:
    """Why a due send is not sent; None when it is."""
    if campaign is None:
        return outcome.UNKNOWN_CAMPAIGN
    if campaign.is_finished:
        return outcome.CAMPAIGN_INACTIVE
    if action.node_visit != campaign.node_visit or action.node_id != campaign.current_node_id:
        return outcome.STALE
    if campaign.is_suppressed or campaign.is_held or campaign.status == CampaignStatus.PAUSED:
        return _DOUBTFUL
    return None


def _settled(action: ScheduledAction, campaign: Campaign | None, held: set[str], now: datetime) -> Return:
    """With the campaign locked: paused while it is held; else looked at anew, where it is locked a little later.

    So is one whose tenant's pause is just being lifted; `held` are the tenants whose pause can't be by now.
    """
    is_sure = campaign is not None and (not campaign.is_held or campaign.tenant_id in held)
    if campaign is None or not is_sure:
        return Return(action, ActionStatus.PENDING, now + BUSY_DELAY, action.attempts)
    is_paused = campaign.is_held or campaign.status == CampaignStatus.PAUSED
    status = ActionStatus.PAUSED if is_paused else ActionStatus.PENDING
    return Return(action, status, action.run_at, action.attempts)


def _ready(
    action: ScheduledAction,
    campaign: Campaign,
    plan: CampaignPlan | None,
    contacts: Mapping[Key, Contact],
    now: datetime,
) -> Ready | Return:
    """The mail to send, why there can't be one, or, in quiet hours, when it is due instead."""
    if plan is None:
        return action, SchedulerError(f"plan {campaign.plan_hash} of campaign {campaign.campaign_id!r} is missing")
    try:
        allowed = machine.allowed_send_time(plan, campaign, now)
        if allowed > now:
            return Return(action, ActionStatus.PENDING, allowed, action.attempts)
        return action, _request(action, campaign, plan, contacts)
    except SchedulerError as error:
        return action, error


def _request(
    action: ScheduledAction, campaign: Campaign, plan: CampaignPlan, contacts: Mapping[Key, Contact]
) -> SendRequest:
    """Raises PermanentSendError where a variable is missing."""
    contact = contacts.get((campaign.tenant_id, campaign.contact_id))
    variables = (contact.variables if contact else None) or {}
    node = plan.node(action.node_id)
    return SendRequest(
        dedupe_key=action.dedupe_key,
        tenant_id=action.tenant_id,
        campaign_id=action.campaign_id,
        contact_id=action.contact_id,
        node_id=action.node_id,
        node_visit=action.node_visit,
        channel=node.channel,
        address=contact.address if contact else None,
        subject=fill_in(node.subject, variables),
        body=fill_in(node.body, variables),
        variables=variables,
        planned_at=action.deadline,
        attempt=action.attempts + 1,
    )
