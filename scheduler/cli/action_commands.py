"""`actions list`, `show`: what is scheduled. `cancel` and `retry` are in `action_changes`."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli.action_changes import COLUMNS, NodeFilter, TypeOption, cancel, retry, unknown
from scheduler.cli.documents import action_document, labelled
from scheduler.cli.options import JobArgument, JsonFlag, OptionalCampaign, OptionalTenant
from scheduler.cli.output import write_fields, write_json, write_message, write_table
from scheduler.cli.session import opened
from scheduler.domain.action import ActionStatus, ScheduledAction, require_id
from scheduler.domain.timing import parse_instant

actions = typer.Typer(no_args_is_help=True, help="List, show, cancel and retry scheduled actions.")

StatusOption = Annotated[
    list[ActionStatus] | None,
    typer.Option(
        "--status",
        metavar="STATE",
        help="Only this state: pending, claimed, paused, completed, canceled or error. Repeatable.",
    ),
]
DueBeforeOption = Annotated[
    str | None,
    typer.Option(
        "--due-before", metavar="WHEN", help="Only what is due by then: ISO-8601, such as 2026-03-02T12:00:00Z."
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", help="At most so many, 1 to 100000.")]


@actions.command("list")
def list_actions(
    context: typer.Context,
    tenant: OptionalTenant = None,
    campaign: OptionalCampaign = None,
    node: NodeFilter = None,
    status: StatusOption = None,
    action_type: TypeOption = None,
    due_before: DueBeforeOption = None,
    limit: LimitOption = 100,
    *,
    as_json: JsonFlag = False,
) -> None:
    """List actions, the earliest due first. In all states, unless --status says which."""
    with opened(context) as timeout_scheduler:
        found = timeout_scheduler.list_actions(
            tenant_id=None if tenant is None else require_id("tenant_id", tenant),
            campaign_id=None if campaign is None else require_id("campaign_id", campaign),
            node_id=None if node is None else require_id("node_id", node),
            statuses=status or [],
            action_type=action_type,
            due_before=None if due_before is None else parse_instant("due_before", due_before),
            limit=limit,
        )
    if as_json:
        write_json([action_document(action) for action in found])
        return
    write_table([name.replace("_", " ") for name in COLUMNS], [_row(action) for action in found])
    if len(found) == limit:
        write_message(f"the first {limit}; --limit shows more")


@actions.command()
def show(context: typer.Context, job_id: JobArgument, *, as_json: JsonFlag = False) -> None:
    """Show one action, with all that is known of it."""
    with opened(context) as timeout_scheduler:
        action = timeout_scheduler.find(job_id)
    if action is None:
        raise unknown(job_id)
    document = action_document(action)
    write_json(document) if as_json else write_fields(labelled(document))


actions.command()(cancel)
actions.command()(retry)


def _row(action: ScheduledAction) -> list[object]:
    return [getattr(action, name) for name in COLUMNS]
