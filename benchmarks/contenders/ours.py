"""What is measured: one daemon, two, and one on SQLite."""

from benchmarks.contenders.contender import Contender, Kind, module

_DAEMON = (
    "what `timeout-scheduler run` starts, with its default settings: 2 workers, batches of 500, leases, the whole "
    "state machine; JSON lines at INFO into a file, metrics and the web server on"
)

OURS = (
    Contender(
        key="ours",
        label="timeout-scheduler",
        kind=Kind.OURS,
        settings=f"one process: {_DAEMON}",
        command=module("ours"),
        workloads=frozenset({"fire", "schedule", "lateness", "depth", "crash", "idle", "fairness", "cycles", "log"}),
        is_quick=True,
    ),
    Contender(
        key="ours-two",
        label="timeout-scheduler, two daemons",
        kind=Kind.OURS,
        settings="two such processes on one database",
        command=module("ours"),
        workloads=frozenset({"fire", "crash"}),
        processes=2,
    ),
    Contender(
        key="ours-warnings",
        label="timeout-scheduler, warnings only",
        kind=Kind.OURS,
        settings="the same process with LOG_LEVEL WARNING",
        command=module("ours"),
        workloads=frozenset({"log"}),
        options={"log_level": "WARNING"},
    ),
    Contender(
        key="ours-sqlite",
        label="timeout-scheduler, SQLite",
        kind=Kind.OURS,
        settings=f"one process on a file (WAL, synchronous FULL): {_DAEMON}",
        command=module("ours"),
        workloads=frozenset({"fire", "schedule", "idle"}),
        system="sqlite",
        is_quick=True,
    ),
)
