"""Many actions retried or canceled by hand, beside those who fire and each other: each once, and nobody waits long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from scheduler import Outcome, ScheduledAction, Settings, TimeoutScheduler
from scheduler.domain.bulk import BulkFilter, BulkProgress, Verb
from scheduler.service import bulk
from scheduler.service.bulk import BulkChanges
from scheduler.service.reopening import Reopening
from scheduler.store.bulk_actions import BulkActions
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import LONG_AGO, are_completed, execute, make_jobs, query
from tests.support.stage import Stage
from tests.support.walk import on, wait

ACME = BulkFilter(tenant_id="acme")
WAIT = wait("a", on("opened", "b"), on("no_open", "stop", after="PT2H"))
NEXT = wait("b", on("no_click", "stop", after="PT2H"))
ACTS = "SELECT act, actor, tenant_id, details FROM operator_actions ORDER BY created_at, details"


class Refusing:
    """A state manager that can't do what it is asked for."""

    def process(self, _: Any, jobs: Sequence[ScheduledAction]) -> list[Outcome | Exception]:
        """Refuse every job."""
        return [ValueError(f"no route to {job.campaign_id[-1]}") for job in jobs]


def fail_all(open_scheduler: OpenScheduler, url: str) -> None:
    failing = open_scheduler(url, settings=Settings(max_attempts=1), state_manager=Refusing())
    failing.run_due()
    failing.close()


def do(scheduler: TimeoutScheduler, verb: Verb, wanted: BulkFilter = ACME, piece: int = 1000) -> BulkProgress:
    *_, last = [BulkProgress(), *changes_of(scheduler, verb, wanted).run("ada", "because", piece)]
    return last


def changes_of(scheduler: TimeoutScheduler, verb: Verb, wanted: BulkFilter = ACME) -> BulkChanges:
    reopening = Reopening(scheduler.stores, scheduler.settings, scheduler.metrics)
    return BulkChanges(scheduler.stores, verb, wanted, reopening)


def test_all_in_error_are_retried_piece_by_piece_and_fire_once(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url)
    jobs = make_jobs(25, scheduled_at=LONG_AGO)
    scheduler.schedule_many(jobs)
    fail_all(open_scheduler, database_url)
    changes = changes_of(scheduler, Verb.RETRY)
    assert (changes.preview().matched, len(changes.preview().sample)) == (25, 10)

    progress = list(changes.run("ada", None, piece=10))

    assert [one.done for one in progress] == [10, 20, 25]
    assert scheduler.run_due() == 25
    assert are_completed(scheduler, jobs)()
    (began, ended) = query(scheduler, ACTS)
    assert began[:3] == ended[:3] == ("actions.retried", "ada", "acme")
    facts = [json.loads(row[3]) for row in (began, ended)]
    assert [one["stage"] for one in facts] == ["began", "ended"]
    assert (facts[1]["done"], facts[0]["run"]) == (25, facts[1]["run"])
    assert do(scheduler, Verb.RETRY) == BulkProgress(), "again: there is nothing left to do, and nothing to record"
    assert len(query(scheduler, ACTS)) == 2


def test_what_is_asked_for_is_retried_and_nothing_else(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.schedule_many([*make_jobs(4, scheduled_at=LONG_AGO), *make_jobs(4, scheduled_at=LONG_AGO, tenant_id="b")])
    fail_all(open_scheduler, database_url)
    with scheduler.database.reading() as transaction:
        later = transaction.now + timedelta(hours=1)

    nothing = [
        BulkFilter(tenant_id="acme", since=later),
        BulkFilter(tenant_id="acme", error="100%"),
        BulkFilter(tenant_id="acme", event_type="no_click"),
        BulkFilter(tenant_id="acme", action_type="send"),
        BulkFilter(tenant_id="acme", node_id="elsewhere"),
    ]
    assert [do(scheduler, Verb.RETRY, one).done for one in nothing] == [0] * len(nothing)
    assert do(scheduler, Verb.RETRY, BulkFilter(tenant_id="b", error="ROUTE TO 1")).done == 1
    assert do(scheduler, Verb.RETRY, BulkFilter(since=LONG_AGO)).done == 7


def test_a_visit_that_was_left_is_refused_and_counted(stage: Stage) -> None:
    for number in range(3):
        stage.enroll(WAIT, NEXT, campaign=f"c-{number}")
    with stage.ts.database.transaction() as own:
        values = "SET status = 'error', finished_at = created_at"
        own.connection.execute(text(f"UPDATE scheduled_actions {values}"))
    stage.event("opened", campaign="c-1")
    changes = changes_of(stage.ts, Verb.RETRY)
    assert (changes.preview().matched, changes.preview().left) == (3, 1)

    assert do(stage.ts, Verb.RETRY, piece=2) == BulkProgress(done=2, left=1)

    assert [stage.states(f"c-{number}")[1, "no_open"] for number in range(3)] == ["pending", "error", "pending"]
    assert stage.run() == 2


def test_unfinished_actions_are_canceled_and_what_comes_later_is_not(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.schedule_many(make_jobs(5, scheduled_at=LONG_AGO))
    pieces = changes_of(scheduler, Verb.CANCEL).run("ada", "a wrong plan", piece=3)
    assert next(pieces) == BulkProgress(done=3)
    scheduler.schedule_many(make_jobs(7, scheduled_at=LONG_AGO))

    assert list(pieces) == [BulkProgress(done=5)]

    found = query(scheduler, "SELECT status, outcome FROM scheduled_actions ORDER BY status")
    assert [tuple(row) for row in found] == [("canceled", "a wrong plan")] * 5 + [("pending", None)] * 2


def test_one_that_is_given_up_has_done_what_it_says(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.schedule_many(make_jobs(5, scheduled_at=LONG_AGO))
    pieces = changes_of(scheduler, Verb.CANCEL).run("ada", None, piece=2)
    next(pieces)

    pieces.close()

    assert query(scheduler, "SELECT count(*) FROM scheduled_actions WHERE status = 'canceled'") == [(2,)]
    assert [json.loads(row[3]).get("done") for row in query(scheduler, ACTS)] == [None, 2]
    assert do(scheduler, Verb.CANCEL).done == 3


def test_a_campaign_that_somebody_holds_is_counted_and_taken_the_next_time(
    postgresql_url: str, open_scheduler: OpenScheduler, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bulk, "_PATIENCE", timedelta(milliseconds=50))
    stage = Stage(open_scheduler, postgresql_url)
    for number in range(4):
        stage.enroll(WAIT, NEXT, campaign=f"c-{number}")
    other = stage.another()
    with other.database.transaction() as holder:
        other.stores.campaigns.lock(holder, [("acme", "c-2")])

        assert do(stage.ts, Verb.CANCEL) == BulkProgress(done=3, busy=1)
        assert stage.states("c-2")[1, "no_open"] == "pending"

    assert do(stage.ts, Verb.CANCEL) == BulkProgress(done=1)


def test_beside_a_daemon_each_is_fired_or_canceled_and_never_both(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    other = open_scheduler(postgresql_url, settings=Settings(batch_size=20))
    jobs = make_jobs(400, scheduled_at=LONG_AGO)
    scheduler.schedule_many(jobs)

    with other:
        canceled = do(scheduler, Verb.CANCEL, piece=30).done
    other.run_due()

    counts = dict(query(scheduler, "SELECT status, count(*) FROM scheduled_actions GROUP BY status"))
    assert sum(counts.values()) == 400
    assert (counts.get("canceled", 0), set(counts) <= {"canceled", "completed"}) == (canceled, True)


def test_the_statement_for_a_piece_reads_an_index_in_order(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(5000, scheduled_at=LONG_AGO))
    failed = "UPDATE scheduled_actions SET status = 'error', finished_at = now() WHERE campaign_id LIKE '%0'"
    execute(scheduler, failed)
    execute(scheduler, "ANALYZE scheduled_actions")
    statements = BulkActions(scheduler.database, Verb.RETRY)
    with scheduler.database.reading() as transaction:
        *_, last = statements.find(transaction, ACME, None, 10)
        statement = statements.statement(ACME, statements.cursor(ACME, last), 10)
        compiled = statement.compile(transaction.connection, compile_kwargs={"literal_binds": True})
        plan = [row[0] for row in transaction.connection.execute(text(f"EXPLAIN {compiled}"))]

    assert any("ix_scheduled_actions_error" in line for line in plan), "\n".join(plan)


def test_what_is_given_up_is_canceled_and_nothing_unfinished_is(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.schedule_many(make_jobs(12, scheduled_at=LONG_AGO))
    fail_all(open_scheduler, database_url)
    scheduler.schedule_many(make_jobs(3, node_id="other"))
    wanted = BulkFilter(tenant_id="acme", error="no route to 1")

    assert changes_of(scheduler, Verb.GIVE_UP, wanted).preview().matched == 2
    assert do(scheduler, Verb.GIVE_UP, wanted, piece=1) == BulkProgress(done=2)
    assert list(changes_of(scheduler, Verb.GIVE_UP).run("ada", None))[-1] == BulkProgress(done=10)
    assert do(scheduler, Verb.GIVE_UP) == do(scheduler, Verb.RETRY) == BulkProgress()

    found = query(scheduler, "SELECT status, outcome, count(*) FROM scheduled_actions GROUP BY 1, 2 ORDER BY 1, 2")
    assert [tuple(row) for row in found] == [
        ("canceled", "because", 2),
        ("canceled", "given up by hand", 10),
        ("pending", None, 3),
    ]
    assert {row[0] for row in query(scheduler, ACTS)} == {"actions.given_up"}
