"""`campaigns explain` and `campaigns stuck`: why a contact is where it is, and who waits for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from scheduler.cli.documents import action_document, campaign_document
from scheduler.cli.options import CampaignOption, JsonFlag, OptionalTenant, TenantOption
from scheduler.cli.output import write_json, write_line, write_message, write_table
from scheduler.cli.session import opened
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.explaining.explanation import Awaited, Explanation, StuckCampaign
from scheduler.domain.explaining.wording import instant_text, span_text
from scheduler.domain.timing import Duration

_MOST_ENTRIES: Final = 1_000_000
_UNCHANGED: Final = (str, int, float, bool, datetime, type(None))

EntriesOption = Annotated[
    int,
    typer.Option("--limit", metavar="N", help="Print the latest N entries. With --json: all of them, in any case."),
]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", help="At most so many, 1 to 100000.")]


def explain(
    context: typer.Context,
    tenant: TenantOption,
    campaign: CampaignOption,
    limit: EntriesOption = 200,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Tell what happened to a campaign and why, where it stands, and what it waits for."""
    if not 1 <= limit <= _MOST_ENTRIES:
        raise InvalidInputError("--limit", limit, f"give a whole number from 1 to {_MOST_ENTRIES}")
    with opened(context) as timeout_scheduler:
        explanation = timeout_scheduler.campaigns.explain(tenant, campaign)
    if as_json:
        write_json(_plain(explanation))
    else:
        _print(explanation, limit)


def stuck(
    context: typer.Context, tenant: OptionalTenant = None, limit: LimitOption = 100, *, as_json: JsonFlag = False
) -> None:
    """List active campaigns that nothing will move by itself, and why."""
    with opened(context) as timeout_scheduler:
        found = timeout_scheduler.campaigns.stuck(tenant, limit)
    if as_json:
        write_json([_stuck_document(one) for one in found])
        return
    write_table(
        ["tenant", "campaign", "node", "visit", "since", "reason"],
        [
            [
                one.campaign.tenant_id,
                one.campaign.campaign_id,
                one.campaign.current_node_id,
                one.campaign.node_visit,
                one.campaign.node_entered_at,
                one.reason,
            ]
            for one in found
        ],
    )
    if len(found) == limit:
        write_message(f"the first {limit}; --limit shows more")


def _print(explanation: Explanation, limit: int) -> None:
    shown = explanation.entries[-limit:]
    hidden = len(explanation.entries) - len(shown)
    write_line(f"{explanation.tenant_id} {explanation.campaign_id}, contact {explanation.contact_id}; instants in UTC")
    write_line("")
    if hidden:
        write_line(f"({hidden} earlier {'entry' if hidden == 1 else 'entries'} left out; --limit shows more)")
    began = explanation.entries[0].at if explanation.entries else explanation.as_of
    rows = [[_seconds(one.at), _offset(one.at - began), one.kind, one.text] for one in shown]
    write_table(["when", "offset", "what", ""], rows)
    write_line("")
    write_line(f"It stands: {explanation.standing.text}.")
    write_line("")
    waiting = [[*_when(one, explanation.as_of), one.text] for one in explanation.waits_for]
    write_table(["waits for", "in", "until", ""], waiting)


def _when(awaited: Awaited, now: datetime) -> tuple[str, str, str]:
    """When it comes, how far off that is, and until when it counts."""
    at = "" if awaited.at is None else _seconds(awaited.at)
    until = "" if awaited.until is None else instant_text(awaited.until)
    return (at or awaited.kind, "" if awaited.at is None else _offset(awaited.at - now), until)


def _seconds(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}"


def _offset(span: timedelta) -> str:
    """`+3d 2h`."""
    short = span_text(span).replace(" min", "m").replace(" ms", "ms").replace(" s", "s")
    return f"{'-' if span < timedelta(0) else '+'}{short.replace(' d', 'd').replace(' h', 'h')}"


def _stuck_document(found: StuckCampaign) -> dict[str, Any]:
    action = found.error_action
    return {
        "campaign": campaign_document(found.campaign),
        "reason": found.reason,
        "error_action": None if action is None else action_document(action),
    }


def _plain(value: Any) -> Any:
    """Values as JSON has them: fields by name, durations as ISO-8601."""
    if isinstance(value, timedelta):
        return f"{'-' if value < timedelta(0) else ''}{Duration(exact=abs(value))}"
    if isinstance(value, _UNCHANGED):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
