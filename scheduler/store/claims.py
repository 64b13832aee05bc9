"""Claims: who fires what, and for how long. How they end is in `settlements`.

A claim is a lease, fenced by (owner, claim number). Claims use SKIP LOCKED and never wait for anybody. Leases run on
real time (PostgreSQL's own), never on a given clock.

What is due of a paused tenant, or while everything is paused, becomes `paused` in place of claimed: it leaves the queue
of what is due, so that it holds up nobody else's, and keeps its `run_at`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    CTE,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    update,
)

from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.store.actions import Key, action_columns, to_action
from scheduler.store.campaigns import is_held
from scheduler.store.claim_clock import ClaimClock
from scheduler.store.database import Transaction
from scheduler.store.pauses import holds_sends, is_wide
from scheduler.store.prepared import Prepared
from scheduler.store.rows import RowSource, look_up
from scheduler.store.statuses import CLAIMED, PAUSED, PENDING, is_pending_of_tenant, still
from scheduler.store.tables import Instant, Layout

APPLICATION: Final = "external:"


def is_application(owner: str | None) -> bool:
    """Whether a claim is an application's that sends by itself: a process's own has a second colon."""
    return owner is not None and owner.startswith(APPLICATION) and owner.count(":") == 1


class Claimed(list[ScheduledAction]):
    """What was claimed, the longest overdue first. `held` more were due, and are paused now: there may be others."""

    def __init__(self, actions: Iterable[ScheduledAction] = (), held: int = 0) -> None:
        super().__init__(actions)
        self.held = held


class Claims:
    """Statements that claim and release. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._clock = ClaimClock(layout)
        self._table = layout.tables.scheduled_actions
        self._pauses = layout.tables.pauses
        self._columns = action_columns(layout.tables)
        self._tenants = RowSource(layout.dialect_name, {"tenant_id": Text})
        self._claim = Prepared(self._claim_statement(self._due()))
        self._claim_of_tenant = Prepared(self._claim_statement(self._due_of_tenant()))
        self._claim_shares = Prepared(self._claim_statement(self._due_by_tenant()))
        claim = {"tenant_id": Text, "dedupe_key": Text, "claim_number": Integer, "owner": Text}
        self._renewed = RowSource(layout.dialect_name, claim)
        self._renew = self._renew_statement()
        self._claim_key = self._claim_key_statement()
        actions = self._table.c
        of_others = and_(actions.status == CLAIMED, actions.claimed_by != bindparam("owner", type_=Text))
        self._others = Prepared(select(exists().where(of_others)))

    def claim(
        self,
        transaction: Transaction,
        action_type: ActionType,
        limit: int,
        owner: str,
        lease: timedelta,
        tenant_id: str | None = None,
    ) -> Claimed:
        """Claim up to `limit` due actions for `owner`, the longest overdue first; none that somebody else holds."""
        parameters = {
            "kind": action_type,
            "most": limit,
            "owner": owner,
            **self._clock.due_parameters(transaction),
            **self._clock.lease_parameters(transaction, lease),
        }
        statement = self._claim
        if tenant_id is not None:
            statement, parameters["tenant"] = self._claim_of_tenant, tenant_id
        return self._execute(transaction, statement, parameters)

    def claim_shares(
        self,
        transaction: Transaction,
        action_type: ActionType,
        tenant_ids: Iterable[str],
        share: int,
        owner: str,
        lease: timedelta,
    ) -> Claimed:
        """Claim up to `share` due actions of each of these tenants, its longest overdue first."""
        tenants = self._tenants.bind([(tenant_id,) for tenant_id in tenant_ids])
        parameters = {"kind": action_type, "most": share, "owner": owner, **tenants}
        parameters |= {**self._clock.due_parameters(transaction), **self._clock.lease_parameters(transaction, lease)}
        return self._execute(transaction, self._claim_shares, parameters)

    def _execute(self, transaction: Transaction, statement: Prepared, parameters: dict[str, Any]) -> Claimed:
        found = [to_action(row) for row in statement.rows(transaction, parameters)]
        claimed = [action for action in found if action.status == ActionStatus.CLAIMED]
        in_order = sorted(claimed, key=lambda action: (action.run_at, action.key))
        return Claimed(in_order, held=len(found) - len(claimed))

    def claim_one(self, transaction: Transaction, key: Key, owner: str, lease: timedelta) -> ScheduledAction | None:
        """Claim one action if it is pending, due and not held; None when it isn't, or somebody has it."""
        parameters = {
            "tenant": key[0],
            "key": key[1],
            "owner": owner,
            **self._clock.due_parameters(transaction),
            **self._clock.lease_parameters(transaction, lease),
        }
        row = transaction.connection.execute(self._claim_key, parameters).first()
        return None if row is None else to_action(row)

    def renew(
        self, transaction: Transaction, owner: str, actions: Sequence[ScheduledAction], lease: timedelta
    ) -> set[Key]:
        """Let claims that `owner` still holds last `lease` from now on; returns their keys. The rows are locked.

        Never waits: a row that somebody has locked is being worked on, and nobody else can take it meanwhile.
        """
        if not actions:
            return set()
        rows = self._renewed.bind([(*action.key, action.claim_number, owner) for action in actions])
        renewed = transaction.connection.execute(
            self._renew, {**rows, **self._clock.lease_parameters(transaction, lease)}
        )
        return {(tenant, key) for tenant, key in renewed}

    def release_expired(self, transaction: Transaction, but_not_of: str, *, sends: bool = True) -> int:
        """Claims whose lease ended are due again; an owner knows best what of its own is still at work."""
        expired = and_(self._table.c.claimed_until < self._clock.real(), self._table.c.claimed_by != bindparam("owner"))
        if not sends:
            expired = and_(expired, self._table.c.action_type == literal_column("'timeout'"))
        return self._release(transaction, expired, owner=but_not_of, **self._clock.real_parameters(transaction))

    def release_expired_sends(self, transaction: Transaction) -> int:
        """Sends that somebody was given and neither confirmed nor failed in time are due again."""
        is_send = self._table.c.action_type == literal_column("'send'")
        return self._release(
            transaction,
            and_(self._table.c.claimed_until < self._clock.real(), is_send),
            **self._clock.real_parameters(transaction),
        )

    def are_there_others(self, transaction: Transaction, owner: str) -> bool:
        """Whether anybody but `owner` holds a claim, or has left one behind."""
        return bool(self._others.rows(transaction, {"owner": owner})[0][0])

    def held_by(self, transaction: Transaction, owner: str) -> list[ScheduledAction]:
        """All that `owner` holds."""
        statement = select(*self._columns).where(
            self._table.c.status == CLAIMED, self._table.c.claimed_by == bindparam("owner")
        )
        return [to_action(row) for row in transaction.connection.execute(statement, {"owner": owner})]

    def expired_own(self, transaction: Transaction, owner: str) -> list[ScheduledAction]:
        """What `owner` holds past its lease: still at work, or claimed by a statement whose answer was lost."""
        statement = select(*self._columns).where(
            self._table.c.status == CLAIMED,
            self._table.c.claimed_until < self._clock.real(),
            self._table.c.claimed_by == bindparam("owner"),
        )
        rows = transaction.connection.execute(statement, {"owner": owner, **self._clock.real_parameters(transaction)})
        return [to_action(row) for row in rows]

    def release_others(self, transaction: Transaction, owner: str) -> int:
        """Every claim but `owner`'s is due again: only where no other process can be firing.

        What an application was given to send is its own until the lease ends.
        """
        claimed_by = self._table.c.claimed_by
        is_external = and_(claimed_by.startswith(APPLICATION), not_(claimed_by.like(f"{APPLICATION}%:%")))
        return self._release(transaction, and_(claimed_by != bindparam("owner"), not_(is_external)), owner=owner)

    def release_of(self, transaction: Transaction, owners: Sequence[str], *, sends: bool = True) -> int:
        """Every claim of these owners is due again. Without `sends`, what may be half sent waits."""
        if not owners:
            return 0
        theirs: Any = self._table.c.claimed_by.in_(bindparam("owners", expanding=True))
        if not sends:
            theirs = and_(theirs, self._table.c.action_type == literal_column("'timeout'"))
        return self._release(transaction, theirs, owners=list(owners))

    def _release(self, transaction: Transaction, where: Any, **parameters: Any) -> int:
        """What somebody works on right now, holding its row, is left to him: nobody waits for a worker that hangs."""
        actions = self._table.c
        over = (
            select(actions.tenant_id, actions.dedupe_key)
            .where(actions.status == CLAIMED, where)
            .with_for_update(skip_locked=True)
            .cte("over")
        )
        statement = (
            update(self._table)
            .where(self._is_row_of(self._looked_up(over)))
            .values(status=PENDING, claimed_by=None, claimed_until=None, updated_at=bindparam("at", type_=Instant))
        )
        released = statement.returning(actions.dedupe_key)
        return len(transaction.connection.execute(released, {**parameters, "at": transaction.now}).all())

    def _due(self) -> CTE:
        """The longest overdue, `most` of them. Lock: these rows, skipping locked ones."""
        due = self._due_rows(self._table.c).where(self._table.c.status == PENDING)
        return due.with_for_update(skip_locked=True).cte("due")

    def _due_of_tenant(self) -> CTE:
        """The same of one tenant."""
        actions = self._table.c
        due = self._due_rows(actions).where(is_pending_of_tenant(actions.status))
        return (
            due.where(actions.tenant_id == bindparam("tenant", type_=Text)).with_for_update(skip_locked=True).cte("due")
        )

    def _due_by_tenant(self) -> CTE:
        """The same of each given tenant. SQLite has no LATERAL: the rows are found by SQLite's own number of a row."""
        actions, given = self._table.c, self._tenants
        if self._layout.is_postgresql:
            due = self._due_rows(actions).where(
                is_pending_of_tenant(actions.status), actions.tenant_id == given.c.tenant_id
            )
            one = due.with_for_update(skip_locked=True).lateral("one")
            return select(one.c.tenant_id, one.c.dedupe_key).select_from(given.table.join(one, true())).cte("due")
        inner = self._table.alias("inner_actions")
        numbers = self._due_rows(inner.c, literal_column("inner_actions.rowid", Integer))
        numbers = numbers.where(is_pending_of_tenant(inner.c.status), inner.c.tenant_id == given.c.tenant_id)
        row_number: Any = literal_column("scheduled_actions.rowid", Integer)
        is_one = row_number.in_(numbers.correlate(given.table))
        return (
            select(actions.tenant_id, actions.dedupe_key).select_from(given.table.join(self._table, is_one)).cte("due")
        )

    def _due_rows(self, actions: Any, *columns: Any) -> Select[Any]:
        return (
            select(*(columns or (actions.tenant_id, actions.dedupe_key)))
            .where(actions.action_type == bindparam("kind", type_=Text), actions.run_at <= self._clock.due())
            .order_by(actions.run_at)
            .limit(bindparam("most", type_=Integer))
        )

    def _claim_statement(self, due: CTE) -> Any:
        """Lock: the due rows, skipping locked ones. A concurrent twin claims other rows."""
        held = self._held_among(due)
        everyone = literal_column("''", Text)
        is_held = or_(everyone.in_(select(held.c.tenant_id)), due.c.tenant_id.in_(select(held.c.tenant_id)))
        columns = select(due.c.tenant_id, due.c.dedupe_key, is_held.label("is_held"))
        if self._layout.is_postgresql:
            columns = columns.select_from(due.join(self._flushed_with_its_effect(), true()))
        found = columns.cte("found")
        keys = self._looked_up(found)
        return self._claiming(self._is_row_of(keys), keys.c.is_held)

    @staticmethod
    def _flushed_with_its_effect() -> CTE:
        """The claim of a timeout isn't waited for until it is on disk (PostgreSQL).

        The commit of its effect, which comes after it in the log, brings it there. A server that dies before loses the
        claim: then the timeout is due again, and the fence refuses whoever still works on it. A send is no such thing:
        its mail may be on its way.
        """
        name, kept = literal_column("'synchronous_commit'", Text), func.current_setting("synchronous_commit")
        is_timeout = bindparam("kind", type_=Text) == literal_column("'timeout'", Text)
        setting = case((is_timeout, literal_column("'off'", Text)), else_=kept)
        return select(func.set_config(name, setting, true())).cte("flushed_with_its_effect")

    def _held_among(self, due: CTE) -> CTE:
        """Whose tenant is paused ('': everybody's), or its mails. No pause is lifted until what it holds is `paused`.

        Lock: those pauses, for key share, skipping one that is being lifted: it holds nobody any more, and what fires
        then waits for the one who lifts it.
        """
        pauses, everyone = self._pauses.c, literal_column("''", Text)
        tenants = select(due.c.tenant_id).distinct()
        is_of_one = or_(pauses.tenant_id == everyone, pauses.tenant_id.in_(tenants))
        if self._layout.is_postgresql:
            array = func.array_append(func.array(tenants.scalar_subquery()), everyone)
            is_of_one = pauses.tenant_id == func.any(array)
        is_send = bindparam("kind", type_=Text) == literal_column("'send'", Text)
        holds = or_(is_wide(self._pauses), and_(is_send, holds_sends(self._pauses)))
        held = select(pauses.tenant_id).where(is_of_one, holds)
        return held.with_for_update(read=True, key_share=True, skip_locked=True).cte("held")

    def _looked_up(self, found: CTE) -> FromClause:
        """What was found, as rows that are looked up by their keys.

        PostgreSQL would rather hash the whole table when they are some hundreds; of an array it expects ten.
        """
        if not self._layout.is_postgresql:
            return found
        arrays = [func.array(select(one).scalar_subquery()) for one in found.c]
        names = [column(one.name, one.type) for one in found.c]
        return func.unnest(*arrays).table_valued(*names).render_derived("hits")

    def _is_row_of(self, keys: FromClause) -> Any:
        return and_(self._table.c.tenant_id == keys.c.tenant_id, self._table.c.dedupe_key == keys.c.dedupe_key)

    def _claim_key_statement(self) -> Any:
        actions = self._table.c
        of_key = and_(actions.tenant_id == bindparam("tenant"), actions.dedupe_key == bindparam("key"))
        is_due = and_(actions.status == PENDING, actions.run_at <= self._clock.due())
        return self._claiming(and_(of_key, is_due, not_(is_held(self._pauses, actions.tenant_id))))

    def _claiming(self, where: Any, held: Any = None) -> Any:
        """What is `held` becomes paused, and is nobody's."""
        actions = self._table.c
        values: dict[str, Any] = {
            "status": CLAIMED,
            "claimed_by": bindparam("owner", type_=Text),
            "claim_number": actions.claim_number + 1,
            "claimed_until": self._clock.lease_end(),
        }
        if held is not None:
            otherwise = {**{name: actions[name] for name in values}, "status": PAUSED, "claimed_until": null()}
            values = {name: case((held, otherwise[name]), else_=value) for name, value in values.items()}
        return update(self._table).where(where).values(values).returning(*self._columns)

    def _renew_statement(self) -> Any:
        """The fence: this owner, this claim. Lock: the rows nobody else has locked."""
        actions, given = self._table.c, self._renewed.c
        held = and_(
            actions.tenant_id == given.tenant_id,
            actions.dedupe_key == given.dedupe_key,
            still(actions.status, CLAIMED),
            actions.claimed_by == given.owner,
            actions.claim_number == given.claim_number,
        )
        key = [actions.tenant_id, actions.dedupe_key]
        free = look_up(self._renewed, self._table, key, held, lock=True, skip_locked=True).cte("free")
        return (
            update(self._table)
            .where(actions.tenant_id == free.c.tenant_id, actions.dedupe_key == free.c.dedupe_key)
            .values(claimed_until=self._clock.lease_end())
            .returning(actions.tenant_id, actions.dedupe_key)
        )
