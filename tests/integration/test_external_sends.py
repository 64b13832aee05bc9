"""An application that sends by itself is given what is due, under a lease, and says what came of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from scheduler import InvalidInputError, SendRequest, Settings, TimeoutScheduler
from scheduler.store.claims import is_application
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import LONG_AGO, execute, make_settings
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)
KEY = "acme:c-1:mail:1:send:sent"
MAIL = send("mail", on("opened", "next"), on("no_open", "stop", after="PT2H"))
WITH_WAY_OUT = send("mail", on("send_failed", "next"), on("no_open", "stop", after="PT2H"))
NEXT = wait("next", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
CONTACT = {"address": "ada@example.com", "variables": {"first_name": "Ada"}}


@pytest.fixture
def external(database_url: str, open_scheduler: OpenScheduler) -> Stage:
    """A stage on which the application sends by itself."""
    stage = Stage(open_scheduler, database_url)
    stage.ts = stage.another(send_handler="external")
    stage.sm = stage.ts.campaigns
    return stage


def taken(stage: Stage, *arguments: Any, **options: Any) -> list[str]:
    return [request.dedupe_key for request in stage.sm.take_sends(*arguments, **options)]


# Taking


def test_due_sends_are_handed_out_once_filled_in(external: Stage) -> None:
    external.enroll({**MAIL, "subject": "Dear {{first_name}}"}, NEXT, contact=CONTACT)
    external.enroll({**MAIL, "schedule": {"delay": "PT1H"}}, NEXT, campaign="c-2")
    (request,) = external.sm.take_sends()
    assert isinstance(request, SendRequest)
    assert (request.dedupe_key, request.address, request.subject) == (KEY, "ada@example.com", "Dear Ada")
    assert request.attempt == 1
    action = external.action(1, "sent")
    assert action.status == "claimed"
    assert is_application(action.claimed_by)
    assert taken(external) == []


def test_the_longest_overdue_come_first_up_to_the_limit(external: Stage) -> None:
    for number in range(1, 5):
        external.enroll(MAIL, NEXT, campaign=f"c-{number}", start_at=NOON - number * HOUR)
    assert taken(external, 3) == [f"acme:c-{number}:mail:1:send:sent" for number in (4, 3, 2)]
    assert taken(external, 3) == [KEY]


def test_only_a_tenants_are_handed_out_where_it_is_named(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.enroll(MAIL, NEXT, tenant="other")
    assert taken(external, tenant_id="other") == ["other:c-1:mail:1:send:sent"]
    assert taken(external) == [KEY]


def test_much_that_is_paused_is_met_in_few_statements(external: Stage) -> None:
    """Claiming goes on behind it, and what it claims too many of is still due."""
    paused = {"tenant_id": "big", "plan": make_document(MAIL, NEXT), "start_at": LONG_AGO}
    external.sm.enroll_many({**paused, "campaign_id": f"c-{number}", "contact_id": "k"} for number in range(1200))
    for campaign in ("c-1", "c-2", "c-3"):
        external.enroll(MAIL, NEXT, campaign=campaign)
    external.sm.pause_tenant("big")
    statements: list[str] = []
    event.listen(external.ts.database.engine, "before_cursor_execute", lambda *facts: statements.append(facts[2]))

    assert taken(external, 1) == [KEY]
    assert len(statements) < 30
    assert taken(external, 9) == ["acme:c-2:mail:1:send:sent", "acme:c-3:mail:1:send:sent"]


def test_what_isnt_confirmed_by_the_end_of_the_lease_is_due_again_without_any_daemon(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    assert taken(external, lease="PT0.001S") == [KEY]
    threading.Event().wait(0.01)
    assert taken(external, lease=HOUR) == [KEY]
    assert taken(external) == []
    assert external.action(1, "sent").attempts == 0


@pytest.mark.parametrize("how", ["run_due", "start"])
def test_firing_leaves_what_an_application_holds_alone(external: Stage, how: str) -> None:
    external.enroll(MAIL, NEXT)
    assert taken(external) == [KEY]
    with external.another(send_handler="external") if how == "start" else external.ts as other:
        other.run_due()
    assert taken(external) == []
    assert external.action(1, "sent").status == "claimed"


def test_two_callers_never_get_the_same_send(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url, settings=make_settings())
    plan = make_document(MAIL, NEXT)
    scheduler.campaigns.enroll_many(
        {"tenant_id": "acme", "campaign_id": f"c-{n}", "contact_id": f"k-{n}", "plan": plan, "start_at": LONG_AGO}
        for n in range(200)
    )

    def take_all(_worker: int) -> list[str]:
        found: list[str] = []
        while requests := scheduler.campaigns.take_sends(7):
            found += [request.dedupe_key for request in requests]
        return found

    with ThreadPoolExecutor(4) as pool:
        found = [key for keys in pool.map(take_all, range(4)) for key in keys]
    found += [request.dedupe_key for request in scheduler.campaigns.take_sends(1000)]
    assert len(found) == len(set(found)) == 200


def test_a_rollback_of_the_callers_transaction_gives_them_back(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    with external.ts.database.engine.connect() as connection:
        transaction = connection.begin()
        assert taken(external, connection=connection) == [KEY]
        transaction.rollback()
    assert taken(external) == [KEY]


def test_what_no_longer_applies_is_not_handed_out(external: Stage) -> None:
    for number, name in enumerate(("stopped", "paused", "suppressed", "left", "night"), start=1):
        more: dict[str, Any] = {"quietHours": {"start": "11:00", "end": "13:00"}} if name == "night" else {}
        start_at = NOON - 2 * HOUR if name == "night" else NOON
        external.enroll(
            MAIL, NEXT, campaign=f"c-{number}", contact={"address": f"{name}@example.com"}, start_at=start_at, **more
        )
    external.sm.stop("acme", "c-1")
    external.sm.pause("acme", "c-2")
    execute(external.ts, "UPDATE contacts SET suppressed_at = created_at WHERE contact_id = 'k-3'")
    external.event("opened", campaign="c-4")
    assert taken(external) == []
    assert external.campaign("c-3").status == "stopped"
    assert external.action(1, "sent", "c-5").run_at == NOON + HOUR
    external.clock.advance("PT1H")
    assert taken(external) == ["acme:c-5:mail:1:send:sent"]


def test_a_send_that_cant_be_made_fails_and_the_others_are_handed_out(external: Stage) -> None:
    external.enroll({**WITH_WAY_OUT, "body": "Dear {{last_name}}"}, NEXT)
    external.enroll({**MAIL, "body": "Dear {{last_name}}"}, NEXT, campaign="c-2")
    external.enroll(MAIL, NEXT, campaign="c-3")
    assert taken(external) == ["acme:c-3:mail:1:send:sent"]
    assert external.history() == [("mail", "next", "send_failed")]
    assert external.campaign("c-2").status == "error"
    assert "'last_name'" in (external.action(1, "sent", "c-2").last_error or "")


def test_a_poisonous_one_holds_up_no_other(external: Stage) -> None:
    external.enroll(
        MAIL,
        NEXT,
        contact={"address": "ada@example.com", "timezone": "Europe/Berlin"},
        quietHours={"start": "01:00", "end": "02:00"},
    )
    external.enroll(MAIL, NEXT, campaign="c-2")
    execute(external.ts, "UPDATE contacts SET timezone = 'Not/AZone' WHERE contact_id = 'k-1'")
    assert taken(external) == ["acme:c-2:mail:1:send:sent"]
    action = external.action(1, "sent")
    assert (action.status, action.attempts) == ("pending", 1)


@pytest.mark.parametrize("handler", ["log", None, lambda _request: None])
def test_it_is_refused_where_something_else_sends(
    database_url: str, open_scheduler: OpenScheduler, handler: Any
) -> None:
    scheduler = open_scheduler(database_url, settings=Settings(), send_handler=handler)
    with pytest.raises(InvalidInputError, match=r"SEND_HANDLER to external.*two would send"):
        scheduler.campaigns.take_sends()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"tenant_id": ""}, "tenant_id"),
        ({"lease": timedelta(0)}, "lease"),
        ({"lease": "P1M"}, "lease"),
        ({"lease": 60}, "lease"),
    ],
)
def test_bad_input_is_refused(external: Stage, options: dict[str, Any], field: str) -> None:
    external.enroll(MAIL, NEXT)
    with pytest.raises(InvalidInputError) as caught:
        external.sm.take_sends(**options)
    assert caught.value.field == field
    assert external.action(1, "sent").status == "pending"


# Confirming and failing


def test_a_taken_send_is_closed_by_its_confirmation(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.sm.take_sends()
    external.clock.advance("PT10M")
    assert external.sm.confirm_send(KEY, external.clock.now(), "m-1") is True
    action = external.action(1, "sent")
    assert (action.status, action.outcome, action.message_id) == ("completed", "sent", "m-1")
    assert external.campaign().anchor_at == NOON + timedelta(minutes=10)
    assert external.sm.fail_send(KEY, "too late") is False


def test_a_failed_send_is_due_again_after_the_backoff(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.sm.take_sends()
    assert external.sm.fail_send(KEY, "provider is busy") is True
    action = external.action(1, "sent")
    assert (action.status, action.attempts, action.last_error) == ("pending", 1, "RetryLater: provider is busy")
    assert NOON < action.run_at <= NOON + timedelta(seconds=2)
    assert external.sm.fail_send(KEY, "not due yet") is False
    external.clock.advance("PT2S")
    (request,) = external.sm.take_sends()
    assert request.attempt == 2


@pytest.mark.parametrize("after", [timedelta(minutes=7), "PT7M"])
def test_a_failed_send_may_say_when_to_try_again(external: Stage, after: Any) -> None:
    external.enroll(MAIL, NEXT)
    external.sm.take_sends()
    external.sm.fail_send(KEY, "provider is busy", after)
    assert external.action(1, "sent").run_at == NOON + timedelta(minutes=7)


def test_a_permanent_failure_takes_the_nodes_way_out_else_ends_the_campaign(external: Stage) -> None:
    external.enroll(WITH_WAY_OUT, NEXT)
    external.enroll(MAIL, NEXT, campaign="c-2")
    external.sm.take_sends()
    for number in (1, 2):
        key = f"acme:c-{number}:mail:1:send:sent"
        assert external.sm.fail_send(key, "no such mailbox", permanent=True) is True
    assert external.history() == [("mail", "next", "send_failed")]
    assert external.states("c-2") == {(1, "sent"): "error", (1, "no_open"): "canceled"}
    assert external.campaign("c-2").status == "error"
    assert external.action(1, "sent", "c-2").last_error == "PermanentSendError: no such mailbox"


def test_the_last_attempt_that_fails_ends_the_send(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    for _ in range(5):
        external.clock.advance("PT10M")
        assert len(external.sm.take_sends()) == 1
        external.sm.fail_send(KEY, "provider is busy")
    assert (external.campaign().status, external.action(1, "sent").status) == ("error", "error")


def test_a_failure_told_after_the_lease_counts_unless_somebody_else_took_the_send(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.sm.take_sends(lease="PT0.001S")
    threading.Event().wait(0.01)
    external.ts.run_due()
    assert external.action(1, "sent").status == "pending"
    assert external.sm.fail_send(KEY, "no such mailbox", permanent=True) is True
    assert external.campaign().status == "error"


def test_a_failure_joins_the_callers_transaction(external: Stage) -> None:
    external.enroll(MAIL, NEXT)
    external.sm.take_sends()
    with external.ts.database.engine.connect() as connection:
        transaction = connection.begin()
        assert external.sm.fail_send(KEY, "no such mailbox", permanent=True, connection=connection)
        transaction.rollback()
    assert external.action(1, "sent").status == "claimed"


def test_what_is_not_handed_out_cant_fail(external: Stage) -> None:
    external.enroll({**MAIL, "schedule": {"delay": "PT1H"}}, NEXT)
    assert external.sm.fail_send(KEY, "not due yet") is False
    assert external.sm.fail_send("acme:c-9:mail:1:send:sent", "unknown") is False
    with pytest.raises(InvalidInputError, match="job id of a send"):
        external.sm.fail_send("acme:c-1:mail:1:timeout:no_open", "not a send")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"reason": ""}, "reason"),
        ({"reason": None}, "reason"),
        ({"reason": "x", "retry_after": timedelta(-1)}, "retry_after"),
        ({"reason": "x", "retry_after": "P1M"}, "retry_after"),
        ({"reason": "x", "retry_after": "PT1M", "permanent": True}, "retry_after"),
        ({"reason": "x", "permanent": "false"}, "permanent"),
    ],
)
def test_an_unusable_failure_is_refused(external: Stage, arguments: dict[str, Any], field: str) -> None:
    external.enroll(MAIL, NEXT)
    external.sm.take_sends()
    with pytest.raises(InvalidInputError) as caught:
        external.sm.fail_send(KEY, **arguments)
    assert caught.value.field == field
    assert external.action(1, "sent").status == "claimed"


def test_a_process_called_external_is_no_application(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler: TimeoutScheduler = open_scheduler(database_url, settings=make_settings(instance_name="external"))
    assert not is_application(scheduler.instance)
