"""The command line on a database, without a process: what it printed, and its exit code."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scheduler import TimeoutScheduler
from scheduler.cli.app import app

PLAN: dict[str, Any] = {
    "version": "1.0",
    "name": "Test",
    "startNodeId": "wait_open",
    "nodes": [
        {
            "id": "wait_open",
            "action": "wait",
            "transitions": [
                {"on": "opened", "to": "stop"},
                {"on": "no_open", "to": "reminder", "after": "PT72H"},
            ],
        },
        {
            "id": "reminder",
            "action": "send",
            "subject": "{{first_name}}",
            "transitions": [{"on": "opened", "to": "stop"}, {"on": "no_open", "to": "stop", "after": "PT24H"}],
        },
    ],
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document it has to be."""
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty but for the plan; no setting of this machine is seen in it."""
    for name in [name for name in os.environ if name.startswith("SCHEDULER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "plan.json").write_text(json.dumps(PLAN), "utf-8")
    return folder


@pytest.fixture
def bare(folder: Path) -> Command:  # noqa: ARG001 - being in it
    """The command line without any setting."""

    def run(*words: str, stdin: str | bytes | None = None) -> Answer:
        result = CliRunner().invoke(app, list(words), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def command(bare: Command, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line on a migrated database."""
    monkeypatch.setenv("SCHEDULER_DATABASE_URL", database_url)
    return bare


@pytest.fixture
def on_sqlite(bare: Command, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same on SQLite only: for what doesn't depend on the database."""
    monkeypatch.setenv("SCHEDULER_DATABASE_URL", sqlite_url)
    return bare


@pytest.fixture
def timeouts(database_url: str) -> Iterator[TimeoutScheduler]:
    """The scheduler on the database of `command`."""
    with closing(TimeoutScheduler(database_url)) as timeout_scheduler:
        yield timeout_scheduler


@pytest.fixture
def sqlite_timeouts(sqlite_url: str) -> Iterator[TimeoutScheduler]:
    """The scheduler on the database of `on_sqlite`."""
    with closing(TimeoutScheduler(sqlite_url)) as timeout_scheduler:
        yield timeout_scheduler


def enrol(timeout_scheduler: TimeoutScheduler, campaign_id: str = "c-1", **overrides: Any) -> None:
    """Put a campaign into the database."""
    values = {"tenant_id": "acme", "contact_id": f"contact of {campaign_id}", "plan": PLAN}
    timeout_scheduler.campaigns.enroll(campaign_id=campaign_id, **{**values, **overrides})


def is_empty(timeout_scheduler: TimeoutScheduler) -> bool:
    """Whether nothing was written."""
    campaigns = [timeout_scheduler.campaigns.find("acme", name) for name in ("c-1", "c-2", "c-3")]
    return not timeout_scheduler.list_actions() and not any(campaigns)
