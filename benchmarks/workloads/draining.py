"""Starting a contender's programs on a place and watching them until nothing is due any more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from benchmarks.contenders import Contender
from benchmarks.program import Program, pause
from benchmarks.reading import Reader, WrongEffectsError
from benchmarks.servers import Place

_PATIENCE_SECONDS: Final = 300.0
# PostgreSQL tells afterwards when what was committed; of a file only asking tells.
_GLANCE: Final = 0.05
_GLANCE_AT_FILE: Final = 0.005


@dataclass(frozen=True, slots=True)
class Drained:
    """Seconds from "go" to the first and the last commit, and the memory of the largest process (0: it is gone)."""

    first: float
    last: float
    megabytes: float


@contextmanager
def ready(contender: Contender, place: Place, *, keeps_on: bool = False) -> Iterator[list[Program]]:
    """Its programs, connected, and waiting for "go"; `keeps_on`: also when nothing is due."""
    with ExitStack() as stack:
        more: dict[str, Any] = {"keeps_on": keeps_on}
        if "clients" in contender.options:
            more["due"] = due_at(place)
        programs = [stack.enter_context(contender.program(place, "fire", **more)) for _ in range(contender.processes)]
        for program in programs:
            program.wait_ready()
        yield programs


def due_at(place: Place) -> int:
    """How many are due."""
    with Reader(place.url) as reader:
        return int(reader.value("SELECT count(*) FROM scheduled_actions WHERE status = 'pending' AND run_at <= now()"))


def drain(contender: Contender, place: Place, starts_at: datetime | None = None) -> Drained:
    """Let it fire all that is due; `starts_at` is when it counts, if not at once."""
    with ready(contender, place) as programs, Reader(place.url) as reader:
        if starts_at is not None:
            pause(max((starts_at - reader.now()).total_seconds(), 0))
        began = reader.now() if reader.is_postgresql else None
        begun = time.perf_counter()
        for program in programs:
            program.go()
        wait_drained(reader, programs)
        last = time.perf_counter() - begun
        first = 0.0
        if began is not None:
            first, last = reader.seconds_until_moved(began)
        megabytes = max(program.memory_megabytes() for program in programs)
        return Drained(first, last, megabytes)


def wait_drained(reader: Reader, programs: Sequence[Program], patience: float = _PATIENCE_SECONDS) -> None:
    """Until nothing is due; WrongEffectsError when that takes too long."""
    deadline = time.monotonic() + patience
    while not reader.is_drained():
        for program in programs:
            program.require_alive()
        if time.monotonic() > deadline:
            raise WrongEffectsError(f"timeouts were still due after {patience:.0f} s")
        pause(_GLANCE if reader.is_postgresql else _GLANCE_AT_FILE)


def until(reader: Reader, instant: datetime) -> None:
    """Wait until the server's clock says so."""
    pause(max((instant - reader.now() + timedelta(milliseconds=1)).total_seconds(), 0))
