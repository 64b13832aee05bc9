"""Fires per second: batches, beside the same effect one transaction at a time, in one run.

    python -m benchmarks.fire [--due 20000] [--single 2000] [--rounds 3]

One fired timeout means: its campaign locked and checked, the action completed, the campaign moved, a transition
inserted, the other pending timeout of the visit canceled, the next visit's one inserted; and one INFO line with its
dedupe key to a file. The batches are fired by the engine as the daemon runs it (scheduling loop, two workers). One at
a time means: claimed in batches too, and then each fired in a transaction of its own, by one thread.

PostgreSQL is a throw-away server with fsync and synchronous_commit on; SQLite is a file with full durability.
After every run the database is checked: every campaign moved once, nothing left over. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import text

from scheduler import CampaignPlan, Settings, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.domain.timing import SystemClock
from scheduler.service.firing import Firing
from scheduler.service.owner import Owner
from scheduler.telemetry.log import configure_logging
from scheduler.telemetry.metrics import Metrics
from tests.support.postgres import PostgresServer

PLAN: Final = CampaignPlan.parse(
    {
        "version": "1.0",
        "startNodeId": "first",
        "nodes": [
            {
                "id": "first",
                "action": "wait",
                "transitions": [
                    {"on": "no_open", "to": "second", "after": "PT1H"},
                    {"on": "no_click", "to": "stop", "after": "PT100H"},
                    {"on": "opened", "to": "stop"},
                ],
            },
            {
                "id": "second",
                "action": "wait",
                "transitions": [{"on": "no_open", "to": "stop", "after": "PT100H"}, {"on": "opened", "to": "stop"}],
            },
        ],
    }
)
DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "autovacuum": "on"}


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to fire what is due, and how much of it a run gives it."""

    name: str
    due: int
    fire: Callable[[str, int], float]


def enrol(url: str, due: int) -> None:
    """`due` campaigns whose first timeout has been due for half an hour."""
    entered_at = SystemClock().now() - timedelta(minutes=90)
    with _opened(url) as scheduler:
        scheduler.migrate()
        scheduler.campaigns.enroll_many(
            {
                "tenant_id": f"tenant-{number % 10}",
                "campaign_id": f"campaign-{number}",
                "contact_id": f"contact-{number}",
                "plan": PLAN,
                "start_at": entered_at,
            }
            for number in range(due)
        )


def fire_in_batches(url: str, due: int) -> float:
    """Seconds until everything due has fired, from the start of the engine."""
    with _opened(url) as scheduler:
        pause = threading.Event()
        began = time.perf_counter()
        scheduler.start()
        while _fired(url) < due:
            pause.wait(0.02)
        return time.perf_counter() - began


def fire_one_by_one(url: str, due: int) -> float:
    """Seconds until everything due has fired, each in a transaction of its own."""
    with _opened(url) as scheduler:
        stores, owner = scheduler.stores, Owner()
        firing = Firing(stores, scheduler.campaigns, scheduler.settings, Metrics(), owner)
        began = time.perf_counter()
        fired = 0
        while fired < due:
            with stores.database.transaction() as transaction:
                claimed = stores.claims.claim(transaction, ActionType.TIMEOUT, 500, owner.id, timedelta(minutes=1))
            for action in claimed:
                fired += len(firing.fire([action]))
        return time.perf_counter() - began


def verify(url: str, due: int) -> None:
    """Every campaign moved exactly once; exactly its old actions are over and its new one is pending."""
    with _opened(url) as scheduler, scheduler.database.reading() as transaction:

        def count(statement: str) -> int:
            return int(transaction.connection.execute(text(statement)).scalar_one())

        expected = {
            "SELECT count(*) FROM contact_campaigns WHERE current_node_id = 'second' AND node_visit = 2": due,
            "SELECT count(*) FROM campaign_transitions WHERE node_visit = 1 AND trigger = 'no_open'": due,
            "SELECT count(*) FROM campaign_transitions": 2 * due,
            "SELECT count(*) FROM scheduled_actions WHERE status = 'completed' AND outcome = 'transitioned'": due,
            "SELECT count(*) FROM scheduled_actions WHERE status = 'canceled' AND event_type = 'no_click'": due,
            "SELECT count(*) FROM scheduled_actions WHERE status = 'pending' AND node_visit = 2": due,
            "SELECT count(*) FROM scheduled_actions": 3 * due,
        }
        for statement, wanted in expected.items():
            if count(statement) != wanted:
                sys.exit(f"wrong effects: {count(statement)} instead of {wanted}: {statement}")


class _opened:  # noqa: N801 - reads as a verb
    """A scheduler on a database, closed at the end."""

    def __init__(self, url: str) -> None:
        self._scheduler = TimeoutScheduler(url, settings=Settings(poll_interval=timedelta(seconds=1)))

    def __enter__(self) -> TimeoutScheduler:
        return self._scheduler

    def __exit__(self, *_: object) -> None:
        self._scheduler.close()


def _fired(url: str) -> int:
    statement = "SELECT count(*) FROM campaign_transitions WHERE node_visit = 1"
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"))
    else:
        connection = psycopg.connect(url.replace("postgresql+psycopg", "postgresql"))
    try:
        return int(connection.execute(statement).fetchone()[0])
    finally:
        connection.close()


def measure(fresh: Callable[[], str], due: int, single: int, rounds: int) -> dict[str, list[float]]:
    """Fires per second of each contender, interleaved, on a fresh database each time."""
    contenders = (Contender("batches", due, fire_in_batches), Contender("one by one", single, fire_one_by_one))
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            url = fresh()
            enrol(url, contender.due)
            seconds = contender.fire(url, contender.due)
            verify(url, contender.due)
            rates[contender.name].append(contender.due / seconds)
    return rates


def show(system: str, rates: dict[str, list[float]]) -> None:
    """Medians, spread, and the ratio."""
    for name, values in rates.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"{system:<11} {name:<11} {middle:>9,.0f} fires/s   ({low:,.0f} to {high:,.0f})")
    ratio = statistics.median(rates["batches"]) / statistics.median(rates["one by one"])
    print(f"{system:<11} batches win by {ratio:.1f} times\n")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--due", type=int, default=20_000, help="timeouts due for the batches")
    parser.add_argument("--single", type=int, default=2_000, help="timeouts due for one by one")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs")
    parser.add_argument("--system", choices=["postgresql", "sqlite"], action="append", help="only this one")
    options = parser.parse_args()
    systems = options.system or ["postgresql", "sqlite"]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; {options.rounds} interleaved rounds\n")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        log = stack.enter_context((Path(folder) / "actions.log").open("w", encoding="utf-8"))
        configure_logging("INFO", "json", log)
        if "postgresql" in systems:
            with PostgresServer(DURABLE) as server:
                names = iter(range(1000))

                def fresh_database() -> str:
                    return server.create_database(f"fire_{next(names)}")

                show("PostgreSQL", measure(fresh_database, options.due, options.single, options.rounds))
        if "sqlite" in systems:
            files = iter(range(1000))

            def fresh_file() -> str:
                return f"sqlite:///{folder}/fire-{next(files)}.db"

            show("SQLite", measure(fresh_file, options.due, options.single, options.rounds))


if __name__ == "__main__":
    main()
