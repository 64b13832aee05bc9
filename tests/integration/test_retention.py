"""Retention: what is over for long enough goes whole, what isn't stays, whoever schedules or enrols at that moment."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import pytest
from sqlalchemy import event

from scheduler import Campaign, TimeoutScheduler
from scheduler.domain.errors import InvalidInputError, UnknownCampaignError
from scheduler.runtime.maintenance import Maintenance
from scheduler.service import retention as retention_module
from scheduler.service.owner import Owner
from scheduler.service.retention import CAMPAIGNS, SLICE, SLICES, Retention
from scheduler.store.retention import Removals
from tests.integration.test_event_statements import noted
from tests.integration.test_races import at_once, beside
from tests.support.eventually import eventually
from tests.support.scheduling import execute, make_job, make_jobs, query
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

MONTH: Final = timedelta(days=30)
MONTH_AND_A_DAY: Final = timedelta(days=31)
WAIT: Final = wait("wait", on("opened", "stop"), on("no_open", "stop", after="PT1H"))
MAIL: Final = send("mail", on("opened", "read"), on("no_open", "mail", after="PT24H"))
READ: Final = wait("read", on("clicked", "stop"), on("no_click", "mail", after="PT24H"))
KEY: Final = "acme:c-1:wait:1:timeout:no_open"
BY_HAND: Final = make_job(node_id="by-hand", event_type="no_answer", scheduled_at=NOON + timedelta(days=300))
SEED: Final = 20260302

OWNED: Final = ("contact_campaigns", "scheduled_actions", "campaign_transitions", "campaign_events", "pauses")


def retention_of(scheduler: TimeoutScheduler) -> Retention:
    return Retention(scheduler.stores, scheduler.settings)


def remove_all(scheduler: TimeoutScheduler) -> int:
    """As many rounds as it takes; returns how many rows went."""
    retention, total = retention_of(scheduler), 0
    while removed := retention.remove_some():
        total += removed
    return total


def end(stage: Stage, campaign: str = "c-1", *nodes: dict[str, Any], tenant: str = "acme") -> None:
    """A campaign that begins and ends now, with an event."""
    stage.enroll(*(nodes or (WAIT,)), campaign=campaign, tenant=tenant)
    stage.event("opened", campaign, tenant)
    stage.sm.stop(tenant, campaign)


def left_of(scheduler: TimeoutScheduler, campaign: str, tenant: str = "acme") -> dict[str, int]:
    """How many rows each table has of a campaign."""
    where = "WHERE tenant_id = :tenant AND campaign_id = :campaign"
    counts = {
        table: query(scheduler, f"SELECT count(*) FROM {table} {where}", tenant=tenant, campaign=campaign)[0][0]  # noqa: S608
        for table in OWNED
    }
    return {table: count for table, count in counts.items() if count}


def orphans(scheduler: TimeoutScheduler) -> list[Any]:
    """Rows of campaigns that don't exist, but for timeouts scheduled by hand, and events that met none."""
    return [
        row
        for table in ("campaign_transitions", "campaign_events", "scheduled_actions")
        for row in query(
            scheduler,
            f"SELECT t.* FROM {table} t LEFT JOIN contact_campaigns c USING (tenant_id, campaign_id)"  # noqa: S608
            " WHERE c.campaign_id IS NULL AND t.campaign_id IS NOT NULL"
            + {
                "scheduled_actions": " AND t.node_id <> 'by-hand'",
                "campaign_events": " AND t.outcome <> 'unknown_campaign'",
            }.get(table, ""),
        )
    ]


def test_a_campaign_that_ended_long_ago_goes_whole_and_the_rest_stays(stage: Stage) -> None:
    end(stage, "c-1")
    stage.ts.schedule(make_job(node_id="by-hand", event_type="no_answer", scheduled_at=NOON))
    stage.ts.apscheduler.pause_job("acme:c-1:by-hand:1:timeout:no_answer")
    stage.ts.cancel("acme:c-1:by-hand:1:timeout:no_answer")
    stage.enroll(WAIT, campaign="c-2")
    stage.sm.pause("acme", "c-2")
    stage.clock.advance(MONTH_AND_A_DAY)
    end(stage, "c-3")
    kept = {name: left_of(stage.ts, name) for name in ("c-2", "c-3")}

    removed = remove_all(stage.ts)

    assert removed == 7  # the campaign, two transitions, an event, two actions, a pause nobody lifted
    assert left_of(stage.ts, "c-1") == {}
    assert kept == {name: left_of(stage.ts, name) for name in ("c-2", "c-3")}
    assert (stage.sm.find("acme", "c-1"), stage.sm.history("acme", "c-1")) == (None, [])
    assert (stage.counts()["contacts"], stage.counts()["campaign_plans"]) == (3, 1)


def test_nothing_goes_before_its_time(stage: Stage) -> None:
    end(stage)
    stage.ts.schedule(make_job(campaign_id="alone"))
    stage.run()
    stage.event("opened", "nobody")
    before = stage.counts()
    stage.clock.advance(MONTH)

    assert remove_all(stage.ts) == 0

    assert before == stage.counts()
    stage.clock.advance(timedelta(microseconds=1))
    assert remove_all(stage.ts) == 7


def test_a_campaign_that_runs_keeps_its_keys_however_old(stage: Stage) -> None:
    stage.enroll(
        wait("wait", on("no_open", "later", after="PT1H")), wait("later", on("no_open", "stop", after="P900D"))
    )
    stage.run("PT1H")
    stage.clock.advance("P800D")
    before, story = stage.counts(), stage.sm.explain("acme", "c-1")

    assert remove_all(stage.ts) == 0

    assert (before, story) == (stage.counts(), stage.sm.explain("acme", "c-1"))
    summary = stage.ts.schedule_many([make_job(node_id="wait")])
    assert (summary.scheduled, summary.existing) == (0, 1)
    assert stage.states() == {(1, "no_open"): "transitioned", (2, "no_open"): "pending"}


def test_something_unfinished_keeps_its_finished_campaign(stage: Stage) -> None:
    end(stage)
    stage.ts.schedule(BY_HAND)
    stage.clock.advance(MONTH_AND_A_DAY)
    before = left_of(stage.ts, "c-1")

    assert remove_all(stage.ts) == 0
    assert before == left_of(stage.ts, "c-1")
    assert stage.ts.schedule_many([make_job(node_id="wait")]).existing == 1

    stage.clock.set(BY_HAND.scheduled_at)
    stage.ts.run_due()
    assert stage.action(1, "no_answer").outcome == "campaign_inactive"
    assert remove_all(stage.ts) > 0
    assert left_of(stage.ts, "c-1") == {}


def test_an_error_of_a_campaign_stays_as_long_as_the_campaign(stage: Stage) -> None:
    def refuse(_request: Any) -> None:
        raise ValueError("no")

    stage.handler = refuse
    stage.enroll(MAIL, READ)
    for _ in range(5):
        stage.run("PT10M")
    assert stage.action(1, "sent").status == "error"
    stage.clock.advance(timedelta(days=29))
    assert remove_all(stage.ts) == 0

    stage.clock.advance(timedelta(days=2))
    remove_all(stage.ts)

    assert left_of(stage.ts, "c-1") == {}


def test_actions_without_a_campaign_go_by_when_they_finished(stage: Stage) -> None:
    jobs = {name: make_job(campaign_id=name) for name in ("fired", "failed", "recent", "paused", "pending")}
    for name in ("fired", "failed", "paused"):
        stage.ts.schedule(jobs[name])
    stage.ts.apscheduler.pause_job(jobs["paused"].dedupe_key)
    execute(
        stage.ts,
        "UPDATE scheduled_actions SET status = 'error', finished_at = :at WHERE campaign_id = 'failed'",
        at=NOON if stage.ts.database.is_postgresql else "2026-03-02 12:00:00.000000",
    )
    stage.run()
    stage.clock.advance(MONTH_AND_A_DAY)
    stage.ts.schedule(jobs["recent"])
    stage.run()
    stage.ts.schedule(jobs["pending"])

    assert remove_all(stage.ts) == 2

    found = {name: stage.ts.find(job.dedupe_key) for name, job in jobs.items()}
    assert {name: action.status for name, action in found.items() if action is not None} == {
        "recent": "completed",
        "paused": "paused",
        "pending": "pending",
    }
    summary = stage.ts.schedule_many(jobs.values())
    assert (summary.scheduled, summary.existing) == (2, 3)
    stage.run()
    fired = stage.ts.find(jobs["fired"].dedupe_key)
    assert fired is not None
    assert fired.outcome == "unknown_campaign"


def test_events_without_a_campaign_go_by_when_they_came(stage: Stage) -> None:
    """Late ones of a campaign that is gone, too; one whose campaign was enrolled since goes with it."""
    end(stage, "c-1")
    stage.event("opened", "c-2", event_id="before-enrolment")
    stage.enroll(WAIT, campaign="c-2")
    stage.sm.process_contact_event("acme", "k-9", "replied", event_id="of-contact")
    stage.event("opened", None, message_id="m-unknown", event_id="waiting")
    stage.clock.advance(MONTH_AND_A_DAY)
    remove_all(stage.ts)
    assert stage.event("opened", "c-1", event_id="late").outcome == "unknown_campaign"
    assert sorted(query(stage.ts, "SELECT event_id FROM campaign_events")) == [("before-enrolment",), ("late",)]

    stage.clock.advance(MONTH_AND_A_DAY)
    remove_all(stage.ts)

    assert query(stage.ts, "SELECT event_id FROM campaign_events") == [("before-enrolment",)]


def test_a_removed_campaign_may_be_enrolled_anew(stage: Stage) -> None:
    end(stage)
    stage.clock.advance(MONTH_AND_A_DAY)
    remove_all(stage.ts)

    stage.enroll(WAIT)

    assert stage.states() == {(1, "no_open"): "pending"}
    stage.run("PT1H")
    assert stage.history() == [("wait", "stop", "no_open")]


def test_each_call_removes_a_bounded_number_of_campaigns(stage: Stage) -> None:
    rows = [
        {"tenant_id": "acme", "campaign_id": f"c-{number}", "contact_id": "k-1", "plan": plan_of(WAIT)}
        for number in range(CAMPAIGNS * 2 + 1)
    ]
    stage.sm.enroll_many(rows)
    stage.run("PT1H")
    stage.clock.advance(MONTH_AND_A_DAY)
    retention, each = retention_of(stage.ts), 4  # the campaign, its action, and two transitions

    removed = [retention.remove_some() for _ in range(4)]

    assert [CAMPAIGNS * each, CAMPAIGNS * each, each, 0] == removed


def plan_of(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"version": "1.0", "startNodeId": nodes[0]["id"], "nodes": list(nodes)}


def test_campaigns_that_must_stay_do_not_hold_up_those_behind_them(stage: Stage) -> None:
    """Tenant `acme` has more of them than one call looks at; all ended at the same moment."""
    for tenant, count in (("acme", CAMPAIGNS + 1), ("beta", 2)):
        rows = [
            {"tenant_id": tenant, "campaign_id": f"c-{number}", "contact_id": "k-1", "plan": plan_of(WAIT)}
            for number in range(count)
        ]
        stage.sm.enroll_many(rows)
    stage.run("PT1H")
    stage.ts.schedule_many(make_jobs(CAMPAIGNS + 1, node_id="by-hand", scheduled_at=BY_HAND.scheduled_at))
    stage.clock.advance(MONTH_AND_A_DAY)
    retention = retention_of(stage.ts)

    retention.remove_some()
    retention.remove_some()

    assert stage.sm.find("beta", "c-1") is None
    assert stage.counts()["contact_campaigns"] == CAMPAIGNS + 1


def test_actions_without_a_campaign_are_looked_for_a_piece_at_a_time(stage: Stage) -> None:
    """All but the last are pending: the first call ends before it, and so do its statements."""
    stage.ts.schedule_many(make_jobs(SLICE * SLICES, scheduled_at=BY_HAND.scheduled_at))
    stage.ts.schedule(make_job(campaign_id="z"))
    stage.run()
    stage.clock.advance(MONTH_AND_A_DAY)
    retention = retention_of(stage.ts)

    with noted(stage.ts.stores) as statements:
        removed = [(retention.remove_some(), retention.end_round()) for _ in range(2)]

    assert removed == [(0, False), (1, True)]
    assert len([one for one, _ in statements if "scheduled_actions" in one and "SELECT piece" in one]) == SLICES + 1


def test_a_round_is_over_once_every_walk_has_ended_though_never_in_the_same_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row a call: a walk over one action takes two, over two events three, once; both begin anew at once."""
    monkeypatch.setattr(retention_module, "SLICE", 1)
    monkeypatch.setattr(retention_module, "SLICES", 1)
    stage.ts.schedule(BY_HAND)
    for number in range(2):
        stage.event("opened", "nobody", event_id=f"e-{number}")
    stage.clock.advance(MONTH_AND_A_DAY)
    retention = retention_of(stage.ts)

    ends = [(retention.remove_some(), retention.end_round())[1] for _ in range(6)]

    assert ends == [False, False, True, True, False, True]


def test_tidying_rests_for_ten_minutes_once_everything_was_looked_at(stage: Stage) -> None:
    """A piece a minute until then, and the next piece at once where something was found."""
    stage.ts.schedule_many(make_jobs(SLICE * SLICES, scheduled_at=BY_HAND.scheduled_at))
    stage.ts.schedule(make_job(campaign_id="z"))
    stage.run()
    stage.clock.advance(MONTH_AND_A_DAY)
    clock = SimpleNamespace(now=0.0)
    maintenance = Maintenance(stage.ts.stores, Owner("me"), stage.ts.settings, lambda: clock.now)

    tidied = []
    for clock.now in (0.0, 59.0, 60.0, 61.0, 660.0, 661.0):
        with noted(stage.ts.stores) as statements:
            maintenance.tidy()
        tidied.append(bool(statements))

    # What is behind the first piece is found at 60, and goes: the round is over when nothing is found at 61.
    assert tidied == [True, False, True, True, False, True]


FILL: Final = (
    """
    INSERT INTO contact_campaigns (tenant_id, campaign_id, contact_id, plan_hash, status, current_node_id, node_visit,
    node_entered_at, anchor_at, started_at, completed_at, created_at, updated_at)
    SELECT 'acme', 'c-' || n, 'k', 'h', CASE WHEN n < 200 THEN 'completed' ELSE 'active' END, 'wait', 1, now(), now(),
    now(), CASE WHEN n < 200 THEN timestamptz '2020-01-01' END, now(), now() FROM generate_series(1, 20000) n
    """,
    """
    INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at, status,
    outcome, finished_at) SELECT 'acme', 'x-' || n, 'c-' || n, 'k', 'wait', 'no_open', now(), 'completed', 'done',
    timestamptz '2020-01-01' FROM generate_series(1, 21000) n
    """,
    """
    INSERT INTO campaign_events (tenant_id, event_id, campaign_id, event_type, occurred_at, received_at, outcome)
    SELECT 'acme', 'x-' || n, 'c-' || n, 'opened', timestamptz '2020-01-01', timestamptz '2020-01-01',
    CASE WHEN n > 20000 THEN 'unknown_campaign' ELSE 'recorded' END FROM generate_series(1, 21000) n
    """,
    """
    INSERT INTO campaign_transitions (tenant_id, campaign_id, node_visit, to_node_id, trigger, occurred_at, created_at)
    SELECT 'acme', 'c-' || n, 0, 'wait', 'enrolled', now(), now() FROM generate_series(1, 20000) n
    """,
)
READS_ALL: Final = r"Seq Scan on (campaign_|contact_campaigns|scheduled_actions)|Hash Join|Merge Join|hashed SubPlan"


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_no_statement_reads_a_whole_table(
    postgresql_url: str, open_scheduler: Callable[..., TimeoutScheduler], *, is_analyzed: bool
) -> None:
    scheduler = open_scheduler(postgresql_url)
    for statement in (*FILL, *(["ANALYZE"] if is_analyzed else [])):
        execute(scheduler, statement)
    retention = retention_of(scheduler)

    with noted(scheduler.stores) as statements:
        for _ in range(SLICES * 2):
            retention.remove_some()

    seen = {statement: parameters for statement, parameters in statements if "SELECT" in statement}
    for statement, parameters in seen.items():
        with scheduler.database.transaction() as transaction:
            Removals(scheduler.database).go_by_index(transaction)
            plan = "\n".join(transaction.connection.exec_driver_sql("EXPLAIN " + statement, parameters).scalars())
        assert re.search(READS_ALL, plan) is None, f"{statement}: {plan}"
    assert len([one for one in seen if "DELETE" in one]) == 8


# Races


def while_removing(stage: Stage, work: Callable[[TimeoutScheduler], Any]) -> Any:
    """`work` of another scheduler begins while `c-1` is being removed, and waits for that; returns its answer."""
    other, removals, answers = stage.another(), Removals(stage.ts.database), []
    with ExitStack() as working, stage.ts.database.transaction() as transaction:
        key = ("acme", "c-1")
        assert removals.lock_ended(transaction, [key], transaction.now - MONTH) == {key}
        assert removals.remove_campaigns(transaction, [key])[0] == {key}
        working.enter_context(beside(lambda: answers.append(work(other))))
        eventually(lambda: query(stage.ts, "SELECT 1 FROM pg_locks WHERE NOT granted"))
    return answers[0]


@pytest.fixture
def ended(postgresql_url: str, open_scheduler: Callable[..., TimeoutScheduler]) -> Stage:
    """A stage on PostgreSQL where `c-1` may go. On SQLite the file's lock puts one transaction after the other."""
    stage = Stage(open_scheduler, postgresql_url)
    end(stage)
    stage.clock.advance(MONTH_AND_A_DAY)
    return stage


def test_a_key_scheduled_while_its_campaign_goes_is_scheduled_after_it(ended: Stage) -> None:
    summary = while_removing(ended, lambda other: other.schedule_many([make_job(node_id="wait")]))

    assert summary.scheduled == 1
    assert left_of(ended.ts, "c-1") == {"scheduled_actions": 1}
    ended.run()
    assert query(ended.ts, "SELECT outcome, claim_number FROM scheduled_actions") == [("unknown_campaign", 1)]


def test_a_timeout_committed_while_its_campaign_is_looked_at_keeps_it_whole(ended: Stage) -> None:
    """By hand, by somebody who locks nothing, after the last of the campaign's events went."""
    other, before = ended.another(), left_of(ended.ts, "c-1")
    jobs = [BY_HAND]

    def schedule(*facts: Any) -> None:
        if "DELETE FROM contact_campaigns" in facts[2] and jobs:
            other.schedule(jobs.pop())

    event.listen(ended.ts.database.engine, "before_cursor_execute", schedule)

    assert remove_all(ended.ts) == 0

    assert jobs == []
    assert {**before, "scheduled_actions": before["scheduled_actions"] + 1} == left_of(ended.ts, "c-1")


def test_a_timeout_committed_after_its_campaign_went_fires_once_without_one(ended: Stage) -> None:
    other = ended.another()
    due = make_job(node_id="by-hand", event_type="no_answer")

    with other.database.engine.begin() as connection:
        other.schedule(due, connection=connection)
        assert remove_all(ended.ts) > 0

    assert left_of(ended.ts, "c-1") == {"scheduled_actions": 1}
    assert (ended.run(), ended.run()) == (1, 0)
    assert query(ended.ts, "SELECT outcome FROM scheduled_actions") == [("unknown_campaign",)]


def test_a_campaign_that_begins_again_while_it_goes_begins_as_a_new_one(ended: Stage) -> None:
    enrol = partial(lambda other: other.campaigns.enroll("acme", "c-1", "k-1", plan_of(WAIT), restart=True))

    campaign = while_removing(ended, enrol)

    assert (campaign.status, campaign.node_visit) == ("active", 1)
    assert ended.states() == {(1, "no_open"): "pending"}
    assert remove_all(ended.ts) == 0


def test_many_that_begin_again_while_one_goes_all_begin(ended: Stage) -> None:
    rows = [
        {"tenant_id": "acme", "campaign_id": f"c-{n}", "contact_id": f"k-{n}", "plan": plan_of(WAIT), "restart": True}
        for n in range(3)
    ]

    summary = while_removing(ended, lambda other: other.campaigns.enroll_many(rows))

    assert (summary.enrolled, summary.existing) == (3, 0)
    assert ended.states() == {(1, "no_open"): "pending"}


def test_a_campaign_that_is_beginning_again_stays(ended: Stage) -> None:
    other = ended.another()

    with other.database.engine.begin() as connection:
        other.campaigns.enroll("acme", "c-1", "k-1", plan_of(WAIT), restart=True, connection=connection)
        assert remove_all(ended.ts) == 0

    assert remove_all(ended.ts) == 0
    assert [one.trigger for one in ended.sm.history("acme", "c-1")] == ["enrolled", "opened", "restarted"]


def test_a_key_fired_long_before_its_campaign_is_enrolled_stays_with_it(ended: Stage) -> None:
    """The enrolment is open: nobody but the one who enrols sees that the key has a campaign."""
    job = make_job(campaign_id="c-2", node_id="wait")
    ended.ts.schedule(job)
    ended.run()
    ended.clock.advance(MONTH_AND_A_DAY)
    other = ended.another()

    with other.database.engine.begin() as connection:
        other.campaigns.enroll("acme", "c-2", "k-2", plan_of(WAIT), connection=connection)
        remove_all(ended.ts)

    assert ended.ts.schedule_many([job]).existing == 1
    assert left_of(ended.ts, "c-2") == {"contact_campaigns": 1, "scheduled_actions": 1, "campaign_transitions": 1}


@pytest.mark.parametrize("table", ["contact_campaigns", "scheduled_actions", "campaign_events"])
def test_what_somebody_has_locked_keeps_its_campaign_alone_and_is_not_waited_for(ended: Stage, table: str) -> None:
    ended.clock.set(NOON)
    end(ended, "c-2")
    ended.clock.advance(MONTH_AND_A_DAY)
    before = left_of(ended.ts, "c-1")

    with ended.ts.database.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM {table} WHERE campaign_id = 'c-1' FOR UPDATE")  # noqa: S608
        assert remove_all(ended.ts) > 0

    assert (before, {}) == (left_of(ended.ts, "c-1"), left_of(ended.ts, "c-2"))
    assert remove_all(ended.ts) > 0
    assert left_of(ended.ts, "c-1") == {}


def test_an_action_reopened_while_it_goes_stays(ended: Stage) -> None:
    ended.ts.schedule(make_job(campaign_id="alone"))
    ended.run()
    execute(ended.ts, "UPDATE scheduled_actions SET status = 'error' WHERE campaign_id = 'alone'")
    ended.clock.advance(MONTH_AND_A_DAY)
    other = ended.another()

    with other.database.engine.begin() as connection:
        assert other.retry(make_job(campaign_id="alone").dedupe_key, connection=connection)
        remove_all(ended.ts)

    assert remove_all(ended.ts) == 0
    assert left_of(ended.ts, "alone") == {"scheduled_actions": 1}


def test_all_at_once_leave_every_campaign_whole_or_gone(stage: Stage) -> None:
    """Two daemons remove, others schedule, enrol, tell events and erase: no error, no orphan, and no timeout lost."""
    names = [f"c-{number}" for number in range(24)]
    for name in names:
        end(stage, name)
    stage.clock.advance(MONTH_AND_A_DAY)
    others = [stage.another() for _ in range(6)]
    shuffled = [random.Random(SEED + number).sample(names, len(names)) for number in range(4)]  # noqa: S311 - no secret
    by_hand = {name: make_job(campaign_id=name, node_id="by-hand", scheduled_at=BY_HAND.scheduled_at) for name in names}

    def enrol(name: str) -> Campaign:
        return others[3].campaigns.enroll("acme", name, name.replace("c-", "k-"), plan_of(WAIT), restart=True)

    at_once(
        lambda: remove_all(others[0]),
        lambda: remove_all(others[1]),
        lambda: [others[2].schedule(by_hand[name]) for name in shuffled[0][:12]],
        lambda: [enrol(name) for name in shuffled[1][:12]],
        lambda: [others[4].campaigns.process_event("acme", "clicked", campaign_id=name) for name in shuffled[2][:12]],
        lambda: [others[5].campaigns.erase("acme", name.replace("c-", "k-")) for name in shuffled[3][:12]],
    )

    assert orphans(stage.ts) == []
    for name in shuffled[0][:12]:
        action = stage.ts.find(by_hand[name].dedupe_key)
        assert action is not None
        assert action.status in ("pending", "canceled")
    for name in shuffled[1][:12]:
        history = stage.sm.history("acme", name)
        assert [one.node_visit for one in history] == list(range(len(history)))
        entered = {one.node_visit + 1 for one in history if one.to_node_id == "wait"}
        assert entered == {one.node_visit for one in stage.actions(name) if one.node_id == "wait"}


def test_whatever_happened_before_what_runs_is_unchanged_and_what_ended_is_gone(stage: Stage) -> None:
    chance = random.Random(SEED)  # noqa: S311 - no secret
    names = [f"c-{number}" for number in range(24)]
    for name in names:
        stage.enroll(MAIL, READ, campaign=name, tenant=chance.choice(["acme", "beta"]))
    for _ in range(70):
        act_at_random(stage, chance, names)
    stage.clock.advance(timedelta(days=15))
    for _ in range(20):
        act_at_random(stage, chance, names)
    ends = {(row[0], row[1]): row[2:] for row in query(stage.ts, ENDS)}
    stage.clock.advance(timedelta(days=16))
    border = stage.clock.now() - MONTH
    old = {key for key in ends if (ended := campaign_of(stage, key).completed_at) is not None and ended < border}
    stories = {key: story_of(stage, key) for key in ends.keys() - old}
    assert 5 < len(old) < len(ends) - 5

    remove_all(stage.ts)

    assert stories == {key: story_of(stage, key) for key in stories}
    assert [{}] * len(old) == [left_of(stage.ts, campaign, tenant) for tenant, campaign in old]
    assert orphans(stage.ts) == []


ENDS: Final = "SELECT tenant_id, campaign_id, status FROM contact_campaigns"


def campaign_of(stage: Stage, key: tuple[str, str]) -> Any:
    return stage.campaign(key[1], key[0])


def story_of(stage: Stage, key: tuple[str, str]) -> Any:
    return (
        campaign_of(stage, key),
        stage.sm.history(*key),
        stage.actions(key[1], key[0]),
        stage.sm.explain(*key),
        left_of(stage.ts, key[1], key[0]),
    )


def act_at_random(stage: Stage, chance: random.Random, names: list[str]) -> None:
    tenant, name = chance.choice(["acme", "beta"]), chance.choice(names)
    acts: list[Callable[[], Any]] = [
        partial(stage.run, timedelta(minutes=chance.randrange(300))),
        partial(stage.sm.pause, tenant, name),
        partial(stage.sm.resume, tenant, name),
        partial(stage.sm.stop, tenant, name),
        partial(stage.sm.enroll, tenant, name, name, plan_of(MAIL, READ), restart=True),
        *[partial(stage.event, kind, name, tenant) for kind in ("opened", "clicked", "replied", "bounced")],
    ]
    with suppress(InvalidInputError, UnknownCampaignError):
        chance.choice(acts)()
