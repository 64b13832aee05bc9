"""One row that can't be fired or sent holds up nobody else: it alone is tried again, ends as `error`, and is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from scheduler import Outcome, ScheduledAction, SchedulerError, SendRequest, SendResult, TimeoutScheduler
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import DONE, NOON, execute, make_jobs, make_settings, query
from tests.support.walk import make_document, on, send, wait

HEALTHY: Final = 20
POISONED: Final = f"c-{HEALTHY}"
ATTEMPTS: Final = 3

WAITING: Final = make_document(wait("wait", on("opened", "stop"), on("no_open", "stop", after="PT1H")))
SENDING: Final = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="PT1H")))

Damage = Callable[[TimeoutScheduler], None]


def lose_plan(scheduler: TimeoutScheduler) -> None:
    """Its campaign's plan is gone."""
    execute(
        scheduler, "UPDATE contact_campaigns SET plan_hash = 'gone' WHERE campaign_id = :campaign", campaign=POISONED
    )


def spoil_plan(scheduler: TimeoutScheduler) -> None:
    """Its campaign's plan is no plan."""
    execute(
        scheduler,
        "INSERT INTO campaign_plans (tenant_id, plan_hash, plan, created_at)"
        " SELECT tenant_id, 'spoilt', 'no plan', created_at FROM campaign_plans",
    )
    execute(
        scheduler, "UPDATE contact_campaigns SET plan_hash = 'spoilt' WHERE campaign_id = :campaign", campaign=POISONED
    )


def spoil_mail_events(scheduler: TimeoutScheduler) -> None:
    """What is known of its mail can't be read."""
    execute(
        scheduler,
        "UPDATE contact_campaigns SET mail_events = 'no JSON' WHERE campaign_id = :campaign",
        campaign=POISONED,
    )


def lose_node(scheduler: TimeoutScheduler) -> None:
    """It stands at a node that its plan doesn't have."""
    for table, column in (("contact_campaigns", "current_node_id"), ("scheduled_actions", "node_id")):
        statement = f"UPDATE {table} SET {column} = 'nowhere' WHERE campaign_id = :campaign"  # noqa: S608
        execute(scheduler, statement, campaign=POISONED)


def spoil_variables(scheduler: TimeoutScheduler) -> None:
    """What is known of its contact can't be read."""
    execute(scheduler, "UPDATE contacts SET variables = 'no JSON' WHERE contact_id = :contact", contact=POISONED)


def enroll(scheduler: TimeoutScheduler, plan: Mapping[str, Any]) -> None:
    names = [f"c-{number}" for number in range(HEALTHY + 1)]
    scheduler.campaigns.enroll_many(
        {"tenant_id": "acme", "campaign_id": name, "contact_id": name, "plan": plan} for name in names
    )


def run_until_quiet(scheduler: TimeoutScheduler, clock: SettableClock) -> None:
    for _ in range(2 * ATTEMPTS):
        scheduler.run_due()
        clock.advance("PT1S")


def outcomes(scheduler: TimeoutScheduler, action_type: str) -> dict[tuple[str, str | None, int], int]:
    rows = query(
        scheduler,
        "SELECT status, outcome, attempts, count(*) FROM scheduled_actions WHERE action_type = :kind"
        " GROUP BY status, outcome, attempts",
        kind=action_type,
    )
    return {(status, outcome, attempts): count for status, outcome, attempts, count in rows}


@pytest.mark.parametrize("damage", [lose_plan, spoil_plan, spoil_mail_events, lose_node])
def test_a_timeout_that_cannot_be_decided_is_tried_again_alone_and_kept_as_error(
    database_url: str, open_scheduler: OpenScheduler, damage: Damage
) -> None:
    clock = SettableClock(NOON)
    enroll(open_scheduler(database_url, clock=clock), WAITING)
    scheduler = open_scheduler(database_url, clock=clock, settings=make_settings(max_attempts=ATTEMPTS))
    damage(scheduler)
    clock.advance("PT1H")

    run_until_quiet(scheduler, clock)

    expected = {("completed", "transitioned", 0): HEALTHY, ("error", "failed", ATTEMPTS): 1}
    assert expected == outcomes(scheduler, "timeout")
    ((error,),) = query(scheduler, "SELECT last_error FROM scheduled_actions WHERE status = 'error'")
    assert error


@pytest.mark.parametrize("handler", ["log", "tests.integration.test_poisonous_rows:send_at_once"])
@pytest.mark.parametrize("damage", [lose_plan, spoil_plan, spoil_mail_events, lose_node, spoil_variables])
def test_a_send_that_cannot_be_prepared_is_tried_again_alone_and_kept_as_error(
    database_url: str, open_scheduler: OpenScheduler, damage: Damage, handler: str
) -> None:
    clock = SettableClock(NOON)
    enroll(open_scheduler(database_url, clock=clock), SENDING)
    settings = make_settings(max_attempts=ATTEMPTS, send_handler=handler)
    scheduler = open_scheduler(database_url, clock=clock, settings=settings)
    damage(scheduler)

    run_until_quiet(scheduler, clock)

    assert outcomes(scheduler, "send") == {("completed", "sent", 0): HEALTHY, ("error", "failed", ATTEMPTS): 1}


def send_at_once(_request: SendRequest) -> SendResult:
    return SendResult()


class SpoilsWhatItSends:
    """A handler that sends all at once, and meanwhile one campaign becomes unreadable."""

    batch_size = HEALTHY + 1

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.spoil: Callable[[], None] = lambda: None

    def __call__(self, request: SendRequest, /) -> SendResult:
        """Send."""
        self.sent.append(request.campaign_id)
        if request.campaign_id == POISONED:
            self.spoil()
        return SendResult()


def test_a_send_that_cannot_be_recorded_ends_alone_as_error_and_is_not_sent_again(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    clock, handler = SettableClock(NOON), SpoilsWhatItSends()
    scheduler = open_scheduler(database_url, clock=clock, send_handler=handler)
    handler.spoil = lambda: spoil_mail_events(scheduler)
    enroll(scheduler, SENDING)

    run_until_quiet(scheduler, clock)

    assert outcomes(scheduler, "send") == {("completed", "sent", 0): HEALTHY, ("error", "failed", 1): 1}
    assert len(handler.sent) == len(set(handler.sent)) == HEALTHY + 1


class Allergic:
    """A state manager that can't bear one key: it answers with the error, or raises it."""

    def __init__(self, *, raises: bool) -> None:
        self._raises = raises

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:  # noqa: ARG002
        """All are done but one."""
        error = ValueError("not this one")
        if self._raises and any(job.campaign_id == POISONED for job in jobs):
            raise error
        return [error if job.campaign_id == POISONED else DONE for job in jobs]


@pytest.mark.parametrize("raises", [True, False])
def test_a_job_that_a_state_manager_cannot_bear_is_tried_again_alone(
    database_url: str, open_scheduler: OpenScheduler, *, raises: bool
) -> None:
    clock = SettableClock(NOON + timedelta(days=1))
    manager = Allergic(raises=raises)
    settings = make_settings(max_attempts=ATTEMPTS)
    scheduler = open_scheduler(database_url, clock=clock, state_manager=manager, settings=settings)
    scheduler.schedule_many(make_jobs(HEALTHY + 1))

    run_until_quiet(scheduler, clock)

    assert outcomes(scheduler, "timeout") == {("completed", "done", 0): HEALTHY, ("error", "failed", ATTEMPTS): 1}


@pytest.mark.parametrize("damage", [lose_plan, spoil_plan])
def test_an_event_of_a_campaign_without_a_readable_plan_is_told_before_anything_is_written(
    database_url: str, open_scheduler: OpenScheduler, damage: Damage
) -> None:
    """In the caller's transaction, too: a stored event would be a duplicate when it is sent again."""
    scheduler = open_scheduler(database_url)
    for campaign in ("c-1", POISONED):
        scheduler.campaigns.enroll("acme", campaign, campaign, WAITING)
    damage(scheduler)
    names = ("c-1", POISONED)
    opened: dict[str, Any] = {"tenant_id": "acme", "event_type": "opened"}
    events = [{**opened, "campaign_id": name} for name in names]
    with scheduler.database.engine.connect() as connection, connection.begin(), pytest.raises(SchedulerError):
        scheduler.campaigns.process_events(events, connection)

    assert query(scheduler, "SELECT count(*) FROM campaign_events") == [(0,)]
    assert scheduler.campaigns.process_event(**events[0]).outcome == "transitioned"
