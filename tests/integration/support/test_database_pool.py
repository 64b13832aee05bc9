from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.support.database_pool import DatabasePool
from tests.support.postgres import PostgresServer

ROWS = (
    "INSERT INTO contacts (tenant_id, contact_id, variables, created_at, updated_at)"
    " SELECT 'acme', 'k-' || n, repeat('x', 3000), now(), now() FROM generate_series(1, 300) n"
)
COUNT = "SELECT count(*), pg_relation_size('contacts') FROM contacts"

# What a test may leave behind that emptying its tables doesn't undo; all of it can be rolled back.
CHANGES = {
    "table": "CREATE TABLE orders (number integer)",
    "other name": "ALTER TABLE contacts RENAME TO people",
    "missing table": "DROP TABLE contacts",
    "column": "ALTER TABLE contacts ADD COLUMN shoe_size integer",
    "default": "ALTER TABLE contacts ALTER COLUMN tenant_id SET DEFAULT 'acme'",
    "type": "ALTER TABLE contacts ALTER COLUMN address TYPE varchar(10)",
    "constraint": "ALTER TABLE contacts ADD CONSTRAINT named CHECK (tenant_id <> '')",
    "index": "CREATE INDEX another ON contacts (created_at)",
    "missing index": "DROP INDEX ix_scheduled_actions_due",
    "storage": "ALTER TABLE contacts SET (fillfactor = 50)",
    "schema": "CREATE SCHEMA app",
    "function": "CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "rule": "CREATE RULE silent AS ON DELETE TO contacts DO INSTEAD NOTHING",
    "sequence": "CREATE SEQUENCE numbers",
    "view": "CREATE VIEW people AS SELECT * FROM contacts",
    "right": "GRANT SELECT ON contacts TO PUBLIC",
    "right on a column": "GRANT SELECT (tenant_id) ON contacts TO PUBLIC",
    "right on a schema": "GRANT CREATE ON SCHEMA public TO pg_monitor",
    "right on the database": "REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
    "setting": "ALTER DATABASE {} SET statement_timeout = 1000",
    "read only": "ALTER DATABASE {} SET default_transaction_read_only = on",
    "limit": "ALTER DATABASE {} CONNECTION LIMIT 7",
    "another installation": "UPDATE timeout_scheduler_installation SET installation_id = gen_random_uuid()",
    "another version": "UPDATE timeout_scheduler_version SET version_num = '0001'",
    "no version": "DELETE FROM timeout_scheduler_version",
}


def run(server: PostgresServer, database: str, statements: str) -> list[Any]:
    """Each by itself; what the last one answers."""
    with closing(psycopg.connect(server.url(database, driver="postgresql"), autocommit=True)) as connection:
        *before, last = statements.split("; ")
        for statement in before:
            connection.execute(statement.encode())
        answer = connection.execute(last.encode())
        return answer.fetchall() if answer.description else []


def test_a_database_with_rows_is_emptied_and_lent_again(
    postgres_server: PostgresServer, database_pool: DatabasePool
) -> None:
    name = database_pool.take()
    run(postgres_server, name, ROWS)

    assert database_pool.give_back(name)

    assert database_pool.take() == name
    assert run(postgres_server, name, COUNT) == [(0, 0)]
    assert database_pool.give_back(name)


def test_rows_that_were_never_committed_leave_no_page(
    postgres_server: PostgresServer, database_pool: DatabasePool
) -> None:
    name = database_pool.take()
    run(postgres_server, name, f"BEGIN; {ROWS}; ROLLBACK")

    assert database_pool.give_back(name)

    assert run(postgres_server, name, COUNT) == [(0, 0)]


def test_a_database_somebody_is_connected_to_is_gone(
    postgres_server: PostgresServer, database_pool: DatabasePool
) -> None:
    name = database_pool.take()

    with psycopg.connect(postgres_server.url(name, driver="postgresql")) as connection:
        assert not database_pool.give_back(name)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    assert name not in databases(postgres_server)


@pytest.mark.parametrize("statements", [f"{ROWS}; ANALYZE", "ANALYZE contacts", "VACUUM contacts"], ids=str)
def test_a_database_the_planner_knows_something_of_is_gone(
    postgres_server: PostgresServer, database_pool: DatabasePool, statements: str
) -> None:
    name = database_pool.take()
    run(postgres_server, name, statements)

    assert not database_pool.give_back(name)

    assert name not in databases(postgres_server)


def test_a_database_closed_to_everybody_is_gone(postgres_server: PostgresServer, database_pool: DatabasePool) -> None:
    name = database_pool.take()
    run(postgres_server, "postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

    assert not database_pool.give_back(name)

    assert name not in databases(postgres_server)


@pytest.mark.parametrize("statement", [pytest.param(one, id=name) for name, one in CHANGES.items()])
def test_a_changed_database_is_recognized(
    postgres_server: PostgresServer, database_pool: DatabasePool, statement: str
) -> None:
    name = database_pool.take()
    with psycopg.connect(postgres_server.url(name, driver="postgresql")) as connection:
        assert database_pool.is_as_made(connection)

        connection.execute(statement.replace("{}", name).encode())

        assert not database_pool.is_as_made(connection)
        connection.rollback()
    assert database_pool.give_back(name)


def databases(server: PostgresServer) -> list[str]:
    return [name for (name,) in run(server, "postgres", "SELECT datname FROM pg_database")]
