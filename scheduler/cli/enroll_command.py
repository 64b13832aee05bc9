"""`enroll`: one contact, or a file of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from scheduler.cli.bulk import CheckedRows
from scheduler.cli.documents import campaign_document
from scheduler.cli.enrolment_rows import EnrolmentRows
from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_json, write_line
from scheduler.cli.plan_references import PlanReferences
from scheduler.cli.row_files import STANDARD_INPUT, open_rows
from scheduler.cli.session import opened
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.timing import parse_instant
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.service.enrolment import Enrolment

_VARIABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)

TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", metavar="ID", help="The tenant, such as acme. With --from: of the rows that name none."),
]
CampaignOption = Annotated[
    str | None, typer.Option("--campaign", metavar="ID", help="The new campaign: 1 to 128 characters, such as c-1.")
]
ContactOption = Annotated[
    str | None, typer.Option("--contact", metavar="ID", help="The contact: 1 to 128 characters, such as k-1.")
]
PlanOption = Annotated[
    str | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="The plan: a JSON file such as plan.json, or a stored plan's hash. With --from: of the rows without one.",
    ),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="TEXT", help="Where mail goes, such as ada@example.com.")
]
TimezoneOption = Annotated[
    str | None, typer.Option("--timezone", metavar="ZONE", help="The contact's IANA time zone, such as Europe/Berlin.")
]
VariableOption = Annotated[
    list[str] | None,
    typer.Option(
        "--variable", metavar="NAME=VALUE", help="For {{NAME}} in the plan's texts, such as first_name=Ada. Repeatable."
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start-at", metavar="WHEN", help="When the first node is entered (now): such as 2026-03-02T12:00:00Z."
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Enrol every row of a file: JSON Lines (.jsonl) or CSV (.csv) in UTF-8; - is standard input.",
    ),
]
SkipFlag = Annotated[
    bool, typer.Option("--skip-bad", help="With --from: leave bad rows out. Otherwise one of them refuses the file.")
]
RestartFlag = Annotated[
    bool, typer.Option("--restart", help="Let campaigns that are finished begin again, on this plan.")
]


def enroll(
    context: typer.Context,
    tenant: TenantOption = None,
    campaign: CampaignOption = None,
    contact: ContactOption = None,
    plan: PlanOption = None,
    address: AddressOption = None,
    timezone: TimezoneOption = None,
    variables: VariableOption = None,
    start_at: StartOption = None,
    source: FromOption = None,
    *,
    skip_bad: SkipFlag = False,
    restart: RestartFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Start contacts on a plan. One by its options, or all rows of a file in one transaction.

    A campaign that is enrolled already is left as it is, and counted. A suppressed contact is refused; in a file it is
    left out, and counted.

    JSON Lines have the fields tenant_id, campaign_id, contact_id, plan (a file, the plan itself or a hash), start_at
    and contact with address, timezone and variables. CSV has the columns tenant_id, campaign_id, contact_id, start_at,
    address and timezone; every other column is a variable.
    """
    single = {
        "--campaign": campaign,
        "--contact": contact,
        "--address": address,
        "--timezone": timezone,
        "--variable": variables,
        "--start-at": start_at,
    }
    if source is not None:
        _refuse(single, "leave it out: with --from it stands in the file")
        defaults = {"tenant_id": tenant, "plan": plan, "restart": restart}
        _enroll_file(context, source, defaults, skip_bad=skip_bad, as_json=as_json)
        return
    if skip_bad:
        raise InvalidInputError("--skip-bad", None, "leave it out: it belongs to --from")
    _require({"--tenant": tenant, "--campaign": campaign, "--contact": contact, "--plan": plan})
    with opened(context) as timeout_scheduler:
        enrolment = Enrolment(
            tenant_id=tenant or "",
            campaign_id=campaign or "",
            contact_id=contact or "",
            plan=_plans(timeout_scheduler, []).resolve(tenant or "", plan),
            start_at=None if start_at is None else parse_instant("start_at", start_at),
            contact=_contact(address, timezone, variables or []),
            restart=restart,
        )
        _enroll_one(timeout_scheduler, enrolment, as_json=as_json)


def _enroll_one(timeout_scheduler: TimeoutScheduler, enrolment: Enrolment, *, as_json: bool) -> None:
    summary = timeout_scheduler.campaigns.enroll_many([enrolment])
    if summary.suppressed:
        timeout_scheduler.campaigns.enroll(**_as_call(enrolment))  # raises, and says since when and why
    is_new = summary.enrolled == 1
    campaign = timeout_scheduler.campaigns.find(*enrolment.key)
    if as_json:
        write_json({"is_new": is_new, "campaign": None if campaign is None else campaign_document(campaign)})
        return
    if campaign is not None:
        verb = "enrolled" if is_new else "unchanged, it existed already:"
        where = f"{campaign.status} at {campaign.current_node_id}, visit {campaign.node_visit}"
        write_line(f"{verb} {campaign.tenant_id} {campaign.campaign_id} (contact {campaign.contact_id}): {where}")


def _enroll_file(
    context: typer.Context, source: str, defaults: dict[str, Any], *, skip_bad: bool, as_json: bool
) -> None:
    with opened(context) as timeout_scheduler, open_rows(source) as file:
        beside = [] if source == STANDARD_INPUT else [Path(source).parent]
        plan = _plans(timeout_scheduler, []).resolve_default(defaults["plan"])
        rows = EnrolmentRows(_plans(timeout_scheduler, beside), {**defaults, "plan": plan}, is_csv=file.is_csv)
        checked = CheckedRows(file, rows.parse)
        checked.check(skip_bad=skip_bad)
        summary = timeout_scheduler.campaigns.enroll_many(checked.values("enrolling"))
    skipped = len(checked.bad_lines)
    if as_json:
        counts = {"enrolled": summary.enrolled, "existing": summary.existing, "suppressed": summary.suppressed}
        write_json({**counts, "bad_lines": checked.bad_lines})
        return
    suppressed = f"suppressed {summary.suppressed}, " if summary.suppressed else ""
    write_line(
        f"enrolled {summary.enrolled}, existed already {summary.existing}, {suppressed}bad lines left out {skipped}"
    )


def _as_call(enrolment: Enrolment) -> dict[str, Any]:
    return {field.name: getattr(enrolment, field.name) for field in fields(enrolment)}


def _plans(timeout_scheduler: TimeoutScheduler, folders: Sequence[Path]) -> PlanReferences:
    def find_stored(tenant_id: str, plan_hash: str) -> CampaignPlan | None:
        key = (tenant_id, plan_hash)
        with timeout_scheduler.database.reading() as transaction:
            return timeout_scheduler.stores.plans.load(transaction, [key]).get(key)

    return PlanReferences(timeout_scheduler.settings.timer_defaults, find_stored, [*folders, Path()])


def _contact(address: str | None, timezone: str | None, variables: Sequence[str]) -> dict[str, Any] | None:
    given = {"address": address, "timezone": timezone, "variables": _variables(variables) or None}
    return {name: value for name, value in given.items() if value is not None} or None


def _variables(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        match = _VARIABLE.fullmatch(text)
        if match is None:
            raise InvalidInputError("--variable", text, "write name=value, such as first_name=Ada")
        if match[1] in found:
            raise InvalidInputError("--variable", text, f"{match[1]} is given twice; keep one")
        found[match[1]] = match[2]
    return found


def _refuse(options: dict[str, Any], remedy: str) -> None:
    for name, value in options.items():
        if value:
            raise InvalidInputError(name, value, remedy)


def _require(options: dict[str, str | None]) -> None:
    for name, value in options.items():
        if value is None:
            raise InvalidInputError(name, None, "it is missing: give it, or --from FILE for many contacts")
