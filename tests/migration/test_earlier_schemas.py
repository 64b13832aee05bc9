"""Databases of every earlier version, as its own program left them, are upgraded to the newest and used."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from scheduler import TimeoutJob, TimeoutScheduler
from scheduler.store.version import SCRIPTS
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.integration.test_schema import describe
from tests.migration.filling import DUMPS, NOON, PLAN
from tests.support.scheduling import query

DUMP_FILES = sorted(DUMPS.glob("*.sql"))
TABLES = ("contacts", "contact_campaigns", "scheduled_actions", "campaign_transitions", "campaign_events", "pauses")


def load(dump: Path, url: str) -> None:
    """Make the database that the dump is of."""
    script = dump.read_text("utf-8")
    if dump.stem.endswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(script)
    else:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as server:
            server.execute(script.encode())


@pytest.fixture(params=DUMP_FILES, ids=lambda dump: dump.stem)
def earlier_url(request: pytest.FixtureRequest) -> str:
    """A database of an earlier version, with what its program wrote."""
    dump: Path = request.param
    url = str(request.getfixturevalue(f"empty_{dump.stem.partition('_')[2]}_url"))
    load(dump, url)
    return url


def test_every_earlier_version_is_kept() -> None:
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    _newest, *earlier = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]

    kept = {dump.stem for dump in DUMP_FILES}

    # tests/migration/filling.py says how what is missing is made.
    assert {f"{version}_{backend}" for version in earlier for backend in ("postgresql", "sqlite")} <= kept


def test_an_earlier_database_is_upgraded_and_used(
    earlier_url: str, open_scheduler: OpenScheduler, request: pytest.FixtureRequest
) -> None:
    clock = SettableClock(NOON)
    scheduler = open_scheduler(earlier_url, clock=clock, send_handler="log")
    before = counts(scheduler)

    scheduler.migrate()

    assert before == counts(scheduler)
    assert shape(request.getfixturevalue(f"{scheduler.database.dialect_name}_url")) == shape(earlier_url)
    is_used(scheduler, clock)


def counts(scheduler: TimeoutScheduler) -> dict[str, int]:
    return {table: query(scheduler, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608


def shape(url: str) -> object:
    engine = create_engine(url)
    with engine.connect() as connection:
        described = describe(connection)
    engine.dispose()
    return described


def is_used(scheduler: TimeoutScheduler, clock: SettableClock) -> None:
    campaigns = scheduler.campaigns
    assert campaigns.process_event("acme", "opened", campaign_id="opened", event_id="e-1").outcome == "duplicate"
    again = TimeoutJob(
        tenant_id="acme", campaign_id="canceled", contact_id="k-6", node_id="n", event_type="no_open", scheduled_at=NOON
    )  # fmt: skip
    scheduler.schedule(again)
    campaigns.enroll("acme", "waiting", "k-3", PLAN)
    campaigns.enroll("acme", "new", "k-7", PLAN)

    assert scheduler.run_due() == 1, "the timeout without a campaign"
    clock.advance("P1D")
    scheduler.run_due()
    assert stands(scheduler) == {
        "reminded": ("completed", 3),
        "opened": ("completed", 2),
        "waiting": ("active", 2),
        "held": ("paused", 1),
        "new": ("active", 1),
    }
    campaigns.resume("acme", "held", policy="keep")
    for _ in range(5):
        clock.advance("P1D")
        scheduler.run_due()
    assert Counter(stands(scheduler).values()) == {("completed", 3): 4, ("completed", 2): 1}
    rows = query(scheduler, "SELECT status FROM scheduled_actions WHERE campaign_id IN ('alone', 'canceled')")
    assert sorted(row[0] for row in rows) == ["canceled", "completed"]


def stands(scheduler: TimeoutScheduler) -> dict[str, tuple[str, int]]:
    rows = query(scheduler, "SELECT campaign_id, status, node_visit FROM contact_campaigns WHERE tenant_id = 'acme'")
    return {name: (status, visit) for name, status, visit in rows}
