"""What the command line can ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.program import CHECKOUT

# What one tenant is behind with, for each campaign of the size: enough to last for a while.
_BACKLOG: Final = 5


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured. `size` is the campaigns of the fastest contender; others get their share of it."""

    workloads: tuple[str, ...]
    contenders: tuple[str, ...]
    rounds: int = 5
    size: int = 20_000
    singles: int = 2_000
    bulk: int = 50_000
    backlog: int = 100_000
    lateness_seconds: float = 60.0
    idle_seconds: float = 20.0
    crash_size: int = 3_000
    peer_crash_rounds: int = 1
    depths: tuple[int, ...] = (10_000, 1_000_000)
    cycles: int = 1_000_000
    peers_at_depth: bool = False
    is_quick: bool = False
    keeps: bool = False
    output: Path = CHECKOUT / "benchmarks" / "RESULTS.md"


_QUICK: Final[dict[str, Any]] = {
    "rounds": 1,
    "size": 1_000,
    "singles": 50,
    "bulk": 1_000,
    "depths": (1_000,),
    "is_quick": True,
}


def parse(
    arguments: Sequence[str] | None, workloads: Sequence[str], contenders: Sequence[str], quick: Sequence[str]
) -> Options:
    """The options of a command line; `quick` are the contenders of a quick run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this project beside its limits and its peers, interleaved, and verify every effect.",
    )
    parser.add_argument("--workloads", help=f"some of {','.join(workloads)}, with commas")
    parser.add_argument("--contenders", help=f"some of {','.join(contenders)}, with commas")
    parser.add_argument("--rounds", type=_positive, help="interleaved runs of each contender; 5")
    parser.add_argument(
        "--size",
        type=_positive,
        help="campaigns of the fastest contender; 20000. The backlog of `fairness` goes with it",
    )
    parser.add_argument("--lateness-seconds", type=float, help="of steady load per contender, all rounds together; 60")
    parser.add_argument("--depths", type=_numbers, help="pending timeouts, with commas; 10000,1000000")
    parser.add_argument("--ten-million", action="store_true", help="a third depth; 20 GB, and minutes for each round")
    parser.add_argument("--cycles", type=_positive, help="timeouts fired by the same 10,000 campaigns; 1000000")
    parser.add_argument("--peers-at-depth", action="store_true", help="peers too, whose queues take minutes to fill")
    parser.add_argument("--quick", action="store_true", help="a tiny run in some seconds: does everything still work?")
    parser.add_argument("--keep", action="store_true", help="workloads that aren't run stay in the report as they are")
    parser.add_argument("--output", type=Path, help="the report; charts and raw results go beside it")
    given = parser.parse_args(arguments)
    chosen = Options(tuple(workloads), tuple(contenders))
    if given.quick:
        few = tuple(name for name in workloads if name in {"fire", "schedule"})
        chosen = replace(chosen, workloads=few, contenders=tuple(quick), **_QUICK)
    for name, known in (("workloads", workloads), ("contenders", contenders)):
        if getattr(given, name):
            names = getattr(given, name).split(",")
            unknown = [one for one in names if one not in known]
            if unknown:
                parser.error(f"--{name}: there is no {unknown[0]!r}, only {', '.join(known)}")
            some = tuple(one for one in known if one in names)
            chosen = replace(chosen, workloads=some) if name == "workloads" else replace(chosen, contenders=some)
    if given.depths:
        chosen = replace(chosen, depths=given.depths)
    if given.ten_million:
        chosen = replace(chosen, depths=(*chosen.depths, 10_000_000))
    for name in ("rounds", "size", "lateness_seconds", "cycles", "output"):
        if getattr(given, name) is not None:
            chosen = replace(chosen, **{name: getattr(given, name)})
    if given.size:
        chosen = replace(chosen, backlog=given.size * _BACKLOG)
    return replace(chosen, peers_at_depth=given.peers_at_depth or bool(given.contenders), keeps=given.keep)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(one) for one in text.split(","))
