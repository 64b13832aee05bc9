"""Events of a contact, told without naming a campaign."""

from datetime import timedelta

import pytest

from scheduler import InvalidInputError
from tests.support.scheduling import query
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)

WAIT = wait("a", on("replied", "stop"), on("no_reply", "stop", after="P1D"))
MAIL = send("mail", on("opened", "stop"), on("no_open", "stop", after="PT72H"))


def test_an_answer_reaches_all_unfinished_campaigns_of_the_contact(stage: Stage) -> None:
    stage.enroll(WAIT, campaign="c-1", contact_id="k-1")
    stage.enroll(MAIL, campaign="c-2", contact_id="k-1")
    stage.enroll(WAIT, campaign="c-3", contact_id="k-1")
    stage.sm.stop("acme", "c-3")
    stage.enroll(WAIT, campaign="c-4", contact_id="k-2")
    stage.enroll(WAIT, campaign="c-1", contact_id="k-1", tenant="other")
    results = stage.sm.process_contact_event("acme", "k-1", "reply")
    assert [(one.outcome, one.campaign and one.campaign.campaign_id) for one in results] == [
        ("transitioned", "c-1"),
        ("recorded", "c-2"),
    ]
    assert stage.campaign("c-4").status == stage.campaign("c-1", "other").status == "active"


def test_the_same_event_again_changes_nothing_not_even_a_campaign_enrolled_since(stage: Stage) -> None:
    stage.enroll(WAIT)
    first = stage.sm.process_contact_event("acme", "k-1", "replied", event_id="e-1")
    stage.enroll(WAIT, campaign="c-2", contact_id="k-1")
    again = stage.sm.process_contact_event("acme", "k-1", "replied", event_id="e-1")
    assert ([one.outcome for one in first], [one.outcome for one in again]) == (["transitioned"], ["duplicate"])
    assert stage.campaign("c-2").status == "active"


def test_without_an_id_it_counts_once_per_instant(stage: Stage) -> None:
    stage.enroll(wait("a", on("replied", "b")), WAIT | {"id": "b"})
    outcomes = [
        stage.sm.process_contact_event("acme", "k-1", "replied", occurred_at=at)[0].outcome for at in (NOON, NOON)
    ]
    assert outcomes == ["transitioned", "duplicate"]
    assert stage.node() == "b"


def test_a_contact_without_a_campaign_can_unsubscribe(stage: Stage) -> None:
    (result,) = stage.sm.process_contact_event("acme", "k-1", "unsubscribe")
    assert (result.outcome, result.campaign) == ("recorded", None)
    with pytest.raises(InvalidInputError, match="suppressed"):
        stage.enroll(WAIT)


def test_an_unsubscribe_of_the_contact_stops_each_campaign_once(stage: Stage) -> None:
    for campaign in ("c-1", "c-2"):
        stage.enroll(WAIT, campaign=campaign, contact_id="k-1")
    results = stage.sm.process_contact_event("acme", "k-1", "unsubscribed")
    assert [one.outcome for one in results] == ["transitioned", "transitioned"]
    assert [stage.history(campaign) for campaign in ("c-1", "c-2")] == [[("a", "stop", "unsubscribed")]] * 2


def test_what_was_said_is_kept_with_contact_and_campaign(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.sm.process_contact_event("acme", "k-1", "replied", {"text": "yes"}, event_id="e-1")
    rows = query(
        stage.ts, "SELECT campaign_id, contact_id, event_type, metadata FROM campaign_events ORDER BY event_id"
    )
    assert sorted(map(tuple, rows), key=str) == [
        ("c-1", None, "replied", '{"text": "yes"}'),
        (None, "k-1", "replied", '{"text": "yes"}'),
    ]


@pytest.mark.parametrize(
    ("contact", "event_type", "options", "field"),
    [
        ("", "replied", {}, "contact_id"),
        ("k-1", "no_open", {}, "event_type"),
        ("k-1", "Ünknown", {}, "event_type"),
        ("k-1", "replied", {"occurred_at": "yesterday"}, "occurred_at"),
        ("k-1", "replied", {"event_id": ""}, "event_id"),
        ("k-1", "replied", {"metadata": [1]}, "metadata"),
    ],
)
def test_bad_input_names_the_field_and_writes_nothing(
    stage: Stage, contact: str, event_type: str, options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        stage.sm.process_contact_event("acme", contact, event_type, **options)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert stage.counts()["campaign_events"] == 0
