"""A team's own state manager: what it is given, what its answers do, and what its mistakes don't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from scheduler import InvalidInputError, Outcome, ScheduledAction, StateManager, TimeoutJob, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.service.firing import Firing
from scheduler.service.owner import Owner
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import (
    DONE,
    FAR_AHEAD,
    LONG_AGO,
    NOON,
    WAIT_PLAN,
    Gate,
    Recorder,
    execute,
    make_job,
    make_jobs,
    make_settings,
    query,
    statuses,
)

HOUR = timedelta(hours=1)

Answer = Callable[[Connection, Sequence[ScheduledAction]], Any]


class Custom:
    """A state manager of a function."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.batches: list[list[str]] = []

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """What the function says."""
        self.batches.append([job.campaign_id for job in jobs])
        answers: Sequence[Outcome | Exception] = self._answer(connection, jobs)
        return answers


def note(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
    """What a team does: write to its own tables, in our transaction."""
    for job in jobs:
        connection.execute(text("INSERT INTO notes VALUES (:campaign)"), {"campaign": job.campaign_id})
    return [DONE] * len(jobs)


def open_with(
    open_scheduler: OpenScheduler, url: str, answer: Answer, **settings: Any
) -> tuple[TimeoutScheduler, Custom]:
    """A scheduler with a clock that stands still and a table of the team's own."""
    custom = Custom(answer)
    scheduler = open_scheduler(url, state_manager=custom, clock=SettableClock(NOON), settings=make_settings(**settings))
    execute(scheduler, "CREATE TABLE notes (campaign text)")
    return scheduler, custom


def notes(scheduler: TimeoutScheduler) -> list[str]:
    return sorted(row[0] for row in query(scheduler, "SELECT campaign FROM notes"))


def found(scheduler: TimeoutScheduler, job: TimeoutJob) -> ScheduledAction:
    action = scheduler.find(job.dedupe_key)
    assert action is not None
    return action


def test_a_state_manager_is_recognised_by_its_method() -> None:
    assert isinstance(Recorder(), StateManager)
    assert not isinstance(object(), StateManager)


@pytest.mark.parametrize("given", [object(), print, 7, "no_such_module:thing", "os:no_such_thing", "os", "os:getcwd"])
def test_what_is_no_state_manager_is_refused(sqlite_url: str, given: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        TimeoutScheduler(sqlite_url, state_manager=given)

    assert refused.value.field == "state_manager"


def test_a_state_manager_may_be_a_class_or_the_name_of_one(sqlite_url: str, open_scheduler: OpenScheduler) -> None:
    for given in (Recorder, f"{Recorder.__module__}:Recorder"):
        scheduler = open_scheduler(sqlite_url, state_manager=given)
        job = make_job(campaign_id=str(given))
        scheduler.schedule(job)
        assert scheduler.run_due() == 1


def test_it_is_given_the_actions_that_are_due_and_nothing_else(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    given: list[ScheduledAction] = []

    def keep(_connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        given.extend(jobs)
        return [DONE] * len(jobs)

    scheduler, custom = open_with(open_scheduler, database_url, keep, batch_size=2)
    scheduler.schedule_many([*make_jobs(5, contact_id="k-7", node_visit=3), make_job(scheduled_at=FAR_AHEAD)])

    assert scheduler.run_due() == 5

    assert [len(batch) for batch in custom.batches] == [2, 2, 1]
    assert [job.campaign_id for job in given] == [f"c-{number}" for number in range(5)]
    first = given[0]
    assert (first.tenant_id, first.contact_id, first.node_id, first.node_visit) == ("acme", "k-7", "intro", 3)
    assert (first.event_type, first.scheduled_at, first.run_at, first.status) == (
        "no_open",
        LONG_AGO,
        LONG_AGO,
        "claimed",
    )


def test_it_is_not_called_when_nothing_is_due(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, custom = open_with(open_scheduler, database_url, note)
    scheduler.schedule(make_job(scheduled_at=FAR_AHEAD))

    assert scheduler.run_due() == 0

    assert custom.batches == []


@pytest.mark.parametrize(
    ("answer", "ended", "status", "outcome", "run_at"),
    [
        (Outcome("done"), 1, "completed", "done", LONG_AGO),
        (Outcome("transitioned"), 1, "completed", "transitioned", LONG_AGO),
        (Outcome("paused"), 0, "paused", None, LONG_AGO),
        (Outcome("deferred", NOON + HOUR), 0, "pending", None, NOON + HOUR),
        (Outcome("deferred", LONG_AGO), 0, "pending", None, NOON + timedelta(milliseconds=50)),
        (Outcome("deferred"), 0, "pending", None, NOON + timedelta(milliseconds=50)),
        (Outcome("busy"), 0, "pending", None, NOON + timedelta(milliseconds=250)),
    ],
)
def test_an_outcome_says_what_becomes_of_the_action(
    database_url: str,
    open_scheduler: OpenScheduler,
    answer: Outcome,
    ended: int,
    status: str,
    outcome: str | None,
    run_at: Any,
) -> None:
    scheduler, _ = open_with(open_scheduler, database_url, lambda _connection, jobs: [answer] * len(jobs))
    scheduler.schedule(make_job())

    assert scheduler.run_due() == ended

    action = found(scheduler, make_job())
    assert (action.status, action.outcome, action.run_at, action.attempts) == (status, outcome, run_at, 0)
    assert action.deadline == LONG_AGO
    assert (action.finished_at is not None) == bool(ended)


def test_what_it_writes_commits_with_the_completion(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, _ = open_with(open_scheduler, database_url, note)
    jobs = make_jobs(3)
    scheduler.schedule_many(jobs)

    scheduler.run_due()

    assert notes(scheduler) == ["c-0", "c-1", "c-2"]
    assert statuses(scheduler, jobs) == ["completed"] * 3


def test_an_exception_in_the_answer_retries_that_action_alone(database_url: str, open_scheduler: OpenScheduler) -> None:
    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome | Exception]:
        note(connection, [job for job in jobs if job.campaign_id != "c-1"])
        return [ValueError("bad lead") if job.campaign_id == "c-1" else DONE for job in jobs]

    scheduler, custom = open_with(open_scheduler, database_url, answer)
    jobs = make_jobs(3)
    scheduler.schedule_many(jobs)

    assert scheduler.run_due() == 2

    assert custom.batches == [["c-0", "c-1", "c-2"]]
    assert notes(scheduler) == ["c-0", "c-2"]
    assert statuses(scheduler, jobs) == ["completed", "pending", "completed"]
    failed = found(scheduler, jobs[1])
    assert (failed.attempts, failed.last_error) == (1, "ValueError: bad lead")
    assert NOON < failed.run_at <= NOON + timedelta(seconds=1)


def test_an_action_that_keeps_failing_is_parked_as_error_and_can_be_retried(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    failing = [True]

    def answer(_connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome | Exception]:
        return [ValueError("bad lead") if failing[0] else DONE for _ in jobs]

    scheduler, _ = open_with(open_scheduler, database_url, answer, max_attempts=3)
    clock = scheduler.database.clock
    assert isinstance(clock, SettableClock)
    scheduler.schedule(make_job())

    ended = []
    for _ in range(4):
        ended.append(scheduler.run_due())
        clock.advance(HOUR)

    action = found(scheduler, make_job())
    assert ended == [0, 0, 1, 0]
    assert (action.status, action.outcome, action.attempts, action.last_error) == (
        "error",
        "failed",
        3,
        "ValueError: bad lead",
    )
    failing[0] = False
    assert scheduler.retry(action.dedupe_key)
    assert scheduler.run_due() == 1
    assert found(scheduler, make_job()).status == "completed"


@pytest.mark.parametrize("poisonous", ["c-0", "c-6", "c-12"])
def test_raising_undoes_the_batch_and_halves_find_the_poisonous_action(
    database_url: str, open_scheduler: OpenScheduler, poisonous: str
) -> None:
    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        answers = note(connection, jobs)
        if poisonous in {job.campaign_id for job in jobs}:
            raise ValueError("poison")
        return answers

    scheduler, custom = open_with(open_scheduler, database_url, answer)
    jobs = make_jobs(13)
    scheduler.schedule_many(jobs)

    assert scheduler.run_due() == 12

    good = [job for job in jobs if job.campaign_id != poisonous]
    assert notes(scheduler) == sorted(job.campaign_id for job in good)
    assert statuses(scheduler, good) == ["completed"] * 12
    bad = found(scheduler, make_job(campaign_id=poisonous))
    assert (bad.status, bad.attempts, bad.last_error) == ("pending", 1, "ValueError: poison")
    assert len(custom.batches) <= 9


def test_two_poisonous_actions_are_each_retried_alone(database_url: str, open_scheduler: OpenScheduler) -> None:
    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        if {"c-3", "c-4"} & {job.campaign_id for job in jobs}:
            raise ValueError("poison")
        return note(connection, jobs)

    scheduler, _ = open_with(open_scheduler, database_url, answer)
    scheduler.schedule_many(make_jobs(8))

    assert scheduler.run_due() == 6

    assert notes(scheduler) == ["c-0", "c-1", "c-2", "c-5", "c-6", "c-7"]


FAILS_WITH = "DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{}'; END $$"


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "57014", "22012", "25P02"])
def test_an_action_whose_statement_the_database_refuses_holds_up_nobody(
    postgresql_url: str, open_scheduler: OpenScheduler, sqlstate: str
) -> None:
    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        if "c-2" in {job.campaign_id for job in jobs}:
            connection.execute(text(FAILS_WITH.format(sqlstate)))
        return note(connection, jobs)

    scheduler, _ = open_with(open_scheduler, postgresql_url, answer)
    scheduler.schedule_many(make_jobs(5))

    assert scheduler.run_due() == 4

    assert notes(scheduler) == ["c-0", "c-1", "c-3", "c-4"]
    bad = found(scheduler, make_job(campaign_id="c-2"))
    assert (bad.status, bad.attempts) == ("pending", 1)
    assert "refused" in str(bad.last_error)


def test_an_action_that_waits_too_long_for_a_lock_is_put_off_and_holds_up_nobody(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        if "c-2" in {job.campaign_id for job in jobs}:
            connection.execute(text(FAILS_WITH.format("55P03")))
        return note(connection, jobs)

    scheduler, _ = open_with(open_scheduler, postgresql_url, answer)
    scheduler.schedule_many(make_jobs(5))

    assert scheduler.run_due() == 4

    held_up = found(scheduler, make_job(campaign_id="c-2"))
    assert (held_up.status, held_up.attempts, held_up.last_error) == ("pending", 0, None)
    assert held_up.run_at > NOON


def test_a_batch_that_lost_a_race_is_fired_again_as_a_whole(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    races = iter([True, True, False])

    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        if next(races, False):
            connection.execute(text(FAILS_WITH.format("40P01")))
        return note(connection, jobs)

    scheduler, custom = open_with(open_scheduler, postgresql_url, answer)
    jobs = make_jobs(3)
    scheduler.schedule_many(jobs)

    assert scheduler.run_due() == 3

    assert custom.batches == [["c-0", "c-1", "c-2"]] * 3
    assert [found(scheduler, job).attempts for job in jobs] == [0, 0, 0]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda _connection, _jobs: [], "0 answers for 1 jobs"),
        (lambda _connection, jobs: [DONE] * (len(jobs) + 1), "2 answers for 1 jobs"),
        (lambda _connection, _jobs: None, "answered None: give a sequence"),
        (lambda _connection, jobs: (DONE for _ in jobs), "give a sequence"),
        (lambda _connection, jobs: ["done"] * len(jobs), "answered 'done': give an Outcome or an exception"),
        (lambda _connection, jobs: [None] * len(jobs), "answered None: give an Outcome or an exception"),
    ],
)
def test_a_wrong_answer_undoes_the_batch_and_is_told(
    database_url: str, open_scheduler: OpenScheduler, answer: Answer, error: str
) -> None:
    def write_and_answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> Any:
        note(connection, jobs)
        return answer(connection, jobs)

    scheduler, _ = open_with(open_scheduler, database_url, write_and_answer)
    jobs = make_jobs(3)
    scheduler.schedule_many(jobs)

    assert scheduler.run_due() == 0

    assert notes(scheduler) == []
    assert statuses(scheduler, jobs) == ["pending"] * 3
    for job in jobs:
        assert error in str(found(scheduler, job).last_error)


def test_a_missing_answer_costs_only_the_batch_its_unity(database_url: str, open_scheduler: OpenScheduler) -> None:
    """Alone, every action gets its answer."""
    scheduler, custom = open_with(
        open_scheduler, database_url, lambda connection, jobs: note(connection, jobs)[: max(len(jobs) - 1, 1)]
    )
    scheduler.schedule_many(make_jobs(4))

    assert scheduler.run_due() == 4

    assert notes(scheduler) == ["c-0", "c-1", "c-2", "c-3"]
    assert max(map(len, custom.batches)) == 4


def test_a_commit_of_its_own_is_an_error(database_url: str, open_scheduler: OpenScheduler) -> None:
    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        connection.commit()
        return [DONE] * len(jobs)

    scheduler, _ = open_with(open_scheduler, database_url, answer)
    scheduler.schedule(make_job())

    assert scheduler.run_due() == 0

    assert "closed transaction" in str(found(scheduler, make_job()).last_error)


def test_a_missing_table_of_its_own_is_told_by_name(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, _ = open_with(
        open_scheduler, database_url, lambda connection, _jobs: connection.execute(text("SELECT * FROM leads"))
    )
    scheduler.schedule(make_job())

    scheduler.run_due()

    assert "leads" in str(found(scheduler, make_job()).last_error)


def test_it_schedules_and_cancels_in_the_same_transaction(database_url: str, open_scheduler: OpenScheduler) -> None:
    fails = [True]

    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        for job in jobs:
            follow_up = make_job(campaign_id=job.campaign_id, node_id="next", node_visit=2, scheduled_at=FAR_AHEAD)
            scheduler.schedule(follow_up, connection=connection)
            scheduler.cancel_node(job.tenant_id, job.campaign_id, "other", connection=connection)
        if fails[0]:
            raise ValueError("not yet")
        return [DONE] * len(jobs)

    scheduler, _ = open_with(open_scheduler, database_url, answer)
    clock = scheduler.database.clock
    assert isinstance(clock, SettableClock)
    fired, other = make_job(), make_job(node_id="other", scheduled_at=FAR_AHEAD)
    follow_up = make_job(node_id="next", node_visit=2)
    scheduler.schedule_many([fired, other])

    scheduler.run_due()
    undone = statuses(scheduler, [fired, other, follow_up])
    fails[0] = False
    clock.advance(HOUR)
    scheduler.run_due()

    assert undone == ["pending", "pending", None]
    assert statuses(scheduler, [fired, other, follow_up]) == ["completed", "canceled", "pending"]


@pytest.mark.parametrize("how", ["node", "campaign", "key"])
def test_what_fires_may_be_canceled_by_its_own_firing_and_still_completes(
    database_url: str, open_scheduler: OpenScheduler, how: str
) -> None:
    def answer(connection: Connection, jobs: Sequence[ScheduledAction]) -> list[Outcome]:
        for job in jobs:
            if how == "node":
                scheduler.cancel_node(job.tenant_id, job.campaign_id, job.node_id, connection=connection)
            elif how == "campaign":
                scheduler.cancel_campaign(job.tenant_id, job.campaign_id, connection=connection)
            else:
                scheduler.cancel(job.dedupe_key, connection=connection)
        return [DONE] * len(jobs)

    scheduler, _ = open_with(open_scheduler, database_url, answer)
    jobs = [make_job(event_type=event_type) for event_type in ("no_open", "no_click")]
    scheduler.schedule_many(jobs)

    assert scheduler.run_due() == 2

    assert [(found(scheduler, job).status, found(scheduler, job).outcome) for job in jobs] == [
        ("completed", "done")
    ] * 2


def test_what_a_user_cancels_while_it_waits_for_a_worker_is_not_given_to_it(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    gate, (first, second) = Gate(), make_jobs(2)
    scheduler = open_scheduler(postgresql_url, state_manager=gate, settings=make_settings(batch_size=1, workers=1))
    scheduler.schedule_many([first, second])
    scheduler.start()
    gate.wait_entered()
    eventually(lambda: statuses(scheduler, [second]) == ["claimed"])

    assert scheduler.cancel(second.dedupe_key)
    gate.opened.set()
    scheduler.shutdown()

    assert gate.keys == [first.dedupe_key]
    assert statuses(scheduler, [first, second]) == ["completed", "canceled"]


@pytest.mark.parametrize("manager", ["custom", "ours, without a campaign", "ours"])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda ts, key: ts.cancel(key, "changed my mind"), "canceled"),
        (lambda ts, key: ts.apscheduler.pause_job(key), "paused"),
    ],
    ids=["canceled", "paused"],
)
def test_a_claim_that_a_user_ended_before_the_firing_is_not_applied(
    database_url: str,
    open_scheduler: OpenScheduler,
    manager: str,
    change: Callable[[TimeoutScheduler, str], object],
    status: str,
) -> None:
    clock = SettableClock(NOON)
    recorder = Recorder() if manager == "custom" else None
    scheduler = open_scheduler(database_url, clock=clock, state_manager=recorder)
    if manager == "ours":
        scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN)
        clock.advance("PT73H")
    else:
        scheduler.schedule(make_job())
    owner, stores = Owner("somebody"), scheduler.stores
    with stores.database.transaction() as transaction:
        claimed = stores.claims.claim(transaction, ActionType.TIMEOUT, 10, owner.id, HOUR)

    change(scheduler, claimed[0].dedupe_key)
    before = scheduler.find(claimed[0].dedupe_key)
    ended = Firing(stores, recorder or scheduler.campaigns, scheduler.settings, scheduler.metrics, owner).fire(claimed)

    assert before is not None
    assert before.status == status
    assert ended == []
    assert scheduler.find(claimed[0].dedupe_key) == before
    assert recorder is None or recorder.keys == []


def test_a_claim_that_another_has_by_now_is_not_applied(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, custom = open_with(open_scheduler, database_url, note)
    jobs = make_jobs(3)
    scheduler.schedule_many(jobs)
    owner, stores = Owner("somebody"), scheduler.stores
    with stores.database.transaction() as transaction:
        claimed = stores.claims.claim(transaction, ActionType.TIMEOUT, 10, owner.id, HOUR)
    execute(scheduler, "UPDATE scheduled_actions SET claim_number = 2 WHERE campaign_id = 'c-1'")

    ended = Firing(stores, custom, scheduler.settings, scheduler.metrics, owner).fire(claimed)

    assert [one.action.campaign_id for one in ended] == ["c-0", "c-2"]
    assert notes(scheduler) == ["c-0", "c-2"]
    assert statuses(scheduler, jobs) == ["completed", "claimed", "completed"]
