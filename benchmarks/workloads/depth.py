"""Does it matter how much is pending? Fires per second, the time of a claim, and memory, beside more and more of it."""

from __future__ import annotations

from benchmarks.campaigns import later, overdue
from benchmarks.contenders import Contender, Kind
from benchmarks.options import Options
from benchmarks.reading import Reader, verify_fired
from benchmarks.results import Metric
from benchmarks.session import Session, portion
from benchmarks.workloads.draining import drain

_SHARE = 0.5
_BATCH = 500


class Depth:
    """The due ones are as many at each depth; what lies beside them is due much later."""

    name = "depth"

    def rounds(self, _contender: Contender, options: Options) -> int:
        """All."""
        return options.rounds

    def reason_to_skip(self, contender: Contender, options: Options) -> str | None:
        """Peers need minutes to take a million jobs in."""
        if contender.kind is Kind.PEER and not options.peers_at_depth:
            return "filling its queue takes minutes: only with --peers-at-depth"
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """At each depth."""
        for depth in session.options.depths:
            self._run(contender, session, depth)

    def _run(self, contender: Contender, session: Session, depth: int) -> None:
        due = portion(int(session.options.size * _SHARE), contender.share)
        beside = depth // 2
        cohorts = [overdue(due), later(beside)]
        name = f"depth-{depth}-{due}"
        with session.stage.place(contender, name, lambda: cohorts) as place:
            drained = drain(contender, place)
            with Reader(place.url) as reader:
                verify_fired(reader, due, due + beside)
        add, where = session.results.add, f"{depth:,} pending"
        add(
            self.name,
            contender.key,
            Metric(f"fired, {where}", "timeouts/s", has_ratio=True, at=depth),
            due / drained.last,
        )
        if contender.kind is not Kind.LIMIT:
            memory = Metric(f"memory, {where}", "MB", more_is_better=False, at=depth)
            add(self.name, contender.key, memory, drained.megabytes)
        if contender.kind is Kind.OURS:
            with session.stage.place(contender, name, lambda: cohorts) as place:
                answer = contender.ask(place, "claim", limit=_BATCH)
            metric = Metric(f"claim of {_BATCH}, {where}", "ms", digits=1, more_is_better=False, at=depth)
            add(self.name, contender.key, metric, answer["milliseconds"])
