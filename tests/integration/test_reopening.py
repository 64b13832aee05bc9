"""A send that failed ended its campaign; tried again, it takes the campaign with it, and what came meanwhile counts."""

from datetime import timedelta
from functools import partial

import pytest

from scheduler import PermanentSendError, SendRequest, SendResult
from scheduler.domain.bulk import BulkFilter, BulkPreview, BulkProgress, Verb
from scheduler.service.bulk import BulkChanges
from scheduler.service.reopening import Reopening
from tests.integration.test_races import at_once
from tests.support.scheduling import query
from tests.support.stage import Stage
from tests.support.walk import on, send, wait

HELLO = send("hello", on("no_open", "reminder", after="PT72H"), on("opened", "later"))
REMINDER = send("reminder", on("no_open", "stop", after="PT72H"), on("opened", "later"), on("replied", "later"))
LATER = wait("later", on("replied", "stop"), on("no_replied", "stop", after="P7D"))
PLAN = (HELLO, REMINDER, LATER)
HELLO_SEND = "acme:c-1:hello:1:send:sent"
REMINDER_SEND = "acme:c-1:reminder:2:send:sent"


def refuse(_request: SendRequest) -> SendResult:
    raise PermanentSendError("the server is misconfigured")


def fail_the_first(stage: Stage, campaign: str = "c-1") -> None:
    stage.handler = refuse
    stage.enroll(*PLAN, campaign=campaign)
    stage.run()
    assert stage.campaign(campaign).status == "error"
    stage.handler = stage.mail


def fail_the_reminder(stage: Stage, campaign: str = "c-1") -> None:
    stage.enroll(*PLAN, campaign=campaign)
    stage.run()
    stage.handler = refuse
    stage.run("PT73H")
    stage.run()
    assert stage.campaign(campaign).status == "error"
    stage.handler = stage.mail


def test_the_campaign_goes_on_as_if_the_mail_had_been_late(stage: Stage) -> None:
    fail_the_first(stage)
    stage.clock.advance("P1D")

    assert stage.ts.retry(HELLO_SEND)

    campaign = stage.campaign()
    assert (campaign.status, campaign.node_visit, campaign.completed_at) == ("active", 1, None)
    assert stage.states() == {(1, "sent"): "pending", (1, "no_open"): "pending"}
    stage.run()
    assert [one.node_id for one in stage.mailed] == ["hello"]
    assert stage.action(1, "no_open").deadline == stage.clock.now() + timedelta(hours=72)
    stage.run("PT73H")
    stage.run()
    assert [one.node_id for one in stage.mailed] == ["hello", "reminder"]


def test_a_timeout_that_is_due_before_its_mail_waits_for_it(stage: Stage) -> None:
    """The campaign was in error for longer than its timeout would have waited."""
    fail_the_first(stage)
    stage.clock.advance("P30D")
    assert stage.ts.retry(HELLO_SEND)
    stage.ts.apscheduler.pause_job(HELLO_SEND)

    stage.run()

    assert stage.states() == {(1, "sent"): "paused", (1, "no_open"): "pending"}
    assert stage.node() == "hello"


def test_an_answer_that_came_meanwhile_leads_on_and_no_mail_goes_out(stage: Stage) -> None:
    fail_the_reminder(stage)
    stage.event("replied", event_id="answer")
    assert stage.node() == "reminder"

    assert stage.ts.retry(REMINDER_SEND)
    stage.run()

    assert [one.node_id for one in stage.mailed] == ["hello"]
    assert stage.history()[-1] == ("reminder", "later", "replied")
    assert stage.states()[2, "sent"] == "canceled"
    assert stage.event("replied", event_id="answer").outcome == "duplicate"


def test_so_does_an_answer_told_of_the_contact(stage: Stage) -> None:
    fail_the_reminder(stage)
    stage.sm.process_contact_event("acme", "k-1", "replied", event_id="answer")

    assert stage.ts.retry(REMINDER_SEND)
    stage.run()

    assert (stage.node(), len(stage.mailed)) == ("later", 1)


def test_an_open_of_the_mail_before_isnt_taken_for_one_of_the_mail_that_failed(stage: Stage) -> None:
    fail_the_reminder(stage)
    stage.event("opened", campaign=None, message_id="m-c-1-1", event_id="by mail")
    stage.event("opened", event_id="by campaign")

    assert stage.ts.retry(REMINDER_SEND)
    stage.run()

    assert [one.node_id for one in stage.mailed] == ["hello", "reminder"]
    assert stage.node() == "reminder"


def test_a_message_id_that_no_mail_has_is_decided_like_any_other(stage: Stage) -> None:
    fail_the_reminder(stage)
    stage.event("replied", message_id="<unknown@example.org>", event_id="answer")

    assert stage.ts.retry(REMINDER_SEND)

    assert stage.node() == "later"


@pytest.mark.parametrize("of_contact", [False, True])
def test_who_unsubscribed_meanwhile_gets_nothing(stage: Stage, *, of_contact: bool) -> None:
    fail_the_reminder(stage)
    if of_contact:
        stage.sm.process_contact_event("acme", "k-1", "unsubscribed")
    else:
        stage.event("unsubscribed")

    assert stage.ts.retry(REMINDER_SEND)
    stage.run()

    assert (stage.campaign().status, len(stage.mailed)) == ("stopped", 1)


def test_what_it_was_told_before_it_failed_isnt_told_again(stage: Stage) -> None:
    """Of an earlier life, too: it was ended in error, and began again."""
    fail_the_reminder(stage)
    stage.event("replied", event_id="of the life before")
    stage.clock.advance("PT1H")
    stage.handler = refuse
    stage.enroll(*PLAN, restart=True)
    stage.run()
    stage.handler = stage.mail
    before = stage.rows("campaign_events")

    assert stage.ts.retry("acme:c-1:hello:3:send:sent")
    stage.run()

    assert stage.rows("campaign_events") == before
    assert (stage.node(), stage.mailed[-1].node_id) == ("hello", "hello")


def test_what_somebody_canceled_before_stays_canceled(stage: Stage) -> None:
    stage.handler = refuse
    stage.enroll(*PLAN)
    stage.ts.cancel("acme:c-1:hello:1:timeout:no_open", "not wanted")
    stage.run()

    assert stage.ts.retry(HELLO_SEND)

    assert stage.states() == {(1, "sent"): "pending", (1, "no_open"): "canceled"}


def test_a_pause_that_began_meanwhile_holds_it(stage: Stage) -> None:
    fail_the_first(stage)
    stage.sm.pause_tenant("acme")

    assert stage.ts.retry(HELLO_SEND)
    stage.run()

    assert (stage.mailed, stage.states()[1, "sent"]) == ([], "paused")
    stage.sm.resume_tenant("acme")
    stage.run()
    assert len(stage.mailed) == 1


def test_it_may_fail_again_and_be_tried_again(stage: Stage) -> None:
    fail_the_first(stage)
    stage.handler = refuse
    for _ in range(2):
        assert stage.ts.retry(HELLO_SEND)
        assert not stage.ts.retry(HELLO_SEND)
        stage.run()
        assert (stage.campaign().status, stage.states()) == (
            "error",
            {(1, "sent"): "error", (1, "no_open"): "canceled"},
        )
        stage.clock.advance("PT1H")
    stage.handler = stage.mail
    assert stage.ts.retry(HELLO_SEND)
    stage.run()
    assert (stage.campaign().status, len(stage.mailed)) == ("active", 1)


@pytest.mark.parametrize("end", ["stopped", "begun again"])
def test_the_send_of_a_campaign_that_went_on_without_it_stays_in_error(stage: Stage, end: str) -> None:
    document = send("hello", on("send_failed", "later"))
    stage.handler = refuse
    stage.enroll(document, LATER)
    stage.run()
    stage.sm.stop("acme", "c-1")
    if end == "begun again":
        stage.enroll(document, LATER, restart=True)
    before = stage.rows("contact_campaigns")

    assert not stage.ts.retry(HELLO_SEND)

    assert (stage.states()[1, "sent"], stage.rows("contact_campaigns")) == ("error", before)


def test_in_a_callers_transaction_it_is_all_undone_with_it(stage: Stage) -> None:
    fail_the_reminder(stage)
    stage.event("replied")
    tables = ("contact_campaigns", "scheduled_actions", "campaign_events", "campaign_transitions")
    before = [stage.rows(table) for table in tables]

    with stage.ts.database.engine.connect() as connection:
        assert stage.ts.retry(REMINDER_SEND, connection=connection)
        connection.rollback()

    assert [stage.rows(table) for table in tables] == before


def test_many_at_once_take_their_campaigns_with_them(stage: Stage) -> None:
    for number in range(5):
        fail_the_first(stage, f"c-{number}")
    stage.event("unsubscribed", campaign="c-1")
    stage.clock.advance("PT1H")
    stage.enroll(*PLAN, campaign="c-2", restart=True)
    changes = BulkChanges(
        stage.ts.stores,
        Verb.RETRY,
        BulkFilter(tenant_id="acme"),
        Reopening(stage.ts.stores, stage.ts.settings, stage.ts.metrics),
    )

    preview = changes.preview()
    progress = list(changes.run("alex", None, piece=2))[-1]
    stage.run()

    assert preview == BulkPreview(5, 1, 0, preview.sample)
    assert progress == BulkProgress(done=4, left=1, busy=0)
    statuses = {f"c-{number}": stage.campaign(f"c-{number}").status for number in range(5)}
    assert statuses == {"c-0": "active", "c-1": "stopped", "c-2": "active", "c-3": "active", "c-4": "active"}
    assert sorted(one.campaign_id for one in stage.mailed) == ["c-0", "c-2", "c-3", "c-4"]
    assert query(stage.ts, "SELECT count(*) FROM operator_actions")[0][0] == 2


def test_a_restart_after_a_retry_finds_a_campaign_that_runs(stage: Stage) -> None:
    fail_the_first(stage)
    assert stage.ts.retry(HELLO_SEND)
    stage.enroll(*PLAN, restart=True)
    stage.run()

    assert stage.campaign().node_visit == 1
    assert len(stage.mailed) == 1


def test_two_retries_beside_an_answer_are_one_and_no_mail_goes_to_who_answered(stage: Stage) -> None:
    """Whichever of them is first, and from two processes."""
    other = stage.another()
    count = 10
    for number in range(count):
        fail_the_reminder(stage, f"c-{number}")
    mailed = len(stage.mailed)

    for number in range(count):
        key = f"acme:c-{number}:reminder:2:send:sent"
        answers = at_once(
            partial(stage.ts.retry, key),
            partial(other.retry, key),
            partial(stage.event, "replied", campaign=f"c-{number}"),
        )
        assert sorted(answers[:2]) == [False, True]
    stage.run()

    assert {stage.node(f"c-{number}") for number in range(count)} == {"later"}
    assert len(stage.mailed) == mailed
