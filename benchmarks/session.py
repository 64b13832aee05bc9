"""What a workload is given: where to run, how much, and where to put what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.contenders import Contender
from benchmarks.options import Options
from benchmarks.results import Results
from benchmarks.servers import Servers
from benchmarks.stage import Stage


@dataclass(frozen=True, slots=True)
class Session:
    """One run of everything."""

    options: Options
    servers: Servers
    stage: Stage
    results: Results
    samples: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)


class Workload(Protocol):
    """Something to do. `run` is called once per round for each contender in turn; it raises when effects are wrong."""

    @property
    def name(self) -> str:
        """As it is asked for."""

    def rounds(self, contender: Contender, options: Options) -> int:
        """How often."""

    def reason_to_skip(self, contender: Contender, options: Options) -> str | None:
        """Why a contender that could is left out."""

    def run(self, contender: Contender, session: Session) -> None:
        """Once, on a fresh place; adds to the results."""


def portion(size: int, share: float) -> int:
    """A contender's part of a size, in whole eights, for pgbench's clients."""
    return max(8, int(size * share) // 8 * 8)


def chosen(contenders: Sequence[Contender], workload: str) -> list[Contender]:
    """Those that can do it."""
    return [one for one in contenders if workload in one.workloads]
