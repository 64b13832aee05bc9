"""Everything this package raises on purpose.

SchedulerError
├── InvalidInputError            a value the caller passed; nothing was written
│   └── InvalidPlanError         every fault of a plan, with its JSON path
├── UnknownCampaignError         no such campaign for this tenant
├── SchemaOutdatedError          the database's schema is not the one this version needs
├── AlreadyRunningError          another process fires on this SQLite file
├── DatabaseUnavailableError     the database can't be reached or didn't answer in time
├── MissingRightError            the database's role may not do this
├── RetryLater                   raised by a send handler: try this send again
└── PermanentSendError           raised by a send handler: never try this send again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


class SchedulerError(Exception):
    """The root of this package's exceptions."""


class InvalidInputError(SchedulerError, ValueError):
    """A value from outside is not usable; nothing was written.

    `field` names it as the caller knows it, `value` is what came, `remedy` says what would be right.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field = field
        self.value = value
        self.remedy = remedy
        super().__init__(f"{field}: {shorten(value)} is not usable: {remedy}")

    def __reduce__(self) -> tuple[type[InvalidInputError], tuple[str, object, str]]:
        return (InvalidInputError, (self.field, self.value, self.remedy))


@dataclass(frozen=True, slots=True)
class PlanFault:
    """One fault or warning of a plan: where (JSON path, as `$.nodes[1].id`), what stood there, what would be right."""

    path: str
    value: object
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {shorten(self.value)}: {self.remedy}"


class InvalidPlanError(InvalidInputError):
    """A plan with one or more faults; `faults` names every one of them."""

    def __init__(self, faults: Sequence[PlanFault]) -> None:
        self.faults = tuple(faults)
        first = self.faults[0]
        super().__init__(first.path, first.value, first.remedy)
        self.args = ("the plan is not usable:\n" + "\n".join(f"  {fault}" for fault in self.faults),)

    def __reduce__(self) -> tuple[type[InvalidPlanError], tuple[tuple[PlanFault, ...]]]:  # type: ignore[override]
        return (InvalidPlanError, (self.faults,))


class UnknownCampaignError(SchedulerError, LookupError):
    """No such campaign for this tenant."""

    def __init__(self, tenant_id: str, campaign_id: str) -> None:
        self.tenant_id = tenant_id
        self.campaign_id = campaign_id
        super().__init__(f"tenant {tenant_id!r} has no campaign {campaign_id!r}: enroll it first")

    def __reduce__(self) -> tuple[type[UnknownCampaignError], tuple[str, str]]:
        return (UnknownCampaignError, (self.tenant_id, self.campaign_id))


class SchemaOutdatedError(SchedulerError):
    """The database's schema is not the one this version needs: run `timeout-scheduler db upgrade`."""


class AlreadyRunningError(SchedulerError):
    """Another process fires on this SQLite file; only one may at a time."""


class DatabaseUnavailableError(SchedulerError):
    """The database can't be reached, or didn't answer in time; the same call may be made again."""


class MissingRightError(SchedulerError):
    """The role that is connected to the database may not do this; nothing was written."""


class RetryLater(SchedulerError):  # noqa: N818 - the name is part of the public contract
    """Raised by a send handler: try this send again, after `after` (a `timedelta`; None: the usual backoff)."""

    def __init__(self, after: timedelta | None = None, reason: str = "the send handler asked for a retry") -> None:
        if not _is_delay(after):
            raise InvalidInputError("after", after, "give a timedelta, not negative, or None")
        self.after = after
        self.reason = reason
        super().__init__(reason)

    def __reduce__(self) -> tuple[type[RetryLater], tuple[timedelta | None, str]]:
        return (RetryLater, (self.after, self.reason))


class PermanentSendError(SchedulerError):
    """Raised by a send handler: this send will never succeed; don't try it again."""


def _is_delay(value: object) -> bool:
    return value is None or (isinstance(value, timedelta) and value >= timedelta(0))


def shorten(value: object, limit: int = 200) -> str:
    """`repr(value)`, cut so that a bad value can't flood a terminal or a log line."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deeply to be shown"
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
