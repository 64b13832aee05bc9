"""A mail went out: its send ends, and the visit's anchor and timeouts move to the instant it did.

What the mail system told of it before (an open that overtook the confirmation) is applied in the same transaction.
Lock: the mails' message ids, then the campaigns, as whoever takes events in does.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.domain import machine, outcome
from scheduler.domain.action import ActionType, ScheduledAction
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import SendConfirmed
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.sending import SendResult
from scheduler.service.event_intake import EventIntake
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.store.database import Transaction
from scheduler.store.settlements import Completion
from scheduler.store.stores import Stores

Key = tuple[str, str]
Sent = tuple[ScheduledAction, SendResult]


class Confirmations:
    """Records sent mails. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter, intake: EventIntake) -> None:
        self._stores = stores
        self._writer = writer
        self._intake = intake

    def by_owner(self, transaction: Transaction, owner: str, sent: Sequence[Sent]) -> tuple[set[Key], list[Sent]]:
        """For the process that claimed and sent: the keys that ended, and what waits because its campaign is held.

        A send canceled meanwhile keeps its message id and sent time, and nothing else happens. More than one at a
        time never waits for a campaign that somebody else holds.
        """
        wanted = {action.campaign_key for action, _ in sent}
        campaigns = self._stores.campaigns
        self._stores.events.lock_messages(transaction, _messages(sent))
        if len(sent) == 1:
            locked = campaigns.lock(transaction, wanted)
            self._decide(transaction, sent, locked)
            done = self._stores.settlements.complete_sent(transaction, owner, _completions(transaction, sent))
            self._intake.take_waiting(transaction, _messages(sent))
            return done, []
        locked = campaigns.lock_free(transaction, wanted)
        busy = campaigns.read(transaction, wanted - locked.keys()).keys()
        free = [one for one in sent if one[0].campaign_key not in busy]
        completed = self._stores.settlements.complete_sent(transaction, owner, _completions(transaction, free))
        self._decide(transaction, free, locked)
        self._intake.take_waiting(transaction, _messages(free))
        return completed, [one for one in sent if one[0].campaign_key in busy]

    def by_application(self, transaction: Transaction, key: Key, result: SendResult) -> bool:
        """For an application that sends by itself; False when there is no such send.

        A repeat changes nothing, but for a message id that was missing: what came for it before is applied then.
        """
        action = self._stores.actions.find(transaction, key)
        if action is None:
            return False
        if action.action_type != ActionType.SEND:
            raise InvalidInputError("job_id", key[1], "give the job id of a send")
        self._stores.events.lock_messages(transaction, _messages([(action, result)]))
        locked = self._stores.campaigns.lock(transaction, [action.campaign_key])
        action = self._stores.actions.find(transaction, key) or action
        if action.sent_at is None:
            sent = [(action, result)]
            self._stores.settlements.complete_sent_unheld(transaction, _completions(transaction, sent))
            self._decide(transaction, sent, locked)
            self._intake.take_waiting(transaction, _messages(sent))
        elif action.message_id is None and result.message_id is not None:
            known = [(action, SendResult(result.message_id, action.sent_at))]
            self._stores.settlements.note_sent(transaction, _completions(transaction, known))
            self._intake.take_waiting(transaction, _messages(known))
        return True

    def _decide(self, transaction: Transaction, sent: Sequence[Sent], campaigns: dict[Key, Campaign]) -> None:
        """One send per campaign and round: a campaign has one current visit, but may have older sends in the batch."""
        plans = self._stores.plans.load(transaction, {(one.tenant_id, one.plan_hash) for one in campaigns.values()})
        waiting = list(sent)
        while waiting:
            decided: dict[Key, Decided] = {}
            later: list[Sent] = []
            for action, result in waiting:
                campaign = campaigns.get(action.campaign_key)
                plan = plans.get((campaign.tenant_id, campaign.plan_hash)) if campaign is not None else None
                if campaign is None or plan is None:
                    continue
                if campaign.key in decided:
                    later.append((action, result))
                    continue
                event = SendConfirmed(action.node_visit, result.sent_at or transaction.now)
                decision = machine.transition(plan, campaign, event, transaction.now)
                decided[campaign.key] = Decided(campaign, decision, action.dedupe_key)
            self._writer.write(transaction, list(decided.values()))
            campaigns = {**campaigns, **{key: one.decision.campaign for key, one in decided.items()}}
            waiting = later


def _messages(sent: Sequence[Sent]) -> list[Key]:
    """By these an event that comes at this moment is either seen here, or sees the mail."""
    return [(action.tenant_id, result.message_id) for action, result in sent if result.message_id is not None]


def _completions(transaction: Transaction, sent: Sequence[Sent]) -> list[Completion]:
    now = transaction.now
    return [
        Completion(action, outcome.SENT, result.message_id, min(result.sent_at or now, now)) for action, result in sent
    ]
