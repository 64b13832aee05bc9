"""`status`: how much is waiting, by tenant, what is paused, and who is firing; with `--watch` as it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from scheduler.cli.options import JsonFlag
from scheduler.cli.output import human, write_json, write_line, write_table
from scheduler.cli.session import opened
from scheduler.cli.status_watch import watch_status
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.pausing import Pause
from scheduler.domain.timing import parse_duration
from scheduler.store.status import StatusQueries, WorkCount

_COLUMNS: Final = ("pending", "due", "oldest_due_at", "claimed", "paused", "error")
_SHORTEST: Final = timedelta(seconds=0.1)

WatchFlag = Annotated[bool, typer.Option("--watch", help="Show it again and again, with rates, until Ctrl-C.")]
IntervalOption = Annotated[
    str, typer.Option("--interval", metavar="DURATION", help="How often, with --watch: such as PT2S.")
]


def status(
    context: typer.Context, interval: IntervalOption = "PT2S", *, watch: WatchFlag = False, as_json: JsonFlag = False
) -> None:
    """Count what is waiting, by tenant.

    How many actions are pending, due, claimed, paused and in error, since when the oldest is due, what is paused, and
    who holds claims. With --watch: what is due, how fast and how late it is fired, and by whom.
    """
    seconds = _seconds(interval)
    with opened(context) as timeout_scheduler:
        if watch:
            watch_status(timeout_scheduler, seconds, as_json=as_json)
            return
        queries = StatusQueries(timeout_scheduler.database)
        with timeout_scheduler.database.reading() as transaction:
            counts, instances, now = queries.by_tenant(transaction), queries.instances(transaction), transaction.now
            pauses = queries.wide_pauses(transaction)
    total = _total(counts)
    if as_json:
        tenants = [{"tenant_id": one.tenant_id, **_document(one, now)} for one in counts]
        document = {"at": now, "total": _document(total, now), "tenants": tenants, "instances": instances}
        write_json({**document, "pauses": [asdict(one) for one in pauses]})
        return
    columns = ["tenant", *(name.removesuffix("_at").replace("_", " ") for name in _COLUMNS)]
    write_table(columns, [_row(one.tenant_id, one) for one in counts] + [_row("(all)", total)])
    write_line(f"holding claims: {', '.join(instances) or 'nobody'}")
    for one in pauses:
        write_line(_paused(one))


def _seconds(interval: str) -> float:
    duration = parse_duration("--interval", interval)
    if duration.months or duration.exact < _SHORTEST:
        raise InvalidInputError("--interval", interval, "give PT0.1S or more, in seconds, minutes or hours")
    return duration.exact.total_seconds()


def _paused(pause: Pause) -> str:
    whose = {"all": "everything", "sends": "all mail"}.get(pause.scope, "")
    if pause.tenant_id is not None:
        whose = f"mail of {pause.tenant_id}" if pause.scope == "sends" else pause.tenant_id
    by = "" if pause.actor is None else f" by {pause.actor}"
    why = "" if pause.reason is None else f": {pause.reason}"
    return f"paused: {whose}, since {human(pause.started_at)}{by}{why}"


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
