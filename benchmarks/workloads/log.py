"""What the lines cost: one per fired action into a file, beside warnings alone."""

from __future__ import annotations

from typing import Final

from benchmarks.campaigns import overdue
from benchmarks.contenders import Contender
from benchmarks.options import Options
from benchmarks.reading import Reader, verify_fired
from benchmarks.results import Metric
from benchmarks.session import Session
from benchmarks.workloads.draining import drain

FIRED: Final = Metric("fired", "timeouts/s")


class Log:
    """The same as `fire`, for the same process that logs more or less."""

    name = "log"

    def rounds(self, _contender: Contender, options: Options) -> int:
        """All."""
        return options.rounds

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """Fire all."""
        due = session.options.size
        with session.stage.place(contender, f"log-{due}", lambda: [overdue(due)]) as place:
            drained = drain(contender, place)
            with Reader(place.url) as reader:
                verify_fired(reader, due, due)
        session.results.add(self.name, contender.key, FIRED, due / drained.last)
