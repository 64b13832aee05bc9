import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command
from tests.support.scheduling import execute


def test_upgrade_makes_the_schema_and_may_be_run_again(bare: Command, empty_database_url: str) -> None:
    first = bare("db", "upgrade", "--database-url", empty_database_url)
    again = bare("db", "upgrade", "--database-url", empty_database_url)
    current = bare("db", "current", "--json", "--database-url", empty_database_url)

    assert (first.code, first.err) == (0, "")
    assert first.out == again.out == f"the schema is at version {current.document['needed']}\n"
    assert (current.code, current.document["is_current"]) == (0, True)


def test_current_fails_where_the_schema_is_missing(bare: Command, empty_database_url: str) -> None:
    answer = bare("db", "current", "--database-url", empty_database_url)

    assert answer.code == 1
    assert "none (run `timeout-scheduler db upgrade`)" in answer.out


def test_upgrade_works_in_a_schema_of_its_own(bare: Command, empty_postgresql_url: str) -> None:
    answer = bare("--database-url", empty_postgresql_url, "--schema", "outreach", "db", "upgrade")

    assert answer.code == 0, answer.err
    with psycopg.connect(empty_postgresql_url.replace("+psycopg", "")) as connection:
        found = connection.execute("SELECT to_regclass('outreach.scheduled_actions') IS NOT NULL").fetchone()
    assert found == (True,)


def test_upgrade_refuses_foreign_tables_of_the_same_name(bare: Command, empty_database_url: str) -> None:
    if empty_database_url.startswith("sqlite"):
        with sqlite3.connect(empty_database_url.removeprefix("sqlite:///")) as file:
            file.execute("CREATE TABLE contacts (id int)")
        file.close()
    else:
        with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE contacts (id int)")

    answer = bare("db", "upgrade", "--database-url", empty_database_url)

    assert answer.code == 2
    assert "it already has foreign tables contacts" in answer.err


def test_sql_prints_the_schema_without_a_database(bare: Command, folder: Path) -> None:
    answer = bare("--database-url", "postgresql://nobody@127.0.0.1:1/nowhere", "db", "sql")

    assert answer.code == 0, answer.err
    assert "CREATE TABLE scheduled_actions" in answer.out
    assert "timestamptz" in answer.out
    assert [file.name for file in folder.iterdir()] == ["plan.json"]


def test_sql_for_sqlite_is_runnable_as_it_is(bare: Command, empty_sqlite_url: str, tmp_path: Path) -> None:
    answer = bare("--database-url", empty_sqlite_url, "db", "sql")

    with sqlite3.connect(tmp_path / "reviewed.sqlite") as file:
        file.executescript(answer.out)
    file.close()
    current = bare("--database-url", f"sqlite:///{tmp_path / 'reviewed.sqlite'}", "db", "current", "--json")
    assert current.document["is_current"] is True


def test_sql_of_what_is_pending_is_what_an_upgrade_would_run(bare: Command, empty_postgresql_url: str) -> None:
    where = ("--database-url", empty_postgresql_url)
    assert "CREATE TABLE scheduled_actions" in bare("db", "sql", "--pending", *where).out
    bare("db", "upgrade", *where)
    assert bare("db", "sql", "--pending", *where).out == ""
    with closing(TimeoutScheduler(empty_postgresql_url)) as scheduler:
        execute(scheduler, "UPDATE timeout_scheduler_version SET version_num = '0004'")

    pending = bare("db", "sql", "--pending", *where).out

    assert "ADD COLUMN oldest_program" in pending
    assert "CREATE TABLE scheduled_actions" not in pending


@pytest.mark.parametrize("word", ["roles", "rls"])
def test_the_sql_of_rights_is_for_the_schema_and_the_names_that_were_chosen(bare: Command, word: str) -> None:
    plain = bare("db", word)
    chosen = bare("--schema", "it's", "db", word, "--prefix", "outreach")

    assert [(answer.code, answer.err) for answer in (plain, chosen)] == [(0, ""), (0, "")]
    assert "timeout_scheduler_daemon" in plain.out
    assert "'public'" in plain.out
    assert "outreach_daemon" in chosen.out
    assert "'it''s'" in chosen.out
    assert [name for name in ("timeout_scheduler_daemon", "'public'", '"public"') if name in chosen.out] == []


@pytest.mark.parametrize("word", ["roles", "rls"])
def test_the_sql_of_rights_needs_names_for_roles_and_postgresql(bare: Command, word: str) -> None:
    named = bare("db", word, "--prefix", "Out reach")
    on_sqlite = bare("--database-url", "sqlite:////tmp/x.db", "db", word)

    assert (named.code, named.out) == (on_sqlite.code, on_sqlite.out) == (2, "")
    assert "--prefix: 'Out reach' is not usable: give up to 41 small letters" in named.err
    assert "roles are PostgreSQL's" in on_sqlite.err
