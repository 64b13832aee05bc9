"""What there is to look at: a database, a daemon with its default settings, Sentry, Prometheus where there is one."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from scheduler import TimeoutScheduler
from scheduler.domain.timing import SystemClock
from tests.support.daemon import COMMAND, DaemonProcess, environment, running
from tests.support.daemon_log import read_log
from tests.support.postgres import PostgresServer, free_port
from tests.support.prometheus_server import Prometheus, scraping
from tests.support.sentry_receiver import SentryReceiver, receiving_reports

PLAN: Final[dict[str, Any]] = {
    "version": "1.0",
    "startNodeId": "first",
    "nodes": [
        {"id": "first", "action": "wait", "transitions": [
            {"on": "opened", "to": "stop"}, {"on": "no_open", "to": "second", "after": "PT1H"}]},
        {"id": "second", "action": "wait", "transitions": [
            {"on": "opened", "to": "stop"}, {"on": "no_open", "to": "stop", "after": "P3D"}]},
    ],
}  # fmt: skip
_STAY: Final = timedelta(hours=1)
_RULES: Final = Path(__file__).parents[2] / "config" / "prometheus" / "timeout-scheduler.rules.yml"
_DATABASE: Final = "drill"
# What a daemon has by itself, where tests are in more of a hurry.
_DEFAULTS: Final = {
    "SCHEDULER_BATCH_SIZE": "500",
    "SCHEDULER_LEASE": "PT1M",
    "SCHEDULER_POLL_INTERVAL": "PT1S",
}
_GAUGES: Final = ("database_up", "due", "oldest_due_seconds")


@dataclass(frozen=True)
class Look:
    """What was to be seen at one moment. Gauges that the page doesn't have are missing."""

    at: datetime
    pages: Mapping[str, str]
    gauges: Mapping[str, float]
    alerts: list[str]
    log: Mapping[str, int]
    sentry: list[str]


@dataclass
class Scene:
    """Everything, while the drill lasts."""

    server: PostgresServer
    url: str
    port: int
    daemon: DaemonProcess
    environment: Mapping[str, str]
    sentry: SentryReceiver
    prometheus: Prometheus | None
    _lines_seen: int = 0
    _messages_seen: int = 0
    first_lines: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def look(self) -> Look:
        """Look at everything; log lines and messages to Sentry are those since the look before."""
        lines = read_log(self.daemon.log)
        new, self._lines_seen = lines[self._lines_seen :], len(lines)
        for line in new:
            self.first_lines.setdefault(line["event"], line)
        messages = self.sentry.messages
        told, self._messages_seen = messages[self._messages_seen :], len(messages)
        return Look(
            at=SystemClock().now(),
            pages={page: self._page(page) for page in ("/healthz", "/readyz")},
            gauges=self._gauges(),
            alerts=self._alerts(),
            log=Counter(line["event"] for line in new),
            sentry=[f"{one['tags']['alert']} ({one['level']})" for one in told],
        )

    def status(self) -> str:
        """What `timeout-scheduler status` says, whatever its exit code."""
        done = subprocess.run(
            [COMMAND, "status"],
            cwd=self.daemon.log.parent,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return f"{done.stdout}{done.stderr}(exit code {done.returncode})"

    def _page(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return f"{answer.status} {answer.read().decode().strip()}"
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode().strip()}"

    def _gauges(self) -> dict[str, float]:
        page = self._page("/metrics").removeprefix("200 ")
        wanted = {f"timeout_scheduler_{name}": name for name in _GAUGES}
        found = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
        return {wanted[one.name]: one.value for one in found if one.name in wanted}

    def _alerts(self) -> list[str]:
        if self.prometheus is None:
            return []
        firing = self.prometheus.query('ALERTS{alertstate="firing"}')
        return sorted(one["metric"]["alertname"].removeprefix("TimeoutScheduler") for one in firing)


@contextmanager
def open_scene(folder: Path) -> Iterator[Scene]:
    """A daemon that fires, on a PostgreSQL that can be killed."""
    with PostgresServer() as server, receiving_reports() as sentry:
        url, port = server.create_database(_DATABASE), free_port()
        with closing(TimeoutScheduler(url)) as scheduler:
            scheduler.migrate()
        more = {"SCHEDULER_SENTRY_DSN": sentry.dsn, "SCHEDULER_INSTANCE_NAME": "mailer-1", **_DEFAULTS}
        env = environment(url, **more, SCHEDULER_HTTP_PORT=str(port), SCHEDULER_SEND_HANDLER="external")
        with running(folder, env) as daemon, _prometheus(folder, port) as prometheus:
            yield Scene(server, url, port, daemon, env, sentry, prometheus)


@contextmanager
def _prometheus(folder: Path, target: int) -> Iterator[Prometheus | None]:
    if shutil.which("prometheus") is None:
        yield None
        return
    with scraping(folder, target, _RULES) as prometheus:
        yield prometheus


def enroll(url: str, timeouts: int, first_due_at: datetime, spread: timedelta) -> None:
    """Campaigns whose `no_open` falls due one after the other from then on, for as long as `spread`."""
    step = spread / timeouts
    rows = (
        {
            "tenant_id": f"tenant-{number % 10}",
            "campaign_id": f"campaign-{number}",
            "contact_id": f"contact-{number}",
            "plan": PLAN,
            "start_at": first_due_at - _STAY + number * step,
        }
        for number in range(timeouts)
    )
    with closing(TimeoutScheduler(url)) as scheduler:
        scheduler.campaigns.enroll_many(rows)
