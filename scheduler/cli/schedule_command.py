"""`schedule`: one timeout by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer

from scheduler.cli.documents import action_document
from scheduler.cli.failures import OPTIONS, naming_options
from scheduler.cli.options import CampaignOption, ContactOption, JsonFlag, TenantOption
from scheduler.cli.output import human, write_json, write_line
from scheduler.cli.session import opened
from scheduler.domain.action import TimeoutJob
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.timing import parse_duration, parse_instant
from scheduler.runtime.timeout_scheduler import TimeoutScheduler

_NAMES: Final = {**OPTIONS, "event_type": "--event"}
_UTC: Final = ZoneInfo("UTC")

NodeOption = Annotated[
    str, typer.Option("--node", metavar="ID", help="The node that is being waited at, such as email_intro.")
]
EventOption = Annotated[
    str, typer.Option("--event", metavar="TYPE", help="The synthetic event it fires: no_open, no_click, no_reply, ...")
]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="WHEN", help="When it fires: ISO-8601 with an offset, such as 2026-03-02T12:00:00Z."),
]
AfterOption = Annotated[
    str | None,
    typer.Option("--after", metavar="DURATION", help="How long from now it fires: ISO-8601, such as PT72H or P3D."),
]
VisitOption = Annotated[
    int, typer.Option("--visit", metavar="N", help="The visit of the node it belongs to: 1, 2, 3, ...")
]


def schedule(
    context: typer.Context,
    tenant: TenantOption,
    campaign: CampaignOption,
    contact: ContactOption,
    node: NodeOption,
    event: EventOption,
    at: AtOption = None,
    after: AfterOption = None,
    visit: VisitOption = 1,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Schedule one timeout. --at an instant or --after a duration; prints its job id.

    The same timeout again changes nothing, in whatever state it is.
    """
    with opened(context) as timeout_scheduler, naming_options(_NAMES):
        job = TimeoutJob(
            tenant_id=tenant,
            campaign_id=campaign,
            contact_id=contact,
            node_id=node,
            event_type=event,
            scheduled_at=_instant(timeout_scheduler, at, after),
            node_visit=visit,
        )
        is_new = timeout_scheduler.schedule_many([job]).scheduled == 1
        action = timeout_scheduler.find(job.dedupe_key)
    if as_json:
        stored = None if action is None else action_document(action)
        write_json({"job_id": job.dedupe_key, "is_new": is_new, "action": stored})
        return
    write_line(job.dedupe_key)
    if is_new or action is None:
        write_line(f"new: fires at {human(job.scheduled_at)}")
    else:
        write_line(f"existed already, unchanged: {action.status}, {human(action.run_at)}")


def _instant(timeout_scheduler: TimeoutScheduler, at: str | None, after: str | None) -> datetime:
    if (at is None) == (after is None):
        raise InvalidInputError("--at, --after", None, "give one of them, such as --after PT72H")
    if at is not None:
        return parse_instant("--at", at)
    duration = parse_duration("--after", after)
    with timeout_scheduler.database.reading() as transaction:
        return parse_instant("--after", duration.add_to(transaction.now, _UTC))
