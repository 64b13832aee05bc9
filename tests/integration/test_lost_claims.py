"""A server that dies may lose claims of timeouts, which nobody waits for; their effect stays exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from typing import Any, Final

import psutil
import psycopg
import pytest

from scheduler import ScheduledAction, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.service.firing import Firing
from scheduler.service.owner import Owner
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.scheduling import WAIT_PLAN, make_settings, query
from tests.support.walk import make_document, on, send

HOUR: Final = timedelta(hours=1)
LONG: Final = timedelta(days=4)
MAIL: Final = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="PT72H")))
OWNER: Final = Owner("mailer-1")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def scheduler(server: PostgresServer) -> Iterator[TimeoutScheduler]:
    with closing(TimeoutScheduler(server.url(), settings=make_settings())) as scheduler:
        scheduler.migrate()
        yield scheduler


def enroll(scheduler: TimeoutScheduler, plan: Mapping[str, Any]) -> None:
    now = scheduler.database.real_clock.now()
    for number in range(3):
        scheduler.campaigns.enroll("acme", f"c-{number}", f"k-{number}", plan, start_at=now - LONG)


def stop_writing_the_log(server: PostgresServer) -> None:
    """From now on only commits that wait for it bring the log to disk."""
    with psycopg.connect(server.url(driver="postgresql")) as connection:
        row = connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'").fetchone()
    assert row is not None
    psutil.Process(row[0]).suspend()


def claim(scheduler: TimeoutScheduler, kind: ActionType) -> list[ScheduledAction]:
    with scheduler.database.one_statement() as transaction:
        return scheduler.stores.claims.claim(transaction, kind, 100, OWNER.id, HOUR)


def restart(server: PostgresServer, scheduler: TimeoutScheduler) -> None:
    server.kill9()
    server.start()
    eventually(lambda: is_answering(scheduler))


def is_answering(scheduler: TimeoutScheduler) -> bool:
    try:
        scheduler.pending()
    except Exception:  # noqa: BLE001 - not yet
        return False
    return True


def test_a_lost_claim_is_made_again_and_whoever_had_it_before_doubles_nothing(
    server: PostgresServer, scheduler: TimeoutScheduler
) -> None:
    """The same process may make it again, with the same number: then two of its workers have the same claim."""
    enroll(scheduler, WAIT_PLAN)
    stop_writing_the_log(server)
    before = claim(scheduler, ActionType.TIMEOUT)
    assert len(before) == 3
    restart(server, scheduler)
    assert query(scheduler, "SELECT count(*) FROM scheduled_actions WHERE status = 'pending'") == [(3,)]

    firing = Firing(scheduler.stores, scheduler.campaigns, scheduler.settings, scheduler.metrics, OWNER)
    assert firing.fire(before) == []
    assert query(scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit > 0") == [(0,)]
    again = claim(scheduler, ActionType.TIMEOUT)
    assert [one.claim_number for one in again] == [one.claim_number for one in before]
    assert len(firing.fire(before)) == 3
    assert firing.fire(again) == []
    assert query(scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit = 1") == [(3,)]
    assert query(scheduler, "SELECT count(*) FROM scheduled_actions WHERE status = 'completed'") == [(3,)]


def test_an_effect_brings_its_claim_to_disk(server: PostgresServer, scheduler: TimeoutScheduler) -> None:
    enroll(scheduler, WAIT_PLAN)
    stop_writing_the_log(server)
    firing = Firing(scheduler.stores, scheduler.campaigns, scheduler.settings, scheduler.metrics, OWNER)
    assert len(firing.fire(claim(scheduler, ActionType.TIMEOUT))) == 3
    restart(server, scheduler)
    assert query(scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit = 1") == [(3,)]
    found = query(scheduler, "SELECT DISTINCT status, claim_number FROM scheduled_actions")
    assert found == [("completed", 1)]


def test_the_claim_of_a_send_is_on_disk_before_its_mail_can_go_out(
    server: PostgresServer, scheduler: TimeoutScheduler
) -> None:
    enroll(scheduler, MAIL)
    stop_writing_the_log(server)
    assert len(claim(scheduler, ActionType.SEND)) == 3
    restart(server, scheduler)
    found = query(scheduler, "SELECT DISTINCT status, claim_number FROM scheduled_actions WHERE action_type = 'send'")
    assert found == [("claimed", 1)]
