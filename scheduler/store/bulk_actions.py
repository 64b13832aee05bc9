"""Many actions retried, canceled or given up by hand: found piece by piece through an index, changed by their keys.

What is in error is walked through the index of errors, what is unfinished through that of unfinished ones: each piece
begins behind the last one, so that all of it costs one walk, whatever is changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Text, and_, bindparam, func, or_, select, tuple_, update

from scheduler.domain.action import ActionType
from scheduler.domain.bulk import BulkFilter, BulkPreview, Found, Verb
from scheduler.domain.campaign import CampaignStatus
from scheduler.store.actions import action_columns, to_action
from scheduler.store.database import Database, Transaction
from scheduler.store.rows import RowSource
from scheduler.store.statuses import CANCELED, CLAIMED, ERROR, PENDING, UNFINISHED, still
from scheduler.store.tables import Instant

Key = tuple[str, str]
Cursor = tuple[Any, ...]

_AT: Final = bindparam("at", type_=Instant)
_ENDED: Final = (CampaignStatus.COMPLETED, CampaignStatus.STOPPED)


class BulkActions:
    """Statements for one verb. Stateless, thread-safe."""

    def __init__(self, database: Database, verb: Verb) -> None:
        self._table = database.tables.scheduled_actions
        self._campaigns = database.tables.contact_campaigns
        self._columns = action_columns(database.tables)
        self._verb = verb
        self._of_errors = verb in (Verb.RETRY, Verb.GIVE_UP)
        before = (ERROR,) if self._of_errors else UNFINISHED
        self._keys = RowSource(database.dialect_name, {"tenant_id": Text, "dedupe_key": Text})
        actions, given = self._table.c, self._keys.c
        of_key = and_(actions.tenant_id == given.tenant_id, actions.dedupe_key == given.dedupe_key)
        self._change = update(self._table).where(of_key).returning(actions.tenant_id, actions.dedupe_key)
        if verb == Verb.RETRY:
            values: dict[str, Any] = {"status": PENDING, "attempts": 0, "outcome": None, "finished_at": None}
            values["run_at"] = _AT
        else:
            values = {"status": CANCELED, "outcome": bindparam("reason", type_=Text), "finished_at": _AT}
            values["claimed_until"] = None
        self._change = self._change.where(still(actions.status, *before)).values(updated_at=_AT, **values)

    def find(self, transaction: Transaction, wanted: BulkFilter, after: Cursor | None, most: int) -> list[Found]:
        """The next `most` of them behind `after`, which is what `cursor` says of the last one."""
        return [Found(*row) for row in transaction.rows(self.statement(wanted, after, most), {})]

    def statement(self, wanted: BulkFilter, after: Cursor | None, most: int) -> Select[Any]:
        """What finds them."""
        columns = [self._table.c[name] for name in Found._fields]
        statement = self._select(wanted, *columns).order_by(*self._order(wanted)).limit(most)
        return (
            statement if after is None else statement.where(tuple_(*self._order(wanted)) > self._bound(wanted, after))
        )

    def cursor(self, wanted: BulkFilter, last: Found) -> Cursor:
        """Where the walk stands once this one was seen."""
        return tuple(getattr(last, column.name) for column in self._order(wanted))

    def preview(self, transaction: Transaction, wanted: BulkFilter, sample: int) -> BulkPreview:
        """How many there are, how many of them wouldn't be changed, and the first. Reads every row it counts."""
        actions, campaigns = self._table.c, self._campaigns.c
        of_campaign = and_(campaigns.tenant_id == actions.tenant_id, campaigns.campaign_id == actions.campaign_id)
        is_over = or_(
            campaigns.status.in_(_ENDED),
            and_(campaigns.status == CampaignStatus.ERROR, actions.action_type != ActionType.SEND),
        )
        is_left = or_(is_over, actions.sent_at.is_not(None), campaigns.node_visit != actions.node_visit)
        claims = actions.status == CLAIMED
        counts = self._select(wanted, func.count(), func.count().filter(is_left), func.count().filter(claims))
        counts = counts.select_from(self._table.outerjoin(self._campaigns, of_campaign))
        matched, left, claimed = transaction.connection.execute(counts).one()
        statement = self._select(wanted, *self._columns).order_by(*self._order(wanted)).limit(sample)
        first = [to_action(row) for row in transaction.rows(statement, {})]
        return BulkPreview(matched, left if self._verb == Verb.RETRY else 0, claimed, tuple(first))

    def change(self, transaction: Transaction, keys: Iterable[Key], reason: str | None) -> set[Key]:
        """Retry, cancel or give up those that still can be; returns which. Lock: their rows."""
        parameters = {**self._keys.bind(sorted(keys)), "at": transaction.now}
        if self._verb == Verb.RETRY:
            transaction.database.due_at(transaction, transaction.now)
        else:
            parameters["reason"] = reason
        return {(tenant, key) for tenant, key in transaction.connection.execute(self._change, parameters)}

    def _select(self, wanted: BulkFilter, *columns: Any) -> Select[Any]:
        actions = self._table.c
        names = ("tenant_id", "campaign_id", "node_id", "event_type", "action_type", "dedupe_key")
        given = {name: getattr(wanted, name) for name in names}
        where: list[ColumnElement[bool]] = [
            actions[name] == value for name, value in given.items() if value is not None
        ]
        if wanted.error is not None:
            where.append(actions.last_error.icontains(wanted.error, autoescape=True))
        began = actions.finished_at if self._of_errors else actions.created_at
        if wanted.since is not None:
            where.append(began >= bindparam(None, wanted.since, type_=Instant))
        if wanted.until is not None:
            where.append(began <= bindparam(None, wanted.until, type_=Instant))
        is_meant = actions.status == ERROR if self._of_errors else actions.status.in_(UNFINISHED)
        return select(*columns).where(is_meant, *where)

    def _order(self, wanted: BulkFilter) -> list[ColumnElement[Any]]:
        """That of the index, without what is the same for all of them: else a planner expects next to nothing."""
        actions = self._table.c
        if self._of_errors:
            order, given = [actions.tenant_id, actions.run_at], [wanted.tenant_id, None]
        else:
            order, given = [actions.tenant_id, actions.campaign_id], [wanted.tenant_id, wanted.campaign_id]
        return [*(one for one, value in zip(order, given, strict=True) if value is None), actions.dedupe_key]

    def _bound(self, wanted: BulkFilter, after: Cursor) -> Any:
        columns = zip(after, self._order(wanted), strict=True)
        return tuple_(*(bindparam(None, value, type_=column.type) for value, column in columns))
