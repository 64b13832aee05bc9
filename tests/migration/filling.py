"""Fills a database through the API of whatever version of the package is imported, and dumps it as SQL.

Before a migration is added, `python -m tests.migration.filling sqlite sqlite:///new.db`, and the same with
`postgresql`, the URL of an empty database and the path of `pg_dump`, print the dumps of the version before it, as JSON.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
DUMPS: Final = Path(__file__).parent / "dumps"
PLAN: Final[dict[str, Any]] = {
    "version": "1.0",
    "name": "Kept",
    "startNodeId": "wait_open",
    "nodes": [
        {
            "id": "wait_open",
            "action": "wait",
            "transitions": [{"on": "opened", "to": "stop"}, {"on": "no_open", "to": "reminder", "after": "PT72H"}],
        },
        {
            "id": "reminder",
            "action": "send",
            "subject": "Hello",
            "transitions": [{"on": "opened", "to": "stop"}, {"on": "no_open", "to": "stop", "after": "PT24H"}],
        },
    ],
}


class StoppedClock:
    """A clock that is set by hand; every version takes any object with `now()`."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def now(self) -> datetime:
        """The instant it was set to."""
        return self.instant


def fill(url: str) -> None:
    """Campaigns in every state, and timeouts without one. Made four days ago; NOON is the present."""
    from scheduler import TimeoutJob, TimeoutScheduler  # noqa: PLC0415 - of whatever version

    clock = StoppedClock(NOON - timedelta(days=4))
    with closing(TimeoutScheduler(url, clock=clock)) as scheduler:
        scheduler.migrate()
        campaigns = scheduler.campaigns
        campaigns.enroll("acme", "reminded", "k-1", PLAN, contact={"address": "ada@example.com"})
        campaigns.enroll("acme", "opened", "k-2", PLAN)
        campaigns.process_event("acme", "opened", campaign_id="opened", event_id="e-1", message_id="m-0")
        clock.instant = NOON - timedelta(hours=3)
        scheduler.run_due()  # the timeout of `reminded`
        scheduler.run_due()  # and the mail it leads to
        clock.instant = NOON - timedelta(days=2)
        campaigns.enroll("acme", "waiting", "k-3", PLAN)
        campaigns.enroll("acme", "held", "k-4", PLAN)
        campaigns.enroll("other", "stopped", "k-5", PLAN)
        clock.instant = NOON - timedelta(hours=1)
        campaigns.pause("acme", "held")
        campaigns.stop("other", "stopped")
        for name in ("alone", "canceled"):
            job = TimeoutJob(
                tenant_id="acme", campaign_id=name, contact_id="k-6", node_id="n", event_type="no_open",
                scheduled_at=NOON - timedelta(minutes=1),
            )  # fmt: skip
            scheduler.schedule(job)
        scheduler.cancel("acme:canceled:n:1:timeout:no_open", "by hand")


def dump_sqlite(url: str) -> str:
    """The whole file."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def dump_postgresql(url: str, pg_dump: str) -> str:
    """The whole database, without what depends on the server's version."""
    options = ("--inserts", "--no-owner", "--no-privileges", "--no-comments", "--schema=public")
    libpq = url.replace("postgresql+psycopg://", "postgresql://")
    found = subprocess.run([pg_dump, *options, libpq], check=True, capture_output=True, text=True).stdout
    lines = [line for line in found.splitlines() if not line.startswith(("--", "SET ", "\\", "SELECT pg_catalog"))]
    kept = [line for line in lines if line.strip() and line != "CREATE SCHEMA public;"]
    return "\n".join(kept) + "\n"


def main() -> None:
    """Print what was dumped as JSON: for programs of other versions, which write no files of ours."""
    backend, url, *rest = sys.argv[1:]
    fill(url)
    dumped = dump_sqlite(url) if backend == "sqlite" else dump_postgresql(url, rest[0])
    sys.stdout.write(json.dumps(dumped))


if __name__ == "__main__":
    main()
