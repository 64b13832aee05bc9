"""What events and timeouts do to a campaign, through the public API, on both databases."""

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from scheduler import InvalidInputError, TimeoutJob
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import execute, query
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

SAMPLE = (
    send(
        "email_intro",
        on("opened", "wait_click", within="PT72H"),
        on("no_open", "email_bump_1", after="PT72H"),
        on("bounced", "stop", after="PT0S"),
    ),
    wait("wait_click", on("clicked", "stop", within="PT24H"), on("no_click", "email_bump_1", after="PT24H")),
    send("email_bump_1", on("no_open", "stop")),
)
ANSWER = wait("answer", on("replied", "stop"), on("no_reply", "stop", after="P1D"))
LOOP = wait("loop", on("no_open", "loop", after="PT1H"), on("replied", "stop"))


def make_job(**overrides: Any) -> TimeoutJob:
    """A timeout of the campaign, scheduled by hand."""
    values = {
        "tenant_id": "acme",
        "campaign_id": "c-1",
        "contact_id": "k-1",
        "node_id": "answer",
        "event_type": "no_open",
        "scheduled_at": NOON,
    }
    return TimeoutJob(**{**values, **overrides})


# A campaign from beginning to end


def test_who_does_nothing_gets_every_mail_and_then_is_done(stage: Stage) -> None:
    stage.enroll(*SAMPLE)
    assert stage.run() == 1
    assert stage.run("PT71H59M59S") == 0
    assert stage.run("PT1S") == 2
    assert stage.run("PT72H") == 1
    assert stage.history() == [("email_intro", "email_bump_1", "no_open"), ("email_bump_1", "stop", "no_open")]
    assert stage.campaign().status == "completed"
    assert [request.node_id for request in stage.mailed] == ["email_intro", "email_bump_1"]
    assert stage.states() == {
        (1, "sent"): "sent",
        (1, "no_open"): "transitioned",
        (2, "sent"): "sent",
        (2, "no_open"): "transitioned",
    }


def test_who_opens_and_clicks_gets_one_mail(stage: Stage) -> None:
    stage.enroll(*SAMPLE)
    stage.run()
    stage.clock.advance("PT1H")
    assert stage.event("open").outcome == "transitioned"
    stage.clock.advance("PT1H")
    result = stage.event("click")
    assert (result.outcome, result.campaign) == ("transitioned", stage.campaign())
    stage.run("P30D")
    assert stage.history() == [("email_intro", "wait_click", "opened"), ("wait_click", "stop", "clicked")]
    assert len(stage.mailed) == 1
    assert stage.states() == {(1, "sent"): "sent", (1, "no_open"): "canceled", (2, "no_click"): "canceled"}


def test_who_clicks_without_an_open_isnt_mailed_again(stage: Stage) -> None:
    stage.enroll(*SAMPLE)
    stage.run("PT1H")
    assert stage.event("click").outcome == "transitioned"
    stage.run("P30D")
    assert stage.history() == [("email_intro", "wait_click", "opened"), ("wait_click", "stop", "clicked")]
    assert len(stage.mailed) == 1


def test_a_loop_makes_a_new_visit_each_time(stage: Stage) -> None:
    stage.enroll(LOOP)
    for _ in range(3):
        stage.run("PT1H")
    assert stage.history() == [("loop", "loop", "no_open")] * 3
    assert stage.states() == {
        (1, "no_open"): "transitioned",
        (2, "no_open"): "transitioned",
        (3, "no_open"): "transitioned",
        (4, "no_open"): "pending",
    }


def test_after_an_outage_a_contact_isnt_rushed_through_the_plan(stage: Stage) -> None:
    stage.enroll(LOOP)
    assert stage.run("P30D") == 1
    campaign = stage.campaign()
    assert (campaign.node_visit, campaign.node_entered_at, campaign.anchor_at) == (2, NOON + 30 * DAY, NOON + 30 * DAY)
    assert stage.action(2, "no_open").deadline == NOON + 30 * DAY + HOUR
    transition = stage.sm.history("acme", "c-1")[1]
    assert (transition.occurred_at, transition.created_at) == (NOON + HOUR, NOON + 30 * DAY)
    assert transition.dedupe_key == "acme:c-1:loop:1:timeout:no_open"


def test_a_campaign_out_of_transitions_ends_in_error(stage: Stage) -> None:
    stage.enroll(LOOP, maxTransitions=1)
    stage.run("PT1H")
    stage.run("PT1H")
    campaign = stage.campaign()
    assert (campaign.status, campaign.node_visit, campaign.completed_at) == ("error", 2, NOON + 2 * HOUR)
    assert stage.states()[2, "no_open"] == "failed"
    assert stage.event("replied").outcome == "ignored"


def test_an_event_that_uses_up_the_transitions_is_recorded(stage: Stage) -> None:
    stage.enroll(wait("a", on("replied", "a"), on("no_open", "stop")), maxTransitions=1)
    assert stage.event("replied").outcome == "transitioned"
    stage.clock.advance("PT1H")
    assert stage.event("replied").outcome == "recorded"
    assert stage.campaign().status == "error"


# Leaving a visit


def test_leaving_a_visit_cancels_its_actions_and_creates_the_next_in_one_transaction(stage: Stage) -> None:
    stage.enroll(*SAMPLE)
    with stage.ts.database.engine.connect() as connection:
        stage.sm.process_event("acme", "opened", campaign_id="c-1", connection=connection)
        connection.rollback()
    assert stage.states() == {(1, "sent"): "pending", (1, "no_open"): "pending"}
    assert (stage.node(), stage.history(), stage.counts()["campaign_events"]) == ("email_intro", [], 0)
    stage.event("opened")
    assert stage.states() == {(1, "sent"): "canceled", (1, "no_open"): "canceled", (2, "no_click"): "pending"}
    canceled = stage.action(1, "no_open")
    assert (canceled.outcome, canceled.finished_at) == ("visit left", NOON)
    stage.run("PT1H")
    assert stage.mailed == [], "the mail of a visit left isn't sent"


def test_what_is_canceled_without_a_reason_has_an_outcome_all_the_same(stage: Stage) -> None:
    stage.enroll(wait("a", on("no_open", "stop", after="PT1H")))

    assert stage.ts.cancel("acme:c-1:a:1:timeout:no_open")

    assert stage.states() == {(1, "no_open"): "canceled"}
    assert stage.action(1, "no_open").outcome == "canceled by hand"


def test_reaching_stop_cancels_everything_pending(stage: Stage) -> None:
    stage.enroll(ANSWER)
    stage.ts.schedule(make_job(node_visit=1, event_type="no_open", scheduled_at=NOON + DAY))
    stage.ts.schedule(make_job(node_visit=9, node_id="elsewhere", scheduled_at=NOON + DAY))
    stage.event("replied")
    assert set(stage.states().values()) == {"canceled"}
    campaign = stage.campaign()
    assert (campaign.status, campaign.current_node_id, campaign.completed_at) == ("completed", "stop", NOON)
    assert stage.run("P30D") == 0


# Timeouts that don't apply


@pytest.mark.parametrize(
    ("job", "outcome"),
    [
        (make_job(node_visit=2), "stale"),
        (make_job(node_id="elsewhere"), "stale"),
        (make_job(campaign_id="c-9"), "unknown_campaign"),
        (make_job(), "no_transition"),
    ],
)
def test_a_timeout_scheduled_by_hand_says_why_it_had_no_effect(stage: Stage, job: TimeoutJob, outcome: str) -> None:
    stage.enroll(ANSWER)
    stage.ts.schedule(job)
    assert stage.run() == 1
    action = stage.ts.find(job.dedupe_key)
    assert action is not None
    assert (action.status, action.outcome, action.finished_at) == ("completed", outcome, NOON)
    assert stage.history() == []


def test_a_timeout_of_a_finished_campaign_is_inactive(stage: Stage) -> None:
    stage.enroll(ANSWER)
    stage.event("unsubscribed")
    stage.ts.schedule(make_job())
    stage.run()
    assert stage.states()[1, "no_open"] == "campaign_inactive"
    assert stage.campaign().status == "stopped"


def test_an_event_by_the_deadline_stops_a_timeout_that_nobody_took_away(stage: Stage) -> None:
    stage.enroll(wait("a", on("no_open", "answer", after="PT1H")), ANSWER)
    stage.ts.schedule(make_job(node_id="a", event_type="no_click", scheduled_at=NOON + 2 * HOUR))
    assert stage.event("clicked").outcome == "recorded"
    assert stage.states() == {(1, "no_open"): "canceled", (1, "no_click"): "pending"}
    stage.run("PT2H")
    assert stage.states()[1, "no_click"] == "event_happened"


def test_an_event_after_the_deadline_doesnt_stop_the_timeout(stage: Stage) -> None:
    stage.enroll(wait("a", on("no_open", "answer", after="PT1H")), ANSWER)
    stage.clock.advance("PT2H")
    assert stage.event("opened", occurred_at=NOON + HOUR + timedelta(seconds=1)).outcome == "recorded"
    stage.run()
    assert stage.history() == [("a", "answer", "no_open")]


def test_an_event_by_the_deadline_that_arrives_after_it_stops_the_timeout(stage: Stage) -> None:
    stage.enroll(wait("a", on("no_open", "answer", after="PT1H")), ANSWER)
    stage.clock.advance("PT2H")
    stage.event("opened", occurred_at=NOON + HOUR)
    stage.run()
    assert stage.history() == []
    assert stage.action(1, "no_open").outcome == "event happened"


def test_a_timeout_waits_for_the_grace_and_its_deadline_doesnt_move(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, database_url, timeout_grace="PT10M")
    stage.enroll(wait("a", on("no_open", "answer", after="PT1H"), on("opened", "stop", within="PT1H")), ANSWER)
    action = stage.action(1, "no_open")
    assert (action.deadline, action.run_at) == (NOON + HOUR, NOON + HOUR + timedelta(minutes=10))
    assert stage.run("PT1H9M59S") == 0
    assert stage.event("opened", occurred_at=NOON + HOUR).outcome == "transitioned"


def test_the_grace_holds_for_a_mail_sent_late_too(database_url: str, open_scheduler: OpenScheduler) -> None:
    stage = Stage(open_scheduler, database_url, timeout_grace="PT10M")
    stage.enroll(send("a", on("no_open", "stop", after="PT1H")))
    stage.run("PT3H")
    action = stage.action(1, "no_open")
    assert (action.deadline, action.run_at) == (NOON + 4 * HOUR, NOON + 4 * HOUR + timedelta(minutes=10))


@pytest.mark.parametrize("batch_size", [1, 500])
def test_of_two_overdue_timeouts_the_earliest_deadline_decides_whichever_was_claimed_first(
    database_url: str, open_scheduler: OpenScheduler, batch_size: int
) -> None:
    stage = Stage(open_scheduler, database_url, batch_size=batch_size)
    edges = (on("no_click", "answer", after="PT2H"), on("no_open", "wait_click", after="PT1H"))
    stage.enroll(wait("a", *edges), SAMPLE[1], SAMPLE[2], ANSWER)
    started = "(SELECT started_at FROM contact_campaigns)"
    execute(stage.ts, f"UPDATE scheduled_actions SET run_at = {started} WHERE event_type = 'no_click'")  # noqa: S608
    stage.run("PT3H")
    assert stage.history() == [("a", "wait_click", "no_open")]
    assert stage.states()[1, "no_open"] == "transitioned"
    assert stage.states()[1, "no_click"] == "canceled"


def test_the_earliest_deadline_decides_also_when_another_instance_holds_it(stage: Stage) -> None:
    edges = (on("no_click", "answer", after="PT2H"), on("no_open", "wait_click", after="PT1H"))
    stage.enroll(wait("a", *edges), SAMPLE[1], SAMPLE[2], ANSWER)
    stage.clock.advance("PT3H")
    with stage.ts.database.transaction() as transaction:
        (held,) = stage.ts.stores.claims.claim(transaction, "timeout", 1, "another instance", HOUR)  # type: ignore[arg-type]
    assert held.event_type == "no_open"
    stage.run()
    assert stage.history() == [("a", "wait_click", "no_open")]
    assert stage.states()[1, "no_open"] == "transitioned"


# Real events


def test_every_outcome_of_an_event(stage: Stage) -> None:
    stage.enroll(*SAMPLE)
    stage.run()
    assert stage.event("replied", event_id="1").outcome == "recorded"
    assert stage.event("replied", event_id="1").outcome == "duplicate"
    assert stage.event("opened", event_id="2").outcome == "transitioned"
    stage.run("PT24H")
    assert stage.event("opened", event_id="3", message_id="m-c-1-1").outcome == "late"
    assert stage.event("spam_report", event_id="4").outcome == "transitioned"
    assert stage.event("opened", event_id="5").outcome == "ignored"
    assert stage.event("opened", campaign="c-9", event_id="6").outcome == "unknown_campaign"
    stored = query(stage.ts, "SELECT event_id, event_type, outcome FROM campaign_events ORDER BY event_id")
    assert [tuple(row) for row in stored] == [
        ("1", "replied", "recorded"),
        ("2", "opened", "transitioned"),
        ("3", "opened", "late"),
        ("4", "spamreport", "transitioned"),
        ("5", "opened", "ignored"),
        ("6", "opened", "unknown_campaign"),
    ]
    assert stage.campaign().status == "stopped"


def test_an_event_keeps_what_was_said_of_it(stage: Stage) -> None:
    stage.enroll(ANSWER)
    stage.clock.advance("PT1H")
    metadata = {"ip": "::1", "emoji": "😀", "nul": "a\x00b", "nested": {"a": [1, None]}}
    result = stage.event("custom_thing", event_id="e-1", occurred_at=NOON, metadata=metadata)
    assert (result.event_id, result.event_type) == ("e-1", "custom_thing")
    with stage.ts.database.reading() as transaction:
        (stored,) = stage.ts.stores.events.of_campaign(transaction, ("acme", "c-1"))
    assert (stored.occurred_at, stored.received_at, stored.node_id) == (NOON, NOON + HOUR, "answer")
    assert stored.metadata is not None
    assert '"😀"' in stored.metadata


def test_an_event_without_an_id_counts_once_per_instant(stage: Stage) -> None:
    stage.enroll(wait("a", on("replied", "b")), wait("b", on("replied", "answer")), ANSWER)
    stage.clock.advance("PT2H")
    first = stage.event("replied", occurred_at=NOON + HOUR)
    again = stage.event("replied", occurred_at=NOON + HOUR)
    assert (first.outcome, again.outcome) == ("transitioned", "duplicate")
    assert stage.node() == "b"
    other = stage.event("replied", occurred_at=NOON + 2 * HOUR)
    assert other.outcome == "transitioned"
    assert len({first.event_id, other.event_id}) == 2


def test_an_event_from_the_future_without_an_id_counts_once(stage: Stage) -> None:
    stage.enroll(ANSWER)
    first = stage.event("meeting_booked", occurred_at=NOON + DAY)
    stage.clock.advance("PT1H")
    again = stage.event("meeting_booked", occurred_at=NOON + DAY)
    assert (first.outcome, again.outcome, first.event_id) == ("recorded", "duplicate", again.event_id)


def test_event_ids_are_one_tenants_own(stage: Stage) -> None:
    for tenant in ("acme", "other"):
        stage.enroll(ANSWER, tenant=tenant)
        assert stage.event("custom", tenant=tenant, event_id="e-1").outcome == "recorded"


def test_many_events_are_applied_in_their_order_with_a_result_each(stage: Stage) -> None:
    for number in range(1, 4):
        stage.enroll(*SAMPLE, campaign=f"c-{number}")
    stage.run()
    results = stage.sm.process_events(
        [
            {"tenant_id": "acme", "campaign_id": "c-1", "event_type": "opened", "event_id": "1"},
            {"tenant_id": "acme", "campaign_id": "c-2", "event_type": "bounce", "event_id": "2"},
            {"tenant_id": "acme", "campaign_id": "c-1", "event_type": "opened", "event_id": "1"},
            {"tenant_id": "acme", "campaign_id": "c-1", "event_type": "clicked", "event_id": "3"},
            {"tenant_id": "acme", "campaign_id": "c-1", "event_type": "replied", "event_id": "4"},
            {"tenant_id": "acme", "campaign_id": "c-9", "event_type": "opened", "event_id": "5"},
            {"tenant_id": "acme", "message_id": "m-c-3-1", "event_type": "open", "event_id": "6"},
            {"tenant_id": "other", "message_id": "m-c-3-1", "event_type": "open", "event_id": "7"},
        ]
    )
    assert [result.outcome for result in results] == [
        "transitioned",
        "transitioned",
        "duplicate",
        "transitioned",
        "ignored",
        "unknown_campaign",
        "transitioned",
        "unknown_campaign",
    ]
    assert stage.history("c-1") == [("email_intro", "wait_click", "opened"), ("wait_click", "stop", "clicked")]
    assert stage.history("c-2") == [("email_intro", "stop", "bounced")]
    assert stage.node("c-3") == "wait_click"
    assert stage.states("c-1") == {(1, "sent"): "sent", (1, "no_open"): "canceled", (2, "no_click"): "canceled"}


def test_many_events_of_one_campaign_in_one_call(stage: Stage) -> None:
    stage.enroll(wait("a", on("replied", "a"), on("no_open", "stop", after="PT1H")))
    events = [
        {"tenant_id": "acme", "campaign_id": "c-1", "event_type": "replied", "event_id": str(number), "occurred_at": at}
        for number, at in enumerate([NOON - timedelta(seconds=second) for second in range(50)])
    ]
    assert {result.outcome for result in stage.sm.process_events(events)} == {"transitioned"}
    assert stage.campaign().node_visit == 51
    assert len(stage.ts.pending("acme", "c-1")) == 1
    assert {result.outcome for result in stage.sm.process_events(events)} == {"duplicate"}


def test_no_events_are_no_results(stage: Stage) -> None:
    assert stage.sm.process_events([]) == []


@pytest.mark.parametrize("event_type", ["unsubscribed", "spamreport", "bounced"])
def test_an_exit_stops_the_campaign_and_everything_pending(stage: Stage, event_type: str) -> None:
    stage.enroll(*SAMPLE[1:])
    result = stage.event(event_type)
    assert (result.outcome, stage.campaign().status) == ("transitioned", "stopped")
    assert stage.states() == {(1, "no_click"): "canceled"}
    assert stage.history() == [("wait_click", "stop", event_type)]
    assert stage.sm.history("acme", "c-1")[1].event_id == result.event_id


def test_an_event_that_comes_before_the_send_is_confirmed_counts(stage: Stage) -> None:
    stage.enroll(*SAMPLE)
    assert stage.event("opened").outcome == "transitioned"
    stage.run()
    assert stage.mailed == []


# Which mail


def test_a_message_id_names_the_mail(stage: Stage) -> None:
    stage.enroll(send("a", on("no_open", "b", after="PT1H")), send("b", on("opened", "stop"), on("no_open", "stop")))
    stage.run()
    stage.run("PT1H")
    assert stage.action(2, "sent").message_id == "m-c-1-2"
    for event_type in ("open", "click", "delivered"):
        assert stage.event(event_type, campaign=None, message_id="m-c-1-1").outcome == "late"
    assert stage.node() == "b"
    assert stage.event("open", campaign=None, message_id="m-c-1-2").outcome == "transitioned"


def test_without_a_message_id_the_newest_sent_mail_is_meant(stage: Stage) -> None:
    stage.enroll(
        send("a", on("no_open", "b", after="PT1H")), send("b", on("opened", "stop"), on("no_open", "stop"), delay="P1D")
    )
    stage.run()
    stage.run("PT1H")
    assert stage.event("opened").outcome == "late", "the second mail isn't out yet"
    stage.run("P1D")
    assert stage.event("opened").outcome == "transitioned"


def test_a_node_id_names_the_mail(stage: Stage) -> None:
    stage.enroll(send("a", on("no_open", "b", after="PT1H")), send("b", on("opened", "stop"), on("no_open", "stop")))
    stage.run()
    stage.run("PT1H")
    assert stage.event("opened", node_id="a").outcome == "late"
    assert stage.event("opened", node_id="b", occurred_at=NOON).outcome == "transitioned"


def test_a_reply_to_an_old_mail_counts(stage: Stage) -> None:
    stage.enroll(send("a", on("no_open", "b", after="PT1H")), send("b", on("replied", "stop"), on("no_open", "stop")))
    stage.run()
    stage.run("PT1H")
    assert stage.event("reply", campaign=None, message_id="m-c-1-1").outcome == "transitioned"


def test_late_events_are_counted(database_url: str, open_scheduler: OpenScheduler) -> None:
    registry = CollectorRegistry()
    stage = Stage(open_scheduler, database_url)
    ts = open_scheduler(database_url, clock=stage.clock, metrics_registry=registry)
    stage.enroll(send("a", on("no_open", "answer", after="PT1H")), ANSWER)
    stage.run()
    stage.run("PT1H")
    assert ts.campaigns.process_event("acme", "opened", campaign_id="c-1").outcome == "late"
    assert registry.get_sample_value("timeout_scheduler_late_events_total") == 1


# A synthetic event by hand


def test_a_synthetic_event_fires_the_timeout_once_it_is_due(stage: Stage) -> None:
    stage.enroll(wait("a", on("no_open", "answer", after="PT1H")), ANSWER)
    with pytest.raises(InvalidInputError, match="due at 2026-03-02T13:00:00"):
        stage.event("no_open")
    assert stage.states() == {(1, "no_open"): "pending"}
    stage.clock.advance("PT1H")
    result = stage.event("no_opened")
    assert (result.outcome, result.event_type) == ("transitioned", "no_open")
    assert result.campaign == stage.campaign()
    assert stage.states() == {(1, "no_open"): "transitioned", (2, "no_reply"): "pending"}
    assert stage.run() == 0


def test_a_synthetic_event_that_nothing_waits_for_changes_nothing(stage: Stage) -> None:
    stage.enroll(wait("a", on("no_open", "answer", after="PT1H")), ANSWER)
    stage.clock.advance("PT1H")
    before = stage.campaign()
    assert stage.event("no_click").outcome == "recorded"
    assert stage.event("no_open", node_id="elsewhere").outcome == "recorded"
    assert stage.event("no_open", campaign="c-9").outcome == "unknown_campaign"
    assert stage.campaign() == before
    stage.event("unsubscribed")
    assert stage.event("no_open").outcome == "ignored"


def test_a_synthetic_event_leaves_the_decision_to_the_earliest_deadline(stage: Stage) -> None:
    edges = (on("no_click", "answer", after="PT2H"), on("no_open", "wait_click", after="PT1H"))
    stage.enroll(wait("a", *edges), SAMPLE[1], SAMPLE[2], ANSWER)
    stage.clock.advance("PT3H")
    assert stage.event("no_click").outcome == "recorded"
    assert stage.history() == [("a", "wait_click", "no_open")]


def test_a_synthetic_event_waits_for_its_mail(stage: Stage) -> None:
    stage.enroll(send("a", on("no_open", "answer", after="PT1H")), ANSWER)
    stage.clock.advance("PT2H")
    assert stage.event("no_open").outcome == "recorded"
    assert stage.node() == "a"


# Tenants


def test_no_call_for_one_tenant_reaches_another(stage: Stage) -> None:
    for tenant in ("acme", "other"):
        stage.enroll(*SAMPLE, tenant=tenant)
    stage.run()
    stage.event("opened", tenant="other")
    stage.event("unsubscribed", tenant="other", message_id="m-c-1-1")
    stage.ts.cancel_campaign("other", "c-1")
    stage.ts.cancel_node("other", "c-1", "email_intro")
    assert stage.ts.cancel("other:c-1:email_intro:1:timeout:no_open") is False
    assert stage.ts.find("nobody:c-1:email_intro:1:timeout:no_open") is None
    assert stage.campaign().status == "active"
    assert stage.states() == {(1, "sent"): "sent", (1, "no_open"): "pending"}
    assert stage.sm.history("nobody", "c-1") == []
    assert stage.sm.find("nobody", "c-1") is None
    assert [action.tenant_id for action in stage.ts.pending("acme")] == ["acme"]
    assert stage.event("opened", tenant="nobody").outcome == "unknown_campaign"


def test_ids_that_look_like_keys_dont_mix(stage: Stage) -> None:
    stage.enroll(ANSWER, tenant="a:b", campaign="c")
    stage.enroll(ANSWER, tenant="a", campaign="b:c")
    stage.event("replied", tenant="a:b", campaign="c")
    assert [action.status for action in stage.actions("b:c", "a")] == ["pending"]
    (canceled,) = stage.actions("c", "a:b")
    assert (canceled.dedupe_key, canceled.status) == ("a%3Ab:c:answer:1:timeout:no_reply", "canceled")
    assert stage.ts.find(canceled.dedupe_key) == canceled


def test_the_longest_ids_fit(stage: Stage) -> None:
    longest = "".join(chr(0x80 + number % 32) for number in range(128))
    stage.enroll({**ANSWER, "id": longest}, tenant=longest, campaign=longest, contact_id=longest)
    stage.clock.advance("P1D")
    assert stage.ts.run_due() == 1
    assert stage.campaign(longest, longest).status == "completed"
    result = stage.event("custom", tenant=longest, campaign=longest, event_id=longest, message_id=longest)
    assert result.outcome == "ignored"


# Waiting for the mail


def test_a_timeout_never_fires_before_its_mail_went_out(stage: Stage) -> None:
    stage.enroll(send("a", on("no_open", "stop", after="PT1H")))
    ts = stage.another(send_handler="external")
    stage.clock.advance("PT2H")
    assert ts.run_due() == 0
    action = stage.action(1, "no_open")
    assert (action.status, action.attempts, action.deadline) == ("pending", 0, NOON + HOUR)
    assert action.run_at == NOON + 2 * HOUR + timedelta(seconds=1), "no sooner than the next poll"
    assert stage.sm.confirm_send("acme:c-1:a:1:send:sent", NOON + 2 * HOUR)
    assert stage.action(1, "no_open").run_at == NOON + 3 * HOUR
    stage.clock.advance("PT59M")
    assert ts.run_due() == 0
    stage.clock.advance("PT1M")
    assert ts.run_due() == 1
    assert stage.campaign().status == "completed"
