"""`kill -9` in the middle of a drain: what is lost, what is done twice, and how long until the rest is done.

A contender of one process is started again at once; of two, one is killed and the other goes on.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Final

from benchmarks.campaigns import overdue
from benchmarks.contenders import Contender, Kind
from benchmarks.options import Options
from benchmarks.program import Program, pause
from benchmarks.reading import COMMITTED, Reader, verify_fired
from benchmarks.results import Metric
from benchmarks.servers import Place
from benchmarks.session import Session
from benchmarks.workloads.draining import ready

LOST: Final = Metric("lost", "timeouts", more_is_better=False)
DOUBLED: Final = Metric("doubled", "timeouts", more_is_better=False)
FORGOTTEN: Final = Metric("follow-ups without a job", "timeouts", more_is_better=False)
LEFT: Final = Metric("left when killed", "timeouts")
HELD: Final = Metric("held by the killed process", "timeouts")
FIRST_HELD: Final = Metric("first of these fired after", "s", digits=2, more_is_better=False)
RECOVERED: Final = Metric("all done after", "s", digits=2, more_is_better=False)
_MIDDLE: Final = 3

_HELD: Final = "SELECT tenant_id, dedupe_key FROM scheduled_actions WHERE status = 'claimed' AND claimed_by LIKE %s"
_FIRST_OF: Final = f"""
SELECT min({COMMITTED}) FROM campaign_transitions AS moved
JOIN unnest(%s::text[], %s::text[]) AS held (tenant_id, dedupe_key) USING (tenant_id, dedupe_key)
"""  # noqa: S608 - a constant
_LAST: Final = f"SELECT max({COMMITTED}) FROM campaign_transitions AS moved WHERE node_visit = 1"  # noqa: S608 - a constant
_DOUBLED: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM campaign_transitions WHERE node_visit > 0 GROUP BY tenant_id, campaign_id "
    "HAVING count(*) > 1) AS twice"
)


class Crash:
    """Lost means: without effect after `patience` seconds in which nothing happened."""

    name = "crash"

    def rounds(self, contender: Contender, options: Options) -> int:
        """Peers with a lease take a minute each."""
        return min(options.peer_crash_rounds, options.rounds) if contender.kind is Kind.PEER else options.rounds

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """Kill, go on, count."""
        size = session.options.crash_size
        with session.stage.place(contender, f"crash-{size}", lambda: [overdue(size)]) as place:
            found = self._crash(contender, place, size)
            if contender.own_queue:
                found[FORGOTTEN] = contender.ask(place, "missing")["missing"]
        for metric, value in found.items():
            session.results.add(self.name, contender.key, metric, value)

    def _crash(self, contender: Contender, place: Place, size: int) -> dict[Metric, float]:
        with ready(contender, place) as programs, Reader(place.url) as reader:
            for program in programs:
                program.go()
            _wait_moved(reader, programs, size // _MIDDLE)
            victim = programs[0]
            victim.kill9()
            killed_at = reader.now()
            held = reader.rows(_HELD, [f"%:{victim.process_id}:%"])
            left = size - reader.moved()
            if contender.processes == 1:
                with contender.program(place, "fire") as successor:
                    successor.wait_ready()
                    successor.go()
                    moved = _wait_still(reader, size, contender.patience)
            else:
                moved = _wait_still(reader, size, contender.patience)
            verify_fired(reader, moved, size)
            found: dict[Metric, float] = {
                LOST: size - moved,
                DOUBLED: int(reader.value(_DOUBLED)),
                LEFT: left,
            }
            if contender.kind is Kind.OURS:
                found[HELD] = len(held)
            if held:
                keys = [[row[0] for row in held], [row[1] for row in held]]
                found[FIRST_HELD] = _seconds(reader.value(_FIRST_OF, keys), killed_at)
            if moved == size:
                found[RECOVERED] = _seconds(reader.value(_LAST), killed_at)
            return found


def _wait_moved(reader: Reader, programs: list[Program], wanted: int) -> None:
    while reader.moved() < wanted:
        for program in programs:
            program.require_alive()
        pause(0.001)


def _wait_still(reader: Reader, wanted: int, patience: float) -> int:
    """Until all moved, or none did for `patience` seconds; returns how many did."""
    moved, since = reader.moved(), time.monotonic()
    while moved < wanted and time.monotonic() - since < patience:
        pause(0.05)
        now_moved = reader.moved()
        if now_moved != moved:
            moved, since = now_moved, time.monotonic()
    return moved


def _seconds(instant: Any, since: datetime) -> float:
    return max(float((instant - since).total_seconds()), 0.0)
