"""Campaigns are moved to another plan while events come, mails go out and timeouts fire: each is moved at most once."""

from collections import Counter
from functools import partial
from typing import Final

import pytest

from scheduler import CampaignPlan, EventResult, PlanMigration, SendRequest, SendResult, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.service import migrating
from tests.integration.conftest import OpenScheduler
from tests.integration.test_races import (
    CAMPAIGNS,
    LEASE,
    at_once,
    beside,
    check_whole,
    enroll,
    histories,
    names,
    run_due_if_free,
)
from tests.support.eventually import eventually
from tests.support.scheduling import NOON, make_settings, query
from tests.support.walk import make_document, on, send, wait

WAITS: Final = make_document(
    wait("first", on("opened", "stop"), on("no_open", "second", after="PT1H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="PT99999H")),
)
OTHER_WAITS: Final = make_document(
    wait("first", on("opened", "second"), on("no_open", "second", after="PT2H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="PT99999H")),
)
MAILS: Final = make_document(send("mail", on("opened", "stop"), on("no_open", "stop", after="PT99999H")))
OTHER_MAILS: Final = make_document(send("mail", on("opened", "stop"), on("no_open", "stop", after="PT88888H")))


def migrate(scheduler: TimeoutScheduler, old: object, new: object, **options: object) -> PlanMigration:
    plan_hash = CampaignPlan.parse(old).hash  # type: ignore[arg-type]
    return scheduler.campaigns.migrate_plan("acme", plan_hash, new, **options)  # type: ignore[arg-type]


def ways(scheduler: TimeoutScheduler) -> Counter[tuple[str, ...]]:
    """What each campaign went through, without the enrolment."""
    return Counter(tuple(step[3] for step in history[1:]) for history in histories(scheduler).values())


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many transactions, so that there is something to come between."""
    monkeypatch.setattr(migrating, "BATCH", 7)


def test_two_migrations_and_the_events_of_everybody_at_once_lose_nothing(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(4)]
    enroll(schedulers[0], WAITS, start_at=None)

    def deliver() -> list[EventResult]:
        process = schedulers[2].campaigns.process_event
        return [process("acme", "opened", campaign_id=name) for name in reversed(names())]

    first, second, results, _ = at_once(
        partial(migrate, schedulers[0], WAITS, OTHER_WAITS),
        partial(migrate, schedulers[1], WAITS, OTHER_WAITS),
        deliver,
        lambda: run_due_if_free(schedulers[3]),
    )

    check_whole(schedulers[0])
    assert Counter(result.outcome for result in results) == {"transitioned": CAMPAIGNS}
    third = migrate(schedulers[0], WAITS, OTHER_WAITS)
    assert third.busy == 0
    went = ways(schedulers[0])
    assert set(went) <= {("opened",), ("migrated", "opened")}
    assert first.moved + second.moved + third.moved == went[("migrated", "opened")]


def test_two_migrations_at_once_move_each_campaign_once(database_url: str, open_scheduler: OpenScheduler) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(2)]
    enroll(schedulers[0], WAITS, start_at=None)

    migrations = at_once(*[partial(migrate, each, WAITS, OTHER_WAITS) for each in schedulers])

    assert ways(schedulers[0]) == {("migrated",): CAMPAIGNS}
    assert sum(migration.moved for migration in migrations) == CAMPAIGNS
    check_whole(schedulers[0])


def test_timeouts_that_are_due_everywhere_fire_once_whatever_plan_they_are_of(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(3)]
    enroll(schedulers[0], WAITS)

    at_once(
        partial(migrate, schedulers[0], WAITS, OTHER_WAITS),
        lambda: run_due_if_free(schedulers[1]),
        lambda: run_due_if_free(schedulers[2]),
    )
    eventually(lambda: schedulers[0].run_due() == 0)
    migrate(schedulers[0], WAITS, OTHER_WAITS)

    check_whole(schedulers[0])
    assert set(ways(schedulers[0])) <= {("migrated", "no_open"), ("no_open", "migrated")}
    plans = query(schedulers[0], "SELECT DISTINCT plan_hash, current_node_id FROM contact_campaigns")
    assert [tuple(row) for row in plans] == [(CampaignPlan.parse(OTHER_WAITS).hash, "second")]


def test_mails_that_go_out_meanwhile_go_out_once(database_url: str, open_scheduler: OpenScheduler) -> None:
    mailed: list[str] = []

    def handle(request: SendRequest) -> SendResult:
        mailed.append(request.campaign_id)
        return SendResult(f"m-{request.campaign_id}")

    settings = make_settings(send_handler="log")
    senders = [open_scheduler(database_url, send_handler=handle, settings=settings) for _ in range(2)]
    scheduler = open_scheduler(database_url)
    enroll(scheduler, MAILS, start_at=None)

    at_once(
        partial(migrate, scheduler, MAILS, OTHER_MAILS),
        lambda: run_due_if_free(senders[0]),
        lambda: run_due_if_free(senders[1]),
    )
    eventually(lambda: senders[0].run_due() == 0)
    eventually(lambda: migrate(scheduler, MAILS, OTHER_MAILS).busy == 0)
    eventually(lambda: senders[0].run_due() == 0)

    assert Counter(mailed) == dict.fromkeys(names(), 1)
    assert ways(scheduler) == {("migrated",): CAMPAIGNS}
    check_whole(scheduler)


def test_an_event_waits_for_the_move_of_its_campaign_and_is_decided_on_the_new_plan(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, other = open_scheduler(postgresql_url), open_scheduler(postgresql_url)
    enroll(scheduler, WAITS, count=1, start_at=None)
    results: list[EventResult] = []

    def deliver() -> None:
        results.append(other.campaigns.process_event("acme", "opened", campaign_id="c-000"))

    with scheduler.database.engine.connect() as connection, connection.begin() as begun:
        migrate(scheduler, WAITS, OTHER_WAITS, connection=connection)
        with beside(deliver):
            eventually(lambda: bool(query(scheduler, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")))
            assert results == []
            begun.commit()

    assert [result.outcome for result in results] == ["transitioned"]
    assert [step[2:] for step in histories(scheduler)["c-000"][1:]] == [("first", "migrated"), ("second", "opened")]


def test_a_campaign_that_somebody_holds_is_busy_and_moved_by_the_next_run(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, WAITS, count=3, start_at=None)

    with scheduler.database.engine.begin() as connection:
        scheduler.campaigns.process_event("acme", "replied", campaign_id="c-001", connection=connection)
        migration = migrate(scheduler, WAITS, OTHER_WAITS)

    assert (migration.moved, migration.busy, migration.nodes[0].campaigns) == (2, 1, 3)
    assert migrate(scheduler, WAITS, OTHER_WAITS).moved == 1


def test_a_mail_that_somebody_claims_at_this_moment_makes_its_campaign_busy(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """The claim isn't committed: the row still says pending, and is locked."""
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, MAILS, count=3, start_at=NOON)

    with scheduler.stores.database.transaction() as transaction:
        claimed = scheduler.stores.claims.claim(transaction, ActionType.SEND, 1, "worker", LEASE)
        migration = migrate(scheduler, MAILS, OTHER_MAILS)

    assert len(claimed) == 1
    assert (migration.moved, migration.busy) == (2, 1)
    assert migrate(scheduler, MAILS, OTHER_MAILS).busy == 1


def test_a_mail_is_not_claimed_while_its_campaign_is_being_moved(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, MAILS, count=1, start_at=NOON)

    def claim() -> list[str]:
        with scheduler.stores.database.transaction() as transaction:
            found = scheduler.stores.claims.claim(transaction, ActionType.SEND, 10, "worker", LEASE)
            return [action.dedupe_key for action in found]

    with scheduler.database.engine.begin() as connection:
        migrate(scheduler, MAILS, OTHER_MAILS, connection=connection)
        assert claim() == []

    assert claim() == ["acme:c-000:mail:2:send:sent"]
