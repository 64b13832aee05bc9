"""`actions cancel`, `retry`: one action by its job id, or all that the options describe, with a dry run."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from scheduler.cli.documents import action_document
from scheduler.cli.failures import FAILED
from scheduler.cli.options import ActorOption, JsonFlag, OptionalCampaign, OptionalTenant
from scheduler.cli.output import write_json, write_line, write_message, write_table
from scheduler.cli.session import opened
from scheduler.cli.texts import require_text, who_does_it
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction, require_id, tenant_of
from scheduler.domain.bulk import BulkFilter, BulkPreview, BulkProgress, Verb
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.timing import parse_duration, parse_instant
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.service.bulk import BulkChanges
from scheduler.service.reopening import Reopening

COLUMNS: Final = ("run_at", "status", "outcome", "attempts", "dedupe_key")
_DONE: Final = {Verb.RETRY: "retried", Verb.CANCEL: "canceled", Verb.GIVE_UP: "given up"}

OneJob = Annotated[
    str | None,
    typer.Argument(
        metavar="JOB_ID",
        help="One action's dedupe key, as `actions list` shows it; without it, all that the options describe.",
    ),
]
NodeFilter = Annotated[str | None, typer.Option("--node", metavar="ID", help="Only this node, such as email_intro.")]
TypeOption = Annotated[
    ActionType | None, typer.Option("--type", metavar="TYPE", help="Only one kind: timeout or send.")
]
EventFilter = Annotated[str | None, typer.Option("--event", metavar="TYPE", help="Only this event, such as no_open.")]
ErrorFilter = Annotated[
    str | None,
    typer.Option("--error", metavar="TEXT", help='Only those whose last failed attempt said this, such as "refused".'),
]
FailureFilter = Annotated[
    str | None,
    typer.Option(
        "--reason",
        "--error",
        metavar="TEXT",
        help='Only those that failed for this: a part of what the last attempt said, such as "refused".',
    ),
]
FailedSince = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="Only what failed since: 2026-03-02T12:00:00Z, or PT2H for two hours ago."
    ),
]
ScheduledSince = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="Only what was scheduled since: 2026-03-02T12:00:00Z, or PT2H: two hours ago."
    ),
]
AllFlag = Annotated[bool, typer.Option("--all", help="Of every tenant.")]
InErrorFlag = Annotated[
    bool, typer.Option("--in-error", help="Those in error instead, to give them up: nobody will retry them.")
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Only count them, and show the first.")]
ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help='Why, for the record, such as "left the company".'),
]


def cancel(
    context: typer.Context,
    job_id: OneJob = None,
    tenant: OptionalTenant = None,
    campaign: OptionalCampaign = None,
    node: NodeFilter = None,
    event: EventFilter = None,
    action_type: TypeOption = None,
    error: ErrorFilter = None,
    since: ScheduledSince = None,
    reason: ReasonOption = None,
    actor: ActorOption = None,
    *,
    in_error: InErrorFlag = False,
    everything: AllFlag = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Cancel unfinished actions: one, or all that the options describe. Campaigns go on, and may wait for ever.

    With --in-error those that failed for good: their campaigns stay as they are.
    """
    who, why = who_does_it(actor), require_text("--reason", reason)
    given = {"tenant": tenant, "campaign": campaign, "node": node, "event": event, "type": action_type}
    given |= {"error": error, "since": since}
    _require_one_or_many(job_id, given, everything=everything, dry_run=dry_run)
    with opened(context) as timeout_scheduler:
        if job_id is None:
            verb = Verb.GIVE_UP if in_error else Verb.CANCEL
            changes = _changes(timeout_scheduler, verb, _filter(timeout_scheduler, given))
            _do(changes, verb, who, why, dry_run=dry_run, as_json=as_json)
            return
        if in_error:
            _give_up(timeout_scheduler, job_id, who, why, as_json=as_json)
            return
        is_done = timeout_scheduler.cancel(job_id, why, actor=who)
        action = timeout_scheduler.find(job_id)
    _tell("canceled", is_done, job_id, action, as_json=as_json)


def retry(
    context: typer.Context,
    job_id: OneJob = None,
    tenant: OptionalTenant = None,
    campaign: OptionalCampaign = None,
    node: NodeFilter = None,
    event: EventFilter = None,
    action_type: TypeOption = None,
    reason: FailureFilter = None,
    since: FailedSince = None,
    actor: ActorOption = None,
    *,
    everything: AllFlag = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Give actions in error new attempts, from now on: one, or all that the options describe."""
    who = who_does_it(actor)
    given = {"tenant": tenant, "campaign": campaign, "node": node, "event": event, "type": action_type}
    given |= {"error": reason, "since": since}
    _require_one_or_many(job_id, given, everything=everything, dry_run=dry_run)
    with opened(context) as timeout_scheduler:
        if job_id is None:
            changes = _changes(timeout_scheduler, Verb.RETRY, _filter(timeout_scheduler, given))
            _do(changes, Verb.RETRY, who, None, dry_run=dry_run, as_json=as_json)
            return
        is_done = timeout_scheduler.retry(job_id, actor=who)
        action = timeout_scheduler.find(job_id)
        is_left = action is not None and action.status == ActionStatus.ERROR and _is_left(timeout_scheduler, action)
    _tell("retried", is_done, job_id, action, as_json=as_json, is_left=is_left)


def _changes(timeout_scheduler: TimeoutScheduler, verb: Verb, wanted: BulkFilter) -> BulkChanges:
    reopening = Reopening(timeout_scheduler.stores, timeout_scheduler.settings, timeout_scheduler.metrics)
    return BulkChanges(timeout_scheduler.stores, verb, wanted, reopening)


def _give_up(timeout_scheduler: TimeoutScheduler, job_id: str, who: str, why: str | None, *, as_json: bool) -> None:
    wanted = BulkFilter(tenant_id=tenant_of(job_id), dedupe_key=job_id)
    changes = _changes(timeout_scheduler, Verb.GIVE_UP, wanted)
    is_done = any(progress.done for progress in changes.run(who, why))
    _tell("given up", is_done, job_id, timeout_scheduler.find(job_id), as_json=as_json)


def unknown(job_id: str) -> typer.Exit:
    """There is no such action."""
    write_message(f"error: there is no action {job_id!r}: `actions list` shows those there are")
    return typer.Exit(FAILED)


def _require_one_or_many(job_id: str | None, given: dict[str, Any], *, everything: bool, dry_run: bool) -> None:
    """Nobody's actions are changed because a word was forgotten."""
    options = [f"--{name}" for name, value in given.items() if value is not None]
    options += [*(["--all"] if everything else []), *(["--dry-run"] if dry_run else [])]
    if job_id is not None and options:
        raise InvalidInputError("JOB_ID", job_id, f"leave it out, or {', '.join(options)}")
    if everything and given["tenant"] is not None:
        raise InvalidInputError("--all", None, "leave out --tenant, or --all")
    if job_id is None and given["tenant"] is None and not everything:
        raise InvalidInputError("JOB_ID", None, "give it, or --tenant, or --all, with what else describes the actions")
    if given["campaign"] is not None and given["tenant"] is None:
        raise InvalidInputError("--tenant", None, "give the campaign's tenant")


def _filter(timeout_scheduler: TimeoutScheduler, given: dict[str, Any]) -> BulkFilter:
    names = {"tenant": "tenant_id", "campaign": "campaign_id", "node": "node_id", "event": "event_type"}
    ids = {field: None if given[name] is None else require_id(field, given[name]) for name, field in names.items()}
    return BulkFilter(
        tenant_id=ids["tenant_id"],
        campaign_id=ids["campaign_id"],
        node_id=ids["node_id"],
        event_type=ids["event_type"],
        action_type=given["type"],
        error=require_text("--error", given["error"]),
        since=_since(timeout_scheduler, given["since"]),
    )


def _since(timeout_scheduler: TimeoutScheduler, text: str | None) -> datetime | None:
    if text is None or not text.upper().startswith("P"):
        return None if text is None else parse_instant("--since", text)
    duration = parse_duration("--since", text)
    if duration.months:
        raise InvalidInputError("--since", text, "use weeks, days, hours, minutes and seconds, or an instant")
    with timeout_scheduler.database.reading() as transaction:
        return transaction.now - duration.exact


def _do(changes: BulkChanges, verb: Verb, actor: str, reason: str | None, *, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        _show(changes.preview(), verb, as_json=as_json)
        return
    progress = BulkProgress()
    try:
        for progress in changes.run(actor, reason):
            _show_progress(verb, progress)
    finally:
        _clear_progress()
        _tell_all(verb, progress, as_json=as_json)
    if progress.busy:
        raise typer.Exit(FAILED)


def _show(preview: BulkPreview, verb: Verb, *, as_json: bool) -> None:
    if as_json:
        sample = [action_document(action) for action in preview.sample]
        write_json({**asdict(preview), "sample": sample})
        return
    held = f"; {preview.left} of visits left already, which stay as they are" if preview.left else ""
    fired = f"; {preview.claimed} are being fired, and may end before" if preview.claimed else ""
    write_line(f"would be {_DONE[verb]}: {preview.matched - preview.left}{held}{fired}")
    if preview.sample:
        rows = [[getattr(action, name) for name in (*COLUMNS, "last_error")] for action in preview.sample]
        write_table([name.replace("_", " ") for name in (*COLUMNS, "last_error")], rows, title="the first of them")


def _tell_all(verb: Verb, progress: BulkProgress, *, as_json: bool) -> None:
    if as_json:
        write_json({_DONE[verb].replace(" ", "_"): progress.done, "left": progress.left, "busy": progress.busy})
        return
    write_line(f"{_DONE[verb]}: {progress.done}")
    if progress.left:
        write_line(f"left as they are, their visits having been left: {progress.left}")
    if progress.busy:
        write_message(f"error: {progress.busy} belong to campaigns that somebody holds; run it again")


def _show_progress(verb: Verb, progress: BulkProgress) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{_DONE[verb]}: {progress.done}")
        sys.stderr.flush()


def _clear_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _is_left(timeout_scheduler: TimeoutScheduler, action: ScheduledAction) -> bool:
    campaign = timeout_scheduler.campaigns.find(action.tenant_id, action.campaign_id)
    return campaign is not None and not campaign.lets_retry(action.action_type, action.node_visit)


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
        raise unknown(job_id)
    if as_json:
        write_json({word.replace(" ", "_"): is_done, "action": action_document(action)})
    elif is_done:
        write_line(f"{word}: {job_id}")
    if not is_done:
        reason = "its visit was left already" if is_left else f"it is {action.status}"
        write_message(f"error: not {word}: {job_id}: {reason}")
        raise typer.Exit(FAILED)
