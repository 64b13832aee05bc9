"""What is looked at right before a mail goes out: the lease, the night, suppressed contacts, wider pauses."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler import SendRequest, SendResult, TimeoutScheduler
from scheduler.domain.action import ActionType
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import LONG_AGO, execute, make_settings, query
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)
MAIL = send("mail", on("opened", "next"), on("no_open", "stop", after="PT2H"))
NEXT = wait("next", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
NIGHT: dict[str, Any] = {"quietHours": {"start": "21:00", "end": "07:30"}, "timezone": "Europe/Berlin"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


# The lease


def test_the_lease_begins_anew_when_a_mail_is_about_to_go_out(database_url: str, open_scheduler: OpenScheduler) -> None:
    lengths: list[timedelta] = []

    def handler(request: SendRequest) -> SendResult:
        action = scheduler.find(request.dedupe_key)
        assert action is not None
        assert action.claimed_until is not None
        lengths.append(action.claimed_until - scheduler.database.real_clock.now())
        # While this one was sent, the claims of those in the queue came near their end.
        execute(scheduler, "UPDATE scheduled_actions SET claimed_until = :soon", soon=_text(scheduler, 1))
        return SendResult()

    scheduler = open_scheduler(database_url, send_handler=handler, settings=make_settings(lease=HOUR))
    for number in range(3):
        scheduler.campaigns.enroll("acme", f"c-{number}", "k-1", make_document(MAIL, NEXT), start_at=LONG_AGO)
    scheduler.run_due()
    assert len(lengths) == 3
    assert all(timedelta(minutes=59) < length <= HOUR for length in lengths)


def _text(scheduler: TimeoutScheduler, minutes: int) -> Any:
    instant = scheduler.database.real_clock.now() + timedelta(minutes=minutes)
    return instant if scheduler.database.is_postgresql else instant.strftime("%Y-%m-%d %H:%M:%S.%f")


def test_a_claim_that_was_lost_in_the_queue_is_not_renewed(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT)
    stores = stage.ts.stores
    with stores.database.transaction() as transaction:
        (old,) = stores.claims.claim(transaction, ActionType.SEND, 1, "me", timedelta(minutes=-1))
        assert stores.claims.release_expired_sends(transaction) == 1
    with stores.database.transaction() as transaction:
        (new,) = stores.claims.claim(transaction, ActionType.SEND, 1, "me", HOUR)
    with stores.database.transaction() as transaction:
        assert stores.claims.renew(transaction, "me", [old], HOUR) == set()
        assert stores.claims.renew(transaction, "somebody else", [new], HOUR) == set()
        assert stores.claims.renew(transaction, "me", [new], HOUR) == {new.key}


# The night


@pytest.mark.parametrize(
    ("zone", "now", "sent_at"),
    [
        (None, "2026-03-02T22:00:00+00:00", "2026-03-03T06:30:00+00:00"),
        ("America/New_York", "2026-03-03T02:00:00+00:00", "2026-03-03T12:30:00+00:00"),
        ("Asia/Kathmandu", "2026-03-02T15:15:00+00:00", "2026-03-03T01:45:00+00:00"),
        ("Asia/Kathmandu", "2026-03-02T15:14:59+00:00", "2026-03-02T15:14:59+00:00"),
        (None, "2026-03-03T06:30:00+00:00", "2026-03-03T06:30:00+00:00"),
    ],
)
def test_a_late_mail_waits_for_the_end_of_the_night(stage: Stage, zone: str | None, now: str, sent_at: str) -> None:
    stage.enroll({**MAIL, "schedule": {"delay": "PT10M"}}, NEXT, contact={"timezone": zone} if zone else None, **NIGHT)
    planned = stage.action(1, "sent").run_at
    stage.clock.set(at(now))
    stage.ts.run_due()
    action = stage.action(1, "sent")
    assert action.deadline == planned
    if at(now) != at(sent_at):
        assert (action.status, action.run_at, action.attempts, action.last_error) == ("pending", at(sent_at), 0, None)
        assert stage.mailed == []
        stage.clock.set(at(sent_at))
        stage.ts.run_due()
    assert stage.action(1, "sent").sent_at == at(sent_at)
    assert len(stage.mailed) == 1


def test_a_mail_that_waits_for_the_morning_keeps_its_timeouts_waiting(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT, **NIGHT)
    stage.clock.set(at("2026-03-02T22:00:00+00:00"))
    stage.ts.run_due()
    stage.ts.run_due()
    morning = at("2026-03-03T06:30:00+00:00")
    assert stage.action(1, "no_open").run_at == morning + 2 * HOUR
    stage.clock.set(morning)
    stage.ts.run_due()
    assert (stage.campaign().anchor_at, stage.action(1, "no_open").deadline) == (morning, morning + 2 * HOUR)


def test_attempts_are_kept_over_the_night(stage: Stage) -> None:
    def handler(request: SendRequest) -> SendResult:
        stage.mailed.append(request)
        if len(stage.mailed) == 1:
            raise OSError("away")
        return SendResult()

    stage.handler = handler
    stage.enroll(MAIL, NEXT, start_at=at("2026-03-02T19:59:59.5+00:00"), **NIGHT)
    stage.clock.set(at("2026-03-02T19:59:59.5+00:00"))
    stage.ts.run_due()
    stage.run("PT2S")
    action = stage.action(1, "sent")
    assert (action.run_at, action.attempts) == (at("2026-03-03T06:30:00+00:00"), 1)
    stage.clock.set(action.run_at)
    stage.ts.run_due()
    assert [request.attempt for request in stage.mailed] == [1, 2]


# Suppressed contacts


def suppress_behind_its_back(stage: Stage) -> None:
    """As a suppression that commits between the claim and the last look."""
    execute(stage.ts, "UPDATE contacts SET suppressed_at = :now", now=_text(stage.ts, 0))


def test_a_send_that_finds_the_suppression_stops_its_campaign(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT, contact={"address": "ada@example.com"})
    stage.enroll(MAIL, NEXT, campaign="c-2", contact_id="k-9", contact={"address": "alex@example.com"})
    execute(stage.ts, "UPDATE contacts SET suppressed_at = :now WHERE contact_id = 'k-1'", now=_text(stage.ts, 0))
    assert stage.run() == 2
    assert [request.campaign_id for request in stage.mailed] == ["c-2"]
    assert (stage.campaign().status, stage.history()) == ("stopped", [("mail", "stop", "suppressed")])
    assert stage.states() == {(1, "sent"): "canceled", (1, "no_open"): "canceled"}


def test_a_suppressed_campaign_that_somebody_holds_is_stopped_a_little_later(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, postgresql_url)
    stage.enroll(MAIL, NEXT, contact={"address": "ada@example.com"})
    suppress_behind_its_back(stage)
    with closing(stage.ts.database.engine.connect()) as holder, holder.begin():
        stage.ts.stores.campaigns.lock(stage.ts.database.transaction_on(holder), [("acme", "c-1")])
        stage.run()
        action = stage.action(1, "sent")
        assert (action.status, action.attempts) == ("pending", 0)
        assert NOON < action.run_at < NOON + timedelta(seconds=2)
    stage.run("PT2S")
    assert (stage.campaign().status, stage.mailed) == ("stopped", [])


def test_a_paused_campaign_that_somebody_holds_is_looked_at_again_a_little_later(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """Somebody may just be resuming it: a send that turned paused now would stay so for ever."""
    stage = Stage(open_scheduler, postgresql_url)
    stage.enroll(MAIL, NEXT)
    stage.sm.pause("acme", "c-1")
    execute(stage.ts, "UPDATE scheduled_actions SET status = 'pending'")
    with closing(stage.ts.database.engine.connect()) as holder, holder.begin():
        stage.ts.stores.campaigns.lock(stage.ts.database.transaction_on(holder), [("acme", "c-1")])
        stage.run()
        assert stage.action(1, "sent").status == "pending"
    stage.run("PT2S")
    assert (stage.action(1, "sent").status, stage.mailed) == ("paused", [])


# Wider pauses


@pytest.mark.parametrize(("tenant", "scope"), [("acme", "tenant"), ("", "all")])
def test_a_send_of_a_tenant_that_is_held_becomes_paused(stage: Stage, tenant: str, scope: str) -> None:
    stage.enroll(MAIL, NEXT)
    execute(
        stage.ts,
        "INSERT INTO pauses (tenant_id, campaign_id, scope, started_at) VALUES (:tenant, '', :scope, :now)",
        tenant=tenant,
        scope=scope,
        now=_text(stage.ts, 0),
    )
    stage.run()
    action = stage.action(1, "sent")
    assert (action.status, action.run_at, action.attempts) == ("paused", NOON, 0)
    assert (stage.mailed, stage.campaign().status) == ([], "active")
    assert query(stage.ts, "SELECT count(*) FROM scheduled_actions WHERE status = 'claimed'") == [(0,)]


def test_a_send_of_another_tenant_goes_out_all_the_same(stage: Stage) -> None:
    stage.enroll(MAIL, NEXT, tenant="other")
    execute(
        stage.ts,
        "INSERT INTO pauses (tenant_id, campaign_id, scope, started_at) VALUES ('acme', '', 'tenant', :now)",
        now=_text(stage.ts, 0),
    )
    stage.run()
    assert len(stage.mailed) == 1
