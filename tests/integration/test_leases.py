"""Whose claims are whose, for how long, and when somebody else gets them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from scheduler import ScheduledAction, SendRequest, SendResult, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.runtime.maintenance import Maintenance
from scheduler.runtime.own_claims import OwnClaims
from scheduler.service import sends as sends_module
from scheduler.service.owner import Owner
from scheduler.store.tables import to_text
from scheduler.store.turns import take_turn
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import (
    FAR_AHEAD,
    LONG_AGO,
    Gate,
    Recorder,
    are_completed,
    execute,
    make_job,
    make_jobs,
    make_settings,
    query,
)
from tests.support.walk import make_document, on, send

CHECKOUT: Final = Path(__file__).parents[2]
HOUR: Final = timedelta(hours=1)
MAIL: Final = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="P36500D")))

DIES_SENDING: Final = """
import os, sys
from datetime import timedelta
from scheduler import TimeoutScheduler
from tests.support.scheduling import make_settings
def die(request):
    os.write(1, b"sending\\n")
    os._exit(9)
scheduler = TimeoutScheduler(sys.argv[1], settings=make_settings(), send_handler=die)
scheduler.start()
import threading
threading.Event().wait()
"""


def recover(scheduler: TimeoutScheduler) -> int:
    """What a maintaining process recovers at this moment."""
    return Maintenance(scheduler.stores, Owner("maintainer"), scheduler.settings).recover()


def claim_all(scheduler: TimeoutScheduler, owner: str, lease: timedelta = HOUR) -> list[ScheduledAction]:
    with scheduler.database.transaction() as transaction:
        return [
            action
            for action_type in ActionType
            for action in scheduler.stores.claims.claim(transaction, action_type, 100, owner, lease)
        ]


def claimed_until(scheduler: TimeoutScheduler) -> datetime | None:
    claimed = scheduler.list_actions(statuses=["claimed"])
    return claimed[0].claimed_until if claimed else None


def register(scheduler: TimeoutScheduler, owner: Owner, presence: int | None) -> None:
    with scheduler.database.transaction() as transaction:
        scheduler.stores.instances.note_alive(transaction, owner.id, owner.instance_name, 1, None, presence)


@contextmanager
def session_with(url: str, presence: int) -> Iterator[None]:
    """A session that holds a presence until the block ends."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:presence)"), {"presence": presence})
        yield
    engine.dispose()


class SlowHandler:
    """Sends once it is let go on, and says when it began."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.sent: list[str] = []

    def __call__(self, request: SendRequest) -> SendResult:
        """Waits."""
        self.began.set()
        assert self.may_end.wait(30)
        self.sent.append(request.dedupe_key)
        return SendResult()


def test_a_send_slower_than_the_lease_keeps_its_claim(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    settings = make_settings(lease="PT1S")
    slow, other = SlowHandler(), SlowHandler()
    scheduler = open_scheduler(postgresql_url, settings=settings, send_handler=slow)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
    scheduler.start()
    assert slow.began.wait(30)
    begun = claimed_until(scheduler)
    open_scheduler(postgresql_url, settings=settings, send_handler=other).start()

    eventually(lambda: (now := claimed_until(scheduler)) and begun and now > begun + timedelta(seconds=1.2))
    slow.may_end.set()

    eventually(lambda: [action.status for action in scheduler.list_actions(action_type="send")] == ["completed"])
    assert len(slow.sent) == 1
    assert not other.began.is_set()


def test_a_slow_send_is_told_of_once(
    database_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "timeout_scheduler")
    slow = SlowHandler()
    scheduler = open_scheduler(database_url, settings=make_settings(lease="PT0.2S"), send_handler=slow)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
    scheduler.start()

    eventually(lambda: "event=action.slow" in caplog.text)
    first = claimed_until(scheduler)
    eventually(lambda: (now := claimed_until(scheduler)) and first and now > first + timedelta(seconds=0.5))
    slow.may_end.set()

    eventually(lambda: scheduler.list_actions(statuses=["claimed"]) == [])
    assert caplog.text.count("event=action.slow") == 1


def test_run_due_extends_leases_too(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    slow = SlowHandler()
    scheduler = open_scheduler(postgresql_url, settings=make_settings(lease="PT0.6S"), send_handler=slow)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
    thread = threading.Thread(target=scheduler.run_due)
    thread.start()
    assert slow.began.wait(30)
    begun = claimed_until(scheduler)

    eventually(lambda: (now := claimed_until(scheduler)) and begun and now > begun + timedelta(seconds=0.7))
    assert recover(open_scheduler(postgresql_url)) == 0
    slow.may_end.set()
    thread.join(30)

    assert len(slow.sent) == 1


def test_a_mail_is_looked_at_again_when_its_process_was_stopped_in_between(
    postgresql_url: str, open_scheduler: OpenScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and the handler the process sleeps for longer than its lease; somebody else sends."""
    sent: list[str] = []
    scheduler = open_scheduler(
        postgresql_url,
        settings=make_settings(lease="PT10S"),
        send_handler=lambda request: sent.append(request.dedupe_key),
    )
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
    readings = iter([0.0, 11.0])

    def stopped_in_between() -> float:
        reading = next(readings, 11.0)
        if reading == 11.0 and scheduler.list_actions(statuses=["claimed"]):
            with scheduler.database.transaction() as transaction:
                scheduler.stores.claims.release_expired_sends(transaction)
                scheduler.stores.claims.release_of(transaction, [scheduler.instance])
            claim_all(scheduler, "somebody:1:else")
        return reading

    monkeypatch.setattr(sends_module, "lease_clock", stopped_in_between)
    scheduler.run_due()

    assert sent == []
    assert [action.claimed_by for action in scheduler.list_actions(statuses=["claimed"])] == ["somebody:1:else"]


def test_a_send_of_a_process_that_died_on_this_machine_goes_out_at_once(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """The lease is an hour; the next process here knows that nobody sends any more."""
    sent: list[str] = []
    scheduler = open_scheduler(postgresql_url, send_handler=lambda request: sent.append(request.dedupe_key))
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL)
    victim = subprocess.run(
        [sys.executable, "-c", DIES_SENDING, postgresql_url], cwd=CHECKOUT, capture_output=True, check=False
    )
    assert victim.stdout == b"sending\n"
    assert claimed_until(scheduler) is not None

    scheduler.start()

    eventually(lambda: sent == ["acme:c-1:intro:1:send:sent"])
    eventually(lambda: [action.status for action in scheduler.list_actions(action_type="send")] == ["completed"])


def test_what_a_process_had_whose_session_is_gone_is_due_again_but_its_sends_wait(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, lost = open_scheduler(postgresql_url), Owner("lost")
    scheduler.campaigns.enroll("acme", "mail", "k-1", MAIL)
    scheduler.schedule_many(make_jobs(3))
    claim_all(scheduler, lost.id)
    with session_with(postgresql_url, 4711 << 32 | 1):
        register(scheduler, lost, presence=4711 << 32 | 1)
        assert recover(scheduler) == 0

    assert eventually(lambda: recover(scheduler)) == 3
    assert [action.action_type for action in scheduler.list_actions(statuses=["claimed"])] == ["send"]


def test_what_a_process_had_that_never_had_a_session_waits_for_its_lease(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, quiet = open_scheduler(database_url), Owner("behind-a-pooler")
    scheduler.schedule_many(make_jobs(3))
    claim_all(scheduler, quiet.id)
    register(scheduler, quiet, presence=None)

    assert recover(scheduler) == 0


def test_what_a_process_left_that_said_goodbye_is_due_again_but_its_sends_wait(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, gone = open_scheduler(database_url), Owner("gone")
    scheduler.campaigns.enroll("acme", "mail", "k-1", MAIL)
    scheduler.schedule_many(make_jobs(3))
    register(scheduler, gone, presence=None)
    claim_all(scheduler, gone.id)
    with scheduler.database.transaction() as transaction:
        scheduler.stores.instances.note_stopped(transaction, gone.id)

    assert recover(scheduler) == 3
    assert [action.action_type for action in scheduler.list_actions(statuses=["claimed"])] == ["send"]


def test_one_process_at_a_time_recovers(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(3))
    claim_all(scheduler, "dead:1:x", lease=timedelta(microseconds=1))

    with open_scheduler(postgresql_url).database.transaction() as busy:
        assert take_turn(busy, "recovery")
        assert recover(scheduler) == 0

    assert recover(scheduler) == 3


def test_an_instance_is_known_while_it_fires_and_says_goodbye(database_url: str, open_scheduler: OpenScheduler) -> None:
    def instances() -> list[tuple[str, bool, bool]]:
        with observer.database.reading() as transaction:
            found = observer.stores.instances.select(transaction)
        return [(one.instance_id, one.stopped_at is not None, one.is_cut_off) for one in found]

    observer, scheduler = open_scheduler(database_url), open_scheduler(database_url)
    scheduler.start()
    eventually(lambda: instances() == [(scheduler.instance, False, False)])

    scheduler.shutdown()

    assert [one for one in instances() if not one[1]] == []
    Maintenance(observer.stores, Owner("maintainer"), observer.settings).tidy()
    assert instances() == []


def lose_the_answer_to_a_claim(scheduler: TimeoutScheduler) -> None:
    """The next claim that finds something is committed, and the answer is lost (on SQLite, that of its COMMIT)."""
    dialect: Any = scheduler.database.engine.dialect
    commit, claim = dialect.do_commit, scheduler.stores.claims.claim
    answers = iter([True])
    lost = OperationalError("COMMIT", {}, ConnectionError("the answer was lost"), connection_invalidated=True)

    def commit_and_fail(connection: Any) -> None:
        del dialect.do_commit
        commit(connection)
        raise lost

    def claim_and_lose(transaction: Any, *arguments: Any, **more: Any) -> Any:
        claimed = claim(transaction, *arguments, **more)
        if claimed and next(answers, False):
            if scheduler.database.is_postgresql:
                raise lost
            dialect.do_commit = commit_and_fail
        return claimed

    scheduler.stores.claims.claim = claim_and_lose  # type: ignore[method-assign]


def test_claims_whose_commit_nobody_answered_are_handed_back_with_the_next_turn(
    database_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """The lease is an hour: nobody else would get them, and this process wouldn't know them."""
    caplog.set_level("INFO", "timeout_scheduler")
    scheduler = open_scheduler(database_url, state_manager=Recorder())
    jobs = make_jobs(5)
    scheduler.schedule_many(jobs)
    lose_the_answer_to_a_claim(scheduler)
    scheduler.start()

    eventually(are_completed(scheduler, jobs))
    assert "event=claims.recovered count=5" in caplog.text
    assert query(scheduler, "SELECT DISTINCT claim_number FROM scheduled_actions") == [(2,)]


def test_upkeep_finds_what_another_left_behind_though_the_loop_looks_once_an_hour(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    """The loop's last look, by which nothing is claimed, is older than upkeep trusts."""
    settings = make_settings(poll_interval=timedelta(hours=1), lease=timedelta(seconds=2))
    scheduler = open_scheduler(database_url, state_manager=Recorder(), settings=settings)
    scheduler.start()
    eventually(lambda: scheduler.metrics.registry.get_sample_value("timeout_scheduler_claimed") == 0)
    job = make_job(scheduled_at=FAR_AHEAD)
    scheduler.schedule(job)
    execute(
        scheduler,
        "UPDATE scheduled_actions SET status = 'claimed', claimed_by = 'somebody', claim_number = 1,"
        " claimed_until = :over, deadline = :over, run_at = :over",
        over=LONG_AGO if scheduler.database.is_postgresql else to_text(LONG_AGO),
    )

    eventually(are_completed(scheduler, [job]))


def test_a_batch_that_is_being_fired_is_not_taken_for_an_unknown_claim(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    gate = Gate()
    scheduler = open_scheduler(postgresql_url, state_manager=gate)
    first, second = make_jobs(2)
    scheduler.schedule(first)
    scheduler.start()
    gate.wait_entered()
    lose_the_answer_to_a_claim(scheduler)
    scheduler.schedule(second)
    gate.wait_entered()
    gate.opened.set()

    eventually(are_completed(scheduler, [first, second]))
    assert gate.batches == [[first.dedupe_key], [second.dedupe_key]]
    claims = query(scheduler, "SELECT dedupe_key, claim_number FROM scheduled_actions ORDER BY run_at")
    assert claims == [(first.dedupe_key, 1), (second.dedupe_key, 2)]


def test_a_claim_whose_row_stays_locked_is_handed_back_as_soon_as_it_is_free(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(1))
    claims = OwnClaims(scheduler.stores, make_settings(), Owner("me"))
    claimed = claims.claim(ActionType.TIMEOUT, 1)
    with scheduler.database.engine.connect() as holder:
        holder.execute(text("SELECT * FROM scheduled_actions FOR UPDATE"))
        claims.give_back(claimed.actions)
        doubts = [claims.is_in_doubt]
        holder.rollback()

    claims.reconcile()

    assert [*doubts, claims.is_in_doubt] == [True, False]
    assert [action.status for action in scheduler.list_actions()] == ["pending"]


def test_an_error_between_the_claim_and_the_hand_over_leaves_nothing_claimed(
    database_url: str, open_scheduler: OpenScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APScheduler's loop meets an error in the middle of a turn: the next one goes on, and gives back what was left."""
    scheduler = open_scheduler(database_url, state_manager=Recorder())
    jobs = make_jobs(5)
    scheduler.schedule_many(jobs)
    store: Any = scheduler.apscheduler._lookup_jobstore("outreach:timeout")  # noqa: SLF001 - to let it fail
    ask = store.get_next_run_time
    failures = iter([True, True])

    def fail_twice() -> datetime:
        if next(failures, False):
            raise RuntimeError("something nobody thought of")
        return ask()  # type: ignore[no-any-return]

    monkeypatch.setattr(store, "get_next_run_time", fail_twice)
    scheduler.start()

    eventually(are_completed(scheduler, jobs))


def test_a_process_that_fires_removes_what_ended_longer_than_retention_ago(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url, settings=make_settings(retention="P30D"))
    for name in ("old", "new", "running"):
        scheduler.campaigns.enroll("acme", name, name, MAIL)
    for name in ("old", "new"):
        scheduler.campaigns.stop("acme", name)
    execute(
        scheduler,
        "UPDATE contact_campaigns SET completed_at = :long_ago WHERE campaign_id = 'old'",
        long_ago="2020-01-01 00:00:00.000000",
    )

    scheduler.start()

    eventually(lambda: scheduler.campaigns.find("acme", "old") is None)
    assert [scheduler.campaigns.find("acme", name) is None for name in ("new", "running")] == [False, False]
    assert query(scheduler, "SELECT DISTINCT campaign_id FROM scheduled_actions ORDER BY 1") == [("new",), ("running",)]
