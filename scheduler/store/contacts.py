"""`contacts`: address, time zone and variables of a contact, once per tenant, and whether it may be approached."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Text, and_, func, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.store.database import Transaction
from scheduler.store.rows import RowSource, look_up
from scheduler.store.tables import Layout

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Contact:
    """What is known of a contact; None where nothing is."""

    tenant_id: str
    contact_id: str
    address: str | None = None
    timezone: str | None = None
    variables: Mapping[str, Any] | None = None
    suppressed_at: datetime | None = None
    suppressed_reason: str | None = None

    @property
    def key(self) -> Key:
        """The primary key."""
        return (self.tenant_id, self.contact_id)


_COLUMNS: Final = ("tenant_id", "contact_id", "address", "timezone", "variables", "created_at", "updated_at")
_READ: Final = (
    "tenant_id",
    "contact_id",
    "address",
    "timezone",
    "variables",
    "suppressed_at",
    "suppressed_reason",
)
_SUPPRESSED: Final = ("tenant_id", "contact_id", "suppressed_at", "suppressed_reason", "created_at", "updated_at")


class Contacts:
    """Statements on contacts. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.contacts
        name = layout.dialect_name
        self._keys = RowSource(name, {"tenant_id": Text, "contact_id": Text})
        self._new = RowSource(name, {column: self._table.c[column].type for column in _COLUMNS})
        self._given = RowSource(name, {column: self._table.c[column].type for column in _SUPPRESSED})
        self._make: Any = postgresql.insert if layout.is_postgresql else sqlite.insert
        self._upsert = self._upsert_statement()
        self._suppress = self._suppress_statement()

    def _upsert_statement(self) -> Any:
        """What a suppressed contact is known by stays as it is, and such a contact isn't returned."""
        statement = self._insert_of(_COLUMNS, self._new)
        kept, given = self._table.c, statement.excluded
        return statement.on_conflict_do_update(
            index_elements=[kept.tenant_id, kept.contact_id],
            set_={
                "address": func.coalesce(given.address, kept.address),
                "timezone": func.coalesce(given.timezone, kept.timezone),
                "variables": func.coalesce(given.variables, kept.variables),
                "updated_at": given.updated_at,
            },
            where=kept.suppressed_at.is_(None),
        ).returning(kept.tenant_id, kept.contact_id, kept.timezone)

    def _suppress_statement(self) -> Any:
        statement = self._insert_of(_SUPPRESSED, self._given)
        kept, given = self._table.c, statement.excluded
        return statement.on_conflict_do_update(
            index_elements=[kept.tenant_id, kept.contact_id],
            set_={name: given[name] for name in ("suppressed_at", "suppressed_reason", "updated_at")},
            where=kept.suppressed_at.is_(None),
        ).returning(kept.tenant_id, kept.contact_id)

    def _insert_of(self, columns: Sequence[str], rows: RowSource) -> Any:
        return self._make(self._table).from_select(
            list(columns), select(*(rows.c[column] for column in columns)).where(true())
        )

    def upsert(self, transaction: Transaction, contacts: Iterable[Contact]) -> dict[Key, str | None]:
        """Store what was given; what was not given stays as it was. Returns each one's zone, without the suppressed.

        In key order, so that twins don't deadlock. Lock: the contacts' rows until commit, those of suppressed ones too,
        so that a suppression is either seen here or sees what is enrolled.
        """
        latest = {contact.key: contact for contact in contacts}
        now = transaction.now
        rows = [
            (*key, contact.address, contact.timezone, _to_json(contact.variables), now, now)
            for key, contact in sorted(latest.items())
        ]
        if not rows:
            return {}
        stored = transaction.connection.execute(self._upsert, self._new.bind(rows))
        return {(tenant, contact): zone for tenant, contact, zone in stored}

    def suppress(self, transaction: Transaction, reasons: Mapping[Key, str]) -> set[Key]:
        """Have these contacts approached no more, also unknown ones; returns those that weren't suppressed before.

        Lock: the contacts' rows until commit; an enrolment at work on one is waited for.
        """
        if not reasons:
            return set()
        now = transaction.now
        rows = [(*key, now, reason, now, now) for key, reason in sorted(reasons.items())]
        return {(row[0], row[1]) for row in transaction.connection.execute(self._suppress, self._given.bind(rows))}

    def unsuppress(self, transaction: Transaction, key: Key) -> bool:
        """Let a contact be approached again; False when it wasn't suppressed."""
        values = {"suppressed_at": None, "suppressed_reason": None, "updated_at": transaction.now}
        statement = self._change_of(key).where(self._table.c.suppressed_at.is_not(None)).values(values)
        return transaction.connection.execute(statement).rowcount == 1

    def erase(self, transaction: Transaction, key: Key) -> bool:
        """Forget all personal data of a contact, and keep its id and its suppression; False when it is unknown."""
        values = {"address": None, "timezone": None, "variables": None, "updated_at": transaction.now}
        return transaction.connection.execute(self._change_of(key).values(values)).rowcount == 1

    def _change_of(self, key: Key) -> Any:
        return update(self._table).where(self._table.c.tenant_id == key[0], self._table.c.contact_id == key[1])

    def read(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, Contact]:
        """Those of the contacts that are known."""
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        contacts, given = self._table.c, self._keys.c
        of_key = and_(contacts.tenant_id == given.tenant_id, contacts.contact_id == given.contact_id)
        statement = look_up(self._keys, self._table, [contacts[column] for column in _READ], of_key)
        rows = transaction.connection.execute(statement, self._keys.bind(wanted))
        found = [_to_contact(*row) for row in rows]
        return {contact.key: contact for contact in found}


def _to_contact(
    tenant_id: str,
    contact_id: str,
    address: str | None,
    timezone: str | None,
    variables: str | None,
    suppressed_at: datetime | None,
    suppressed_reason: str | None,
) -> Contact:
    known = None if variables is None else json.loads(variables)
    return Contact(tenant_id, contact_id, address, timezone, known, suppressed_at, suppressed_reason)


def _to_json(variables: Mapping[str, Any] | None) -> str | None:
    return None if variables is None else json.dumps(dict(variables), ensure_ascii=False)
