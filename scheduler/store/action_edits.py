"""One action changed by hand. Whoever does it holds the campaign's row locked, so that nothing fires meanwhile."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Text, and_, bindparam, update

from scheduler.domain.outcome import CANCELED_BY_HAND
from scheduler.store.database import Transaction
from scheduler.store.statuses import CANCELED, ERROR, PAUSED, PENDING, UNFINISHED, may_be_held
from scheduler.store.tables import Instant, Layout

Key = tuple[str, str]

_AT: Final = bindparam("at", type_=Instant)
_INSTANT: Final = bindparam("instant", type_=Instant)


class ActionEdits:
    """Statements that change one action. Each answers whether it did. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.scheduled_actions
        self._cancel = self._edit(
            UNFINISHED, status=CANCELED, outcome=bindparam("reason", type_=Text), finished_at=_AT, claimed_until=None
        )
        self._reschedule = self._edit((PENDING, PAUSED), run_at=_INSTANT, deadline=_INSTANT)
        self._reopen = self._edit((ERROR,), status=PENDING, attempts=0, outcome=None, finished_at=None, run_at=_AT)
        self._hold = self._edit(UNFINISHED, status=PAUSED, claimed_until=None).where(may_be_held(self._table.c))
        self._unhold = self._edit((PAUSED,), status=PENDING, run_at=_INSTANT)

    def _edit(self, before: tuple[Any, ...], **values: Any) -> Any:
        actions = self._table.c
        of_key = and_(actions.tenant_id == bindparam("tenant"), actions.dedupe_key == bindparam("key"))
        return update(self._table).where(of_key, actions.status.in_(before)).values(updated_at=_AT, **values)

    @staticmethod
    def _run(transaction: Transaction, statement: Any, key: Key, **parameters: Any) -> bool:
        given = {"tenant": key[0], "key": key[1], "at": transaction.now, **parameters}
        return transaction.connection.execute(statement, given).rowcount == 1

    def cancel(self, transaction: Transaction, key: Key, reason: str | None) -> bool:
        """Cancel an unfinished action; the reason is its outcome."""
        return self._run(transaction, self._cancel, key, reason=reason or CANCELED_BY_HAND)

    def reschedule(self, transaction: Transaction, key: Key, run_at: datetime) -> bool:
        """Move a pending or paused action, its deadline with it."""
        transaction.database.due_at(transaction, run_at)
        return self._run(transaction, self._reschedule, key, instant=run_at)

    def reopen(self, transaction: Transaction, key: Key) -> bool:
        """`error` → `pending`, due now, with its attempts forgotten."""
        transaction.database.due_at(transaction, transaction.now)
        return self._run(transaction, self._reopen, key)

    def hold(self, transaction: Transaction, key: Key) -> bool:
        """`pending`, or a claimed timeout → `paused`, keeping its `run_at`."""
        return self._run(transaction, self._hold, key)

    def unhold(self, transaction: Transaction, key: Key, run_at: datetime) -> bool:
        """`paused` → `pending`, due at `run_at`."""
        transaction.database.due_at(transaction, run_at)
        return self._run(transaction, self._unhold, key, instant=run_at)
