"""What has to be done now and then, by one process at a time: claims that nobody works on, rows that nobody needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Final

from scheduler.service.owner import Owner
from scheduler.service.process_mark import is_provably_dead
from scheduler.service.retention import Retention
from scheduler.settings import Settings
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.store.turns import take_turn
from scheduler.telemetry.log import emit

_SHORTEST_SILENCE: Final = timedelta(hours=1)
# A living one is noted once per lease.
_LEASES_OF_SILENCE: Final = 3
_TIDIED_EVERY_SECONDS: Final = 60.0
_ROUND_EVERY_SECONDS: Final = 600.0


class Maintenance:
    """Recovers claims, and removes what is too old. For one thread."""

    def __init__(
        self, stores: Stores, owner: Owner, settings: Settings, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._settings = settings
        self._silent_for = max(_SHORTEST_SILENCE, _LEASES_OF_SILENCE * settings.lease)
        self._stores = stores
        self._owner = owner
        self._next_tidying = -math.inf

    @cached_property
    def _retention(self) -> Retention:
        """Made when it is first needed: a process that only schedules never does."""
        return Retention(self._stores, self._settings)

    def recover(self, *, sends: bool = True) -> int:
        """Claims are due again whose lease is over, or whose process is gone; returns how many.

        A process that said goodbye, or whose session ended, may still be at work. Its timeouts are due again all the
        same, since their effect is fenced; a send may be half done, and waits for its lease, unless the process is
        provably dead. Without `sends`, those whose lease is over wait as well.
        """
        with self._stores.database.one_statement(writing=False) as transaction:
            if not self._stores.claims.are_there_others(transaction, self._owner.id):
                return 0
        recovered = self._in_turn(lambda transaction: self._release_expired(transaction, sends=sends))
        recovered += self._in_turn(self._release_of_gone)
        if recovered:
            emit("claims.recovered", count=recovered)
        return recovered

    def _in_turn(self, work: Callable[[Transaction], int]) -> int:
        """A transaction of its own for each: one that isn't allowed to the role keeps the other from nothing."""
        with self._stores.database.transaction() as transaction:
            return work(transaction) if take_turn(transaction, "recovery") else 0

    def _release_expired(self, transaction: Transaction, *, sends: bool) -> int:
        return self._stores.claims.release_expired(transaction, self._owner.id, sends=sends)

    def _release_of_gone(self, transaction: Transaction) -> int:
        holders = [
            one
            for one in self._stores.instances.select(transaction, with_claims=True)
            if one.instance_id != self._owner.id
        ]
        dead = [one.instance_id for one in holders if is_provably_dead(one.process_mark)]
        gone = [one.instance_id for one in holders if one.is_cut_off or one.stopped_at is not None]
        claims = self._stores.claims
        return claims.release_of(transaction, dead) + claims.release_of(transaction, gone, sends=False)

    def tidy(self) -> None:
        """Remove some of what is older than RETENTION, and of instances long gone.

        A piece a minute, and with every call while there is more; once everything was looked at, ten minutes later.
        """
        now = self._seconds()
        if now < self._next_tidying:
            return
        self._next_tidying = now + _TIDIED_EVERY_SECONDS
        with self._stores.database.transaction() as transaction:
            self._stores.instances.forget(transaction, self._silent_for)
        removed = self._retention.remove_some()
        if removed:
            self._next_tidying = now
            emit("retention.removed", rows=removed)
        elif self._retention.end_round():
            self._next_tidying = now + _ROUND_EVERY_SECONDS
