"""`sends take`, `confirm`, `fail`: for applications in any language that send by themselves."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Final

import typer

from scheduler.cli.failures import FAILED, OPTIONS, naming_options
from scheduler.cli.options import JobArgument, JsonFlag, OptionalTenant
from scheduler.cli.output import write_json, write_line, write_message, write_table
from scheduler.cli.session import opened, settings_of
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.sending import SendRequest
from scheduler.domain.timing import parse_instant
from scheduler.runtime.loading import EXTERNAL

sends = typer.Typer(no_args_is_help=True, help="Take due sends, and say what came of each: with SEND_HANDLER=external.")

_COLUMNS: Final = ("dedupe_key", "channel", "address", "subject", "attempt")
_NAMES: Final = {**OPTIONS, "lease": "--lease", "reason": "--reason", "retry_after": "--retry-after"}

LimitOption = Annotated[int, typer.Option("--limit", metavar="N", help="At most so many, 1 to 10000.")]
LeaseOption = Annotated[
    str | None,
    typer.Option(
        "--lease", metavar="DURATION", help="How long nobody else gets them (SCHEDULER_LEASE): such as PT10M."
    ),
]
SentAtOption = Annotated[
    str | None, typer.Option("--sent-at", metavar="WHEN", help="When it went out (now): such as 2026-03-02T12:00:00Z.")
]
MessageOption = Annotated[
    str | None, typer.Option("--message-id", metavar="ID", help="The provider's message id, by which events name it.")
]
FailureOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="What went wrong; kept, so leave addresses out.")
]
RetryOption = Annotated[
    str | None,
    typer.Option(
        "--retry-after", metavar="DURATION", help="When to try again, such as PT10M, if not after the backoff."
    ),
]
PermanentFlag = Annotated[bool, typer.Option("--permanent", help="Never try this one again.")]


@sends.command()
def take(
    context: typer.Context,
    tenant: OptionalTenant = None,
    limit: LimitOption = 100,
    lease: LeaseOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Take due sends under a lease: nobody else gets them meanwhile. Those not closed when it ends are due again."""
    chosen = settings_of(context).send_handler
    if chosen != EXTERNAL:
        remedy = "set it to external, for the daemon too: else two would send the same mail"
        raise InvalidInputError("SCHEDULER_SEND_HANDLER", chosen, remedy)
    with opened(context) as timeout_scheduler, naming_options(_NAMES):
        found = timeout_scheduler.campaigns.take_sends(limit, tenant, lease)
    if as_json:
        write_json([_document(request) for request in found])
        return
    write_table([name.replace("_", " ") for name in _COLUMNS], [_row(request) for request in found])


@sends.command()
def confirm(
    context: typer.Context,
    job_id: JobArgument,
    sent_at: SentAtOption = None,
    message_id: MessageOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Say that a mail went out. Its timeouts count from then on; saying it again changes nothing."""
    with opened(context) as timeout_scheduler, naming_options({**_NAMES, "sent_at": "--sent-at"}):
        if sent_at is None:
            with timeout_scheduler.database.reading() as transaction:
                instant = transaction.now
        else:
            instant = parse_instant("sent_at", sent_at)
        is_done = timeout_scheduler.campaigns.confirm_send(job_id, instant, message_id)
    _tell("confirmed", is_done, job_id, "there is no such send", as_json=as_json)


@sends.command()
def fail(
    context: typer.Context,
    job_id: JobArgument,
    reason: FailureOption,
    retry_after: RetryOption = None,
    *,
    permanent: PermanentFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Say that a mail couldn't be sent. It is tried again, or, when it can't be, its campaign goes on without it."""
    with opened(context) as timeout_scheduler, naming_options(_NAMES):
        is_done = timeout_scheduler.campaigns.fail_send(job_id, reason, retry_after, permanent)
    _tell("failed", is_done, job_id, "it isn't handed out, nor due", as_json=as_json)


def _tell(
    word: str,
    is_done: bool,  # noqa: FBT001 - the answer of the call, next to its word
    job_id: str,
    otherwise: str,
    *,
    as_json: bool,
) -> None:
    if as_json:
        write_json({word: is_done, "job_id": job_id})
    elif is_done:
        write_line(f"{word}: {job_id}")
    if not is_done:
        write_message(f"error: not {word}: {job_id}: {otherwise}")
        raise typer.Exit(FAILED)


def _document(request: SendRequest) -> dict[str, Any]:
    return {field.name: getattr(request, field.name) for field in fields(request)}


def _row(request: SendRequest) -> list[object]:
    return [getattr(request, name) for name in _COLUMNS]
