"""How the batch of one claim is put together: the longest overdue first, everybody in turn, or at a pace."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from scheduler.domain.action import ActionType, ScheduledAction
from scheduler.runtime.pace import Pace
from scheduler.runtime.rotation import Rotation, share_out
from scheduler.runtime.shares import Shares
from scheduler.settings import Settings
from scheduler.store.claims import Claimed
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores

# Filling a batch from tenants that each have a quota takes two rounds as a rule.
_MOST_ROUNDS: Final = 4
# Of a batch, for each newcomer: enough for almost all, and little of the room where it is the beginning of a backlog.
_SHARE_OF_NEWCOMER: Final = 10


@dataclass(frozen=True, slots=True)
class Taken:
    """What a claim got, the longest overdue first; `held` more were due, and are paused now.

    `has_more`: there may be more that may be claimed at once. `is_searching`: not every tenant was looked at yet.
    `is_cut`: a rate allowed nothing more, of all or of a tenant. `shares`: what was given in equal shares.
    """

    actions: Sequence[ScheduledAction]
    held: int = 0
    has_more: bool = False
    is_searching: bool = False
    is_cut: bool = False
    shares: Shares = field(default_factory=Shares)

    @property
    def go_first(self) -> frozenset[str]:
        """Tenants of whom nothing that was due is left over, while others have more."""
        return self.shares.caught_up if self.has_more else frozenset()


class ClaimTurns:
    """Claims of one kind of action, one after the other. Not thread-safe, but for `instances`.

    As long as nothing is left over the longest overdue goes first. After a claim that was full the tenants share the
    next batch equally, and what they leave of it is filled with the longest overdue. With a rate per tenant they always
    share, each up to what it may.
    """

    def __init__(
        self,
        stores: Stores,
        action_type: ActionType,
        settings: Settings,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stores = stores
        self._seconds = seconds
        self._action_type = action_type
        self._batch_size = settings.batch_size
        self._longest_sleep = settings.poll_interval.total_seconds()
        self._pace = Pace(settings.max_rate, settings.max_rate_per_tenant, seconds())
        self._rotation = Rotation()
        self._backlogged: frozenset[str] = frozenset()
        self._last_newcomer = ""
        self._is_behind = False
        self._lap_began = 0.0
        self._next_lap = 0.0
        self._vain_claims = 0
        self.instances = 1
        self.was_cut = False

    @property
    def wait(self) -> float:
        """For how many seconds nothing may be claimed."""
        return self._pace.wait(self._seconds())

    @property
    def wait_of_held_back(self) -> float | None:
        """In how many seconds a tenant may go on that has something due and was held back; None when there is none."""
        return self._pace.wait_of_held_back(self._seconds())

    @property
    def is_one_statement(self) -> bool:
        """Whether the next claim is a single statement: nothing was left over, and no tenant has a rate of its own."""
        return not (self._is_behind or self._pace.is_per_tenant)

    def claim(self, transaction: Transaction, limit: int, owner: str, lease: timedelta) -> Taken:
        """Claim up to `limit`, and no more than the rates allow; call `took` once it is committed."""
        now = self._seconds()
        self._pace.share_among(self.instances, now)
        batch = _Batch(self._stores, transaction, self._action_type, owner, lease)
        batch.rest = self._pace.available(limit, now)
        if not batch.rest:
            return Taken([], has_more=self._is_behind, is_cut=True)
        is_searching, shares = False, Shares()
        if self._pace.is_per_tenant:
            self._fill_by_quota(
                batch, self._in_turn_at_a_pace(transaction, self._rotation.probes(batch.rest), now), now
            )
            is_searching = bool(self._rotation.after)
        else:
            if self._is_behind:
                probes = self._rotation.probes(batch.rest)
                shares = batch.add_equal_shares(self._in_turn(transaction, probes, places=batch.rest))
            batch.add_longest_overdue()
        has_more = not batch.rest or is_searching
        return Taken(batch.in_order(), batch.held, has_more, is_searching, self._pace.holds_back, shares)

    def claim_for_newcomers(self, transaction: Transaction, limit: int, owner: str, lease: timedelta) -> Taken:
        """Claim up to `limit` of tenants that had less than their share when last met; call `took` after that.

        Where there are more tenants than a claim looks at, those of what fell due last are looked at: a walk round all
        of them is for the claims of everybody's. Not with rates.
        """
        batch = _Batch(self._stores, transaction, self._action_type, owner, lease)
        batch.rest = limit
        newcomers = self._newcomers(transaction, self._rotation.probes(self._batch_size))
        # So many that each share tells a backlog from a single timeout, and one is left.
        served = newcomers[: max(limit // 2 - 1, 0)]
        self._last_newcomer = served[-1] if served else ""
        shares = batch.add_equal_shares(served, others=1, most=max(self._batch_size // _SHARE_OF_NEWCOMER, 2))
        is_searching = len(served) < len(newcomers)
        return Taken(batch.in_order(), batch.held, has_more=True, is_searching=is_searching, shares=shares)

    def _newcomers(self, transaction: Transaction, probes: int) -> list[str]:
        """In the order of their names, beginning behind the last one served: nobody is always the last."""
        walked = self._stores.due.walk(transaction, self._action_type, "", probes)
        due = [tenant_id for tenant_id, is_due in walked if is_due]
        if len(walked) < probes:
            self._backlogged &= frozenset(due)
        else:
            due = self._stores.due.newest(transaction, self._action_type, probes)
        newcomers = sorted(set(due) - self._backlogged)
        begin = bisect_right(newcomers, self._last_newcomer)
        return newcomers[begin:] + newcomers[:begin]

    def took(self, taken: Taken) -> Taken:
        """What was taken is being fired."""
        now = self._seconds()
        known = self._backlogged - taken.shares.asked | taken.shares.backlogged
        self._backlogged = known if taken.has_more else frozenset()
        self._is_behind, self.was_cut = taken.has_more, taken.is_cut
        self._pace.took(Counter(action.tenant_id for action in taken.actions), now)
        return replace(taken, has_more=taken.has_more and not self._pace.wait(now))

    def _in_turn(self, transaction: Transaction, probes: int, places: int) -> list[str]:
        walked = self._stores.due.walk(transaction, self._action_type, self._rotation.after, probes)
        knows_all = self._rotation.knows_all(walked, probes)
        newest = [] if knows_all else self._stores.due.newest(transaction, self._action_type, probes)
        return self._rotation.take(walked, newest, probes, places)

    def _in_turn_at_a_pace(self, transaction: Transaction, probes: int, now: float) -> list[str]:
        """Those that waited go first; who is met and finds no room waits from then on.

        After a lap of claims that met nobody the next one waits for a poll interval.
        """
        waited = self._pace.held_back(probes, now)
        if not self._rotation.after:
            if now < self._next_lap:
                return [*waited, *self._stores.due.newest(transaction, self._action_type, probes)]
            self._lap_began, self._vain_claims = now, 0
        found = self._in_turn(transaction, probes, places=2 * probes)
        self._vain_claims += not found
        if not self._rotation.after and self._vain_claims > 1:
            self._next_lap = self._lap_began + self._longest_sleep
        return waited + found

    def _fill_by_quota(self, batch: _Batch, tenant_ids: Iterable[str], now: float) -> None:
        """Rounds of equal portions, until the batch is full, or nobody has more that he may.

        Who has something left, as far as is known, waits, and longer if this batch has some of his.
        """
        served: set[str] = set()
        quotas = {tenant_id: self._pace.quota(tenant_id, batch.rest, now) for tenant_id in tenant_ids}
        for _ in range(_MOST_ROUNDS):
            portions = share_out({tenant_id: quota for tenant_id, quota in quotas.items() if quota}, batch.rest)
            if not portions:
                break
            counts = batch.add_shares(portions)
            served |= portions.keys()
            for tenant_id, portion in portions.items():
                if counts[tenant_id] < portion:
                    del quotas[tenant_id]
                    self._pace.let_go(tenant_id)
                else:
                    quotas[tenant_id] -= portion
        for tenant_id in sorted(quotas, key=served.__contains__):
            self._pace.hold_back(tenant_id)


class _Batch:
    """What one claim has got together so far; `rest` says for how many more there is room."""

    def __init__(
        self, stores: Stores, transaction: Transaction, action_type: ActionType, owner: str, lease: timedelta
    ) -> None:
        self._claims = stores.claims
        self._transaction = transaction
        self._action_type = action_type
        self._owner = owner
        self._lease = lease
        self._actions: list[ScheduledAction] = []
        self.rest = 0
        self.held = 0

    def in_order(self) -> list[ScheduledAction]:
        """The longest overdue first."""
        return sorted(self._actions, key=lambda action: (action.run_at, action.key))

    def add_longest_overdue(self) -> None:
        """Whosever they are."""
        if self.rest:
            self._add(self._claims.claim(self._transaction, self._action_type, self.rest, self._owner, self._lease))

    def add_equal_shares(self, tenant_ids: Sequence[str], others: int = 0, most: int | None = None) -> Shares:
        """The same for each, at least one and at most `most`, as if there were so many others."""
        if not tenant_ids:
            return Shares()
        share = max(self.rest // (len(tenant_ids) + others), 1)
        share = share if most is None else min(share, most)
        counts = self.add_shares(dict.fromkeys(tenant_ids, share))
        return Shares(frozenset(tenant_ids), share, counts)

    def add_shares(self, portions: Mapping[str, int]) -> Counter[str]:
        """A portion for each, one statement for all that are equal; returns how many each has got."""
        before = len(self._actions)
        tenants_of: dict[int, list[str]] = defaultdict(list)
        for tenant_id, portion in portions.items():
            tenants_of[portion].append(tenant_id)
        for portion, tenant_ids in tenants_of.items():
            self._add_share(tenant_ids, portion)
        return Counter(action.tenant_id for action in self._actions[before:])

    def _add_share(self, tenant_ids: Sequence[str], share: int) -> None:
        claims, arguments = self._claims, (self._owner, self._lease)
        self._add(claims.claim_shares(self._transaction, self._action_type, tenant_ids, share, *arguments))

    def _add(self, claimed: Claimed) -> None:
        self._actions += claimed
        self.held += claimed.held
        self.rest -= len(claimed) + claimed.held
