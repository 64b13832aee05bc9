"""What sql/roles.sql gives each role is what it needs, and no more; and what is said to those who may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from scheduler import CampaignStateManager, MissingRightError, SendRequest, SendResult, TimeoutScheduler
from scheduler.service.retention import Retention
from scheduler.store.rights import (
    DAEMON,
    ROLES,
    require_rights_of_daemon,
)
from scheduler.store.tables import Tables
from scheduler.store.version import VERSION_TABLE
from tests.integration.cli.conftest import Answer
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.roles import MAIL_PLAN, NOT_THE_APPLICATIONS, RoledDatabase, calls_of, error_of, roled_database
from tests.support.scheduling import LONG_AGO, WAIT_PLAN, make_job, make_jobs

CAMPAIGNS: Final = ("walked", "mailed", "complained", "suppressed", "held")
READING: Final = (
    ("status",),
    ("db", "current"),
    ("actions", "list"),
    ("actions", "show", "acme:t-1:intro:1:timeout:no_open"),
    ("campaigns", "show", "--tenant", "acme", "--campaign", "c-0"),
    ("campaigns", "history", "--tenant", "acme", "--campaign", "c-0"),
    ("campaigns", "explain", "--tenant", "acme", "--campaign", "c-0"),
    ("campaigns", "stuck"),
    ("campaigns", "pauses"),
)


@pytest.fixture(scope="module", params=[None, 'out "reach"'], ids=["public", "a schema of its own"])
def roled(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[RoledDatabase]:
    """A database with roles; its rows are those of all tests."""
    with roled_database(postgres_server, request.param) as database:
        yield database


@pytest.fixture(scope="module")
def plain(postgres_server: PostgresServer) -> Iterator[RoledDatabase]:
    """The same, where the schema makes no difference."""
    with roled_database(postgres_server) as database:
        yield database


def test_the_application_may_make_every_call(roled: RoledDatabase) -> None:
    with roled.opened("application") as timeouts:
        calls = calls_of(timeouts, "acme")
        assert {*calls} - {"find_campaign"} == methods(TimeoutScheduler, CampaignStateManager) - NOT_THE_APPLICATIONS
        refused = {name: str(error) for name, call in calls.items() if (error := error_of(call)) is not None}

    assert refused == {}


def methods(*classes: type) -> set[str]:
    found = (item for one in classes for item in vars(one).items())
    return {name for name, method in found if not name.startswith("_") and callable(method)}


def test_the_daemon_fires_sends_and_tidies(roled: RoledDatabase, caplog: pytest.LogCaptureFixture) -> None:
    """What goes on beside the loop logs what it may not do, and goes on: nothing may be logged."""
    jobs = make_jobs(3, tenant_id="fired")
    with roled.opened("application") as timeouts:
        timeouts.schedule_many(jobs)
        manager = timeouts.campaigns
        manager.enroll("fired", "walked", "k-1", WAIT_PLAN, start_at=LONG_AGO)
        for name in ("mailed", "complained", "suppressed", "held"):
            manager.enroll("fired", name, name, MAIL_PLAN, contact={"address": f"{name}@example.com"})
        manager.process_event("fired", "opened", "id-of-mailed")  # before its mail is known
        manager.process_event("fired", "spamreport", "id-of-complained")
        manager.suppress("fired", "suppressed", "asked by phone")
        manager.pause("fired", "held")
    with roled.opened("daemon", send_handler=send_as_id) as daemon:
        require_rights_of_daemon(daemon.database)
        daemon.migrate()
        daemon.start()
        eventually(lambda: count_of(roled, "timeout_scheduler_backlog"))
        eventually(lambda: not daemon.list_actions(tenant_id="fired", statuses=["pending", "claimed"]))
        daemon.shutdown()
        daemon.run_due()
    with roled.opened("daemon", retention=timedelta(microseconds=1)) as daemon:
        while Retention(daemon.stores, daemon.settings).remove_some():
            pass

        found = {name: daemon.campaigns.find("fired", name) for name in CAMPAIGNS}
        assert [name for name, campaign in found.items() if campaign is not None] == ["held"]
        assert {action.campaign_id for action in daemon.list_actions(tenant_id="fired")} == {"held"}

    said = [one.getMessage() for one in caplog.records]
    assert [one for one in said if "error" in one] == []


def send_as_id(request: SendRequest) -> SendResult:
    return SendResult(f"id-of-{request.campaign_id}")


def count_of(roled: RoledDatabase, table: str) -> int:
    with roled.connect("reader") as connection:
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def test_the_reader_may_run_every_command_that_reads(roled: RoledDatabase, bare: Callable[..., Answer]) -> None:
    with roled.opened("application") as timeouts:
        timeouts.schedule(make_job(campaign_id="t-1"))
        timeouts.campaigns.enroll("acme", "c-0", "k-0", WAIT_PLAN)
    options = ["--json", "--database-url", roled.url("reader"), *schema_option(roled)]

    answers = {words: bare(*words, *options) for words in READING}

    assert {words: answer.err for words, answer in answers.items() if (answer.code, answer.err) != (0, "")} == {}


def schema_option(roled: RoledDatabase) -> list[str]:
    return [] if roled.schema is None else ["--schema", roled.schema]


def test_check_names_what_a_role_lacks_for_the_daemon(plain: RoledDatabase, bare: Callable[..., Answer]) -> None:
    answers = {role: bare("check", "--database-url", plain.url(role)).out for role in ("daemon", "reader")}

    assert "rights: the role lacks INSERT on timeout_scheduler_instances" in answers["reader"]
    assert "the role lacks" not in answers["daemon"]


def test_the_reader_changes_nothing_and_is_told_so(plain: RoledDatabase, bare: Callable[..., Answer]) -> None:
    with plain.opened("reader") as timeouts, pytest.raises(MissingRightError) as refused:
        timeouts.schedule(make_job(campaign_id="t-9"))
    answer = bare("--database-url", plain.url("reader"), "actions", "cancel", "acme:t-1:intro:1:timeout:no_open")

    assert "permission denied for table scheduled_actions" in str(refused.value)
    assert "`timeout-scheduler db roles`" in str(refused.value)
    assert (answer.code, answer.out) == (1, "")
    assert "permission denied for table" in answer.err


@pytest.mark.parametrize("role", ["daemon", "application", "reader"])
def test_only_the_owner_changes_the_schema(role: str, postgres_server: PostgresServer) -> None:
    with roled_database(postgres_server) as database:
        with database.connect("owner") as owner:
            owner.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")  # noqa: S608 - of our own
        with database.opened(role) as timeouts, pytest.raises(MissingRightError, match="its owner alone"):
            timeouts.migrate()


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("daemon", "UPDATE campaign_transitions SET trigger = 'x'"),
        ("daemon", "UPDATE campaign_plans SET plan = '{}'"),
        ("daemon", "TRUNCATE scheduled_actions"),
        ("daemon", "UPDATE timeout_scheduler_version SET version_num = 'x'"),
        ("application", "DELETE FROM scheduled_actions"),
        ("application", "DELETE FROM contact_campaigns"),
        ("application", "UPDATE campaign_transitions SET trigger = 'x'"),
        ("application", "DELETE FROM operator_actions"),
        ("application", "UPDATE operator_actions SET actor = 'x'"),
        ("application", "UPDATE timeout_scheduler_instances SET presence = 0"),
        ("application", "CREATE TABLE mine (id int)"),
        ("daemon", "CREATE TABLE mine (id int)"),
        ("reader", "DELETE FROM pauses"),
        ("reader", "SELECT address FROM contacts"),
        ("reader", "SELECT variables FROM contacts"),
    ],
)
def test_what_a_role_needs_not_do_it_may_not_do(plain: RoledDatabase, role: str, statement: str) -> None:
    if statement.startswith("CREATE") and plain.server_version < 150_000:
        pytest.skip("before PostgreSQL 15 everybody may make tables in public")
    with plain.connect(role) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


def test_every_table_has_rights_and_those_of_the_daemon_are_what_it_asks_for(plain: RoledDatabase) -> None:
    given = rights_of(plain, "daemon")
    tables = {table.name for table in Tables().metadata.tables.values()} | {VERSION_TABLE}

    assert {table: sorted(rights) for table, rights in DAEMON.items()} == given
    assert given.keys() == tables == rights_of(plain, "application").keys()


def rights_of(roled: RoledDatabase, role: str) -> dict[str, list[str]]:
    """What stands in the catalog: table by table."""
    found: dict[str, list[str]] = {}
    with roled.connect(role) as connection:
        rows = connection.execute(
            "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
            " WHERE grantee = current_user AND table_schema = current_schema UNION"
            " SELECT table_name, privilege_type FROM information_schema.role_column_grants"
            " WHERE grantee = current_user AND table_schema = current_schema ORDER BY 1, 2"
        ).fetchall()
    for table, right in rows:
        found.setdefault(table, []).append(right)
    return found


def test_the_reader_sees_every_column_that_isnt_personal(plain: RoledDatabase) -> None:
    hidden = {"contacts": {"address", "variables"}}
    with plain.connect("reader") as connection:
        for table in Tables().metadata.tables.values():
            columns = [column.name for column in table.columns if column.name not in hidden.get(table.name, ())]
            statement = sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table.name)
            )
            connection.execute(statement)


def test_a_table_to_come_works_at_once_and_as_narrowly_as_can_be_after_the_next_run(plain: RoledDatabase) -> None:
    with plain.connect("owner") as owner:
        owner.execute("CREATE TABLE to_come (id int)")
        try:
            owner_given = {role: rights_of(plain, role).get("to_come", []) for role in ROLES[1:]}
        finally:
            owner.execute("DROP TABLE to_come")

    assert owner_given == {
        "daemon": ["DELETE", "INSERT", "SELECT", "UPDATE"],
        "application": ["INSERT", "SELECT", "UPDATE"],
        "reader": [],
    }


def test_a_daemon_that_lacks_a_right_says_which_before_it_fires(postgres_server: PostgresServer) -> None:
    with roled_database(postgres_server) as database:
        with database.connect("owner") as owner:
            owner.execute(f"REVOKE UPDATE ON contact_campaigns FROM {database.prefix}_daemon")
        with database.opened("daemon") as daemon, pytest.raises(MissingRightError) as refused:
            require_rights_of_daemon(daemon.database)

    assert "the role lacks UPDATE on contact_campaigns;" in str(refused.value)


def test_a_database_that_was_one_roles_alone_gets_its_roles_later(
    postgres_server: PostgresServer, postgresql_url: str
) -> None:
    """Its tables change hands, while it is used."""
    name = postgresql_url.rpartition("/")[2]
    database = RoledDatabase(postgres_server, name, None, "later")
    try:
        database.grant()
        with database.connect("owner") as connection:
            owners = connection.execute(
                "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
        with database.opened("application") as timeouts:
            timeouts.schedule(make_job())
        with database.opened("daemon") as daemon:
            assert daemon.run_due() == 1
    finally:
        database.run("; ".join(f"DROP OWNED BY later_{role} CASCADE; DROP ROLE later_{role}" for role in ROLES))

    assert owners == [("later_owner",)]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., Answer]:
    """The command line, in an empty folder."""
    from typer.testing import CliRunner  # noqa: PLC0415

    from scheduler.cli.app import app  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Answer:
        result = CliRunner().invoke(app, list(words))
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run
