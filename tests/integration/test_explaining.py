"""A campaign explains itself: what happened to it and why, where it stands, what it waits for."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from scheduler import (
    Explanation,
    PermanentSendError,
    RetryLater,
    SendRequest,
    SendResult,
    TimeoutJob,
    TimeoutScheduler,
    UnknownCampaignError,
)
from tests.support.scheduling import execute
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)
INTRO = send("intro", on("opened", "read", within="PT72H"), on("no_open", "bump", after="PT72H"))
READ = wait("read", on("clicked", "stop", within="PT24H"), on("no_click", "bump", after="PT24H"))
BUMP = send("bump", on("replied", "stop"), on("no_open", "stop", after="PT72H"), delay="PT1H")
WAIT = wait("a", on("no_open", "stop", after="PT2H"), on("replied", "stop"))


def explain(stage: Stage, campaign: str = "c-1") -> Explanation:
    return stage.sm.explain("acme", campaign)


def story(stage: Stage, *kinds: str) -> list[str]:
    """The entries of these kinds, or all."""
    return [one.text for one in explain(stage).entries if not kinds or one.kind in kinds]


def awaited(stage: Stage, *kinds: str) -> list[str]:
    return [one.text for one in explain(stage).waits_for if not kinds or one.kind in kinds]


def instant(value: datetime) -> str:
    return value.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def note(stage: Stage, act: str, tenant: str | None = "acme", campaign: str | None = "c-1", details: str = "") -> None:
    """Something done by hand just now, as the operators' calls record it."""
    execute(
        stage.ts,
        "INSERT INTO operator_actions (operator_action_id, tenant_id, campaign_id, act, actor, details, created_at)"
        " VALUES (:id, :tenant, :campaign, :act, 'ada', :details, :at)",
        id=f"{act} {campaign} {details}",
        tenant=tenant,
        campaign=campaign,
        act=act,
        details=details or None,
        at=instant(stage.clock.now()) + ("+00:00" if stage.ts.database.is_postgresql else ""),
    )


def pause(stage: Stage, scope: str, tenant: str = "", campaign: str = "") -> None:
    """A pause that began at noon, behind the scheduler's back."""
    execute(
        stage.ts,
        "INSERT INTO pauses (tenant_id, campaign_id, scope, started_at, actor, reason)"
        " VALUES (:tenant, :campaign, :scope, :at, 'ada', :reason)",
        tenant=tenant,
        campaign=campaign,
        scope=scope,
        reason=f"the {scope}",
        at=instant(NOON) + ("+00:00" if stage.ts.database.is_postgresql else ""),
    )


def test_a_whole_campaign_is_told_in_order(stage: Stage) -> None:
    stage.enroll(INTRO, READ, BUMP)
    stage.run()
    stage.clock.advance("PT2H")
    stage.event("opened", message_id="m-c-1-1", occurred_at=stage.clock.now() - timedelta(minutes=3))
    stage.run("PT24H5M")
    stage.run("PT55M")
    stage.event("clicked", message_id="m-c-1-1")
    stage.clock.advance("PT5M")
    stage.run()
    stage.event("replied")

    assert [(one.at - NOON, one.kind, one.text) for one in explain(stage).entries] == [
        (0 * HOUR, "enrolled", "contact k-1 enrolled at intro"),
        (0 * HOUR, "scheduled", "mail of intro (visit 1) planned for 2026-03-02 12:00 (at once)"),
        (
            0 * HOUR,
            "scheduled",
            "timeout no_open of intro (visit 1) scheduled for 2026-03-05 12:00 (72 h after its mail was to go out)",
        ),
        (0 * HOUR, "sent", "mail of intro (visit 1) went out as m-c-1-1 when planned"),
        (
            2 * HOUR,
            "arrived",
            (
                "opened, which happened 2026-03-02 13:57 and took 3 min to arrive (mail of visit 1):"
                " counted, it led from intro to read"
            ),
        ),
        (2 * HOUR, "moved", "opened led from intro (visit 1) to read"),
        (
            2 * HOUR,
            "canceled",
            "timeout no_open of intro (visit 1) was canceled: its visit was left, opened led on to read",
        ),
        (
            2 * HOUR,
            "scheduled",
            "timeout no_click of read (visit 2) scheduled for 2026-03-03 14:00 (24 h after the node was entered)",
        ),
        (
            timedelta(hours=26, minutes=5),
            "fired",
            "timeout no_click of read (visit 2) fired, 5 min after it was due: led on to bump",
        ),
        (timedelta(hours=26, minutes=5), "moved", "no_click led from read (visit 2) to bump"),
        (
            timedelta(hours=26, minutes=5),
            "scheduled",
            "mail of bump (visit 3) planned for 2026-03-03 15:05 (1 h after entering)",
        ),
        (
            timedelta(hours=26, minutes=5),
            "scheduled",
            "timeout no_open of bump (visit 3) scheduled for 2026-03-06 15:05 (72 h after its mail was to go out)",
        ),
        (
            27 * HOUR,
            "arrived",
            (
                "clicked (mail of visit 1): late, it is about the mail of visit 1, and the newest was that of visit 3;"
                " it changed nothing"
            ),
        ),
        (timedelta(hours=27, minutes=5), "sent", "mail of bump (visit 3) went out as m-c-1-3 when planned"),
        (timedelta(hours=27, minutes=5), "arrived", "replied (mail of visit 3): counted, it led from bump to stop"),
        (
            timedelta(hours=27, minutes=5),
            "moved",
            "replied led from bump (visit 3) to stop; the campaign is completed",
        ),
        (
            timedelta(hours=27, minutes=5),
            "canceled",
            "timeout no_open of bump (visit 3) was canceled: its visit was left, replied led on to stop",
        ),
    ]
    assert awaited(stage) == ["nothing: the campaign is over (completed)"]
    assert explain(stage).standing.text == (
        "completed, at stop (visit 4) since 2026-03-03 15:05; ended 2026-03-03 15:05"
    )


def test_entries_have_the_facts_behind_their_words(stage: Stage) -> None:
    stage.enroll(INTRO, READ, BUMP)
    stage.run()
    stage.event("opened", event_id="e-1", occurred_at=NOON)
    stage.run("PT25H")
    fired, arrived, mailed = (
        next(one for one in explain(stage).entries if one.kind == kind) for kind in ("fired", "arrived", "sent")
    )

    assert fired.facts == {
        "dedupe_key": "acme:c-1:read:2:timeout:no_click",
        "action_type": "timeout",
        "event_type": "no_click",
        "node_id": "read",
        "node_visit": 2,
        "deadline": NOON + 24 * HOUR,
        "run_at": NOON + 24 * HOUR,
        "finished_at": NOON + 25 * HOUR,
        "late_by": HOUR,
        "outcome": "transitioned",
        "attempts": 0,
        "last_error": None,
    }
    assert (arrived.facts["event_id"], arrived.facts["mail_visit"], arrived.facts["outcome"]) == (
        "e-1",
        1,
        "transitioned",
    )
    assert (mailed.facts["message_id"], mailed.facts["planned_at"], mailed.facts["sent_at"]) == ("m-c-1-1", NOON, NOON)


def test_a_mail_that_went_out_late_moved_its_timeout(stage: Stage) -> None:
    busy = [RetryLater(timedelta(minutes=5), "slow down")]

    def hesitate(request: SendRequest) -> SendResult:
        if busy:
            raise busy.pop()
        return stage.mail(request)

    stage.handler = hesitate
    stage.enroll(INTRO, READ, BUMP)
    stage.run()
    assert story(stage, "failed") == [
        "mail of intro (visit 1): attempt 1 failed, the next is due 2026-03-02 12:05: RetryLater: slow down"
    ]
    stage.run("PT5M")
    assert story(stage, "failed") == []
    assert story(stage, "scheduled", "sent")[1:] == [
        (
            "timeout no_open of intro (visit 1) scheduled for 2026-03-05 12:00 (72 h after its mail was to go out);"
            " moved to 2026-03-05 12:05 (72 h after its mail went out)"
        ),
        (
            "mail of intro (visit 1) went out as m-c-1-1, 5 min after it was planned, after 1 failed attempt"
            " (RetryLater: slow down)"
        ),
    ]


def test_quiet_hours_that_moved_a_mail_are_named(stage: Stage) -> None:
    stage.enroll(INTRO, READ, BUMP, timezone="UTC", quietHours={"start": "10:00", "end": "14:00"})

    assert story(stage, "scheduled")[0] == (
        "mail of intro (visit 1) planned for 2026-03-02 14:00"
        " (at once is 2026-03-02 12:00; moved on by quiet hours, a pause or by hand)"
    )


def test_what_a_pause_moved_is_told(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT1H")
    stage.sm.resume("acme", "c-1")
    moved = "timeout no_open of a (visit 1) scheduled for 2026-03-02 14:00 (2 h after the node was entered)"

    assert story(stage, "scheduled") == [f"{moved}; moved to 2026-03-02 15:00 (2 h after the anchor, 2026-03-02 13:00)"]
    stage.run("PT2H")
    assert story(stage, "scheduled") == [f"{moved}; moved to 2026-03-02 15:00 by a pause or by hand"]


@pytest.mark.parametrize(
    ("cancel", "by"),
    [
        (lambda ts: ts.cancel("acme:c-1:a:1:timeout:no_open", "left the company"), "by hand, left the company"),
        (lambda ts: ts.cancel("acme:c-1:a:1:timeout:no_open"), "by hand, without a reason"),
        (lambda ts: ts.cancel_campaign("acme", "c-1"), "by hand, with everything of the campaign"),
        (lambda ts: ts.cancel_node("acme", "c-1", "a"), "by hand, with everything of its node"),
        (lambda ts: ts.apscheduler.remove_job("acme:c-1:a:1:timeout:no_open"), "by hand, through APScheduler"),
        (
            lambda ts: ts.campaigns.process_event("acme", "opened", campaign_id="c-1"),
            "opened happened by its deadline",
        ),
        (
            lambda ts: ts.campaigns.process_event("acme", "clicked", campaign_id="c-1"),
            "clicked, so opened, happened by its deadline",
        ),
        (lambda ts: ts.campaigns.stop("acme", "c-1"), "its visit was left, stopped led on to stop"),
    ],
)
def test_a_cancellation_says_by_what(stage: Stage, cancel: Any, by: str) -> None:
    stage.enroll(WAIT)
    stage.clock.advance("PT1H")
    cancel(stage.ts)

    (canceled,) = [one for one in explain(stage).entries if one.kind == "canceled"]
    assert (canceled.at, canceled.text) == (NOON + HOUR, f"timeout no_open of a (visit 1) was canceled: {by}")


def test_an_event_that_moved_nothing_says_what_it_did(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.event("opened", event_id="e-1", metadata={"machine": True})
    stage.event("delivered", event_id="e-2")
    stage.event("opened", event_id="e-3")
    stage.sm.stop("acme", "c-1")
    stage.event("opened", event_id="e-4")

    assert sorted(story(stage, "arrived")) == [
        "delivered: recorded, no transition wanted it",
        "opened: ignored, the campaign had ended",
        "opened: recorded, no transition wanted it; it canceled the timeout no_open",
        "opened: recorded, not counted: a machine did it, not the contact",
    ]


def test_an_event_after_its_timeout_led_on_says_so(stage: Stage) -> None:
    stage.enroll(
        wait("a", on("no_open", "b", after="PT2H")),
        wait("b", on("opened", "stop"), on("no_reply", "stop", after="PT9H")),
    )
    stage.run()
    stage.enroll(
        send("a", on("no_open", "b", after="PT2H")),
        wait("b", on("opened", "stop"), on("no_reply", "stop", after="PT9H")),
        campaign="c-2",
    )
    stage.run()
    stage.run("PT2H")
    stage.event("opened", campaign="c-2")

    (text,) = [one.text for one in explain(stage, "c-2").entries if one.kind == "arrived"]
    assert text == "opened (mail of visit 1): late, its timeout no_open had led on already; it changed nothing"
    assert [one.text for one in explain(stage, "c-2").waits_for if one.kind == "event"] == [
        "unsubscribed, spamreport or bounced: ends it"
    ]


def test_a_click_before_its_open_says_that_it_counted_later(stage: Stage) -> None:
    stage.enroll(
        send("intro", on("replied", "read"), on("no_open", "stop", after="PT72H")),
        wait("read", on("clicked", "stop"), on("no_click", "stop", after="PT24H")),
    )
    stage.run()
    stage.event("clicked")
    stage.clock.advance("PT1H")
    stage.event("replied")

    assert story(stage, "arrived") == [
        "clicked (mail of visit 1): recorded; it counted as clicked 2026-03-02 13:00, and led from read to stop",
        "replied (mail of visit 1): counted, it led from intro to read",
    ]


def test_a_timeout_without_effect_says_why(stage: Stage) -> None:
    stage.enroll(WAIT)
    job: dict[str, Any] = {
        "tenant_id": "acme",
        "campaign_id": "c-1",
        "contact_id": "k-1",
        "node_id": "a",
        "scheduled_at": NOON,
    }
    stage.ts.schedule(TimeoutJob(event_type="no_reply", **job))
    stage.ts.schedule(TimeoutJob(event_type="no_open", node_visit=7, **job))
    stage.run()

    assert story(stage, "fired") == [
        "timeout no_reply of a (visit 1) fired when due: nothing: its node has no transition on it",
        "timeout no_open of a (visit 7) fired when due: nothing: its visit had been left",
    ]


def test_a_send_that_failed_for_good_ends_in_words(stage: Stage) -> None:
    def refuse(_request: SendRequest) -> SendResult:
        raise PermanentSendError("no such mailbox")

    stage.handler = refuse
    stage.enroll(INTRO, READ, BUMP)
    stage.run()

    assert story(stage, "failed", "ended", "canceled") == [
        "mail of intro (visit 1) failed for good after 1 attempt: PermanentSendError: no such mailbox",
        "timeout no_open of intro (visit 1) was canceled: the campaign ended",
        "the campaign ended in error at intro (visit 1): its mail can't be sent (PermanentSendError: no such mailbox)",
    ]
    assert awaited(stage) == [
        "nothing: the campaign is over (error): its mail can't be sent (PermanentSendError: no such mailbox)"
    ]


def test_a_campaign_that_used_up_its_transitions_says_so(stage: Stage) -> None:
    stage.enroll(
        wait("a", on("replied", "b"), on("no_reply", "stop", after="PT72H")),
        wait("b", on("no_reply", "a", after="PT1H"), on("opened", "stop")),
        maxTransitions=2,
    )
    stage.event("replied")
    stage.run("PT1H")
    stage.event("replied")

    assert awaited(stage) == ["nothing: the campaign is over (error): it used up its 2 transitions (maxTransitions)"]


def test_what_was_done_by_hand_is_told_without_what_is_known_of_the_contact(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.clock.advance("PT1H")
    note(stage, "campaign.paused", details='{"reason": "a holiday", "address": "alex@example.com", "rows": 3}')
    note(stage, "campaign.resumed", campaign="c-2")
    note(stage, "tenant.paused", campaign=None)
    note(stage, "all.paused", tenant=None, campaign=None)
    note(stage, "contact.unsuppressed", campaign=None, details='{"contact_id": "k-1"}')
    for other in ("k-2", "K-1"):
        note(stage, "contact.suppressed", campaign=None, details=f'{{"contact_id": "{other}"}}')
    note(stage, "actions.canceled", campaign=None)
    note(stage, "tenant.paused", tenant="other", campaign=None, details="{}")
    acts = [one for one in explain(stage).entries if one.kind == "operator"]

    assert sorted(one.text for one in acts) == [
        "all paused by ada",
        "campaign paused by ada: a holiday",
        "contact unsuppressed by ada",
        "tenant paused by ada",
    ]
    (own,) = [one.facts for one in acts if one.facts["act"] == "campaign.paused"]
    assert own == {"act": "campaign.paused", "actor": "ada", "reason": "a holiday", "details": {"rows": 3}}


def test_a_migration_is_told_to_those_it_moved(stage: Stage) -> None:
    for campaign in ("c-1", "c-2"):
        stage.enroll(WAIT, campaign=campaign)
        stage.event("replied", campaign=campaign)
    execute(
        stage.ts, "UPDATE campaign_transitions SET trigger = 'migrated' WHERE node_visit = 1 AND campaign_id = 'c-1'"
    )
    details = f'{{"old_plan_hash": "an old one", "new_plan_hash": "{stage.campaign().plan_hash}"}}'
    note(stage, "campaign.migrated", campaign=None, details=details)
    note(stage, "campaign.migrated", campaign=None, details='{"new_plan_hash": "another"}')

    assert story(stage, "operator") == ["campaign migrated by ada"]
    assert [one for one in explain(stage, "c-2").entries if one.kind == "operator"] == []


def test_a_suppressed_contact_ends_each_campaign_with_the_reason(stage: Stage) -> None:
    for campaign in ("c-1", "c-2"):
        stage.enroll(WAIT, campaign=campaign, contact_id="k-1")
    stage.clock.advance("PT1H")
    stage.event("unsubscribed", campaign="c-2", event_id="e-1")

    assert [one.text for one in explain(stage).entries[2:]] == [
        "unsubscribed (of the contact, outside of this campaign): counted, it led from a to stop",
        "unsubscribed led from a (visit 1) to stop; the campaign is stopped",
        "timeout no_open of a (visit 1) was canceled: its visit was left, unsubscribed led on to stop",
    ]
    assert explain(stage).standing.suppressed_reason == "unsubscribed"


def test_a_contact_suppressed_by_hand_is_told_with_who_did_it(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.clock.advance("PT1H")
    stage.sm.suppress("acme", "k-1", "asked by phone", actor="ada")
    stage.sm.suppress("acme", "k-2", "asked by phone", actor="ada")

    assert story(stage, "operator", "moved") == [
        "contact suppressed by ada: asked by phone",
        "stopped at a (visit 1): its contact was suppressed; the campaign is stopped",
    ]


def test_an_event_of_the_contact_counts_in_its_campaign(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.sm.process_contact_event("acme", "k-1", "replied", event_id="e-1")

    assert story(stage, "arrived") == ["replied: counted, it led from a to stop"]


def test_a_campaign_that_started_again_tells_both_times(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.event("replied")
    stage.clock.advance("PT1H")
    stage.sm.enroll("acme", "c-1", "k-1", make_document(WAIT), restart=True)

    assert story(stage, "enrolled", "moved") == [
        "contact k-1 enrolled at a",
        "replied led from a (visit 1) to stop",
        "started again at a (visit 3)",
    ]
    assert story(stage, "scheduled")[1] == (
        "timeout no_open of a (visit 3) scheduled for 2026-03-02 15:00 (2 h after the node was entered)"
    )


def test_an_event_that_overtook_its_mail_says_that_it_was_kept(stage: Stage) -> None:
    sender = stage.another(send_handler="external")
    stage.enroll(INTRO, READ, BUMP)
    stage.event("opened", campaign=None, message_id="m-1", event_id="e-1")
    stage.clock.advance("PT5M")
    sender.campaigns.confirm_send("acme:c-1:intro:1:send:sent", NOON, "m-1")

    assert story(stage, "sent", "arrived", "moved") == [
        "mail of intro (visit 1) went out as m-1 when planned",
        (
            "opened (mail of visit 1): kept until its mail was confirmed (2026-03-02 12:05), then counted,"
            " it led from intro to read"
        ),
        "opened led from intro (visit 1) to read",
    ]


def test_it_stands_under_every_pause_that_holds(stage: Stage) -> None:
    stage.enroll(WAIT)
    for scope, tenant, campaign in [("campaign", "acme", "c-1"), ("tenant", "acme", ""), ("all", "", "")]:
        pause(stage, scope, tenant, campaign)
    pause(stage, "tenant", "other")
    pause(stage, "campaign", "acme", "c-2")
    explanation = explain(stage)

    assert explanation.standing.text == (
        "active, at a (visit 1) since 2026-03-02 12:00;"
        " everything is paused since 2026-03-02 12:00 by ada: the all;"
        " its tenant is paused since 2026-03-02 12:00 by ada: the tenant;"
        " it is paused since 2026-03-02 12:00 by ada: the campaign"
    )
    assert [one.scope for one in explanation.standing.pauses] == ["all", "tenant", "campaign"]
    assert [one.kind for one in explanation.waits_for][:3] == ["hand"] * 3


def test_it_stands_with_a_suppressed_contact(stage: Stage) -> None:
    stage.enroll(WAIT, contact={"address": "alex@example.com"})
    at = instant(NOON) + ("+00:00" if stage.ts.database.is_postgresql else "")
    execute(stage.ts, "UPDATE contacts SET suppressed_at = :at, suppressed_reason = 'unsubscribed'", at=at)
    standing = explain(stage).standing

    assert standing.text.endswith("; its contact is suppressed since 2026-03-02 12:00 (unsubscribed)")
    assert (standing.suppressed_at, standing.suppressed_reason) == (NOON, "unsubscribed")


def test_it_waits_for_its_actions_and_for_the_events_that_would_count(stage: Stage) -> None:
    stage.enroll(
        wait(
            "a",
            on("opened", "stop", within="PT1H"),
            on("replied", "b", after="PT3H", within="PT9H"),
            on("no_reply", "b", after="PT72H"),
        ),
        wait("b", on("replied", "stop"), on("no_reply", "stop", after="PT1H")),
    )
    ends = "unsubscribed, spamreport or bounced: ends it"

    assert [(one.kind, one.text, one.at, one.until) for one in explain(stage).waits_for] == [
        ("action", "timeout no_reply of a (visit 1): leads to b", NOON + 72 * HOUR, None),
        ("event", "opened or clicked: leads to stop", None, NOON + HOUR),
        ("event", "replied: leads to b", NOON + 3 * HOUR, NOON + 9 * HOUR),
        ("event", ends, None, None),
    ]
    stage.clock.advance("PT4H")
    assert [(one.text, one.at, one.until) for one in explain(stage).waits_for[1:]] == [
        ("replied: leads to b", None, NOON + 9 * HOUR),
        (ends, None, None),
    ]
    stage.clock.advance("PT80H")
    assert awaited(stage) == ["timeout no_reply of a (visit 1), overdue: leads to b", ends]


def test_grace_and_pauses_of_an_awaited_action_are_named(stage: Stage) -> None:
    patient = stage.another(timeout_grace=timedelta(minutes=2))
    patient.campaigns.enroll("acme", "c-1", "k-1", {"version": "1.0", "startNodeId": "a", "nodes": [WAIT]})
    stage.sm.pause("acme", "c-1")

    assert awaited(stage, "action") == [
        "timeout no_open of a (visit 1), with its deadline 2026-03-02 14:00, paused: leads to stop"
    ]


def test_a_campaign_that_waits_for_no_action_says_why(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.ts.cancel("acme:c-1:a:1:timeout:no_open", "a mistake")

    assert awaited(stage, "nothing", "event") == [
        "nothing that comes by itself: its timeout no_open was canceled (a mistake); only replied can move it",
        "replied: leads to stop",
        "unsubscribed, spamreport or bounced: ends it",
    ]


def test_nothing_known_of_the_contact_is_told(stage: Stage) -> None:
    def refuse(request: SendRequest) -> SendResult:
        raise RetryLater(HOUR, f"550 {request.address} is unknown")

    stage.handler = refuse
    contact = {"address": "alex@example.com", "timezone": "Asia/Kathmandu", "variables": {"first_name": "Alexandra"}}
    stage.enroll(INTRO, READ, BUMP, contact=contact)
    stage.run()
    stage.event("delivered", metadata={"ip": "192.0.2.1"})
    told = repr(explain(stage))

    assert "550 (address) is unknown" in told
    assert [word for word in ("alex@", "Kathmandu", "Alexandra", "192.0.2.1") if word in told] == []


def test_an_unknown_campaign_is_refused_and_so_is_another_tenants(stage: Stage) -> None:
    stage.enroll(WAIT)

    for key in [("acme", "c-2"), ("other", "c-1")]:
        with pytest.raises(UnknownCampaignError):
            stage.sm.explain(*key)


def test_a_plan_that_is_gone_doesnt_keep_the_rest_from_being_told(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.ts.cancel_campaign("acme", "c-1")
    execute(stage.ts, "UPDATE campaign_plans SET plan = '{}'")
    fresh = stage.another().campaigns

    assert [one.kind for one in fresh.explain("acme", "c-1").entries] == ["enrolled", "scheduled", "canceled"]
    assert "its plan" in fresh.stuck("acme")[0].reason


def test_a_callers_transaction_sees_what_it_has_written(stage: Stage) -> None:
    with stage.ts.database.engine.connect() as connection, connection.begin() as transaction:
        stage.enroll(WAIT, connection=connection)
        explanation = stage.sm.explain("acme", "c-1", connection=connection)
        transaction.rollback()

    assert [one.kind for one in explanation.entries] == ["enrolled", "scheduled"]


@contextmanager
def each_statement(scheduler: TimeoutScheduler, call: Any) -> Iterator[list[str]]:
    """Calls after each statement; the list is of those executed."""
    executed: list[str] = []

    def heed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)
        call(len(executed))

    event.listen(scheduler.database.engine, "after_cursor_execute", heed)
    try:
        yield executed
    finally:
        event.remove(scheduler.database.engine, "after_cursor_execute", heed)


def test_all_is_read_from_one_state_of_the_database(stage: Stage) -> None:
    stage.enroll(WAIT)
    meddler = stage.another()
    looking = stage.another()
    looking.campaigns.find("acme", "c-1")

    def meddle(count: int) -> None:
        if count == 2:
            meddler.campaigns.process_event("acme", "replied", campaign_id="c-1")

    with each_statement(looking, meddle):
        explanation = looking.campaigns.explain("acme", "c-1")

    assert [one.kind for one in explanation.entries] == ["enrolled", "scheduled"]
    assert explanation.standing.node_id == "a"
    assert stage.node() == "stop"


def test_a_long_history_takes_no_more_statements_than_a_short_one(stage: Stage) -> None:
    stage.enroll(
        wait("a", on("replied", "b"), on("no_reply", "stop", after="PT72H")),
        wait("b", on("replied", "a"), on("no_reply", "stop", after="PT72H")),
    )
    explain(stage)
    with each_statement(stage.ts, lambda _count: None) as short:
        explain(stage)
    for _ in range(40):
        stage.clock.advance("PT1M")
        stage.event("replied")
    with each_statement(stage.ts, lambda _count: None) as long:
        entries = explain(stage).entries

    assert (len(long) - len(short), len(short) <= 10) == (0, True)
    assert len(entries) == 1 + 41 + 3 * 40
    assert [one.at for one in entries] == sorted(one.at for one in entries)
