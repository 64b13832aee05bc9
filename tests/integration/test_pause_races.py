"""Pauses and resumes beside claims, firing, enrolments and each other: nothing waits for ever, nothing moves twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import event

from scheduler import SchedulerError, SendRequest, SendResult, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.pausing import pause, resume
from tests.support.scheduling import LONG_AGO, NOON, make_jobs, make_settings, query
from tests.support.stage import Stage
from tests.support.walk import make_document, on, send, wait

HOUR: Final = timedelta(hours=1)
CAMPAIGNS: Final = 60
WAIT: Final = wait("a", on("opened", "b"), on("no_open", "stop", after="PT2H"))
NEXT: Final = wait("b", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
TWO_MAILS: Final = make_document(
    send("mail", on("opened", "stop"), on("no_open", "again", after="PT0.001S")),
    send("again", on("opened", "stop"), on("no_open", "stop", after="PT0.001S")),
)
MAIL_AND_WAIT: Final = make_document(send("mail", on("opened", "stop"), on("no_open", "stop", after="PT72H")))
WIDE: Final = pytest.mark.parametrize("scope", ["tenant", "all"])


class FailedError(Exception):
    """The process ends here."""


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """`work` goes on in another thread; its answer is there when the block has ended."""
    answers: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield answers
        answers.append(future.result(30))


def waits_for_a_lock(scheduler: TimeoutScheduler) -> bool:
    found = query(scheduler, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return bool(found[0][0])


@pytest.mark.parametrize("scope", ["campaign", "tenant", "all"])
def test_two_resumes_at_once_move_everything_once(
    postgresql_url: str, open_scheduler: OpenScheduler, scope: str
) -> None:
    stage = Stage(open_scheduler, postgresql_url)
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.clock.advance("P1D")
    barrier = threading.Barrier(4)

    def work(_number: int) -> Any:
        barrier.wait(30)
        return resume(stage, scope)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(work, range(4)))

    assert stage.action(1, "no_open").run_at == NOON + timedelta(days=1, hours=2)
    assert stage.campaign().anchor_at == NOON + timedelta(days=1)
    assert Counter(row[0] for row in query(stage.ts, "SELECT act FROM operator_actions"))[f"{scope}.resumed"] == 1
    if scope != "campaign":
        assert sorted(one.moved for one in answers) == [0, 0, 0, 1]


@WIDE
def test_a_resume_waits_for_a_claim_that_turns_actions_paused(
    postgresql_url: str, open_scheduler: OpenScheduler, scope: str
) -> None:
    stage = Stage(open_scheduler, postgresql_url)
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.clock.advance("PT3H")
    stores = stage.ts.stores
    with stores.database.transaction() as transaction:
        claimed = stores.claims.claim(transaction, ActionType.TIMEOUT, 10, "me", HOUR)
        assert (claimed, claimed.held) == ([], 1)
        with beside(lambda: resume(stage, scope, policy="keep")) as answers:
            eventually(lambda: waits_for_a_lock(stage.ts))
            transaction.connection.commit()
    assert answers[0].woken == 1
    assert stage.run() == 1


@WIDE
def test_a_claim_beside_a_resume_turns_nothing_paused(
    postgresql_url: str, open_scheduler: OpenScheduler, scope: str
) -> None:
    """Who claims while the pause is being lifted can't know how that ends: what he gets waits, and isn't held."""
    stage = Stage(open_scheduler, postgresql_url)
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.clock.advance("PT3H")
    with stage.ts.database.engine.connect() as connection:
        resume(stage, scope, connection=connection, policy="keep")
        assert stage.ts.run_due() == 0
        connection.commit()
    assert stage.states() != {(1, "no_open"): "paused"}
    assert stage.run("PT1S") == 1


@WIDE
def test_who_enrolls_while_a_resume_goes_on_isnt_left_behind(
    postgresql_url: str, open_scheduler: OpenScheduler, scope: str
) -> None:
    stage = Stage(open_scheduler, postgresql_url)
    pause(stage, scope)
    stage.clock.advance("PT3H")
    with stage.ts.database.engine.connect() as connection:
        resume(stage, scope, connection=connection)
        stage.enroll(send("mail", on("opened", "stop"), on("no_open", "stop", after="PT2H")))
        assert stage.ts.run_due() == 0
        connection.commit()
    assert stage.states()[1, "sent"] == "pending"
    assert stage.run("PT1S") == 1
    assert len(stage.mailed) == 1


def test_what_a_rolled_back_resume_had_changed_is_as_it_was(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.sm.pause_tenant("acme", reason="a holiday")
    stage.run("PT3H")
    before = [stage.rows(table) for table in ("scheduled_actions", "contact_campaigns", "pauses", "operator_actions")]

    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "operator_actions" in statement:
            raise FailedError

    event.listen(stage.ts.database.engine, "before_cursor_execute", fail)
    with pytest.raises(FailedError):
        stage.sm.resume_tenant("acme")
    event.remove(stage.ts.database.engine, "before_cursor_execute", fail)

    tables = ("scheduled_actions", "contact_campaigns", "pauses", "operator_actions")
    assert [stage.rows(table) for table in tables] == before
    stage.sm.resume_tenant("acme")
    assert stage.action(1, "no_open").run_at == NOON + 5 * HOUR


@pytest.mark.parametrize("scope", ["campaign", "tenant", "all"])
def test_a_mail_that_is_going_out_is_not_sent_again_by_a_pause_and_its_end(
    postgresql_url: str, open_scheduler: OpenScheduler, scope: str
) -> None:
    """Somebody else fires all that is due before the first one can say that it went out."""
    mailed: list[str] = []

    def mail(request: SendRequest) -> SendResult:
        mailed.append(request.dedupe_key)
        if len(mailed) == 1:
            pause(stage, scope, campaign="c-1")
            resume(stage, scope, campaign="c-1")
            other.run_due()
        return SendResult()

    scheduler, other = (open_scheduler(postgresql_url, send_handler=mail, settings=make_settings()) for _ in range(2))
    stage = Stage(open_scheduler, postgresql_url)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL_AND_WAIT)
    scheduler.run_due()
    other.run_due()
    assert mailed == ["acme:c-1:mail:1:send:sent"]
    found = query(scheduler, "SELECT status, outcome FROM scheduled_actions WHERE action_type = 'send'")
    assert [tuple(row) for row in found] == [("completed", "sent")]


def test_a_mail_that_is_going_out_can_not_be_paused_by_itself(stage: Stage) -> None:
    def mail(request: SendRequest) -> SendResult:
        with pytest.raises(SchedulerError, match="can't be paused any more"):
            stage.ts.apscheduler.pause_job(request.dedupe_key)
        return stage.mail(request)

    stage.handler = mail
    stage.enroll(send("mail", on("opened", "stop"), on("no_open", "stop", after="PT2H")))
    assert stage.run() == 1
    assert stage.sm.pauses() == []
    assert len(stage.mailed) == 1


@pytest.mark.parametrize("policy", ["shift", "keep"])
def test_pausing_and_resuming_beside_everything_ends_in_a_legal_state(
    database_url: str, open_scheduler: OpenScheduler, policy: str
) -> None:
    """Mails and timeouts fire in the background, contacts enrol, and pauses of every scope come and go."""
    mailed: list[str] = []

    def mail(request: SendRequest) -> SendResult:
        mailed.append(request.dedupe_key)
        return SendResult()

    settings = make_settings(send_handler="log", workers=3, batch_size=7, lease=timedelta(seconds=10))
    scheduler = open_scheduler(database_url, send_handler=mail, settings=settings)
    others = [scheduler]
    if scheduler.database.is_postgresql:
        others.append(open_scheduler(database_url, send_handler=mail, settings=settings))
    for one in others:
        one.start()
    stage = Stage(open_scheduler, database_url)
    stage.sm = others[-1].campaigns
    for number in range(CAMPAIGNS):
        scheduler.campaigns.enroll("acme", f"c-{number}", f"k-{number}", TWO_MAILS, start_at=LONG_AGO)
        scope = ("tenant", "all", "campaign")[number % 3]
        pause(stage, scope, campaign=f"c-{number // 2}")
        if number % 2:
            scheduler.campaigns.enroll("other", f"c-{number}", f"k-{number}", TWO_MAILS, start_at=LONG_AGO)
        resume(stage, scope, campaign=f"c-{number // 2}", policy=policy)

    def all_done() -> bool:
        found = query(scheduler, "SELECT status, count(*) FROM contact_campaigns GROUP BY status")
        return [tuple(row) for row in found] == [("completed", CAMPAIGNS + CAMPAIGNS // 2)]

    eventually(all_done, timeout=60)
    left = query(scheduler, "SELECT DISTINCT status FROM scheduled_actions")
    assert {row[0] for row in left} <= {"completed", "canceled"}
    assert scheduler.campaigns.pauses() == []
    assert Counter(Counter(mailed).values()) == Counter({1: 2 * (CAMPAIGNS + CAMPAIGNS // 2)})


def test_a_clock_of_ones_own_dates_what_is_scheduled(database_url: str, open_scheduler: OpenScheduler) -> None:
    """A timeout without a campaign counts a pause from when it was scheduled: by the clock that counts the pause."""
    scheduler = open_scheduler(database_url, clock=SettableClock(NOON))
    scheduler.schedule_many(make_jobs(1))
    assert [one.created_at for one in scheduler.list_actions()] == [NOON]
