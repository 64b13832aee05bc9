"""When to look for those who have something due and no backlog, while others' backlog takes all the room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
# A search takes some milliseconds beside workers that are busy: a few in a hundred of what they do.
_REST: Final = timedelta(milliseconds=50)
_SHORTEST: Final = timedelta(milliseconds=1)
_NOTHING: Final = timedelta(0)


class Newcomers:
    """Says when a search for them may find any. For the loop's thread, but for `doubt`; pure.

    Since the last search nothing has fallen due before the first instant that a look saw ahead, unless somebody says
    that there is something new; what nobody says is found within `lasts`. What a look says is judged by the clock that
    it read, as what is due is; in between this machine's clock has to do (`now`).
    """

    def __init__(self, lasts: timedelta) -> None:
        self._lasts = lasts
        self._asked_at = _NEVER
        self._seen_at = _NEVER
        self._ahead = _NOTHING
        self._later: datetime | None = _NEVER
        self._first_to_come: datetime | None = _NEVER
        self._is_doubted = False

    def doubt(self) -> None:
        """There may be something new, or left. Thread-safe; called once it can be seen, as far as the caller knows."""
        self._is_doubted = True

    def saw(self, seen_at: datetime, later: datetime | None, ahead: timedelta) -> None:
        """A look that read `seen_at` saw `later` as the first instant to come; this machine's clock was `ahead`."""
        self._seen_at, self._later, self._ahead = seen_at, later, ahead
        if not self._has_come(seen_at):
            self._first_to_come = later

    def everybody_is_asked(self, now: datetime) -> None:
        """Called before a claim of everybody's, which misses nothing that was new by then."""
        self._asked_at = now
        self._is_doubted = False

    def search(self, now: datetime) -> None:
        """Called before a search."""
        self.everybody_is_asked(now)
        is_ahead = self._later is None or self._later > now - self._ahead
        # Else nobody knows what came after the last look.
        self._first_to_come = self._later if is_ahead else _NEVER

    def have_come(self, now: datetime) -> bool:
        """Whether something seems to have fallen due since the last search, and that is a while ago."""
        return self._has_come(now - self._ahead) and not self._rest(now)

    def is_due(self, now: datetime) -> bool:
        """Whether to search now, right after a look."""
        has_come = self._is_doubted or self._has_come(self._seen_at) or not self._wait_at_most(now)
        return has_come and not self._rest(now)

    def due_in(self, now: datetime) -> timedelta:
        """How long from `now` on to look, and to search if that is due then."""
        if self._is_doubted or self._has_come(self._seen_at):
            return self._rest(now)
        wait = self._wait_at_most(now)
        if self._first_to_come is not None:
            wait = min(wait, max(self._first_to_come + self._ahead - now, _SHORTEST))
        return max(wait, self._rest(now))

    def _has_come(self, at: datetime) -> bool:
        return self._first_to_come is not None and self._first_to_come <= at

    def _rest(self, now: datetime) -> timedelta:
        return self._until(_REST, now)

    def _wait_at_most(self, now: datetime) -> timedelta:
        return self._until(self._lasts, now)

    def _until(self, span: timedelta, now: datetime) -> timedelta:
        """What is left of it since somebody was asked; nothing when the clock was set back since."""
        since = now - self._asked_at
        return span - since if _NOTHING <= since < span else _NOTHING
