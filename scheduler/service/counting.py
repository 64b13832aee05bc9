"""How much is waiting in the whole database: counted by one process at a time, shown by each, and judged once.

A count costs what there is to count. So the next one comes no sooner than twenty times what the last one took: counting
takes at most a twentieth of one session's time, however much is waiting, and gets older instead of dearer. How long
the oldest has been due each process sees for itself, in the looks at the table that it makes anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from scheduler.store.outlook import Outlook
from scheduler.store.stores import Stores
from scheduler.store.turns import take_turn
from scheduler.telemetry.alerts import tell_backlog
from scheduler.telemetry.backlog_gauges import BacklogFigures
from scheduler.telemetry.metrics import Metrics

SHORTEST_INTERVAL: Final = timedelta(seconds=10)
REST: Final = 20
# How much less often it is counted while nothing is due, and while the same is to come as at the last count, too.
_CALM: Final = 3
_UNCHANGED: Final = 6
# A count that takes longer is given up: it would hold back the vacuum of the busiest table.
_LONGEST_COUNT: Final = timedelta(seconds=30)

Instants = Sequence[Sequence[datetime]]


@dataclass(frozen=True, slots=True)
class _Sight:
    """The present in real time, what was counted last, for how long the oldest has been due, what is due next."""

    real: datetime
    before: BacklogRow | None
    oldest_due: timedelta
    to_come: Instants
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
        self._known: BacklogRow | None = None
        self._to_come_then: Instants = ()
        self._not_before = 0.0
        self._pending_not_before = 0.0

    def look(self, outlook: Outlook, look: Callable[[], Outlook]) -> None:
        """Take what was counted, or count, and tell the metrics. Raises DatabaseUnavailableError.

        `look` makes a new outlook, if it seems to be time to count: others may have counted since, and what was due may
        be fired.
        """
        seen = self._see(outlook)
        if self._is_time(seen):
            seen = self._see(look())
        if self._is_time(seen):
            try:
                seen = self._count_in_turn(seen)
            except DatabaseUnavailableError as error:
                if not is_refusal(error.__cause__):
                    raise
                self._not_before = time.monotonic() + self._rest()
        if seen.counted is not None:
            self._keep(seen, seen.counted)
        row = seen.counted or seen.before
        if row is not None:
            self._metrics.backlog(_figures(row, seen))

    def _see(self, outlook: Outlook) -> _Sight:
        """What somebody counted is read once, and again when it was counted anew."""
        to_come = [outlook.all_of(kind) for kind in ActionType]
        known_at = None if self._known is None else self._known.counted_at
        if outlook.counted_at != known_at:
            with self._stores.database.one_statement(writing=False) as transaction:
                self._known, self._to_come_then = self._stores.backlog.read(transaction), to_come
        first = min((instants[0] for instants in to_come if instants), default=outlook.now)
        return _Sight(outlook.real, self._known, max(outlook.now - first, timedelta(0)), to_come)

    def _count_in_turn(self, seen: _Sight) -> _Sight:
        """One process at a time counts, for as long as its transaction lasts; any other shows the last count."""
        with self._stores.database.reading() as transaction:
            if not take_turn(transaction, "counting"):
                return seen
            self._stores.backlog.limit(transaction, self._longest)
            return replace(seen, counted=self._count(transaction, seen.real, seen.before))

    def _is_time(self, seen: _Sight) -> bool:
        """Less often while nothing is due, and less still while nothing changes: an idle process hardly shows.

        Not while there is an alert, whose end is to be told.
        """
        if time.monotonic() < self._not_before:
            return False
        before = seen.before
        if before is None:
            return True
        pauses = 1
        if not (before.due or before.claimed or before.alerted_at or seen.oldest_due):
            pauses = _UNCHANGED if seen.to_come == self._to_come_then else _CALM
        return seen.real - before.counted_at >= self._pause(before.took) * pauses

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

    def _keep(self, seen: _Sight, counted: BacklogRow) -> None:
        """Keep the count, and what follows from it, unless somebody was faster: then that one has told.

        Told before the commit: whoever dies in between leaves an alert that is told twice, not one that nobody hears.
        """
        watch = _watch_of(seen.before)
        after, turn = watch.after(Backlog(counted.counted_at, counted.due, seen.oldest_due), self._limits)
        row = replace(counted, lowest_due=after.lowest_due, lowest_at=after.lowest_at, alerted_at=after.raised_at)
        database = self._stores.database
        with database.one_statement() if turn is None else database.transaction() as transaction:
            is_kept = self._stores.backlog.replace(transaction, seen.before, row)
            if is_kept and turn is not None:
                lasted = None if watch.raised_at is None else row.counted_at - watch.raised_at
                tell_backlog(is_raised=turn == Turn.RAISED, due=row.due, oldest_due=seen.oldest_due, lasted=lasted)
        if is_kept:
            self._known, self._to_come_then = row, seen.to_come


def _watch_of(row: BacklogRow | None) -> BacklogWatch:
    return (
        BacklogWatch() if row is None else BacklogWatch(row.counted_at, row.lowest_due, row.lowest_at, row.alerted_at)
    )


def _figures(row: BacklogRow, seen: _Sight) -> BacklogFigures:
    pending_at = row.pending_counted_at
    return BacklogFigures(
        due=row.due,
        claimed=row.claimed,
        errors=row.errors,
        counts_age=_age(seen.real - row.counted_at),
        oldest_due=seen.oldest_due.total_seconds(),
        pending=row.pending,
        pending_age=None if pending_at is None else _age(seen.real - pending_at),
    )


def _age(span: timedelta) -> float:
    return max(span.total_seconds(), 0.0)
