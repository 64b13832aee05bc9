"""Nothing is lost and nothing happens twice when the daemon dies in the middle of firing."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text

from scheduler import TimeoutScheduler
from tests.support.daemon import environment, run_command, running
from tests.support.eventually import eventually

CONTACTS: Final = 1_000
PLAN: Final = {
    "version": "1.0",
    "startNodeId": "first",
    "nodes": [
        {
            "id": "first",
            "action": "wait",
            "transitions": [
                {"on": "no_open", "to": "second", "after": "PT1H"},
                {"on": "no_click", "to": "stop", "after": "PT99H"},
                {"on": "opened", "to": "stop"},
            ],
        },
        {
            "id": "second",
            "action": "wait",
            "transitions": [{"on": "no_open", "to": "stop", "after": "PT0.1S"}, {"on": "opened", "to": "stop"}],
        },
    ],
}
HISTORY: Final = [(0, None, "first", "enrolled"), (1, "first", "second", "no_open"), (2, "second", "stop", "no_open")]


def write_contacts(folder: Path) -> None:
    (folder / "plan.json").write_text(json.dumps(PLAN), "utf-8")
    start_at = (datetime.now(UTC) - timedelta(hours=2)).isoformat()  # noqa: TID251 - dates the rows in the past
    rows = ({"campaign_id": f"c-{n}", "contact_id": f"k-{n}", "start_at": start_at} for n in range(CONTACTS))
    (folder / "contacts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def query(scheduler: TimeoutScheduler, statement: str) -> list[Any]:
    with scheduler.database.reading() as transaction:
        return list(transaction.connection.execute(text(statement)).all())


def count(scheduler: TimeoutScheduler, statement: str) -> int:
    return int(query(scheduler, statement)[0][0])


def has_left(scheduler: TimeoutScheduler, visits: int) -> bool:
    return count(scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit > 0") >= visits


@pytest.mark.parametrize("deaths", [[100, 700, 1_300]])
def test_every_transition_happens_once_though_the_daemon_is_killed_again_and_again(
    database_url: str, tmp_path: Path, deaths: list[int]
) -> None:
    """Killed with SIGKILL whenever so many visits have been left; then started once more and left alone."""
    write_contacts(tmp_path)
    env = environment(database_url)
    run_command(tmp_path, env, "enroll", "--tenant", "acme", "--plan", "plan.json", "--from", "contacts.jsonl")
    scheduler = TimeoutScheduler(database_url)
    assert count(scheduler, "SELECT count(*) FROM contact_campaigns WHERE status = 'active'") == CONTACTS
    for death in deaths:
        with running(tmp_path, env) as daemon:
            eventually(partial(has_left, scheduler, death), timeout=60)
            daemon.kill()
        assert not has_left(scheduler, 2 * CONTACTS), "it was killed too late to show anything"
    with running(tmp_path, env) as daemon:
        eventually(partial(has_left, scheduler, 2 * CONTACTS), timeout=60)
        assert daemon.terminate() == 0

    rows = query(
        scheduler,
        "SELECT campaign_id, node_visit, from_node_id, to_node_id, trigger FROM campaign_transitions"
        " ORDER BY campaign_id, node_visit",
    )
    histories: dict[str, list[Any]] = {}
    for campaign_id, *rest in rows:
        histories.setdefault(campaign_id, []).append(tuple(rest))
    assert len(histories) == CONTACTS
    assert all(history == HISTORY for history in histories.values())
    actions = Counter(tuple(row) for row in query(scheduler, "SELECT status, outcome FROM scheduled_actions"))
    assert dict(actions) == {("completed", "transitioned"): 2 * CONTACTS, ("canceled", "visit left"): CONTACTS}
    scheduler.close()
