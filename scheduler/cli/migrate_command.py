"""`plan migrate`: running campaigns go on, on another version of their plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer

from scheduler.cli.failures import FAILED, naming_options
from scheduler.cli.options import ActorOption, JsonFlag, OptionalTenant
from scheduler.cli.output import write_json, write_line, write_message, write_table
from scheduler.cli.session import opened
from scheduler.cli.stored_plans import StoredPlans
from scheduler.cli.texts import who_does_it
from scheduler.domain.action import require_id
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.migration import PlanMigration
from scheduler.domain.plan import CampaignPlan
from scheduler.runtime.timeout_scheduler import TimeoutScheduler

OldArgument = Annotated[
    str,
    typer.Argument(
        metavar="OLD",
        help="The plan they are on: its hash as stored, or the first 8 digits or more of it, or its file.",
    ),
]
NewArgument = Annotated[
    str,
    typer.Argument(metavar="NEW", help="The plan they go on with: its file, or its hash where it is stored already."),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="OLD_NODE=NEW_NODE",
        help="Who stands at this node goes on at that one. Without it: at the node of the same id. Repeatable.",
    ),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Only show who would be moved, and what would go off.")]

_FIELDS: Final = {"old_plan_hash": "OLD", "new_plan": "NEW", "node_map": "--map"}
_COLUMNS: Final = ("tenant", "stands at", "goes on at", "campaigns", "timeouts at once", "mails at once")


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for, the same for each tenant."""

    old_plan_hash: str
    new_plan: CampaignPlan
    node_map: Mapping[str, str]


def migrate(
    context: typer.Context,
    old: OldArgument,
    new: NewArgument,
    tenant: OptionalTenant = None,
    node_map: MapOption = None,
    actor: ActorOption = None,
    *,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Move running campaigns to another plan. Says first who stands where, and what would go off at once."""
    with opened(context) as timeout_scheduler, naming_options(_FIELDS):
        who, mapped = who_does_it(actor), _node_map(node_map or ())
        plans = StoredPlans(timeout_scheduler, None if tenant is None else require_id("tenant_id", tenant))
        old_plan_hash, tenants = plans.tenants_with("OLD", old)
        request = _Request(old_plan_hash, plans.plan("NEW", new), mapped)
        shown = [_run(timeout_scheduler, request, one, dry_run=True) for one in tenants]
        if not as_json:
            _show(shown)
        done = shown if dry_run else [_run(timeout_scheduler, request, one, actor=who) for one in tenants]
    if as_json:
        write_json({"is_dry_run": dry_run, "tenants": [asdict(one) for one in done]})
    elif not dry_run:
        write_line(f"moved {sum(one.moved for one in done)} to plan {request.new_plan.hash}")
    _tell_busy(done, dry_run=dry_run)


def _run(timeout_scheduler: TimeoutScheduler, request: _Request, tenant_id: str, **options: Any) -> PlanMigration:
    return timeout_scheduler.campaigns.migrate_plan(
        tenant_id, request.old_plan_hash, request.new_plan, request.node_map, **options
    )


def _show(migrations: Sequence[PlanMigration]) -> None:
    rows = [
        [
            one.tenant_id,
            node.from_node_id,
            node.to_node_id,
            node.campaigns,
            node.timeouts_at_once,
            node.mails_at_once,
        ]
        for one in migrations
        for node in one.nodes
    ]
    if rows:
        write_table(_COLUMNS, rows)
    else:
        write_line("no running campaign is on the old plan")


def _tell_busy(migrations: Sequence[PlanMigration], *, dry_run: bool) -> None:
    busy = sum(one.busy for one in migrations)
    if not busy:
        return
    why = "their mail is going out just now, or somebody is at work on them"
    if dry_run:
        write_message(f"{busy} couldn't be moved now: {why}")
        return
    write_message(f"error: {busy} were left: {why}; run it again to move them too")
    raise typer.Exit(FAILED)


def _node_map(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        from_node_id, _, to_node_id = text.partition("=")
        if not from_node_id or not to_node_id:
            raise InvalidInputError("--map", text, "write old_node=new_node, such as email_intro=email_hello")
        if from_node_id in found:
            raise InvalidInputError("--map", text, f"{from_node_id} is given twice; keep one")
        found[from_node_id] = to_node_id
    return found
