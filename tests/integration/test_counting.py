"""How much is waiting: counted by one, shown by all, cheap however much there is, and judged once for all."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import pytest
from prometheus_client import generate_latest
from sqlalchemy import Connection, event, func, select

from scheduler import DatabaseUnavailableError, Outcome, ScheduledAction, TimeoutScheduler
from scheduler.service.counting import Counting
from scheduler.store.outlook import Outlook
from scheduler.store.tables import to_text
from scheduler.store.turns import take_turn
from scheduler.telemetry import backlog_gauges
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import FAR_AHEAD, LONG_AGO, Recorder, execute, make_job, make_jobs, make_settings, query

GAUGES: Final = ("pending", "due", "claimed", "errors")
ALWAYS: Final = timedelta(0)
NEVER_AGAIN: Final = timedelta(days=1)


@pytest.fixture
def scheduler(open_scheduler: OpenScheduler, database_url: str) -> TimeoutScheduler:
    return open_scheduler(database_url)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level("INFO", "timeout_scheduler")
    return lambda: [
        record.getMessage().split()[0].removeprefix("event=")
        for record in caplog.records
        if "event=alert." in record.getMessage()
    ]


def shown(scheduler: TimeoutScheduler, *names: str) -> list[float | None]:
    value = scheduler.metrics.registry.get_sample_value
    return [value(f"timeout_scheduler_{name}") for name in names or GAUGES]


class Counts:
    """One process that looks, and counts when it is time."""

    def __init__(self, scheduler: TimeoutScheduler, interval: timedelta = ALWAYS, **settings: Any) -> None:
        self._stores = scheduler.stores
        self._counting = Counting(scheduler.stores, make_settings(**settings), scheduler.metrics, interval)

    def outlook(self) -> Outlook:
        """A look at the table."""
        with self._stores.database.reading() as transaction:
            return self._stores.outlooks.read(transaction)

    def look(self, outlook: Outlook | None = None) -> None:
        """What follows from a look, from a new one if need be."""
        self._counting.look(outlook or self.outlook(), self.outlook)


def fill(scheduler: TimeoutScheduler) -> None:
    """20 that are due, 30 that aren't, 2 in error, 1 claimed, and some that are over."""
    scheduler.schedule_many(make_jobs(23))
    scheduler.schedule_many(make_jobs(30, node_id="later", scheduled_at=FAR_AHEAD))
    change = "UPDATE scheduled_actions SET status = :status, claimed_by = :owner, claimed_until = :until, "
    change += "finished_at = :finished WHERE node_id = 'intro' AND campaign_id = :campaign"
    then = LONG_AGO.isoformat(" ")
    in_error = {"status": "error", "owner": None, "until": None, "finished": then}
    is_claimed = {"status": "claimed", "owner": "somebody", "until": then, "finished": None}
    for campaign_id, values in {"c-1": in_error, "c-2": in_error, "c-3": is_claimed}.items():
        execute(scheduler, change, campaign=campaign_id, **values)
    scheduler.schedule_many(make_jobs(5, node_id="over"))
    execute(
        scheduler,
        "UPDATE scheduled_actions SET status = 'completed', outcome = 'stale', finished_at = run_at"
        " WHERE node_id = 'over'",
    )


def rest(scheduler: TimeoutScheduler) -> None:
    """The next look counts."""
    execute(scheduler, "UPDATE timeout_scheduler_backlog SET took = 0, pending_took = 0")


def age(scheduler: TimeoutScheduler, by: timedelta) -> None:
    """The last count took no time, and was so long ago."""
    rest(scheduler)
    with scheduler.database.transaction() as transaction:
        real = scheduler.stores.outlooks.read(transaction).real
    at = real - by if scheduler.database.is_postgresql else to_text(real - by)
    execute(scheduler, "UPDATE timeout_scheduler_backlog SET counted_at = :at, pending_counted_at = :at", at=at)


def test_all_that_waits_is_counted(scheduler: TimeoutScheduler) -> None:
    fill(scheduler)
    assert shown(scheduler) == [None] * 4
    Counts(scheduler).look()
    assert shown(scheduler) == [50, 20, 1, 2]
    (age,) = shown(scheduler, "oldest_due_seconds")
    assert age is not None
    assert age > timedelta(days=5 * 365).total_seconds()


def test_a_table_without_anything_is_counted_too(scheduler: TimeoutScheduler) -> None:
    Counts(scheduler).look()
    assert shown(scheduler, *GAUGES, "oldest_due_seconds") == [0, 0, 0, 0, 0]


def test_every_process_shows_what_one_of_them_counted(
    scheduler: TimeoutScheduler, open_scheduler: OpenScheduler, database_url: str
) -> None:
    other = open_scheduler(database_url)
    fill(scheduler)
    Counts(scheduler, NEVER_AGAIN).look()
    scheduler.schedule_many(make_jobs(7, node_id="more"))

    Counts(other, NEVER_AGAIN).look()

    assert shown(other) == shown(scheduler) == [50, 20, 1, 2]
    assert query(scheduler, "SELECT due, pending FROM timeout_scheduler_backlog") == [(20, 50)]


def test_while_nothing_is_due_it_is_counted_less_often(scheduler: TimeoutScheduler) -> None:
    hour = timedelta(hours=1)
    counts = Counts(scheduler, hour)
    counts.look()
    scheduler.schedule_many(make_jobs(1, scheduled_at=FAR_AHEAD))
    age(scheduler, 2 * hour)
    counts.look()
    assert shown(scheduler, "pending") == [0]
    scheduler.schedule_many(make_jobs(1, node_id="now"))
    counts.look()
    assert shown(scheduler, "pending", "due") == [2, 1]


def test_while_the_same_is_to_come_it_is_counted_less_often_still(scheduler: TimeoutScheduler) -> None:
    hour = timedelta(hours=1)
    scheduler.schedule(make_job(scheduled_at=FAR_AHEAD))
    counts = Counts(scheduler, hour)
    counts.look()
    scheduler.schedule(make_job(node_id="later", scheduled_at=FAR_AHEAD))
    execute(scheduler, "UPDATE scheduled_actions SET status = 'error', finished_at = run_at WHERE node_id = 'later'")

    shows = [shown(scheduler, "errors")]
    for hours in (4, 7):
        age(scheduler, hours * hour)
        counts.look()
        shows.append(shown(scheduler, "errors"))

    assert shows == [[0], [0], [1]]


def test_who_looked_before_another_counted_does_not_count_again(
    scheduler: TimeoutScheduler, open_scheduler: OpenScheduler, database_url: str
) -> None:
    hour = timedelta(hours=1)
    counts, others = (Counts(one, hour) for one in (scheduler, open_scheduler(database_url)))
    for one in (counts, others):
        one.look()
    age(scheduler, 7 * hour)
    before = others.outlook()
    counts.look()
    scheduler.schedule(make_job())
    counted = query(scheduler, "SELECT counted_at, due FROM timeout_scheduler_backlog")

    others.look(before)

    assert query(scheduler, "SELECT counted_at, due FROM timeout_scheduler_backlog") == counted
    assert [due for _, due in counted] == [0]


def test_the_end_of_an_alert_is_told_with_the_next_count_though_nothing_is_due(
    scheduler: TimeoutScheduler, said: Callable[[], list[str]]
) -> None:
    hour = timedelta(hours=1)
    counts = Counts(scheduler, hour)
    scheduler.schedule_many(make_jobs(3))
    counts.look()
    assert said() == ["alert.raised"]
    execute(scheduler, "DELETE FROM scheduled_actions")
    execute(scheduler, "UPDATE timeout_scheduler_backlog SET due = 0")
    age(scheduler, 1.5 * hour)

    counts.look()

    assert said() == ["alert.raised", "alert.recovered"]


def test_what_is_known_already_is_not_read_again(scheduler: TimeoutScheduler) -> None:
    counts = Counts(scheduler, NEVER_AGAIN)
    counts.look()
    statements: list[str] = []
    event.listen(scheduler.database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))

    counts.look()

    assert len([said for said in statements if said.startswith("SELECT")]) == 1
    assert shown(scheduler, "due") == [0]


def test_while_one_counts_nobody_else_does(open_scheduler: OpenScheduler, postgresql_url: str) -> None:
    scheduler = open_scheduler(postgresql_url)
    fill(scheduler)
    with scheduler.database.transaction() as transaction:
        assert take_turn(transaction, "counting")
        Counts(scheduler).look()
    assert shown(scheduler) == [None] * 4


def test_a_count_rests_for_twenty_times_what_it_took(scheduler: TimeoutScheduler) -> None:
    fill(scheduler)
    Counts(scheduler).look()
    execute(scheduler, "UPDATE timeout_scheduler_backlog SET took = 3600")
    scheduler.schedule_many(make_jobs(7, node_id="more"))

    Counts(scheduler).look()

    assert shown(scheduler) == [50, 20, 1, 2]


def test_what_is_pending_is_counted_apart_and_less_often(scheduler: TimeoutScheduler) -> None:
    fill(scheduler)
    Counts(scheduler).look()
    execute(scheduler, "UPDATE timeout_scheduler_backlog SET took = 0, pending_took = 3600")
    scheduler.schedule_many(make_jobs(7, node_id="more"))

    Counts(scheduler).look()

    assert shown(scheduler) == [50, 27, 1, 2]


def test_counting_reads_no_table(open_scheduler: OpenScheduler, postgresql_url: str) -> None:
    """Of many that are pending and many that are over: what is due, claimed, in error is found through its index."""
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(3000, scheduled_at=FAR_AHEAD))
    fill(scheduler)
    execute(scheduler, "ANALYZE scheduled_actions")
    rows = scheduler.stores.backlog
    with scheduler.database.engine.connect() as connection:
        statement = rows._count_work.compile(connection, compile_kwargs={"render_postcompile": True})  # noqa: SLF001
        bound = {**statement.params, "now": LONG_AGO + timedelta(days=365)}
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", bound).scalars().all()
    assert not [line for line in plan if "Seq Scan" in line], plan
    assert sum("ix_scheduled_actions_due" in line for line in plan) == 2


def test_a_count_of_what_is_pending_that_takes_too_long_is_given_up_and_the_rest_is_counted(
    open_scheduler: OpenScheduler, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that sleeps, in place of one that counts a billion rows."""
    scheduler = open_scheduler(postgresql_url)
    fill(scheduler)
    Counts(scheduler).look()
    scheduler.schedule_many(make_jobs(7, node_id="more"))
    execute(scheduler, "UPDATE timeout_scheduler_backlog SET took = 0, pending_took = NULL")
    monkeypatch.setattr(scheduler.stores.backlog, "_count_pending", select(func.pg_sleep(60)))

    hasty = Counts(scheduler, database_timeout=timedelta(seconds=1))
    hasty.look()

    assert shown(scheduler) == [50, 27, 1, 2]
    rest(scheduler)
    hasty.look()  # tries again, but not so soon


def test_a_count_of_what_is_due_that_takes_too_long_is_given_up_and_the_last_one_shown(
    open_scheduler: OpenScheduler, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = open_scheduler(postgresql_url)
    fill(scheduler)
    Counts(scheduler).look()
    rest(scheduler)
    monkeypatch.setattr(scheduler.stores.backlog, "_count_work", select(func.pg_sleep(60)))

    Counts(scheduler, database_timeout=timedelta(seconds=1)).look()

    assert shown(scheduler) == [50, 20, 1, 2]


def test_what_was_not_read_for_a_minute_is_shown_no_more(
    scheduler: TimeoutScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counts(scheduler).look()
    monkeypatch.setattr(backlog_gauges, "SHOWN_FOR_SECONDS", 0.0)
    assert shown(scheduler, *GAUGES, "oldest_due_seconds") == [None] * 5
    assert b"# TYPE timeout_scheduler_due gauge" in generate_latest(scheduler.metrics.registry)


def test_the_background_counts_by_itself(scheduler: TimeoutScheduler) -> None:
    fill(scheduler)
    scheduler.start()
    eventually(lambda: shown(scheduler)[0] is not None)


# One incident, however many daemons look


def test_a_backlog_is_told_of_once_by_all_who_look_and_its_end_too(
    scheduler: TimeoutScheduler, open_scheduler: OpenScheduler, database_url: str, said: Callable[[], list[str]]
) -> None:
    others = [Counts(open_scheduler(database_url)) for _ in range(2)]
    scheduler.schedule_many(make_jobs(3))
    lookers = [Counts(scheduler), *others]
    for _ in range(2):
        for looker in lookers:
            looker.look()
            rest(scheduler)
    assert said() == ["alert.raised"]

    execute(scheduler, "DELETE FROM scheduled_actions")
    for looker in lookers:
        looker.look()
        rest(scheduler)
    assert said() == ["alert.raised", "alert.recovered"]


def test_an_incident_outlives_the_process_that_told_of_it(
    scheduler: TimeoutScheduler, open_scheduler: OpenScheduler, database_url: str, said: Callable[[], list[str]]
) -> None:
    scheduler.schedule_many(make_jobs(3))
    Counts(scheduler).look()
    rest(scheduler)
    scheduler.close()

    Counts(open_scheduler(database_url)).look()

    assert said() == ["alert.raised"]


def test_processes_that_look_at_the_same_moment_tell_of_it_once(
    scheduler: TimeoutScheduler, said: Callable[[], list[str]]
) -> None:
    scheduler.schedule_many(make_jobs(3))
    threads = [threading.Thread(target=Counts(scheduler).look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said() == ["alert.raised"]


def test_an_incident_whose_note_is_lost_is_told_of_again_rather_than_never(
    scheduler: TimeoutScheduler, said: Callable[[], list[str]]
) -> None:
    """The process dies, or the database goes, between the telling and the commit."""
    scheduler.schedule_many(make_jobs(3))
    engine = scheduler.database.engine

    def fail(_connection: object) -> None:
        if said():
            raise DatabaseUnavailableError("gone at the commit")

    event.listen(engine, "commit", fail)
    try:
        with pytest.raises(DatabaseUnavailableError):
            Counts(scheduler).look()
    finally:
        event.remove(engine, "commit", fail)
    Counts(scheduler).look()
    rest(scheduler)
    Counts(scheduler).look()
    assert said() == ["alert.raised", "alert.raised"]


def test_what_is_due_and_young_is_no_incident(scheduler: TimeoutScheduler, said: Callable[[], list[str]]) -> None:
    with scheduler.database.reading() as transaction:
        now = transaction.now
    scheduler.schedule_many(make_jobs(30, scheduled_at=now - timedelta(seconds=40)))
    for _ in range(3):
        Counts(scheduler, alert_backlog=10).look()
        rest(scheduler)
    assert said() == []


# A cohort that is really fired, batch after batch, with 45 seconds between two looks

COHORT: Final = 60
BATCH: Final = 10
STEP: Final = timedelta(seconds=45)


class Drain(Recorder):
    """A state manager before whose every batch time passes, more falls due where there is more, and somebody looks."""

    def __init__(self, open_scheduler: OpenScheduler, url: str, *, times: int = 0, more: int = BATCH) -> None:
        super().__init__()
        settings = make_settings(batch_size=BATCH, alert_backlog=BATCH, send_handler="external")
        self.scheduler = open_scheduler(url, state_manager=self, settings=settings)
        self._counting = Counts(self.scheduler, batch_size=BATCH, alert_backlog=BATCH, send_handler="external")
        self._times = times
        self._more = more
        self.seen: list[float | None] = []

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """All are done."""
        if len(self.batches) < self._times:
            jobs_to_come = make_jobs(self._more, node_id=f"{len(self.batches)}", scheduled_at=self._now() - STEP)
            self.scheduler.schedule_many(jobs_to_come)
        self.look()
        return super().process(connection, jobs)

    def begin(self) -> None:
        """A cohort falls due within one minute, and is fired."""
        self.scheduler.schedule_many(make_jobs(COHORT, scheduled_at=self._now() - timedelta(minutes=1)))
        self.scheduler.run_due()
        self.look()

    def look(self) -> None:
        """Count what is due: so long after the last count, and with what is due as much older."""
        self._counting.look()
        self.seen += shown(self.scheduler, "due")
        execute(
            self.scheduler,
            "UPDATE timeout_scheduler_backlog SET took = 0, counted_at = counted_at - CAST(:step AS interval),"
            " lowest_at = lowest_at - CAST(:step AS interval)",
            step=str(STEP),
        )
        # Where more falls due all the time, the oldest stays young: it is fired first.
        if not self._times:
            execute(
                self.scheduler,
                "UPDATE scheduled_actions SET run_at = run_at - CAST(:step AS interval) WHERE status = 'pending'",
                step=str(STEP),
            )

    def _now(self) -> Any:
        with self.scheduler.database.reading() as transaction:
            return transaction.now


def test_a_cohort_that_is_fired_in_time_raises_nothing_though_it_is_far_larger_than_the_limit(
    open_scheduler: OpenScheduler, postgresql_url: str, said: Callable[[], list[str]]
) -> None:
    drain = Drain(open_scheduler, postgresql_url)
    drain.begin()
    assert drain.seen == [50, 40, 30, 20, 10, 0, 0]
    assert said() == []


def test_a_backlog_that_becomes_less_raises_nothing_though_that_takes_long_and_more_falls_due_meanwhile(
    open_scheduler: OpenScheduler, postgresql_url: str, said: Callable[[], list[str]]
) -> None:
    """Six minutes above the limit."""
    drain = Drain(open_scheduler, postgresql_url, times=9, more=BATCH // 2)
    drain.begin()
    assert drain.seen == [55, 50, 45, 40, 35, 30, 25, 20, 15, 5, 0, 0]
    assert said() == []


def test_a_backlog_that_is_fired_as_fast_as_more_falls_due_is_told_of_though_all_of_it_is_young(
    open_scheduler: OpenScheduler, postgresql_url: str, said: Callable[[], list[str]]
) -> None:
    """It isn't what is due, nor how old it is, but that it doesn't become less; once it does, that is told too."""
    drain = Drain(open_scheduler, postgresql_url, times=8)
    drain.begin()
    assert drain.seen == [60] * 8 + [50, 40, 30, 20, 10, 0, 0]
    assert said() == ["alert.raised", "alert.recovered"]
