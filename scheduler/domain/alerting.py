"""When a person has to be told: two small state machines. Pure: what was seen goes in, whether to tell comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

Key = tuple[str, str]

# More distinct failures in a row than this aren't told apart: nobody needs the number, and memory is bounded.
MOST_FAILURES: Final = 10_000
# Looks come some seconds apart, however short ALERT_OLDEST_DUE is.
_USUAL_GAP: Final = timedelta(minutes=1)


class Turn(StrEnum):
    """An incident begins, or is over."""

    RAISED = "raised"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class FailureRun:
    """Actions whose attempts failed with no success between; each counts once, however often it is tried."""

    keys: frozenset[Key] = frozenset()
    is_raised: bool = False

    def after(self, failed: Iterable[Key], threshold: int, *, succeeded: bool) -> tuple[FailureRun, Turn | None]:
        """What follows a batch. It is one moment: a success in it stands between all failures before and after it."""
        if succeeded:
            return FailureRun(), Turn.RECOVERED if self.is_raised else None
        keys = self.keys.union(failed) if len(self.keys) < MOST_FAILURES else self.keys
        is_raised = len(keys) >= threshold
        turn = Turn.RAISED if is_raised and not self.is_raised else None
        return FailureRun(keys, is_raised=self.is_raised or is_raised), turn


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was seen at one instant: how many are due, and for how long the oldest of them has been."""

    at: datetime
    due: int
    oldest_due: timedelta


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """More due than `backlog` is high. `oldest_due`: how old what is due may be, and for how long it may not shrink."""

    backlog: int
    oldest_due: timedelta


@dataclass(frozen=True, slots=True)
class BacklogWatch:
    """What is remembered from one look to the next. Instants are real time.

    While the backlog is high: the fewest that were due since it became so, and when that was. A cohort that drains
    reaches a new low with every look; one that doesn't is stuck, however slowly it grows.
    """

    seen_at: datetime | None = None
    lowest_due: int | None = None
    lowest_at: datetime | None = None
    raised_at: datetime | None = None

    def after(self, seen: Backlog, limits: BacklogLimits) -> tuple[BacklogWatch, Turn | None]:
        """What follows a look.

        The incident lasts until nothing is high, and the oldest isn't half as old as it may be: so one that hovers at
        the limit isn't told of again and again.
        """
        watch = self._low(seen, limits)
        is_old = seen.oldest_due >= limits.oldest_due
        is_stuck = watch.lowest_at is not None and seen.at - watch.lowest_at >= limits.oldest_due
        if self.raised_at is None and (is_old or is_stuck):
            return replace(watch, raised_at=seen.at), Turn.RAISED
        is_calm = seen.due <= limits.backlog and seen.oldest_due < limits.oldest_due / 2
        if self.raised_at is not None and is_calm:
            return replace(watch, raised_at=None), Turn.RECOVERED
        return watch, None

    def _low(self, seen: Backlog, limits: BacklogLimits) -> BacklogWatch:
        """The low of the backlog while it is high; begun anew where nobody looked for so long that nobody can tell."""
        if seen.due <= limits.backlog:
            return replace(self, seen_at=seen.at, lowest_due=None, lowest_at=None)
        longest_gap = max(limits.oldest_due, _USUAL_GAP)
        is_watched = self.seen_at is not None and seen.at - self.seen_at < longest_gap
        if is_watched and self.lowest_due is not None and seen.due >= self.lowest_due:
            return replace(self, seen_at=seen.at)
        return replace(self, seen_at=seen.at, lowest_due=seen.due, lowest_at=seen.at)
