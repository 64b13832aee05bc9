"""`connection=`: a call joins the caller's transaction, commits nothing, and is undone with it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from scheduler import (
    CampaignPlan,
    CampaignStateManager,
    DatabaseUnavailableError,
    InvalidInputError,
    TimeoutJob,
    TimeoutScheduler,
)
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import (
    FAR_AHEAD,
    NOON,
    WAIT_PLAN,
    Recorder,
    are_completed,
    execute,
    make_job,
    make_jobs,
    make_settings,
    query,
    statuses,
)

JOB = make_job(scheduled_at=FAR_AHEAD)
SEND_ID = "acme:sending:intro:1:send:sent"
SEND_PLAN = {
    "version": "1.0",
    "startNodeId": "intro",
    "nodes": [
        {
            "id": "intro",
            "action": "send",
            "transitions": [{"on": "opened", "to": "stop"}, {"on": "no_open", "to": "stop"}],
        }
    ],
}


@dataclass
class Caller:
    """An application's open transaction: what it hands over, its own statements, and how it ends."""

    connection: Any
    execute: Callable[[str], Any]
    commit: Callable[[], Any]
    rollback: Callable[[], Any]


Opening = Callable[[str, ExitStack], Caller]


def engine_of(url: str, stack: ExitStack, **options: Any) -> Engine:
    engine = create_engine(url, **options)
    stack.callback(engine.dispose)
    return engine


def open_connection(url: str, stack: ExitStack) -> Caller:
    connection = stack.enter_context(engine_of(url, stack).connect())
    return Caller(connection, lambda sql: connection.execute(text(sql)), connection.commit, connection.rollback)


def open_begun_connection(url: str, stack: ExitStack) -> Caller:
    connection = stack.enter_context(engine_of(url, stack).connect())
    transaction = connection.begin()
    return Caller(connection, lambda sql: connection.execute(text(sql)), transaction.commit, transaction.rollback)


def open_session(url: str, stack: ExitStack) -> Caller:
    session = stack.enter_context(Session(engine_of(url, stack)))
    return Caller(session, lambda sql: session.execute(text(sql)), session.commit, session.rollback)


def open_scoped_session(url: str, stack: ExitStack) -> Caller:
    session = scoped_session(sessionmaker(engine_of(url, stack)))
    stack.callback(session.remove)
    return Caller(session, lambda sql: session.execute(text(sql)), session.commit, session.rollback)


def open_psycopg(url: str, stack: ExitStack, **options: Any) -> Caller:
    connection: psycopg.Connection[Any] = psycopg.connect(libpq(url), **options)
    stack.callback(connection.close)
    return Caller(connection, connection.execute, connection.commit, connection.rollback)


def open_psycopg_with_dicts(url: str, stack: ExitStack) -> Caller:
    return open_psycopg(url, stack, row_factory=dict_row)


def open_psycopg_with_named_tuples(url: str, stack: ExitStack) -> Caller:
    return open_psycopg(url, stack, row_factory=namedtuple_row)


def open_psycopg_binding_in_the_client(url: str, stack: ExitStack) -> Caller:
    """As Django has it."""
    return open_psycopg(url, stack, cursor_factory=psycopg.ClientCursor)


def open_psycopg_that_prepares_nothing(url: str, stack: ExitStack) -> Caller:
    """As somebody behind pgbouncer has it."""
    return open_psycopg(url, stack, prepare_threshold=None)


def open_psycopg_transaction(url: str, stack: ExitStack) -> Caller:
    caller = open_psycopg(url, stack)
    block = caller.connection.transaction()
    block.__enter__()
    closed = stack.pop_all()
    stack.push(closed.__exit__)

    def leave() -> None:
        block.__exit__(None, None, None)

    def undo() -> None:
        rolled_back = psycopg.Rollback()
        block.__exit__(psycopg.Rollback, rolled_back, None)

    return Caller(caller.connection, caller.execute, leave, undo)


POSTGRESQL: list[Opening] = [
    open_connection,
    open_begun_connection,
    open_session,
    open_scoped_session,
    open_psycopg,
    open_psycopg_with_dicts,
    open_psycopg_with_named_tuples,
    open_psycopg_binding_in_the_client,
    open_psycopg_that_prepares_nothing,
    open_psycopg_transaction,
]
SQLITE: list[Opening] = [open_connection, open_begun_connection, open_session, open_scoped_session]
KINDS = [("postgresql", opening) for opening in POSTGRESQL] + [("sqlite", opening) for opening in SQLITE]


def libpq(url: str) -> str:
    return url.replace("+psycopg", "")


@dataclass
class Joined:
    """A scheduler, and an application's transaction on its database."""

    scheduler: TimeoutScheduler
    caller: Caller


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1].__name__.removeprefix('open_')}")
def joined(request: pytest.FixtureRequest, open_scheduler: OpenScheduler) -> Iterator[Joined]:
    system, opening = request.param
    url = str(request.getfixturevalue(f"{system}_url"))
    scheduler = open_scheduler(url)
    execute(scheduler, "CREATE TABLE orders (number integer)")
    with ExitStack() as stack:
        yield Joined(scheduler, opening(url, stack))


def test_what_is_scheduled_is_visible_once_the_caller_commits(joined: Joined) -> None:
    scheduler, caller = joined.scheduler, joined.caller

    caller.execute("INSERT INTO orders VALUES (1)")
    job_id = scheduler.schedule(JOB, connection=caller.connection)
    within = scheduler.find(JOB.dedupe_key, connection=caller.connection)
    outside = scheduler.find(JOB.dedupe_key)
    caller.commit()

    assert job_id == JOB.dedupe_key
    assert within is not None
    assert within.run_at == FAR_AHEAD
    assert outside is None
    assert statuses(scheduler, [JOB]) == ["pending"]
    assert query(scheduler, "SELECT number FROM orders") == [(1,)]


def test_what_is_scheduled_is_undone_with_the_caller(joined: Joined) -> None:
    scheduler, caller = joined.scheduler, joined.caller

    caller.execute("INSERT INTO orders VALUES (1)")
    scheduler.schedule(JOB, connection=caller.connection)
    caller.rollback()

    assert scheduler.find(JOB.dedupe_key) is None
    assert query(scheduler, "SELECT number FROM orders") == []


def test_a_call_may_be_the_first_statement_of_a_transaction(joined: Joined) -> None:
    scheduler, caller = joined.scheduler, joined.caller

    scheduler.schedule(JOB, connection=caller.connection)
    outside = scheduler.find(JOB.dedupe_key)
    caller.rollback()

    assert outside is None
    assert scheduler.find(JOB.dedupe_key) is None


def test_several_calls_share_the_transaction_and_see_each_other(joined: Joined) -> None:
    scheduler, caller = joined.scheduler, joined.caller
    jobs = make_jobs(3, scheduled_at=FAR_AHEAD)

    assert scheduler.schedule_many(jobs, connection=caller.connection).scheduled == 3
    assert scheduler.schedule_many(jobs, connection=caller.connection).existing == 3
    assert scheduler.reschedule(jobs[0].dedupe_key, NOON, connection=caller.connection)
    assert scheduler.cancel(jobs[1].dedupe_key, connection=caller.connection)
    caller.execute("INSERT INTO orders VALUES (7)")
    campaign = scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN, connection=caller.connection)
    assert scheduler.campaigns.find("acme", "c-1", connection=caller.connection) == campaign
    assert scheduler.campaigns.find("acme", "c-1") is None
    caller.commit()

    assert statuses(scheduler, jobs) == ["pending", "canceled", "pending"]
    assert scheduler.campaigns.find("acme", "c-1") == campaign
    assert query(scheduler, "SELECT number FROM orders") == [(7,)]


@pytest.mark.parametrize("opening", [open_connection, open_session, open_scoped_session])
def test_a_connection_may_be_joined_again_after_its_commit(
    database_url: str, open_scheduler: OpenScheduler, opening: Opening
) -> None:
    scheduler, jobs = open_scheduler(database_url), make_jobs(2, scheduled_at=FAR_AHEAD)

    with ExitStack() as stack:
        caller = opening(database_url, stack)
        scheduler.schedule(jobs[0], connection=caller.connection)
        caller.commit()
        scheduler.schedule(jobs[1], connection=caller.connection)
        caller.rollback()

    assert statuses(scheduler, jobs) == ["pending", None]


def test_bad_input_leaves_the_callers_transaction_usable(joined: Joined) -> None:
    scheduler, caller = joined.scheduler, joined.caller

    caller.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(InvalidInputError):
        scheduler.schedule_many([JOB, "no job"], connection=caller.connection)  # type: ignore[list-item]
    caller.commit()

    assert query(scheduler, "SELECT number FROM orders") == [(1,)]
    assert scheduler.find(JOB.dedupe_key) is None


def enrolled(scheduler: TimeoutScheduler) -> None:
    """Something for each call to change."""
    scheduler.schedule(JOB)
    scheduler.schedule(make_job(campaign_id="failed"))
    execute(
        scheduler, "UPDATE scheduled_actions SET status = 'error', finished_at = run_at WHERE campaign_id = 'failed'"
    )
    scheduler.campaigns.enroll("acme", "waiting", "k-1", WAIT_PLAN)
    scheduler.campaigns.enroll("acme", "paused", "k-1", WAIT_PLAN)
    scheduler.campaigns.pause("acme", "paused")
    scheduler.campaigns.enroll("acme", "sending", "k-1", SEND_PLAN)
    scheduler.campaigns.enroll("acme", "external", "k-2", SEND_PLAN)
    scheduler.campaigns.suppress("acme", "suppressed", "asked")
    scheduler.campaigns.pause_tenant("quiet")
    scheduler.campaigns.pause_sends("silent")


NEW = make_job(campaign_id="new")
ENROLMENT = {"tenant_id": "acme", "campaign_id": "new", "contact_id": "k-1", "plan": WAIT_PLAN}
OPENED = {"tenant_id": "acme", "event_type": "opened", "campaign_id": "waiting", "event_id": "e-1"}
WRITING: dict[str, Callable[[TimeoutScheduler, Any], object]] = {
    "schedule": lambda ts, connection: ts.schedule(NEW, connection=connection),
    "schedule_many": lambda ts, connection: ts.schedule_many([NEW], connection=connection),
    "reschedule": lambda ts, connection: ts.reschedule(JOB.dedupe_key, NOON, connection=connection),
    "cancel": lambda ts, connection: ts.cancel(JOB.dedupe_key, connection=connection),
    "cancel_node": lambda ts, connection: ts.cancel_node("acme", "waiting", "wait", connection=connection),
    "cancel_campaign": lambda ts, connection: ts.cancel_campaign("acme", "waiting", connection=connection),
    "retry": lambda ts, connection: ts.retry(make_job(campaign_id="failed").dedupe_key, connection=connection),
    "enroll": lambda ts, connection: ts.campaigns.enroll("acme", "new", "k-1", WAIT_PLAN, connection=connection),
    "enroll_many": lambda ts, connection: ts.campaigns.enroll_many([ENROLMENT], connection=connection),
    "process_event": lambda ts, connection: ts.campaigns.process_event(
        "acme", "opened", campaign_id="waiting", event_id="e-1", connection=connection
    ),
    "process_events": lambda ts, connection: ts.campaigns.process_events([OPENED], connection=connection),
    "confirm_send": lambda ts, connection: ts.campaigns.confirm_send(SEND_ID, NOON, "m-1", connection=connection),
    "pause": lambda ts, connection: ts.campaigns.pause("acme", "waiting", connection=connection),
    "resume": lambda ts, connection: ts.campaigns.resume("acme", "paused", connection=connection),
    "stop": lambda ts, connection: ts.campaigns.stop("acme", "waiting", connection=connection),
    "process_contact_event": lambda ts, connection: ts.campaigns.process_contact_event(
        "acme", "k-1", "opened", event_id="e-1", connection=connection
    ),
    "suppress": lambda ts, connection: ts.campaigns.suppress("acme", "k-1", "asked", connection=connection),
    "unsuppress": lambda ts, connection: ts.campaigns.unsuppress("acme", "suppressed", connection=connection),
    "erase": lambda ts, connection: ts.campaigns.erase("acme", "k-1", connection=connection),
    "pause_tenant": lambda ts, connection: ts.campaigns.pause_tenant("acme", connection=connection),
    "pause_all": lambda ts, connection: ts.campaigns.pause_all(connection=connection),
    "resume_tenant": lambda ts, connection: ts.campaigns.resume_tenant("quiet", connection=connection),
    "resume_all": lambda ts, connection: (
        ts.campaigns.pause_all(connection=connection),
        ts.campaigns.resume_all(policy="keep", connection=connection),
    ),
    "pause_sends": lambda ts, connection: ts.campaigns.pause_sends("acme", connection=connection),
    "resume_sends": lambda ts, connection: ts.campaigns.resume_sends("silent", connection=connection),
    "take_sends": lambda ts, connection: ts.campaigns.take_sends(connection=connection),
    "fail_send": lambda ts, connection: ts.campaigns.fail_send(SEND_ID, "no", permanent=True, connection=connection),
    "migrate_plan": lambda ts, connection: ts.campaigns.migrate_plan(
        "acme",
        CampaignPlan.parse(WAIT_PLAN).hash,
        {**WAIT_PLAN, "name": "another"},
        connection=connection,
    ),
}
READING: dict[str, Callable[[TimeoutScheduler, Any], object]] = {
    "find": lambda ts, connection: ts.find(JOB.dedupe_key, connection=connection),
    "pending": lambda ts, connection: ts.pending(connection=connection),
    "list_actions": lambda ts, connection: ts.list_actions(connection=connection),
    "campaigns.find": lambda ts, connection: ts.campaigns.find("acme", "waiting", connection=connection),
    "history": lambda ts, connection: ts.campaigns.history("acme", "waiting", connection=connection),
    "pauses": lambda ts, connection: ts.campaigns.pauses(connection=connection),
    "preview_resume": lambda ts, connection: ts.campaigns.preview_resume("quiet", connection=connection).started_at,
    "preview_resume_sends": lambda ts, connection: (
        ts.campaigns.preview_resume_sends("silent", connection=connection).started_at
    ),
}
# These tell of what is stored in words of their own, and are tried on it in their own tests, with a connection too.
TELLING = {"explain", "stuck"}
TABLES = (
    "scheduled_actions",
    "contact_campaigns",
    "campaign_transitions",
    "campaign_events",
    "pauses",
    "contacts",
    "operator_actions",
)


def contents(scheduler: TimeoutScheduler) -> dict[str, list[Any]]:
    return {table: sorted(map(repr, query(scheduler, f"SELECT * FROM {table}"))) for table in TABLES}  # noqa: S608


def test_every_call_of_the_api_that_takes_a_connection_is_tried_here() -> None:
    tried = {name.removeprefix("campaigns.") for name in WRITING.keys() | READING.keys()}
    taking = {
        name
        for owner in (TimeoutScheduler, CampaignStateManager)
        for name, call in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_") and "connection" in inspect.signature(call).parameters
    }

    assert taking - {"process"} - TELLING == tried


@pytest.mark.parametrize("kind", [open_connection, open_psycopg, open_session])
@pytest.mark.parametrize("name", WRITING)
def test_every_writing_call_joins_on_postgresql(
    postgresql_url: str, open_scheduler: OpenScheduler, name: str, kind: Opening
) -> None:
    check_joins(postgresql_url, open_scheduler, name, kind)


@pytest.mark.parametrize("name", WRITING)
def test_every_writing_call_joins_on_sqlite(sqlite_url: str, open_scheduler: OpenScheduler, name: str) -> None:
    check_joins(sqlite_url, open_scheduler, name, open_connection)


def check_joins(url: str, open_scheduler: OpenScheduler, name: str, kind: Opening) -> None:
    """The call changes something, which nobody else sees before the commit, and which a rollback undoes."""
    scheduler = open_scheduler(url, clock=SettableClock(NOON))
    enrolled(scheduler)
    before = contents(scheduler)

    with ExitStack() as stack:
        caller = kind(url, stack)
        WRITING[name](scheduler, caller.connection)
        unseen = contents(scheduler)
        caller.rollback()
    undone = contents(scheduler)
    with ExitStack() as stack:
        caller = kind(url, stack)
        WRITING[name](scheduler, caller.connection)
        caller.commit()

    assert before == unseen == undone
    assert contents(scheduler) != before


@pytest.mark.parametrize("name", READING)
def test_every_reading_call_joins(database_url: str, open_scheduler: OpenScheduler, name: str) -> None:
    scheduler = open_scheduler(database_url)
    enrolled(scheduler)

    with ExitStack() as stack:
        caller = open_connection(database_url, stack)
        caller.execute("DELETE FROM scheduled_actions")
        caller.execute("DELETE FROM contact_campaigns")
        caller.execute("DELETE FROM campaign_transitions")
        caller.execute("DELETE FROM pauses")

        assert not READING[name](scheduler, caller.connection)
        assert READING[name](scheduler, None)


def test_reading_takes_no_write_lock(sqlite_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(sqlite_url)
    with ExitStack() as stack:
        reader = open_connection(sqlite_url, stack)
        assert scheduler.find(JOB.dedupe_key, connection=reader.connection) is None

        scheduler.schedule(JOB)

        assert scheduler.find(JOB.dedupe_key, connection=reader.connection) is not None


def async_url(url: str, driver: str) -> str:
    return url.replace("+psycopg", f"+{driver}")


async def with_async_session(url: str, work: Callable[[AsyncSession], Any]) -> None:
    engine = create_async_engine(url)
    try:
        async with AsyncSession(engine) as session:
            await work(session)
    finally:
        await engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_session_joins_through_run_sync(
    postgresql_url: str, open_scheduler: OpenScheduler, driver: str
) -> None:
    scheduler = open_scheduler(postgresql_url)
    execute(scheduler, "CREATE TABLE orders (number integer)")
    jobs = make_jobs(3, scheduled_at=FAR_AHEAD)

    async def work(session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO orders VALUES (1)"))
        await session.run_sync(lambda inner: scheduler.schedule_many(jobs[:2], connection=inner))
        assert statuses(scheduler, jobs[:2]) == [None, None]
        await session.rollback()
        assert statuses(scheduler, jobs[:2]) == [None, None]

        await session.execute(text("INSERT INTO orders VALUES (2)"))
        await session.run_sync(lambda inner: scheduler.schedule(jobs[2], connection=inner))
        found = await session.run_sync(lambda inner: scheduler.find(jobs[2].dedupe_key, connection=inner))
        assert found is not None
        await session.commit()

    asyncio.run(with_async_session(async_url(postgresql_url, driver), work))

    assert statuses(scheduler, jobs) == [None, None, "pending"]
    assert query(scheduler, "SELECT number FROM orders") == [(2,)]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("name", WRITING)
def test_every_writing_call_joins_an_async_session(
    postgresql_url: str, open_scheduler: OpenScheduler, name: str, driver: str
) -> None:
    scheduler = open_scheduler(postgresql_url, clock=SettableClock(NOON))
    enrolled(scheduler)
    before = contents(scheduler)
    unseen: list[dict[str, list[Any]]] = []

    async def work(session: AsyncSession) -> None:
        await session.run_sync(lambda inner: WRITING[name](scheduler, inner))
        unseen.append(contents(scheduler))
        await session.rollback()
        unseen.append(contents(scheduler))
        await session.run_sync(lambda inner: WRITING[name](scheduler, inner))
        await session.commit()

    asyncio.run(with_async_session(async_url(postgresql_url, driver), work))

    assert unseen == [before, before]
    assert contents(scheduler) != before


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_connection_joins_through_run_sync(
    postgresql_url: str, open_scheduler: OpenScheduler, driver: str
) -> None:
    scheduler = open_scheduler(postgresql_url)

    async def schedule() -> None:
        engine = create_async_engine(async_url(postgresql_url, driver))
        async with engine.begin() as connection:
            await connection.run_sync(lambda inner: scheduler.schedule(JOB, connection=inner))
        await engine.dispose()

    asyncio.run(schedule())

    assert statuses(scheduler, [JOB]) == ["pending"]


def refuse(scheduler: TimeoutScheduler, connection: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason) as refused:
        scheduler.schedule(JOB, connection=connection)
    assert refused.value.field == "connection"
    assert scheduler.find(JOB.dedupe_key) is None


def test_an_async_session_itself_is_refused_and_the_way_is_told(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)

    async def work(session: AsyncSession) -> None:
        refuse(scheduler, session, "run_sync")
        refuse(scheduler, await session.connection(), "run_sync")

    asyncio.run(with_async_session(postgresql_url, work))


def test_an_async_psycopg_connection_is_refused(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)

    async def try_it() -> None:
        async with await psycopg.AsyncConnection.connect(libpq(postgresql_url)) as connection:
            refuse(scheduler, connection, "run_sync")

    asyncio.run(try_it())


@pytest.mark.parametrize("connection", ["postgresql://localhost/app", 7, object(), TimeoutJob])
def test_what_is_no_connection_is_refused(database_url: str, open_scheduler: OpenScheduler, connection: object) -> None:
    refuse(open_scheduler(database_url), connection, "give a SQLAlchemy Connection or Session, or a psycopg connection")


def test_an_engine_is_refused(database_url: str, open_scheduler: OpenScheduler) -> None:
    with ExitStack() as stack:
        refuse(open_scheduler(database_url), engine_of(database_url, stack), "give a SQLAlchemy Connection")


def test_a_closed_connection_is_refused(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    with ExitStack() as stack:
        connections = [
            open_connection(postgresql_url, stack).connection,
            open_psycopg(postgresql_url, stack).connection,
        ]
        for connection in connections:
            connection.close()
            refuse(scheduler, connection, "give a SQLAlchemy Connection or Session, or a psycopg connection")


def test_a_session_without_an_engine_is_refused(database_url: str, open_scheduler: OpenScheduler) -> None:
    refuse(open_scheduler(database_url), Session(), "give a SQLAlchemy Connection or Session")


@pytest.mark.parametrize("level", ["engine", "connection"])
def test_autocommit_is_refused(database_url: str, open_scheduler: OpenScheduler, level: str) -> None:
    scheduler = open_scheduler(database_url)
    with ExitStack() as stack:
        options = {"isolation_level": "AUTOCOMMIT"} if level == "engine" else {}
        connection = stack.enter_context(engine_of(database_url, stack, **options).connect())
        if level == "connection":
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")

        refuse(scheduler, connection, "autocommit")


def test_an_async_session_in_autocommit_is_refused(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)

    async def try_it(driver: str) -> None:
        engine = create_async_engine(async_url(postgresql_url, driver), isolation_level="AUTOCOMMIT")
        async with AsyncSession(engine) as session:
            await session.run_sync(lambda inner: refuse(scheduler, inner, "autocommit"))
        await engine.dispose()

    for driver in ("psycopg", "asyncpg"):
        asyncio.run(try_it(driver))


def test_a_psycopg_connection_in_autocommit_is_refused(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    with psycopg.connect(libpq(postgresql_url), autocommit=True) as connection:
        refuse(scheduler, connection, "autocommit")


@contextmanager
def another_database(request: pytest.FixtureRequest, tmp_path: Any, system: str, *, migrated: bool) -> Iterator[str]:
    server = request.getfixturevalue("postgres_server")
    is_sqlite = system == "sqlite"
    url = f"sqlite:///{tmp_path / 'another.sqlite'}" if is_sqlite else server.create_database("another")
    if migrated:
        with closing(TimeoutScheduler(url, settings=make_settings())) as other:
            other.migrate()
    yield url
    if not is_sqlite:
        server.drop_database("another")


@pytest.mark.parametrize("migrated", [True, False])
@pytest.mark.parametrize(
    ("system", "opening"),
    [
        ("sqlite", open_connection),
        ("sqlite", open_session),
        ("postgresql", open_connection),
        ("postgresql", open_session),
        ("postgresql", open_psycopg),
    ],
)
def test_a_connection_to_another_database_is_refused_and_stays_usable(
    request: pytest.FixtureRequest,
    tmp_path: Any,
    open_scheduler: OpenScheduler,
    system: str,
    opening: Opening,
    migrated: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    scheduler = open_scheduler(str(request.getfixturevalue(f"{system}_url")))

    with another_database(request, tmp_path, system, migrated=migrated) as url, ExitStack() as stack:
        caller = opening(url, stack)
        caller.execute("CREATE TABLE orders (number integer)")
        with pytest.raises(InvalidInputError, match="the scheduler's own database") as refused:
            scheduler.schedule(JOB, connection=caller.connection)
        with pytest.raises(InvalidInputError, match="the scheduler's own database"):
            scheduler.find(JOB.dedupe_key, connection=caller.connection)
        caller.execute("INSERT INTO orders VALUES (1)")
        caller.commit()

    assert "another" in str(refused.value.value)


def test_a_connection_of_another_system_is_refused(
    postgresql_url: str, sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    with ExitStack() as stack:
        refuse(open_scheduler(sqlite_url), open_connection(postgresql_url, stack).connection, "sqlite database")
        refuse(open_scheduler(sqlite_url), open_psycopg(postgresql_url, stack).connection, "sqlite database")
        refuse(open_scheduler(postgresql_url), open_connection(sqlite_url, stack).connection, "postgresql database")


def test_what_another_search_path_hides_is_another_database(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    execute(scheduler, "CREATE SCHEMA app")
    with ExitStack() as stack:
        caller = open_psycopg(postgresql_url, stack, options="-c search_path=app")
        refuse(scheduler, caller.connection, "own database")


def test_a_callers_search_path_does_not_matter_with_a_schema_of_our_own(
    empty_postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(empty_postgresql_url, settings=make_settings(schema_name="outreach"))
    scheduler.migrate()
    with ExitStack() as stack:
        caller = open_psycopg(empty_postgresql_url, stack, options="-c search_path=pg_catalog")
        scheduler.schedule(JOB, connection=caller.connection)
        caller.commit()

    assert statuses(scheduler, [JOB]) == ["pending"]


@pytest.mark.parametrize("timezone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_instants_are_utc_whatever_zone_the_callers_connection_speaks(
    postgresql_url: str, open_scheduler: OpenScheduler, timezone: str
) -> None:
    scheduler = open_scheduler(postgresql_url)
    with ExitStack() as stack:
        caller = open_psycopg(postgresql_url, stack, options=f"-c timezone={timezone}")
        scheduler.schedule(JOB, connection=caller.connection)
        action = scheduler.find(JOB.dedupe_key, connection=caller.connection)

    assert action is not None
    assert action.run_at == FAR_AHEAD
    assert action.run_at.utcoffset() == timedelta(0)


def begin_deferred(url: str, stack: ExitStack) -> Connection:
    """SQLAlchemy's recipe for whole transactions on SQLite: BEGIN is said, and takes no lock before the first write."""
    engine = engine_of(url, stack)
    connection = stack.enter_context(engine.connect())
    driver: Any = connection.connection.driver_connection
    driver.isolation_level = None
    driver.execute("BEGIN")
    return connection


def test_reading_first_and_writing_later_works_while_nobody_else_writes(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(sqlite_url)
    with ExitStack() as stack:
        connection = begin_deferred(sqlite_url, stack)
        connection.execute(text("SELECT count(*) FROM scheduled_actions"))
        scheduler.schedule(JOB, connection=connection)
        connection.commit()

    assert statuses(scheduler, [JOB]) == ["pending"]


def test_reading_first_and_writing_after_somebody_else_wrote_is_told_with_its_remedy(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(sqlite_url)
    with ExitStack() as stack:
        connection = begin_deferred(sqlite_url, stack)
        connection.execute(text("SELECT count(*) FROM scheduled_actions"))
        scheduler.schedule(make_job(campaign_id="somebody else's"))

        with pytest.raises(DatabaseUnavailableError, match=r"read before it wrote.*BEGIN IMMEDIATE"):
            scheduler.schedule(JOB, connection=connection)
        connection.rollback()

    assert scheduler.find(JOB.dedupe_key) is None


def test_a_caller_who_holds_the_write_lock_is_told_to_give_his_connection(
    sqlite_url: str, open_scheduler: OpenScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
    scheduler = open_scheduler(sqlite_url)
    with ExitStack() as stack:
        caller = open_connection(sqlite_url, stack)
        scheduler.schedule(JOB, connection=caller.connection)

        with pytest.raises(DatabaseUnavailableError, match="give its connection"):
            scheduler.schedule(make_job(campaign_id="c-2"))


def test_a_state_manager_without_its_connection_is_told_at_once_on_sqlite(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    class Forgetful(Recorder):
        """Schedules, but not through its connection."""

        def process(self, connection: Connection, jobs: Any) -> Any:
            """Forget."""
            scheduler.schedule(make_job(campaign_id="follow-up"))
            return super().process(connection, jobs)

    scheduler = open_scheduler(sqlite_url, state_manager=Forgetful(), settings=make_settings(max_attempts=1))
    scheduler.schedule(make_job())

    scheduler.run_due()

    action = scheduler.find(make_job().dedupe_key)
    assert action is not None
    assert action.status == "error"
    assert "SQLite has one writer at a time" in str(action.last_error)


def test_an_engine_in_autocommit_is_used_with_transactions_all_the_same(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    with ExitStack() as stack:
        engine = engine_of(postgresql_url, stack, isolation_level="AUTOCOMMIT")
        scheduler = open_scheduler(engine=engine)

        with pytest.raises(InvalidInputError):
            scheduler.schedule_many([JOB, "no job"])  # type: ignore[list-item]

        assert scheduler.find(JOB.dedupe_key) is None


@pytest.mark.parametrize("isolation_level", ["SERIALIZABLE", "REPEATABLE READ"])
def test_a_caller_in_a_stricter_isolation_joins_too(
    postgresql_url: str, open_scheduler: OpenScheduler, isolation_level: str
) -> None:
    scheduler = open_scheduler(postgresql_url)
    with ExitStack() as stack:
        engine = engine_of(postgresql_url, stack, isolation_level=isolation_level)
        with engine.begin() as connection:
            scheduler.schedule(JOB, connection=connection)
            scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN, connection=connection)

    assert statuses(scheduler, [JOB]) == ["pending"]


def test_a_savepoint_of_the_caller_undoes_what_was_scheduled_in_it(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, kept, undone = open_scheduler(database_url), JOB, make_job(campaign_id="undone")
    with ExitStack() as stack, engine_of(database_url, stack).begin() as connection:
        scheduler.schedule(kept, connection=connection)
        savepoint = connection.begin_nested()
        scheduler.schedule(undone, connection=connection)
        savepoint.rollback()

    assert statuses(scheduler, [kept, undone]) == ["pending", None]


def test_the_callers_connection_is_left_open_and_as_it_was(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    with psycopg.connect(libpq(postgresql_url), row_factory=dict_row) as connection:
        scheduler.schedule(JOB, connection=connection)

        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        assert not connection.autocommit
        assert not connection.closed


def test_what_is_joined_is_picked_up_by_a_running_loop_once_it_is_committed(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder, job = Recorder(), make_job()
    scheduler = open_scheduler(database_url, state_manager=recorder)
    scheduler.start()
    with ExitStack() as stack, engine_of(database_url, stack).begin() as connection:
        scheduler.schedule(job, connection=connection)
        before_commit = list(recorder.keys)

    eventually(are_completed(scheduler, [job]))
    assert before_commit == []
