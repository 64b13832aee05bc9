"""Events that overtake the confirmation of their mail: kept, and applied in the transaction that confirms it."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from scheduler import InvalidInputError, SendRequest, SendResult
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import query
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)

MAIL = send("mail", on("opened", "b"), on("no_open", "stop", after="PT72H"))
NEXT = wait("b", on("clicked", "stop"), on("no_click", "mail", after="PT24H"))


def stored(stage: Stage) -> list[tuple[str, str | None, str]]:
    rows = query(stage.ts, "SELECT event_id, campaign_id, outcome FROM campaign_events ORDER BY event_id")
    return [tuple(row) for row in rows]


def test_an_open_before_its_send_is_confirmed_counts_when_it_is(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)

    def mail(_request: SendRequest) -> SendResult:
        early = stage.sm.process_event("acme", "opened", "m-1", event_id="e-1")
        assert (early.outcome, early.campaign) == ("unknown_campaign", None)
        return SendResult("m-1")

    stage.handler = mail
    stage.run()
    assert stage.history() == [("mail", "b", "opened")]
    assert stored(stage) == [("e-1", "c-1", "transitioned")]
    assert stage.sm.process_event("acme", "opened", "m-1", event_id="e-1").outcome == "duplicate"


def test_open_and_click_that_waited_are_applied_in_the_order_they_occurred(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.clock.advance("PT3H")
    stage.sm.process_event("acme", "clicked", "m-c-1-1", event_id="e-2", occurred_at=NOON + 2 * HOUR)
    stage.sm.process_event("acme", "opened", "m-c-1-1", event_id="e-1", occurred_at=NOON + HOUR)
    stage.run()
    assert stage.history() == [("mail", "b", "opened"), ("b", "stop", "clicked")]
    assert stored(stage) == [("e-1", "c-1", "transitioned"), ("e-2", "c-1", "transitioned")]


def test_an_event_that_waits_sent_again_waits_on_and_is_no_duplicate(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    for _ in range(2):
        assert stage.sm.process_event("acme", "opened", "m-c-1-1", event_id="e-1").outcome == "unknown_campaign"
    assert stored(stage) == [("e-1", None, "unknown_campaign")]
    stage.run()
    assert stored(stage) == [("e-1", "c-1", "transitioned")]


def test_an_event_of_an_unknown_campaign_sent_again_once_it_is_enrolled_is_applied_once(stage: Stage) -> None:
    assert stage.event("opened", event_id="e-1").outcome == "unknown_campaign"
    stage.enroll(MAIL, NEXT)
    assert stage.event("opened", event_id="e-1").outcome == "transitioned"
    assert stage.event("opened", event_id="e-1").outcome == "duplicate"
    assert stage.history() == [("mail", "b", "opened")]


def test_an_event_without_an_id_that_waited_counts_once(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    first = stage.sm.process_event("acme", "opened", "m-c-1-1", occurred_at=NOON)
    stage.run()
    again = stage.sm.process_event("acme", "opened", "m-c-1-1", occurred_at=NOON)
    assert (first.outcome, again.outcome, again.event_id) == ("unknown_campaign", "duplicate", first.event_id)
    assert stage.history() == [("mail", "b", "opened")]


def test_an_unsubscribe_that_waited_suppresses_the_contact(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.enroll(MAIL, NEXT, campaign="c-2", contact_id="k-1", start_at=NOON + HOUR)
    stage.sm.process_event("acme", "unsubscribed", "m-c-1-1", event_id="e-1")
    stage.run()
    assert (stage.campaign("c-1").status, stage.campaign("c-2").status) == ("stopped", "stopped")


def test_events_of_other_tenants_mails_are_left_alone(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.sm.process_event("other", "opened", "m-c-1-1", event_id="e-1")
    stage.run()
    assert stored(stage) == [("e-1", None, "unknown_campaign")]
    assert stage.node() == "mail"


def test_confirm_send_applies_what_waited_in_the_callers_transaction(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stage.sm.process_event("acme", "opened", "m-1", event_id="e-1")
    key = stage.action(1, "sent").dedupe_key
    with stage.ts.database.engine.connect() as connection:
        stage.sm.confirm_send(key, NOON, "m-1", connection=connection)
        connection.rollback()
    assert (stage.node(), stored(stage)) == ("mail", [("e-1", None, "unknown_campaign")])
    assert stage.sm.confirm_send(key, NOON, "m-1") is True
    assert (stage.node(), stored(stage)) == ("b", [("e-1", "c-1", "transitioned")])


def test_an_event_at_the_moment_of_the_confirmation_is_never_stranded(
    stage: Stage,
) -> None:
    """Either the event sees the mail, or the confirmation sees the event."""
    for number in range(1, 16):
        campaign = f"c-{number}"
        stage.enroll(MAIL, NEXT, campaign=campaign)
        key = stage.action(1, "sent", campaign).dedupe_key
        barrier = threading.Barrier(2)

        def tell(message: str = f"m-{number}", barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            stage.sm.process_event("acme", "opened", message, event_id=message)

        thread = threading.Thread(target=tell)
        thread.start()
        barrier.wait()
        stage.sm.confirm_send(key, NOON, f"m-{number}")
        thread.join(30)
        assert stage.node(campaign) == "b"
    assert {row[2] for row in stored(stage)} == {"transitioned"}


def test_an_unknown_message_id_of_a_known_campaign_is_the_mail_that_is_going_out(stage: Stage) -> None:
    """An older mail's id would be known; so an open of the mail in flight isn't taken for one of the last mail."""
    stage.enroll(send("first", on("no_open", "mail", after="PT1H")), MAIL, NEXT)
    stage.run()
    seen: list[str] = []

    def mail(_request: SendRequest) -> SendResult:
        seen.append(stage.event("opened", message_id="m-2").outcome)
        return SendResult("m-2")

    stage.handler = mail
    stage.run("PT1H")
    assert (seen, stage.node()) == (["transitioned"], "b")


def test_an_open_of_an_old_mail_is_late_while_the_next_waits_for_quiet_hours(stage: Stage) -> None:
    quiet = {"start": "12:30", "end": "20:00"}
    stage.enroll(send("first", on("no_open", "mail", after="PT1H")), MAIL, NEXT, quietHours=quiet)
    stage.run()
    stage.run("PT1H")
    assert (stage.node(), stage.action(2, "sent").status) == ("mail", "pending")
    assert stage.event("opened").outcome == "late"
    assert stage.event("opened", message_id="m-c-1-1", event_id="e-2").outcome == "late"
    assert stage.node() == "mail"


@pytest.mark.parametrize("together", [False, True])
def test_an_event_and_the_confirmation_of_its_mail_never_wait_for_each_other(
    postgresql_url: str, open_scheduler: OpenScheduler, *, together: bool
) -> None:
    """Each is held after its first lock until the other has one, too, or waits for it."""
    stage = Stage(open_scheduler, postgresql_url)
    for campaign in ("c-1", "c-2"):
        stage.enroll(MAIL, NEXT, campaign=campaign)
    first = {"tell": threading.Event(), "confirm": threading.Event()}
    failures: list[str] = []
    engine = stage.ts.database.engine

    def meet(*facts: Any) -> None:
        me = threading.current_thread().name
        if me in first and not first[me].is_set() and any(lock in facts[2] for lock in ("advisory", "FOR UPDATE")):
            first[me].set()
            first["tell" if me == "confirm" else "confirm"].wait(0.5)

    event.listen(engine, "after_cursor_execute", meet)
    event.listen(engine, "handle_error", lambda context: failures.append(str(context.original_exception)))

    def tell() -> None:
        stage.event("opened", message_id="m-1", event_id="e-1")

    def confirm() -> None:
        if not together:
            stage.sm.confirm_send(stage.action(1, "sent").dedupe_key, NOON, "m-1")
            return
        sent = [(stage.action(1, "sent", f"c-{number}"), SendResult(f"m-{number}", NOON)) for number in (1, 2)]
        with stage.ts.database.transaction() as transaction:
            stage.sm._confirmations.by_owner(transaction, "nobody", sent)  # noqa: SLF001 - what the daemon does

    threads = [threading.Thread(target=work, name=work.__name__) for work in (tell, confirm)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert stored(stage) == [("e-1", "c-1", "transitioned")]
    assert stage.node("c-1") == "b"


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_that_cant_see_the_confirmation_is_refused(
    postgresql_url: str, open_scheduler: OpenScheduler, level: str
) -> None:
    """Else the event would be kept for a confirmation that has been already."""
    stage = Stage(open_scheduler, postgresql_url)
    stage.enroll(MAIL, NEXT)
    key = stage.action(1, "sent").dedupe_key
    engine = stage.ts.database.engine.execution_options(isolation_level=level)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("SELECT count(*) FROM scheduled_actions"))
        stage.sm.confirm_send(key, NOON, "m-1")
        with pytest.raises(InvalidInputError, match=f"connection: '{level}'"):
            stage.sm.process_event("acme", "opened", "m-1", event_id="e-1", connection=connection)
    assert stored(stage) == []
    assert stage.sm.process_event("acme", "opened", "m-1", event_id="e-1").outcome == "transitioned"


def test_many_unknown_messages_take_few_locks(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    """A provider tells of everybody's mails; PostgreSQL keeps all locks in one table of some thousands."""
    stage = Stage(open_scheduler, postgresql_url)
    events = [{"tenant_id": "acme", "event_type": "opened", "message_id": f"x-{number}"} for number in range(500)]
    locks = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    with stage.ts.database.engine.connect() as connection:
        for event_type in ("opened", "clicked"):
            stage.sm.process_events([{**one, "event_type": event_type} for one in events], connection)
        assert connection.execute(locks).scalar_one() == 1


def test_an_event_among_many_at_the_moment_of_the_confirmation_is_never_stranded(stage: Stage) -> None:
    for number in range(1, 11):
        campaign = f"c-{number}"
        stage.enroll(MAIL, NEXT, campaign=campaign)
        key = stage.action(1, "sent", campaign).dedupe_key
        opened = {"tenant_id": "acme", "event_type": "opened"}
        foreign = [{**opened, "message_id": f"x-{number}-{each}"} for each in range(150)]
        batch = [{**opened, "message_id": f"m-{number}"}, *foreign]
        barrier = threading.Barrier(2)

        def tell(batch: list[dict[str, Any]] = batch, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            stage.sm.process_events(batch)

        thread = threading.Thread(target=tell)
        thread.start()
        barrier.wait()
        stage.sm.confirm_send(key, NOON, f"m-{number}")
        thread.join(30)
        assert stage.node(campaign) == "b"


def test_a_message_id_told_after_the_confirmation_brings_what_waited_for_it(stage: Stage) -> None:
    """An unsubscribe told by that id alone must not be lost, nor may the first sent time."""
    stage.enroll(MAIL, NEXT)
    key = stage.action(1, "sent").dedupe_key
    assert stage.sm.confirm_send(key, NOON) is True
    stage.clock.advance("PT1H")
    assert stage.sm.process_event("acme", "unsubscribed", "m-1", event_id="e-1").outcome == "unknown_campaign"
    assert stage.sm.confirm_send(key, NOON + HOUR, "m-1") is True
    assert stage.campaign().status == "stopped"
    send = stage.action(1, "sent")
    assert (send.message_id, send.sent_at) == ("m-1", NOON)
    assert stage.sm.confirm_send(key, NOON + HOUR, "m-2") is True
    assert stage.action(1, "sent").message_id == "m-1", "a second id doesn't replace the first"
