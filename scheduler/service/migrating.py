"""Running campaigns go on, on another plan: in batches, each its own transaction, by the order of their keys.

A batch holds its campaigns' rows, as everything that decides about them does: an event or a timeout that comes
meanwhile is decided before, on the old plan, or after, on the new one. Its unsent mails are locked too, so that nobody
begins to send one: a mail that is being sent leaves its campaign where it is, to be moved by a later run. A run that
was broken off has moved the campaigns of its finished batches, and the next one goes on with the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from scheduler.domain import machine
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction, make_dedupe_key, require_id
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import Decision, PlannedAction
from scheduler.domain.errors import InvalidInputError, InvalidPlanError
from scheduler.domain.migration import NodeMigration, NodeTargets, PlanMigration, at_once
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.storable import require_text
from scheduler.service.enrolment import Enroller, PlanLike
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit

BATCH: Final = 500
ACT: Final = "campaign.migrated"

Key = tuple[str, str]
Kind = tuple[str, str]
_Renamed = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class _Route:
    """From which plan to which, for one tenant."""

    tenant_id: str
    old: CampaignPlan
    new: CampaignPlan
    targets: NodeTargets


@dataclass(slots=True)
class _Tally:
    """What was met so far, by node of the old plan."""

    campaigns: Counter[str] = field(default_factory=Counter)
    timeouts: Counter[str] = field(default_factory=Counter)
    mails: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    busy: int = 0

    def add(self, other: _Tally) -> None:
        """Count what another batch met, too."""
        self.campaigns += other.campaigns
        self.timeouts += other.timeouts
        self.mails += other.mails
        self.moved += other.moved
        self.busy += other.busy


@dataclass(frozen=True, slots=True)
class _Batch:
    """Campaigns that can be moved, and those that can't be now; what is unfinished, and what is paused by itself."""

    free: Sequence[Campaign]
    busy: Sequence[Campaign]
    unfinished: Mapping[Key, Sequence[ScheduledAction]]
    held: Mapping[Key, set[str]]

    def send_of(self, campaign: Campaign) -> ScheduledAction | None:
        """The unfinished send of the current visit."""
        return _send_of(campaign, self.unfinished.get(campaign.key, ()))

    def held_of(self, campaign: Campaign) -> dict[Kind, str]:
        """What is paused by itself, each with its dedupe key."""
        held = self.held.get(campaign.key)
        unfinished = self.unfinished.get(campaign.key, ()) if held else ()
        return {_kind(action): action.dedupe_key for action in unfinished if action.dedupe_key in (held or ())}


class PlanMigrations:
    """Moves running campaigns from plan to plan. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter, enroller: Enroller, grace: timedelta) -> None:
        self._stores = stores
        self._database = stores.database
        self._writer = writer
        self._enroller = enroller
        self._grace = grace

    def migrate(
        self,
        tenant_id: str,
        old_plan_hash: str,
        new_plan: PlanLike,
        node_map: Mapping[str, str] | None,
        connection: Any,
        actor: str | None,
    ) -> PlanMigration:
        """Move all that can be moved now. Raises InvalidInputError before anything is written."""
        who = None if actor is None else require_text("actor", actor)

        def begin(transaction: Transaction) -> _Route:
            route = self._route(transaction, tenant_id, old_plan_hash, new_plan, node_map)
            self._stores.plans.insert(transaction, [(tenant_id, route.new)])
            return route

        def move(transaction: Transaction) -> tuple[_Tally, str | None]:
            return self._move(transaction, route, after)

        route = self._database.run(begin, connection)
        total = _Tally()
        after: str | None = ""
        while after is not None:
            tally, after = self._database.run(move, connection)
            total.add(tally)
        migration = _migration(route, total, is_dry_run=False)
        self._database.run(lambda transaction: self._record(transaction, migration, node_map, who), connection)
        return migration

    def preview(
        self,
        tenant_id: str,
        old_plan_hash: str,
        new_plan: PlanLike,
        node_map: Mapping[str, str] | None,
        connection: Any,
    ) -> PlanMigration:
        """What `migrate` would find and set off now. Reads only, and locks nothing."""
        with self._database.reading(connection) as transaction:
            route = self._route(transaction, tenant_id, old_plan_hash, new_plan, node_map)
        total = _Tally()
        after: str | None = ""
        while after is not None:
            with self._database.reading(connection) as transaction:
                keys = self._next(transaction, route, after)
                batch = self._unlocked(transaction, route, keys)
                self._decide(transaction, route, batch, total)
                total.busy += len(batch.busy)
            after = _last(keys)
        return _migration(route, total, is_dry_run=True)

    def _route(
        self,
        transaction: Transaction,
        tenant_id: str,
        old_plan_hash: str,
        new_plan: PlanLike,
        node_map: Mapping[str, str] | None,
    ) -> _Route:
        """Raises InvalidInputError, also where somebody stands at a node that leads nowhere in the new plan."""
        require_id("tenant_id", tenant_id)
        key = (tenant_id, require_id("old_plan_hash", old_plan_hash))
        old = self._stores.plans.load(transaction, [key]).get(key)
        if old is None:
            raise InvalidInputError("old_plan_hash", old_plan_hash, f"tenant {tenant_id!r} has no stored plan of it")
        try:
            new = self._enroller.plan_of(transaction, tenant_id, new_plan)
        except InvalidPlanError:
            raise
        except InvalidInputError as error:
            raise InvalidInputError("new_plan", error.value, error.remedy) from None
        if new.hash == old.hash:
            raise InvalidInputError("new_plan", new.hash, "it is the old plan, word for word: give another one")
        targets = NodeTargets(old, new, node_map)
        for node_id in self._stores.migrating.standing(transaction, tenant_id, old.hash):
            targets.get(node_id)
        return _Route(tenant_id, old, new, targets)

    def _next(self, transaction: Transaction, route: _Route, after: str) -> list[Key]:
        return self._stores.migrating.batch(transaction, route.tenant_id, route.old.hash, after, BATCH)

    def _move(self, transaction: Transaction, route: _Route, after: str | None) -> tuple[_Tally, str | None]:
        """One batch; returns what it met, and the last campaign it came to, None when there was no other."""
        keys, tally = self._next(transaction, route, after or ""), _Tally()
        batch = self._locked(transaction, route, keys)
        decided = self._decide(transaction, route, batch, tally)
        self._writer.write(transaction, decided)
        renamed = [row for one in decided for row in _renamed(one.decision, batch.held_of(one.before))]
        self._stores.migrating.rename_held(transaction, renamed)
        tally.moved, tally.busy = len(decided), len(batch.busy)
        return tally, _last(keys)

    def _locked(self, transaction: Transaction, route: _Route, keys: Sequence[Key]) -> _Batch:
        """Locks campaigns, then their sends; whoever has either of them locked makes the campaign busy."""
        campaigns = self._stores.campaigns
        locked = campaigns.lock_free(transaction, keys)
        sends = self._stores.migrating.lock_sends(transaction, locked)
        others = campaigns.read(transaction, set(keys) - locked.keys())
        return self._sort_out(transaction, route, locked, others, sends)

    def _unlocked(self, transaction: Transaction, route: _Route, keys: Sequence[Key]) -> _Batch:
        return self._sort_out(transaction, route, self._stores.campaigns.read(transaction, keys), {}, None)

    def _sort_out(
        self,
        transaction: Transaction,
        route: _Route,
        campaigns: Mapping[Key, Campaign],
        held_by_others: Mapping[Key, Campaign],
        locked_sends: set[Key] | None,
    ) -> _Batch:
        """Who can be moved and who is busy, of those who are still on the old plan."""
        unfinished: dict[Key, list[ScheduledAction]] = {}
        for action in self._stores.actions.unfinished(transaction, sorted(campaigns)):
            unfinished.setdefault(action.campaign_key, []).append(action)
        free: list[Campaign] = []
        busy = [one for one in held_by_others.values() if _is_on(route.old, one)]
        for key, campaign in campaigns.items():
            if not _is_on(route.old, campaign):
                continue
            send = _send_of(campaign, unfinished.get(key, ()))
            is_sending = send is not None and (
                send.status == ActionStatus.CLAIMED or (locked_sends is not None and send.key not in locked_sends)
            )
            has_target = route.targets.find(campaign.current_node_id) is not None  # it came there just now
            (busy if is_sending or not has_target else free).append(campaign)
        held = self._stores.migrating.held(transaction, (one.key for one in free))
        return _Batch(free, busy, unfinished, held)

    def _decide(self, transaction: Transaction, route: _Route, batch: _Batch, tally: _Tally) -> list[Decided]:
        """A decision for each that is free; all are counted."""
        decided = []
        now = transaction.now
        for campaign in batch.free:
            send, node_id = batch.send_of(campaign), campaign.current_node_id
            send_run_at = None if send is None else send.run_at
            decision = machine.migrate(route.new, campaign, route.targets.get(node_id), now, send_run_at)
            decision = _keeping_held(decision, batch.held_of(campaign))
            decided.append(Decided(campaign, decision))
            timeouts, mails = at_once(route.new, decision, now, self._grace)
            tally.timeouts[node_id] += timeouts
            tally.mails[node_id] += mails
        tally.campaigns.update(campaign.current_node_id for campaign in (*batch.free, *batch.busy))
        return decided

    def _record(
        self, transaction: Transaction, migration: PlanMigration, node_map: Mapping[str, str] | None, actor: str | None
    ) -> None:
        details: dict[str, Any] = {
            "old_plan_hash": migration.old_plan_hash,
            "new_plan_hash": migration.new_plan_hash,
            "node_map": dict(node_map or {}),
            "nodes": {node.from_node_id: node.campaigns for node in migration.nodes},
            "moved": migration.moved,
            "busy": migration.busy,
        }
        self._stores.operator_actions.record(transaction, ACT, migration.tenant_id, None, actor, details)
        transaction.on_commit(lambda: _tell(migration, actor))


def _is_on(plan: CampaignPlan, campaign: Campaign) -> bool:
    return campaign.plan_hash == plan.hash and not campaign.is_finished


def _send_of(campaign: Campaign, unfinished: Sequence[ScheduledAction]) -> ScheduledAction | None:
    """The unfinished send of the current visit."""
    for action in unfinished:
        if action.action_type == ActionType.SEND and action.node_visit == campaign.node_visit:
            return action
    return None


def _kind(action: ScheduledAction | PlannedAction) -> Kind:
    return (action.action_type, action.event_type)


def _keeping_held(decision: Decision, held: Mapping[Kind, str]) -> Decision:
    """What was paused by itself stays so: its successor is born paused."""
    if not held:
        return decision
    actions = (
        replace(action, status=ActionStatus.PAUSED) if _kind(action) in held else action for action in decision.actions
    )
    return replace(decision, actions=tuple(actions))


def _renamed(decision: Decision, held: Mapping[Kind, str]) -> list[_Renamed]:
    """The pauses of single actions, for those that replace them."""
    key = decision.campaign.key
    return [
        (*key, held[_kind(action)], make_dedupe_key(*key, action.node_id, action.node_visit, *_kind(action)))
        for action in decision.actions
        if _kind(action) in held
    ]


def _last(keys: Sequence[Key]) -> str | None:
    return keys[-1][1] if keys else None


def _migration(route: _Route, tally: _Tally, *, is_dry_run: bool) -> PlanMigration:
    nodes = tuple(
        NodeMigration(
            from_node_id=node_id,
            to_node_id=route.targets.find(node_id),
            campaigns=tally.campaigns[node_id],
            timeouts_at_once=tally.timeouts[node_id],
            mails_at_once=tally.mails[node_id],
        )
        for node_id in route.old.nodes
        if tally.campaigns[node_id]
    )
    return PlanMigration(
        tenant_id=route.tenant_id,
        old_plan_hash=route.old.hash,
        new_plan_hash=route.new.hash,
        nodes=nodes,
        moved=tally.moved,
        busy=tally.busy,
        is_dry_run=is_dry_run,
    )


def _tell(migration: PlanMigration, actor: str | None) -> None:
    emit(
        "plan.migrated",
        tenant_id=migration.tenant_id,
        old_plan_hash=migration.old_plan_hash,
        new_plan_hash=migration.new_plan_hash,
        moved=migration.moved,
        busy=migration.busy,
        actor=actor,
    )
