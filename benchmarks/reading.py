"""Looking at a database while and after somebody works on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import psycopg

# How long ago what a contender did was committed: `track_commit_timestamp` lets everybody be timed by the same clock,
# to the microsecond, and without asking while the race is on.
COMMITTED: Final = "pg_xact_commit_timestamp(moved.xmin)"

_IS_DUE: Final = (
    "SELECT EXISTS (SELECT 1 FROM scheduled_actions WHERE status = 'pending' AND action_type = 'timeout' "
    "AND run_at <= {now}) OR EXISTS (SELECT 1 FROM scheduled_actions WHERE status = 'claimed')"
)
MOVED: Final = "SELECT count(*) FROM campaign_transitions WHERE node_visit = 1"


class WrongEffectsError(Exception):
    """The database isn't as it must be after the run."""


class Reader:
    """One connection that reads, each statement by itself."""

    def __init__(self, url: str) -> None:
        self.is_postgresql = not url.startswith("sqlite")
        self._connection: Any
        if self.is_postgresql:
            self._connection = psycopg.connect(url, autocommit=True)
        else:
            self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        given = [parameters] if parameters else []
        found: list[tuple[Any, ...]] = self._connection.execute(statement, *given).fetchall()
        return found

    def run(self, statement: str) -> None:
        """What has no rows."""
        self._connection.execute(statement)

    def value(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the only row."""
        return self.rows(statement, parameters)[0][0]

    def is_drained(self) -> bool:
        """Whether nothing is due any more, nor claimed. Reads two index entries, so that it may be asked often."""
        now = "now()" if self.is_postgresql else "strftime('%Y-%m-%d %H:%M:%f', 'now')"
        return not self.value(_IS_DUE.format(now=now))

    def moved(self) -> int:
        """How many campaigns moved on."""
        return int(self.value(MOVED))

    def now(self) -> datetime:
        """The server's clock."""
        instant: datetime = self.value("SELECT clock_timestamp()")
        return instant

    def seconds_until_moved(self, began: datetime) -> tuple[float, float]:
        """From `began` to the commits of the first and the last campaign that moved (PostgreSQL)."""
        first, last = self.rows(
            f"SELECT min({COMMITTED}), max({COMMITTED}) FROM campaign_transitions AS moved WHERE node_visit = 1"  # noqa: S608 - a constant
        )[0]
        return (first - began).total_seconds(), (last - began).total_seconds()

    def close(self) -> None:
        """The connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def verify_fired(reader: Reader, due: int, total: int) -> None:
    """Of `total` campaigns exactly the `due` ones moved, exactly once, with everything that belongs to it."""
    expected = {
        "SELECT count(*) FROM contact_campaigns": total,
        "SELECT count(*) FROM contact_campaigns WHERE current_node_id = 'second' AND node_visit = 2": due,
        "SELECT count(*) FROM contact_campaigns WHERE current_node_id = 'first' AND node_visit = 1": total - due,
        "SELECT count(*) FROM campaign_transitions": total + due,
        "SELECT count(*) FROM campaign_transitions WHERE node_visit = 1 AND trigger = 'no_open'": due,
        "SELECT count(*) FROM campaign_transitions WHERE node_visit = 1 AND tenant_id LIKE 'later-%'": 0,
        "SELECT count(*) FROM scheduled_actions": 2 * total + due,
        "SELECT count(*) FROM scheduled_actions WHERE status = 'completed' AND outcome = 'transitioned' "
        "AND event_type = 'no_open' AND node_visit = 1": due,
        "SELECT count(*) FROM scheduled_actions WHERE status = 'canceled' AND event_type = 'no_click'": due,
        "SELECT count(*) FROM scheduled_actions WHERE status = 'pending' AND node_visit = 2": due,
        "SELECT count(*) FROM scheduled_actions WHERE status = 'pending' AND node_visit = 1": 2 * (total - due),
    }
    require(reader, expected)


def require(reader: Reader, expected: dict[str, int]) -> None:
    """Raises WrongEffectsError with every count that differs."""
    found = {statement: int(reader.value(statement)) for statement in expected}
    faults = [f"{found[one]} instead of {expected[one]}: {one}" for one in expected if found[one] != expected[one]]
    if faults:
        raise WrongEffectsError("; ".join(faults))
