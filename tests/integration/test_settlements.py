"""Rows that are held by a claim, and locked for a moment by somebody else."""

import threading
from datetime import timedelta

from sqlalchemy import text

from scheduler import TimeoutScheduler
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.store.settlements import Return
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import make_job, query

HOUR = timedelta(hours=1)
OWNER = "this process"
LOCK = text("SELECT 1 FROM scheduled_actions FOR UPDATE")
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def claim_one(scheduler: TimeoutScheduler) -> ScheduledAction:
    scheduler.schedule(make_job())
    with scheduler.database.transaction() as transaction:
        (action,) = scheduler.stores.claims.claim(transaction, ActionType.TIMEOUT, 1, OWNER, HOUR)
    return action


def test_a_row_that_another_claim_still_has_locked_is_waited_for(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """Whoever claims second locks the rows it finds taken, until it commits: they aren't lost for that."""
    scheduler = open_scheduler(postgresql_url)
    action = claim_one(scheduler)
    held: list[set[tuple[str, str]]] = []

    def lock() -> None:
        with scheduler.database.transaction() as transaction:
            held.append(scheduler.stores.settlements.lock_held(transaction, OWNER, [action]))

    thread = threading.Thread(target=lock)
    with scheduler.database.engine.connect() as connection:
        connection.execute(LOCK)
        thread.start()
        eventually(lambda: held or query(scheduler, WAITING) == [(1,)])
        connection.rollback()
    thread.join(10)
    assert held == [{action.key}]


def test_a_claim_is_handed_back_though_another_claim_has_its_row_locked_for_a_moment(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """It would wait for the end of its lease otherwise: an hour."""
    scheduler = open_scheduler(postgresql_url)
    action = claim_one(scheduler)
    back = Return(action, ActionStatus.PENDING, action.run_at, action.attempts)

    def hand_back() -> None:
        with scheduler.database.transaction() as transaction:
            scheduler.stores.settlements.give_back(transaction, OWNER, [back])

    thread = threading.Thread(target=hand_back)
    with scheduler.database.engine.connect() as connection:
        connection.execute(LOCK)
        thread.start()
        eventually(lambda: not thread.is_alive() or query(scheduler, WAITING) == [(1,)])
        connection.rollback()
    thread.join(10)
    assert query(scheduler, "SELECT status FROM scheduled_actions") == [("pending",)]


def test_a_row_that_stays_locked_counts_as_lost_and_leaves_the_transaction_usable(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    action = claim_one(scheduler)
    with scheduler.database.engine.connect() as connection, scheduler.database.transaction() as transaction:
        connection.execute(LOCK)
        assert scheduler.stores.settlements.lock_held(transaction, OWNER, [action]) == set()
        assert transaction.connection.execute(text("SHOW lock_timeout")).scalar_one() == "0"
        connection.rollback()
        assert scheduler.stores.settlements.lock_held(transaction, OWNER, [action]) == {action.key}


def test_a_claim_of_somebody_else_is_not_held(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    action = claim_one(scheduler)
    with scheduler.database.transaction() as transaction:
        assert scheduler.stores.settlements.lock_held(transaction, "another process", [action]) == set()
        assert scheduler.stores.settlements.lock_held(transaction, OWNER, [action]) == {action.key}


def test_a_claim_handed_back_keeps_the_instant_its_timeout_was_moved_to_meanwhile(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    """Its mail was confirmed while it was in hand: fired at the instant it is handed back for, it would be early."""
    scheduler = open_scheduler(database_url)
    action = claim_one(scheduler)
    stores = scheduler.stores
    with scheduler.database.transaction() as transaction:
        later = transaction.now + HOUR
        stores.changes.retime(transaction, [(*action.campaign_key, 1, action.event_type, later, later)])
    with scheduler.database.transaction() as transaction:
        soon = Return(action, ActionStatus.PENDING, transaction.now, action.attempts)
        assert stores.settlements.give_back(transaction, OWNER, [soon]) == {action.key}
    moved = scheduler.find(action.dedupe_key)
    assert moved is not None
    assert (moved.status, moved.deadline, moved.run_at) == ("pending", later, later)
