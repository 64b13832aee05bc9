"""Opens and clicks of mail gateways: recorded, and not counted unless the plan says so."""

from typing import Any

import pytest

from tests.support.scheduling import query
from tests.support.stage import Stage
from tests.support.walk import on, send, wait

MAIL = send("mail", on("opened", "b"), on("clicked", "b"), on("no_open", "stop", after="PT72H"))
QUIET = send("mail", on("no_open", "b", after="PT72H"))
NEXT = wait("b", on("replied", "stop"), on("no_reply", "stop", after="P1D"))


@pytest.mark.parametrize("metadata", [{"machine": True}, {"sg_machine_open": True}, {"sg_machine_open": "true"}])
def test_a_machine_open_is_recorded_and_does_nothing(stage: Stage, metadata: dict[str, Any]) -> None:
    stage.enroll(MAIL, NEXT)
    stage.run()
    stage.run("PT1H")
    assert stage.event("opened", metadata=metadata).outcome == "recorded"
    assert (stage.node(), stage.action(1, "no_open").status) == ("mail", "pending")
    assert query(stage.ts, "SELECT outcome FROM campaign_events") == [("recorded",)]
    stage.run("PT71H")
    assert stage.history() == [("mail", "stop", "no_open")]


def test_a_machine_click_counts_no_more_than_an_open(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.run()
    stage.run("PT1H")
    assert stage.event("clicked", metadata={"machine": True}).outcome == "recorded"
    assert stage.node() == "mail"


def test_a_machine_open_doesnt_cancel_the_counter_timeout(stage: Stage) -> None:
    stage.enroll(QUIET, NEXT)
    stage.run()
    stage.run("PT1H")
    stage.event("opened", metadata={"machine": True})
    stage.run("PT71H")
    assert stage.node() == "b"


def test_the_contacts_own_open_still_counts_after_a_machines(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.run()
    stage.run("PT1H")
    stage.event("opened", metadata={"machine": True})
    stage.clock.advance("PT1H")
    assert stage.event("opened", metadata={"machine": False}).outcome == "transitioned"


def test_a_plan_may_count_machine_opens(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT, machineOpens="count")
    stage.run()
    stage.run("PT1H")
    assert stage.event("opened", metadata={"machine": True}).outcome == "transitioned"


def test_a_machine_is_no_reason_to_ignore_an_unsubscribe(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    assert stage.event("unsubscribed", metadata={"machine": True}).outcome == "transitioned"
    assert stage.campaign().status == "stopped"
