"""`plan simulate`: a plan on a virtual clock, without a database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from scheduler.cli.bulk import tell
from scheduler.cli.documents import campaign_document, transition_document
from scheduler.cli.failures import naming_options
from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_json, write_line, write_message, write_table
from scheduler.cli.plan_files import STANDARD_INPUT, PlanFile, read_plan
from scheduler.cli.row_files import BadRow, open_rows
from scheduler.cli.session import settings_of
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.happening import Happening, when
from scheduler.domain.simulate import simulate as run_simulation
from scheduler.domain.simulation import SimulatedAction, Simulation, TimelineEntry, What
from scheduler.domain.timing import SystemClock, parse_instant, parse_zone

EventsOption = Annotated[
    str | None,
    typer.Option("--events", metavar="FILE", help="What happens to it, a JSON Lines file; - is standard input."),
]
StartOption = Annotated[
    str | None,
    typer.Option("--start-at", metavar="WHEN", help="When it begins (now): such as 2026-03-02T12:00:00Z."),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="WHEN", help="When to end at the latest (in 10 years): an instant, or P30D."),
]
ZoneOption = Annotated[
    str | None,
    typer.Option("--timezone", metavar="ZONE", help="The contact's own time zone, such as Europe/Berlin."),
]

_MOST_SHOWN: Final = 20
_UNITS: Final = ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "m"))
_OPTIONS: Final = {"start_at": "--start-at", "until": "--until", "timezone": "--timezone"}


def simulate(
    context: typer.Context,
    file: PlanFile,
    events: EventsOption = None,
    start_at: StartOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Let one contact walk a plan on a virtual clock. Prints what would happen when, and why; touches no database.

    Every mail goes out when it is due, and nothing else happens but what --events says: lines such as
    {"at": "PT1H", "event_type": "opened"} or {"at": "P2D", "do": "pause"}.
    """
    with naming_options(_OPTIONS):
        if STANDARD_INPUT == file == events:
            raise InvalidInputError("--events", events, "only one of the two files can be standard input")
        plan = read_plan(context, file)
        now = SystemClock().now().replace(microsecond=0)
        begin = now if start_at is None else parse_instant("start_at", start_at)
        simulation = run_simulation(
            plan,
            [] if events is None else _read_happenings(events, begin),
            begin,
            timezone=timezone,
            grace=settings_of(context).timeout_grace,
            until=None if until is None else when("until", until, begin),
        )
    if as_json:
        write_json(_document(simulation))
        return
    zone = plan.zone if timezone is None else parse_zone("--timezone", timezone)
    write_table([f"when ({zone.key})", "after", "node", "what", "why"], _rows(simulation, zone))
    write_line("")
    write_line(f"{offset_text(simulation.ended_at - begin)}: {simulation.verdict}")
    for warning in plan.warnings:
        write_message(f"warning: {warning}")


def _read_happenings(path: str, start_at: datetime) -> list[Happening]:
    """Every line of the file; raises InvalidInputError once all bad ones are told."""
    found: list[Happening] = []
    bad: list[BadRow] = []
    with open_rows(path, "--events") as file:
        for row in file.rows():
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            try:
                found.append(Happening.parse(row.values, start_at))
            except InvalidInputError as error:
                bad.append(BadRow(row.line, error))
        for one in bad[:_MOST_SHOWN]:
            tell(one)
        if bad:
            remedy = f"{len(bad)} of {len(bad) + len(found)} lines are bad: correct {file.name}"
            raise InvalidInputError("--events", None, remedy)
    return found


def _rows(simulation: Simulation, zone: ZoneInfo) -> Iterator[list[str]]:
    for entry in simulation.timeline:
        node = f"{entry.node_id} ({entry.node_visit})"
        passed = offset_text(entry.at - simulation.start_at)
        yield [_local(entry.at, zone), passed, node, _what(entry, simulation.start_at), entry.why]


def _local(instant: datetime, zone: ZoneInfo) -> str:
    """`Mon 2026-03-02 12:00`, with the offset where the zone isn't UTC."""
    local = instant.astimezone(zone)
    precision = "seconds" if local.second or local.microsecond else "minutes"
    shown = local.replace(tzinfo=None) if zone.key == "UTC" else local
    return f"{local:%a} {shown.isoformat(sep=' ', timespec=precision)}"


def _what(entry: TimelineEntry, start_at: datetime) -> str:
    name = "mail" if entry.event_type == "sent" else entry.event_type or ""
    due = "" if entry.due_at is None else offset_text(entry.due_at - start_at)
    match entry.what:
        case What.PLANNED:
            return f"{name} planned for {due}"
        case What.MOVED:
            return f"{name} moved to {due}"
        case What.FIRED | What.EVENT:
            return f"{name} {'fired' if entry.what is What.FIRED else 'arrived'}: {entry.outcome}"
        case What.CANCELED:
            return f"{name} canceled"
        case What.SENT:
            return "mail sent"
        case What.ENDED:
            return f"ended: {entry.outcome}"
        case _:
            return str(entry.what)


def offset_text(span: timedelta) -> str:
    """How long after the start: `+3d 4h`."""
    parts: list[str] = []
    rest = span
    for unit, name in _UNITS:
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{name}")
    if rest:
        parts.append(f"{rest.total_seconds():g}s")
    return f"+{' '.join(parts) or '0'}"


def _document(simulation: Simulation) -> dict[str, Any]:
    return {
        "plan": {"name": simulation.plan.name, "hash": simulation.plan.hash},
        "start_at": simulation.start_at,
        "end": simulation.end,
        "ended_at": simulation.ended_at,
        "verdict": simulation.verdict,
        "campaign": campaign_document(simulation.campaign),
        "timeline": [_members(entry) for entry in simulation.timeline],
        "history": [transition_document(transition) for transition in simulation.history],
        "pending": [_members(action) for action in simulation.pending],
    }


def _members(value: TimelineEntry | SimulatedAction) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
