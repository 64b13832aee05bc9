"""The limit on PostgreSQL: batches of plain SQL, arrays through unnest, no decision but the check of the campaign."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any, Final

import psycopg

from benchmarks.programs.child import answer, job, wait_for_go
from scheduler.domain.timing import SystemClock

BATCH: Final = 500
BULK: Final = 5000
_OWNER: Final = "limit"
_FIRING: Final = 2
_LONGEST_SLEEP_SECONDS: Final = 1.0

Claimed = list[tuple[Any, ...]]

# Arrays are expected to hold ten rows, tables are big: without this the planner would now and then hash a whole one.
_SESSION: Final = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off"

_CLAIM: Final = """
WITH due AS (
    SELECT tenant_id, dedupe_key FROM scheduled_actions
    WHERE status = 'pending' AND action_type = 'timeout' AND run_at <= now()
    ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE scheduled_actions AS action
SET status = 'claimed', claimed_by = %(owner)s, claim_number = claim_number + 1,
    claimed_until = now() + interval '1 minute'
FROM due WHERE action.tenant_id = due.tenant_id AND action.dedupe_key = due.dedupe_key
RETURNING action.tenant_id, action.campaign_id, action.contact_id, action.dedupe_key, action.node_visit
"""
_NEXT: Final = """
SELECT run_at FROM scheduled_actions WHERE status = 'pending' AND action_type = 'timeout' ORDER BY run_at LIMIT 100
"""
_LOCK: Final = """
SELECT campaign.tenant_id, campaign.campaign_id, campaign.status, campaign.node_visit
FROM unnest(%(tenants)s::text[], %(campaigns)s::text[]) AS wanted (tenant_id, campaign_id)
JOIN contact_campaigns AS campaign USING (tenant_id, campaign_id)
ORDER BY 1, 2 FOR UPDATE OF campaign
"""
# `|| ''`: or the planner would rather walk all that is claimed, of which it expects one row, for each row of the batch.
_COMPLETE: Final = """
UPDATE scheduled_actions AS action
SET status = 'completed', outcome = 'transitioned', claimed_until = NULL, updated_at = now(), finished_at = now()
FROM unnest(%(tenants)s::text[], %(keys)s::text[]) AS wanted (tenant_id, dedupe_key)
WHERE action.tenant_id = wanted.tenant_id AND action.dedupe_key = wanted.dedupe_key
    AND action.status || '' = 'claimed' AND action.claimed_by = %(owner)s
"""
_MOVE: Final = """
UPDATE contact_campaigns AS campaign
SET current_node_id = 'second', node_visit = 2, node_entered_at = now(), anchor_at = now(), updated_at = now()
FROM unnest(%(tenants)s::text[], %(campaigns)s::text[]) AS wanted (tenant_id, campaign_id)
WHERE campaign.tenant_id = wanted.tenant_id AND campaign.campaign_id = wanted.campaign_id
"""
_RECORD: Final = """
INSERT INTO campaign_transitions (tenant_id, campaign_id, node_visit, from_node_id, to_node_id, trigger, occurred_at,
    created_at, dedupe_key)
SELECT tenant_id, campaign_id, 1, 'first', 'second', 'no_open', now(), now(), dedupe_key
FROM unnest(%(tenants)s::text[], %(campaigns)s::text[], %(keys)s::text[]) AS wanted (tenant_id, campaign_id, dedupe_key)
"""
_CANCEL: Final = """
UPDATE scheduled_actions AS action
SET status = 'canceled', outcome = 'visit left', updated_at = now(), finished_at = now()
FROM unnest(%(tenants)s::text[], %(campaigns)s::text[]) AS wanted (tenant_id, campaign_id)
WHERE action.tenant_id = wanted.tenant_id AND action.campaign_id = wanted.campaign_id AND action.node_visit = 1
    AND action.status IN ('pending', 'claimed', 'paused')
"""
_SCHEDULE: Final = """
INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, node_visit, event_type,
    deadline, run_at)
SELECT tenant_id, dedupe_key, campaign_id, contact_id, 'second', 2, 'no_open', now() + interval '100 hours',
    now() + interval '100 hours'
FROM unnest(%(tenants)s::text[], %(next_keys)s::text[], %(campaigns)s::text[], %(contacts)s::text[])
    AS wanted (tenant_id, dedupe_key, campaign_id, contact_id)
"""
_ONE: Final = """
INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, deadline, run_at)
VALUES (%s, %s, %s, %s, 'first', 'no_open', now() + interval '1 day', now() + interval '1 day')
"""
_MANY: Final = """
INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, deadline, run_at)
SELECT tenant_id, dedupe_key, campaign_id, contact_id, 'first', 'no_open', now() + interval '1 day',
    now() + interval '1 day'
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS wanted (tenant_id, dedupe_key, campaign_id, contact_id)
"""


def claim(connection: psycopg.Connection[Any], owner: str) -> Claimed:
    """What is due, at most a batch."""
    return connection.execute(_CLAIM, {"limit": BATCH, "owner": owner}).fetchall()


def fire(connection: psycopg.Connection[Any], owner: str, claimed: Claimed) -> None:
    """Fire what was claimed."""
    with connection.transaction():
        wanted = {"tenants": [row[0] for row in claimed], "campaigns": [row[1] for row in claimed]}
        locked = connection.execute(_LOCK, wanted).fetchall()
        fit = {(tenant, campaign): visit for tenant, campaign, status, visit in locked if status == "active"}
        rows = [row for row in claimed if fit.get((row[0], row[1])) == row[4]]
        tenants, campaigns, contacts, keys, _ = (list(values) for values in zip(*rows, strict=True))
        parameters = {
            "owner": owner,
            "tenants": tenants,
            "campaigns": campaigns,
            "contacts": contacts,
            "keys": keys,
            "next_keys": [f"{row[0]}:{row[1]}:second:2:timeout:no_open" for row in rows],
        }
        for statement in (_COMPLETE, _MOVE, _RECORD, _CANCEL, _SCHEDULE):
            connection.execute(statement, parameters)


def drain(url: str, threads: int) -> None:
    """Until nothing is due; every thread with a connection of its own."""
    connections = [connect(url) for _ in range(threads)]

    def work(number: int) -> None:
        connection, owner = connections[number], f"limit-{number}"
        while claimed := claim(connection, owner):
            fire(connection, owner, claimed)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    wait_for_go()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def keep_up(url: str) -> None:
    """For ever, as timeouts fall due: one thread that knows the next instants claims, two fire."""
    claiming, *firing = (connect(url) for _ in range(1 + _FIRING))
    batches: SimpleQueue[Claimed] = SimpleQueue()

    def work(connection: psycopg.Connection[Any]) -> None:
        """What waits together is fired together."""
        while batch := batches.get():
            with suppress(Empty):
                while len(batch) < BATCH:
                    batch += batches.get_nowait()
            fire(connection, _OWNER, batch)

    for connection in firing:
        threading.Thread(target=work, args=(connection,), daemon=True).start()
    wait_for_go()
    coming: list[datetime] = []
    asleep, clock = threading.Event(), SystemClock()
    while True:
        coming = coming or [at for (at,) in claiming.execute(_NEXT)]
        wait = (coming[0] - clock.now()).total_seconds() if coming else _LONGEST_SLEEP_SECONDS
        if wait > 0:
            asleep.wait(min(wait, _LONGEST_SLEEP_SECONDS))
        elif claimed := claim(claiming, _OWNER):
            # First: whoever fires it may add to it what waits behind it.
            del coming[: len(claimed)]
            batches.put(claimed)
        else:
            coming = []


def schedule(url: str, one: int, bulk: int) -> None:
    """Rows per second: each committed by itself, and many in a statement."""
    connection = connect(url)
    singles = [_row("one", number) for number in range(one)]
    many = [_row("bulk", number) for number in range(bulk)]
    wait_for_go()
    began = time.perf_counter()
    for row in singles:
        connection.execute(_ONE, row)
    between = time.perf_counter()
    with connection.transaction():
        for start in range(0, bulk, BULK):
            connection.execute(_MANY, [list(values) for values in zip(*many[start : start + BULK], strict=True)])
    answer(one=one / (between - began), bulk=bulk / (time.perf_counter() - between))


def _row(name: str, number: int) -> tuple[str, str, str, str]:
    tenant, campaign = f"{name}-{number % 10}", f"campaign-{number}"
    return tenant, f"{tenant}:{campaign}:first:1:timeout:no_open", campaign, f"contact-{number}"


def connect(url: str) -> psycopg.Connection[Any]:
    """In autocommit mode, with plans for big tables and small batches."""
    connection = psycopg.connect(url, autocommit=True)
    connection.execute(_SESSION)
    return connection


def main() -> None:
    """Do the job."""
    wanted = job()
    if wanted["mode"] == "fire" and wanted.get("keeps_on"):
        keep_up(wanted["url"])
    elif wanted["mode"] == "fire":
        drain(wanted["url"], wanted["threads"])
    else:
        schedule(wanted["url"], wanted["one"], wanted["bulk"])


if __name__ == "__main__":
    main()
