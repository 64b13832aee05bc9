"""What this process claims, renews and hands back: the table and this process's memory of it, kept in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.runtime.claim_turns import ClaimTurns, Taken
from scheduler.runtime.in_hand import InHand
from scheduler.service.lease_clock import lease_clock
from scheduler.service.owner import Owner
from scheduler.settings import Settings
from scheduler.store.actions import Key
from scheduler.store.database import Transaction
from scheduler.store.settlements import Return
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit


class OwnClaims:
    """Claims as one owner. Thread-safe. Every call is one transaction, and may raise DatabaseUnavailableError."""

    def __init__(self, stores: Stores, settings: Settings, owner: Owner) -> None:
        self._stores = stores
        self._lease = settings.lease
        self._owner = owner
        self._slow: set[tuple[Key, int]] = set()
        self._turns = {action_type: ClaimTurns(stores, action_type, settings) for action_type in ActionType}
        self._is_paced = settings.max_rate is not None or settings.max_rate_per_tenant is not None
        self.in_hand = InHand()

    @property
    def is_in_doubt(self) -> bool:
        """Whether the table may hold claims of this process that it doesn't know of."""
        return self.in_hand.is_in_doubt

    @property
    def is_paced(self) -> bool:
        """Whether there is a rate to be kept."""
        return self._is_paced

    def share_rates(self, instances: int) -> None:
        """So many processes fire, this one counted: each keeps to its share of the rates."""
        for turns in self._turns.values():
            turns.instances = instances

    def wait(self, action_type: ActionType) -> float:
        """For how many seconds the rates allow no claim."""
        return self._turns[action_type].wait

    def wait_of_held_back(self, action_type: ActionType) -> float | None:
        """In how many seconds a tenant may go on whose rate held back what is due; None when there is none."""
        return self._turns[action_type].wait_of_held_back

    def was_cut(self, action_type: ActionType) -> bool:
        """Whether a rate held back something at the last claim, that may have been due."""
        return self._turns[action_type].was_cut

    def claim(self, action_type: ActionType, limit: int) -> Taken:
        """Claim up to `limit` due actions, and no more than the rates allow."""
        turns = self._turns[action_type]
        return self._claim(turns, turns.claim, limit, is_one_statement=turns.is_one_statement)

    def claim_for_newcomers(self, action_type: ActionType, limit: int) -> Taken:
        """Claim up to `limit` due actions of tenants that have no backlog, beside one and without rates."""
        turns = self._turns[action_type]
        return self._claim(turns, turns.claim_for_newcomers, limit)

    def _claim(
        self,
        turns: ClaimTurns,
        claim: Callable[[Transaction, int, str, timedelta], Taken],
        limit: int,
        *,
        is_one_statement: bool = False,
    ) -> Taken:
        database = self._stores.database
        with self.in_hand.claiming():
            with database.one_statement() if is_one_statement else database.transaction() as transaction:
                taken = claim(transaction, limit, self._owner.id, self._lease)
            self.in_hand.take(taken.actions)
            return turns.took(taken)

    def claim_one(self, key: Key) -> ScheduledAction | None:
        """Claim one action, if it is there to be had."""
        with self.in_hand.claiming():
            with self._stores.database.transaction() as transaction:
                action = self._stores.claims.claim_one(transaction, key, self._owner.id, self._lease)
            if action is not None:
                self.in_hand.take([action])
        return action

    def give_back(self, actions: Sequence[ScheduledAction]) -> None:
        """What nobody here will work on is due again at once; where the database is away, when `reconcile` finds it."""
        self.in_hand.drop(actions)
        with self.in_hand.claiming(), self._stores.database.transaction() as transaction:
            handed_back = self._return(transaction, actions)
        if handed_back:
            emit("claims.handed_back", count=handed_back)

    def reconcile(self) -> None:
        """Claims that this process has and doesn't know of are due again: of all its claims when in doubt.

        Else of those past their lease, which it should have renewed.
        """
        with self.in_hand.claiming():
            claims, owner, in_doubt = self._stores.claims, self._owner.id, self.in_hand.is_in_doubt
            self.in_hand.trust()
            with self._stores.database.transaction() as transaction:
                own = (claims.held_by if in_doubt else claims.expired_own)(transaction, owner)
                recovered = self._return(transaction, [action for action in own if not self.in_hand.knows(action)])
        if recovered:
            emit("claims.recovered", count=recovered)

    def renew(self, *, at_once: bool = False) -> None:
        """Extend the leases of what is being worked on, each when a third of it is over, or `at_once`."""
        lease = self._lease.total_seconds()
        self._tell_of_slow(lease)
        actions = self.in_hand.to_renew(older_than=0 if at_once else lease / 3)
        if actions:
            now = lease_clock()
            with self._stores.database.transaction() as transaction:
                self._stores.claims.renew(transaction, self._owner.id, actions, self._lease)
            self.in_hand.renewed(actions, now)

    def hand_back_all(self) -> None:
        """On the way out: what nobody works on is due again at once, and so are timeouts that somebody still works on.

        Their effect is fenced. A send that is in somebody's hands, or went out and isn't recorded, waits for its lease.
        """
        with self.in_hand.claiming(), self._stores.database.transaction() as transaction:
            own = self._stores.claims.held_by(transaction, self._owner.id)
            handed_back = self._return(transaction, [one for one in own if not self._may_be_half_sent(one)])
            self._stores.instances.note_stopped(transaction, self._owner.id)
        if handed_back:
            emit("claims.handed_back", count=handed_back)

    def _return(self, transaction: Transaction, actions: Sequence[ScheduledAction]) -> int:
        """These are due again; one whose row somebody keeps locked leaves a doubt, and is tried again."""
        returns = [Return(action, ActionStatus.PENDING, action.run_at, action.attempts) for action in actions]
        given_back = self._stores.settlements.give_back(transaction, self._owner.id, returns)
        if len(given_back) < len(returns):
            self.in_hand.doubt()
        return len(given_back)

    def _may_be_half_sent(self, action: ScheduledAction) -> bool:
        return action.action_type == ActionType.SEND and self.in_hand.knows(action)

    def _tell_of_slow(self, lease: float) -> None:
        slow = {(action.key, action.claim_number): action for action in self.in_hand.longer_than(lease)}
        for claim in slow.keys() - self._slow:
            emit(
                "action.slow", dedupe_key=slow[claim].dedupe_key, tenant_id=slow[claim].tenant_id, seconds=round(lease)
            )
        self._slow = set(slow)
