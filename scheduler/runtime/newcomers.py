"""When to look for those who have something due and no backlog, while others' backlog takes all the room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
# A search takes some milliseconds beside workers that are busy: a few in a hundred of what they do.
_REST: Final = timedelta(milliseconds=50)
_NOTHING: Final = timedelta(0)


class Newcomers:
    """Says when a search for them may find any, by this machine's clock. For the loop's thread, but for `doubt`; pure.

    Since the last search nothing has fallen due before the first instant that the look before it saw ahead, unless
    somebody says that there is something new.
    """

    def __init__(self) -> None:
        self._asked_at = _NEVER
        self._ahead: datetime | None = _NEVER
        self._first_to_come: datetime | None = _NEVER
        self._is_doubted = False

    def doubt(self) -> None:
        """There may be something new. Thread-safe; called once it can be seen, as far as the caller knows."""
        self._is_doubted = True

    def saw(self, ahead: datetime | None, now: datetime) -> None:
        """A look saw this instant as the first that isn't due yet; None: there was none."""
        self._ahead = ahead
        if not self._has_come(now):
            self._first_to_come = ahead

    def everybody_is_asked(self, now: datetime) -> None:
        """Called before a claim of everybody's, which misses nothing that was new by then."""
        self._asked_at = now
        self._is_doubted = False

    def search(self, now: datetime) -> None:
        """Called before a search."""
        self.everybody_is_asked(now)
        # After a look that is older than that nobody knows what is ahead.
        self._first_to_come = self._ahead if self._ahead is None or self._ahead > now else _NEVER

    def have_come(self, now: datetime) -> bool:
        """Whether it is known that something has fallen due since the last search, and that is a while ago."""
        return self._has_come(now) and not self._rest(now)

    def due_in(self, now: datetime) -> timedelta | None:
        """How long from `now` on to search; None: not for what is known."""
        if self._is_doubted or self._has_come(now):
            return self._rest(now)
        return None if self._first_to_come is None else max(self._first_to_come - now, self._rest(now))

    def _has_come(self, now: datetime) -> bool:
        return self._first_to_come is not None and self._first_to_come <= now

    def _rest(self, now: datetime) -> timedelta:
        """At most that long, whatever became of the clock."""
        return min(max(self._asked_at + _REST - now, _NOTHING), _REST)
