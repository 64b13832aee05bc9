"""What goes on beside the loop: leases are extended, the process is seen to live, claims of the dead are recovered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Protocol

from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.database_watch import DatabaseWatch
from scheduler.runtime.lookout import Lookout
from scheduler.runtime.maintenance import Maintenance
from scheduler.runtime.own_claims import OwnClaims
from scheduler.runtime.ticker import Ticker
from scheduler.runtime.wakeup import Wakeup
from scheduler.service.counting import Counting
from scheduler.service.owner import Owner
from scheduler.service.progress_notes import ProgressNotes
from scheduler.settings import Settings
from scheduler.store.stores import Stores
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.sentry import report_unexpected

_RENEWALS_PER_LEASE: Final = 6
_RECOVERIES_PER_LEASE: Final = 4
# Each says once per lease that it lives.
_LEASES_OF_SILENCE: Final = 2
_LONGEST_INTERVAL: Final = 5.0
_SHORTEST_INTERVAL: Final = 1.0
# How old a look may be that upkeep trusts. It adds to the time until a dead process's claims are found.
_FRESH_SECONDS: Final = 2.0


class Kept(Protocol):
    """What is kept in order."""

    def wakeup(self) -> None:
        """There may be something to claim."""

    def record_rest(self) -> None:
        """Record what is known of sends and couldn't be recorded before. Raises DatabaseUnavailableError."""


class Keeping:
    """Threads that keep a firing process in order. Nothing here claims or fires."""

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        owner: Owner,
        claims: OwnClaims,
        watch: DatabaseWatch,
        lookout: Lookout,
        kept: Kept,
        metrics: Metrics,
    ) -> None:
        self._stores = stores
        self._owner = owner
        self._claims = claims
        self._watch = watch
        self._lookout = lookout
        self._kept = kept
        self._lease = settings.lease.total_seconds()
        self._noted: tuple[float, int | None] | None = None
        self._next_recovery = 0.0
        self._renewed_after = 0
        self._recovered_after = 0
        self._sends_not_before = 0.0
        self._maintenance = Maintenance(stores, owner, settings)
        self._counting = Counting(stores, settings, metrics)
        self._progress = ProgressNotes(stores, owner, metrics)
        self._renewal = Ticker("outreach:renewal", self._lease / _RENEWALS_PER_LEASE, self._renew)
        interval = min(self._lease / _RECOVERIES_PER_LEASE, _LONGEST_INTERVAL)
        self._fresh = timedelta(seconds=min(interval, _FRESH_SECONDS))
        self._upkeep = Ticker("outreach:upkeep", interval, self._keep_up, at_once=True)
        self._wakeup = Wakeup(stores.database, watch, kept.wakeup, self._upkeep.nudge)

    def start(self) -> None:
        """Keep a process that fires in the background in order, until `stop`."""
        self._noted = None
        self._share_rates()
        self._give_time_to_renew()
        self._renewal.start()
        self._upkeep.start()
        self._wakeup.start()

    def stop(self, patience: float) -> None:
        """No more of it. A thread that hangs in the database is waited for some seconds, and then left alone."""
        for part in (self._wakeup, self._upkeep, self._renewal):
            part.stop(patience)

    @contextmanager
    def renewal(self) -> Iterator[None]:
        """Leases are extended during the block."""
        self._renewal.start()
        try:
            yield
        finally:
            self._renewal.stop()

    def recover(self) -> None:
        """What nobody works on is due again, that of this process too; called again at once, it looks at nothing.

        Raises DatabaseUnavailableError.
        """
        now = time.monotonic()
        if self._claims.is_in_doubt or now >= self._next_recovery:
            self._claims.reconcile()
            self._maintenance.recover()
            self._share_rates()
            self._next_recovery = now + min(self._lease / _RECOVERIES_PER_LEASE, _SHORTEST_INTERVAL)

    def forget_parent(self) -> None:
        """In a forked child: the threads are the parent's."""
        for part in (self._renewal, self._upkeep, self._wakeup):
            part.forget_parent()

    def _renew(self) -> None:
        """After an outage at once: while the database was away, nobody could renew anything."""
        recoveries = self._watch.recoveries
        self._guarded(lambda: self._claims.renew(at_once=recoveries != self._renewed_after))
        self._renewed_after = recoveries

    def _keep_up(self) -> None:
        others = (self._share_rates, self._recover_others, self._count, self._progress.note, self._maintenance.tidy)
        for task in (self._note_alive, self._kept.record_rest, *others):
            self._guarded(task)

    def _share_rates(self) -> None:
        """Every process that fires on the same database takes an equal share. On SQLite there is one."""
        database = self._stores.database
        if not self._claims.is_paced or not database.is_postgresql:
            return
        with database.reading() as transaction:
            silent_for = timedelta(seconds=_LEASES_OF_SILENCE * self._lease)
            others = self._stores.instances.count_others(transaction, self._owner.id, silent_for)
        self._claims.share_rates(others + 1)

    def _recover_others(self) -> None:
        if not self._watch.is_up:
            return
        if self._watch.recoveries != self._recovered_after:
            self._recovered_after = self._watch.recoveries
            self._give_time_to_renew()
        if not self._lookout.glance(self._fresh).is_anything_claimed:
            return
        if self._maintenance.recover(sends=time.monotonic() >= self._sends_not_before):
            self._kept.wakeup()

    def _count(self) -> None:
        """Where the database is away, nothing is known of it."""
        if self._watch.is_up:
            self._counting.look(self._lookout.glance(self._fresh), lambda: self._lookout.look().outlook)

    def _give_time_to_renew(self) -> None:
        """After an outage, which a process that has just begun can't know of, others first renew what they work on.

        A mail may be going out all the time. Two turns of everybody's renewal; timeouts need none of it.
        """
        self._sends_not_before = time.monotonic() + 2 * self._lease / _RENEWALS_PER_LEASE

    def _note_alive(self) -> None:
        """Once per lease, and whenever the session that holds the presence is another one."""
        now, presence = time.monotonic(), self._wakeup.presence
        if self._noted is not None and self._noted[1] == presence and now - self._noted[0] < self._lease:
            return
        owner = self._owner
        with self._stores.database.one_statement() as transaction:
            self._stores.instances.note_alive(
                transaction, owner.id, owner.instance_name, owner.process_id, owner.process_mark, presence
            )
        self._noted = (now, presence)

    def _guarded(self, work: Callable[[], object]) -> None:
        """A thread that keeps order goes on whatever happens."""
        try:
            work()
        except DatabaseUnavailableError as error:
            self._watch.noticed(error)
        except Exception as error:  # noqa: BLE001 - the guard
            report_unexpected("maintenance.error", error)
