"""What one look at the table told of the instants to come, so that not every turn of the loop has to look again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain.action import ActionType
from scheduler.store.outlook import Outlook

_NOT_YET: Final = -float("inf")


class Foresight:
    """What is due next of these types, by this machine's clock. For the loop's thread, but for `doubt`.

    It holds for `lasts` from the look on, which is how soon others' rows are seen at the latest; until somebody says
    that there is something new; and as long as everything that has come since was claimed by this process. What else
    became of it (another process has it, it was canceled, its row is locked), only the table knows. On SQLite, where
    asking is no round trip, a look sees one instant, and holds only until that has come.
    """

    def __init__(
        self, action_types: Collection[ActionType], lasts: timedelta, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._lasts = lasts.total_seconds()
        self._seconds = seconds
        self._asked_at = self._looked_at = _NOT_YET
        self._offset = timedelta(0)
        self._coming: dict[ActionType, list[datetime]] = {action_type: [] for action_type in action_types}
        self._taken: dict[ActionType, list[datetime]] = {action_type: [] for action_type in action_types}
        self._is_cut: dict[ActionType, bool] = {}
        self._is_doubted = False

    def doubt(self) -> None:
        """There may be something new. Thread-safe; called once it can be seen, as far as the caller knows."""
        self._is_doubted = True

    def begin(self) -> None:
        """Called before a look: a doubt that comes after this is a new one."""
        self._asked_at, self._looked_at = self._seconds(), _NOT_YET
        self._is_doubted = False

    def saw(self, known: Outlook, known_at: datetime) -> None:
        """What that look told; `known_at` is when by this machine's clock."""
        self._offset = known_at - known.now
        for action_type in self._coming:
            self._coming[action_type] = list(known.all_of(action_type))
            self._taken[action_type] = []
            self._is_cut[action_type] = len(self._coming[action_type]) >= known.most
        # Since it was asked: what was committed before the answer came needn't be in it.
        self._looked_at = self._asked_at

    def took(self, action_type: ActionType, instants: Iterable[datetime]) -> None:
        """What was due at these instants is claimed. Mostly looked at later: now it is in a hurry."""
        coming, taken = self._coming[action_type], self._taken[action_type]
        if coming:
            taken += instants
        if len(taken) > len(coming):
            self._strike_out()

    def next_of(self, action_type: ActionType) -> datetime | None:
        """When the next of that type is due; None when nothing of it is pending."""
        coming = self._coming[action_type]
        return coming[0] + self._offset if coming else None

    def remaining(self) -> timedelta:
        """For how long it holds, if nothing happens."""
        return timedelta(seconds=max(self._looked_at + self._lasts - self._seconds(), 0.0))

    def holds(self, claimed_at: datetime) -> bool:
        """Whether a look would tell nothing else, as far as a process can know that claimed what was due then."""
        if self._is_doubted or not self.remaining():
            return False
        self._strike_out()
        return all(self._is_sure(action_type, claimed_at) for action_type in self._coming)

    def _is_sure(self, action_type: ActionType, claimed_at: datetime) -> bool:
        following = self.next_of(action_type)
        return not self._is_cut[action_type] if following is None else following > claimed_at

    def _strike_out(self) -> None:
        """What was taken doesn't come any more. One by one: two may be due at the same instant."""
        for action_type, taken in self._taken.items():
            coming = self._coming[action_type]
            if taken == coming[: len(taken)]:
                del coming[: len(taken)]
            else:
                self._coming[action_type] = sorted((Counter(coming) - Counter(taken)).elements())
            self._taken[action_type] = []
