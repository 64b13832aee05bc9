"""A running campaign goes on at a node of another plan: what stays, what is planned again, what leads on at once."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler.domain import machine
from scheduler.domain.campaign import CampaignStatus
from scheduler.domain.decision import Decision
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.migration import NodeTargets, at_once
from scheduler.domain.plan import CampaignPlan
from tests.support.walk import NOON, Walk, make_document, on, send, wait

HOUR = timedelta(hours=1)
NO_GRACE = timedelta(0)

MAIL = send("mail", on("opened", "read"), on("no_open", "again", after="PT72H"))
READ = wait("read", on("clicked", "stop"), on("no_click", "again", after="PT24H"))
AGAIN = send("again", on("opened", "stop"), on("no_open", "stop", after="PT72H"))
OLD = (MAIL, READ, AGAIN)


def plan_of(*nodes: dict[str, Any], **members: Any) -> CampaignPlan:
    return CampaignPlan.parse(make_document(*nodes, **members))


SOONER = plan_of(
    send("mail", on("opened", "read"), on("no_open", "again", after="PT24H")),
    wait("read", on("replied", "stop"), on("no_reply", "again", after="PT48H")),
    AGAIN,
)


def planned(decision: Decision) -> dict[tuple[int, str, str], datetime]:
    return {(one.node_visit, one.node_id, one.event_type): one.deadline for one in decision.actions}


def steps(decision: Decision) -> list[tuple[int, str | None, str, str]]:
    return [(one.node_visit, one.from_node_id, one.to_node_id, one.trigger) for one in decision.transitions]


def sent_walk() -> Walk:
    walk = Walk(*OLD)
    walk.confirm()
    return walk.advance("PT30H")


def test_a_mail_that_went_out_is_not_planned_again_and_its_timeouts_count_from_when_it_did() -> None:
    walk = sent_walk()

    decision = machine.migrate(SOONER, walk.campaign, "mail", walk.now)

    assert steps(decision) == [(1, "mail", "mail", "migrated")]
    assert planned(decision) == {(2, "mail", "no_open"): NOON + 24 * HOUR}
    moved = decision.campaign
    assert (moved.plan_hash, moved.node_visit, moved.anchor_at) == (SOONER.hash, 2, NOON)
    assert (moved.node_entered_at, moved.updated_at) == (NOON, walk.now)
    assert (moved.mail_visit, moved.mail_node_id, moved.sent_visit) == (1, "mail", 1)


def test_an_unsent_mail_is_planned_for_the_same_instant_as_the_mail_of_the_new_visit() -> None:
    walk = Walk(send("late", on("no_open", "stop", after="PT72H"), delay="PT48H"))
    walk.advance("PT1H")
    other = plan_of(send("later", on("no_open", "stop", after="PT24H"), delay="PT99H"))

    decision = machine.migrate(other, walk.campaign, "later", walk.now, NOON + 48 * HOUR)

    assert planned(decision) == {
        (2, "later", "sent"): NOON + 48 * HOUR,
        (2, "later", "no_open"): NOON + 72 * HOUR,
    }
    assert (decision.campaign.mail_visit, decision.campaign.mail_node_id) == (2, "later")
    assert decision.campaign.awaits_mail


def test_a_mail_that_waits_for_its_retry_keeps_its_instant() -> None:
    walk = Walk(*OLD)
    walk.advance("PT1H")

    decision = machine.migrate(SOONER, walk.campaign, "mail", walk.now, NOON + 2 * HOUR)

    assert [(one.deadline, one.run_at) for one in decision.actions] == [
        (NOON, NOON + 2 * HOUR),
        (NOON + 24 * HOUR, None),
    ]


def test_a_mail_whose_send_was_canceled_is_not_planned_again() -> None:
    walk = Walk(*OLD)

    decision = machine.migrate(SOONER, walk.campaign, "mail", walk.now, None)

    assert planned(decision) == {(2, "mail", "no_open"): NOON + 24 * HOUR}
    assert not decision.campaign.awaits_mail


def test_an_event_recorded_for_the_mail_leads_on_from_the_new_node() -> None:
    walk = sent_walk()
    walk.real("replied", NOON + HOUR)
    other = plan_of(
        send("mail", on("replied", "thanks"), on("no_open", "stop", after="PT72H")),
        send("thanks", on("no_open", "stop", after="PT72H")),
    )

    decision = machine.migrate(other, walk.campaign, "mail", walk.now)

    assert steps(decision) == [(1, "mail", "mail", "migrated"), (2, "mail", "thanks", "replied")]
    assert planned(decision) == {
        (3, "thanks", "sent"): walk.now,
        (3, "thanks", "no_open"): walk.now + 72 * HOUR,
    }
    assert at_once(other, decision, walk.now, NO_GRACE) == (0, 1)


def test_events_of_the_mail_still_count_after_the_move() -> None:
    walk = sent_walk()
    walk.plan, walk.campaign = SOONER, machine.migrate(SOONER, walk.campaign, "mail", walk.now).campaign

    walk.real("opened", mail=1)

    assert (walk.node, walk.campaign.node_visit) == ("read", 3)


def test_an_unsent_mail_confirmed_after_the_move_sets_anchor_and_timeouts() -> None:
    walk = Walk(*OLD)
    decision = machine.migrate(SOONER, walk.campaign, "mail", walk.now, NOON)
    walk.plan, walk.campaign = SOONER, decision.campaign
    walk.pending = {(one.node_visit, one.action_type, one.event_type): one for one in decision.actions}
    walk.advance("PT1H")

    walk.confirm()

    assert walk.campaign.anchor_at == NOON + HOUR
    assert walk.timers == {"no_open": NOON + 25 * HOUR}


def test_a_move_to_stop_completes_the_campaign() -> None:
    walk = sent_walk()

    decision = machine.migrate(SOONER, walk.campaign, "stop", walk.now)

    assert (decision.campaign.status, decision.campaign.completed_at) == ("completed", walk.now)
    assert (decision.ends, decision.actions) == (True, ())


def test_a_paused_campaign_stays_paused_and_so_are_its_new_actions() -> None:
    walk = sent_walk().pause()

    decision = machine.migrate(SOONER, walk.campaign, "mail", walk.now)

    assert decision.campaign.status == CampaignStatus.PAUSED
    assert {one.status for one in decision.actions} == {"paused"}
    assert at_once(SOONER, decision, walk.now, NO_GRACE) == (0, 0)


def test_what_goes_off_at_once_is_the_timeout_that_leads_on_and_the_mail_it_leads_to() -> None:
    walk = sent_walk()
    decision = machine.migrate(SOONER, walk.campaign, "mail", walk.now)

    assert at_once(SOONER, decision, walk.now, NO_GRACE) == (1, 1)
    assert at_once(SOONER, decision, walk.now, timedelta(days=1)) == (0, 0)
    assert at_once(SOONER, decision, NOON + 23 * HOUR, NO_GRACE) == (0, 0)
    held = replace(decision, campaign=replace(decision.campaign, is_held=True))
    assert at_once(SOONER, held, walk.now, NO_GRACE) == (0, 0)


def test_a_timeout_that_an_event_answered_sets_nothing_off() -> None:
    walk = sent_walk()
    walk.real("replied", NOON + HOUR)
    other = plan_of(send("mail", on("no_reply", "again", after="PT24H"), on("opened", "again")), AGAIN)

    decision = machine.migrate(other, walk.campaign, "mail", walk.now)

    assert planned(decision) == {(2, "mail", "no_reply"): NOON + 24 * HOUR}
    assert at_once(other, decision, walk.now, NO_GRACE) == (0, 0)


def test_a_due_mail_goes_out_at_once_and_its_overdue_timeout_waits_for_it() -> None:
    walk = Walk(*OLD).advance("PT30H")

    decision = machine.migrate(SOONER, walk.campaign, "mail", walk.now, NOON)

    assert at_once(SOONER, decision, walk.now, NO_GRACE) == (0, 1)


OLD_PLAN = plan_of(*OLD)


def test_a_node_goes_on_at_the_mapped_one_else_at_its_own_name() -> None:
    targets = NodeTargets(OLD_PLAN, SOONER, {"mail": "again", "read": "stop"})

    assert [targets.find(node) for node in ("mail", "read", "again", "gone")] == ["again", "stop", "again", None]


def test_a_node_whose_namesake_does_something_else_leads_nowhere() -> None:
    other = plan_of(wait("mail", on("opened", "stop"), on("no_open", "stop", after="PT1H")))
    targets = NodeTargets(OLD_PLAN, other)

    assert targets.find("mail") is None
    with pytest.raises(InvalidInputError, match=r"'mail'.*in the new plan it is a wait: map it to stop$"):
        targets.get("mail")
    with pytest.raises(InvalidInputError, match=r"'read'.*no such node: map it to a wait \(mail\) or stop$"):
        targets.get("read")


@pytest.mark.parametrize(
    ("node_map", "message"),
    [
        ({"gone": "mail"}, "'gone'.*the old plan has no such node, but mail, read, again"),
        ({"mail": "gone"}, "'gone'.*the new plan has no such node, but mail, read, again"),
        ({"mail": "read"}, "'mail=read'.*mail is a send and read a wait: map it to a send"),
        ({"read": "again"}, "'read=again'.*read is a wait and again a send: map it to a wait"),
        ({1: "mail"}, "1 is not usable"),
        ({"mail": None}, "None is not usable"),
        (["mail"], "give a mapping"),
    ],
)
def test_a_map_that_names_what_there_isnt_or_another_kind_is_refused(node_map: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        NodeTargets(OLD_PLAN, SOONER, node_map)
