"""Which campaigns wait for nothing, and why."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from scheduler import InvalidInputError, PermanentSendError, SendRequest, SendResult, TimeoutScheduler
from tests.support.scheduling import execute
from tests.support.stage import Stage
from tests.support.walk import on, send, wait

NO_TIMER = wait("a", on("replied", "stop"), on("opened", "stop"))
TIMED = wait("a", on("no_open", "stop", after="PT2H"), on("replied", "stop"))
TIMEOUT = "acme:c-1:a:1:timeout:no_open"


def stuck(stage: Stage, **options: Any) -> list[tuple[str, str]]:
    return [(one.campaign.campaign_id, one.reason) for one in stage.sm.stuck(**options)]


def test_a_node_without_a_timeout_waits_for_its_events_only(stage: Stage) -> None:
    stage.enroll(NO_TIMER)

    assert stuck(stage) == [("c-1", "a has no timeout; only opened or replied can move it")]


def test_only_active_campaigns_without_anything_to_come_are_stuck(stage: Stage) -> None:
    stage.enroll(TIMED, campaign="c-timed")
    stage.enroll(NO_TIMER, campaign="c-paused")
    stage.sm.pause("acme", "c-paused")
    stage.enroll(NO_TIMER, campaign="c-stopped")
    stage.sm.stop("acme", "c-stopped")
    stage.enroll(TIMED, campaign="c-held")
    stage.ts.apscheduler.pause_job("acme:c-held:a:1:timeout:no_open")

    assert stuck(stage) == []


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda ts: ts.cancel(TIMEOUT, "left the company"), "its timeout no_open was canceled (left the company)"),
        (lambda ts: ts.cancel(TIMEOUT), "its timeout no_open was canceled (by hand, without a reason)"),
        (
            lambda ts: ts.campaigns.process_event("acme", "opened", campaign_id="c-1"),
            "its timeout no_open was answered by an event that no transition wanted",
        ),
    ],
)
def test_a_timeout_that_is_over_says_how(stage: Stage, end: Callable[[TimeoutScheduler], object], reason: str) -> None:
    stage.enroll(TIMED)
    end(stage.ts)

    assert stuck(stage) == [("c-1", f"{reason}; only replied can move it")]


def test_a_timeout_in_error_is_named_and_handed_over(stage: Stage) -> None:
    stage.enroll(TIMED)
    execute(
        stage.ts,
        "UPDATE scheduled_actions SET status = 'error', outcome = 'failed', attempts = 5, last_error = 'KeyError: x',"
        " finished_at = run_at",
    )
    (found,) = stage.sm.stuck()

    assert found.reason == "its timeout no_open failed for good: KeyError: x"
    assert found.error_action == stage.action(1, "no_open")
    assert stage.ts.retry(found.error_action.dedupe_key)
    assert stuck(stage) == []


def test_a_send_that_was_canceled_is_named(stage: Stage) -> None:
    stage.enroll(send("a", on("replied", "stop")))
    stage.ts.cancel("acme:c-1:a:1:send:sent", "a typo")

    assert stuck(stage) == [("c-1", "its mail was canceled (a typo); a has no timeout; only replied can move it")]


def test_a_campaign_whose_send_failed_is_over_and_not_stuck(stage: Stage) -> None:
    def refuse(_request: SendRequest) -> SendResult:
        raise PermanentSendError("no such mailbox")

    stage.handler = refuse
    stage.enroll(send("a", on("replied", "stop")))
    stage.run()

    assert (stage.campaign().status, stuck(stage)) == ("error", [])


def test_a_timeout_that_was_never_scheduled_is_named(stage: Stage) -> None:
    stage.enroll(TIMED)
    execute(stage.ts, "DELETE FROM scheduled_actions")

    assert stuck(stage) == [("c-1", "its timeout no_open was never scheduled; only replied can move it")]


def test_they_come_in_key_order_up_to_the_limit_and_of_one_tenant_if_asked(stage: Stage) -> None:
    for tenant, campaign in [("acme", "c-2"), ("other", "c-1"), ("acme", "c-3"), ("acme", "c-1")]:
        stage.enroll(NO_TIMER, tenant=tenant, campaign=campaign)
    keys = [("acme", "c-1"), ("acme", "c-2"), ("acme", "c-3"), ("other", "c-1")]

    assert [one.campaign.key for one in stage.sm.stuck()] == keys
    assert [one.campaign.key for one in stage.sm.stuck(limit=2)] == keys[:2]
    assert [one.campaign.key for one in stage.sm.stuck("other")] == keys[3:]
    assert stage.sm.stuck("nobody") == []


@pytest.mark.parametrize("limit", [0, -1, 100_001, True, "10", None])
def test_an_unusable_limit_is_refused(stage: Stage, limit: Any) -> None:
    with pytest.raises(InvalidInputError, match="limit"):
        stage.sm.stuck(limit=limit)


def test_a_callers_transaction_sees_what_it_has_written(stage: Stage) -> None:
    with stage.ts.database.engine.connect() as connection, connection.begin() as transaction:
        stage.enroll(NO_TIMER, connection=connection)
        found = stage.sm.stuck(connection=connection)
        transaction.rollback()

    assert [one.campaign.campaign_id for one in found] == ["c-1"]
    assert stuck(stage) == []


# Each campaign has one timeout; a tenth of the campaigns has finished it.
FILL = {
    "postgresql": """
        INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at,
                                       status, finished_at)
        SELECT 't-' || (n % 10), 'k-' || n, 'c-' || n, 'k', 'a', 'no_open', now(),
               CASE n / 10 % 10 WHEN 0 THEN 'completed' ELSE 'pending' END, CASE n / 10 % 10 WHEN 0 THEN now() END
        FROM generate_series(1, 20000) AS n
    """,
    "sqlite": """
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
        INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at,
                                       status, finished_at)
        SELECT 't-' || (n % 10), 'k-' || n, 'c-' || n, 'k', 'a', 'no_open', '2026-03-02 12\\:00\\:00.000000',
               CASE n / 10 % 10 WHEN 0 THEN 'completed' ELSE 'pending' END,
               CASE n / 10 % 10 WHEN 0 THEN '2026-03-02 12\\:00\\:00.000000' END
        FROM numbers
    """,
}
CAMPAIGNS = """
    INSERT INTO contact_campaigns (tenant_id, campaign_id, contact_id, plan_hash, status, current_node_id, node_visit,
                                   node_entered_at, anchor_at, started_at, created_at, updated_at)
    SELECT tenant_id, campaign_id, 'k', 'h', 'active', 'a', 1, run_at, run_at, run_at, run_at, run_at
    FROM scheduled_actions
"""
ASKS_AN_INDEX = r"(Index|Bitmap).*ix_scheduled_actions_(unfinished|campaign)|USING.*INDEX ix_scheduled_actions_\w+ \("


@pytest.mark.parametrize("is_analyzed", [False, True], ids=["statistics of an empty table", "analyzed"])
def test_it_asks_an_index_once_per_campaign_and_reads_no_table_of_actions(stage: Stage, is_analyzed: bool) -> None:  # noqa: FBT001
    system = stage.ts.database.dialect_name
    execute(stage.ts, FILL[system])
    execute(stage.ts, CAMPAIGNS)
    if is_analyzed:
        execute(stage.ts, "ANALYZE")

    assert (len(stage.sm.stuck(limit=3000)), len(stage.sm.stuck("t-1", limit=3000))) == (2000, 200)
    plan = plan_of_stuck(stage)
    assert re.search(ASKS_AN_INDEX, plan), plan
    assert not re.search(r"Seq Scan on scheduled_actions|SCAN scheduled_actions", plan), plan
    assert "hashed" not in plan.lower(), plan


def plan_of_stuck(stage: Stage) -> str:
    """How the database finds stuck campaigns."""
    statements: list[tuple[str, Any]] = []

    def heed(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "EXISTS" in statement and "scheduled_actions" in statement:
            statements.append((statement, parameters))

    event.listen(stage.ts.database.engine, "before_cursor_execute", heed)
    try:
        stage.sm.stuck("t-1")
    finally:
        event.remove(stage.ts.database.engine, "before_cursor_execute", heed)
    ((statement, parameters),) = statements
    prefix = "EXPLAIN " if stage.ts.database.is_postgresql else "EXPLAIN QUERY PLAN "
    with stage.ts.database.engine.connect() as connection:
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(prefix + statement, parameters))
