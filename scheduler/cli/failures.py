"""From an error to what the user reads and the exit code the shell gets. Never a traceback, unless it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from scheduler.domain.errors import (
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidPlanError,
    SchedulerError,
)

DONE: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130

_LONGEST_REASON: Final = 300

OPTIONS: Final[Mapping[str, str]] = {
    "tenant_id": "--tenant",
    "campaign_id": "--campaign",
    "contact_id": "--contact",
    "node_id": "--node",
    "node_visit": "--visit",
    "event_id": "--event-id",
    "message_id": "--message-id",
    "occurred_at": "--occurred-at",
    "metadata": "--metadata",
    "start_at": "--start-at",
    "contact.address": "--address",
    "contact.timezone": "--timezone",
    "contact.variables": "--variable",
    "plan": "--plan",
    "due_before": "--due-before",
    "limit": "--limit",
    "job_id": "JOB_ID",
    "database_url": "SCHEDULER_DATABASE_URL",
    "send_handler": "SCHEDULER_SEND_HANDLER",
    "state_manager": "SCHEDULER_STATE_MANAGER",
}


def explain(error: SchedulerError) -> list[str]:
    """The lines that say what is wrong and what would be right."""
    if isinstance(error, InvalidPlanError):
        count = len(error.faults)
        return [f"the plan has {count} {'fault' if count == 1 else 'faults'}:", *(f"  {one}" for one in error.faults)]
    if isinstance(error, InvalidInputError):
        return [f"{error.field}: {error.remedy}" if error.value is None else str(error)]
    if isinstance(error, DatabaseUnavailableError):
        return [f"the database can't be used: {error}"]
    return [str(error) or type(error).__name__]


def explain_unexpected(error: Exception) -> str:
    """The one line about an error that nobody foresaw."""
    reason = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"unexpected {type(error).__name__}: {reason[:_LONGEST_REASON]} (--traceback shows where)"


def exit_code_of(error: SchedulerError) -> int:
    """2 for what the caller gave, 1 for everything else."""
    return BAD_INPUT if isinstance(error, InvalidInputError) else FAILED


@contextmanager
def naming_options(options: Mapping[str, str] = OPTIONS) -> Iterator[None]:
    """Faults of fields are told by the name of the option that gave the field."""
    try:
        yield
    except InvalidPlanError:
        raise
    except InvalidInputError as error:
        if error.field not in options:
            raise
        raise InvalidInputError(options[error.field], error.value, error.remedy) from None
