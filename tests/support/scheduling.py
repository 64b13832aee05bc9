"""Timeouts, schedulers and state managers for tests of what fires."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, text

from scheduler import Outcome, ScheduledAction, Settings, TimeoutJob, TimeoutScheduler

NOON: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
FAR_AHEAD: Final = datetime(2200, 1, 1, tzinfo=UTC)

DONE: Final = Outcome("done")

WAIT_PLAN: Final[Mapping[str, Any]] = {
    "version": "1.0",
    "startNodeId": "wait",
    "nodes": [
        {
            "id": "wait",
            "action": "wait",
            "transitions": [
                {"on": "opened", "to": "stop"},
                {"on": "clicked", "to": "stop"},
                {"on": "no_open", "to": "stop", "after": "PT72H"},
            ],
        }
    ],
}


def make_job(**overrides: Any) -> TimeoutJob:
    """A timeout that has been due for years."""
    values: dict[str, Any] = {
        "tenant_id": "acme",
        "campaign_id": "c-1",
        "contact_id": "k-1",
        "node_id": "intro",
        "event_type": "no_open",
        "scheduled_at": LONG_AGO,
    }
    return TimeoutJob(**{**values, **overrides})


def make_jobs(count: int, **overrides: Any) -> list[TimeoutJob]:
    """As many timeouts, of as many campaigns, a second apart."""
    first = overrides.pop("scheduled_at", LONG_AGO)
    return [
        make_job(campaign_id=f"c-{number}", scheduled_at=first + timedelta(seconds=number), **overrides)
        for number in range(count)
    ]


def make_settings(**overrides: Any) -> Settings:
    """Settings of somebody in a hurry."""
    values: dict[str, Any] = {
        "poll_interval": timedelta(milliseconds=50),
        "lease": timedelta(hours=1),
        "retry_base": timedelta(milliseconds=10),
        "retry_max": timedelta(milliseconds=10),
        "send_handler": "external",
    }
    return Settings(**{**values, **overrides})


def statuses(scheduler: TimeoutScheduler, jobs: Sequence[TimeoutJob]) -> list[str | None]:
    """In what state the jobs are; None for one that isn't there."""
    found = [scheduler.find(job.dedupe_key) for job in jobs]
    return [None if action is None else action.status for action in found]


def are_completed(scheduler: TimeoutScheduler, jobs: Sequence[TimeoutJob]) -> Callable[[], bool]:
    """Whether all the jobs are done, to be asked `eventually`."""
    keys = {job.dedupe_key for job in jobs}

    def ask() -> bool:
        completed = scheduler.list_actions(statuses=["completed"], limit=10_000)
        return keys <= {action.dedupe_key for action in completed}

    return ask


def execute(scheduler: TimeoutScheduler, statement: str, **parameters: Any) -> None:
    """Change the database behind the scheduler's back."""
    with scheduler.database.engine.begin() as connection:
        connection.execute(text(statement), parameters)


def query(scheduler: TimeoutScheduler, statement: str, **parameters: Any) -> list[Any]:
    """Rows, read behind the scheduler's back."""
    with scheduler.database.engine.connect() as connection:
        return list(connection.execute(text(statement), parameters))


class Recorder:
    """A state manager that answers `done` to everything, and remembers what it was given. Thread-safe."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()

    @property
    def keys(self) -> list[str]:
        """Every dedupe key it was given, in order."""
        return [key for batch in self.batches for key in batch]

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:  # noqa: ARG002
        """All are done."""
        self.threads.add(threading.current_thread().name)
        self.batches.append([job.dedupe_key for job in jobs])
        return [DONE] * len(jobs)


class Gate(Recorder):
    """A state manager that works on a batch until it is let go on: `entered` says that it began."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """All are done, once the gate is open."""
        answers = super().process(connection, jobs)
        self.entered.release()
        if not self.opened.wait(30):
            raise TimeoutError("nobody opened the gate")
        return answers

    def wait_entered(self) -> None:
        """Return when a batch is being worked on."""
        assert self.entered.acquire(timeout=30)
