"""The limit on SQLite: batches of plain SQL through sqlite3."""

from __future__ import annotations

import sqlite3
import time
from datetime import timedelta
from typing import Any, Final

from benchmarks.programs.child import answer, job, wait_for_go
from scheduler.domain.timing import SystemClock
from scheduler.store.tables import to_text

BATCH: Final = 500
BULK: Final = 5000

_CLAIM: Final = """
UPDATE scheduled_actions
SET status = 'claimed', claimed_by = 'limit', claim_number = claim_number + 1, claimed_until = ?
WHERE (tenant_id, dedupe_key) IN (
    SELECT tenant_id, dedupe_key FROM scheduled_actions
    WHERE status = 'pending' AND action_type = 'timeout' AND run_at <= ? ORDER BY run_at LIMIT ?
)
RETURNING tenant_id, campaign_id, contact_id, dedupe_key, node_visit
"""
_CHECK: Final = "SELECT status, node_visit FROM contact_campaigns WHERE tenant_id = ? AND campaign_id = ?"
_COMPLETE: Final = """
UPDATE scheduled_actions SET status = 'completed', outcome = 'transitioned', claimed_until = NULL, updated_at = ?,
    finished_at = ? WHERE tenant_id = ? AND dedupe_key = ? AND status = 'claimed' AND claimed_by = 'limit'
"""
_MOVE: Final = """
UPDATE contact_campaigns
SET current_node_id = 'second', node_visit = 2, node_entered_at = ?, anchor_at = ?, updated_at = ?
WHERE tenant_id = ? AND campaign_id = ?
"""
_RECORD: Final = """
INSERT INTO campaign_transitions (tenant_id, campaign_id, node_visit, from_node_id, to_node_id, trigger, occurred_at,
    created_at, dedupe_key) VALUES (?, ?, 1, 'first', 'second', 'no_open', ?, ?, ?)
"""
_CANCEL: Final = """
UPDATE scheduled_actions SET status = 'canceled', outcome = 'visit left', updated_at = ?, finished_at = ?
WHERE tenant_id = ? AND campaign_id = ? AND node_visit = 1 AND status IN ('pending', 'claimed', 'paused')
"""
_SCHEDULE: Final = """
INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, node_visit, event_type,
    deadline, run_at) VALUES (?, ?, ?, ?, 'second', 2, 'no_open', ?, ?)
"""
_ONE: Final = """
INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, deadline, run_at)
VALUES (?, ?, ?, ?, 'first', 'no_open', ?, ?)
"""


def fire_batch(connection: sqlite3.Connection) -> int:
    """Claim a batch and fire it; returns how many were claimed."""
    instant = SystemClock().now()
    now, later = to_text(instant), to_text(instant + timedelta(hours=100))
    connection.execute("BEGIN IMMEDIATE")
    claimed = connection.execute(_CLAIM, (to_text(instant + timedelta(minutes=1)), now, BATCH)).fetchall()
    connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    rows = [row for row in claimed if connection.execute(_CHECK, row[:2]).fetchone() == ("active", row[4])]
    connection.executemany(_COMPLETE, [(now, now, row[0], row[3]) for row in rows])
    connection.executemany(_MOVE, [(now, now, now, row[0], row[1]) for row in rows])
    connection.executemany(_RECORD, [(row[0], row[1], now, now, row[3]) for row in rows])
    connection.executemany(_CANCEL, [(now, now, row[0], row[1]) for row in rows])
    follow_ups = [(row[0], f"{row[0]}:{row[1]}:second:2:timeout:no_open", row[1], row[2], later, later) for row in rows]
    connection.executemany(_SCHEDULE, follow_ups)
    connection.execute("COMMIT")
    return len(claimed)


def schedule(connection: sqlite3.Connection, one: int, bulk: int) -> None:
    """Rows per second: each committed by itself, and many in a transaction."""
    due = to_text(SystemClock().now() + timedelta(days=1))
    singles = [_row("one", number, due) for number in range(one)]
    many = [_row("bulk", number, due) for number in range(bulk)]
    wait_for_go()
    began = time.perf_counter()
    for row in singles:
        connection.execute(_ONE, row)
    between = time.perf_counter()
    for start in range(0, bulk, BULK):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_ONE, many[start : start + BULK])
        connection.execute("COMMIT")
    answer(one=one / (between - began), bulk=bulk / (time.perf_counter() - between))


def _row(name: str, number: int, due: str) -> tuple[Any, ...]:
    tenant, campaign = f"{name}-{number % 10}", f"campaign-{number}"
    return tenant, f"{tenant}:{campaign}:first:1:timeout:no_open", campaign, f"contact-{number}", due, due


def main() -> None:
    """Do the job."""
    wanted = job()
    connection = sqlite3.connect(wanted["url"].removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if wanted["mode"] == "schedule":
        schedule(connection, wanted["one"], wanted["bulk"])
        return
    wait_for_go()
    while fire_batch(connection):
        pass


if __name__ == "__main__":
    main()
