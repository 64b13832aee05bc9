"""How long one tenant's timeouts wait while another has very many overdue ones, and what that costs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from benchmarks.campaigns import enroll_by_sql, overdue, steady
from benchmarks.contenders import Contender
from benchmarks.options import Options
from benchmarks.reading import COMMITTED, Reader, verify_fired
from benchmarks.results import Metric
from benchmarks.samples import percentile
from benchmarks.session import Session
from benchmarks.workloads.draining import drain
from scheduler.domain.timing import SystemClock

ALONE: Final = Metric("fired, the backlog alone", "timeouts/s")
BESIDE: Final = Metric("fired, with the other tenant", "timeouts/s")
FIRST: Final = Metric("first fire after start", "ms", more_is_better=False)
MEMORY: Final = Metric("memory", "MB", more_is_better=False)
_RATE: Final = 20
_SECONDS: Final = 3
_LEAD: Final = timedelta(seconds=5)
_DELAYS: Final = f"""
SELECT extract(epoch FROM {COMMITTED} - action.run_at)::float8 * 1000
FROM campaign_transitions AS moved JOIN scheduled_actions AS action USING (tenant_id, dedupe_key)
WHERE moved.node_visit = 1 AND moved.tenant_id LIKE 'quiet-%'
"""  # noqa: S608 - a constant


class Fairness:
    """The other tenant's timeouts fall due from the start on, while the backlog lasts."""

    name = "fairness"

    def rounds(self, _contender: Contender, options: Options) -> int:
        """All."""
        return options.rounds

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """Without the other tenant, and with it."""
        backlog, quiet = session.options.backlog, _RATE * _SECONDS
        add = session.results.add
        cohorts = [overdue(backlog, tenant="busy", tenants=1)]
        with session.stage.place(contender, f"fairness-{backlog}", lambda: cohorts) as place:
            alone = drain(contender, place)
            with Reader(place.url) as reader:
                verify_fired(reader, backlog, backlog)
        add(self.name, contender.key, ALONE, backlog / alone.last)
        add(self.name, contender.key, FIRST, alone.first * 1000)
        add(self.name, contender.key, MEMORY, alone.megabytes)
        with session.stage.place(contender, f"fairness-{backlog}", lambda: cohorts) as place:
            due_at = SystemClock().now() + _LEAD
            enroll_by_sql(place.url, [steady(quiet, due_at, _RATE, tenant="quiet", tenants=1)])
            beside = drain(contender, place, due_at)
            with Reader(place.url) as reader:
                verify_fired(reader, backlog + quiet, backlog + quiet)
                late = [row[0] for row in reader.rows(_DELAYS)]
        add(self.name, contender.key, BESIDE, (backlog + quiet) / beside.last)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            metric = Metric(f"the other tenant's delay, {name}", "ms", more_is_better=False)
            add(self.name, contender.key, metric, percentile(late, share))
