"""A send that failed: again later, or the end of the send and what its plan says about that."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.domain import machine
from scheduler.domain.action import ActionStatus, ScheduledAction
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import SendFailed
from scheduler.domain.errors import PermanentSendError, RetryLater, SchedulerError
from scheduler.service.canonical_line import BUSY_DELAY
from scheduler.service.failing import Failures
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.service.results import Ended
from scheduler.settings import Settings
from scheduler.store.database import Transaction
from scheduler.store.errors import is_transient
from scheduler.store.settlements import Return
from scheduler.store.stores import Stores
from scheduler.telemetry.metrics import Metrics


class FailedSends:
    """Records failed sends, whoever tried. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter, settings: Settings, metrics: Metrics) -> None:
        self._stores = stores
        self._writer = writer
        self._failures = Failures(settings, metrics)

    def record(
        self,
        transaction: Transaction,
        owner: str,
        action: ScheduledAction,
        error: Exception,
        personal: Sequence[str] = (),
        *,
        may_wait: bool = True,
    ) -> Ended:
        """What follows an attempt of `owner` that raised `error`, whose text may repeat what is `personal`.

        Without `may_wait` a campaign that somebody holds isn't waited for: the send is due again in a moment. Where
        campaign or plan can't be read, the send ends all the same.
        """
        if not self._is_last(action, error):
            delay = error.after if isinstance(error, RetryLater) else None
            returned = self._failures.after_attempt(action, error, transaction.now, delay)
            return self._return(transaction, owner, returned, error, personal)
        try:
            with transaction.all_or_nothing():
                return self._end(transaction, owner, action, error, personal, may_wait=may_wait)
        except Exception as unreadable:
            if is_transient(unreadable):
                raise
        return self.park(transaction, owner, action, error, personal)

    def park(
        self,
        transaction: Transaction,
        owner: str,
        action: ScheduledAction,
        error: Exception,
        personal: Sequence[str] = (),
    ) -> Ended:
        """The end of the send alone, as `error`; its campaign isn't told."""
        return self._return(transaction, owner, self._failures.at_once(action, error), error, personal)

    def _is_last(self, action: ScheduledAction, error: Exception) -> bool:
        return isinstance(error, PermanentSendError) or self._failures.is_last(action)

    def _end(
        self,
        transaction: Transaction,
        owner: str,
        action: ScheduledAction,
        error: Exception,
        personal: Sequence[str],
        *,
        may_wait: bool,
    ) -> Ended:
        campaigns = self._stores.campaigns
        lock = campaigns.lock if may_wait else campaigns.lock_free
        campaign = lock(transaction, [action.campaign_key]).get(action.campaign_key)
        if campaign is None and campaigns.read(transaction, [action.campaign_key]):
            busy = Return(action, ActionStatus.PENDING, transaction.now + BUSY_DELAY, action.attempts)
            self._stores.settlements.give_back(transaction, owner, [busy])
            return Ended(action, error=error)
        returned = self._failures.at_once(action, error)
        held = self._stores.settlements.give_back(transaction, owner, [returned])
        if held and campaign is not None:
            self._end_visit(transaction, action, campaign)
        return self._told(transaction, returned, error, personal, is_held=bool(held))

    def _end_visit(self, transaction: Transaction, action: ScheduledAction, campaign: Campaign) -> None:
        plan_key = (campaign.tenant_id, campaign.plan_hash)
        plan = self._stores.plans.load(transaction, [plan_key]).get(plan_key)
        if plan is None:
            raise SchedulerError(f"plan {campaign.plan_hash} of campaign {campaign.campaign_id!r} is missing")
        event = SendFailed(action.node_visit, action.dedupe_key)
        decision = machine.transition(plan, campaign, event, transaction.now)
        self._writer.write(transaction, [Decided(campaign, decision, action.dedupe_key)])

    def _return(
        self, transaction: Transaction, owner: str, returned: Return, error: Exception, personal: Sequence[str]
    ) -> Ended:
        held = self._stores.settlements.give_back(transaction, owner, [returned])
        return self._told(transaction, returned, error, personal, is_held=bool(held))

    def _told(
        self, transaction: Transaction, returned: Return, error: Exception, personal: Sequence[str], *, is_held: bool
    ) -> Ended:
        if is_held:
            transaction.on_commit(lambda: self._failures.tell(returned, error, _reason(error), personal))
        is_final = is_held and returned.status == ActionStatus.ERROR
        return Ended(returned.action, error=error, is_final=is_final)


def _reason(error: Exception) -> str:
    if isinstance(error, PermanentSendError):
        return "permanent"
    return "retry_later" if isinstance(error, RetryLater) else "error"
