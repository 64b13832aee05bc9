"""How much is waiting in the whole database: counted by one process at a time, shown by each, and judged once.

A count costs what there is to count. So the next one comes no sooner than twenty times what the last one took: counting
takes at most a twentieth of one session's time, however much is waiting, and gets older instead of dearer. How long
the oldest has been due is read by each process itself, whenever it looks: that takes two index entries.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain.action import ActionType
from scheduler.domain.alerting import Backlog, BacklogLimits, BacklogWatch, Turn
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.settings import Settings
from scheduler.store.backlog import BacklogRow
from scheduler.store.database import Transaction
from scheduler.store.errors import is_refusal
from scheduler.store.stores import Stores
from scheduler.store.turns import take_turn
from scheduler.telemetry.alerts import tell_backlog
from scheduler.telemetry.backlog_gauges import BacklogFigures
from scheduler.telemetry.metrics import Metrics

SHORTEST_INTERVAL: Final = timedelta(seconds=10)
REST: Final = 20
_CALM: Final = 3
# A count that takes longer is given up: it would hold back the vacuum of the busiest table.
_LONGEST_COUNT: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look: the present in real time, what is in the row, for how long the oldest has been due."""

    real: datetime
    before: BacklogRow | None
    oldest_due: timedelta
    counted: BacklogRow | None = None


class Counting:
    """Keeps the figures of one process fresh. For one thread."""

    def __init__(
        self, stores: Stores, settings: Settings, metrics: Metrics, interval: timedelta = SHORTEST_INTERVAL
    ) -> None:
        self._stores = stores
        self._metrics = metrics
        self._interval = interval
        self._limits = BacklogLimits(settings.alert_backlog, settings.alert_oldest_due)
        self._longest = min(settings.database_timeout / 2, _LONGEST_COUNT)
        self._not_before = 0.0
        self._pending_not_before = 0.0

    def look(self) -> None:
        """Read what was counted, or count, and tell the metrics. Raises DatabaseUnavailableError."""
        looked = self._look()
        if time.monotonic() >= self._not_before and self._is_time(looked):
            try:
                looked = self._count_in_turn(looked)
            except DatabaseUnavailableError as error:
                if not is_refusal(error.__cause__):
                    raise
                self._not_before = time.monotonic() + self._rest()
        if looked.counted is not None:
            self._keep(looked, looked.counted)
        row = looked.counted or looked.before
        if row is not None:
            self._metrics.backlog(_figures(row, looked))

    def _look(self) -> _Look:
        """What somebody counted, and how old the oldest is. A round trip each, and no transaction."""
        stores = self._stores
        with stores.database.one_statement(writing=False) as transaction:
            known = stores.due.next_due(transaction)
            real, before = stores.backlog.read(transaction)
        first = min((at for kind in ActionType if (at := known.of(kind)) is not None), default=known.now)
        return _Look(real, before, max(known.now - first, timedelta(0)))

    def _count_in_turn(self, looked: _Look) -> _Look:
        """One process at a time counts, for as long as its transaction lasts; any other shows the last count."""
        with self._stores.database.reading() as transaction:
            if not take_turn(transaction, "counting"):
                return looked
            self._stores.backlog.limit(transaction, self._longest)
            return replace(looked, counted=self._count(transaction, looked.real, looked.before))

    def _is_time(self, looked: _Look) -> bool:
        """Less often while nothing is due: whoever is idle hardly shows in the database."""
        before = looked.before
        if before is None:
            return True
        is_calm = not (before.due or before.claimed or looked.oldest_due)
        return looked.real - before.counted_at >= self._pause(before.took) * (_CALM if is_calm else 1)

    def _pause(self, took: float) -> timedelta:
        return max(self._interval, timedelta(seconds=REST * took))

    def _count(self, transaction: Transaction, real: datetime, before: BacklogRow | None) -> BacklogRow:
        rows = self._stores.backlog
        began = time.perf_counter()
        due, claimed, errors = rows.count_work(transaction)
        counted = BacklogRow(due, claimed, errors, real, time.perf_counter() - began)
        if before is not None:
            kept = ("pending", "pending_counted_at", "pending_took", "lowest_due", "lowest_at", "alerted_at")
            counted = replace(counted, **{name: getattr(before, name) for name in kept})
        return self._with_pending(transaction, counted)

    def _with_pending(self, transaction: Transaction, row: BacklogRow) -> BacklogRow:
        """The same with what is pending counted anew, where it is time, and the server lets it take its time."""
        if time.monotonic() < self._pending_not_before:
            return row
        at, took = row.pending_counted_at, row.pending_took
        if at is not None and took is not None and row.counted_at - at < self._pause(took):
            return row
        began = time.perf_counter()
        # Whoever was quick needs no savepoint: should it be refused all the same, so is all of the count.
        is_quick = took is not None and took < self._longest.total_seconds() / 4
        try:
            with nullcontext() if is_quick else transaction.all_or_nothing():
                pending = self._stores.backlog.count_pending(transaction)
        except Exception as error:
            if is_quick or not is_refusal(error):
                raise
            self._pending_not_before = time.monotonic() + self._rest()
            return row
        took = time.perf_counter() - began
        return replace(row, pending=pending, pending_counted_at=row.counted_at, pending_took=took)

    def _rest(self) -> float:
        """After a count that was refused, in seconds."""
        return REST * self._longest.total_seconds()

    def _keep(self, looked: _Look, counted: BacklogRow) -> None:
        """Keep the count, and what follows from it, unless somebody was faster: then that one has told.

        Told before the commit: whoever dies in between leaves an alert that is told twice, not one that nobody hears.
        """
        watch = _watch_of(looked.before)
        seen = Backlog(counted.counted_at, counted.due, looked.oldest_due)
        after, turn = watch.after(seen, self._limits)
        row = replace(counted, lowest_due=after.lowest_due, lowest_at=after.lowest_at, alerted_at=after.raised_at)
        database = self._stores.database
        with database.one_statement() if turn is None else database.transaction() as transaction:
            if self._stores.backlog.replace(transaction, looked.before, row) and turn is not None:
                lasted = None if watch.raised_at is None else seen.at - watch.raised_at
                tell_backlog(is_raised=turn == Turn.RAISED, due=seen.due, oldest_due=seen.oldest_due, lasted=lasted)


def _watch_of(row: BacklogRow | None) -> BacklogWatch:
    return (
        BacklogWatch() if row is None else BacklogWatch(row.counted_at, row.lowest_due, row.lowest_at, row.alerted_at)
    )


def _figures(row: BacklogRow, looked: _Look) -> BacklogFigures:
    pending_at = row.pending_counted_at
    return BacklogFigures(
        due=row.due,
        claimed=row.claimed,
        errors=row.errors,
        counts_age=_age(looked.real - row.counted_at),
        oldest_due=looked.oldest_due.total_seconds(),
        pending=row.pending,
        pending_age=None if pending_at is None else _age(looked.real - pending_at),
    )


def _age(span: timedelta) -> float:
    return max(span.total_seconds(), 0.0)
