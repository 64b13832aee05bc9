"""Contacts who must not be approached: all their campaigns stop, no new one begins, and nothing is sent."""

import threading
from datetime import timedelta
from typing import Any

import pytest

from scheduler import InvalidInputError
from tests.support.eventually import eventually
from tests.support.scheduling import execute, query
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)

MAIL = send("mail", on("opened", "stop"), on("no_open", "mail", after="PT72H"))
WAIT = wait("a", on("replied", "stop"), on("no_reply", "stop", after="P1D"))


def suppressed(stage: Stage) -> list[tuple[str, str, str]]:
    rows = query(
        stage.ts, "SELECT tenant_id, contact_id, suppressed_reason FROM contacts WHERE suppressed_at IS NOT NULL"
    )
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("event_type", ["unsubscribed", "spamreport"])
def test_who_wants_no_more_mail_gets_none_in_any_campaign(stage: Stage, event_type: str) -> None:
    stage.enroll(MAIL, campaign="c-1", contact_id="k-1")
    stage.enroll(WAIT, campaign="c-2", contact_id="k-1")
    stage.enroll(WAIT, campaign="c-3", contact_id="k-1")
    stage.sm.pause("acme", "c-3")
    stage.enroll(WAIT, campaign="c-4", contact_id="k-2")
    stage.enroll(WAIT, campaign="c-1", contact_id="k-1", tenant="other")
    assert stage.event(event_type, event_id="e-1").outcome == "transitioned"
    assert [stage.campaign(f"c-{number}").status for number in range(1, 5)] == [
        "stopped",
        "stopped",
        "stopped",
        "active",
    ]
    assert stage.campaign("c-1", "other").status == "active"
    assert suppressed(stage) == [("acme", "k-1", event_type)]
    assert stage.history("c-2") == [("a", "stop", event_type)]
    assert stage.sm.history("acme", "c-2")[1].event_id == "e-1"
    assert stage.counts()["pauses"] == 0, "the pause went with its campaign"
    stage.run("P30D")
    assert stage.mailed == []


def test_a_hard_bounce_stops_its_campaign_alone(stage: Stage) -> None:
    stage.enroll(WAIT, campaign="c-1", contact_id="k-1")
    stage.enroll(WAIT, campaign="c-2", contact_id="k-1")
    stage.event("bounced")
    assert (stage.campaign("c-1").status, stage.campaign("c-2").status) == ("stopped", "active")
    assert suppressed(stage) == []


def test_an_unsubscribe_for_a_finished_campaign_still_suppresses(stage: Stage) -> None:
    stage.enroll(WAIT, campaign="c-1", contact_id="k-1")
    stage.enroll(WAIT, campaign="c-2", contact_id="k-1")
    stage.event("replied")
    assert stage.event("unsubscribed").outcome == "ignored"
    assert stage.campaign("c-1").status == "completed"
    assert stage.campaign("c-2").status == "stopped"


def test_a_node_s_own_transition_on_an_unsubscribe_goes_first_and_its_mail_is_not_sent(stage: Stage) -> None:
    stage.enroll(wait("a", on("unsubscribed", "mail"), on("no_open", "stop")), MAIL)
    stage.enroll(WAIT, campaign="c-2", contact_id="k-1")
    stage.event("unsubscribed")
    assert stage.history() == [("a", "mail", "unsubscribed")]
    assert stage.campaign("c-2").status == "stopped"
    stage.run()
    assert stage.mailed == []
    assert stage.campaign().status == "stopped"
    assert set(stage.states().values()) == {"canceled"}


def test_an_unsubscribe_where_the_plan_has_no_exits_suppresses_all_the_same(stage: Stage) -> None:
    stage.enroll(MAIL, exits=[])
    assert stage.event("unsubscribed").outcome == "recorded"
    assert stage.campaign().status == "active"
    stage.run()
    assert (stage.mailed, stage.campaign().status) == ([], "stopped")


def test_a_plan_may_have_more_exits(stage: Stage) -> None:
    stage.enroll(WAIT, exits=["unsubscribed", "meeting_booked"])
    assert stage.event("meeting_booked").outcome == "transitioned"
    assert stage.campaign().status == "stopped"
    assert suppressed(stage) == []


def test_suppressing_by_hand_stops_everything_and_says_who_did_it(stage: Stage) -> None:
    stage.enroll(MAIL)
    assert stage.sm.suppress("acme", "k-1", "asked by phone", actor="ada") is True
    assert stage.sm.suppress("acme", "k-1", "again") is False
    assert suppressed(stage) == [("acme", "k-1", "asked by phone")]
    assert stage.history() == [("mail", "stop", "suppressed")]
    (row,) = query(stage.ts, "SELECT tenant_id, act, actor, details FROM operator_actions")
    assert tuple(row) == (
        "acme",
        "contact.suppressed",
        "ada",
        '{"contact_id": "k-1", "reason": "asked by phone"}',
    )


def test_an_unknown_contact_can_be_suppressed(stage: Stage) -> None:
    assert stage.sm.suppress("acme", "k-1", "imported list") is True
    with pytest.raises(InvalidInputError, match="contact_id: 'k-1' is not usable: it is suppressed"):
        stage.enroll(MAIL)
    assert (stage.counts()["contact_campaigns"], stage.counts()["campaign_plans"]) == (0, 0)


def test_a_suppressed_contact_is_left_out_of_a_bulk_enrolment_and_counted(stage: Stage) -> None:
    stage.sm.suppress("acme", "k-2", "imported list")
    plan = make_document(MAIL)
    rows = [
        {"tenant_id": "acme", "campaign_id": f"c-{number}", "contact_id": f"k-{number}", "plan": plan}
        for number in range(1, 4)
    ]
    summary = stage.sm.enroll_many(rows)
    assert (summary.enrolled, summary.existing, summary.suppressed) == (2, 0, 1)
    assert stage.sm.find("acme", "c-2") is None


def test_enrolling_a_suppressed_contact_changes_nothing_of_what_is_known(stage: Stage) -> None:
    stage.sm.suppress("acme", "k-1", "asked")
    with pytest.raises(InvalidInputError):
        stage.enroll(MAIL, contact={"address": "k@example.com"})
    assert query(stage.ts, "SELECT address FROM contacts") == [(None,)]


def test_an_existing_campaign_of_a_suppressed_contact_is_still_answered(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.sm.suppress("acme", "k-1", "asked")
    assert stage.enroll(WAIT).status == "stopped"


def test_unsuppressing_lets_a_contact_be_enrolled_again(stage: Stage) -> None:
    stage.enroll(MAIL)
    stage.sm.suppress("acme", "k-1", "asked")
    assert stage.sm.unsuppress("acme", "k-1", actor="ada") is True
    assert stage.sm.unsuppress("acme", "k-1") is False
    assert stage.campaign().status == "stopped", "what was stopped stays so"
    assert stage.enroll(MAIL, campaign="c-2", contact_id="k-1").status == "active"


def test_a_send_that_finds_the_suppression_stops_its_campaign(stage: Stage) -> None:
    stage.enroll(MAIL)
    execute(stage.ts, "UPDATE contacts SET suppressed_at = created_at, suppressed_reason = 'by hand'")
    stage.run()
    assert stage.mailed == []
    assert (stage.campaign().status, set(stage.states().values())) == ("stopped", {"canceled"})
    assert stage.history() == [("mail", "stop", "suppressed")]


def test_an_enrolment_at_the_moment_of_a_suppression_ends_in_either_way_without_a_mail(stage: Stage) -> None:
    """Whoever comes second sees the other."""
    stage.enroll(WAIT, campaign="c-0", contact_id="k-1")
    for number in range(1, 6):
        suppress_while_enrolling(stage, f"c-{number}")
        stage.sm.unsuppress("acme", "k-1")
    stage.run()
    assert stage.mailed == []


def suppress_while_enrolling(stage: Stage, campaign: str) -> None:
    barrier = threading.Barrier(2)
    refused: list[InvalidInputError] = []

    def enroll() -> None:
        barrier.wait()
        try:
            stage.enroll(MAIL, campaign=campaign, contact_id="k-1")
        except InvalidInputError as error:
            refused.append(error)

    thread = threading.Thread(target=enroll)
    thread.start()
    barrier.wait()
    stage.sm.suppress("acme", "k-1", "asked")
    thread.join(30)
    found = stage.sm.find("acme", campaign)
    assert (found is None) == bool(refused)
    assert found is None or found.status == "stopped"


def test_two_unsubscribes_of_one_contact_at_once_both_end(stage: Stage) -> None:
    for number in range(1, 9):
        stage.enroll(WAIT, campaign=f"c-{number}", contact_id="k-1")
    outcomes: list[str] = []

    def unsubscribe(campaign: str) -> None:
        outcomes.append(stage.event("unsubscribed", campaign=campaign).outcome)

    threads = [threading.Thread(target=unsubscribe, args=(f"c-{number}",)) for number in (1, 8, 4, 5)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(outcomes) == 4)
    assert sorted(outcomes) == ["ignored", "ignored", "ignored", "transitioned"]
    assert {stage.campaign(f"c-{number}").status for number in range(1, 9)} == {"stopped"}


# Erasing


def test_erasing_a_contact_removes_what_is_personal_and_keeps_the_counts(stage: Stage) -> None:
    stage.enroll(MAIL, contact={"address": "k@example.com", "timezone": "Europe/Berlin", "variables": {"name": "K"}})
    stage.run()
    stage.event("delivered", metadata={"ip": "192.0.2.1"})
    stage.sm.process_contact_event("acme", "k-1", "replied", {"text": "Hello from K"})
    execute(stage.ts, "UPDATE scheduled_actions SET last_error = 'k@example.com refused'")
    before = stage.counts()
    assert stage.sm.erase("acme", "k-1", actor="ada") is True
    assert query(stage.ts, "SELECT address, timezone, variables FROM contacts") == [(None, None, None)]
    assert query(stage.ts, "SELECT count(*) FROM campaign_events WHERE metadata IS NOT NULL") == [(0,)]
    assert query(stage.ts, "SELECT count(*) FROM scheduled_actions WHERE last_error IS NOT NULL") == [(0,)]
    assert stage.counts() == {**before, "campaign_transitions": before["campaign_transitions"] + 1}
    assert stage.campaign().status == "stopped"
    assert stage.history()[-1] == ("mail", "stop", "erased")
    assert query(stage.ts, "SELECT act, actor FROM operator_actions") == [("contact.erased", "ada")]


def test_erasing_touches_nobody_else(stage: Stage) -> None:
    for tenant, campaign in (("acme", "c-1"), ("acme", "c-2"), ("other", "c-1")):
        stage.enroll(MAIL, campaign=campaign, tenant=tenant, contact={"address": f"{campaign}@{tenant}.example"})
        stage.event("delivered", campaign=campaign, tenant=tenant, metadata={"ip": "192.0.2.1"})
    stage.sm.erase("acme", "k-1")
    assert sorted(row[0] for row in query(stage.ts, "SELECT address FROM contacts WHERE address IS NOT NULL")) == [
        "c-1@other.example",
        "c-2@acme.example",
    ]
    assert query(stage.ts, "SELECT count(*) FROM campaign_events WHERE metadata IS NOT NULL") == [(2,)]


def test_erasing_keeps_a_suppression_and_an_unknown_contact_is_said(stage: Stage) -> None:
    assert stage.sm.erase("acme", "k-1") is False
    stage.sm.suppress("acme", "k-1", "asked")
    assert stage.sm.erase("acme", "k-1") is True
    with pytest.raises(InvalidInputError):
        stage.enroll(MAIL)


def test_erasing_a_contact_known_by_its_events_alone_removes_what_they_said(stage: Stage) -> None:
    for tenant in ("acme", "other"):
        stage.sm.process_contact_event(tenant, "k-1", "replied", {"text": "Hello from K"})
    assert stage.sm.erase("acme", "k-1") is True
    assert query(stage.ts, "SELECT tenant_id FROM campaign_events WHERE metadata IS NOT NULL") == [("other",)]


@pytest.mark.parametrize("actor", ["", "a\x00b", "\ud800", "x" * 1001, 7, ["ada"]])
@pytest.mark.parametrize("call", ["suppress", "unsuppress", "erase"])
def test_an_actor_that_cant_be_kept_is_refused_and_nothing_is_written(stage: Stage, call: str, actor: Any) -> None:
    stage.enroll(WAIT, contact={"address": "k@example.com"})
    stage.sm.suppress("acme", "k-2", "asked")
    before = [stage.rows(table) for table in ("contacts", "operator_actions", "contact_campaigns")]
    contact, reason = ("k-2" if call == "unsuppress" else "k-1"), (["asked"] if call == "suppress" else [])
    with pytest.raises(InvalidInputError) as caught:
        getattr(stage.sm, call)("acme", contact, *reason, actor=actor)
    assert caught.value.field == "actor"
    assert before == [stage.rows(table) for table in ("contacts", "operator_actions", "contact_campaigns")]


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001, None, "a\x00b"])
def test_a_suppression_needs_a_reason(stage: Stage, reason: object) -> None:
    with pytest.raises(InvalidInputError, match="reason"):
        stage.sm.suppress("acme", "k-1", reason)  # type: ignore[arg-type]
    assert stage.counts()["contacts"] == 0


def test_a_suppression_in_the_callers_transaction_goes_with_it(stage: Stage) -> None:
    stage.enroll(WAIT)
    with stage.ts.database.engine.connect() as connection:
        assert stage.sm.suppress("acme", "k-1", "asked", connection) is True
        connection.rollback()
    assert (stage.campaign().status, suppressed(stage)) == ("active", [])
    assert stage.campaign().anchor_at == NOON
