"""The campaigns every contender gets: `no_open` is due and leads to the second node, `no_click` waits longer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from scheduler import CampaignPlan, TimeoutScheduler
from scheduler.domain.timing import SystemClock

PLAN: Final = CampaignPlan.parse(
    {
        "version": "1.0",
        "startNodeId": "first",
        "nodes": [
            {
                "id": "first",
                "action": "wait",
                "transitions": [
                    {"on": "no_open", "to": "second", "after": "PT1H"},
                    {"on": "no_click", "to": "stop", "after": "PT100H"},
                    {"on": "opened", "to": "stop"},
                ],
            },
            {
                "id": "second",
                "action": "wait",
                "transitions": [{"on": "no_open", "to": "stop", "after": "PT100H"}, {"on": "opened", "to": "stop"}],
            },
        ],
    }
)
# Goes round for ever, a second at each node.
ROUND: Final = CampaignPlan.parse(
    {
        "version": "1.0",
        "startNodeId": "first",
        "maxTransitions": 1_000_000,
        "nodes": [
            {
                "id": "first",
                "action": "wait",
                "transitions": [
                    {"on": "no_open", "to": "second", "after": "PT1S"},
                    {"on": "no_click", "to": "stop", "after": "PT100H"},
                    {"on": "opened", "to": "stop"},
                ],
            },
            {
                "id": "second",
                "action": "wait",
                "transitions": [{"on": "no_open", "to": "first", "after": "PT1S"}, {"on": "opened", "to": "stop"}],
            },
        ],
    }
)
STAY: Final = timedelta(hours=1)
LATER: Final = "later"

_PLANS: Final = """
INSERT INTO campaign_plans (tenant_id, plan_hash, plan, created_at)
SELECT %(tenant)s || '-' || number, %(hash)s, %(plan)s, now() FROM generate_series(0, %(tenants)s - 1) AS number
"""
_CONTACTS: Final = """
INSERT INTO contacts (tenant_id, contact_id, created_at, updated_at)
SELECT %(tenant)s || '-' || number %% %(tenants)s, 'contact-' || number, now(), now()
FROM generate_series(0, %(count)s - 1) AS number
"""
_CAMPAIGNS: Final = """
INSERT INTO contact_campaigns (tenant_id, campaign_id, contact_id, plan_hash, status, current_node_id, node_visit,
    node_entered_at, anchor_at, started_at, created_at, updated_at)
SELECT %(tenant)s || '-' || number %% %(tenants)s, 'campaign-' || number, 'contact-' || number, %(hash)s, 'active',
    'first', 1, entered_at, entered_at, entered_at, now(), now()
FROM generate_series(0, %(count)s - 1) AS number,
    LATERAL (SELECT %(entered_at)s + number * %(step)s AS entered_at) AS entry
"""
_ENROLMENTS: Final = """
INSERT INTO campaign_transitions (tenant_id, campaign_id, node_visit, to_node_id, trigger, occurred_at, created_at)
SELECT tenant_id, campaign_id, 0, 'first', 'enrolled', started_at, created_at FROM contact_campaigns
WHERE tenant_id LIKE %(tenant)s || '-%%'
"""
_TIMEOUTS: Final = """
INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, deadline, run_at)
SELECT tenant_id, tenant_id || ':' || campaign_id || ':first:1:timeout:' || event_type, campaign_id, contact_id,
    'first', event_type, anchor_at + delay, anchor_at + delay
FROM contact_campaigns,
    (VALUES ('no_open', interval '1 hour'), ('no_click', interval '100 hours')) AS wanted (event_type, delay)
WHERE tenant_id LIKE %(tenant)s || '-%%'
"""


@dataclass(frozen=True, slots=True)
class Cohort:
    """`count` campaigns of `tenants` tenants, whose `no_open` is due at `due_at`, each `step` after the one before."""

    tenant: str
    count: int
    due_at: datetime
    step: timedelta = timedelta(0)
    tenants: int = 10
    plan: CampaignPlan = PLAN

    def enrolments(self) -> Iterator[Mapping[str, Any]]:
        """For `enroll_many`."""
        for number in range(self.count):
            yield {
                "tenant_id": f"{self.tenant}-{number % self.tenants}",
                "campaign_id": f"campaign-{number}",
                "contact_id": f"contact-{number}",
                "plan": self.plan,
                "start_at": self.due_at - STAY + number * self.step,
            }


def overdue(count: int, tenant: str = "tenant", tenants: int = 10) -> Cohort:
    """Due for half an hour, a millisecond after each other."""
    return Cohort(tenant, count, _now() - timedelta(minutes=30), timedelta(milliseconds=1), tenants)


def later(count: int) -> Cohort:
    """Not due while anything is measured."""
    return Cohort(LATER, count, _now() + timedelta(hours=1), timedelta(milliseconds=1))


def steady(count: int, due_at: datetime, rate: float, tenant: str = "tenant", tenants: int = 10) -> Cohort:
    """`rate` of them due per second."""
    return Cohort(tenant, count, due_at, timedelta(seconds=1 / rate), tenants)


def enroll_by_sql(url: str, cohorts: Iterable[Cohort]) -> None:
    """On PostgreSQL, whatever `enroll_many` would have written, by one statement a table; vacuumed and analysed."""
    with psycopg.connect(url, autocommit=True) as connection:
        for cohort in cohorts:
            parameters = {
                "tenant": cohort.tenant,
                "tenants": cohort.tenants,
                "count": cohort.count,
                "entered_at": cohort.due_at - STAY,
                "step": cohort.step,
                "hash": cohort.plan.hash,
                "plan": cohort.plan.document,
            }
            with connection.transaction():
                for statement in (_PLANS, _CONTACTS, _CAMPAIGNS, _ENROLMENTS, _TIMEOUTS):
                    connection.execute(statement, parameters)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def enroll_by_call(scheduler: TimeoutScheduler, cohorts: Iterable[Cohort]) -> None:
    """Through the project's own bulk call."""
    for cohort in cohorts:
        scheduler.campaigns.enroll_many(cohort.enrolments())


def _now() -> datetime:
    return SystemClock().now()
