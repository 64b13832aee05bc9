from datetime import UTC, datetime, timedelta

from scheduler import TimeoutJob, TimeoutScheduler
from scheduler.domain.action import ActionType
from tests.integration.cli.conftest import Command, enrol

PAST = datetime(2020, 3, 2, 12, tzinfo=UTC)
FUTURE = datetime(2030, 3, 2, 12, tzinfo=UTC)


def make_job(campaign_id: str, scheduled_at: datetime, tenant_id: str = "acme") -> TimeoutJob:
    return TimeoutJob(
        tenant_id=tenant_id,
        campaign_id=campaign_id,
        contact_id="k",
        node_id="n",
        event_type="no_open",
        scheduled_at=scheduled_at,
    )


def claim_one(timeout_scheduler: TimeoutScheduler, owner: str) -> None:
    with timeout_scheduler.database.transaction() as transaction:
        claims = timeout_scheduler.stores.claims
        assert len(claims.claim(transaction, ActionType.TIMEOUT, 1, owner, timedelta(minutes=1))) == 1


def test_status_counts_by_tenant_and_in_total(command: Command, timeouts: TimeoutScheduler) -> None:
    timeouts.schedule(make_job("c-0", PAST - timedelta(days=1)))
    claim_one(timeouts, "instance-1")
    jobs = [make_job("c-1", PAST), make_job("c-2", PAST + timedelta(days=1)), make_job("c-3", FUTURE)]
    timeouts.schedule_many([*jobs, make_job("c-4", FUTURE, "other")])
    enrol(timeouts, "c-5")
    timeouts.campaigns.pause("acme", "c-5")

    document = command("status", "--json").document

    acme, other = document["tenants"]
    assert acme.pop("oldest_due_seconds") > 5 * 365 * 86_400
    assert acme == {
        "tenant_id": "acme",
        "pending": 3,
        "due": 2,
        "oldest_due_at": "2020-03-02T12:00:00+00:00",
        "claimed": 1,
        "paused": 1,
        "error": 0,
    }
    assert (other["tenant_id"], other["pending"], other["due"], other["oldest_due_at"]) == ("other", 1, 0, None)
    assert {name: document["total"][name] for name in ("pending", "due", "claimed")} == {
        "pending": 4,
        "due": 2,
        "claimed": 1,
    }
    assert document["instances"] == ["instance-1"]


def test_status_of_an_empty_database_is_all_zeros(command: Command) -> None:
    assert command("status").out.splitlines() == [
        "tenant  pending  due  oldest due  claimed  paused  error",
        "(all)   0        0    -           0        0       0",
        "holding claims: nobody",
    ]


def test_finished_actions_are_not_counted(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    sqlite_timeouts.cancel(sqlite_timeouts.schedule(make_job("c-1", FUTURE)))

    assert on_sqlite("status", "--json").document["tenants"] == []
