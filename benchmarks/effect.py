"""The work of one fired timeout, as plain SQL on the project's own tables, for contenders that do it row by row.

The campaign is locked and checked, the action completed, the campaign moved, the transition recorded, the visit's other
pending timeout canceled, and the next visit's one inserted: one locking select, three updates, two inserts.
Parameters are written `:name`, as pgbench takes them; `numbered` and `named` rewrite them for drivers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

LOCK: Final = (
    "SELECT status, node_visit FROM contact_campaigns WHERE tenant_id = :tenant AND campaign_id = :campaign FOR UPDATE"
)
COMPLETE: Final = (
    "UPDATE scheduled_actions SET status = 'completed', outcome = 'transitioned', updated_at = now(), "
    "finished_at = now() WHERE tenant_id = :tenant AND dedupe_key = :key AND status IN ('pending', 'claimed')"
)
MOVE: Final = (
    "UPDATE contact_campaigns SET current_node_id = 'second', node_visit = 2, node_entered_at = now(), "
    "anchor_at = now(), updated_at = now() WHERE tenant_id = :tenant AND campaign_id = :campaign"
)
RECORD: Final = (
    "INSERT INTO campaign_transitions (tenant_id, campaign_id, node_visit, from_node_id, to_node_id, trigger, "
    "occurred_at, created_at, dedupe_key) "
    "VALUES (:tenant, :campaign, 1, 'first', 'second', 'no_open', now(), now(), :key)"
)
CANCEL: Final = (
    "UPDATE scheduled_actions SET status = 'canceled', outcome = 'visit left', updated_at = now(), finished_at = now() "
    "WHERE tenant_id = :tenant AND campaign_id = :campaign AND node_visit = 1 "
    "AND status IN ('pending', 'claimed', 'paused')"
)
SCHEDULE: Final = (
    "INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, node_visit, event_type, "
    "deadline, run_at) VALUES (:tenant, :next_key, :campaign, :contact, 'second', 2, 'no_open', "
    "now() + interval '100 hours', now() + interval '100 hours')"
)
STATEMENTS: Final = {
    "lock": LOCK,
    "complete": COMPLETE,
    "move": MOVE,
    "record": RECORD,
    "cancel": CANCEL,
    "schedule": SCHEDULE,
}

# For a peer that knows its jobs by numbers: the application keeps them beside its actions, to cancel by.
JOB_COLUMN: Final = "ALTER TABLE scheduled_actions ADD COLUMN job_id bigint"
CANCEL_JOB: Final = f"{CANCEL} RETURNING job_id"
SCHEDULE_JOB: Final = (
    "INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, node_visit, event_type, "
    "deadline, run_at, job_id) VALUES (:tenant, :next_key, :campaign, :contact, 'second', 2, 'no_open', "
    "now() + interval '100 hours', now() + interval '100 hours', :job)"
)

# What a peer's queue is filled with: every pending timeout, and when it is due, in seconds since 1970.
PENDING: Final = (
    "SELECT tenant_id, campaign_id, contact_id, dedupe_key, extract(epoch FROM run_at)::float8 "
    "FROM scheduled_actions WHERE status = 'pending' ORDER BY run_at"
)

NEXT_DELAY_HOURS: Final = 100
_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Timeout:
    """What a job carries."""

    tenant: str
    campaign: str
    contact: str
    key: str

    @property
    def next_key(self) -> str:
        """The dedupe key of the timeout that follows."""
        return f"{self.tenant}:{self.campaign}:second:2:timeout:no_open"

    @property
    def parameters(self) -> dict[str, Any]:
        """For the statements."""
        return {
            "tenant": self.tenant,
            "campaign": self.campaign,
            "contact": self.contact,
            "key": self.key,
            "next_key": self.next_key,
        }


def named(statement: str) -> str:
    """As psycopg takes parameters: `%(name)s`."""
    return _PARAMETER.sub(r"%(\1)s", statement)


def numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """As asyncpg and node-postgres take parameters: `$1`; and the names, in order."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _PARAMETER.sub(number, statement), tuple(names)
