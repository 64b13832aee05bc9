"""What the settings of every handler are checked for, where it is made: before anything is sent."""

from __future__ import annotations

from datetime import timedelta

from scheduler.domain.errors import InvalidInputError
from scheduler.domain.timing import Duration
from scheduler.settings import PREFIX


def require_shorter_than_lease(setting: str, timeout: timedelta, lease: timedelta) -> timedelta:
    """The timeout, if a send surely ends before its claim does: another process would send it again meanwhile."""
    if timeout >= lease:
        value, longest = Duration(exact=timeout).isoformat(), Duration(exact=lease).isoformat()
        raise InvalidInputError(f"{PREFIX}{setting}", value, f"give less than {PREFIX}LEASE, which is {longest}")
    return timeout
