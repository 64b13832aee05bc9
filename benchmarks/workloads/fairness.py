"""How long one tenant's timeouts wait while another has very many overdue ones, and what that costs."""

from __future__ import annotations

import itertools
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from benchmarks.campaigns import enroll_by_sql, overdue, steady
from benchmarks.contenders import Contender
from benchmarks.options import Options
from benchmarks.reading import COMMITTED, Reader, verify_fired
from benchmarks.results import Metric
from benchmarks.samples import percentile
from benchmarks.session import Session
from benchmarks.workloads.draining import drain
from scheduler import Settings
from scheduler.domain.timing import SystemClock

ALONE: Final = Metric("fired, the backlog alone", "timeouts/s")
BESIDE: Final = Metric("fired, with the other tenant", "timeouts/s")
FIRST: Final = Metric("first fire after start", "ms", more_is_better=False)
MEMORY: Final = Metric("memory", "MB", more_is_better=False)
_RATE: Final = 20
# The first batches after a start are slow: nothing is in the server's buffers yet.
_WARM_UP_SECONDS: Final = 3
_SHORTEST_SECONDS: Final = 3
_LONGEST_SECONDS: Final = 30
# So that the backlog outlasts the other tenant's timeouts on a machine several times as fast.
_BACKLOG_PER_SECOND: Final = 20_000
_LEAD: Final = timedelta(seconds=5)
_OTHERS: Final = f"""
SELECT extract(epoch FROM action.run_at)::float8, extract(epoch FROM action.finished_at)::float8,
    extract(epoch FROM {COMMITTED})::float8
FROM campaign_transitions AS moved JOIN scheduled_actions AS action USING (tenant_id, dedupe_key)
WHERE moved.node_visit = 1 AND moved.tenant_id LIKE 'quiet-%'
"""  # noqa: S608 - a constant
_BACKLOGS: Final = f"""
SELECT extract(epoch FROM {COMMITTED})::float8, count(*)
FROM campaign_transitions AS moved WHERE moved.node_visit = 1 AND moved.tenant_id LIKE 'busy-%' GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - a constant


class Fairness:
    """The other tenant's timeouts fall due while the backlog lasts.

    How late they are depends on the machine; how many batches of the backlog were committed meanwhile doesn't.
    """

    name = "fairness"

    def rounds(self, _contender: Contender, options: Options) -> int:
        """All."""
        return options.rounds

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """Without the other tenant, and with it."""
        backlog = session.options.backlog
        quiet = _RATE * min(max(backlog // _BACKLOG_PER_SECOND, _SHORTEST_SECONDS), _LONGEST_SECONDS)
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
            starts_at = SystemClock().now() + _LEAD
            due_at = starts_at + timedelta(seconds=_WARM_UP_SECONDS)
            enroll_by_sql(place.url, [steady(quiet, due_at, _RATE, tenant="quiet", tenants=1)])
            beside = drain(contender, place, starts_at)
            with Reader(place.url) as reader:
                verify_fired(reader, backlog + quiet, backlog + quiet)
                waits, commits = reader.rows(_OTHERS), reader.rows(_BACKLOGS)
        add(self.name, contender.key, BESIDE, (backlog + quiet) / beside.last)
        late = [(committed - due) * 1000 for due, _, committed in waits]
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            metric = Metric(f"the other tenant's delay, {name}", "ms", more_is_better=False)
            add(self.name, contender.key, metric, percentile(late, share))
        # While its own small batch is being fired another worker's may end: that one held up nothing.
        for until, end in (("before its firing began", 1), ("meanwhile", 2)):
            batches = list(_batches_between([(wait[0], wait[end]) for wait in waits], commits))
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                metric = Metric(f"batches committed {until}, {name}", "", digits=1, more_is_better=False)
                add(self.name, contender.key, metric, percentile(batches, share))


def _batches_between(waits: Iterable[Sequence[Any]], commits: Iterable[Sequence[Any]]) -> Iterator[float]:
    """How many full batches' worth of `commits` (instant, rows) lies in each wait."""
    instants, counts = zip(*commits, strict=True)
    total = [0, *itertools.accumulate(counts)]
    for due, end in waits:
        between = total[bisect(instants, end)] - total[bisect(instants, due)]
        yield between / Settings().batch_size
