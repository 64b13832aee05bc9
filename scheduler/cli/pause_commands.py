"""`campaigns pause`, `resume`, `pauses`, `stop`: one campaign, a tenant, everything; and all sending (`--sends`).

`pause` and `resume` are commands of their own, too: whoever has to stop all mail is in a hurry.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from scheduler.cli.documents import campaign_document
from scheduler.cli.failures import naming_options
from scheduler.cli.options import ActorOption, CampaignOption, JsonFlag, OptionalTenant, TenantOption
from scheduler.cli.output import human, write_json, write_line, write_table
from scheduler.cli.session import opened
from scheduler.cli.texts import require_text, who_does_it
from scheduler.domain.campaign import Campaign
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.pausing import BUCKETS, DueCounts, Pause, ResumePreview, ResumeSummary, Scope
from scheduler.domain.timing import Duration

ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help='Why, for the record, such as "on holiday".')
]
WhoseOption = Annotated[
    str | None,
    typer.Option("--tenant", metavar="ID", help="The tenant, such as acme: all of it, unless --campaign is given."),
]
OneOption = Annotated[
    str | None, typer.Option("--campaign", metavar="ID", help="One campaign of the tenant, such as c-1.")
]
AllFlag = Annotated[bool, typer.Option("--all", help="Everything, of every tenant.")]
SendsFlag = Annotated[
    bool, typer.Option("--sends", help="Only mails, of every tenant unless --tenant is given: timeouts go on.")
]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="POLICY",
        help="shift: the pause doesn't count, deadlines move by its length. keep: what is overdue fires now.",
    ),
]
SpreadOption = Annotated[
    str | None,
    typer.Option("--spread", metavar="DURATION", help="Spread what would fire at once over this long, such as PT1H."),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Only show how many would fire when.")]

_FIELDS: Final = {"policy": "--policy", "spread": "--spread", "actor": "--actor", "reason": "--reason"}


def pause(
    context: typer.Context,
    tenant: WhoseOption = None,
    campaign: OneOption = None,
    actor: ActorOption = None,
    reason: ReasonOption = None,
    *,
    everything: AllFlag = False,
    sends: SendsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Hold a campaign, a tenant or everything; or all mail. Nothing of it fires, and nothing is lost."""
    _require_scope(tenant, campaign, everything=everything, sends=sends)
    with opened(context) as timeout_scheduler, naming_options(_FIELDS):
        who, why = who_does_it(actor), require_text("--reason", reason)
        campaigns = timeout_scheduler.campaigns
        if sends:
            paused = campaigns.pause_sends(tenant, actor=who, reason=why)
        elif tenant is not None and campaign is not None:
            tell(campaigns.pause(tenant, campaign, actor=who, reason=why), as_json=as_json)
            return
        elif tenant is None:
            paused = campaigns.pause_all(actor=who, reason=why)
        else:
            paused = campaigns.pause_tenant(tenant, actor=who, reason=why)
    if as_json:
        write_json(asdict(paused))
    else:
        write_line(f"{_name(tenant, sends=sends)}: paused since {human(paused.started_at)}")


def resume(
    context: typer.Context,
    tenant: WhoseOption = None,
    campaign: OneOption = None,
    policy: PolicyOption = "shift",
    spread: SpreadOption = None,
    actor: ActorOption = None,
    reason: ReasonOption = None,
    *,
    everything: AllFlag = False,
    sends: SendsFlag = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a paused campaign, tenant, everything, or all mail go on. With --dry-run: say what would fire when."""
    _require_scope(tenant, campaign, everything=everything, sends=sends)
    how: dict[str, Any] = {"policy": policy, "spread": spread}
    with opened(context) as timeout_scheduler, naming_options(_FIELDS):
        who, why = who_does_it(actor), require_text("--reason", reason)
        campaigns = timeout_scheduler.campaigns
        if dry_run and sends:
            _show(campaigns.preview_resume_sends(tenant, spread), as_json=as_json)
            return
        if dry_run:
            _show(campaigns.preview_resume(tenant, campaign, **how), as_json=as_json)
            return
        if tenant is not None and campaign is not None:
            tell(campaigns.resume(tenant, campaign, **how, actor=who, reason=why), as_json=as_json)
            return
        if sends:
            done = campaigns.resume_sends(tenant, spread=spread, actor=who, reason=why)
        elif tenant is None:
            done = campaigns.resume_all(**how, actor=who, reason=why)
        else:
            done = campaigns.resume_tenant(tenant, **how, actor=who, reason=why)
    _tell_resumed(done, as_json=as_json)


def pauses(context: typer.Context, tenant: OptionalTenant = None, *, as_json: JsonFlag = False) -> None:
    """List what is paused, since when, by whom and why, the widest first."""
    with opened(context) as timeout_scheduler:
        found = timeout_scheduler.campaigns.pauses(tenant)
    if as_json:
        write_json([asdict(one) for one in found])
        return
    if not found:
        write_line("nothing is paused")
        return
    columns = ["scope", "tenant", "campaign", "action", "since", "by", "reason"]
    write_table(columns, [_row(one) for one in found])


def stop(
    context: typer.Context,
    tenant: TenantOption,
    campaign: CampaignOption,
    actor: ActorOption = None,
    reason: ReasonOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """End a campaign now, and cancel everything pending for it. A finished one is left as it is."""
    with opened(context) as timeout_scheduler:
        who, why = who_does_it(actor), require_text("--reason", reason)
        tell(timeout_scheduler.campaigns.stop(tenant, campaign, actor=who, reason=why), as_json=as_json)


def tell(campaign: Campaign, *, as_json: bool) -> None:
    """What a campaign is now."""
    if as_json:
        write_json(campaign_document(campaign))
    else:
        where = f"at {campaign.current_node_id}, visit {campaign.node_visit}"
        write_line(f"{campaign.tenant_id} {campaign.campaign_id}: {campaign.status}, {where}")


def _require_scope(tenant: str | None, campaign: str | None, *, everything: bool, sends: bool) -> None:
    """Nobody's campaigns are paused because a word was forgotten."""
    if sends and campaign is not None:
        raise InvalidInputError("--campaign", None, "leave out --campaign, or --sends: a campaign is paused as a whole")
    if everything and (tenant is not None or campaign is not None):
        raise InvalidInputError("--all", None, "leave out --tenant and --campaign, or --all")
    if tenant is None and campaign is not None:
        raise InvalidInputError("--tenant", None, "give the campaign's tenant")
    if tenant is None and not everything and not sends:
        raise InvalidInputError(
            "--tenant", None, "give a tenant, with --campaign one campaign of it, --all, or --sends"
        )


def _name(tenant_id: str | None, *, sends: bool) -> str:
    if sends:
        return "all mail" if tenant_id is None else f"mail of {tenant_id}"
    return "everything" if tenant_id is None else tenant_id


def _row(one: Pause) -> list[object]:
    return [one.scope, one.tenant_id, one.campaign_id, one.dedupe_key, one.started_at, one.actor, one.reason]


def _tell_resumed(done: ResumeSummary, *, as_json: bool) -> None:
    name = _name(done.tenant_id, sends=done.scope == Scope.SENDS)
    if as_json:
        write_json(_with_duration(asdict(done)))
    elif done.started_at is None:
        write_line(f"unchanged: {name} isn't paused")
    else:
        counts = f"campaigns {done.campaigns}, actions moved {done.moved}, woken {done.woken}"
        write_line(f"{name}: resumed, was paused since {human(done.started_at)}; {counts}")


def _show(preview: ResumePreview, *, as_json: bool) -> None:
    counts = {**preview.by_type, "all": preview.due}
    if as_json:
        due = {name: {**asdict(one), "total": one.total} for name, one in counts.items()}
        document = _with_duration(asdict(preview))
        document["due"] = due.pop("all")
        write_json({**document, "by_type": due})
    elif preview.started_at is None:
        write_line("unchanged: it isn't paused")
    else:
        write_table(["due", *counts], [[_label(name), *_counts(counts, name)] for name in (*BUCKETS, "total")])
        if preview.still_held:
            write_line(f"held by another pause: {preview.still_held}")


def _counts(counts: dict[str, DueCounts], name: str) -> list[object]:
    return [getattr(one, name) for one in counts.values()]


def _label(name: str) -> str:
    return name.replace("_", " ")


def _with_duration(document: dict[str, Any]) -> dict[str, Any]:
    spread = document["spread"]
    return {**document, "spread": None if spread is None else Duration(exact=spread).isoformat()}
