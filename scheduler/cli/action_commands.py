"""`actions list`, `show`, `cancel`, `retry`: what is scheduled, and what to do about one of them."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from scheduler.cli.documents import action_document, labelled
from scheduler.cli.failures import FAILED
from scheduler.cli.options import JobArgument, JsonFlag, OptionalCampaign, OptionalTenant
from scheduler.cli.output import write_fields, write_json, write_line, write_message, write_table
from scheduler.cli.session import opened
from scheduler.cli.texts import require_text
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction, require_id
from scheduler.domain.timing import parse_instant
from scheduler.runtime.timeout_scheduler import TimeoutScheduler

actions = typer.Typer(no_args_is_help=True, help="List, show, cancel and retry scheduled actions.")

COLUMNS: Final = ("run_at", "status", "outcome", "attempts", "dedupe_key")

StatusOption = Annotated[
    list[ActionStatus] | None,
    typer.Option(
        "--status",
        metavar="STATE",
        help="Only this state: pending, claimed, paused, completed, canceled or error. Repeatable.",
    ),
]
TypeOption = Annotated[
    ActionType | None, typer.Option("--type", metavar="TYPE", help="Only one kind: timeout or send.")
]
DueBeforeOption = Annotated[
    str | None,
    typer.Option(
        "--due-before", metavar="WHEN", help="Only what is due by then: ISO-8601, such as 2026-03-02T12:00:00Z."
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", help="At most so many, 1 to 100000.")]
NodeFilter = Annotated[str | None, typer.Option("--node", metavar="ID", help="Only this node, such as email_intro.")]
ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help='Why, for the record, such as "left the company".'),
]


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
        raise _unknown(job_id)
    document = action_document(action)
    write_json(document) if as_json else write_fields(labelled(document))


@actions.command()
def cancel(
    context: typer.Context, job_id: JobArgument, reason: ReasonOption = None, *, as_json: JsonFlag = False
) -> None:
    """Cancel one unfinished action. Its campaign goes on; without its timeout it may wait for ever."""
    with opened(context) as timeout_scheduler:
        is_done = timeout_scheduler.cancel(job_id, require_text("--reason", reason))
        action = timeout_scheduler.find(job_id)
    _tell("canceled", is_done, job_id, action, as_json=as_json)


@actions.command()
def retry(context: typer.Context, job_id: JobArgument, *, as_json: JsonFlag = False) -> None:
    """Give an action in error new attempts, from now on."""
    with opened(context) as timeout_scheduler:
        is_done = timeout_scheduler.retry(job_id)
        action = timeout_scheduler.find(job_id)
        is_left = action is not None and action.status == ActionStatus.ERROR and _is_left(timeout_scheduler, action)
    _tell("retried", is_done, job_id, action, as_json=as_json, is_left=is_left)


def _is_left(timeout_scheduler: TimeoutScheduler, action: ScheduledAction) -> bool:
    campaign = timeout_scheduler.campaigns.find(action.tenant_id, action.campaign_id)
    return campaign is not None and (campaign.is_finished or campaign.node_visit != action.node_visit)


def _tell(
    word: str,
    is_done: bool,  # noqa: FBT001 - the answer of the call, next to its word
    job_id: str,
    action: ScheduledAction | None,
    *,
    as_json: bool,
    is_left: bool = False,
) -> None:
    if action is None:
        raise _unknown(job_id)
    if as_json:
        write_json({word: is_done, "action": action_document(action)})
    elif is_done:
        write_line(f"{word}: {job_id}")
    if not is_done:
        reason = "its visit was left already" if is_left else f"it is {action.status}"
        write_message(f"error: not {word}: {job_id}: {reason}")
        raise typer.Exit(FAILED)


def _unknown(job_id: str) -> typer.Exit:
    write_message(f"error: there is no action {job_id!r}: `actions list` shows those there are")
    return typer.Exit(FAILED)


def _row(action: ScheduledAction) -> list[object]:
    return [getattr(action, name) for name in COLUMNS]
