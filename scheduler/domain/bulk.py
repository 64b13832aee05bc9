"""Many actions retried, canceled or given up by hand, as values: which of them, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from scheduler.domain.action import ScheduledAction


class Verb(StrEnum):
    """What is done to them; its value is the log event of a single one."""

    RETRY = "action.retried"
    CANCEL = "action.canceled"
    GIVE_UP = "action.given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkFilter:
    """Which actions: all that is given has to hold.

    `error` is a part of what the last failed attempt said. `since` is when they failed for good (to retry, or to give
    up), or were scheduled (to cancel); `until` is when the work began: what comes later is left alone.
    """

    tenant_id: str | None = None
    campaign_id: str | None = None
    node_id: str | None = None
    event_type: str | None = None
    action_type: str | None = None
    dedupe_key: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def document(self) -> dict[str, Any]:
        """What was given, for the record."""
        names = ("tenant_id", "campaign_id", "node_id", "event_type", "action_type", "dedupe_key", "error")
        given = {name: getattr(self, name) for name in names}
        given["since"] = None if self.since is None else self.since.isoformat()
        return {name: value for name, value in given.items() if value is not None}


class Found(NamedTuple):
    """One of them, as much as is needed to change it."""

    tenant_id: str
    dedupe_key: str
    campaign_id: str
    node_visit: int
    action_type: str
    run_at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """Its row."""
        return (self.tenant_id, self.dedupe_key)

    @property
    def campaign_key(self) -> tuple[str, str]:
        """Its campaign's row."""
        return (self.tenant_id, self.campaign_id)


@dataclass(frozen=True, slots=True)
class BulkPreview:
    """What it would do now: `left` are of visits left already, `claimed` being fired, `sample` the first."""

    matched: int
    left: int
    claimed: int
    sample: tuple[ScheduledAction, ...]


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """What has been done so far.

    `left` were of visits that had been left, `busy` of campaigns that somebody held: calling again takes those.
    """

    done: int = 0
    left: int = 0
    busy: int = 0

    def plus(self, other: BulkProgress) -> BulkProgress:
        """Both together."""
        return BulkProgress(self.done + other.done, self.left + other.left, self.busy + other.busy)
