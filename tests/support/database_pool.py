"""Databases of a throw-away server that are lent to one test after the other: emptying one is cheaper than making one.

A database is lent again only when nothing tells it from one just made: its tables have the template's rows, and no page
more; its catalogs weren't touched, so there is no other table, index, trigger, setting or statistic; nobody is
connected to it. Any other is dropped.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg import sql

from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer

_FIRST_OF_USERS: Final = 16_384  # PostgreSQL's own objects have lower numbers

# What a statement that changes a definition, a right, a setting or a statistic leaves a trace in. A row that is written
# gets another xmin; what VACUUM and ANALYZE write in place is looked at by value.
_DEFINITIONS: Final = """
SELECT (SELECT (datconnlimit, datallowconn, datacl, datdba)::text FROM pg_database WHERE datname = current_database()),
    (SELECT string_agg(s::text, ' ') FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE datname = current_database()),
    (SELECT string_agg((oid, relname, reltuples > 0, relkind = 'r' AND reltuples = 0, relallvisible, relhasindex,
            relhastriggers, relhasrules, reloptions, relacl, relpersistence, relrowsecurity)::text, ' ' ORDER BY oid)
        FROM pg_class WHERE oid >= {first}),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_attribute WHERE attrelid >= {first}),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_constraint),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_index WHERE indexrelid >= {first}),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_namespace),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_trigger),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_proc WHERE oid >= {first}),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_type WHERE oid >= {first}),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_rewrite WHERE oid >= {first}),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_default_acl),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_extension),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_event_trigger),
    (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_statistic_ext),
    (SELECT count(*)::text FROM pg_statistic WHERE starelid >= {first}),
    (SELECT count(*)::text FROM pg_largeobject_metadata)
"""
# A table that ever had a row has pages, even if the row was never committed.
_WRITTEN: Final = """
SELECT relname FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
"""
_CONTENT: Final = "SELECT pg_relation_size({name}), array_agg(t::text ORDER BY t::text) FROM {table} t"
_OTHERS: Final = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class DatabasePool:
    """Copies of one template on one server. Not for use by several threads at once."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._free: list[str] = []
        self._made = 0
        server.create_database("image", template)
        with closing(self._connect("image")) as connection:
            self._definitions = _definitions(connection)
            self._kept = {table: _content(connection, table) for table in _written(connection)}
        server.drop_database("image")

    def take(self) -> str:
        """The name of a database that is like the template."""
        if self._free:
            return self._free.pop()
        self._made += 1
        name = f"test_{self._made}"
        self._server.create_database(name, self._template)
        return name

    def give_back(self, name: str) -> bool:
        """Take a database back; False when it can't be lent again, and is gone."""
        is_clean = self._clean(name)
        if is_clean:
            self._free.append(name)
        else:
            self._server.drop_database(name)
        return is_clean

    def is_as_made(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether only the rows of its tables tell a database from the template."""
        return _definitions(connection) == self._definitions and all(
            _content(connection, table) == content for table, content in self._kept.items()
        )

    def _clean(self, name: str) -> bool:
        """Empty it; False when something stays that an emptied database doesn't have."""
        try:
            connection = self._connect(name)
        except psycopg.OperationalError:  # closed to everybody
            return False
        with closing(connection):
            if _has_others(connection) or not self.is_as_made(connection):
                return False
            if written := [sql.Identifier(table) for table in _written(connection) if table not in self._kept]:
                connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(written)))
            return True

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self._server.url(name, driver="postgresql"), autocommit=True)


def _has_others(connection: psycopg.Connection[Any]) -> bool:
    """Whether somebody else is connected, and stays: who has hung up is gone in a moment."""
    try:
        eventually(lambda: not connection.execute(_OTHERS).fetchall(), timeout=0.5)
    except AssertionError:
        return True
    return False


def _definitions(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(sql.SQL(_DEFINITIONS).format(first=_FIRST_OF_USERS)).fetchall()


def _written(connection: psycopg.Connection[Any]) -> list[str]:
    return [table for (table,) in connection.execute(_WRITTEN)]


def _content(connection: psycopg.Connection[Any], table: str) -> list[Any]:
    return connection.execute(sql.SQL(_CONTENT).format(name=table, table=sql.Identifier(table))).fetchall()
