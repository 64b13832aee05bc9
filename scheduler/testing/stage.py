"""What a rehearsal plays on: a database file of its own, and a mail system that is a list."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from scheduler.domain.errors import PermanentSendError
from scheduler.domain.sending import SendRequest, SendResult
from scheduler.runtime.timeout_scheduler import TimeoutScheduler

_FILE: Final = "rehearsal.sqlite"


def fresh_database(folder: str) -> str:
    """The URL of an SQLite file in `folder` with the current schema and no rows."""
    file = Path(folder) / _FILE
    file.write_bytes(_migrated())
    return f"sqlite:///{file}"


@cache
def _migrated() -> bytes:
    """An empty database: migrated once per process, which takes as long as some hundred steps of a campaign."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        file = Path(folder) / _FILE
        timeout_scheduler = TimeoutScheduler(f"sqlite:///{file}")
        try:
            timeout_scheduler.migrate()
        finally:
            timeout_scheduler.close()
        return file.read_bytes()


class MailSystem:
    """Keeps every mail that went out, and lets those fail that it was told to. `handler` answers for it, if given."""

    def __init__(self, handler: Callable[[SendRequest], SendResult | None] | None = None) -> None:
        self.mails: list[SendRequest] = []
        self._handler = handler
        self._failing: list[tuple[str | None, Exception]] = []

    def fail_next(self, node_id: str | None, error: Exception | None) -> None:
        """The next mail (of that node) raises `error`; without one it fails for good."""
        self._failing.append((node_id, error or PermanentSendError("this mail was told to fail")))

    def __call__(self, request: SendRequest) -> SendResult | None:
        """Send. The message id is `m-c-1-2` for campaign and visit, unless a handler gives another."""
        for failing in self._failing:
            if failing[0] in (None, request.node_id):
                self._failing.remove(failing)
                raise failing[1]
        result = self._handler(request) if self._handler is not None else None
        self.mails.append(request)
        if result is not None:
            return result
        return SendResult(message_id=f"m-{request.campaign_id}-{request.node_visit}")
