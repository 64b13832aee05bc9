"""Does the database stay what it is? A million timeouts fired by the same campaigns, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from benchmarks.campaigns import ROUND, Cohort
from benchmarks.contenders import Contender
from benchmarks.options import Options
from benchmarks.program import ProgramError, pause
from benchmarks.reading import Reader, require
from benchmarks.results import Metric
from benchmarks.session import Session
from benchmarks.workloads.draining import ready
from scheduler.domain.timing import SystemClock

_CAMPAIGNS: Final = 10_000
_BATCH: Final = 500
_LEAST_RATE: Final = 200  # cycles per second
_TABLES: Final = ("scheduled_actions", "contact_campaigns")
# What was inserted, as the statistics have it: they lag by a second or two, and cost nothing.
_MOVED: Final = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'campaign_transitions'"
_SIZES: Final = (
    "SELECT sum(pg_relation_size(pg_class.oid)) FROM pg_class WHERE relkind = 'r' AND relname = '{0}' "
    "UNION ALL SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indrelid = '{0}'::regclass"
)
_TENTHS: Final = """
SELECT percentile_disc(ARRAY[0.0, 0.1, 0.9, 1.0]) WITHIN GROUP (ORDER BY extract(epoch FROM created_at)::float8),
    count(*)
FROM campaign_transitions WHERE node_visit > 0
"""


class Cycles:
    """The tables and their indexes are compared with what they are when they were written anew."""

    name = "cycles"

    def rounds(self, _contender: Contender, _options: Options) -> int:
        """It takes minutes."""
        return 1

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """Fire until there were so many cycles; then measure what is left."""
        due_at = SystemClock().now() - timedelta(seconds=1)
        cohort = Cohort("tenant", _CAMPAIGNS, due_at, plan=ROUND)
        with session.stage.new_place(contender, lambda: [cohort]) as place, Reader(place.url) as reader:
            before = contender.ask(place, "claim", limit=_BATCH)["milliseconds"]
            with ready(contender, place) as programs:
                for program in programs:
                    program.go()
                _wait_for(reader, session.options.cycles)
            _wait_until_due(reader)
            after = contender.ask(place, "claim", limit=_BATCH)["milliseconds"]
            values = {**_rates(reader), f"claim of {_BATCH} before, ms": before, f"claim of {_BATCH} after, ms": after}
            _verify(reader)
            values |= _growth(reader)
        for name, value in values.items():
            self._add(contender, session, name, value)

    def _add(self, contender: Contender, session: Session, name: str, value: float) -> None:
        name, _, unit = name.partition(", ")
        is_rate = unit == "timeouts/s"
        metric = Metric(name, unit, digits=0 if is_rate else 2, more_is_better=is_rate)
        session.results.add(self.name, contender.key, metric, value)


def _wait_for(reader: Reader, cycles: int) -> None:
    deadline = time.monotonic() + cycles / _LEAST_RATE
    while reader.value(_MOVED) < cycles + _CAMPAIGNS:
        if time.monotonic() > deadline:
            raise ProgramError(
                f"{reader.value(_MOVED):,} of {cycles:,} cycles were made in {cycles / _LEAST_RATE:.0f} s"
            )
        pause(1.0)


def _wait_until_due(reader: Reader) -> None:
    """All of them, a second after the last one was fired; what was claimed by who was stopped isn't looked at."""
    pause(2.0)
    reader.run("UPDATE scheduled_actions SET status = 'pending' WHERE status = 'claimed'")


def _rates(reader: Reader) -> Mapping[str, float]:
    ((instants, count),) = reader.rows(_TENTHS)
    tenth = count / 10
    return {
        "first tenth, timeouts/s": tenth / (instants[1] - instants[0]),
        "last tenth, timeouts/s": tenth / (instants[3] - instants[2]),
    }


def _growth(reader: Reader) -> Mapping[str, float]:
    """How many times as large each table, and its indexes together, are as when they are written anew."""
    grown: dict[str, float] = {}
    for table in _TABLES:
        before = _sizes(reader, table)
        reader.run(f"VACUUM (FULL, ANALYZE) {table}")
        after = _sizes(reader, table)
        grown |= {f"{table}, times": before[0] / after[0], f"indexes of {table}, times": before[1] / after[1]}
    return grown


def _sizes(reader: Reader, table: str) -> list[Any]:
    return [float(size) for (size,) in reader.rows(_SIZES.format(table))]


def _verify(reader: Reader) -> None:
    """Each campaign was moved as often as its visit says, and waits for exactly what its node waits for."""
    moved = int(reader.value("SELECT sum(node_visit - 1) FROM contact_campaigns"))
    at_first = int(reader.value("SELECT count(*) FROM contact_campaigns WHERE current_node_id = 'first'"))
    actions = "SELECT count(*) FROM scheduled_actions WHERE event_type = "
    require(
        reader,
        {
            "SELECT count(*) FROM campaign_transitions WHERE node_visit > 0": moved,
            f"{actions}'no_open' AND status = 'completed' AND outcome = 'transitioned'": moved,
            f"{actions}'no_open' AND status = 'pending'": _CAMPAIGNS,
            f"{actions}'no_click' AND status = 'pending'": at_first,
        },
    )
