import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from scheduler import DatabaseUnavailableError, TimeoutJob, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.service.owner import Owner
from scheduler.service.progress_notes import ProgressNotes
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


def test_status_tells_what_is_paused(command: Command, timeouts: TimeoutScheduler) -> None:
    timeouts.campaigns.pause_sends(actor="ada", reason="a wrong link")
    timeouts.campaigns.pause_sends("acme")
    timeouts.campaigns.pause_tenant("acme")

    lines = command("status").out.splitlines()
    document = command("status", "--json").document

    assert [line.partition(", since")[0] for line in lines[3:]] == [
        "paused: all mail",
        "paused: mail of acme",
        "paused: acme",
    ]
    assert lines[3].endswith(" by ada: a wrong link")
    assert [(one["scope"], one["tenant_id"]) for one in document["pauses"]] == [
        ("sends", None),
        ("sends", "acme"),
        ("tenant", "acme"),
    ]


def test_watch_prints_a_line_each_time_until_it_is_interrupted(
    command: Command, timeouts: TimeoutScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts.schedule_many([make_job("c-1", PAST), make_job("c-2", PAST, "other"), make_job("c-3", FUTURE)])
    looks: Iterator[Callable[[], None]] = iter([lambda: fire(timeouts), lambda: None])
    monkeypatch.setattr("scheduler.cli.status_watch.wait", lambda _: next(looks, interrupt)())
    answer = command("status", "--watch", "--interval", "PT0.1S", "--json")

    first, second, third = (json.loads(line) for line in answer.out.splitlines())
    assert (answer.code, answer.err) == (0, "")
    assert (first["due"], first["rate"], first["instances"]) == (2, 0, [])
    assert first["oldest_due_seconds"] > 5 * 365 * 86_400
    assert (second["due"], third["due"], second["oldest_due_seconds"]) == (0, 0, 0)


def fire(timeouts: TimeoutScheduler) -> None:
    assert timeouts.run_due() == 2


def interrupt() -> None:
    raise KeyboardInterrupt


def test_watch_shows_how_fast_and_how_late_instances_fire(
    command: Command, timeouts: TimeoutScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts.schedule_many([make_job(f"c-{number}", PAST) for number in range(20)])
    owner = Owner("one")
    with timeouts.database.transaction() as transaction:
        timeouts.stores.instances.note_alive(transaction, owner.id, "one", 1, None, None)
    notes = ProgressNotes(timeouts.stores, owner, timeouts.metrics)
    timeouts.run_due()
    notes.note()
    monkeypatch.setattr("scheduler.cli.status_watch.wait", lambda _: interrupt())

    document = json.loads(command("status", "--watch", "--json").out)
    line = command("status", "--watch").out

    assert document["rate"] > 0
    assert document["lateness_seconds"] > 5 * 365 * 86_400
    assert document["instances"] == ["one"]
    assert "due 0" in line
    assert "instances 1" in line


def test_an_instance_that_ends_nothing_notes_so_once(timeouts: TimeoutScheduler) -> None:
    owner = Owner("one")
    with timeouts.database.transaction() as transaction:
        timeouts.stores.instances.note_alive(transaction, owner.id, "one", 1, None, None)
    notes = ProgressNotes(timeouts.stores, owner, timeouts.metrics)
    timeouts.schedule(make_job("c-1", PAST))
    timeouts.run_due()

    seen = []
    for _ in range(3):
        notes.note()
        with timeouts.database.reading() as transaction:
            (one,) = timeouts.stores.instances.select(transaction)
        seen.append((one.ended, (one.rate or 0) > 0, one.progress_at))

    assert [noted[:2] for noted in seen] == [(1, True), (1, False), (1, False)]
    assert seen[1][2] == seen[2][2]


def test_watch_goes_on_while_the_database_is_away(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise DatabaseUnavailableError("it is away")

    monkeypatch.setattr("scheduler.cli.status_watch.StatusQueries.now_by_tenant", away)
    looks: Iterator[Callable[[], None]] = iter([lambda: None])
    monkeypatch.setattr("scheduler.cli.status_watch.wait", lambda _: next(looks, interrupt)())

    assert command("status", "--watch").out == "the database can't be used: it is away\n" * 2


@pytest.mark.parametrize("interval", ["2", "PT0S", "P1M", "-PT1S"])
def test_an_unusable_interval_is_refused(on_sqlite: Command, interval: str) -> None:
    answer = on_sqlite("status", "--watch", "--interval", interval)

    assert (answer.code, answer.out) == (2, "")
    assert f"--interval: '{interval}' is not usable" in answer.err


def test_finished_actions_are_not_counted(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    sqlite_timeouts.cancel(sqlite_timeouts.schedule(make_job("c-1", FUTURE)))

    assert on_sqlite("status", "--json").document["tenants"] == []
