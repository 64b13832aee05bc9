"""Campaigns are paused, go on and are stopped; while paused nothing fires and nothing is lost."""

from datetime import timedelta

import pytest

from scheduler import SendRequest, SendResult, TimeoutJob, UnknownCampaignError
from tests.support.scheduling import query
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)

WAIT = wait("a", on("opened", "b"), on("no_open", "stop", after="PT2H"))
NEXT = wait("b", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
MAIL = send("mail", on("opened", "b"), on("no_open", "stop", after="PT2H"))


def test_a_paused_campaign_fires_nothing_and_goes_on_where_it_was(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.clock.advance("PT1H")
    paused = stage.sm.pause("acme", "c-1", actor="ada", reason="a holiday")
    assert (paused.status, paused) == ("paused", stage.campaign())
    assert stage.states() == {(1, "no_open"): "paused"}
    assert query(stage.ts, "SELECT actor, reason FROM pauses") == [("ada", "a holiday")]
    assert stage.run("P10D") == 0
    resumed = stage.sm.resume("acme", "c-1")
    assert (resumed.status, resumed.anchor_at) == ("active", NOON + timedelta(days=10))
    action = stage.action(1, "no_open")
    assert (action.status, action.deadline, action.run_at) == ("pending", *[NOON + timedelta(days=10, hours=2)] * 2)
    assert stage.counts()["pauses"] == 0
    assert stage.run("PT59M59S") == 0
    assert stage.run("PT1S") == 1


def test_a_second_pause_keeps_the_first_ones_start(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT1H")
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT1H")
    stage.sm.resume("acme", "c-1")
    assert stage.action(1, "no_open").deadline == NOON + 4 * HOUR
    assert stage.sm.resume("acme", "c-1") == stage.campaign()
    assert stage.action(1, "no_open").deadline == NOON + 4 * HOUR


def test_a_paused_campaign_takes_events_and_its_new_actions_are_born_paused(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT5H")
    assert stage.event("opened").outcome == "transitioned"
    assert stage.states() == {(1, "no_open"): "canceled", (2, "no_click"): "paused"}
    stage.clock.advance("PT1H")
    stage.sm.resume("acme", "c-1")
    assert stage.action(2, "no_click").deadline == NOON + 8 * HOUR, "it saw one hour of the pause"
    assert stage.campaign().anchor_at == NOON + 6 * HOUR


def test_a_timeout_scheduled_into_a_paused_campaign_waits_too(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.sm.pause("acme", "c-1")
    job = TimeoutJob(
        tenant_id="acme", campaign_id="c-1", contact_id="k-1", node_id="a", event_type="no_reply", scheduled_at=NOON
    )
    stage.ts.schedule(job)
    assert stage.run() == 0
    action = stage.action(1, "no_reply")
    assert (action.status, action.run_at, action.attempts) == ("paused", NOON, 0)
    stage.sm.resume("acme", "c-1")
    assert stage.run() == 1
    assert stage.states()[1, "no_reply"] == "no_transition"


@pytest.mark.parametrize("event_type", ["unsubscribed", "bounced", "spamreport"])
def test_an_exit_ends_a_paused_campaign_at_once(stage: Stage, event_type: str) -> None:
    stage.enroll(WAIT, NEXT)
    stage.sm.pause("acme", "c-1")
    assert stage.event(event_type).outcome == "transitioned"
    assert stage.campaign().status == "stopped"
    assert stage.states() == {(1, "no_open"): "canceled"}
    assert stage.sm.resume("acme", "c-1").status == "stopped"


def test_a_stop_ends_everything_and_again_changes_nothing(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.clock.advance("PT1H")
    stopped = stage.sm.stop("acme", "c-1")
    assert (stopped.status, stopped.current_node_id, stopped.completed_at) == ("stopped", "stop", NOON + HOUR)
    assert stage.history() == [("a", "stop", "stopped")]
    assert stage.states() == {(1, "no_open"): "canceled"}
    stage.clock.advance("PT1H")
    assert stage.sm.stop("acme", "c-1") == stage.sm.pause("acme", "c-1") == stage.sm.resume("acme", "c-1") == stopped
    assert stage.history() == [("a", "stop", "stopped")]


def test_a_stop_ends_the_pause(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    stage.sm.pause("acme", "c-1")
    assert stage.sm.stop("acme", "c-1").status == "stopped"
    assert stage.counts()["pauses"] == 0


def test_an_unknown_campaign_cant_be_paused_resumed_or_stopped(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT, tenant="other")
    for call in (stage.sm.pause, stage.sm.resume, stage.sm.stop):
        with pytest.raises(UnknownCampaignError):
            call("acme", "c-1")
    assert stage.campaign("c-1", "other").status == "active"


def test_a_pause_in_the_callers_transaction_goes_with_it(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    with stage.ts.database.engine.connect() as connection:
        assert stage.sm.pause("acme", "c-1", connection).status == "paused"
        connection.rollback()
    assert stage.campaign().status == "active"
    assert stage.states() == {(1, "no_open"): "pending"}


def test_a_campaign_paused_before_it_starts_starts_when_it_was_to(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT, start_at=NOON + 10 * HOUR)
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT4H")
    stage.sm.resume("acme", "c-1")
    assert stage.action(1, "no_open").deadline == NOON + 12 * HOUR


def test_a_mail_planned_for_later_is_put_off_by_the_pause(stage: Stage) -> None:
    stage.enroll({**MAIL, "schedule": {"delay": "PT1H"}}, NEXT)
    stage.sm.pause("acme", "c-1")
    stage.run("PT3H")
    assert stage.mailed == []
    stage.sm.resume("acme", "c-1")
    assert (stage.action(1, "sent").run_at, stage.campaign().anchor_at) == (NOON + 4 * HOUR, NOON + 4 * HOUR)
    assert stage.action(1, "no_open").deadline == NOON + 6 * HOUR


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_mail_that_goes_out_while_its_campaign_is_paused_isnt_sent_again(
    stage: Stage,
    is_resumed: bool,  # noqa: FBT001
) -> None:
    def pause_meanwhile(request: SendRequest) -> SendResult:
        stage.sm.pause("acme", "c-1")
        if is_resumed:
            stage.sm.resume("acme", "c-1")
        return stage.mail(request)

    stage.handler = pause_meanwhile
    stage.enroll(MAIL, NEXT)
    stage.run()
    assert stage.states()[1, "sent"] == "sent"
    stage.sm.resume("acme", "c-1")
    stage.run("PT1H")
    assert len(stage.mailed) == 1
    assert stage.action(1, "sent").message_id == "m-c-1-1"


def test_the_timeouts_of_a_mail_sent_during_the_pause_count_from_the_end_of_it(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT10H")
    assert stage.sm.confirm_send("acme:c-1:mail:1:send:sent", NOON + 10 * HOUR)
    stage.clock.advance("PT1H")
    stage.sm.resume("acme", "c-1")
    assert stage.campaign().anchor_at == NOON + 11 * HOUR
    assert stage.action(1, "no_open").deadline == NOON + 13 * HOUR


def test_an_action_paused_by_itself_stays_paused(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    key = "acme:c-1:a:1:timeout:no_open"
    stage.ts.apscheduler.pause_job(key)
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT1H")
    stage.sm.resume("acme", "c-1")
    action = stage.action(1, "no_open")
    assert (action.status, action.deadline) == ("paused", NOON + 3 * HOUR)
    assert stage.run("P1D") == 0
    stage.ts.apscheduler.resume_job(key)
    assert stage.run("P1D") == 1


def test_an_actions_pause_lifted_leaves_the_campaigns(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    key = "acme:c-1:a:1:timeout:no_open"
    stage.sm.pause("acme", "c-1")
    stage.ts.apscheduler.pause_job(key)
    stage.ts.apscheduler.resume_job(key)
    assert stage.states() == {(1, "no_open"): "paused"}
    assert stage.run("P1D") == 0
    stage.sm.resume("acme", "c-1")
    assert stage.states() == {(1, "no_open"): "pending"}
