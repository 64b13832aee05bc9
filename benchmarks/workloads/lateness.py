"""How long after its instant a timeout's firing begins, and its effect is committed, while a steady number falls due.

Begun is when the transaction that fires it began: what the daemon's metric `timeout_scheduler_lateness_seconds` counts.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from benchmarks.campaigns import Cohort, steady
from benchmarks.contenders import Contender, Kind
from benchmarks.options import Options
from benchmarks.program import ProgramError
from benchmarks.reading import COMMITTED, Reader, verify_fired
from benchmarks.results import Distribution, Metric
from benchmarks.samples import curve, percentile
from benchmarks.session import Session
from benchmarks.workloads.draining import ready, until, wait_drained
from scheduler.domain.timing import SystemClock

RATES: Final = (200, 2000)
# What only this project is asked for, and the limit.
_HARD: Final = 2000
_HARD_SHARE: Final = 0.5
# Enough to fill every queue and start every program; more of it where the machine is slow.
_LEADS: Final = (timedelta(seconds=5), timedelta(seconds=25))
_WARM_UP_SECONDS: Final = 2.0

_LATENESS: Final = f"""
SELECT extract(epoch FROM action.finished_at - action.run_at)::float8 * 1000,
    extract(epoch FROM {COMMITTED} - action.run_at)::float8 * 1000
FROM campaign_transitions AS moved JOIN scheduled_actions AS action USING (tenant_id, dedupe_key)
WHERE moved.node_visit = 1 AND moved.tenant_id LIKE 'tenant-%'
"""  # noqa: S608 - a constant


class Lateness:
    """The seconds asked for are divided among the rounds; percentiles are of each round, the curve of all together.

    Before what counts, two seconds of the same load let everybody's connections, plans and caches become warm.
    """

    name = "lateness"

    def rounds(self, _contender: Contender, options: Options) -> int:
        """All."""
        return options.rounds

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """At each rate."""
        for rate in RATES:
            if rate < _HARD or contender.kind is not Kind.PEER:
                share = _HARD_SHARE if rate == _HARD else 1.0
                self._run(contender, session, rate, session.options.lateness_seconds / session.options.rounds * share)

    def _run(self, contender: Contender, session: Session, rate: int, seconds: float) -> None:
        for lead in _LEADS:
            late = self._measure(contender, session, rate, seconds, lead)
            if late:
                break
        else:
            raise ProgramError(f"{contender.label} wasn't ready {_LEADS[-1].total_seconds():.0f} s after it was asked")
        committed = [commit for _, commit in late]
        for what, values in (("begun", [begin for begin, _ in late]), ("committed", committed)):
            for share, digits in ((0.5, "p50"), (0.99, "p99"), (1.0, "most")):
                metric = Metric(
                    f"{what} {digits} at {rate:,}/s", "ms", digits=1, more_is_better=False, has_ratio=share < 1
                )
                session.results.add(self.name, contender.key, metric, percentile(values, share))
        self._keep(contender, session, f"{rate:,}/s", committed)

    def _measure(
        self, contender: Contender, session: Session, rate: int, seconds: float, lead: timedelta
    ) -> list[tuple[float, float]]:
        """Milliseconds until each began and was committed; none when the contender wasn't ready in time."""
        count, warm = int(rate * seconds), int(rate * _WARM_UP_SECONDS)
        begins_at = SystemClock().now() + lead
        counts_from = begins_at + timedelta(seconds=_WARM_UP_SECONDS)

        def cohorts() -> list[Cohort]:
            return [steady(warm, begins_at, rate, tenant="warm"), steady(count, counts_from, rate)]

        with (
            session.stage.new_place(contender, cohorts) as place,
            ready(contender, place, keeps_on=True) as programs,
            Reader(place.url) as reader,
        ):
            for program in programs:
                program.go()
            if reader.now() > begins_at:
                return []
            until(reader, counts_from + timedelta(seconds=seconds))
            wait_drained(reader, programs)
            verify_fired(reader, count + warm, count + warm)
            return [(begin, commit) for begin, commit in reader.rows(_LATENESS)]

    def _keep(self, contender: Contender, session: Session, name: str, late: list[float]) -> None:
        """The curve of all rounds so far in place of the one before."""
        pooled = session.samples.setdefault((self.name, contender.key, name), [])
        pooled += late
        others = session.results.distributions
        mine = Distribution(self.name, contender.key, name, "ms", len(pooled), curve(pooled))
        kept = [one for one in others if (one.workload, one.contender, one.name) != (self.name, contender.key, name)]
        others[:] = [*kept, mine]
