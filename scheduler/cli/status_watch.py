"""`status --watch`: backlog, rate, lateness and instances, read every other second without counting what is pending.

Rate and lateness are what each instance notes of itself in the database, every five seconds or so while it fires.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scheduler.cli.failures import explain
from scheduler.cli.output import human, json_line, printable, rich_table, write_line
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.store.instances import Instance
from scheduler.store.status import MOST_COUNTED, StatusQueries, WorkCount

FRESH_FOR: Final = timedelta(seconds=20)
_MOST_TENANTS: Final = 15


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment. `real` is real time, by which instances note how they get on."""

    at: datetime
    real: datetime
    tenants: Sequence[WorkCount]
    instances: Sequence[Instance]
    paused: int

    @property
    def oldest_due(self) -> float:
        """For how many seconds the oldest has been due."""
        instants = [one.oldest_due_at for one in self.tenants if one.oldest_due_at is not None]
        return max((self.at - min(instants)).total_seconds(), 0.0) if instants else 0.0

    def sum_of(self, name: str) -> int:
        """Over all tenants."""
        return sum(getattr(one, name) for one in self.tenants)

    def fresh(self, instance: Instance, name: str) -> float:
        """What an instance noted of late; one that notes nothing ends nothing."""
        is_fresh = instance.progress_at is not None and self.real - instance.progress_at <= FRESH_FOR
        return (getattr(instance, name) or 0.0) if is_fresh else 0.0

    @property
    def rate(self) -> float:
        """How many actions all instances end a second."""
        return sum(self.fresh(one, "rate") for one in self.instances)

    @property
    def lateness(self) -> float:
        """How many seconds late the latest of the last ones was."""
        return max((self.fresh(one, "lateness") for one in self.instances), default=0.0)


def watch_status(timeout_scheduler: TimeoutScheduler, seconds: float, *, as_json: bool) -> None:
    """Until Ctrl-C: a screen where somebody watches, else a line each time."""
    try:
        looks = _looks(timeout_scheduler, seconds)
        if as_json or not sys.stdout.isatty():
            for look in looks:
                _print(look, as_json=as_json)
        else:
            with Live(console=Console(file=sys.stdout), auto_refresh=False, screen=False) as live:
                for look in looks:
                    live.update(Text(look) if isinstance(look, str) else _screen(look), refresh=True)
    except KeyboardInterrupt:
        return


def _looks(timeout_scheduler: TimeoutScheduler, seconds: float) -> Iterator[Look | str]:
    """What is seen, again and again; or why nothing is, while the database is away."""
    queries = StatusQueries(timeout_scheduler.database)
    while True:
        try:
            yield _look(timeout_scheduler, queries)
        except DatabaseUnavailableError as error:
            yield explain(error)[0]
        wait(seconds)


def wait(seconds: float) -> None:
    """Between two looks."""
    threading.Event().wait(seconds)


def _look(timeout_scheduler: TimeoutScheduler, queries: StatusQueries) -> Look:
    instances = timeout_scheduler.stores.instances
    with timeout_scheduler.database.reading() as transaction:
        found = [one for one in instances.select(transaction) if one.stopped_at is None and not one.is_cut_off]
        tenants, pauses = queries.now_by_tenant(transaction), queries.wide_pauses(transaction)
        return Look(transaction.now, instances.read_real(transaction), tenants, found, len(pauses))


def _print(look: Look | str, *, as_json: bool) -> None:
    if isinstance(look, str):
        document: dict[str, Any] = {"error": look}
    else:
        document = {
            "at": look.at,
            **{name: look.sum_of(name) for name in ("due", "claimed", "error")},
            "oldest_due_seconds": round(look.oldest_due, 3),
            "rate": round(look.rate, 1),
            "lateness_seconds": round(look.lateness, 3),
            "instances": [one.instance_name for one in look.instances],
            "pauses": look.paused,
        }
    if as_json:
        sys.stdout.write(json_line(document))
    elif isinstance(look, str):
        write_line(look)
    else:
        write_line(
            f"{human(look.at)}  due {document['due']}  oldest {look.oldest_due:.1f} s  claimed {document['claimed']}"
            f"  error {document['error']}  rate {look.rate:.1f}/s  late {look.lateness:.2f} s"
            f"  instances {len(look.instances)}  pauses {look.paused}"
        )
    sys.stdout.flush()


def _screen(look: Look) -> Group:
    head = (
        f"{human(look.at)}   due {_count(look.sum_of('due'))}, the oldest for {look.oldest_due:.1f} s"
        f"   {look.rate:.1f} a second, at most {look.lateness:.2f} s late"
    )
    if look.paused:
        head += f"   {look.paused} pauses: see `campaigns pauses`"
    worst = sorted(look.tenants, key=lambda one: -one.due)[:_MOST_TENANTS]
    rows = [[one.tenant_id, _count(one.due), human(one.oldest_due_at), one.claimed, _count(one.error)] for one in worst]
    tenants = rich_table(["tenant", "due", "oldest due", "claimed", "error"], _cells(rows))
    lines = [
        [
            one.instance_name,
            one.process_id,
            human(one.seen_at),
            one.ended,
            f"{look.fresh(one, 'rate'):.1f}",
            f"{look.fresh(one, 'lateness'):.2f}",
        ]
        for one in look.instances
    ]
    instances = rich_table(["instance", "process", "seen", "ended", "a second", "s late"], _cells(lines))
    return Group(Text(printable(head)), tenants, instances)


def _cells(rows: Sequence[Sequence[object]]) -> list[list[str]]:
    return [[printable(str(value)) for value in row] for row in rows]


def _count(number: int) -> str:
    return f"{MOST_COUNTED}+" if number >= MOST_COUNTED else str(number)
