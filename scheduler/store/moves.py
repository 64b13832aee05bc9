"""What moves campaigns on, as one statement where the database has such: a round trip in place of four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select

from scheduler.domain.action import NewAction
from scheduler.domain.campaign import Campaign, Transition
from scheduler.store.action_changes import ActionChanges, LeftVisit
from scheduler.store.actions import Actions
from scheduler.store.campaigns import Campaigns
from scheduler.store.database import Transaction
from scheduler.store.prepared import Prepared
from scheduler.store.shared import statements_of
from scheduler.store.tables import Layout

_REASON: Final = "visit left"


class Moves:
    """Cancels what is left behind, stores the campaigns, their history, and what is next. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._changes = statements_of(ActionChanges, layout)
        self._campaigns = statements_of(Campaigns, layout)
        self._actions = statements_of(Actions, layout)
        self._together = self._statement() if layout.is_postgresql else None

    def write(
        self,
        transaction: Transaction,
        left: Sequence[LeftVisit],
        campaigns: Sequence[Campaign],
        transitions: Sequence[Transition],
        new: Sequence[NewAction],
    ) -> int:
        """Write all of it; returns how many of the actions weren't there yet. The campaigns have to be locked."""
        parts = sum(1 for rows in (left, campaigns, transitions, new) if rows)
        if self._together is None or parts < 2:  # noqa: PLR2004 - one part is one statement anyway
            self._changes.cancel_left(transaction, left, _REASON)
            self._campaigns.update(transaction, campaigns)
            self._campaigns.insert_transitions(transaction, transitions)
            return len(self._actions.insert(transaction, new))
        if new:
            transaction.database.due_at(transaction, min(action.run_at for action in new))
        parameters = {
            **self._changes.left_parameters(transaction, left, _REASON),
            **self._campaigns.update_parameters(campaigns),
            **self._campaigns.transitions_parameters(transitions),
            **self._actions.insert_parameters(transaction, new),
        }
        ((inserted,),) = self._together.rows(transaction, parameters)
        return int(inserted)

    def _statement(self) -> Prepared:
        """No part sees what another one wrote, and none needs to: what is canceled is older than what is inserted."""
        inserted = self._actions.insert_statement.cte("inserted")
        return Prepared(
            select(func.count())
            .select_from(inserted)
            .add_cte(
                self._changes.cancel_left_statement.cte("canceled"),
                self._campaigns.update_statement.cte("stored"),
                self._campaigns.transitions_statement.cte("recorded"),
            )
        )
