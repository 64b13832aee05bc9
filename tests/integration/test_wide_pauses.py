"""A tenant, or everything, is paused: one row, nothing fires, nothing is lost, and nobody else is held up."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from scheduler import InvalidInputError, Pause, SchedulerError, SendResult, TimeoutJob, TimeoutScheduler
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.pausing import pause, resume
from tests.support.scheduling import LONG_AGO, Gate, Recorder, are_completed, make_job, make_jobs, query, statuses
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)
WIDE = pytest.mark.parametrize("scope", ["tenant", "all"])

WAIT = wait("a", on("opened", "b"), on("no_open", "stop", after="PT2H"))
NEXT = wait("b", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
MAIL = send("mail", on("opened", "b"), on("no_open", "stop", after="PT2H"))


@WIDE
def test_while_paused_nothing_fires_and_everything_goes_on_where_it_was(stage: Stage, scope: str) -> None:
    stage.enroll(WAIT, NEXT)
    stage.enroll(MAIL, NEXT, campaign="c-2")
    stage.clock.advance("PT1H")
    held = pause(stage, scope, actor="ada", reason="a holiday")
    assert (held.scope, held.started_at, held.actor, held.reason) == (scope, NOON + HOUR, "ada", "a holiday")
    assert stage.run("P10D") == 0
    assert (stage.mailed, stage.campaign().status) == ([], "active")
    assert stage.states() == {(1, "no_open"): "paused"}, "it came due meanwhile"
    done = resume(stage, scope)
    assert (done.started_at, done.campaigns, done.moved) == (NOON + HOUR, 2, 3)
    action = stage.action(1, "no_open")
    assert (action.status, action.deadline, action.run_at) == ("pending", *[NOON + timedelta(days=10, hours=2)] * 2)
    assert stage.campaign().anchor_at == NOON + timedelta(days=10)
    assert stage.run() == 1, "the mail, which was due at noon"
    assert [one.campaign_id for one in stage.mailed] == ["c-2"]
    assert stage.run("PT59M59S") == 0
    assert stage.run("PT1S") == 1
    assert stage.campaign().status == "completed"


@WIDE
def test_who_enrolls_meanwhile_begins_when_it_is_over(stage: Stage, scope: str) -> None:
    pause(stage, scope)
    stage.clock.advance("PT1H")
    stage.enroll(MAIL, NEXT)
    assert stage.run("PT3H") == 0
    assert stage.states()[1, "sent"] == "paused"
    resume(stage, scope)
    assert (stage.campaign().anchor_at, stage.action(1, "no_open").deadline) == (NOON + 4 * HOUR, NOON + 6 * HOUR)
    assert stage.run() == 1
    assert len(stage.mailed) == 1


@WIDE
def test_events_are_taken_meanwhile(stage: Stage, scope: str) -> None:
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.clock.advance("PT5H")
    assert stage.event("opened").outcome == "transitioned"
    assert stage.run("PT3H") == 0
    resume(stage, scope)
    assert stage.action(2, "no_click").deadline == NOON + 10 * HOUR, "it saw three hours of the pause"


@WIDE
def test_a_synthetic_event_by_hand_fires_nothing_meanwhile(stage: Stage, scope: str) -> None:
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.clock.advance("PT3H")
    assert stage.event("no_open").outcome == "recorded"
    assert stage.campaign().node_visit == 1


@WIDE
def test_a_timeout_fired_by_hand_is_refused_meanwhile(stage: Stage, scope: str) -> None:
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.clock.advance("PT3H")
    with pytest.raises(SchedulerError, match="not due"):
        stage.ts.fire("acme", "c-1", "k-1", "a", "no_open", NOON + 2 * HOUR)
    assert stage.states() == {(1, "no_open"): "pending"}


@WIDE
def test_a_timeout_without_a_campaign_moves_by_what_it_saw(stage: Stage, scope: str) -> None:
    before, during = (
        TimeoutJob(
            tenant_id="acme",
            campaign_id=name,
            contact_id="k",
            node_id="n",
            event_type="no_open",
            scheduled_at=NOON + HOUR,
        )
        for name in ("x-1", "x-2")
    )
    stage.ts.schedule(before)
    pause(stage, scope)
    stage.clock.advance("PT4H")
    stage.ts.schedule(during)
    assert stage.run("PT1H") == 0
    assert statuses(stage.ts, [before, during]) == ["paused", "paused"]
    resume(stage, scope)
    found = [stage.ts.find(job.dedupe_key) for job in (before, during)]
    assert [one.run_at for one in found if one] == [NOON + 6 * HOUR, NOON + 2 * HOUR]
    assert stage.run() == 1


@WIDE
def test_an_action_paused_by_itself_moves_and_stays_paused(stage: Stage, scope: str) -> None:
    stage.enroll(WAIT, NEXT)
    key = "acme:c-1:a:1:timeout:no_open"
    stage.ts.apscheduler.pause_job(key)
    pause(stage, scope)
    stage.clock.advance("PT1H")
    resume(stage, scope)
    action = stage.action(1, "no_open")
    assert (action.status, action.deadline) == ("paused", NOON + 3 * HOUR)
    stage.ts.apscheduler.resume_job(key)
    assert stage.run("P1D") == 1


@WIDE
def test_a_campaign_paused_by_itself_stays_paused(stage: Stage, scope: str) -> None:
    stage.enroll(WAIT, NEXT)
    stage.enroll(WAIT, NEXT, campaign="c-2")
    pause(stage, "campaign")
    pause(stage, scope)
    stage.run("P1D")
    resume(stage, scope)
    assert (stage.campaign().status, stage.states()) == ("paused", {(1, "no_open"): "paused"})
    assert stage.states("c-2") == {(1, "no_open"): "pending"}


def test_pausing_again_keeps_start_and_reason(stage: Stage) -> None:
    first = stage.sm.pause_tenant("acme", actor="ada", reason="first")
    stage.clock.advance("PT1H")
    assert stage.sm.pause_tenant("acme", actor="alex", reason="second") == first
    assert stage.sm.pauses() == [first]
    assert len(stage.rows("operator_actions")) == 1


def test_resuming_what_isnt_paused_changes_nothing(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.clock.advance("PT1H")
    for done in (stage.sm.resume_tenant("acme"), stage.sm.resume_all()):
        assert (done.started_at, done.campaigns, done.moved, done.woken) == (None, 0, 0, 0)
    assert stage.action(1, "no_open").deadline == NOON + 2 * HOUR
    assert stage.rows("operator_actions") == []


def test_a_paused_tenant_is_no_other_tenants(stage: Stage) -> None:
    for tenant in ("acme", "other"):
        stage.enroll(WAIT, NEXT, tenant=tenant)
        stage.enroll(MAIL, NEXT, tenant=tenant, campaign="c-2")
    others = stage.ts.list_actions(tenant_id="other")
    stage.sm.pause_tenant("acme")
    stage.clock.advance("PT1H")
    stage.sm.resume_tenant("acme")
    assert stage.ts.list_actions(tenant_id="other") == others
    assert stage.campaign(tenant="other").anchor_at == NOON
    stage.sm.pause_tenant("acme")
    stage.run("PT3H")
    assert {one.tenant_id for one in stage.mailed} == {"other"}
    assert stage.campaign(tenant="other").status == "completed"
    assert stage.sm.pauses("other") == []


def test_pauses_tells_what_holds_anything_of_a_tenant_the_widest_first(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.ts.apscheduler.pause_job("acme:c-1:a:1:timeout:no_open")
    for scope in ("campaign", "tenant", "all"):
        pause(stage, scope, actor="ada", reason=f"the {scope}")
    stage.sm.pause_tenant("other")
    found = stage.sm.pauses("acme")
    assert found == [
        Pause("all", NOON, "ada", "the all"),
        Pause("tenant", NOON, "ada", "the tenant", None, "acme"),
        Pause("campaign", NOON, "ada", "the campaign", None, "acme", "c-1"),
        Pause("action", NOON, None, None, "acme:c-1:a:1:timeout:no_open", "acme", "c-1"),
    ]
    assert [one.tenant_id for one in stage.sm.pauses() if one.scope == "tenant"] == ["acme", "other"]


def test_who_paused_what_when_and_why_is_kept(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    for scope in ("campaign", "tenant", "all"):
        pause(stage, scope, actor="ada", reason="a holiday")
        stage.clock.advance("PT1H")
        resume(stage, scope, actor="alex", reason="it is over", policy="keep", spread="PT30M")
    stage.sm.stop("acme", "c-1", actor="ada", reason="enough")
    kept = query(
        stage.ts, "SELECT act, tenant_id, campaign_id, actor, details FROM operator_actions ORDER BY created_at, act"
    )
    assert sorted(tuple(row[:4]) for row in kept) == [
        ("all.paused", None, None, "ada"),
        ("all.resumed", None, None, "alex"),
        ("campaign.paused", "acme", "c-1", "ada"),
        ("campaign.resumed", "acme", "c-1", "alex"),
        ("campaign.stopped", "acme", "c-1", "ada"),
        ("tenant.paused", "acme", None, "ada"),
        ("tenant.resumed", "acme", None, "alex"),
    ]
    details = {row[0]: json.loads(row[4]) for row in kept}
    assert details["tenant.paused"] == {"reason": "a holiday", "started_at": (NOON + HOUR).isoformat()}
    assert details["tenant.resumed"] == {
        "reason": "it is over",
        "started_at": (NOON + HOUR).isoformat(),
        "policy": "keep",
        "spread": "PT30M",
        "campaigns": 1,
        "moved": 1,
        "woken": 0,
    }


def test_a_pause_in_the_callers_transaction_goes_with_it(stage: Stage) -> None:
    with stage.ts.database.engine.connect() as connection:
        stage.sm.pause_all(connection)
        assert len(stage.sm.pauses(connection=connection)) == 1
        connection.rollback()
    assert stage.sm.pauses() == []


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda sm: sm.pause_tenant(""), "tenant_id"),
        (lambda sm: sm.pause_tenant("acme", reason=" "), "reason"),
        (lambda sm: sm.pause_all(actor="a" * 1001), "actor"),
        (lambda sm: sm.resume_all(policy="later"), "policy"),
        (lambda sm: sm.resume_tenant("acme", spread="1h"), "spread"),
        (lambda sm: sm.preview_resume(campaign_id="c-1"), "tenant_id"),
        (lambda sm: sm.preview_resume(policy="no"), "policy"),
        (lambda sm: sm.pauses(""), "tenant_id"),
    ],
)
def test_bad_input_is_named(stage: Stage, call: Callable[[Any], object], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call(stage.sm)
    assert caught.value.field == field
    assert (stage.sm.pauses(), stage.rows("operator_actions")) == ([], [])


@WIDE
def test_pausing_touches_no_action_however_many_there_are(stage: Stage, scope: str) -> None:
    stage.ts.schedule_many(make_jobs(500))
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(stage.ts.database.engine, "before_cursor_execute", note)
    pause(stage, scope)
    event.remove(stage.ts.database.engine, "before_cursor_execute", note)
    assert [one for one in said if "scheduled_actions" in one or "contact_campaigns" in one] == []
    assert len([one for one in said if "pauses" in one]) == 2


def test_due_rows_of_a_paused_tenant_give_way_to_those_of_others(stage: Stage) -> None:
    stage.ts.schedule_many(make_jobs(3000))
    stage.ts.schedule(make_job(tenant_id="other", scheduled_at=NOON))
    stage.sm.pause_tenant("acme")
    assert stage.run() == 1
    assert query(stage.ts, "SELECT status, count(*) FROM scheduled_actions GROUP BY status ORDER BY status") == [
        ("completed", 1),
        ("paused", 3000),
    ]
    done = stage.sm.resume_tenant("acme", policy="keep")
    assert (done.moved, done.woken) == (0, 3000)
    assert stage.run() == 3000


def test_a_running_scheduler_reaches_others_behind_a_paused_tenant(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder = Recorder()
    scheduler = open_scheduler(database_url, state_manager=recorder)
    scheduler.schedule_many(make_jobs(3000))
    other = make_job(tenant_id="other", scheduled_at=NOON)
    scheduler.schedule(other)
    scheduler.campaigns.pause_tenant("acme")
    scheduler.start()
    eventually(are_completed(scheduler, [other]))
    assert recorder.keys == [other.dedupe_key]
    scheduler.campaigns.resume_tenant("acme")
    moved = scheduler.list_actions(tenant_id="acme", limit=1)[0]
    assert moved.run_at > LONG_AGO
    eventually(lambda: len(recorder.keys) == 3001)


def test_sends_of_a_paused_tenant_give_way_to_those_an_application_may_take(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, database_url)
    application = stage.another("external")
    for number in range(4):
        stage.enroll(MAIL, NEXT, campaign=f"c-{number}")
    stage.clock.advance("PT1M")
    stage.enroll(MAIL, NEXT, tenant="other")
    stage.sm.pause_tenant("acme")
    taken = application.campaigns.take_sends(limit=2)
    assert [one.tenant_id for one in taken] == ["other"]
    assert application.campaigns.take_sends(tenant_id="acme") == []
    stage.sm.resume_tenant("acme", policy="keep")
    assert len(application.campaigns.take_sends()) == 4


@WIDE
def test_a_mail_that_is_going_out_when_the_pause_begins_isnt_sent_again(stage: Stage, scope: str) -> None:
    def pause_meanwhile(request: Any) -> SendResult:
        pause(stage, scope)
        return stage.mail(request)

    stage.handler = pause_meanwhile
    stage.enroll(MAIL, NEXT)
    stage.run()
    assert stage.states()[1, "sent"] == "sent"
    stage.run("P1D")
    resume(stage, scope)
    stage.run("PT1H")
    assert len(stage.mailed) == 1
    assert stage.action(1, "no_open").deadline == NOON + timedelta(days=1, hours=2)


def test_what_ones_own_state_manager_has_claimed_before_the_pause_isnt_given_to_it(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder = Recorder()
    scheduler = open_scheduler(database_url, state_manager=recorder, clock=SettableClock(NOON))
    jobs = [make_job(), make_job(tenant_id="other")]
    scheduler.schedule_many(jobs)
    engine = scheduler._engine  # noqa: SLF001 - between claim and firing
    claimed = engine._claim("timeout")  # type: ignore[arg-type]  # noqa: SLF001
    scheduler.campaigns.pause_tenant("acme")
    engine._firing.fire(claimed)  # noqa: SLF001
    assert recorder.keys == [jobs[1].dedupe_key]
    assert statuses(scheduler, jobs) == ["paused", "completed"]
    assert scheduler.campaigns.resume_tenant("acme", policy="keep").woken == 1


def test_a_gate_lets_a_batch_that_fires_already_end(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    """A pause doesn't wait for what is firing at this moment, and what fires ends as if the pause came after it."""
    gate = Gate()
    scheduler: TimeoutScheduler = open_scheduler(postgresql_url, state_manager=gate)
    job = make_job()
    scheduler.schedule(job)
    scheduler.start()
    gate.wait_entered()
    scheduler.campaigns.pause_tenant("acme")
    gate.opened.set()
    eventually(are_completed(scheduler, [job]))
