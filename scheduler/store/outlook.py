"""What a process has to know all the time of the whole table, told by one statement however much is pending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ARRAY, Integer, Select, Text, func, literal_column, select, type_coerce

from scheduler.domain.action import ActionType
from scheduler.store.claim_clock import ClaimClock
from scheduler.store.database import Transaction
from scheduler.store.prepared import Prepared
from scheduler.store.statuses import CLAIMED, PENDING
from scheduler.store.tables import Instant, Layout

_MOST_SEEN: Final = 100


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the next pending timeouts and the next pending sends are due, by the clock that read `now`.

    No more than `most` of each. `later_...`: the first that isn't due yet, which needn't be among those.
    `is_anything_claimed` by anybody. `counted_at`: when it was last counted how much waits (None: never). `real`: the
    present in real time.
    """

    now: datetime
    timeouts: Sequence[datetime]
    sends: Sequence[datetime]
    later_timeout: datetime | None
    later_send: datetime | None
    is_anything_claimed: bool
    counted_at: datetime | None
    real: datetime
    is_read_only: bool = False
    most: int = 1

    def all_of(self, action_type: ActionType) -> Sequence[datetime]:
        """When the next ones of that type are due, in order."""
        return self.timeouts if action_type == ActionType.TIMEOUT else self.sends

    def of(self, action_type: ActionType) -> datetime | None:
        """When the next of that type is due."""
        return next(iter(self.all_of(action_type)), None)

    def later_of(self, action_type: ActionType) -> datetime | None:
        """When the next of that type is due that isn't yet."""
        return self.later_timeout if action_type == ActionType.TIMEOUT else self.later_send


class Outlooks:
    """The statement that an outlook is read with. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._actions = layout.tables.scheduled_actions.c
        self._counted_at = layout.tables.backlog.c.counted_at
        self._clock = ClaimClock(layout)
        self._read = Prepared(self._statement())

    def read(self, transaction: Transaction) -> Outlook:
        """When there will be something to claim; on PostgreSQL, where asking costs a round trip, of the next hundred.

        Reads so many index entries of each type, one of what is claimed, and the row of the last count.
        """
        clock = self._clock
        parameters = {**clock.due_parameters(transaction), **clock.real_parameters(transaction)}
        (row,) = self._read.rows(transaction, parameters)
        now, timeouts, sends, *rest = row
        if self._layout.is_postgresql:
            return replace(Outlook(now, timeouts, sends, *rest), most=_MOST_SEEN)
        return Outlook(now, _known(timeouts), _known(sends), *rest)

    def _statement(self) -> Any:
        # The newest lease: what is over lies at the other end, until the index is tidied.
        one = literal_column("1", Integer)
        newest = (
            select(one).where(self._actions.status == CLAIMED).order_by(self._actions.claimed_until.desc()).limit(one)
        )
        is_claimed = newest.scalar_subquery().is_not(None)
        return select(
            self._clock.due().label("now"),
            self._next_ones(ActionType.TIMEOUT).label("timeouts"),
            self._next_ones(ActionType.SEND).label("sends"),
            self._earliest(ActionType.TIMEOUT, later=True).scalar_subquery().label("later_timeout"),
            self._earliest(ActionType.SEND, later=True).scalar_subquery().label("later_send"),
            is_claimed.label("is_anything_claimed"),
            select(self._counted_at).scalar_subquery().label("counted_at"),
            type_coerce(self._clock.real(), Instant).label("real"),
            *([func.current_setting("transaction_read_only") == "on"] if self._layout.is_postgresql else []),
        )

    def _next_ones(self, action_type: ActionType) -> Any:
        if self._layout.is_postgresql:
            ones = self._earliest(action_type, most=_MOST_SEEN).scalar_subquery()
            return func.array(ones, type_=ARRAY(Instant()))
        return self._earliest(action_type).scalar_subquery()

    def _earliest(self, action_type: ActionType, *, later: bool = False, most: int = 1) -> Select[Any]:
        kind = literal_column(f"'{action_type}'", Text)
        pending = select(self._actions.run_at).where(self._actions.status == PENDING, self._actions.action_type == kind)
        if later:
            pending = pending.where(self._actions.run_at > self._clock.due())
        return pending.order_by(self._actions.run_at).limit(literal_column(str(most), Integer))


def _known(instant: datetime | None) -> Sequence[datetime]:
    return () if instant is None else (instant,)
