"""`contacts suppress`, `unsuppress`, `erase`: who must not be approached any more, and who is to be forgotten."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli.options import ActorOption, ContactOption, JsonFlag, TenantOption
from scheduler.cli.output import write_json, write_line
from scheduler.cli.session import opened
from scheduler.cli.texts import require_text, who_does_it

contacts = typer.Typer(no_args_is_help=True, help="Suppress contacts, let them be approached again, forget them.")

ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help='Why, for the record, such as "asked by phone".')
]


@contacts.command()
def suppress(
    context: typer.Context,
    tenant: TenantOption,
    contact: ContactOption,
    reason: ReasonOption,
    actor: ActorOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Approach a contact no more. Its campaigns stop, and new ones are refused; it may be unknown yet."""
    with opened(context) as timeout_scheduler:
        who, why = who_does_it(actor), require_text("--reason", reason) or ""
        is_new = timeout_scheduler.campaigns.suppress(tenant, contact, why, actor=who)
    _tell("suppressed", contact, "it was suppressed already", is_done=is_new, as_json=as_json)


@contacts.command()
def unsuppress(
    context: typer.Context,
    tenant: TenantOption,
    contact: ContactOption,
    actor: ActorOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Let a contact be approached again. Stopped campaigns stay so; `enroll --restart` begins one again."""
    with opened(context) as timeout_scheduler:
        is_done = timeout_scheduler.campaigns.unsuppress(tenant, contact, actor=who_does_it(actor))
    _tell("unsuppressed", contact, "it wasn't suppressed", is_done=is_done, as_json=as_json)


@contacts.command()
def erase(
    context: typer.Context,
    tenant: TenantOption,
    contact: ContactOption,
    actor: ActorOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Remove a contact's personal data, for good. Its campaigns stop; its id, its history and a suppression stay."""
    with opened(context) as timeout_scheduler:
        is_done = timeout_scheduler.campaigns.erase(tenant, contact, actor=who_does_it(actor))
    _tell("erased", contact, "nothing is known of it", is_done=is_done, as_json=as_json)


def _tell(word: str, contact: str, otherwise: str, *, is_done: bool, as_json: bool) -> None:
    """What is so already is no failure: the contact is as it was asked for."""
    if as_json:
        write_json({word: is_done, "contact_id": contact})
    else:
        write_line(f"{word}: {contact}" if is_done else f"unchanged: {contact}: {otherwise}")
