"""While an upgrade is rolled out, programs of two versions share one schema: each timeout fires once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from scheduler import SchemaOutdatedError, TimeoutScheduler
from scheduler.store.version import VERSION_TABLE, newest_version
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import LONG_AGO, are_completed, execute, make_jobs, query

CHECKOUT: Final = Path(__file__).parents[2]

# Fires until its standard input ends. `migrate` only where it is told to.
PROGRAM: Final = """
import sys
from scheduler import Settings, TimeoutScheduler
url, instance, *words = sys.argv[1:]
scheduler = TimeoutScheduler(url, settings=Settings(instance_name=instance, poll_interval="PT0.1S"))
if "migrate" in words:
    scheduler.migrate()
scheduler.start()
print("started", flush=True)
sys.stdin.readline()
scheduler.close()
"""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The last commit of a version, by what its schema is; `starts_anew`: on the schema of the version after, too."""

    schema: str
    commit: str
    starts_anew: bool


EARLIER: Final = (
    Earlier("0004", "5158225473fd12ce667a2bd9e114657c1fb99e22", starts_anew=False),
    Earlier("0005", "b3f1d6c51744ffb55af064fbd1d329facbd2158d", starts_anew=True),
)


def program_of(version: Earlier, folder: Path) -> Path:
    """The package as it was, taken from the history; a clone that has none of it skips the test."""
    words = ["git", "-C", str(CHECKOUT), "archive", "--format=tar", version.commit, "scheduler", "sql", "config"]
    try:
        archive = subprocess.run(words, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"the history of this checkout has no commit {version.commit[:12]}: a shallow clone, or an sdist")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


@contextmanager
def fires(package: Path, url: str, *words: str) -> Iterator[None]:
    """A process that fires with that package."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, *words],
        cwd=package,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    is_started = process.stdout.readline() == "started\n"
    try:
        assert is_started, process.communicate(timeout=30)[1]
        yield
    finally:
        process.communicate("stop\n" if is_started else None, timeout=60)


def fire_some(scheduler: TimeoutScheduler, name: str) -> None:
    """Schedule, and see them fired."""
    jobs = make_jobs(30, scheduled_at=LONG_AGO, tenant_id=name)
    scheduler.schedule_many(jobs)
    eventually(are_completed(scheduler, jobs), timeout=30)


@pytest.mark.parametrize("earlier", EARLIER, ids=lambda one: one.schema)
def test_a_program_of_an_earlier_version_fires_on_the_schema_of_this_one(
    earlier: Earlier, empty_postgresql_url: str, open_scheduler: OpenScheduler, tmp_path: Path
) -> None:
    package = program_of(earlier, tmp_path)
    scheduler = open_scheduler(empty_postgresql_url)
    with fires(package, empty_postgresql_url, "running", "migrate"):
        assert query(scheduler, f"SELECT version_num FROM {VERSION_TABLE}") == [(earlier.schema,)]  # noqa: S608
        scheduler.migrate()
        fire_some(scheduler, "by-one-that-runs")

        with scheduler:
            fire_some(scheduler, "by-both")
        scheduler.shutdown()

    if earlier.starts_anew:
        with fires(package, empty_postgresql_url, "started-anew"):
            fire_some(scheduler, "by-one-started-anew")
    else:
        with pytest.raises(AssertionError, match="SchemaOutdatedError"), fires(package, empty_postgresql_url, "anew"):
            pass
    counts = query(scheduler, "SELECT count(*), sum(claim_number) FROM scheduled_actions WHERE status = 'completed'")
    assert counts == [(60 + 30 * earlier.starts_anew,) * 2], "each was claimed once"


def test_this_version_works_on_a_schema_that_is_ahead_and_lets_it(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    ahead(open_scheduler(database_url))
    scheduler = open_scheduler(database_url)

    scheduler.require_current_schema()
    scheduler.migrate()
    with scheduler:
        fire_some(scheduler, "acme")

    assert query(scheduler, f"SELECT version_num FROM {VERSION_TABLE}") == [("9999",)]  # noqa: S608


@pytest.mark.parametrize("oldest", ["'9998'", "NULL"])
def test_this_version_refuses_a_schema_that_is_too_far_ahead(
    database_url: str, open_scheduler: OpenScheduler, oldest: str
) -> None:
    ahead(open_scheduler(database_url), oldest)
    scheduler = open_scheduler(database_url)

    for call in (scheduler.require_current_schema, scheduler.migrate, scheduler.start):
        with pytest.raises(SchemaOutdatedError, match="is 9999, newer than this version knows"):
            call()


def ahead(scheduler: TimeoutScheduler, oldest_program: str | None = None) -> None:
    """Let the schema be a later one, expanded as UPGRADING.md allows."""
    oldest = oldest_program or f"'{newest_version()}'"
    execute(scheduler, "ALTER TABLE scheduled_actions ADD COLUMN colour text")
    execute(scheduler, "ALTER TABLE pauses ADD COLUMN until text DEFAULT 'then' NOT NULL")
    execute(scheduler, "CREATE TABLE of_a_later_version (name text)")
    execute(scheduler, f"UPDATE timeout_scheduler_installation SET oldest_program = {oldest}")  # noqa: S608
    execute(scheduler, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
