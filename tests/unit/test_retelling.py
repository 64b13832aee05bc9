from dataclasses import fields
from datetime import timedelta
from typing import Any

from scheduler.domain import machine
from scheduler.domain.action import ScheduledAction
from scheduler.domain.decision import Decision
from scheduler.domain.explaining.explanation import CampaignRecord
from scheduler.domain.explaining.retelling import retell
from scheduler.domain.plan import CampaignPlan
from tests.support.walk import NOON, make_campaign, make_document, on, send, wait

HOUR = timedelta(hours=1)
OLD = CampaignPlan.parse(make_document(wait("a", on("replied", "stop"), on("no_reply", "stop", after="PT72H"))))
NEW = CampaignPlan.parse(
    make_document(
        send("mail", on("opened", "b"), on("no_reply", "stop", after="PT72H")),
        wait("b", on("replied", "stop"), on("no_reply", "stop", after="PT24H")),
    )
)


def make_action(decision: Decision, **overrides: Any) -> ScheduledAction:
    """The first action of a decision as it is stored."""
    planned, campaign = decision.actions[0], decision.campaign
    values: dict[str, Any] = {
        **dict.fromkeys((field.name for field in fields(ScheduledAction)), None),
        "tenant_id": campaign.tenant_id,
        "dedupe_key": f"{planned.node_id}:{planned.node_visit}",
        "campaign_id": campaign.campaign_id,
        "node_id": planned.node_id,
        "node_visit": planned.node_visit,
        "action_type": planned.action_type,
        "event_type": planned.event_type,
        "deadline": planned.deadline,
        "run_at": planned.deadline,
        "status": planned.status,
        "attempts": 0,
        "created_at": NOON,
    }
    return ScheduledAction(**{**values, **overrides})


def test_a_campaign_moved_to_another_plan_keeps_its_anchor_in_words() -> None:
    enrolled = machine.start(OLD, make_campaign(OLD), NOON, NOON)
    moved = machine.migrate(NEW, enrolled.campaign, "b", NOON + HOUR)
    old = make_action(enrolled, status="canceled", outcome="visit left", finished_at=NOON + HOUR)
    record = CampaignRecord(
        campaign=moved.campaign,
        plan=NEW,
        now=NOON + HOUR,
        transitions=[*enrolled.transitions, *moved.transitions],
        actions=[old, make_action(moved)],
        events=[],
        acts=[],
        pauses=[],
        suppression=None,
    )

    assert [one.text for one in retell(record)] == [
        "contact k-1 enrolled at a",
        "timeout no_reply of a (visit 1) scheduled for 2026-03-05 12:00",
        "moved by hand from a (visit 1) to b of another plan, with its anchor and mail",
        "timeout no_reply of a (visit 1) was canceled: its visit was left, migrated led on to b",
        "timeout no_reply of b (visit 2) scheduled for 2026-03-03 12:00 (24 h after the anchor, 2026-03-02 12:00)",
    ]


def test_things_of_one_instant_are_told_from_cause_to_effect() -> None:
    enrolled = machine.start(NEW, make_campaign(NEW), NOON, NOON)
    stopped = machine.stop(enrolled.campaign, machine.STOPPED, NOON, NOON)
    record = CampaignRecord(
        campaign=stopped.campaign,
        plan=None,
        now=NOON,
        transitions=[*enrolled.transitions, *stopped.transitions],
        actions=[make_action(enrolled, status="canceled", outcome="visit left", finished_at=NOON)],
        events=[],
        acts=[],
        pauses=[],
        suppression=None,
    )

    assert [one.kind for one in retell(record)] == ["enrolled", "scheduled", "moved", "canceled"]
