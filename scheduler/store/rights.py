"""Who may do what on PostgreSQL: the SQL that says so, and the question whether it was said.

The rights themselves stand in sql/roles.sql; a test proves that `DAEMON` agrees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from sqlalchemy import ARRAY, Column, Text, bindparam, case, column, func, literal_column, not_, select

from scheduler.domain.errors import InvalidInputError, MissingRightError
from scheduler.store.database import Database, Transaction
from scheduler.store.errors import REMEDY_OF_RIGHTS

ROLES: Final = ("owner", "daemon", "application", "reader")
PREFIX: Final = "timeout_scheduler"

_PREFIX_PATTERN: Final = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_ROLE_NAME: Final = re.compile(rf"\b{PREFIX}_({'|'.join(ROLES)})\b")

_READ: Final = ("SELECT",)
# What a daemon needs to fire, send and tidy. To lock a row takes UPDATE of any column.
DAEMON: Final[Mapping[str, tuple[str, ...]]] = {
    "timeout_scheduler_version": _READ,
    "timeout_scheduler_installation": _READ,
    "timeout_scheduler_instances": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "timeout_scheduler_backlog": ("SELECT", "INSERT", "UPDATE"),
    "campaign_plans": _READ,
    "contacts": ("SELECT", "INSERT", "UPDATE"),
    "contact_campaigns": ("SELECT", "UPDATE", "DELETE"),
    "scheduled_actions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "campaign_transitions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "campaign_events": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "pauses": ("SELECT", "UPDATE", "DELETE"),
    "operator_actions": _READ,
}


def roles_sql(schema: str | None, prefix: str = PREFIX) -> str:
    """The SQL that makes the four roles and gives them their rights, in that schema (None: public)."""
    return _filled_in("roles.sql", schema, prefix)


def row_level_security_sql(schema: str | None, prefix: str = PREFIX) -> str:
    """The SQL that lets the application see the rows of one tenant only."""
    return _filled_in("row_level_security.sql", schema, prefix)


def require_rights_of_daemon(database: Database) -> None:
    """Raises MissingRightError unless the role may do all that a daemon does; else action after action would fail."""
    with database.unchecked(writing=False) as transaction:
        missing = missing_rights_of_daemon(transaction)
    if missing:
        raise MissingRightError(f"the role lacks {', '.join(missing)}; {REMEDY_OF_RIGHTS}")


def missing_rights_of_daemon(transaction: Transaction) -> list[str]:
    """What a daemon needs and the role of this transaction lacks, such as `UPDATE on pauses`."""
    database = transaction.database
    if not database.is_postgresql:
        return []
    schema = "" if database.schema is None else _quoted(database.schema, '"') + "."
    wanted = [(table, f"{schema}{table}", right) for table, rights in DAEMON.items() for right in rights]
    parameters = dict(zip(("tables", "relations", "rights"), map(list, zip(*wanted, strict=True)), strict=True))
    return [f"{right} on {table}" for table, right in transaction.connection.execute(_missing(), parameters)]


def may_read(transaction: Transaction, wanted: Column[Any]) -> bool:
    """Whether the role of this transaction may read a column."""
    if not transaction.database.is_postgresql:
        return True
    relation = transaction.database.engine.dialect.identifier_preparer.format_table(wanted.table)
    question = select(func.has_column_privilege(relation, wanted.name, literal_column("'SELECT'", Text)))
    return bool(transaction.connection.execute(question).scalar_one())


def _missing() -> Any:
    texts = ARRAY(Text)
    given = func.unnest(*(bindparam(name, type_=texts) for name in ("tables", "relations", "rights")))
    one = given.table_valued(*(column(name, Text) for name in ("name", "relation", "privilege"))).render_derived()
    held = case(
        (
            one.c.privilege == literal_column("'DELETE'", Text),
            func.has_table_privilege(one.c.relation, one.c.privilege),
        ),
        else_=func.has_any_column_privilege(one.c.relation, one.c.privilege),
    )
    return select(one.c.name, one.c.privilege).where(not_(held))


def _filled_in(name: str, schema: str | None, prefix: str) -> str:
    if not _PREFIX_PATTERN.fullmatch(prefix):
        raise InvalidInputError("prefix", prefix, "give up to 41 small letters, digits and _, no digit first")
    chosen = schema or "public"
    text = (files("scheduler") / "_sql" / name).read_text("utf-8")
    text = _ROLE_NAME.sub(rf"{prefix}_\1", text)
    return text.replace('"public"', _quoted(chosen, '"')).replace("'public'", _quoted(chosen, "'"))


def _quoted(name: str, quote: str) -> str:
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"
