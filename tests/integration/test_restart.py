"""A finished campaign begins again: its visits go on counting, so that no key is used twice."""

import threading
from datetime import timedelta

import pytest

from scheduler import InvalidInputError
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

MAIL = send("mail", on("opened", "b"), on("no_open", "stop", after="PT72H"))
NEXT = wait("b", on("clicked", "stop"), on("no_click", "stop", after="PT24H"))
OTHER = wait("other", on("replied", "stop"), on("no_reply", "stop", after="P1D"))


def test_a_completed_campaign_begins_again_with_fresh_keys(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.run()
    stage.run("PT72H")
    assert stage.campaign().status == "completed"
    again = stage.enroll(MAIL, NEXT, restart=True)
    assert again == stage.campaign()
    assert (again.status, again.current_node_id, again.node_visit, again.first_visit) == ("active", "mail", 3, 3)
    assert (again.started_at, again.completed_at, again.anchor_at) == (NOON + 3 * DAY, None, NOON + 3 * DAY)
    assert stage.history() == [("mail", "stop", "no_open"), ("stop", "mail", "restarted")]
    stage.run()
    stage.run("PT72H")
    assert [(request.dedupe_key, request.node_visit) for request in stage.mailed] == [
        ("acme:c-1:mail:1:send:sent", 1),
        ("acme:c-1:mail:3:send:sent", 3),
    ]
    assert stage.campaign().status == "completed"


def test_a_campaign_still_running_is_left_as_it_is(stage: Stage) -> None:
    first = stage.enroll(MAIL, NEXT)
    stage.clock.advance("PT1H")
    assert stage.enroll(MAIL, NEXT, restart=True) == first
    stage.sm.pause("acme", "c-1")
    assert stage.enroll(MAIL, NEXT, restart=True).status == "paused"
    assert stage.history() == []


def test_without_restart_a_finished_campaign_stays_finished(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.sm.stop("acme", "c-1")
    assert stage.enroll(MAIL, NEXT).status == "stopped"


def test_it_may_begin_again_on_another_plan_and_later(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.sm.stop("acme", "c-1")
    campaign = stage.enroll(OTHER, restart=True, start_at=NOON + DAY)
    assert (campaign.current_node_id, campaign.node_entered_at) == ("other", NOON + DAY)
    assert stage.action(3, "no_reply").deadline == NOON + 2 * DAY
    stage.run("P2D")
    assert stage.campaign().status == "completed"


def test_a_campaign_in_error_begins_again_from_where_it_stood(stage: Stage) -> None:
    stage.enroll(wait("loop", on("no_open", "loop", after="PT1H")), maxTransitions=2)
    for _ in range(4):
        stage.run("PT1H")
    assert (stage.campaign().status, stage.campaign().node_visit) == ("error", 3)
    stage.enroll(wait("loop", on("no_open", "loop", after="PT1H")), maxTransitions=2, restart=True)
    assert stage.campaign().node_visit == 4
    stage.run("PT1H")
    assert stage.campaign().status == "active", "transitions are counted since the last start"
    stage.run("PT1H")
    stage.run("PT1H")
    assert stage.campaign().status == "error"


def test_what_comes_for_a_mail_of_the_last_run_is_late(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.run()
    stage.event("unsubscribed")
    stage.sm.unsuppress("acme", "k-1")
    stage.enroll(OTHER, restart=True)
    assert stage.event("opened", message_id="m-c-1-1").outcome == "late"
    stage.sm.stop("acme", "c-1")
    stage.enroll(MAIL, NEXT, restart=True)
    assert stage.event("clicked", message_id="m-c-1-1").outcome == "late"
    assert stage.event("opened", occurred_at=NOON + HOUR).outcome == "transitioned"


def test_a_mail_of_the_last_run_confirmed_afterwards_is_not_the_newest(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    key = stage.action(1, "sent").dedupe_key
    stage.sm.stop("acme", "c-1")
    stage.enroll(OTHER, restart=True)
    assert stage.sm.confirm_send(key, NOON, "m-1") is True
    assert stage.event("opened", message_id="m-1").outcome == "late"
    assert stage.event("opened").outcome == "recorded"


def test_a_suppressed_contact_isnt_restarted(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.event("unsubscribed")
    with pytest.raises(InvalidInputError, match="suppressed"):
        stage.enroll(MAIL, NEXT, restart=True)
    assert stage.campaign().status == "stopped"


def test_a_campaign_isnt_restarted_for_another_contact(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.sm.stop("acme", "c-1")
    with pytest.raises(InvalidInputError, match="campaign 'c-1' belongs to contact 'k-1'"):
        stage.enroll(MAIL, NEXT, restart=True, contact_id="k-9")
    assert stage.campaign().status == "stopped"


def test_a_pause_of_the_last_run_doesnt_hold_in_the_next(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.sm.pause("acme", "c-1")
    stage.event("bounced")
    stage.clock.advance("P10D")
    stage.enroll(MAIL, NEXT, restart=True)
    assert stage.run() == 1
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT1H")
    stage.sm.resume("acme", "c-1")
    assert stage.campaign().anchor_at == NOON + 10 * DAY + HOUR


def test_many_are_restarted_in_one_call(stage: Stage) -> None:
    for number in range(1, 4):
        stage.enroll(MAIL, NEXT, campaign=f"c-{number}")
    for number in (1, 2):
        stage.sm.stop("acme", f"c-{number}")
    plan = make_document(OTHER)
    rows = [
        {"tenant_id": "acme", "campaign_id": f"c-{one}", "contact_id": f"k-{one}", "plan": plan, "restart": True}
        for one in range(1, 5)
    ]
    summary = stage.sm.enroll_many(rows)
    assert (summary.enrolled, summary.existing) == (3, 1)
    assert [stage.node(f"c-{number}") for number in range(1, 5)] == ["other", "other", "mail", "other"]


def test_two_restarts_at_once_begin_one_run(stage: Stage) -> None:
    stage.enroll(OTHER)
    stage.sm.stop("acme", "c-1")
    barrier = threading.Barrier(4)

    def restart() -> None:
        barrier.wait()
        stage.enroll(OTHER, restart=True)

    threads = [threading.Thread(target=restart) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert stage.history() == [("other", "stop", "stopped"), ("stop", "other", "restarted")]
