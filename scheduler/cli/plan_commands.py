"""`plan validate`, `show`, `schema`, `simulate`: plan files, without a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from scheduler.cli.failures import BAD_INPUT
from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_fields, write_json, write_line, write_message, write_table
from scheduler.cli.plan_files import PlanFile, plan_source, read_plan
from scheduler.cli.simulate_command import simulate
from scheduler.domain.errors import InvalidPlanError, PlanFault
from scheduler.domain.node import Edge, Node
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.plan_document import read_document
from scheduler.domain.plan_findings import Findings
from scheduler.domain.plan_reading import read_version
from scheduler.domain.plan_schema import plan_schema

plan = typer.Typer(no_args_is_help=True, help="Check, show and simulate campaign plans.")

OptionalPlanFile = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help="The plan whose format is wanted; without it, the newest format's schema."),
]


@plan.command()
def validate(context: typer.Context, file: PlanFile, *, as_json: JsonFlag = False) -> None:
    """Check a plan. Names every fault with its JSON path, and exits with 2 where there are any."""
    try:
        checked = read_plan(context, file)
    except InvalidPlanError as error:
        if as_json:
            write_json(_verdict(file, None, error.faults))
        _say_faults(file, error.faults)
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        write_json(_verdict(file, checked, ()))
        return
    for warning in checked.warnings:
        write_message(f"warning: {warning}")
    write_line(f"{file}: a plan of {len(checked.nodes)} nodes, hash {checked.hash}")


@plan.command()
def show(context: typer.Context, file: PlanFile, *, as_json: JsonFlag = False) -> None:
    """Show a plan as it is understood. Its nodes, transitions, and how long each timeout waits."""
    understood = read_plan(context, file)
    document = _plan_document(understood)
    if as_json:
        write_json(document)
        return
    write_fields({name.replace("_", " "): value for name, value in document.items() if not isinstance(value, list)})
    write_line("")
    write_table(["node", "does", "on", "goes to", "when"], list(_node_rows(understood)))
    for warning in understood.warnings:
        write_message(f"warning: {warning}")


@plan.command("schema")
def show_schema(file: OptionalPlanFile = None) -> None:
    """Print the JSON Schema of plans. Draft 2020-12, for editors and other languages."""
    if file is not None:
        findings = Findings()
        read_version(findings, read_document(plan_source(file)))
        if findings.faults:
            raise InvalidPlanError(findings.faults)
    write_json(plan_schema())


plan.command()(simulate)


def _say_faults(file: str, faults: tuple[PlanFault, ...]) -> None:
    write_message(f"error: {file}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}")
    for fault in faults:
        write_message(f"  {fault}")


def _verdict(file: str, checked: CampaignPlan | None, faults: tuple[PlanFault, ...]) -> dict[str, Any]:
    return {
        "file": file,
        "is_valid": checked is not None,
        "hash": None if checked is None else checked.hash,
        "faults": [_fault_document(fault) for fault in faults],
        "warnings": [] if checked is None else [_fault_document(warning) for warning in checked.warnings],
    }


def _fault_document(fault: PlanFault) -> dict[str, Any]:
    is_plain = fault.value is None or isinstance(fault.value, (str, int, float, bool))
    return {"path": fault.path, "value": fault.value if is_plain else repr(fault.value), "remedy": fault.remedy}


def _plan_document(understood: CampaignPlan) -> dict[str, Any]:
    quiet = understood.quiet_hours
    return {
        "name": understood.name,
        "hash": understood.hash,
        "version": understood.version,
        "timezone": understood.zone.key,
        "quiet_hours": None if quiet is None else f"{quiet.start} to {quiet.end}",
        "start_node_id": understood.start_node_id,
        "max_transitions": understood.max_transitions,
        "exits": list(understood.exits),
        "nodes": [_node_document(node) for node in understood.nodes.values()],
        "warnings": [_fault_document(warning) for warning in understood.warnings],
    }


def _node_document(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "action": node.action,
        "channel": node.channel,
        "subject": node.subject,
        "delay": node.delay.isoformat(),
        "transitions": [_edge_document(edge) for edge in node.edges],
        "timeouts": [
            {"event_type": timer.event_type, "delay": timer.delay.isoformat(), "to": timer.to} for timer in node.timers
        ],
    }


def _edge_document(edge: Edge) -> dict[str, Any]:
    return {
        "on": edge.on,
        "to": edge.to,
        "after": None if edge.after is None else edge.after.isoformat(),
        "within": None if edge.within is None else edge.within.isoformat(),
    }


def _node_rows(understood: CampaignPlan) -> Iterator[list[object]]:
    for node in understood.nodes.values():
        does = node.action if node.delay.is_zero else f"{node.action}, after {node.delay}"
        if not node.edges:
            yield [node.id, does, None, None, None]
        for index, edge in enumerate(node.edges):
            yield [*([node.id, does] if index == 0 else ["", ""]), edge.on, edge.to, _when(node, edge)]


def _when(node: Node, edge: Edge) -> str:
    timer = node.timer(edge.on)
    if timer is not None:
        return f"timeout after {timer.delay}"
    bounds = [f"{name} {bound}" for name, bound in (("after", edge.after), ("within", edge.within)) if bound]
    return " and ".join(bounds) or "any time"
