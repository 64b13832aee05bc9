"""Due sends: checked at the last moment, handed to the handler outside of any transaction, confirmed.

At least once: a process that dies between the handler and the confirmation sends again after the lease, with the
same idempotency key. One that lives remembers what went out, and confirms it once the database is back. The
confirmation moves the visit's anchor and timeouts to the instant the mail went out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from scheduler.domain import machine, outcome
from scheduler.domain.action import ActionStatus, ScheduledAction, require_id
from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.decision import SendFailed
from scheduler.domain.errors import InvalidInputError, PermanentSendError, RetryLater, SchedulerError
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.sending import SendHandler, SendRequest, SendResult, fill_in
from scheduler.domain.timing import require_aware
from scheduler.service.confirming import Confirmations, Sent
from scheduler.service.event_intake import EventIntake
from scheduler.service.failing import Failures
from scheduler.service.firing import log_action
from scheduler.service.owner import Owner
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.service.results import Ended
from scheduler.settings import Settings
from scheduler.store.contacts import Contact
from scheduler.store.database import Transaction
from scheduler.store.errors import is_transient
from scheduler.store.settlements import Completion, Return
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics

Key = tuple[str, str]
Ready = tuple[ScheduledAction, SendRequest | Exception]

SMALLEST_BATCH: Final = 1


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One send that was tried."""

    action: ScheduledAction
    result: SendResult | None = None
    error: Exception | None = None


class Sends:
    """Sends claimed sends with one handler, as one owner. Thread-safe as far as the handler is."""

    def __init__(
        self,
        stores: Stores,
        writer: DecisionWriter,
        handler: SendHandler,
        settings: Settings,
        metrics: Metrics,
        owner: Owner,
    ) -> None:
        self._stores = stores
        self._writer = writer
        self._handler = handler
        self._metrics = metrics
        self._owner = owner
        self._failures = Failures(settings, metrics)
        self._confirmations = Confirmations(stores, writer, EventIntake(stores, writer, metrics))
        self._unconfirmed: dict[Key, SendResult] = {}

    @property
    def batch_size(self) -> int:
        """How many sends share their transactions: more than one only where a handler says it is instant."""
        return int(getattr(self._handler, "batch_size", SMALLEST_BATCH))

    def send(self, claimed: Sequence[ScheduledAction]) -> list[Ended]:
        """Send what is claimed; returns what became of each. Raises DatabaseUnavailableError when that is away."""
        ended: list[Ended] = []
        for start in range(0, len(claimed), self.batch_size):
            ended += self._send_together(claimed[start : start + self.batch_size])
        return ended

    def _send_together(self, claimed: Sequence[ScheduledAction]) -> list[Ended]:
        sent = [(action, self._unconfirmed[action.key]) for action in claimed if action.key in self._unconfirmed]
        ready, ended = self._prepare_apart([action for action in claimed if action.key not in self._unconfirmed])
        attempts = [_Attempt(action, result=result) for action, result in sent]
        attempts += [self._try(action, request) for action, request in ready]
        return ended + self._conclude(attempts)

    def _prepare_apart(self, claimed: Sequence[ScheduledAction]) -> tuple[list[Ready], list[Ended]]:
        """`_prepare`, so that one that can't be prepared fails alone."""
        if not claimed:
            return [], []
        try:
            return self._prepare(claimed)
        except Exception as error:
            if is_transient(error):
                raise
            if len(claimed) == 1:
                return [(claimed[0], error)], []
        emit("batch.split", size=len(claimed))
        middle = len(claimed) // 2
        (first, ended), (second, more) = map(self._prepare_apart, (claimed[:middle], claimed[middle:]))
        return first + second, ended + more

    def _prepare(self, claimed: Sequence[ScheduledAction]) -> tuple[list[Ready], list[Ended]]:
        """The last look before sending: what no longer applies ends here, and is not sent."""
        stores = self._stores
        with stores.database.transaction() as transaction:
            held = stores.settlements.lock_held(transaction, self._owner.id, claimed)
            actions = [action for action in claimed if action.key in held]
            campaigns = stores.campaigns.read(transaction, (action.campaign_key for action in actions))
            plans = stores.plans.load(transaction, {(one.tenant_id, one.plan_hash) for one in campaigns.values()})
            contacts = stores.contacts.read(
                transaction, ((one.tenant_id, one.contact_id) for one in campaigns.values())
            )
            ready: list[Ready] = []
            over: list[Completion] = []
            paused: list[Return] = []
            for action in actions:
                campaign = campaigns.get(action.campaign_key)
                reason = _why_not(action, campaign)
                if campaign is None or reason in _FINAL:
                    over.append(Completion(action, reason or outcome.UNKNOWN_CAMPAIGN))
                elif reason is not None:
                    paused.append(Return(action, ActionStatus.PAUSED, action.run_at, action.attempts))
                else:
                    plan = plans.get((campaign.tenant_id, campaign.plan_hash))
                    ready.append((action, _request(action, campaign, plan, contacts)))
            stores.settlements.complete(transaction, self._owner.id, over)
            stores.settlements.give_back(transaction, self._owner.id, paused)
            now = transaction.now
        for done in over:
            self._tell_ended(done.action, done.outcome, now)
        return ready, [Ended(done.action, done.outcome, is_final=True) for done in over]

    def _try(self, action: ScheduledAction, request: SendRequest | Exception) -> _Attempt:
        if isinstance(request, Exception):
            return _Attempt(action, error=request)
        started = time.perf_counter()
        try:
            result = _checked(self._handler(request))
            self._unconfirmed[action.key] = result
            return _Attempt(action, result=result)
        except Exception as error:  # noqa: BLE001 - a user's handler
            return _Attempt(action, error=error)
        finally:
            self._metrics.sent(time.perf_counter() - started)

    def _conclude(self, attempts: Sequence[_Attempt]) -> list[Ended]:
        ended = self._confirm_apart([(one.action, one.result) for one in attempts if one.result is not None])
        return ended + [self._fail(one.action, one.error) for one in attempts if one.error is not None]

    def _confirm_apart(self, sent: Sequence[Sent]) -> list[Ended]:
        """`_confirm`, so that one that can't be recorded ends alone, as `error`: its mail is not sent again."""
        try:
            return self._confirm(sent)
        except Exception as error:
            if is_transient(error):
                raise
            if len(sent) == 1:
                return [self._give_up(sent[0][0], error)]
        emit("batch.split", size=len(sent))
        middle = len(sent) // 2
        return self._confirm_apart(sent[:middle]) + self._confirm_apart(sent[middle:])

    def _give_up(self, action: ScheduledAction, error: Exception) -> Ended:
        returned, held = self._give_back(action, error, permanent=True, end_visit=False)
        self._unconfirmed.pop(action.key, None)
        if held:
            self._failures.tell(returned, error, _reason(error))
        return Ended(action, error=error, is_final=held)

    def _confirm(self, sent: Sequence[Sent]) -> list[Ended]:
        """Record that mails went out; those whose campaign somebody holds are recorded one by one afterwards."""
        if not sent:
            return []

        def confirm(transaction: Transaction) -> tuple[set[Key], list[Sent], datetime]:
            return *self._confirmations.by_owner(transaction, self._owner.id, sent), transaction.now

        completed, waiting, now = self._stores.database.run(confirm)
        for key in {action.key for action, _ in sent} - {action.key for action, _ in waiting}:
            self._unconfirmed.pop(key, None)
        done = [action for action, _ in sent if action.key in completed]
        for action in done:
            self._tell_ended(action, outcome.SENT, now)
        ended = [Ended(action, outcome.SENT, is_final=True) for action in done]
        return ended + [one for held in waiting for one in self._confirm([held])]

    def _fail(self, action: ScheduledAction, error: Exception) -> Ended:
        """A failed attempt: again later, or the end of the send and what the plan says about that."""
        permanent = isinstance(error, PermanentSendError) or self._failures.is_last(action)
        try:
            returned, held = self._give_back(action, error, permanent=permanent, end_visit=permanent)
        except Exception as unreadable:
            if is_transient(unreadable) or not permanent:
                raise
            returned, held = self._give_back(action, error, permanent=True, end_visit=False)
        if held:
            self._failures.tell(returned, error, _reason(error))
        return Ended(action, error=error, is_final=held and permanent)

    def _give_back(
        self, action: ScheduledAction, error: Exception, *, permanent: bool, end_visit: bool
    ) -> tuple[Return, bool]:
        """One transaction; raises what makes the campaign or its plan unreadable when the visit is to end too."""
        stores = self._stores
        with stores.database.transaction() as transaction:
            campaigns = stores.campaigns.lock(transaction, [action.campaign_key]) if end_visit else {}
            returned = self._returned(action, error, transaction.now, permanent=permanent)
            held = stores.settlements.give_back(transaction, self._owner.id, [returned])
            campaign = campaigns.get(action.campaign_key)
            if held and campaign is not None:
                self._end_visit(transaction, action, campaign)
        return returned, bool(held)

    def _returned(self, action: ScheduledAction, error: Exception, now: datetime, *, permanent: bool) -> Return:
        if permanent:
            return self._failures.at_once(action, error)
        delay = error.after if isinstance(error, RetryLater) else None
        return self._failures.after_attempt(action, error, now, delay)

    def _end_visit(self, transaction: Transaction, action: ScheduledAction, campaign: Campaign) -> None:
        plans = self._stores.plans.load(transaction, [(campaign.tenant_id, campaign.plan_hash)])
        plan = plans.get((campaign.tenant_id, campaign.plan_hash))
        if plan is None:
            raise SchedulerError(f"plan {campaign.plan_hash} of campaign {campaign.campaign_id!r} is missing")
        event = SendFailed(action.node_visit, action.dedupe_key)
        decision = machine.transition(plan, campaign, event, transaction.now)
        self._writer.write(transaction, [Decided(campaign, decision, action.dedupe_key)])

    def _tell_ended(self, action: ScheduledAction, name: str, now: datetime) -> None:
        self._metrics.ended(action.action_type, action.event_type, name)
        log_action(action, name, now)


_FINAL: Final = (outcome.UNKNOWN_CAMPAIGN, outcome.CAMPAIGN_INACTIVE, outcome.STALE)


def _why_not(action: ScheduledAction, campaign: Campaign | None) -> str | None:
    """Why a due send is not sent; None when it is."""
    if campaign is None:
        return outcome.UNKNOWN_CAMPAIGN
    if campaign.is_finished:
        return outcome.CAMPAIGN_INACTIVE
    if action.node_visit != campaign.node_visit or action.node_id != campaign.current_node_id:
        return outcome.STALE
    return outcome.PAUSED if campaign.status == CampaignStatus.PAUSED else None


def _request(
    action: ScheduledAction, campaign: Campaign, plan: CampaignPlan | None, contacts: dict[Key, Contact]
) -> SendRequest | Exception:
    """The mail to send, or why there can't be one."""
    if plan is None:
        return SchedulerError(f"plan {campaign.plan_hash} of campaign {campaign.campaign_id!r} is missing")
    contact = contacts.get((campaign.tenant_id, campaign.contact_id))
    variables = (contact.variables if contact else None) or {}
    node = plan.node(action.node_id)
    request = SendRequest(
        dedupe_key=action.dedupe_key,
        tenant_id=action.tenant_id,
        campaign_id=action.campaign_id,
        contact_id=action.contact_id,
        node_id=action.node_id,
        node_visit=action.node_visit,
        channel=node.channel,
        address=contact.address if contact else None,
        subject=None,
        body=None,
        variables=variables,
        planned_at=action.deadline,
        attempt=action.attempts + 1,
    )
    try:
        return replace(request, subject=fill_in(node.subject, variables), body=fill_in(node.body, variables))
    except PermanentSendError as error:
        return error


def _checked(result: object) -> SendResult:
    """A handler may answer nothing, or a `SendResult`. An unusable answer is no reason to send again: permanent."""
    if result is None:
        return SendResult()
    if not isinstance(result, SendResult):
        raise PermanentSendError(f"the send handler answered a {type(result).__name__}: give a SendResult or None")
    try:
        if result.message_id is not None:
            require_id("message_id", result.message_id)
        return result if result.sent_at is None else replace(result, sent_at=require_aware("sent_at", result.sent_at))
    except InvalidInputError as error:
        raise PermanentSendError(f"the send handler's answer is unusable: {error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, PermanentSendError):
        return "permanent"
    return "retry_later" if isinstance(error, RetryLater) else "error"
