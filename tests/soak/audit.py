"""What must be true of the database once everything was healed, and all that was due has been fired.

Each check is one statement that selects what must not be there.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from tests.soak.traffic import Ledger

LOST: Final = "lost"
DOUBLED: Final = "doubled"
WRONG: Final = "wrong"

# kind, what is wrong with the rows, and how they are found. `canceled` are campaigns with a timeout canceled by hand.
_CHECKS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        LOST,
        "a campaign's visits are no unbroken chain from its enrolment to where it stands",
        """
        SELECT campaign_id, max(c.current_node_id), max(c.node_visit),
               array_agg((t.node_visit, t.from_node_id, t.to_node_id) ORDER BY t.node_visit)::text
        FROM contact_campaigns c
        LEFT JOIN (SELECT *, lag(to_node_id) OVER w AS previous_node_id, row_number() OVER w - 1 AS place
                   FROM campaign_transitions WINDOW w AS (PARTITION BY tenant_id, campaign_id ORDER BY node_visit)) t
          USING (tenant_id, campaign_id)
        GROUP BY tenant_id, campaign_id
        HAVING count(t.place) = 0
            OR bool_or(t.node_visit <> t.place)
            OR bool_or(t.from_node_id IS DISTINCT FROM t.previous_node_id)
            OR max(c.node_visit) <> max(t.node_visit) + 1
            OR (array_agg(t.to_node_id ORDER BY t.node_visit DESC))[1] <> max(c.current_node_id)
        """,
    ),
    (
        DOUBLED,
        "a visit was left twice",
        """
        SELECT campaign_id, node_visit, count(*) FROM campaign_transitions
        GROUP BY tenant_id, campaign_id, node_visit HAVING count(*) > 1
        """,
    ),
    (
        DOUBLED,
        "a timeout had an effect twice",
        """
        SELECT dedupe_key, count(*) FROM campaign_transitions WHERE dedupe_key IS NOT NULL
        GROUP BY tenant_id, dedupe_key HAVING count(*) > 1
        """,
    ),
    (
        DOUBLED,
        "an event had an effect twice",
        """
        SELECT event_id, count(*) FROM campaign_transitions WHERE event_id IS NOT NULL
        GROUP BY tenant_id, event_id HAVING count(*) > 1
        """,
    ),
    (
        LOST,
        "a timeout is done, and its transition isn't there",
        """
        SELECT a.dedupe_key, a.status, a.outcome, a.finished_at::text
        FROM scheduled_actions a LEFT JOIN campaign_transitions t USING (tenant_id, dedupe_key)
        WHERE a.outcome = 'transitioned' AND t.dedupe_key IS NULL
        """,
    ),
    (
        DOUBLED,
        "a transition was made by a timeout that didn't end with it",
        """
        SELECT t.dedupe_key, t.node_visit, a.status, a.outcome, a.node_visit
        FROM campaign_transitions t LEFT JOIN scheduled_actions a USING (tenant_id, dedupe_key)
        WHERE t.dedupe_key IS NOT NULL AND t.trigger <> 'send_failed'
          AND (a.outcome IS DISTINCT FROM 'transitioned' OR a.node_visit <> t.node_visit)
        """,
    ),
    (
        LOST,
        "an action is overdue, and nobody fires it",
        """
        SELECT dedupe_key, status, run_at::text, claimed_by, claimed_until::text, attempts, last_error
        FROM scheduled_actions
        WHERE status IN ('pending', 'claimed', 'paused') AND run_at < clock_timestamp() - interval '5 seconds'
        """,
    ),
    (
        WRONG,
        "an action is claimed, though nobody is there any more",
        """
        SELECT dedupe_key, run_at::text, claimed_by, claim_number, claimed_until::text
        FROM scheduled_actions WHERE status = 'claimed'
        """,
    ),
    (
        WRONG,
        "an action is unfinished, though its visit was left",
        """
        SELECT a.dedupe_key, a.status, a.node_visit, c.node_visit, c.status
        FROM scheduled_actions a LEFT JOIN contact_campaigns c USING (tenant_id, campaign_id)
        WHERE a.status IN ('pending', 'claimed', 'paused')
          AND (a.node_visit IS DISTINCT FROM c.node_visit OR c.status NOT IN ('active', 'paused'))
        """,
    ),
    (
        WRONG,
        "an action is paused, though nothing pauses it",
        """
        SELECT a.dedupe_key, c.status FROM scheduled_actions a JOIN contact_campaigns c USING (tenant_id, campaign_id)
        WHERE a.status = 'paused' AND c.status <> 'paused'
        """,
    ),
    (
        LOST,
        "a campaign stands still: it is active, and nothing is left that would move it",
        """
        SELECT c.campaign_id, c.current_node_id, c.node_visit, c.status
        FROM contact_campaigns c
        WHERE c.status NOT IN ('completed', 'stopped') AND c.campaign_id <> ALL (%(canceled)s)
          AND NOT EXISTS (SELECT 1 FROM scheduled_actions a
                          WHERE a.tenant_id = c.tenant_id AND a.campaign_id = c.campaign_id
                            AND a.status IN ('pending', 'claimed', 'paused'))
        """,
    ),
    (
        WRONG,
        "a timeout took effect before its deadline",
        """
        SELECT t.dedupe_key, a.deadline::text, a.run_at::text, t.created_at::text
        FROM campaign_transitions t JOIN scheduled_actions a USING (tenant_id, dedupe_key)
        WHERE a.action_type = 'timeout' AND t.created_at < a.deadline
        """,
    ),
    (
        WRONG,
        "a mail went out before it was due",
        """
        SELECT dedupe_key, run_at::text, sent_at::text, finished_at::text
        FROM scheduled_actions WHERE action_type = 'send' AND outcome = 'sent' AND finished_at < run_at
        """,
    ),
    (
        WRONG,
        "an attempt was counted, though nothing but outages went wrong",
        """
        SELECT dedupe_key, status, outcome, attempts, last_error
        FROM scheduled_actions WHERE attempts > 0 OR status = 'error' OR outcome = 'failed'
        """,
    ),
)


@dataclass(slots=True)
class Finding:
    """Rows that must not be there."""

    kind: str
    what: str
    rows: list[Any]


@dataclass(slots=True)
class Audit:
    """What was found, and how much was looked at."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def number_of(self, kind: str) -> int:
        """How many rows are lost, doubled, or wrong in another way."""
        return sum(len(one.rows) for one in self.findings if one.kind == kind)


def audit(url: str, ledger: Ledger, outbox: Path) -> Audit:
    """Look at everything. The daemons have to be gone, or idle."""
    result = Audit()
    with psycopg.connect(url) as connection:
        for kind, what, statement in _CHECKS:
            rows = connection.execute(statement, {"canceled": list(ledger.canceled)}).fetchall()
            result.findings.append(Finding(kind, what, rows))
        sends = Counter(outbox.read_text("utf-8").splitlines())
        result.findings += _check_acknowledged(connection, ledger)
        result.findings += _check_sends(connection, sends)
        result.counts = _counts(connection, sends)
    result.findings = [one for one in result.findings if one.rows]
    return result


def _check_acknowledged(connection: psycopg.Connection[Any], ledger: Ledger) -> Iterator[Finding]:
    """What the application was told is done, is there, also after failovers."""
    campaigns = _column(connection, "SELECT campaign_id FROM contact_campaigns")
    yield Finding(LOST, "an enrolment was acknowledged and isn't there", sorted(ledger.campaigns - campaigns))
    events = _column(connection, "SELECT event_id FROM campaign_events")
    yield Finding(LOST, "an event was acknowledged and isn't there", sorted(ledger.events - events))
    unstopped = _column(connection, "SELECT campaign_id FROM contact_campaigns WHERE status = 'active'")
    yield Finding(LOST, "a campaign was stopped, and is active", sorted(ledger.stopped & unstopped))


def _check_sends(connection: psycopg.Connection[Any], sends: Counter[str]) -> Iterator[Finding]:
    """At least once: every mail that counts as sent was handed over; none was that nobody planned."""
    sent = _column(connection, "SELECT dedupe_key FROM scheduled_actions WHERE outcome = 'sent'")
    yield Finding(LOST, "a mail counts as sent, and was never handed over", sorted(sent - sends.keys()))
    planned = _column(connection, "SELECT dedupe_key FROM scheduled_actions WHERE action_type = 'send'")
    yield Finding(WRONG, "a mail was handed over that isn't planned", sorted(sends.keys() - planned))


def _counts(connection: psycopg.Connection[Any], sends: Counter[str]) -> dict[str, int]:
    def number(statement: str) -> int:
        row = connection.execute(sql.SQL(statement)).fetchone()
        assert row is not None
        return int(row[0])

    return {
        "campaigns": number("SELECT count(*) FROM contact_campaigns"),
        "transitions": number("SELECT count(*) FROM campaign_transitions WHERE node_visit > 0"),
        "actions": number("SELECT count(*) FROM scheduled_actions"),
        "timeouts fired": number(
            "SELECT count(*) FROM scheduled_actions WHERE action_type = 'timeout' AND status = 'completed'"
        ),
        "actions canceled": number("SELECT count(*) FROM scheduled_actions WHERE status = 'canceled'"),
        "events": number("SELECT count(*) FROM campaign_events"),
        "mails sent": len(sends),
        "mails sent again": sends.total() - len(sends),
        "claims": number("SELECT coalesce(sum(claim_number), 0) FROM scheduled_actions"),
    }


def _column(connection: psycopg.Connection[Any], statement: str) -> set[str]:
    rows = connection.execute(sql.SQL(statement))
    return {row[0] for row in rows}
