"""The states of an action inside statements: written out, so that partial indexes are used whatever is prepared."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Text, and_, literal_column, or_

PENDING: Final = literal_column("'pending'", Text)
CLAIMED: Final = literal_column("'claimed'", Text)
PAUSED: Final = literal_column("'paused'", Text)
COMPLETED: Final = literal_column("'completed'", Text)
CANCELED: Final = literal_column("'canceled'", Text)
ERROR: Final = literal_column("'error'", Text)

UNFINISHED: Final = (PENDING, CLAIMED, PAUSED)
FINISHED: Final = (COMPLETED, CANCELED, ERROR)
EACH_INDEX: Final = (UNFINISHED, FINISHED)  # what is over and what isn't are found through indexes of their own


def is_pending_of_tenant(status: ColumnElement[Any]) -> ColumnElement[bool]:
    """Pending, as the index of what is due by tenant has it.

    The other one, without the tenant, isn't thought of: a planner whose statistics lag would take it, and read all.
    """
    return status.concat(literal_column("''", Text)) == PENDING


def may_be_held(actions: Any) -> ColumnElement[bool]:
    """What becomes `paused` with its campaign, or by itself: what is still to come, but for a send that is claimed.

    Its mail may be going out: were it paused and resumed before that is recorded, it would be sent again. Whoever has
    it finds the pause of its campaign with the last look, or records what went out.
    """
    is_timeout = actions.action_type == literal_column("'timeout'", Text)
    return or_(actions.status == PENDING, and_(actions.status == CLAIMED, is_timeout))


def still(status: ColumnElement[Any], *statuses: ColumnElement[Any]) -> ColumnElement[bool]:
    """`status` is one of these, as a condition that no index is chosen for: the row was found by its key already."""
    return status.concat(literal_column("''", Text)).in_(statuses)
