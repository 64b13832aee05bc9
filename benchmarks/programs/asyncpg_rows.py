"""The limit of one Python process that fires row by row: asyncpg, a transaction per timeout, and no queue at all."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import suppress
from typing import Any, Final

import asyncpg

from benchmarks.effect import STATEMENTS, Timeout, numbered
from benchmarks.programs.child import job, wait_for_go

_STATEMENTS: Final = {name: numbered(statement) for name, statement in STATEMENTS.items()}
_DUE: Final = (
    "SELECT tenant_id, campaign_id, contact_id, dedupe_key FROM scheduled_actions "
    "WHERE status = 'pending' AND run_at <= now() ORDER BY run_at"
)


async def apply(connection: Any, expired: Timeout) -> None:
    """The six statements of one timeout."""
    parameters = expired.parameters
    async with connection.transaction():
        for name, (statement, names) in _STATEMENTS.items():
            values = [parameters[each] for each in names]
            if name != "lock":
                await connection.execute(statement, *values)
                continue
            campaign = await connection.fetchrow(statement, *values)
            if campaign["status"] != "active" or campaign["node_visit"] != 1:
                return


async def fire(url: str, connections: int) -> None:
    """Until the list is empty."""
    opened = [await asyncpg.connect(url) for _ in range(connections)]
    due = [Timeout(*row) for row in await opened[0].fetch(_DUE)]
    wait_for_go()

    async def work(connection: Any) -> None:
        while due:
            await apply(connection, due.pop())

    await asyncio.gather(*(work(connection) for connection in opened))


def main() -> None:
    """Do the job."""
    with suppress(ImportError):
        importlib.import_module("uvloop").install()
    wanted = job()
    asyncio.run(fire(wanted["url"], wanted["connections"]))


if __name__ == "__main__":
    main()
