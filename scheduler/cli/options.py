"""Options that several commands share, each with its one help text."""

from __future__ import annotations

from typing import Annotated

import typer

ID_HELP = "1 to 128 characters, such as"

TenantOption = Annotated[str, typer.Option("--tenant", metavar="ID", help=f"The tenant: {ID_HELP} acme.")]
CampaignOption = Annotated[str, typer.Option("--campaign", metavar="ID", help=f"The campaign: {ID_HELP} c-1.")]
ContactOption = Annotated[str, typer.Option("--contact", metavar="ID", help=f"The contact: {ID_HELP} k-1.")]

OptionalTenant = Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Only this tenant, such as acme.")]
OptionalCampaign = Annotated[
    str | None, typer.Option("--campaign", metavar="ID", help="Only this campaign, such as c-1.")
]

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB_ID",
        help="The action's dedupe key, as `actions list` shows it: acme:c-1:email_intro:1:timeout:no_open.",
    ),
]

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text for people.")]

ActorOption = Annotated[
    str | None, typer.Option("--actor", metavar="NAME", help="Who does this, for the record, if not who is logged in.")
]
