"""The drill itself: kill the database, look around every minute, bring it back, look on until nothing is due."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from scheduler.domain.timing import SystemClock
from tests.drill.scene import Look, Scene, enroll, open_scene

_LEAD: Final = timedelta(seconds=1)
_MOST_LOOKS: Final = 60
_MOVED: Final = (
    "SELECT count(*), count(DISTINCT (tenant_id, campaign_id)) FROM campaign_transitions WHERE node_visit = 1"
)
_DRAINED: Final = "SELECT max(created_at) FROM campaign_transitions WHERE node_visit = 1"
_COLUMNS: Final = (
    "time",
    "what",
    "/healthz",
    "/readyz",
    "database_up",
    "due",
    "oldest due",
    "alerts firing",
    "new log lines",
    "Sentry",
)
_SHOWN: Final = (
    "database.unavailable",
    "database.outage",
    "database.recovered",
    "alert.raised",
    "alert.recovered",
    "claims.recovered",
)


@dataclass(frozen=True)
class Options:
    """For how long the database is away, how many timeouts fall due meanwhile, and how often to look."""

    outage: timedelta = timedelta(minutes=10)
    timeouts: int = 50_000
    every: timedelta = timedelta(minutes=1)
    then_every: timedelta = timedelta(seconds=5)
    afterwards: timedelta = timedelta(minutes=1)
    lead: timedelta = timedelta(minutes=2)


@dataclass(frozen=True)
class Transcript:
    """What was seen, each look with the time since the database went away, and what came of it."""

    options: Options
    looks: list[tuple[timedelta, str, Look]]
    statuses: list[tuple[str, str]]
    first_lines: dict[str, Any]
    back_at: timedelta
    drained_at: timedelta
    transitions: int
    campaigns: int
    has_prometheus: bool

    @property
    def is_good(self) -> bool:
        """Whether every timeout had its effect, exactly once."""
        return self.transitions == self.campaigns == self.options.timeouts

    def text(self) -> str:
        """In Markdown."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        took = (self.drained_at - self.back_at).total_seconds()
        count, outage = self.options.timeouts, _clock(self.options.outage)
        yield f"{count:,} timeouts of ten tenants fell due while the database was away for {outage}."
        yield f"It came back at {_clock(self.back_at)}; {took:.0f} seconds later the last of them had been fired."
        yield f"Transitions afterwards: {self.transitions:,}, of {self.campaigns:,} campaigns."
        yield ""
        if not self.has_prometheus:
            yield "There was no Prometheus on this machine."
            yield ""
        yield f"| {' | '.join(_COLUMNS)} |"
        yield f"|{'---|' * len(_COLUMNS)}"
        for since, what, look in self.looks:
            yield _row(since, what, look)
        for when, status in self.statuses:
            yield from ("", f"`timeout-scheduler status` {when}:", "", "```text", status, "```")
        yield from ("", "The first of the lines that tell of it, in the daemon's log:", "", "```jsonl")
        yield from (json.dumps(self.first_lines[name]) for name in _SHOWN if name in self.first_lines)
        yield "```"


def drill(options: Options, say: Callable[[str], None]) -> Transcript:
    """Go through it. Takes the outage, and some minutes."""
    with tempfile.TemporaryDirectory(prefix="drill-") as folder, open_scene(Path(folder)) as scene:
        return _Drill(options, scene, say).run()


class _Drill:
    def __init__(self, options: Options, scene: Scene, say: Callable[[str], None]) -> None:
        self._options = options
        self._scene = scene
        self._say = say
        self._looks: list[tuple[timedelta, str, Look]] = []
        self._statuses: list[tuple[str, str]] = []
        self._gone_at = SystemClock().now()

    def run(self) -> Transcript:
        options, scene = self._options, self._scene
        begins_at = SystemClock().now() + options.lead
        enroll(scene.url, options.timeouts, begins_at, options.outage)
        self._look("before")
        left = begins_at - _LEAD - SystemClock().now()
        if left < timedelta(0):
            raise RuntimeError(f"enrolling took {-left.total_seconds():.0f} s too long: give a longer lead")
        _wait(left)
        scene.server.kill9()
        self._gone_at = SystemClock().now()
        self._looks = [(look.at - self._gone_at, what, look) for _, what, look in self._looks]
        self._look("the database is killed")
        while (left := options.outage - self._since()) > timedelta(0):
            _wait(min(options.every, left))
            self._look("")
        self._status("before the database is back")
        scene.server.start()
        back_at = self._since()
        self._look("the database is back")
        for _ in range(_MOST_LOOKS):
            if self._moved()[0] >= options.timeouts:
                break
            _wait(options.then_every)
            self._look("")
        self._status("once all is fired")
        _wait(options.afterwards)
        self._look("afterwards")
        transitions, campaigns = self._moved()
        drained_at = self._query(_DRAINED)[0] - self._gone_at
        has_prometheus = scene.prometheus is not None
        lines = dict(scene.first_lines)
        return Transcript(
            options, self._looks, self._statuses, lines, back_at, drained_at, transitions, campaigns, has_prometheus
        )

    def _status(self, when: str) -> None:
        self._statuses.append((when, self._scene.status()))

    def _look(self, what: str) -> None:
        look = self._scene.look()
        self._looks.append((look.at - self._gone_at, what, look))
        self._say(_row(look.at - self._gone_at, what, look))

    def _since(self) -> timedelta:
        return SystemClock().now() - self._gone_at

    def _moved(self) -> tuple[int, int]:
        transitions, campaigns = self._query(_MOVED)
        return int(transitions), int(campaigns)

    def _query(self, statement: str) -> Any:
        with psycopg.connect(self._libpq_url()) as connection:
            return connection.execute(statement).fetchone()

    def _libpq_url(self) -> str:
        return self._scene.url.replace("+psycopg", "")


def _wait(span: timedelta) -> None:
    threading.Event().wait(span.total_seconds())


def _clock(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    return f"{'-' if seconds < 0 else ''}{abs(seconds) // 60}:{abs(seconds) % 60:02d}"


def _row(since: timedelta, what: str, look: Look) -> str:
    def gauge(name: str, unit: str = "") -> str:
        return f"{look.gauges[name]:,.0f}{unit}" if name in look.gauges else "-"

    log = ", ".join(f"{name} {count}" if count > 1 else name for name, count in look.log.items())
    cells = (
        _clock(since),
        what,
        look.pages["/healthz"],
        look.pages["/readyz"],
        gauge("database_up"),
        gauge("due"),
        gauge("oldest_due_seconds", " s"),
        ", ".join(look.alerts),
        log,
        ", ".join(look.sentry),
    )
    return f"| {' | '.join(cells)} |"
