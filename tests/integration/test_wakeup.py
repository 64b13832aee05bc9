"""A process that sleeps is woken for what is due before it looks by itself, and for nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import create_engine, text

from scheduler import TimeoutScheduler
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.pooler import pooler, why_no_pooler
from tests.support.postgres import PostgresServer
from tests.support.scheduling import Recorder, are_completed, execute, make_job, make_settings, query

HOUR: Final = timedelta(hours=1)
DROWSY: Final = make_settings(poll_interval=HOUR)


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)  # noqa: TID251 - due by a real clock


@contextmanager
def overheard(scheduler: TimeoutScheduler) -> Iterator[psycopg.Connection[Any]]:
    """Somebody who listens, too."""
    url = scheduler.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f'LISTEN "{scheduler.database.channel}"')
        yield listener


def heard(listener: psycopg.Connection[Any]) -> int:
    """How many notifications have come, up to one of our own that is sent last."""
    channel = listener.execute("SELECT pg_listening_channels()").fetchone()
    assert channel is not None
    listener.execute("SELECT pg_notify(%s, 'last')", channel)
    for count, notification in enumerate(listener.notifies(timeout=30)):
        if notification.payload == "last":
            return count
    raise AssertionError("it listens to nothing")


def listening(scheduler: TimeoutScheduler) -> int:
    ((sessions,),) = query(
        scheduler, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
    )
    return int(sessions)


def test_a_sleeping_process_fires_at_once_what_another_schedules(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder = Recorder()
    open_scheduler(postgresql_url, state_manager=recorder, settings=DROWSY).start()
    other = open_scheduler(postgresql_url, settings=DROWSY)
    eventually(lambda: listening(other))

    other.schedule(make_job())
    eventually(are_completed(other, [make_job()]))
    soon = make_job(campaign_id="c-soon", scheduled_at=in_seconds(0.5))
    other.schedule(soon)

    eventually(are_completed(other, [soon]))
    assert recorder.keys == [make_job().dedupe_key, soon.dedupe_key]


def test_nobody_is_told_of_what_is_due_long_after_the_next_poll(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    with overheard(scheduler) as listener:
        scheduler.schedule(make_job(scheduled_at=in_seconds(72 * 3600)))
        assert heard(listener) == 0

        scheduler.schedule(make_job(campaign_id="c-now"))
        assert heard(listener) == 1


def test_a_transaction_tells_once_and_only_when_it_commits(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    engine = create_engine(postgresql_url)
    with overheard(scheduler) as listener, engine.connect() as connection:
        for number in range(3):
            scheduler.schedule(make_job(campaign_id=f"c-{number}"), connection=connection)
        assert heard(listener) == 0
        connection.rollback()
        assert heard(listener) == 0

        for number in range(3):
            scheduler.schedule(make_job(campaign_id=f"c-{number}"), connection=connection)
        connection.commit()
        assert heard(listener) == 1
    engine.dispose()


def test_a_process_that_fires_tells_itself_alone(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url, state_manager=Recorder(), settings=DROWSY)
    scheduler.start()
    with overheard(scheduler) as listener:
        scheduler.schedule(make_job())

        eventually(are_completed(scheduler, [make_job()]))
        assert heard(listener) == 0


def test_a_session_that_was_cut_off_is_made_again(
    postgresql_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "timeout_scheduler")
    scheduler = open_scheduler(postgresql_url, state_manager=Recorder(), settings=DROWSY)
    scheduler.start()
    other = open_scheduler(postgresql_url, settings=DROWSY)
    # Not when it is seen to be there: that is a moment before it listens.
    eventually(lambda: caplog.text.count("event=wakeup.listening") == 1)

    execute(other, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1")

    eventually(lambda: caplog.text.count("event=wakeup.listening") == 2)
    other.schedule(make_job())
    eventually(are_completed(other, [make_job()]))


def test_no_session_is_left_behind(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    observer = open_scheduler(postgresql_url)
    with closing(TimeoutScheduler(postgresql_url, settings=make_settings())) as scheduler:
        for _ in range(3):
            scheduler.start()
            eventually(lambda: listening(observer) == 1)
            scheduler.shutdown()
            eventually(lambda: listening(observer) == 0)


def test_what_was_inserted_without_a_word_is_found_by_the_poll(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url, state_manager=Recorder())
    scheduler.start()
    other = open_scheduler(postgresql_url)
    eventually(lambda: listening(other))
    job = make_job()
    values = {"key": job.dedupe_key, "at": job.scheduled_at}

    with other.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO scheduled_actions"
                " (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at)"
                " VALUES ('acme', :key, 'c-1', 'k-1', 'intro', 'no_open', :at)"
            ),
            values,
        )

    eventually(are_completed(other, [job]))


@pytest.mark.skipif(why_no_pooler() is not None, reason=str(why_no_pooler()))
def test_behind_a_pooler_it_polls_and_says_so(
    postgres_server: PostgresServer,
    postgresql_url: str,
    open_scheduler: OpenScheduler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An advisory lock or a LISTEN there would be some other client's a moment later."""
    caplog.set_level("INFO", "timeout_scheduler")
    with pooler(postgres_server.port) as port:
        scheduler = open_scheduler(
            postgresql_url.replace(f":{postgres_server.port}/", f":{port}/"), state_manager=Recorder()
        )
        scheduler.start()
        eventually(lambda: "event=wakeup.polling" in caplog.text)
        scheduler.schedule(make_job())

        eventually(are_completed(scheduler, [make_job()]))
        assert listening(open_scheduler(postgresql_url)) == 0
        assert "event=wakeup.listening" not in caplog.text
        scheduler.close()


def test_one_look_serves_for_the_timeouts_that_fall_due_one_after_the_other(
    postgresql_url: str, open_scheduler: OpenScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    scheduler = open_scheduler(postgresql_url, state_manager=recorder, settings=DROWSY)
    outlooks, looks = scheduler.stores.outlooks, itertools.count()
    look = outlooks.read
    monkeypatch.setattr(type(outlooks), "read", lambda _self, transaction: (next(looks), look(transaction))[1])
    jobs = [make_job(campaign_id=f"c-{number}", scheduled_at=in_seconds(1 + number / 50)) for number in range(50)]
    scheduler.schedule_many(jobs)

    scheduler.start()
    eventually(are_completed(scheduler, jobs))

    assert recorder.keys == [job.dedupe_key for job in jobs]
    # Not one per timeout; some when the loop has come a hair early, or late.
    assert next(looks) < len(jobs) / 2


def test_a_timeout_whose_row_is_held_when_it_falls_due_is_fired_once_it_is_free(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """The loop has claimed one of two that it saw coming; it doesn't sleep over the other."""
    scheduler = open_scheduler(postgresql_url, state_manager=Recorder(), settings=DROWSY)
    at = in_seconds(1)
    held, free = (make_job(campaign_id=name, scheduled_at=at) for name in ("held", "free"))
    scheduler.schedule_many([held, free])
    url = scheduler.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1 FROM scheduled_actions WHERE campaign_id = 'held' FOR UPDATE")
        scheduler.start()
        eventually(are_completed(scheduler, [free]))
        assert not are_completed(scheduler, [held])()
        holder.rollback()

    eventually(are_completed(scheduler, [held]))
