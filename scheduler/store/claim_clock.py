"""The clocks of a claim: the given one, or the database's, decides what is due; leases run on real time alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, bindparam, func

from scheduler.store.database import Transaction
from scheduler.store.tables import Instant, Layout


class ClaimClock:
    """Instants inside statements, with the parameters they need. Real time is the database's own, where it has one."""

    def __init__(self, layout: Layout) -> None:
        self._is_postgresql = layout.is_postgresql

    def due(self) -> Any:
        """The present as it decides what is due; needs `due_parameters`."""
        given = bindparam("now", type_=Instant)
        if self._is_postgresql:
            return func.coalesce(given, func.statement_timestamp(), type_=Instant)
        return given

    def due_parameters(self, transaction: Transaction) -> dict[str, Any]:
        """What `due` needs."""
        clock = transaction.database.clock
        if clock is None:
            return {"now": None if self._is_postgresql else transaction.database.real_clock.now()}
        return {"now": clock.now()}

    def real(self) -> Any:
        """The present as leases see it; needs `real_parameters`."""
        return func.statement_timestamp() if self._is_postgresql else bindparam("real", type_=Instant)

    def real_parameters(self, transaction: Transaction) -> dict[str, Any]:
        """What `real` needs."""
        return {} if self._is_postgresql else {"real": transaction.database.real_clock.now()}

    def lease_end(self) -> Any:
        """When a lease that begins now is over; needs `lease_parameters`."""
        if self._is_postgresql:
            return func.statement_timestamp() + bindparam("lease", type_=Interval)
        return bindparam("lease_end", type_=Instant)

    def lease_parameters(self, transaction: Transaction, lease: timedelta) -> dict[str, Any]:
        """What `lease_end` needs."""
        if self._is_postgresql:
            return {"lease": lease}
        return {"lease_end": transaction.database.real_clock.now() + lease}
