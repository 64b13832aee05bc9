"""What takes events in finds its rows by their keys, however many events wait for their mail, and asks once a batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import event

from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import execute
from tests.support.stage import Stage
from tests.support.walk import on, send

MAIL: Final = send("mail", on("opened", "stop"), on("no_open", "stop", after="PT72H"))
KEYS: Final = [("acme", f"x-{number}") for number in range(500)]

FILL: Final = (
    """
    INSERT INTO campaign_events (tenant_id, event_id, message_id, event_type, occurred_at, received_at, outcome)
    SELECT 'acme', 'x-' || n, 'x-' || n, 'opened', now(), now(), 'unknown_campaign' FROM generate_series(1, 20000) n
    """,
    """
    INSERT INTO contacts (tenant_id, contact_id, created_at, updated_at)
    SELECT 'acme', 'x-' || n, now(), now() FROM generate_series(1, 20000) n
    """,
    """
    INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, action_type,
    run_at, status, outcome, finished_at, message_id)
    SELECT 'acme', 'x-' || n, 'c-' || n, 'k', 'mail', 'sent', 'send', now(), 'completed', 'sent', now(), 'x-' || n
    FROM generate_series(1, 20000) n
    """,
)

STATEMENTS: Final[dict[str, Callable[[Stores, Transaction], object]]] = {
    "mails": lambda stores, transaction: stores.events.mails(transaction, KEYS),
    "waiting": lambda stores, transaction: stores.events.waiting(transaction, KEYS),
    "still waiting": lambda stores, transaction: stores.events.still_waiting(transaction, KEYS),
    "place": lambda stores, transaction: stores.events.place(transaction, [(*key, "c-1", "mail", 1) for key in KEYS]),
    "outcomes": lambda stores, transaction: stores.events.set_outcomes(transaction, [(*key, "late") for key in KEYS]),
    "contacts": lambda stores, transaction: stores.contacts.read(transaction, KEYS),
}
READS_ALL: Final = r"Seq Scan on (campaign_events|contacts|scheduled_actions)|Hash Join|Merge Join"


@contextmanager
def noted(stores: Stores) -> Iterator[list[tuple[str, Any]]]:
    """The statements executed in the block, as the driver gets them."""
    statements: list[tuple[str, Any]] = []

    def note(*facts: Any) -> None:
        statements.append((facts[2], facts[3]))

    event.listen(stores.database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(stores.database.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_statements_on_events_find_their_rows_through_an_index(
    postgresql_url: str, open_scheduler: OpenScheduler, *, is_analyzed: bool
) -> None:
    scheduler = open_scheduler(postgresql_url)
    stores = scheduler.stores
    for statement in (*FILL, *(["ANALYZE"] if is_analyzed else [])):
        execute(scheduler, statement)
    for name, work in STATEMENTS.items():
        with stores.database.transaction() as transaction, noted(stores) as statements:
            work(stores, transaction)
        statement, parameters = statements[-1]
        with stores.database.engine.connect() as connection:
            plan = "\n".join(connection.exec_driver_sql("EXPLAIN " + statement, parameters).scalars())
        assert re.search(READS_ALL, plan) is None, f"{name}: {plan}"


def test_messages_nobody_knows_of_campaigns_that_await_a_mail_are_asked_for_together(stage: Stage) -> None:
    campaigns = [f"c-{number}" for number in range(20)]
    for campaign in campaigns:
        stage.enroll(MAIL, campaign=campaign)
    counts = []
    for chunk in (campaigns[:1], campaigns[1:3], campaigns[3:]):
        events = [
            {"tenant_id": "acme", "event_type": "delivered", "campaign_id": name, "message_id": f"m-{name}"}
            for name in chunk
        ]
        with noted(stage.ts.stores) as statements:
            stage.sm.process_events(events)
        counts.append(len(statements))
    assert counts[1] == counts[2]
