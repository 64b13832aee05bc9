"""Due timeouts of one campaign that are claimed together behave as if fired one after the other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler import TimeoutJob
from tests.support.stage import Stage
from tests.support.walk import NOON, on, wait

FIRST = wait("a", on("opened", "b"), on("no_open", "b", after="PT1H"))
SECOND = wait("b", on("clicked", "stop"), on("no_click", "stop", after="PT9H"))


@pytest.mark.parametrize(
    ("node_id", "event_type", "outcome", "steps"),
    [("b", "no_click", "transitioned", 2), ("b", "no_reply", "no_transition", 1), ("a", "no_open", "stale", 1)],
)
def test_a_timeout_for_the_visit_that_another_one_leads_to_fires_after_it(
    stage: Stage, node_id: str, event_type: str, outcome: str, steps: int
) -> None:
    stage.enroll(FIRST, SECOND)
    stage.ts.schedule(
        TimeoutJob(
            tenant_id="acme",
            campaign_id="c-1",
            contact_id="k-1",
            node_id=node_id,
            event_type=event_type,
            scheduled_at=NOON + timedelta(hours=2),
            node_visit=2,
        )
    )
    assert stage.run("PT3H") == 2
    assert len(stage.history()) == steps
    (ahead,) = [one for one in stage.actions() if one.deadline == NOON + timedelta(hours=2)]
    assert (ahead.status, ahead.outcome, ahead.attempts) == ("completed", outcome, 0)


def test_a_timeout_that_came_to_nothing_before_another_fired_by_hand_says_why(stage: Stage) -> None:
    stage.enroll(
        wait("a", on("opened", "b"), on("no_open", "stop", after="PT9H")),
        wait("b", on("no_reply", "a", after="PT1H"), on("no_click", "stop", after="PT2H")),
    )
    stage.event("replied")
    stage.event("opened")
    stage.clock.advance("PT3H")
    assert stage.event("no_click").outcome == "transitioned"
    assert stage.history() == [("a", "b", "opened"), ("b", "stop", "no_click")]
    assert stage.states() == {
        (1, "no_open"): "canceled",
        (2, "no_reply"): "event_happened",
        (2, "no_click"): "transitioned",
    }
