"""Retention: what is over for longer than `RETENTION` goes, piece by piece.

A finished campaign goes as a whole, in one transaction: its actions, events, transitions, and itself. As long as it is
there, its dedupe keys are too. What has no campaign goes by itself: actions by when they finished, events by when they
came. Nothing unfinished goes, and nothing of a campaign that runs, however old. Contacts, plans and what operators did
are kept.

`ts.schedule` locks no campaign, and needn't: a timeout that commits while its campaign is looked at keeps it; one that
commits while, or after, it goes is one without a campaign, as if it had been scheduled a moment later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from scheduler.domain.errors import SchedulerError
from scheduler.settings import Settings
from scheduler.store.database import Transaction
from scheduler.store.retention import FIRST_DATED_KEY, FIRST_KEY, Removals, Slice
from scheduler.store.stores import Stores
from scheduler.store.turns import take_turn

Key = tuple[str, str]

# A campaign has some dozens of rows: some thousands are locked for some tens of milliseconds.
CAMPAIGNS: Final = 100
# Rows of one slice: read in milliseconds, also where each is on a page of its own.
SLICE: Final = 1000
# Slices of a table that a call reads until it finds something: most rows there are of campaigns, and go with these.
SLICES: Final = 5
# A campaign that keeps a row each time it is tried is left for the next round.
_ATTEMPTS: Final = 3


class _KeptError(SchedulerError):
    """Campaigns that can't go as a whole now; what was removed of them must not be committed."""

    def __init__(self, campaigns: set[Key]) -> None:
        self.campaigns = campaigns
        super().__init__(f"{len(campaigns)} campaigns can't be removed now")


@dataclass(slots=True)
class _Walk:
    """A walk through one index, round by round: `place` is the row it came to."""

    first: Any
    place: Any
    most: int
    read: Callable[[Transaction, Any, datetime, int], Slice]
    remove: Callable[[Transaction, Sequence[Key], datetime], int]
    has_ended: bool = False


class Retention:
    """Removes what is over. One thread at a time; where it has come to is in memory, and lost without harm."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self._database = stores.database
        self._removals = Removals(stores.database)
        self._retention = settings.retention
        store = self._removals
        self._campaigns = _Walk(
            FIRST_DATED_KEY, FIRST_DATED_KEY, CAMPAIGNS, store.slice_campaigns, self._remove_campaigns
        )
        self._actions = _Walk(FIRST_KEY, FIRST_KEY, SLICE, store.slice_actions, store.remove_actions)
        self._events = _Walk(FIRST_DATED_KEY, FIRST_DATED_KEY, SLICE, store.slice_events, store.remove_events)

    def remove_some(self) -> int:
        """One bounded piece of work, in short transactions of its own; returns how many rows went.

        0 doesn't mean that nothing is left: actions without a campaign are looked for along their table's key, a
        piece each time. Raises DatabaseUnavailableError.
        """
        return self._step(self._campaigns) + self._seek(self._actions) + self._seek(self._events)

    def end_round(self) -> bool:
        """Whether everything was looked at since the last round ended; then the next one begins."""
        walks = self._campaigns, self._actions, self._events
        if not all(walk.has_ended for walk in walks):
            return False
        for walk in walks:
            walk.has_ended = False
        return True

    def _seek(self, walk: _Walk) -> int:
        """Steps, until one has removed something, or the round is over."""
        for _ in range(SLICES):
            removed = self._step(walk)
            if removed or walk.place == walk.first:
                return removed
        return 0

    def _step(self, walk: _Walk) -> int:
        """Look at the next rows, and remove what is due; rows whose removal fails are met again in the next round."""
        with self._database.reading() as transaction:
            self._removals.go_by_index(transaction)
            found = walk.read(transaction, walk.place, self._before(transaction), walk.most)
        walk.has_ended = walk.has_ended or found.last is None
        walk.place = walk.first if found.last is None else found.last
        return self._remove(walk, found.keys)

    def _remove(self, walk: _Walk, keys: Sequence[Key]) -> int:
        left = set(keys)
        for _ in range(_ATTEMPTS):
            if not left:
                return 0
            try:
                return self._database.run(partial(self._remove_in, walk, sorted(left)))
            except _KeptError as kept:
                left -= kept.campaigns
        return 0

    def _remove_in(self, walk: _Walk, keys: Sequence[Key], transaction: Transaction) -> int:
        if not take_turn(transaction, "retention"):
            return 0
        self._removals.go_by_index(transaction)
        return walk.remove(transaction, keys, self._before(transaction))

    def _remove_campaigns(self, transaction: Transaction, campaigns: Sequence[Key], before: datetime) -> int:
        locked = self._removals.lock_ended(transaction, campaigns, before)
        if not locked:
            return 0
        gone, count = self._removals.remove_campaigns(transaction, locked)
        if gone != locked:
            raise _KeptError(locked - gone)
        return count

    def _before(self, transaction: Transaction) -> datetime:
        """What ended earlier goes."""
        try:
            return transaction.now - self._retention
        except OverflowError:  # kept for ever
            return datetime.min.replace(tzinfo=UTC)
