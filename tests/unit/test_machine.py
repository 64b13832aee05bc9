from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from scheduler.domain import machine
from scheduler.domain.campaign import CampaignStatus
from scheduler.domain.decision import CampaignEvent, CounterEvent, RealEvent, SendConfirmed, SendFailed, TimeoutExpired
from scheduler.domain.plan import CampaignPlan
from tests.support.walk import NOON, Walk, make_campaign, make_document, on, send, wait

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
REPLY: dict[str, Any] = {"defaults": {"timers": {"no_reply_after": "P1D"}}}
SECOND = timedelta(seconds=1)
LOS_ANGELES = ZoneInfo("America/Los_Angeles")

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


def local(*parts: int, zone: ZoneInfo = LOS_ANGELES) -> datetime:
    """The instant of that local time, in UTC."""
    year, month, day, hour, minute = parts
    return datetime(year, month, day, hour, minute, tzinfo=zone).astimezone(UTC)


def history(walk: Walk) -> tuple[tuple[int, str | None, str, str], ...]:
    """The transitions of the last decision, in short."""
    return tuple(
        (left.node_visit, left.from_node_id, left.to_node_id, left.trigger) for left in walk.decision.transitions
    )


def test_an_enrolment_enters_the_start_node_and_plans_its_actions() -> None:
    walk = Walk(*SAMPLE)
    assert history(walk) == ((0, None, "email_intro", "enrolled"),)
    assert walk.campaign.node_visit == 1
    assert walk.campaign.anchor_at == NOON
    assert {key: action.deadline for key, action in walk.pending.items()} == {
        (1, "send", "sent"): NOON,
        (1, "timeout", "no_open"): NOON + 72 * HOUR,
    }


def test_a_start_at_is_entry_and_anchor() -> None:
    walk = Walk(wait("a", on("no_open", "stop", after="PT1H")), start_at=NOON + DAY)
    assert walk.campaign.node_entered_at == walk.campaign.anchor_at == NOON + DAY
    assert walk.timers == {"no_open": NOON + DAY + HOUR}


def test_a_plan_that_starts_with_stop_is_completed_at_once() -> None:
    walk = Walk({"id": "stop", "action": "stop"})
    assert walk.campaign.status == CampaignStatus.COMPLETED
    assert walk.campaign.completed_at == NOON
    assert walk.decision.ends
    assert walk.pending == {}


def test_after_on_a_real_event_schedules_nothing() -> None:
    walk = Walk(send("a", on("bounced", "stop", after="PT0S"), on("opened", "stop", after="PT1H")))
    assert set(walk.pending) == {(1, "send", "sent")}


def test_the_earliest_of_several_timers_on_one_event_counts() -> None:
    walk = Walk(
        wait("a", on("no_open", "late", after="PT3H"), on("no_open", "early", after="PT2H")),
        wait("late", on("no_click", "stop")),
        wait("early", on("no_click", "stop")),
    )
    assert walk.timers == {"no_open": NOON + 2 * HOUR}
    walk.advance("PT2H").expire("no_open")
    assert walk.node == "early"


def test_every_synthetic_event_has_its_own_timer() -> None:
    walk = Walk(wait("a", on("no_open", "stop", after="PT3H"), on("no_click", "stop", after="PT2H")))
    assert walk.timers == {"no_open": NOON + 3 * HOUR, "no_click": NOON + 2 * HOUR}


def test_months_are_steps_of_the_calendar_in_the_plans_zone() -> None:
    start_at = local(2026, 1, 31, 18, 0)  # the 1st of February in UTC
    walk = Walk(wait("a", on("no_open", "stop", after="P1M")), start_at=start_at, timezone="America/Los_Angeles")
    assert walk.timers == {"no_open": local(2026, 2, 28, 18, 0)}


def test_a_month_keeps_the_local_hour_over_a_clock_change_and_days_dont() -> None:
    edges = (on("no_open", "stop", after="P1M"), on("no_click", "stop", after="P30D"))
    start_at = local(2026, 2, 20, 10, 0)
    walk = Walk(wait("a", *edges), start_at=start_at, timezone="America/Los_Angeles")
    assert walk.timers == {"no_open": local(2026, 3, 20, 10, 0), "no_click": start_at + 30 * DAY}


def test_a_visits_actions_have_its_number() -> None:
    walk = Walk(wait("a", on("no_open", "a", after="PT1H")))
    walk.advance("PT1H").expire("no_open")
    assert set(walk.pending) == {(2, "timeout", "no_open")}
    assert walk.timers == {"no_open": NOON + 2 * HOUR}


def test_the_planned_send_time_is_entry_plus_delay_and_the_anchor() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H"), delay="PT2H"))
    assert walk.campaign.node_entered_at == NOON
    assert walk.campaign.anchor_at == NOON + 2 * HOUR
    assert walk.timers == {"no_open": NOON + 3 * HOUR}


def test_the_planned_send_time_is_moved_out_of_quiet_hours_in_the_plans_zone_and_timeouts_count_from_there() -> None:
    walk = Walk(
        send("a", on("no_open", "stop", after="PT1H")),
        timezone="America/Los_Angeles",
        quietHours={"start": "21:00", "end": "07:30"},
    )
    assert walk.campaign.anchor_at == local(2026, 3, 2, 7, 30)  # noon in UTC is 4 in the morning there
    assert walk.timers == {"no_open": local(2026, 3, 2, 8, 30)}


def test_the_planned_send_time_follows_the_contacts_zone_before_the_plans() -> None:
    walk = Walk(
        send("a", on("no_open", "stop")),
        zone="Europe/Berlin",
        timezone="America/Los_Angeles",
        quietHours={"start": "21:00", "end": "07:30"},
    )
    assert walk.campaign.anchor_at == NOON


def test_the_planned_send_time_is_moved_after_the_delay_is_added() -> None:
    walk = Walk(send("a", on("no_open", "stop"), delay="PT10H"), quietHours={"start": "21:00", "end": "07:30"})
    assert walk.campaign.anchor_at == datetime(2026, 3, 3, 7, 30, tzinfo=UTC)


def test_the_planned_send_time_is_allowed_at_the_end_of_quiet_hours_and_not_at_their_start() -> None:
    quiet = {"start": "12:00", "end": "13:00"}
    at_start = Walk(send("a", on("no_open", "stop")), quietHours=quiet)
    at_end = Walk(send("a", on("no_open", "stop")), start_at=NOON + HOUR, quietHours=quiet)
    assert at_start.campaign.anchor_at == at_end.campaign.anchor_at == NOON + HOUR


def test_quiet_hours_dont_move_timeouts() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT10H")), quietHours={"start": "21:00", "end": "07:30"})
    assert walk.timers == {"no_open": NOON + 10 * HOUR}


def test_an_event_that_a_transition_wants_moves_the_contact_now() -> None:
    walk = Walk(*SAMPLE).advance("PT5H")
    decision = walk.real("opened", NOON + HOUR)
    assert decision.outcome == "transitioned"
    (left,) = decision.transitions
    assert (left.occurred_at, left.created_at, left.event_id) == (NOON + HOUR, walk.now, "e-opened")
    assert walk.campaign.node_entered_at == walk.campaign.anchor_at == walk.now


def test_an_event_that_nothing_wants_is_recorded() -> None:
    walk = Walk(*SAMPLE)
    assert walk.real("replied").outcome == "recorded"
    assert walk.node == "email_intro"


def test_the_first_transition_in_the_plans_order_wins() -> None:
    walk = Walk(
        wait("a", on("replied", "b"), on("replied", "c")),
        wait("b", on("no_open", "stop")),
        wait("c", on("no_open", "stop")),
    )
    walk.real("replied")
    assert walk.node == "b"


def test_a_transition_whose_guard_fails_is_passed_over() -> None:
    walk = Walk(
        wait("a", on("replied", "b", within="PT1H"), on("replied", "c")),
        wait("b", on("no_open", "stop")),
        wait("c", on("no_open", "stop")),
    ).advance("PT2H")
    walk.real("replied")
    assert walk.node == "c"


@pytest.mark.parametrize(
    ("bounds", "occurred_at", "expected"),
    [
        ({"within": "PT2H"}, NOON + 2 * HOUR, "stop"),
        ({"within": "PT2H"}, NOON + 2 * HOUR + SECOND, "a"),
        ({"within": "PT2H"}, NOON - DAY, "stop"),
        ({"after": "PT2H"}, NOON + 2 * HOUR, "stop"),
        ({"after": "PT2H"}, NOON + 2 * HOUR - SECOND, "a"),
        ({"after": "PT0S"}, NOON - DAY, "stop"),
        ({"after": "PT1H", "within": "PT2H"}, NOON + 90 * SECOND * 60, "stop"),
        ({"after": "PT1H", "within": "PT2H"}, NOON + 3 * HOUR, "a"),
    ],
)
def test_a_guard_looks_at_when_it_occurred(bounds: dict[str, str], occurred_at: datetime, expected: str) -> None:
    walk = Walk(wait("a", on("replied", "stop", **bounds), on("no_click", "a"))).advance("P1D")
    walk.real("replied", occurred_at)
    assert walk.node == expected


def test_an_event_from_the_future_is_taken_as_of_now() -> None:
    walk = Walk(wait("a", on("replied", "stop", within="PT2H"))).advance("PT1H")
    (left,) = walk.real("replied", NOON + 30 * DAY).transitions
    assert left.occurred_at == walk.now


def test_a_soft_bounce_ends_nothing() -> None:
    walk = Walk(*SAMPLE)
    assert walk.real("soft_bounced").outcome == "recorded"
    assert walk.campaign.status == CampaignStatus.ACTIVE


def test_a_finished_campaign_ignores_events() -> None:
    walk = Walk(*SAMPLE)
    walk.real("bounced")
    before = walk.campaign
    assert walk.real("replied").outcome == "ignored"
    assert walk.campaign is before


@pytest.mark.parametrize("event_type", ["opened", "replied"])
def test_the_same_event_again_is_a_duplicate(event_type: str) -> None:
    walk = Walk(wait("a", on(event_type, "b")), wait("b", on(event_type, "c")), wait("c", on("no_open", "stop")))
    walk.real(event_type)
    assert walk.real(event_type).outcome == "duplicate"
    assert walk.node == "b"


def test_the_same_reply_again_is_a_duplicate_for_the_next_mail_too() -> None:
    walk = Walk(send("a", on("replied", "b")), send("b", on("replied", "c")), send("c", on("no_open", "stop")))
    walk.real("replied")
    assert walk.real("replied").outcome == "duplicate"
    assert walk.real("replied", NOON - SECOND).outcome == "transitioned"


def test_an_open_of_an_earlier_mail_is_late_at_the_next() -> None:
    walk = Walk(send("a", on("replied", "b")), send("b", on("opened", "stop"), on("no_open", "stop")))
    walk.confirm()
    walk.real("replied")
    for event_type in ("opened", "clicked", "delivered"):
        assert walk.real(event_type, mail=1).outcome == "late"
    assert walk.node == "b"
    assert walk.timers == {"no_open": NOON + 72 * HOUR}


def test_without_a_message_id_it_is_the_newest_sent_mail() -> None:
    walk = Walk(send("a", on("replied", "b")), send("b", on("opened", "stop"), delay="P1D"))
    assert walk.campaign.newest_mail == 1
    walk.confirm()
    walk.real("replied")
    assert walk.campaign.newest_mail == 1, "the second waits to be sent"
    assert walk.real("opened").outcome == "late"
    walk.advance("P1D").confirm()
    assert walk.real("opened").outcome == "transitioned"


def test_at_a_wait_node_it_is_the_mail_of_the_last_send() -> None:
    walk = Walk(*SAMPLE)
    walk.real("opened")
    assert walk.node == "wait_click"
    assert walk.real("clicked", mail=1).outcome == "transitioned"


@pytest.mark.parametrize("event_type", ["replied", "meeting_booked"])
def test_what_is_about_no_mail_in_particular_is_never_late(event_type: str) -> None:
    walk = Walk(send("a", on("no_open", "b", after="PT1H")), send("b", on(event_type, "stop"), on("no_open", "b")))
    walk.confirm()
    walk.advance("PT1H").expire("no_open")
    assert walk.real(event_type, mail=1).outcome == "transitioned"


@pytest.mark.parametrize("event_type", ["unsubscribed", "spamreport", "bounced"])
def test_an_exit_about_an_old_mail_counts(event_type: str) -> None:
    walk = Walk(send("a", on("replied", "b")), send("b", on("no_open", "stop")))
    walk.real("replied")
    assert walk.real(event_type, mail=1).outcome == "transitioned"
    assert walk.campaign.status == CampaignStatus.STOPPED


def test_an_event_whose_timeout_fired_is_late() -> None:
    walk = Walk(send("a", on("no_open", "b", after="PT1H")), wait("b", on("opened", "stop"), on("clicked", "stop")))
    walk.confirm()
    walk.advance("PT1H").expire("no_open")
    assert walk.real("opened", NOON).outcome == "late"
    assert walk.node == "b"
    assert walk.real("clicked").outcome == "transitioned", "no timeout on clicks has fired"


def test_a_click_isnt_tried_as_an_open_whose_timeout_fired() -> None:
    walk = Walk(
        send("a", on("no_open", "b", after="PT1H")),
        wait("b", on("opened", "stop"), on("no_open", "stop", after="P1D")),
    )
    walk.confirm()
    walk.advance("PT1H").expire("no_open")
    assert walk.real("clicked").outcome == "recorded"
    assert walk.timers == {"no_open": walk.now + DAY}
    assert walk.advance("P1D").expire("no_open").outcome == "transitioned"


def test_a_new_mail_has_no_past() -> None:
    walk = Walk(send("a", on("no_open", "a", after="PT1H"), on("opened", "stop")))
    walk.confirm()
    walk.advance("PT1H").expire("no_open")
    assert walk.real("opened", mail=1).outcome == "late"
    assert walk.real("opened", mail=2).outcome == "transitioned"


def test_a_click_that_no_transition_wants_is_tried_as_an_open() -> None:
    walk = Walk(send("a", on("opened", "b")), wait("b", on("no_reply", "stop", after="PT1H")))
    walk.real("clicked")
    assert history(walk) == ((1, "a", "b", "opened"),)


def test_a_transition_on_clicks_goes_before_an_earlier_one_on_opens() -> None:
    walk = Walk(
        send("a", on("opened", "b"), on("clicked", "c")),
        wait("b", on("no_open", "stop")),
        wait("c", on("no_open", "stop")),
    )
    walk.real("clicked")
    assert walk.node == "c"


def test_a_click_whose_own_transitions_fail_is_tried_as_an_open() -> None:
    walk = Walk(send("a", on("clicked", "stop", within="PT1H"), on("opened", "b")), wait("b", on("no_open", "stop")))
    walk.advance("PT2H").real("clicked")
    assert walk.node == "b"


def test_a_click_that_counted_as_an_open_still_counts_as_a_click() -> None:
    walk = Walk(*SAMPLE)
    walk.real("clicked")
    assert history(walk) == ((1, "email_intro", "wait_click", "opened"), (2, "wait_click", "stop", "clicked"))
    assert walk.campaign.status == CampaignStatus.COMPLETED


def test_a_click_counts_as_one_open_only() -> None:
    walk = Walk(
        send("a", on("opened", "b")),
        wait("b", on("opened", "c"), on("no_click", "stop", after="PT1H")),
        wait("c", on("no_open", "stop")),
    )
    walk.real("clicked")
    assert walk.node == "b"
    assert walk.advance("PT1S").real("opened").outcome == "transitioned"
    assert walk.node == "c"


def test_the_timeout_of_clicks_is_answered_by_one_that_counted_as_an_open() -> None:
    walk = Walk(send("a", on("opened", "b")), wait("b", on("no_click", "stop", after="PT1H"), on("replied", "stop")))
    walk.real("clicked")
    assert walk.advance("PT1H").expire("no_click").outcome == "event_happened"
    assert walk.node == "b"


def test_an_open_of_the_same_instant_is_another_event() -> None:
    walk = Walk(send("a", on("opened", "b")), wait("b", on("opened", "stop"), on("no_click", "stop")))
    walk.real("clicked")
    assert walk.real("opened").outcome == "transitioned"


def test_an_event_that_nothing_wants_cancels_its_timeout() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H"), on("no_click", "stop", after="PT2H")))
    assert walk.real("opened").answered == (CounterEvent("no_open", NOON),)
    assert walk.timers == {"no_click": NOON + 2 * HOUR}


def test_a_click_cancels_the_timeout_of_opens_too() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H"), on("no_click", "stop", after="PT2H")))
    walk.real("clicked")
    assert walk.timers == {}


def test_a_counter_event_after_the_deadline_doesnt_stop_it() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H"))).advance("PT2H")
    walk.confirm(NOON)
    walk.real("opened", NOON + HOUR + SECOND)
    assert walk.timers == {"no_open": NOON + HOUR}
    assert walk.expire("no_open").outcome == "transitioned"


def test_a_counter_event_at_the_deadline_stops_it() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H"))).advance("PT2H")
    walk.real("opened", NOON + HOUR)
    assert walk.timers == {}


def test_a_counter_event_whose_guards_all_fail_leaves_the_timeout_to_lead_on() -> None:
    walk = Walk(send("a", on("opened", "stop", within="PT1H"), on("no_open", "b", after="P1D")), wait("b"))
    walk.confirm()
    walk.advance("PT2H").real("opened")
    assert walk.timers == {"no_open": NOON + DAY}
    assert walk.advance("PT22H").expire("no_open").outcome == "transitioned"
    assert walk.node == "b"


def test_a_guard_that_would_hold_by_a_later_anchor_doesnt_swallow_the_timeout() -> None:
    walk = Walk(wait("a", on("replied", "stop", within="PT1H"), on("no_reply", "b", after="P1D")), wait("b"))
    walk.advance("PT2H").real("replied")
    walk.campaign = replace(walk.campaign, anchor_at=NOON + 3 * HOUR)  # as after a pause
    assert walk.expire("no_reply", deadline=NOON + DAY).outcome == "transitioned"


def test_a_counter_event_that_leaves_the_visit_takes_the_timeout_with_it() -> None:
    walk = Walk(*SAMPLE)
    walk.real("opened")
    assert set(walk.pending) == {(2, "timeout", "no_click")}


def test_a_timeout_leads_on_now_however_late_it_is() -> None:
    walk = Walk(*SAMPLE)
    walk.confirm()
    decision = walk.advance("P30D").expire("no_open")
    (left,) = decision.transitions
    assert (left.trigger, left.occurred_at, left.created_at) == ("no_open", NOON + 72 * HOUR, walk.now)
    assert left.dedupe_key == "1:no_open"
    assert walk.campaign.node_entered_at == walk.now
    assert walk.timers == {"no_open": walk.now + 72 * HOUR}


def test_a_timeout_of_another_visit_is_stale() -> None:
    walk = Walk(wait("a", on("no_open", "a", after="PT1H")))
    walk.advance("PT1H").expire("no_open")
    before = walk.campaign
    for visit, node_id in ((1, "a"), (3, "a"), (2, "b")):
        assert walk.expire("no_open", visit, node_id=node_id).outcome == "stale"
    assert walk.campaign is before


def test_a_timeout_of_a_finished_campaign_is_inactive() -> None:
    walk = Walk(*SAMPLE)
    walk.real("unsubscribed")
    assert walk.expire("no_open", 1, node_id="email_intro").outcome == "campaign_inactive"


def test_a_timeout_of_a_paused_campaign_waits() -> None:
    walk = Walk(*SAMPLE).pause().advance("P30D")
    assert walk.expire("no_open").outcome == "paused"
    assert walk.node == "email_intro"


@pytest.mark.parametrize("deadline", [NOON, NOON + HOUR])
def test_a_timeout_whose_event_is_recorded_has_no_effect(deadline: datetime) -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H")))
    walk.confirm()
    walk.real("opened")
    assert walk.advance("PT1H").expire("no_open", deadline=deadline).outcome == "event_happened"
    assert walk.node == "a"


def test_a_timeout_whose_event_is_recorded_as_of_later_has_effect() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H")))
    walk.confirm()
    walk.advance("PT3H").real("opened", NOON + 2 * HOUR)
    assert walk.expire("no_open").outcome == "transitioned"


@pytest.mark.parametrize("event_type", ["no_reply", "opened"])
def test_a_timeout_that_the_node_doesnt_know_has_no_transition(event_type: str) -> None:
    walk = Walk(*SAMPLE)
    assert walk.expire(event_type).outcome == "no_transition"


def test_a_timeout_whose_mail_isnt_sent_waits_for_it() -> None:
    walk = Walk(send("a", on("no_open", "stop", after="PT1H")), timezone="UTC").advance("PT2H")
    decision = walk.expire("no_open", send_run_at=NOON + 2 * HOUR)
    assert (decision.outcome, decision.run_at) == ("deferred", NOON + 3 * HOUR)
    assert walk.campaign.node_visit == 1


def test_a_timeout_in_a_loop_makes_a_new_visit() -> None:
    walk = Walk(send("a", on("no_open", "a", after="PT1H")))
    for visit in range(1, 6):
        walk.confirm()
        walk.advance("PT1H").expire("no_open")
        assert history(walk) == ((visit, "a", "a", "no_open"),)
    assert walk.campaign.node_visit == walk.campaign.mail_visit == 6


def test_a_click_that_came_before_the_open_is_applied_on_entry() -> None:
    walk = Walk(
        send("a", on("opened", "b", after="PT2H"), on("no_open", "stop", after="P1D")),
        wait("b", on("clicked", "c"), on("no_click", "stop")),
        wait("c", on("no_reply", "stop", after="P1D")),
    )
    walk.confirm()
    walk.advance("PT1H").real("clicked")
    assert walk.node == "a", "too early for the guard, as a click and as an open"
    walk.advance("PT2H").real("opened")
    assert history(walk) == ((1, "a", "b", "opened"), (2, "b", "c", "clicked"))
    assert [left.occurred_at for left in walk.decision.transitions] == [walk.now, NOON + HOUR]
    assert set(walk.pending) == {(3, "timeout", "no_reply")}


def test_an_event_is_applied_on_entry_once() -> None:
    walk = Walk(
        send("a", on("replied", "b")),
        wait("b", on("opened", "c"), on("no_open", "stop")),
        wait("c", on("opened", "stop"), on("no_open", "stop")),
    )
    walk.real("opened")
    walk.real("replied")
    assert walk.node == "c"


def test_the_earliest_of_several_recorded_events_leads_on() -> None:
    walk = Walk(
        send("a", on("replied", "b")),
        wait("b", on("clicked", "c"), on("delivered", "stop")),
        wait("c", on("no_open", "stop")),
    )
    walk.real("clicked", NOON - HOUR)
    walk.real("delivered", NOON - 2 * HOUR)
    walk.real("replied")
    assert walk.campaign.status == CampaignStatus.COMPLETED


def test_an_event_recorded_for_an_earlier_mail_isnt_applied() -> None:
    walk = Walk(
        send("a", on("replied", "b")),
        send("b", on("replied", "c")),
        wait("c", on("opened", "stop"), on("no_open", "stop")),
    )
    walk.real("opened")
    walk.real("replied")
    walk.real("replied", NOON - SECOND)
    assert walk.node == "c"


def test_events_without_a_mail_are_kept_for_the_next_wait_too() -> None:
    walk = Walk(wait("a", on("opened", "b")), wait("b", on("clicked", "stop"), on("no_click", "stop")))
    walk.real("clicked")
    assert history(walk) == ((1, "a", "b", "opened"), (2, "b", "stop", "clicked"))


def test_without_a_mail_an_event_is_late_only_where_its_timeout_fired() -> None:
    walk = Walk(wait("a", on("no_open", "b", after="PT1H")), wait("b", on("opened", "stop"), on("no_click", "stop")))
    walk.advance("PT1H").expire("no_open")
    assert walk.real("opened").outcome == "transitioned"


def test_a_wait_node_without_a_mail_takes_any_event() -> None:
    walk = Walk(wait("a", on("opened", "stop"), on("no_open", "stop")))
    assert walk.real("opened").outcome == "transitioned"


@pytest.mark.parametrize("event_type", ["unsubscribed", "spamreport", "bounced"])
def test_an_exit_stops_the_campaign_where_the_node_says_nothing(event_type: str) -> None:
    walk = Walk(wait("a", on("no_open", "stop")))
    assert walk.real(event_type).outcome == "transitioned"
    assert history(walk) == ((1, "a", "stop", event_type),)
    assert walk.campaign.status == CampaignStatus.STOPPED
    assert walk.campaign.completed_at == NOON
    assert walk.decision.ends
    assert walk.pending == {}


def test_a_nodes_own_transition_goes_first() -> None:
    walk = Walk(send("a", on("bounced", "b")), wait("b", on("no_reply", "stop", after="P1D")))
    walk.real("bounced")
    assert walk.node == "b"
    assert walk.campaign.status == CampaignStatus.ACTIVE


def test_an_exit_whose_own_transition_fails_its_guard_stops_the_campaign() -> None:
    walk = Walk(send("a", on("bounced", "b", within="PT1H")), wait("b")).advance("PT2H")
    walk.real("bounced")
    assert walk.campaign.status == CampaignStatus.STOPPED


def test_an_exit_stops_a_paused_campaign() -> None:
    walk = Walk(*SAMPLE).pause()
    walk.real("unsubscribed")
    assert walk.campaign.status == CampaignStatus.STOPPED


def test_the_plan_says_what_is_an_exit() -> None:
    walk = Walk(wait("a", on("no_open", "stop")), exits=["replied"])
    assert walk.real("bounced").outcome == "recorded"
    assert walk.real("replied").outcome == "transitioned"
    assert walk.campaign.status == CampaignStatus.STOPPED


def test_a_paused_campaign_takes_events_and_its_new_actions_are_born_paused() -> None:
    walk = Walk(*SAMPLE).pause()
    assert walk.real("opened").outcome == "transitioned"
    assert walk.campaign.status == CampaignStatus.PAUSED
    assert {action.status for action in walk.decision.actions} == {"paused"}


def test_a_paused_campaign_completes_at_stop() -> None:
    walk = Walk(wait("a", on("replied", "stop"))).pause()
    walk.real("replied")
    assert walk.campaign.status == CampaignStatus.COMPLETED
    assert walk.decision.ends


@pytest.mark.parametrize("moved", [-HOUR, timedelta(0), 2 * HOUR])
def test_anchor_and_timeouts_move_to_when_the_mail_was_sent(moved: timedelta) -> None:
    edges = (on("no_open", "stop", after="PT5H"), on("no_click", "stop", after="P1M"))
    walk = Walk(send("a", *edges, delay="PT2H")).advance("PT6H")
    assert walk.confirm(NOON + 2 * HOUR + moved).outcome == "sent"
    sent_at = NOON + 2 * HOUR + moved
    assert walk.campaign.anchor_at == sent_at
    assert walk.campaign.sent_visit == 1
    assert walk.timers == {"no_open": sent_at + 5 * HOUR, "no_click": sent_at + 31 * DAY}
    assert walk.campaign.node_entered_at == NOON


def test_a_confirmation_from_the_future_is_taken_as_of_now() -> None:
    walk = Walk(*SAMPLE)
    walk.confirm(NOON + 30 * DAY)
    assert walk.campaign.anchor_at == NOON


def test_a_confirmation_of_a_visit_left_only_says_which_mail_is_the_newest() -> None:
    walk = Walk(send("a", on("replied", "b")), send("b", on("no_open", "stop")))
    walk.real("replied")
    before = walk.campaign
    decision = walk.advance("PT1H").confirm(visit=1)
    assert decision.campaign == replace(before, sent_visit=1, updated_at=walk.now)
    assert (decision.transitions, decision.actions, decision.retimed) == ((), (), ())


def test_a_late_confirmation_doesnt_make_an_older_mail_the_newest() -> None:
    walk = Walk(send("a", on("replied", "b")), send("b", on("no_open", "stop")))
    walk.real("replied")
    walk.confirm()
    walk.confirm(visit=1)
    assert walk.campaign.sent_visit == 2


def test_a_confirmation_of_a_finished_campaign_changes_nothing_else() -> None:
    walk = Walk(*SAMPLE)
    walk.real("unsubscribed")
    before = walk.campaign
    assert walk.confirm(visit=1).campaign == replace(before, sent_visit=1)


def test_an_event_before_its_send_is_confirmed_counts_by_the_planned_time() -> None:
    walk = Walk(*SAMPLE)
    assert walk.real("opened").outcome == "transitioned"


def test_an_event_whose_guard_holds_only_by_the_confirmed_time_is_applied_then() -> None:
    walk = Walk(send("a", on("opened", "stop", within="PT1H"), on("no_open", "a", after="P1D"))).advance("PT3H")
    assert walk.real("opened").outcome == "recorded"
    assert walk.confirm(NOON + 150 * SECOND * 60).outcome == "transitioned"
    assert walk.campaign.status == CampaignStatus.COMPLETED


def test_a_failed_send_takes_the_nodes_transition() -> None:
    walk = Walk(send("a", on("send_failed", "b"), on("no_open", "stop")), wait("b", on("no_reply", "stop")), **REPLY)
    walk.fail_send()
    assert history(walk) == ((1, "a", "b", "send_failed"),)
    assert walk.decision.transitions[0].dedupe_key == "k-send"


def test_a_failed_send_without_a_transition_leaves_the_campaign_in_error_where_it_stands() -> None:
    walk = Walk(*SAMPLE)
    decision = walk.fail_send()
    assert (decision.outcome, decision.ends, decision.transitions) == ("failed", True, ())
    assert (walk.campaign.status, walk.node) == (CampaignStatus.ERROR, "email_intro")
    assert walk.campaign.completed_at == NOON
    assert walk.pending == {}


def test_a_failed_send_of_a_visit_left_is_stale() -> None:
    walk = Walk(*SAMPLE)
    walk.real("opened")
    before = walk.campaign
    assert walk.fail_send(visit=1).outcome == "stale"
    assert walk.campaign is before


def test_a_campaign_that_used_up_its_transitions_is_in_error_where_it_stands() -> None:
    walk = Walk(wait("a", on("no_open", "a", after="PT1H")), maxTransitions=3)
    for _ in range(3):
        assert walk.advance("PT1H").expire("no_open").outcome == "transitioned"
    decision = walk.advance("PT1H").expire("no_open")
    assert (decision.outcome, decision.ends, decision.transitions, decision.actions) == ("failed", True, (), ())
    assert (walk.campaign.status, walk.node, walk.campaign.node_visit) == (CampaignStatus.ERROR, "a", 4)
    assert walk.pending == {}


def test_a_campaign_is_stopped_in_the_middle_of_a_decision() -> None:
    walk = Walk(
        send("a", on("opened", "b")),
        wait("b", on("clicked", "c"), on("no_click", "stop")),
        wait("c", on("no_click", "stop")),
        maxTransitions=1,
    )
    decision = walk.real("clicked")
    assert history(walk) == ((1, "a", "b", "opened"),)
    assert (decision.outcome, decision.ends, decision.actions) == ("failed", True, ())
    assert (walk.campaign.status, walk.node, walk.campaign.node_visit) == (CampaignStatus.ERROR, "b", 2)


def test_an_exit_is_no_counted_transition() -> None:
    walk = Walk(wait("a", on("no_open", "a", after="PT1H")), maxTransitions=1)
    walk.advance("PT1H").expire("no_open")
    walk.real("unsubscribed")
    assert walk.campaign.status == CampaignStatus.STOPPED


def test_transitions_before_the_last_start_arent_counted() -> None:
    plan = CampaignPlan.parse(make_document(wait("a", on("no_open", "a", after="PT1H")), maxTransitions=1))
    again = make_campaign(plan, node_visit=7, first_visit=8)
    started = machine.start(plan, again, NOON, NOON).campaign
    timeout = TimeoutExpired("no_open", "a", 8, NOON + HOUR)
    assert machine.transition(plan, started, timeout, NOON + HOUR).outcome == "transitioned"


def test_a_stop_by_hand_leaves_the_visit_and_ends_the_campaign() -> None:
    walk = Walk(*SAMPLE)
    decision = machine.stop(walk.campaign, machine.STOPPED, NOON, NOON + HOUR)
    assert decision.ends
    assert [(left.node_visit, left.to_node_id, left.trigger) for left in decision.transitions] == [
        (1, "stop", "stopped")
    ]
    assert (decision.campaign.status, decision.campaign.completed_at) == (CampaignStatus.STOPPED, NOON + HOUR)
    assert machine.stop(decision.campaign, machine.STOPPED, NOON, NOON).campaign is decision.campaign


@pytest.mark.parametrize(
    "event",
    [
        RealEvent("opened", NOON, 1),
        TimeoutExpired("no_open", "stop", 2, NOON),
        SendFailed(2),
    ],
)
def test_a_finished_campaign_is_left_as_it_is(event: CampaignEvent) -> None:
    walk = Walk(*SAMPLE)
    walk.real("unsubscribed")
    before = walk.campaign
    decision = walk.deliver(event)
    assert decision.campaign is before
    assert (decision.transitions, decision.actions, decision.ends) == ((), (), False)


def test_a_confirmation_again_changes_nothing() -> None:
    walk = Walk(*SAMPLE)
    twice = [walk.deliver(SendConfirmed(1, NOON)) for _ in range(2)]
    assert twice[0].campaign == twice[1].campaign
    assert twice[0].retimed == twice[1].retimed
