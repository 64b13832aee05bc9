"""The daemon's reports to Sentry, from its first moment to its last; without a DSN there are none."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from scheduler.runtime.ticker import Ticker
from scheduler.settings import Settings
from scheduler.telemetry.scrubbing import Scrubber
from scheduler.telemetry.sentry import CHECK_IN_SECONDS, check_in, flush, name_instance, report, start_sentry

_LONGEST_SLUG: Final = 50
_LOOKED_EVERY_SECONDS: Final = 5.0


@contextmanager
def reporting(settings: Settings) -> Iterator[None]:
    """Report what happens during the block, and what ends it; what is queued at its end is sent, for some seconds.

    Raises InvalidInputError for a DSN that is none.
    """
    if settings.sentry_dsn is None:
        yield
        return
    scrubber = Scrubber(secrets_of(settings))
    start_sentry(
        settings.sentry_dsn.get_secret_value(), settings.sentry_environment, instance_name_of(settings), scrubber
    )
    try:
        yield
    except Exception as error:
        report(error, {"reason": "daemon"})
        raise
    finally:
        flush()


class CheckIns:
    """Tells a monitor of Sentry once a minute that this daemon fires. For one thread, which asks more often.

    One that doesn't fire says nothing, and is missed: it waits for its database, or dies with every start. While the
    loop doesn't turn, which a process that lives can say, it checks in as `error`.
    """

    def __init__(self, slug: str, is_firing: Callable[[], bool], why_not_alive: Callable[[], str | None]) -> None:
        self._slug = slug
        self._is_firing = is_firing
        self._why_not_alive = why_not_alive
        self._next = 0.0

    def look(self) -> None:
        """Check in where it is time."""
        if not self._is_firing() or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + CHECK_IN_SECONDS
        check_in(self._slug, is_well=self._why_not_alive() is None)


@contextmanager
def checking_in(
    settings: Settings, instance: str, is_firing: Callable[[], bool], why_not_alive: Callable[[], str | None]
) -> Iterator[None]:
    """Check in during the block, so that a dead daemon is noticed from outside; without a DSN nothing."""
    if settings.sentry_dsn is None:
        yield
        return
    name_instance(instance)
    check_ins = CheckIns(slug_of(instance_name_of(settings)), is_firing, why_not_alive)
    ticker = Ticker("check-in", _LOOKED_EVERY_SECONDS, check_ins.look, at_once=True)
    ticker.start()
    try:
        yield
    finally:
        ticker.stop()


def instance_name_of(settings: Settings) -> str:
    """What this instance is called, after every restart the same."""
    return settings.instance_name or socket.gethostname()


def slug_of(instance_name: str) -> str:
    """The monitor of an instance; at most as long as Sentry takes."""
    name = re.sub(r"[^a-z0-9_-]+", "-", instance_name.lower()).strip("-")
    return f"timeout-scheduler-{name}"[:_LONGEST_SLUG].rstrip("-")


def secrets_of(settings: Settings) -> list[str]:
    """The settings that are never shown, and the passwords within those that are URLs."""
    secrets = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secrets += [value.get_secret_value(), *_passwords(value.get_secret_value())]
    return secrets


def _passwords(url: str) -> list[str]:
    """As written, and as they are."""
    try:
        written = urlsplit(url).password
    except ValueError:
        return []
    return [] if not written else [written, unquote(written)]
