"""`campaigns show`, `history`; the others of `campaigns` have modules of their own."""

from __future__ import annotations

import typer

from scheduler.cli.action_changes import COLUMNS
from scheduler.cli.documents import action_document, campaign_document, labelled, transition_document
from scheduler.cli.explain_commands import explain, stuck
from scheduler.cli.options import CampaignOption, JsonFlag, TenantOption
from scheduler.cli.output import write_fields, write_json, write_line, write_table
from scheduler.cli.pause_commands import pause, pauses, resume, stop
from scheduler.cli.session import opened
from scheduler.domain.action import UNFINISHED
from scheduler.domain.errors import UnknownCampaignError

campaigns = typer.Typer(no_args_is_help=True, help="Show, explain, pause, resume and stop campaigns.")


@campaigns.command()
def show(context: typer.Context, tenant: TenantOption, campaign: CampaignOption, *, as_json: JsonFlag = False) -> None:
    """Show where a campaign is, and what is still to come."""
    with opened(context) as timeout_scheduler:
        found = timeout_scheduler.campaigns.find(tenant, campaign)
        if found is None:
            raise UnknownCampaignError(tenant, campaign)
        waiting = timeout_scheduler.list_actions(tenant_id=tenant, campaign_id=campaign, statuses=list(UNFINISHED))
    if as_json:
        write_json({**campaign_document(found), "actions": [action_document(action) for action in waiting]})
        return
    write_fields(labelled(campaign_document(found)))
    if waiting:
        write_line("")
        rows = [[getattr(action, name) for name in COLUMNS] for action in waiting]
        write_table([name.replace("_", " ") for name in COLUMNS], rows, title="still to come")


@campaigns.command()
def history(
    context: typer.Context, tenant: TenantOption, campaign: CampaignOption, *, as_json: JsonFlag = False
) -> None:
    """List the visits a campaign has left, the enrolment (visit 0) first."""
    with opened(context) as timeout_scheduler:
        transitions = timeout_scheduler.campaigns.history(tenant, campaign)
    if not transitions:
        raise UnknownCampaignError(tenant, campaign)
    documents = [transition_document(one) for one in transitions]
    if as_json:
        write_json(documents)
        return
    columns = ("node_visit", "from_node_id", "trigger", "to_node_id", "occurred_at", "created_at")
    write_table(
        ["visit", "from", "event", "to", "occurred", "left"],
        [[document[name] for name in columns] for document in documents],
    )


campaigns.command()(explain)
campaigns.command()(stuck)
campaigns.command()(pause)
campaigns.command()(resume)
campaigns.command()(pauses)
campaigns.command()(stop)
