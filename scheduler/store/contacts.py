"""`contacts`: address, time zone and variables of a contact, once per tenant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Text, and_, func, select, true
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.store.database import Database, Transaction
from scheduler.store.rows import RowSource

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Contact:
    """What is known of a contact; None where nothing is."""

    tenant_id: str
    contact_id: str
    address: str | None = None
    timezone: str | None = None
    variables: Mapping[str, Any] | None = None

    @property
    def key(self) -> Key:
        """The primary key."""
        return (self.tenant_id, self.contact_id)


_COLUMNS: Final = ("tenant_id", "contact_id", "address", "timezone", "variables", "created_at", "updated_at")


class Contacts:
    """Statements on contacts. Stateless, thread-safe."""

    def __init__(self, database: Database) -> None:
        self._table = database.tables.contacts
        name = database.dialect_name
        self._keys = RowSource(name, {"tenant_id": Text, "contact_id": Text})
        self._new = RowSource(name, {column: self._table.c[column].type for column in _COLUMNS})
        make: Any = postgresql.insert if database.is_postgresql else sqlite.insert
        statement = make(self._table).from_select(
            list(_COLUMNS), select(*(self._new.c[column] for column in _COLUMNS)).where(true())
        )
        kept = self._table.c
        self._upsert = statement.on_conflict_do_update(
            index_elements=[kept.tenant_id, kept.contact_id],
            set_={
                "address": func.coalesce(statement.excluded.address, kept.address),
                "timezone": func.coalesce(statement.excluded.timezone, kept.timezone),
                "variables": func.coalesce(statement.excluded.variables, kept.variables),
                "updated_at": statement.excluded.updated_at,
            },
        )

    def upsert(self, transaction: Transaction, contacts: Sequence[Contact]) -> None:
        """Store what was given; what was not given stays as it was. In key order, so that twins don't deadlock."""
        latest = {contact.key: contact for contact in contacts}
        now = transaction.now
        rows = [
            (*key, contact.address, contact.timezone, _to_json(contact.variables), now, now)
            for key, contact in sorted(latest.items())
        ]
        if rows:
            transaction.connection.execute(self._upsert, self._new.bind(rows))

    def read(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, Contact]:
        """Those of the contacts that are known."""
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        contacts = self._table.c
        statement = select(
            contacts.tenant_id, contacts.contact_id, contacts.address, contacts.timezone, contacts.variables
        ).join(
            self._keys.table,
            and_(contacts.tenant_id == self._keys.c.tenant_id, contacts.contact_id == self._keys.c.contact_id),
        )
        rows = transaction.connection.execute(statement, self._keys.bind(wanted))
        found = [Contact(*row[:4], None if row[4] is None else json.loads(row[4])) for row in rows]
        return {contact.key: contact for contact in found}


def _to_json(variables: Mapping[str, Any] | None) -> str | None:
    return None if variables is None else json.dumps(dict(variables), ensure_ascii=False)
