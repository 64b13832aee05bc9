"""`event`: something that happened, or a file of such."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Annotated, Any, Final

import typer

from scheduler.cli.bulk import CheckedRows
from scheduler.cli.documents import campaign_document
from scheduler.cli.failures import OPTIONS, naming_options
from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_json, write_line, write_message, write_table
from scheduler.cli.row_files import Row, open_rows
from scheduler.cli.session import opened
from scheduler.domain.errors import InvalidInputError, SchedulerError
from scheduler.domain.event import is_synthetic
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.timing import parse_instant
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.service.results import EventResult

_BATCH: Final = 500
_NAMES: Final = {**OPTIONS, "event_type": "TYPE"}

TypeArgument = Annotated[
    str | None,
    typer.Argument(metavar="TYPE", help="What happened: opened, clicked, replied, bounced, unsubscribed, ..."),
]
TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", metavar="ID", help="The tenant, such as acme. With --from: of the rows that name none."),
]
CampaignOption = Annotated[
    str | None,
    typer.Option("--campaign", metavar="ID", help="The campaign, such as c-1. Not needed with --message-id."),
]
ContactOption = Annotated[
    str | None,
    typer.Option(
        "--contact", metavar="ID", help="In place of a campaign: the contact, such as k-1, all its campaigns."
    ),
]
NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="ID", help="The node whose mail it is about, such as email_intro.")
]
OccurredOption = Annotated[
    str | None,
    typer.Option("--occurred-at", metavar="WHEN", help="When it happened (now): such as 2026-03-02T12:00:00Z."),
]
EventIdOption = Annotated[
    str | None,
    typer.Option("--event-id", metavar="ID", help="The provider's id of the event: the same id counts once."),
]
MessageOption = Annotated[
    str | None, typer.Option("--message-id", metavar="ID", help="The mail it is about, by the provider's message id.")
]
MetadataOption = Annotated[
    str | None,
    typer.Option("--metadata", metavar="JSON", help="""More about it, kept: such as '{"ip": "192.0.2.1"}'."""),
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="FILE", help="Take in every row of a JSON Lines file; - is standard input."),
]
SkipFlag = Annotated[
    bool, typer.Option("--skip-bad", help="With --from: leave bad rows out. Otherwise one of them refuses the file.")
]


def event(
    context: typer.Context,
    event_type: TypeArgument = None,
    tenant: TenantOption = None,
    campaign: CampaignOption = None,
    contact: ContactOption = None,
    node: NodeOption = None,
    occurred_at: OccurredOption = None,
    event_id: EventIdOption = None,
    message_id: MessageOption = None,
    metadata: MetadataOption = None,
    source: FromOption = None,
    *,
    skip_bad: SkipFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Tell what a contact or the mail system did. One event, or all rows of a file; prints what came of it.

    Rows have the fields tenant_id, event_type, campaign_id, node_id, message_id, occurred_at, event_id and metadata.
    They are applied in their order, 500 in a transaction. A timeout's type (no_open) fires it, if it is due.
    With --contact the event reaches every unfinished campaign of the contact, and a line tells of each.
    """
    single = {
        "campaign_id": campaign,
        "node_id": node,
        "occurred_at": occurred_at,
        "event_id": event_id,
        "message_id": message_id,
        "metadata": metadata,
    }
    with naming_options(_NAMES):
        if source is not None:
            _refuse({"event_type": event_type, "contact_id": contact, **single})
            _take_file(context, source, tenant, skip_bad=skip_bad, as_json=as_json)
            return
        if skip_bad:
            raise InvalidInputError("--skip-bad", None, "leave it out: it belongs to --from")
        values = {**single, "event_type": event_type, "tenant_id": tenant, "metadata": _metadata(metadata)}
        _require(values)
        if contact is None:
            _take_one(context, values, as_json=as_json)
        else:
            _take_of_contact(context, contact, values, as_json=as_json)


def _require(values: dict[str, Any]) -> None:
    for name in ("event_type", "tenant_id"):
        if values[name] is None:
            raise InvalidInputError(name, None, "it is missing: give it, or --from FILE for many events")
    if values["occurred_at"] is not None:
        values["occurred_at"] = parse_instant("occurred_at", values["occurred_at"])


def _take_one(context: typer.Context, values: dict[str, Any], *, as_json: bool) -> None:
    with opened(context) as timeout_scheduler:
        result = timeout_scheduler.campaigns.process_event(**values)
    if as_json:
        write_json(_result_document(result))
    else:
        _say(result)


def _take_of_contact(context: typer.Context, contact: str, values: dict[str, Any], *, as_json: bool) -> None:
    for name in ("campaign_id", "node_id", "message_id"):
        if values[name] is not None:
            raise InvalidInputError(
                name, values[name], "leave it out: with --contact the event is about no one campaign"
            )
    given = {name: values[name] for name in ("tenant_id", "event_type", "metadata", "occurred_at", "event_id")}
    with opened(context) as timeout_scheduler:
        results = timeout_scheduler.campaigns.process_contact_event(contact_id=contact, **given)
    if as_json:
        write_json([_result_document(result) for result in results])
        return
    for result in results:
        _say(result, "" if result.campaign is None else f"{result.campaign.campaign_id}: ")


def _say(result: EventResult, about: str = "") -> None:
    campaign = result.campaign
    where = (
        "" if campaign is None else f"; {campaign.status} at {campaign.current_node_id}, visit {campaign.node_visit}"
    )
    write_line(f"{about}{result.event_type}: {result.outcome}{where}")


def _take_file(context: typer.Context, source: str, tenant: str | None, *, skip_bad: bool, as_json: bool) -> None:
    with opened(context) as timeout_scheduler, open_rows(source) as file:
        if file.is_csv:
            raise InvalidInputError("--from", file.name, "give JSON Lines: one JSON object in each line")
        checked = CheckedRows(file, lambda row: _parse(row, tenant))
        checked.check(skip_bad=skip_bad)
        outcomes = _take_all(timeout_scheduler, checked)
    if as_json:
        write_json({"events": outcomes.total(), "outcomes": dict(outcomes), "bad_lines": checked.bad_lines})
        return
    write_table(["outcome", "events"], sorted(outcomes.items()))
    write_line(f"events {outcomes.total()}, bad lines left out {len(checked.bad_lines)}")


def _take_all(timeout_scheduler: TimeoutScheduler, checked: CheckedRows[IncomingEvent]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    events = checked.values("applying")
    try:
        while batch := list(islice(events, _BATCH)):
            outcomes.update(result.outcome for result in timeout_scheduler.campaigns.process_events(batch))
    except SchedulerError:
        write_message(
            f"the first {outcomes.total()} events are applied, the others are not;"
            " give the same file again: those that have an event_id, or occurred_at, count once"
        )
        raise
    return outcomes


def _parse(row: Row, tenant: str | None) -> IncomingEvent:
    values = {name: value for name, value in row.values.items() if value is not None}
    if tenant is not None:
        values.setdefault("tenant_id", tenant)
    if "tenant_id" not in values:
        raise InvalidInputError("tenant_id", None, "it is missing: give it in the row, or --tenant for all rows")
    if not isinstance(values.get("occurred_at", ""), str):
        raise InvalidInputError("occurred_at", values["occurred_at"], "write an instant such as 2026-03-02T12:00:00Z")
    incoming = IncomingEvent.of(values)
    if is_synthetic(incoming.event_type):
        raise InvalidInputError("event_type", incoming.event_type, "give a timeout's event by itself, not in a file")
    return incoming


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidInputError("metadata", text, """write a JSON object, such as '{"ip": "192.0.2.1"}'""")
    return value


def _refuse(options: dict[str, str | None]) -> None:
    for name, value in options.items():
        if value is not None:
            raise InvalidInputError(name, value, "leave it out: with --from it stands in the file")


def _result_document(result: EventResult) -> dict[str, Any]:
    campaign = result.campaign
    return {
        "outcome": result.outcome,
        "event_id": result.event_id,
        "event_type": result.event_type,
        "campaign": None if campaign is None else campaign_document(campaign),
    }
