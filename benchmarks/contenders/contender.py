"""A contender, as data: which program, how many of it, with which settings, and what it can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks import parts
from benchmarks.program import Program
from benchmarks.servers import Place


class Kind(StrEnum):
    """In which part of a table a contender stands."""

    OURS = "this project"
    LIMIT = "limit"
    PEER = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to fire and schedule timeouts.

    `share` is which part of a run's size it gets, so that fast and slow ones take about as long. `command` raises
    MissingPartError when a part isn't here. `own_queue`: the pending timeouts have to be brought into it first, in the
    same database (`in_database`) or elsewhere. `unknown_jobs` counts pending timeouts that its queue knows nothing of.
    """

    key: str
    label: str
    kind: Kind
    settings: str
    command: Callable[[], Sequence[str | Path]]
    workloads: frozenset[str]
    system: str = "postgresql"
    share: float = 1.0
    processes: int = 1
    own_queue: bool = False
    in_database: bool = True
    needs_redis: bool = False
    is_quick: bool = False
    patience: float = 20.0
    options: dict[str, Any] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why it can't run on this machine; None when it can."""
        try:
            self.command()
            if self.needs_redis:
                parts.redis_server()
        except (parts.MissingPartError, OSError, RuntimeError) as error:
            return str(error)
        return None

    def program(self, place: Place, mode: str, **more: Any) -> Program:
        """One process of it, started. It says when it is ready."""
        job = {"mode": mode, "url": place.url, "redis": place.redis_port, **self.options, **more}
        return Program(self.command(), job, place.folder / f"{self.key}.log")

    def ask(self, place: Place, mode: str, **more: Any) -> dict[str, Any]:
        """Start it, tell it to go, and return its answer."""
        with self.program(place, mode, **more) as program:
            program.wait_ready()
            program.go()
            return program.answer()


def module(name: str) -> Callable[[], Sequence[str | Path]]:
    """A program of this project's environment."""
    return lambda: [parts.project_python(), "-m", f"benchmarks.programs.{name}"]


def peer_module(name: str) -> Callable[[], Sequence[str | Path]]:
    """A program of the peers' environment."""
    return lambda: [parts.peer_python(), "-m", f"benchmarks.programs.{name}"]
