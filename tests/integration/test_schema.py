"""The schema: what the migrations make is what the tables say, beside whatever else lives in the database."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from scheduler import InvalidInputError, SchemaOutdatedError, TimeoutScheduler
from scheduler.store import schema
from scheduler.store.scripts import run_on
from scheduler.store.tables import Tables
from scheduler.store.version import VERSION_TABLE, newest_version
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import FAR_AHEAD, LONG_AGO, NOON, WAIT_PLAN, execute, make_job, make_settings, query

CHECKOUT = Path(__file__).parents[2]
BACKENDS = ("sqlite", "postgresql")

MIGRATE = """
import sys
from scheduler import TimeoutScheduler
scheduler = TimeoutScheduler(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
scheduler.migrate()
scheduler.close()
"""


def describe(connection: Connection, schema_name: str | None = None) -> dict[str, Any]:
    """All there is to say about our tables, constraints by name and definition."""
    inspector = inspect(connection)
    tables = set(inspector.get_table_names(schema=schema_name)) - {VERSION_TABLE}
    return {name: describe_table(inspector, name, schema_name) for name in tables}


def describe_table(inspector: Any, table: str, schema_name: str | None) -> dict[str, Any]:
    columns = inspector.get_columns(table, schema=schema_name)
    key = inspector.get_pk_constraint(table, schema=schema_name)
    checks = inspector.get_check_constraints(table, schema=schema_name)
    indexes = inspector.get_indexes(table, schema=schema_name)
    return {
        "columns": [(column["name"], str(column["type"]), column["nullable"], column["default"]) for column in columns],
        "primary key": (key["name"], key["constrained_columns"]),
        "checks": {check["name"]: normal(check["sqltext"]) for check in checks},
        "indexes": {index["name"]: (index["column_names"], index["unique"], predicate(index)) for index in indexes},
        "foreign keys": inspector.get_foreign_keys(table, schema=schema_name),
        "unique": inspector.get_unique_constraints(table, schema=schema_name),
    }


def predicate(index: dict[str, Any]) -> str:
    options = index.get("dialect_options", {})
    return normal(str(options.get("postgresql_where", options.get("sqlite_where", ""))))


def normal(definition: str) -> str:
    return re.sub(r"\s+", " ", definition).strip()


def drivers_url(url: str) -> str:
    return url.replace("+psycopg", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_migrations_and_table_definitions_agree(backend: str, request: pytest.FixtureRequest) -> None:
    migrated = create_engine(request.getfixturevalue(f"{backend}_url"))
    defined = create_engine(request.getfixturevalue(f"empty_{backend}_url"))
    metadata = Tables().metadata
    metadata.create_all(defined)

    with migrated.connect() as connection, defined.connect() as other:
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        expected, actual = describe(other), describe(connection)

    assert differences == []
    assert set(metadata.tables) == set(actual)
    for table, description in expected.items():
        assert description == actual[table], table
    migrated.dispose()
    defined.dispose()


def test_every_constraint_and_index_is_named_for_its_table(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        described = describe(connection)
    engine.dispose()

    for table, description in described.items():
        assert f"pk_{table}" == description["primary key"][0]
        assert all(str(name).startswith(f"ck_{table}_") for name in description["checks"])
        assert all(str(name).startswith(f"ix_{table}_") for name in description["indexes"])
        assert (description["primary key"][1][0] == "tenant_id") or table in (
            "operator_actions",
            "timeout_scheduler_backlog",
            "timeout_scheduler_installation",
            "timeout_scheduler_instances",
        )


def test_upgrading_again_changes_nothing(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.schedule(make_job())
    before = query(scheduler, "SELECT * FROM timeout_scheduler_installation")

    scheduler.migrate()

    assert before == query(scheduler, "SELECT * FROM timeout_scheduler_installation")
    assert newest_version() == schema.current_version(scheduler.database)
    assert scheduler.find(make_job().dedupe_key) is not None


def test_a_database_of_the_first_version_keeps_what_it_holds(
    empty_database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(empty_database_url)
    with scheduler.database.unchecked() as transaction:
        run_on(transaction.connection, scheduler.database, [], "0001")
    job = make_job()
    execute(
        scheduler,
        "INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at)"
        " VALUES (:tenant, :key, 'c-1', 'k-1', 'wait_open', 'no_open', '2026-03-02 12:00:00+00:00')",
        tenant=job.tenant_id,
        key=job.dedupe_key,
    )
    with pytest.raises(SchemaOutdatedError, match="is 0001, this version needs"):
        scheduler.find(job.dedupe_key)

    scheduler.migrate()

    assert scheduler.find(job.dedupe_key) is not None
    assert newest_version() == schema.current_version(scheduler.database)


def test_processes_that_upgrade_at_the_same_moment_all_succeed(empty_database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_database_url],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert errors == ["", "", ""]
    engine = create_engine(empty_database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM timeout_scheduler_installation")).scalar_one() == 1
    engine.dispose()


def test_schema_setting_keeps_our_tables_beside_those_of_the_host(
    empty_postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(empty_postgresql_url, settings=make_settings(schema_name="Out Reach"))
    execute(scheduler, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    execute(scheduler, "INSERT INTO alembic_version VALUES ('host')")
    execute(scheduler, "CREATE TABLE contacts (email text)")

    scheduler.migrate()
    scheduler.migrate()
    scheduler.schedule(make_job())

    assert scheduler.run_due() == 1
    with scheduler.database.engine.connect() as connection:
        inspector = inspect(connection)
        assert {"alembic_version", "contacts"} == set(inspector.get_table_names(schema="public"))
        ours = {*(table.name for table in Tables().metadata.tables.values()), VERSION_TABLE}
        assert ours == set(inspector.get_table_names(schema="Out Reach"))
    assert query(scheduler, "SELECT * FROM alembic_version") == [("host",)]


def test_two_installations_share_a_database_in_schemas_of_their_own(
    empty_postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    one = open_scheduler(empty_postgresql_url, settings=make_settings(schema_name="one"))
    other = open_scheduler(empty_postgresql_url, settings=make_settings(schema_name="other"))
    one.migrate()
    other.migrate()

    one.schedule(make_job())

    assert other.run_due() == 0
    assert one.run_due() == 1


@pytest.mark.parametrize("schema_name", [None, "outreach"])
def test_foreign_tables_of_the_same_name_are_refused_and_nothing_is_changed(
    empty_postgresql_url: str, open_scheduler: OpenScheduler, schema_name: str | None
) -> None:
    scheduler = open_scheduler(empty_postgresql_url, settings=make_settings(schema_name=schema_name))
    execute(scheduler, "CREATE SCHEMA IF NOT EXISTS outreach")
    execute(scheduler, f"CREATE TABLE {schema_name or 'public'}.contacts (email text)")
    everything = "SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace ORDER BY 1, 2"
    before = query(scheduler, everything)

    with pytest.raises(InvalidInputError, match="contacts") as refused:
        scheduler.migrate()

    assert refused.value.field == "SCHEMA"
    assert before == query(scheduler, everything)


def test_foreign_tables_are_refused_in_a_file_too(empty_sqlite_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(empty_sqlite_url)
    execute(scheduler, "CREATE TABLE pauses (since text)")

    with pytest.raises(InvalidInputError, match="pauses"):
        scheduler.migrate()

    assert query(scheduler, "SELECT name FROM sqlite_master") == [("pauses",)]


def test_a_schema_that_would_be_created_is_not_when_the_upgrade_fails(
    empty_postgresql_url: str, open_scheduler: OpenScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = open_scheduler(empty_postgresql_url, settings=make_settings(schema_name="outreach"))

    def fail(*_: Any) -> None:
        raise RuntimeError("the machine burns")

    monkeypatch.setattr("alembic.command.upgrade", fail)
    with pytest.raises(RuntimeError):
        scheduler.migrate()

    with scheduler.database.engine.connect() as connection:
        assert "outreach" not in inspect(connection).get_schema_names()


JOB_ID = make_job().dedupe_key
ENROLMENT = {"tenant_id": "acme", "campaign_id": "c-1", "contact_id": "k-1", "plan": WAIT_PLAN}
EVENT = {"tenant_id": "acme", "event_type": "opened", "campaign_id": "c-1"}
DOORS: dict[str, Callable[[TimeoutScheduler], object]] = {
    "schedule": lambda ts: ts.schedule(make_job()),
    "schedule_many": lambda ts: ts.schedule_many([make_job()]),
    "reschedule": lambda ts: ts.reschedule(JOB_ID, NOON),
    "cancel": lambda ts: ts.cancel(JOB_ID),
    "cancel_node": lambda ts: ts.cancel_node("acme", "c-1", "intro"),
    "cancel_campaign": lambda ts: ts.cancel_campaign("acme", "c-1"),
    "retry": lambda ts: ts.retry(JOB_ID),
    "find": lambda ts: ts.find(JOB_ID),
    "pending": lambda ts: ts.pending(),
    "run_due": lambda ts: ts.run_due(),
    "start": lambda ts: ts.start(),
    "with": lambda ts: ts.__enter__(),
    "enroll": lambda ts: ts.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN),
    "enroll_many": lambda ts: ts.campaigns.enroll_many([ENROLMENT]),
    "process_event": lambda ts: ts.campaigns.process_event("acme", "opened", campaign_id="c-1"),
    "process_events": lambda ts: ts.campaigns.process_events([EVENT]),
    "confirm_send": lambda ts: ts.campaigns.confirm_send("acme:c-1:intro:1:send:sent", NOON),
    "pause": lambda ts: ts.campaigns.pause("acme", "c-1"),
    "resume": lambda ts: ts.campaigns.resume("acme", "c-1"),
    "stop": lambda ts: ts.campaigns.stop("acme", "c-1"),
    "campaigns.find": lambda ts: ts.campaigns.find("acme", "c-1"),
    "history": lambda ts: ts.campaigns.history("acme", "c-1"),
    "apscheduler.start": lambda ts: ts.apscheduler.start(),
    "apscheduler.get_job": lambda ts: ts.apscheduler.get_job(JOB_ID),
    "apscheduler.get_jobs": lambda ts: ts.apscheduler.get_jobs(),
    "apscheduler.remove_job": lambda ts: ts.apscheduler.remove_job(JOB_ID),
    "apscheduler.pause_job": lambda ts: ts.apscheduler.pause_job(JOB_ID),
    "apscheduler.add_job": lambda ts: ts.apscheduler.add_job(
        ts.fire,
        "date",
        run_date=FAR_AHEAD,
        id=JOB_ID,
        kwargs={
            "tenant_id": "acme",
            "campaign_id": "c-1",
            "contact_id": "k-1",
            "node_id": "intro",
            "event_type": "no_open",
            "scheduled_at": FAR_AHEAD,
        },
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_missing_schema_is_told_at_every_door(
    empty_database_url: str, open_scheduler: OpenScheduler, door: str
) -> None:
    scheduler = open_scheduler(empty_database_url)

    with pytest.raises(SchemaOutdatedError, match="db upgrade"):
        DOORS[door](scheduler)

    assert not scheduler.apscheduler.running


@pytest.mark.parametrize("door", DOORS)
def test_an_outdated_schema_is_told_at_every_door_and_nothing_is_written(
    database_url: str, open_scheduler: OpenScheduler, door: str
) -> None:
    scheduler = open_scheduler(database_url)
    execute(scheduler, f"UPDATE {VERSION_TABLE} SET version_num = '0000'")  # noqa: S608

    with pytest.raises(SchemaOutdatedError, match=f"is 0000, this version needs {newest_version()}"):
        DOORS[door](scheduler)

    assert query(scheduler, "SELECT count(*) FROM scheduled_actions") == [(0,)]
    assert query(scheduler, "SELECT count(*) FROM contact_campaigns") == [(0,)]
    assert not scheduler.apscheduler.running


def test_a_scheduler_works_once_its_schema_was_made(empty_database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(empty_database_url)
    with pytest.raises(SchemaOutdatedError):
        scheduler.schedule(make_job())

    scheduler.migrate()

    assert make_job().dedupe_key == scheduler.schedule(make_job())


def test_a_table_that_vanished_is_told_with_the_servers_own_words(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.schedule(make_job())
    execute(scheduler, "DROP TABLE scheduled_actions")

    with pytest.raises(SchemaOutdatedError, match="scheduled_actions"):
        scheduler.find(make_job().dedupe_key)


@pytest.mark.parametrize("schema_name", [None, "Out Reach"])
def test_printed_sql_builds_the_schema_on_postgresql(
    empty_postgresql_url: str, open_scheduler: OpenScheduler, schema_name: str | None
) -> None:
    scheduler = open_scheduler(empty_postgresql_url, settings=make_settings(schema_name=schema_name))
    with psycopg.connect(drivers_url(empty_postgresql_url), autocommit=True) as connection:
        connection.execute(schema.upgrade_sql(scheduler.database).encode())

    assert newest_version() == schema.current_version(scheduler.database)
    scheduler.schedule(make_job())
    assert scheduler.run_due() == 1
    with scheduler.database.engine.connect() as own:
        assert {table.name for table in Tables().metadata.tables.values()} == set(describe(own, schema_name))


def test_printed_sql_builds_the_same_schema_as_the_upgrade(
    postgresql_url: str, empty_postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    by_hand = open_scheduler(empty_postgresql_url)
    with psycopg.connect(drivers_url(empty_postgresql_url), autocommit=True) as connection:
        connection.execute(schema.upgrade_sql(by_hand.database).encode())
    upgraded = open_scheduler(postgresql_url)

    with upgraded.database.engine.connect() as expected, by_hand.database.engine.connect() as actual:
        assert describe(expected) == describe(actual)


def test_printed_sql_builds_the_schema_in_a_file(empty_sqlite_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(empty_sqlite_url)
    with sqlite3.connect(str(scheduler.database.engine.url.database)) as connection:
        connection.executescript(schema.upgrade_sql(scheduler.database))
    connection.close()

    scheduler.schedule(make_job())
    assert scheduler.run_due() == 1


def test_nothing_is_connected_for_printing(open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler("postgresql://nobody@127.0.0.1:1/nowhere")

    assert "CREATE TABLE scheduled_actions" in schema.upgrade_sql(scheduler.database)


BAD_STATES = {
    "UPDATE scheduled_actions SET status = 'sleeping'": "ck_scheduled_actions_status_known",
    "UPDATE scheduled_actions SET action_type = 'call'": "ck_scheduled_actions_action_type_known",
    "UPDATE scheduled_actions SET node_visit = 0": "ck_scheduled_actions_node_visit_counts",
    "UPDATE scheduled_actions SET status = 'claimed'": "ck_scheduled_actions_claim_whole",
    "UPDATE scheduled_actions SET status = 'claimed', claimed_by = 'me'": "ck_scheduled_actions_claim_whole",
    "UPDATE scheduled_actions SET status = 'completed'": "ck_scheduled_actions_finish_dated",
    "UPDATE scheduled_actions SET status = 'canceled'": "ck_scheduled_actions_finish_dated",
    "UPDATE scheduled_actions SET status = 'error'": "ck_scheduled_actions_finish_dated",
    "UPDATE scheduled_actions SET finished_at = run_at": "ck_scheduled_actions_finish_dated",
    "UPDATE contact_campaigns SET status = 'asleep'": "ck_contact_campaigns_status_known",
    "UPDATE contact_campaigns SET node_visit = 0": "ck_contact_campaigns_node_visit_counts",
    "UPDATE campaign_transitions SET node_visit = -1": "ck_campaign_transitions_node_visit_counts",
    "UPDATE pauses SET scope = 'planet'": "ck_pauses_scope_known",
}


@pytest.mark.parametrize("statement", BAD_STATES)
def test_the_database_refuses_a_bad_state_by_name(
    database_url: str, open_scheduler: OpenScheduler, statement: str
) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN)
    scheduler.campaigns.pause("acme", "c-1")
    scheduler.campaigns.enroll("acme", "c-2", "k-1", WAIT_PLAN)

    with pytest.raises(IntegrityError, match=BAD_STATES[statement]):
        execute(scheduler, statement)


@pytest.mark.parametrize(
    ("table", "constraint"),
    [
        ("scheduled_actions", "pk_scheduled_actions"),
        ("campaign_transitions", "pk_campaign_transitions"),
        ("contact_campaigns", "pk_contact_campaigns"),
        ("campaign_events", "pk_campaign_events"),
        ("campaign_plans", "pk_campaign_plans"),
    ],
)
def test_the_database_refuses_a_second_row_of_the_same_key(
    database_url: str, open_scheduler: OpenScheduler, table: str, constraint: str
) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN)
    scheduler.campaigns.process_event("acme", "delivered", campaign_id="c-1", event_id="e-1", occurred_at=LONG_AGO)

    with pytest.raises(IntegrityError) as refused:
        execute(scheduler, f"INSERT INTO {table} SELECT * FROM {table}")  # noqa: S608

    is_sqlite = database_url.startswith("sqlite")  # which names the columns of a key, not its constraint
    assert (f"UNIQUE constraint failed: {table}.tenant_id" if is_sqlite else constraint) in str(refused.value)


def test_an_instant_that_is_none_is_refused_from_other_languages_too(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(sqlite_url)

    with pytest.raises(DBAPIError, match="run_at"):
        execute(
            scheduler,
            "INSERT INTO scheduled_actions"
            " (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at)"
            " VALUES ('acme', 'k', 'c', 'k', 'n', 'no_open', 'tomorrow')",
        )


def test_no_table_is_left_without_a_described_purpose(database_url: str) -> None:
    engine: Engine = create_engine(database_url)
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names())
    engine.dispose()

    script = "\n".join(path.read_text() for path in (CHECKOUT / "sql").rglob("*.sql"))
    commented = set(re.findall(r"(?:--[^\n]*\n)CREATE TABLE (\w+)", script))
    assert names - {VERSION_TABLE} == commented, json.dumps(sorted(names ^ commented))
