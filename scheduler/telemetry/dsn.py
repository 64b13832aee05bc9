"""Whether a Sentry DSN is one, without sending anything."""

from __future__ import annotations

from sentry_sdk.utils import BadDsn, Dsn

from scheduler.domain.errors import InvalidInputError


def require_dsn(dsn: str) -> str:
    """Where it reports to; raises InvalidInputError, which doesn't show it."""
    try:
        return Dsn(dsn).netloc
    except (BadDsn, ValueError):
        remedy = "give the DSN that Sentry shows for the project, such as https://key@host/1"
        raise InvalidInputError("SCHEDULER_SENTRY_DSN", "(not shown)", remedy) from None
