"""Starts and stops that cross: from two threads, from a listener, beside `run_due`, with mails that aren't recorded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_SUBMITTED
from sqlalchemy import text

from scheduler import AlreadyRunningError, RetryLater, SendRequest, SendResult, TimeoutScheduler
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.scheduling import LONG_AGO, Recorder, are_completed, execute, make_job, make_settings, query
from tests.support.walk import make_document, on, send

MAIL: Final = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="P36500D")))


class Handler:
    """Sends once it may, and remembers."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self.sent: list[str] = []

    def __call__(self, request: SendRequest) -> SendResult:
        """Waits until it may end."""
        self.began.set()
        assert self.may_end.wait(30)
        self.sent.append(request.campaign_id)
        return SendResult()


def open_handler() -> Handler:
    handler = Handler()
    handler.may_end.set()
    return handler


def send_statuses(scheduler: TimeoutScheduler) -> list[str]:
    return [str(action.status) for action in scheduler.list_actions(action_type="send")]


def at_once(*calls: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(calls)) as pool:
        for answer in [pool.submit(call) for call in calls]:
            answer.result(60)


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("outreach:", "APScheduler"))]


def test_starts_and_stops_at_once_leave_one_loop_or_none(database_url: str, open_scheduler: OpenScheduler) -> None:
    before, others = own_threads(), threading.active_count()
    scheduler = open_scheduler(database_url, state_manager=Recorder())
    for _ in range(5):
        at_once(*[scheduler.start] * 4)
        assert threading.active_count() - others < 20
        assert own_threads().count("APScheduler") - before.count("APScheduler") == 1
        at_once(*[scheduler.shutdown] * 4)

    eventually(lambda: own_threads() == before)
    scheduler.start()
    scheduler.schedule(make_job())
    eventually(are_completed(scheduler, [make_job()]))


def test_after_stops_at_once_a_second_process_is_still_refused_on_sqlite(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    handler = Handler()
    hasty = make_settings(shutdown_timeout="PT0S")
    first, second = open_scheduler(sqlite_url, send_handler=handler, settings=hasty), open_scheduler(sqlite_url)
    first.campaigns.enroll("acme", "c-1", "k-1", MAIL)
    first.start()
    assert handler.began.wait(30)
    at_once(first.shutdown, first.shutdown)
    first.start()

    with pytest.raises(AlreadyRunningError):
        second.start()
    handler.may_end.set()


def test_a_stop_beside_run_due_leaves_it_the_mail_it_is_sending(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    handler = Handler()
    scheduler = open_scheduler(database_url, send_handler=handler)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(scheduler.run_due)
        assert handler.began.wait(30)
        scheduler.start()
        scheduler.shutdown()

        assert send_statuses(scheduler) == ["claimed"]
        handler.may_end.set()
        assert running.result(30) == 1
    assert handler.sent == ["c-1"]


@pytest.mark.parametrize("of_event", [EVENT_JOB_SUBMITTED, EVENT_JOB_EXECUTED])
def test_a_listener_may_stop_the_scheduler_and_waits_for_nothing_of_itself(
    database_url: str, open_scheduler: OpenScheduler, of_event: int
) -> None:
    """Submitted: called by the loop. Executed: called by a worker."""
    stopped = threading.Event()
    scheduler = open_scheduler(
        database_url, state_manager=Recorder(), settings=make_settings(shutdown_timeout=timedelta(hours=1))
    )

    def stop(_event: Any) -> None:
        scheduler.shutdown()
        stopped.set()

    scheduler.apscheduler.add_listener(stop, of_event)
    scheduler.schedule(make_job())
    scheduler.start()

    assert stopped.wait(30)
    assert not scheduler.apscheduler.running
    scheduler.apscheduler.remove_listener(stop)
    scheduler.start()
    eventually(are_completed(scheduler, [make_job()]))


def test_a_start_that_fails_leaves_nothing_behind(
    postgresql_url: str, open_scheduler: OpenScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = own_threads()
    scheduler = open_scheduler(postgresql_url)

    def fail() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe", fail)
        with pytest.raises(OSError, match="Too many"):
            scheduler.start()

    eventually(lambda: own_threads() == before)
    scheduler.start()
    scheduler.shutdown()


def test_a_mail_that_went_out_while_the_database_was_away_is_not_handed_back_by_a_stop(
    open_scheduler: OpenScheduler,
) -> None:
    handler = Handler()
    with PostgresServer() as server:
        scheduler = open_scheduler(server.url(), send_handler=handler)
        scheduler.migrate()
        scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
        scheduler.start()
        assert handler.began.wait(30)
        server.kill9()
        handler.may_end.set()
        eventually(lambda: handler.sent)
        stopping = threading.Thread(target=scheduler.shutdown)
        stopping.start()
        stopping.join(30)
        server.start()

        again = open_handler()
        other = open_scheduler(server.url(), send_handler=again)
        other.start()
        assert send_statuses(other) == ["claimed"]
        scheduler.start()
        eventually(lambda: send_statuses(other) == ["completed"])
        assert (handler.sent, again.sent) == (["c-1"], [])
        other.close()
        scheduler.close()


def test_a_campaign_that_somebody_holds_holds_up_no_other_mail(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    handler = Handler()
    settings = make_settings(send_workers=1, lease=timedelta(seconds=2))
    scheduler = open_scheduler(postgresql_url, send_handler=handler, settings=settings)
    scheduler.campaigns.enroll("acme", "c-0", "k-0", MAIL)
    scheduler.start()
    assert handler.began.wait(30)
    with open_scheduler(postgresql_url).database.engine.connect() as holder:
        holder.execute(text("SELECT * FROM contact_campaigns WHERE campaign_id = 'c-0' FOR UPDATE"))
        for number in range(1, 4):
            scheduler.campaigns.enroll("acme", f"c-{number}", f"k-{number}", MAIL)
        handler.may_end.set()

        eventually(lambda: send_statuses(scheduler).count("completed") == 3)
        assert send_statuses(scheduler).count("claimed") == 1
        holder.rollback()

    eventually(lambda: send_statuses(scheduler) == ["completed"] * 4)
    assert sorted(handler.sent) == [f"c-{number}" for number in range(4)]


REFUSE: Final = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.status = 'claimed' THEN RETURN NEW; END IF; RAISE EXCEPTION 'this row is spoilt'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON scheduled_actions
    FOR EACH ROW WHEN (NEW.campaign_id = 'c-0' AND NEW.action_type = 'send') EXECUTE FUNCTION refuse();
"""


def test_a_mail_that_can_never_be_recorded_holds_up_no_other(
    postgresql_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are left: c-0 for good, c-1 for as long as somebody holds its campaign. c-0 comes first in each round."""
    handler = Handler()
    settings = make_settings(lease=timedelta(seconds=2))
    scheduler = open_scheduler(postgresql_url, send_handler=handler, settings=settings)
    for number in range(2):
        scheduler.campaigns.enroll("acme", f"c-{number}", f"k-{number}", MAIL)
    scheduler.start()
    eventually(lambda: send_statuses(scheduler) == ["claimed"] * 2)
    execute(scheduler, REFUSE)
    with open_scheduler(postgresql_url).database.engine.connect() as holder:
        holder.execute(text("SELECT * FROM contact_campaigns WHERE campaign_id = 'c-1' FOR UPDATE"))
        handler.may_end.set()
        eventually(lambda: "event=maintenance.error" in caplog.text)
        holder.rollback()

    eventually(lambda: sorted(send_statuses(scheduler)) == ["claimed", "completed"])
    assert sorted(handler.sent) == ["c-0", "c-1"]


def test_what_a_handler_said_is_recorded_once_the_database_is_back_and_it_is_not_asked_again(
    open_scheduler: OpenScheduler,
) -> None:
    asked: list[str] = []
    with PostgresServer() as server:

        def refuse(request: SendRequest) -> SendResult:
            asked.append(request.campaign_id)
            server.kill9()
            raise RetryLater(timedelta(hours=1))

        scheduler = open_scheduler(server.url(), send_handler=refuse)
        scheduler.migrate()
        scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
        scheduler.start()
        eventually(lambda: asked)
        eventually(lambda: not scheduler.is_database_up)
        server.start()

        eventually(
            lambda: (
                [
                    row[0]
                    for row in query(scheduler, "SELECT attempts FROM scheduled_actions WHERE action_type = 'send'")
                ]
                == [1]
            )
        )
        assert asked == ["c-1"]
        assert send_statuses(scheduler) == ["pending"]
        scheduler.close()


def test_a_late_mail_is_asked_for_ever_more_rarely(database_url: str, open_scheduler: OpenScheduler) -> None:
    """Its timeouts are due, and wait: each look is a claim."""
    clock = SettableClock(LONG_AGO)
    scheduler = open_scheduler(database_url, clock=clock)
    document = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="PT1S")))
    scheduler.campaigns.enroll("acme", "c-1", "k-1", document)
    waits = []
    for late in (timedelta(0), timedelta(seconds=40), timedelta(days=1), timedelta(days=1)):
        clock.advance(timedelta(seconds=1) + late)
        scheduler.run_due()
        (timeout,) = scheduler.list_actions(action_type="timeout")
        waits.append(timeout.run_at - clock.now())

    poll = timedelta(milliseconds=50)
    assert waits == [poll, poll, timedelta(seconds=10, milliseconds=262, microseconds=500), timedelta(minutes=1)]


def test_the_next_start_finds_the_lock_file_free(
    sqlite_url: str, open_scheduler: OpenScheduler, tmp_path: Path
) -> None:
    scheduler, other = open_scheduler(sqlite_url), open_scheduler(sqlite_url)
    for _ in range(3):
        scheduler.start()
        scheduler.shutdown()
        scheduler.shutdown()

    other.start()
    assert list(tmp_path.glob("*.lock"))
