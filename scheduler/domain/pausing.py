"""Pauses as values: what is paused, what a resume does with the time that passed, and what would fire then.

How much of a pause counts for a campaign is `counted_length`; the statements of `store.resuming` do the same arithmetic
for many campaigns at once, and a property test holds them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from scheduler.domain.errors import InvalidInputError
from scheduler.domain.timing import parse_duration


class Scope(StrEnum):
    """How much one pause holds."""

    ALL = "all"
    TENANT = "tenant"
    SENDS = "sends"
    CAMPAIGN = "campaign"
    ACTION = "action"


class ResumePolicy(StrEnum):
    """What becomes of the time that passed: it doesn't count, or everything stays due when it was."""

    SHIFT = "shift"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that holds at present; `scope` is all, tenant, sends, campaign or action (that of `dedupe_key`)."""

    scope: str
    started_at: datetime
    actor: str | None
    reason: str | None
    dedupe_key: str | None = None
    tenant_id: str | None = None
    campaign_id: str | None = None


@dataclass(frozen=True, slots=True)
class Paused:
    """What is to be paused or resumed: one campaign, one tenant (no campaign), or everything (neither).

    With `sends` only the mails of the tenant, or of all: timeouts go on.
    """

    tenant_id: str | None = None
    campaign_id: str | None = None
    sends: bool = False

    @property
    def scope(self) -> Scope:
        """How much it is."""
        if self.sends:
            return Scope.SENDS
        if self.tenant_id is None:
            return Scope.ALL
        return Scope.TENANT if self.campaign_id is None else Scope.CAMPAIGN

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and campaign as `pauses` has them: '' where the scope is wider."""
        return (self.tenant_id or "", self.campaign_id or "")


@dataclass(frozen=True, slots=True)
class Resumption:
    """How to resume: the policy, and over how long to spread what would fire at once (None: not at all)."""

    policy: ResumePolicy = ResumePolicy.SHIFT
    spread: timedelta | None = None

    @classmethod
    def of(cls, policy: str, spread: timedelta | str | None) -> Resumption:
        """From what a caller gave; raises InvalidInputError."""
        known = [str(one) for one in ResumePolicy]
        if policy not in known:
            raise InvalidInputError("policy", policy, f"give {' or '.join(known)}")
        return cls(ResumePolicy(policy), _read_spread(spread))

    @property
    def moves(self) -> bool:
        """Whether any instant may move."""
        return self.policy == ResumePolicy.SHIFT or self.spread is not None


@dataclass(frozen=True, slots=True)
class DueCounts:
    """How many actions would fire when, each counted once: at once, within a minute of now, an hour, a day, ..."""

    at_once: int = 0
    within_minute: int = 0
    within_hour: int = 0
    within_day: int = 0
    within_week: int = 0
    later: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, name) for name in BUCKETS)

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> DueCounts:
        """From counts by bucket."""
        return cls(**{name: counts.get(name, 0) for name in BUCKETS})


BUCKETS: Final = ("at_once", "within_minute", "within_hour", "within_day", "within_week", "later")
HORIZONS: Final[Mapping[str, timedelta]] = {
    "at_once": timedelta(0),
    "within_minute": timedelta(minutes=1),
    "within_hour": timedelta(hours=1),
    "within_day": timedelta(days=1),
    "within_week": timedelta(weeks=1),
}
"""Each bucket but the last with how far from now it ends, the end included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePreview:
    """What a resume would do as of `as_of`. `started_at` is None where nothing of that scope is paused.

    `due` counts what would go on, `by_type` the same per action type. `still_held` is what another pause, or one of the
    action itself, would go on holding.
    """

    scope: str
    tenant_id: str | None
    campaign_id: str | None
    policy: str
    spread: timedelta | None
    as_of: datetime
    started_at: datetime | None
    due: DueCounts = DueCounts()
    by_type: Mapping[str, DueCounts]
    still_held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeSummary:
    """What a resume did. `started_at` is when the pause began, None where there was none and nothing changed.

    `campaigns` are the unfinished ones it covered, `moved` the actions that got other instants, `woken` those that are
    no longer `paused`.
    """

    scope: str
    tenant_id: str | None
    policy: str
    spread: timedelta | None
    started_at: datetime | None
    campaigns: int = 0
    moved: int = 0
    woken: int = 0


def counted_length(started_at: datetime, counts_from: datetime, others: Iterable[datetime], now: datetime) -> timedelta:
    """How much of a pause that is lifted now counts for a campaign whose time runs since `counts_from`.

    `others` are the starts of other pauses that go on holding it: they will count the rest when they are lifted, so
    that what is paused twice counts once, in whatever order pauses end.
    """
    until = min([now, *others])
    return max(until - max(started_at, min(counts_from, now)), timedelta(0))


def _read_spread(spread: timedelta | str | None) -> timedelta | None:
    if spread is None:
        return None
    duration = parse_duration("spread", spread)
    if duration.months:
        raise InvalidInputError("spread", spread, "use weeks, days, hours, minutes and seconds, such as PT1H")
    if not duration.exact:
        raise InvalidInputError("spread", spread, "give more than nothing, or leave it out")
    return duration.exact
