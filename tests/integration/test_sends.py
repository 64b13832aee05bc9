"""Mails go out, fail, are tried again and are confirmed, and what that does to their campaign."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler import InvalidInputError, PermanentSendError, RetryLater, SendRequest, SendResult
from tests.integration.conftest import OpenScheduler
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SEND_KEY = "acme:c-1:mail:1:send:sent"

MAIL = send("mail", on("opened", "next"), on("no_open", "stop", after="PT2H"))
NEXT = wait("next", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
WITH_WAY_OUT = send("mail", on("send_failed", "next"), on("no_open", "stop", after="PT2H"))


@pytest.fixture
def external(database_url: str, open_scheduler: OpenScheduler) -> Iterator[Stage]:
    """A stage on which the application sends by itself."""
    stage = Stage(open_scheduler, database_url)
    stage.ts = stage.another(send_handler="external")
    stage.sm = stage.ts.campaigns
    yield stage
    assert stage.mailed == []


def fails_with(stage: Stage, *errors: Exception | Any) -> None:
    """Let the mail server answer these, one after the other, before it works."""
    answers = iter(errors)

    def handler(request: SendRequest) -> SendResult | None:
        result = stage.mail(request)
        answer = next(answers, result)
        if isinstance(answer, Exception):
            raise answer
        return answer

    stage.handler = handler


def test_a_sent_mail_is_done_with_its_message_id(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.clock.advance("PT1H")
    assert stage.ts.run_due() == 1
    action = stage.action(1, "sent")
    assert (action.status, action.outcome, action.message_id) == ("completed", "sent", "m-c-1-1")
    assert (action.sent_at, action.finished_at) == (NOON + HOUR, NOON + HOUR)
    assert stage.campaign().anchor_at == NOON + HOUR
    assert stage.action(1, "no_open").deadline == NOON + 3 * HOUR


@pytest.mark.parametrize(
    ("sent_at", "anchor"),
    [
        (NOON - MINUTE, NOON - MINUTE),
        (NOON + MINUTE, NOON + MINUTE),
        (NOON + 9 * HOUR, NOON + HOUR),
        (datetime.fromisoformat("2026-03-02T22:00:00+09:00"), NOON + HOUR),
    ],
)
def test_a_handler_may_say_when_the_mail_went_out(stage: Stage, sent_at: datetime, anchor: datetime) -> None:
    fails_with(stage, SendResult(sent_at=sent_at))
    stage.enroll(MAIL, NEXT)
    stage.run("PT1H")
    assert (stage.campaign().anchor_at, stage.action(1, "sent").sent_at) == (anchor, anchor)
    assert stage.action(1, "no_open").run_at == anchor + 2 * HOUR


def test_a_handler_may_answer_nothing(stage: Stage) -> None:
    fails_with(stage, None)
    stage.enroll(MAIL, NEXT)
    stage.run()
    action = stage.action(1, "sent")
    assert (action.outcome, action.message_id, action.sent_at) == ("sent", None, NOON)


def test_a_failed_attempt_is_followed_by_another(stage: Stage) -> None:
    fails_with(stage, OSError("connection refused"))
    stage.enroll(MAIL, NEXT)
    assert stage.run() == 0
    action = stage.action(1, "sent")
    assert (action.status, action.attempts, action.last_error) == ("pending", 1, "OSError: connection refused")
    assert NOON < action.run_at <= NOON + timedelta(seconds=2)
    assert stage.run("PT2S") == 1
    assert [request.attempt for request in stage.mailed] == [1, 2]
    assert len({request.dedupe_key for request in stage.mailed}) == 1


def test_a_handler_says_when_to_try_again(stage: Stage) -> None:
    fails_with(stage, RetryLater(timedelta(minutes=7)))
    stage.enroll(MAIL, NEXT)
    stage.run()
    assert stage.action(1, "sent").run_at == NOON + 7 * MINUTE
    stage.run("PT7M")
    assert stage.states()[1, "sent"] == "sent"


def test_a_timeout_waits_for_a_mail_that_is_tried_again(stage: Stage) -> None:
    fails_with(stage, RetryLater(timedelta(hours=5)))
    stage.enroll(MAIL, NEXT)
    stage.run()
    stage.run("PT3H")
    action = stage.action(1, "no_open")
    assert (action.status, action.run_at, action.attempts) == ("pending", NOON + 7 * HOUR, 0)
    stage.run("PT2H")
    assert stage.action(1, "no_open").run_at == NOON + 7 * HOUR
    assert stage.campaign().status == "active"


@pytest.mark.parametrize("error", [OSError("away"), RetryLater(timedelta(minutes=10))])
def test_when_no_attempt_is_left_the_campaign_is_in_error(stage: Stage, error: Exception) -> None:
    fails_with(stage, *[error] * 9)
    stage.enroll(MAIL, NEXT)
    for _ in range(9):
        stage.run("PT10M")
    assert len(stage.mailed) == 5
    action = stage.action(1, "sent")
    assert (action.status, action.outcome, action.attempts) == ("error", "failed", 5)
    campaign = stage.campaign()
    assert (campaign.status, campaign.current_node_id) == ("error", "mail")
    assert stage.states()[1, "no_open"] == "canceled"


def test_a_permanent_failure_is_not_tried_again(stage: Stage) -> None:
    fails_with(stage, PermanentSendError("no such mailbox"))
    stage.enroll(MAIL, NEXT)
    assert stage.run() == 1
    action = stage.action(1, "sent")
    assert (action.status, action.last_error) == ("error", "PermanentSendError: no such mailbox")
    assert stage.campaign().status == "error"
    assert stage.run("P1D") == 0


def test_a_failed_send_takes_the_nodes_way_out(stage: Stage) -> None:
    fails_with(stage, PermanentSendError("no such mailbox"))
    stage.enroll(WITH_WAY_OUT, NEXT)
    stage.run()
    assert stage.history() == [("mail", "next", "send_failed")]
    assert stage.states() == {(1, "sent"): "error", (1, "no_open"): "canceled", (2, "no_click"): "pending"}
    assert stage.sm.history("acme", "c-1")[1].dedupe_key == SEND_KEY


def test_a_missing_variable_fails_for_good_before_anything_is_sent(stage: Stage) -> None:
    stage.enroll({**MAIL, "body": "Dear {{last_name}}"}, NEXT, contact={"variables": {"first_name": "Ada"}})
    stage.run()
    assert stage.mailed == []
    action = stage.action(1, "sent")
    assert action.status == "error"
    assert "'last_name'" in (action.last_error or "")
    assert stage.campaign().status == "error"


@pytest.mark.parametrize(
    "answer",
    [
        "sent",
        SendResult(message_id=""),
        SendResult(message_id="x" * 129),
        SendResult(message_id="a\x00b"),
        SendResult(message_id=7),  # type: ignore[arg-type]
        SendResult(sent_at=NOON.replace(tzinfo=None)),
        SendResult(sent_at="now"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_an_unusable_answer_is_no_reason_to_send_again(stage: Stage, answer: Any) -> None:
    fails_with(stage, answer)
    stage.enroll(MAIL, NEXT)
    assert stage.run() == 1
    action = stage.action(1, "sent")
    assert (action.status, action.attempts) == ("error", 1)
    assert "answer" in (action.last_error or "")
    stage.run("P1D")
    assert len(stage.mailed) == 1


def test_a_wrong_delay_is_an_ordinary_failure(stage: Stage) -> None:
    def handler(request: SendRequest) -> SendResult:
        stage.mail(request)
        raise RetryLater("PT5M")  # type: ignore[arg-type]

    stage.handler = handler
    stage.enroll(MAIL, NEXT)
    stage.run()
    action = stage.action(1, "sent")
    assert (action.status, action.attempts) == ("pending", 1)
    assert "timedelta" in (action.last_error or "")


def test_one_bad_mail_holds_up_no_other(stage: Stage) -> None:
    def handler(request: SendRequest) -> SendResult:
        if request.campaign_id == "c-2":
            raise OSError("away")
        return stage.mail(request)

    stage.handler = handler
    for number in range(1, 4):
        stage.enroll(MAIL, NEXT, campaign=f"c-{number}")
    assert stage.run() == 2
    assert [request.campaign_id for request in stage.mailed] == ["c-1", "c-3"]


def test_a_mail_whose_visit_is_left_meanwhile_keeps_its_message_id_and_does_nothing_else(stage: Stage) -> None:
    def handler(request: SendRequest) -> SendResult:
        stage.event("opened")
        return stage.mail(request)

    stage.handler = handler
    stage.enroll(MAIL, NEXT)
    stage.run("PT1H")
    action = stage.action(1, "sent")
    assert (action.status, action.outcome) == ("canceled", "visit left")
    assert (action.message_id, action.sent_at) == ("m-c-1-1", NOON + HOUR)
    assert (stage.node(), stage.campaign().anchor_at) == ("next", NOON + HOUR)
    assert stage.event("click", campaign=None, message_id="m-c-1-1").outcome == "transitioned"


@pytest.mark.parametrize("end", ["stop", "unsubscribed"])
def test_a_finished_campaign_sends_nothing(stage: Stage, end: str) -> None:
    stage.enroll(MAIL, NEXT)
    if end == "stop":
        stage.sm.stop("acme", "c-1")
    else:
        stage.event(end)
    stage.run()
    assert stage.mailed == []


# The application sends by itself


def test_a_confirmed_send_is_done_and_moves_its_timeouts(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.clock.advance("PT3H")
    assert external.ts.run_due() == 0
    assert external.sm.confirm_send(SEND_KEY, NOON + HOUR, message_id="m-1") is True
    action = external.action(1, "sent")
    assert (action.status, action.outcome, action.message_id) == ("completed", "sent", "m-1")
    assert (action.sent_at, action.finished_at) == (NOON + HOUR, NOON + 3 * HOUR)
    assert (external.campaign().anchor_at, external.action(1, "no_open").run_at) == (NOON + HOUR, NOON + 3 * HOUR)
    assert external.event("open", campaign=None, message_id="m-1").outcome == "transitioned"


def test_a_send_confirmed_again_changes_nothing(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.sm.confirm_send(SEND_KEY, NOON, message_id="m-1")
    before = [external.rows(table) for table in ("contact_campaigns", "scheduled_actions")]
    external.clock.advance("PT1H")
    assert external.sm.confirm_send(SEND_KEY, NOON + HOUR, message_id="m-2") is True
    assert [external.rows(table) for table in ("contact_campaigns", "scheduled_actions")] == before


def test_a_send_confirmed_before_it_is_due_is_not_sent(stage: Stage) -> None:
    stage.enroll({**MAIL, "schedule": {"delay": "P1D"}}, NEXT)
    assert stage.sm.confirm_send(SEND_KEY, NOON)
    assert stage.action(1, "no_open").deadline == NOON + 2 * HOUR
    stage.run("P1D")
    assert stage.mailed == []


def test_an_unknown_send_cant_be_confirmed(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    for job_id in ("acme:c-9:mail:1:send:sent", "other:c-1:mail:1:send:sent", "acme:c-1:mail:2:send:sent"):
        assert external.sm.confirm_send(job_id, NOON) is False
    assert external.states()[1, "sent"] == "pending"


def test_a_timeout_cant_be_confirmed(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    with pytest.raises(InvalidInputError, match="job id of a send"):
        external.sm.confirm_send("acme:c-1:mail:1:timeout:no_open", NOON)


def test_a_confirmation_after_the_cancellation_keeps_message_id_and_sent_time(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.event("opened")
    before = external.campaign()
    external.clock.advance("PT1H")
    assert external.sm.confirm_send(SEND_KEY, NOON + HOUR, message_id="m-1") is True
    action = external.action(1, "sent")
    assert (action.status, action.message_id, action.sent_at) == ("canceled", "m-1", NOON + HOUR)
    after = external.campaign()
    assert (after.node_visit, after.anchor_at, after.status) == (before.node_visit, before.anchor_at, "active")
    assert external.action(2, "no_click").deadline == NOON + 2 * HOUR


def test_an_event_whose_guard_holds_by_the_confirmed_time_is_applied_with_the_confirmation(external: Stage) -> None:
    external.enroll(send("mail", on("opened", "next", within="PT1H"), on("no_open", "stop", after="P1D")), NEXT)
    external.clock.advance("PT3H")
    assert external.event("opened").outcome == "recorded"
    external.sm.confirm_send(SEND_KEY, NOON + 2 * HOUR)
    assert external.history() == [("mail", "next", "opened")]
    assert external.states() == {(1, "sent"): "sent", (1, "no_open"): "canceled", (2, "no_click"): "pending"}


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_a_handler_raised_is_logged_without_what_is_personal(
    database_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture, attempts: int
) -> None:
    stage = Stage(open_scheduler, database_url, max_attempts=attempts)

    def handler(request: SendRequest) -> SendResult:
        raise ValueError(
            f"{request.address}: {dict(request.variables)} refused; password=hunter22 at reply@example.org"
        )

    stage.handler = handler
    variables = {"first_name": "Adelaide", "orders": [{"number": 190_283}, "a lawn mower"]}
    stage.enroll(MAIL, NEXT, contact={"address": "ada@example.com", "variables": variables})
    stage.run()

    (line,) = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert ("action.failed" in line) == (attempts == 1)
    for private in ("ada@", "Adelaide", "190283", "lawn mower", "hunter22", "reply@"):
        assert private not in line
    assert "ada@example.com" in (stage.action(1, "sent").last_error or "")
