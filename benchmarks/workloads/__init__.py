"""What contenders are given to do."""

from benchmarks.session import Workload
from benchmarks.workloads.crash import Crash
from benchmarks.workloads.cycles import Cycles
from benchmarks.workloads.depth import Depth
from benchmarks.workloads.fairness import Fairness
from benchmarks.workloads.fire import Fire
from benchmarks.workloads.idle import Idle
from benchmarks.workloads.lateness import Lateness
from benchmarks.workloads.log import Log
from benchmarks.workloads.schedule import Schedule

WORKLOADS: tuple[Workload, ...] = (
    Fire(),
    Schedule(),
    Lateness(),
    Depth(),
    Crash(),
    Idle(),
    Fairness(),
    Cycles(),
    Log(),
)

__all__ = ["WORKLOADS"]
