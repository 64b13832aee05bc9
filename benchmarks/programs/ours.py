"""The project itself: as the daemon runs it (`fire`), or what is asked of it (`schedule`, `claim`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from benchmarks.campaigns import enroll_by_call, overdue
from benchmarks.programs.child import answer, job, wait_for_go
from scheduler import Settings, TimeoutJob, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.domain.timing import SystemClock
from scheduler.runtime.daemon import Daemon
from scheduler.telemetry.log import configure_logging
from scheduler.web.application import Health, create_application
from scheduler.web.server import WebServer

EVENTS_AT_ONCE: Final = 500
_CLAIMS: Final = 20
_OWNER: Final = "benchmark:1:claim"


def fire(scheduler: TimeoutScheduler) -> None:
    """What `timeout-scheduler run` does, in the same order, but for the waiting."""
    daemon = Daemon(scheduler)
    health = Health(daemon.why_not_alive, daemon.why_not_ready, scheduler.metrics.registry)
    server = WebServer(create_application(health, None), "127.0.0.1", 0)
    server.start()
    scheduler.require_current_schema()
    wait_for_go()
    daemon.run()
    server.stop()


def schedule(scheduler: TimeoutScheduler, one: int, bulk: int, enrolments: int, events: int) -> None:
    """Rates of every way in; warm connections, and nothing that was built before the clock ran but Python objects."""
    due_at = SystemClock().now() + timedelta(days=1)
    singles, many = list(_jobs("one", one, due_at)), list(_jobs("bulk", bulk, due_at))
    enrolled = list(overdue(enrolments).enrolments())
    enroll_by_call(scheduler, [overdue(events, tenant="event")])
    opened = list(_events(events))
    scheduler.schedule(next(_jobs("warm", 1, due_at)))
    wait_for_go()

    def take_events() -> None:
        for start in range(0, events, EVENTS_AT_ONCE):
            scheduler.campaigns.process_events(opened[start : start + EVENTS_AT_ONCE])

    answer(
        one=_rate(one, lambda: [scheduler.schedule(each) for each in singles]),
        bulk=_rate(bulk, lambda: scheduler.schedule_many(many)),
        enrol=_rate(enrolments, lambda: scheduler.campaigns.enroll_many(enrolled)),
        events=_rate(events, take_events),
    )


def claim(scheduler: TimeoutScheduler, limit: int) -> None:
    """Milliseconds of one claim of a full batch, round trip and rows included; nothing stays claimed."""
    stores = scheduler.stores
    wait_for_go()
    taken, claimed = [], 0
    for _ in range(_CLAIMS):
        with stores.database.transaction() as transaction:
            began = time.perf_counter()
            claimed = len(stores.claims.claim(transaction, ActionType.TIMEOUT, limit, _OWNER, timedelta(minutes=1)))
            taken.append((time.perf_counter() - began) * 1000)
            stores.claims.release_of(transaction, [_OWNER])
    answer(milliseconds=sorted(taken)[len(taken) // 2], claimed=claimed)


def _jobs(name: str, count: int, due_at: Any) -> Iterator[TimeoutJob]:
    for number in range(count):
        yield TimeoutJob(
            tenant_id=f"{name}-{number % 10}",
            campaign_id=f"campaign-{number}",
            contact_id=f"contact-{number}",
            node_id="first",
            event_type="no_open",
            scheduled_at=due_at,
            node_visit=1,
        )


def _events(count: int) -> Iterator[Mapping[str, Any]]:
    for number in range(count):
        yield {
            "tenant_id": f"event-{number % 10}",
            "campaign_id": f"campaign-{number}",
            "event_type": "opened",
            "event_id": f"event-{number}",
        }


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def main() -> None:
    """Do the job."""
    wanted = job()
    configure_logging(wanted.get("log_level", "INFO"), "json")
    scheduler = TimeoutScheduler(wanted["url"].replace("postgresql://", "postgresql+psycopg://"), settings=Settings())
    try:
        match wanted["mode"]:
            case "fire":
                fire(scheduler)
            case "schedule":
                schedule(scheduler, wanted["one"], wanted["bulk"], wanted["enrolments"], wanted["events"])
            case "claim":
                claim(scheduler, wanted["limit"])
            case mode:
                raise ValueError(mode)
    finally:
        scheduler.close()


if __name__ == "__main__":
    main()
