"""`status`: how much is waiting, by tenant, and who is firing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import typer

from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_json, write_line, write_table
from scheduler.cli.session import opened
from scheduler.store.status import StatusQueries, WorkCount

_COLUMNS: Final = ("pending", "due", "oldest_due_at", "claimed", "paused", "error")


def status(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """Count what is waiting, by tenant.

    How many actions are pending, due, claimed, paused and in error, since when the oldest is due, and who holds claims.
    """
    with opened(context) as timeout_scheduler:
        queries = StatusQueries(timeout_scheduler.database)
        with timeout_scheduler.database.reading() as transaction:
            counts, instances, now = queries.by_tenant(transaction), queries.instances(transaction), transaction.now
    total = _total(counts)
    if as_json:
        tenants = [{"tenant_id": one.tenant_id, **_document(one, now)} for one in counts]
        write_json({"at": now, "total": _document(total, now), "tenants": tenants, "instances": instances})
        return
    columns = ["tenant", *(name.removesuffix("_at").replace("_", " ") for name in _COLUMNS)]
    write_table(columns, [_row(one.tenant_id, one) for one in counts] + [_row("(all)", total)])
    write_line(f"holding claims: {', '.join(instances) or 'nobody'}")


def _total(counts: Sequence[WorkCount]) -> WorkCount:
    return WorkCount(
        "",
        pending=sum(one.pending for one in counts),
        due=sum(one.due for one in counts),
        oldest_due_at=min((one.oldest_due_at for one in counts if one.oldest_due_at is not None), default=None),
        claimed=sum(one.claimed for one in counts),
        paused=sum(one.paused for one in counts),
        error=sum(one.error for one in counts),
    )


def _document(count: WorkCount, now: datetime) -> dict[str, Any]:
    oldest = count.oldest_due_at
    values = {name: value for name, value in asdict(count).items() if name in _COLUMNS}
    return {**values, "oldest_due_seconds": None if oldest is None else max((now - oldest).total_seconds(), 0.0)}


def _row(name: str, count: WorkCount) -> list[object]:
    return [name, *(getattr(count, column) for column in _COLUMNS)]
