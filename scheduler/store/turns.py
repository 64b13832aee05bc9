"""Work that one process at a time does, however many share the database."""

from __future__ import annotations

import hashlib

from sqlalchemy import BigInteger, bindparam, func, select

from scheduler.store.database import Transaction


def take_turn(transaction: Transaction, work: str) -> bool:
    """Whether nobody else is doing this work; until commit it is ours alone. On SQLite one process fires anyway.

    Never waits. Lock: an advisory one, of the transaction: it works behind a pooler, and can't outlive its holder.
    """
    if not transaction.database.is_postgresql:
        return True
    name = f"{transaction.database.installation_id}:{work}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    taken = select(func.pg_try_advisory_xact_lock(bindparam("number", number, type_=BigInteger)))
    return bool(transaction.connection.execute(taken).scalar_one())
