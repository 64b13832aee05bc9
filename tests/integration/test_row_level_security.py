"""Row-level security by tenant, as `db rls` prints it: the application sees one tenant, the daemon all."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from scheduler import MissingRightError
from scheduler.store.rights import row_level_security_sql
from tests.support.postgres import PostgresServer
from tests.support.roles import RoledDatabase, calls_of, error_of, roled_database
from tests.support.scheduling import are_completed, make_job


@pytest.fixture(scope="module")
def secured(postgres_server: PostgresServer) -> Iterator[RoledDatabase]:
    """With row-level security; each test has tenants of its own."""
    with roled_database(postgres_server) as database:
        script = row_level_security_sql(None, database.prefix)
        database.run(script)
        database.run(script)
        yield database


def test_the_application_may_make_every_call_for_its_tenant(secured: RoledDatabase) -> None:
    with secured.opened("application", "acme") as timeouts:
        calls = calls_of(timeouts, "acme")
        errors = {name: error for name, call in calls.items() if (error := error_of(call)) is not None}

    assert errors.keys() == {"pause_all"}, "which concerns every tenant"
    assert isinstance(errors["pause_all"], MissingRightError)


def test_it_sees_no_other_tenant_and_none_without_a_name(secured: RoledDatabase) -> None:
    for tenant_id in ("mine", "theirs"):
        with secured.opened("application", tenant_id) as timeouts:
            timeouts.schedule(make_job(tenant_id=tenant_id))
    key = make_job(tenant_id="theirs").dedupe_key
    with secured.opened("application", "mine") as timeouts:
        seen = {action.tenant_id for action in timeouts.list_actions()}
        assert (seen, timeouts.find(key), timeouts.cancel(key)) == ({"mine"}, None, False)
    with secured.opened("application") as nameless:
        assert nameless.list_actions() == []


def test_it_writes_nothing_of_another_tenant(secured: RoledDatabase) -> None:
    with secured.opened("application", "mine") as timeouts, pytest.raises(MissingRightError) as refused:
        timeouts.schedule(make_job(tenant_id="theirs", campaign_id="c-2"))

    assert "row-level security policy" in str(refused.value)
    assert "SET LOCAL timeout_scheduler.tenant_id" in str(refused.value)


def test_the_callers_transaction_names_the_tenant(secured: RoledDatabase) -> None:
    """As in a pool whose connections serve one tenant after the other."""
    with secured.opened("application") as timeouts, timeouts.database.engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql("SET LOCAL timeout_scheduler.tenant_id = 'pooled'")
            timeouts.schedule(make_job(tenant_id="pooled"), connection)
            assert [one.tenant_id for one in timeouts.list_actions(connection=connection)] == ["pooled"]
        with connection.begin():
            assert timeouts.list_actions(connection=connection) == []


def test_a_pause_of_everything_holds_and_isnt_lifted_by_an_application(secured: RoledDatabase) -> None:
    with secured.opened("owner") as owner:
        owner.campaigns.pause_all()
        with secured.opened("application", "held") as timeouts:
            assert [one.scope for one in timeouts.campaigns.pauses()] == ["all"]
            with pytest.raises(MissingRightError):
                timeouts.campaigns.resume_all()
        with secured.connect("application", "held") as connection:
            lifted = connection.execute("DELETE FROM pauses WHERE tenant_id = ''").rowcount
        with secured.connect("application", "held") as connection, pytest.raises(psycopg.Error, match="policy"):
            connection.execute("UPDATE pauses SET dedupe_key = 'x' WHERE tenant_id = ''")
        assert lifted == 0
        assert [one.scope for one in owner.campaigns.pauses()] == ["all"]
        owner.campaigns.resume_all()


def test_the_daemon_fires_for_all_tenants(secured: RoledDatabase) -> None:
    jobs = [make_job(tenant_id=tenant_id, campaign_id="due") for tenant_id in ("first", "second")]
    with secured.opened("owner") as owner:
        owner.schedule_many(jobs)
    with secured.opened("daemon") as daemon:
        daemon.run_due()
        assert are_completed(daemon, jobs)()


def test_a_daemons_claim_has_the_plan_it_has_without(secured: RoledDatabase) -> None:
    """Policies don't concern the owner, as if there were none."""
    claim = (
        b"EXPLAIN (COSTS OFF) SELECT dedupe_key FROM scheduled_actions WHERE action_type = 'timeout'"
        b" AND status = 'pending' AND run_at <= now() ORDER BY run_at LIMIT 500 FOR UPDATE SKIP LOCKED"
    )
    plans = []
    for role in ("owner", "daemon"):
        with secured.connect(role) as connection:
            plans.append(connection.execute(claim).fetchall())

    assert plans[0] == plans[1]
