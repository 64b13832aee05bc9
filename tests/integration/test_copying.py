"""An installation moves between SQLite and PostgreSQL: all of it or nothing, and nothing fires twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler import DatabaseUnavailableError, InvalidInputError, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.service.copying import InstallationCopy
from scheduler.store.copying import NAMES
from scheduler.testing import SettableClock
from tests.integration.cli.conftest import Command, bare, folder
from tests.integration.conftest import OpenScheduler
from tests.migration.filling import NOON, fill
from tests.migration.test_earlier_schemas import is_used
from tests.support.scheduling import LONG_AGO, execute, make_jobs, make_settings, query

__all__ = ["bare", "folder"]

WAYS = pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
Told = Callable[[str, int], None]


def said(_name: str, _count: int) -> None:
    """Nobody watches."""


def rows(scheduler: TimeoutScheduler, table: str) -> list[Any]:
    defined = scheduler.database.tables.metadata.tables[table]
    with scheduler.database.reading() as transaction:
        found = transaction.connection.execute(defined.select().order_by(*defined.primary_key.columns))
        return [dict(row) for row in found.mappings()]


@pytest.fixture
def pair(request: pytest.FixtureRequest, open_scheduler: OpenScheduler, source: str, target: str) -> Any:
    """Two installations: one that was used, and one that wasn't."""
    used, new = (str(request.getfixturevalue(f"{name}_url")) for name in (source, target))
    fill(used)
    return tuple(open_scheduler(url, clock=SettableClock(NOON), send_handler="log") for url in (used, new))


@WAYS
def test_everything_is_there_and_goes_on_where_it_was(pair: tuple[TimeoutScheduler, TimeoutScheduler]) -> None:
    old, new = pair
    preview = InstallationCopy(old.stores, new.stores).preview()
    assert all(not rows(new, name) for name in NAMES), "a look changes nothing"
    before = {name: rows(old, name) for name in NAMES}
    seen: list[str] = []

    copied = InstallationCopy(old.stores, new.stores).run("ada", lambda name, _: seen.append(name), piece=2)

    assert copied.rows == preview.rows == {name: len(found) for name, found in before.items()}
    assert seen.count("scheduled_actions") > 2, "piece by piece"
    for name in set(NAMES) - {"operator_actions"}:
        assert rows(new, name) == before[name], name
    noted = [one for one in rows(new, "operator_actions") if one["act"] == "installation.copied"]
    expected = ("ada", len(before["contacts"]))
    assert [(one["actor"], json.loads(one["details"])["contacts"]) for one in noted] == [expected]
    is_used(new, new.database.clock)  # type: ignore[arg-type]
    assert old.run_due() == 0, "the old one is paused as a whole"
    widest = old.campaigns.pauses()[0]
    assert (widest.scope, widest.reason) == ("all", "copied to another database")


@WAYS
def test_claims_of_processes_are_due_again_and_those_of_applications_stay(
    pair: tuple[TimeoutScheduler, TimeoutScheduler],
) -> None:
    old, new = pair
    old.schedule_many(make_jobs(2, scheduled_at=LONG_AGO))
    owners = ["host:1:abcdef", "external:0123456789abcdef"]
    with old.database.transaction() as transaction:
        for owner in owners:
            assert old.stores.claims.claim(transaction, ActionType.TIMEOUT, 1, owner, timedelta(minutes=10))

    InstallationCopy(old.stores, new.stores).run(None, said)

    claimed = "claim_number > 0 AND status IN ('claimed', 'pending')"
    found = query(new, f"SELECT status, claimed_by, claim_number FROM scheduled_actions WHERE {claimed} ORDER BY 1")  # noqa: S608
    assert [tuple(row) for row in found] == [("claimed", owners[1], 1), ("pending", None, 1)]


@WAYS
def test_a_copy_that_is_cut_short_has_changed_nothing_and_is_made_again(
    pair: tuple[TimeoutScheduler, TimeoutScheduler],
) -> None:
    old, new = pair

    def fail(name: str, _count: int) -> None:
        if name == "campaign_transitions":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InstallationCopy(old.stores, new.stores).run(None, fail)

    assert all(not rows(new, name) for name in NAMES)
    assert not any(one.scope == "all" for one in old.campaigns.pauses())
    InstallationCopy(old.stores, new.stores).run(None, said, pauses_source=False)
    assert not any(one.scope == "all" for one in old.campaigns.pauses())
    with pytest.raises(InvalidInputError, match=r"TO: 'rows in .*' is not usable: give an empty database"):
        InstallationCopy(old.stores, new.stores).run(None, said)


def test_a_source_that_is_fired_or_written_to_is_refused(
    postgresql_url: str, sqlite_url: str, open_scheduler: OpenScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = open_scheduler(postgresql_url), open_scheduler(sqlite_url)
    work = InstallationCopy(old.stores, new.stores)
    monkeypatch.setattr("scheduler.store.copying._PATIENCE", timedelta(milliseconds=50))
    with old.database.transaction() as writer:
        old.stores.pauses.begin(writer, "all", ("", ""))
        with pytest.raises(DatabaseUnavailableError):
            work.run(None, said)
    with old.database.transaction() as transaction:
        old.stores.instances.note_alive(transaction, "host:1:a", "host", 1, None, None)
    for call in (work.preview, lambda: work.run(None, said)):
        with pytest.raises(InvalidInputError, match="FROM: 'fired by host' is not usable"):
            call()

    execute(old, "UPDATE timeout_scheduler_instances SET stopped_at = now()")
    assert work.run(None, said).rows["pauses"] == 1


def test_the_command_copies_and_says_what(
    bare: Command, sqlite_url: str, empty_postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    fill(sqlite_url)
    words = ("db", "copy", sqlite_url, empty_postgresql_url)
    dry = bare(*words, "--dry-run")
    assert (dry.code, dry.out.splitlines()[-1]) == (0, "nothing was copied: this was a dry run")
    with open_scheduler(sqlite_url):
        busy = bare(*words)
    assert (busy.code, "already fires the timeouts" in busy.err) == (1, True)

    answer = bare(*words, "--json", "--actor", "ada")

    assert (answer.code, answer.document["is_source_paused"]) == (0, True)
    assert answer.document["rows"]["campaign_plans"] == 2
    assert "never start a daemon on it again" not in answer.out
    again = bare(*words)
    assert (again.code, "TO: 'rows in campaign_plans" in again.err) == (2, True)


def test_what_cant_be_copied_is_refused(
    bare: Command, sqlite_url: str, empty_sqlite_url: str, empty_postgresql_url: str, tmp_path: Path
) -> None:
    missing = f"sqlite:///{tmp_path / 'missing.db'}"
    cases = [
        ((missing, sqlite_url), "FROM: '"),
        ((sqlite_url, "mysql://x"), "TO: 'mysql' is not usable"),
        (("nonsense", sqlite_url), "FROM: '(not shown)' is not usable"),
        (
            (empty_postgresql_url, sqlite_url),
            "FROM: 'schema missing' is not usable: run `timeout-scheduler db upgrade`",
        ),
        ((sqlite_url, sqlite_url), "TO: 'the same database' is not usable"),
    ]
    for words, message in cases:
        answer = bare("db", "copy", *words)
        assert (answer.code, answer.out) == (2, ""), words
        assert message in answer.err
    assert not (tmp_path / "missing.db").exists()
    assert make_settings().database_url is None
    assert not Path(empty_sqlite_url.removeprefix("sqlite:///")).exists()
