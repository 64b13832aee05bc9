"""N timeouts are due: how many are fired per second, from "go" to the last commit."""

from __future__ import annotations

from typing import Final

from benchmarks.campaigns import later, overdue
from benchmarks.contenders import Contender
from benchmarks.options import Options
from benchmarks.reading import Reader, verify_fired
from benchmarks.results import Metric
from benchmarks.session import Session, portion
from benchmarks.workloads.draining import drain

FIRED: Final = Metric("fired", "timeouts/s", has_ratio=True)


class Fire:
    """Everybody has the same campaigns pending; slow ones have fewer of them due."""

    name = "fire"

    def rounds(self, _contender: Contender, options: Options) -> int:
        """All."""
        return options.rounds

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """Drain, verify, record."""
        size = session.options.size
        due = portion(size, contender.share)
        cohorts = [overdue(due), later(size - due)]
        with session.stage.place(contender, f"fire-{due}", lambda: cohorts) as place:
            drained = drain(contender, place)
            with Reader(place.url) as reader:
                verify_fired(reader, due, size)
        session.results.add(self.name, contender.key, FIRED, due / drained.last)
