"""`python -m benchmarks`: measure, and write down what was found."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.contenders import CONTENDERS
from benchmarks.machine import facts
from benchmarks.options import parse
from benchmarks.report.markdown import write_report
from benchmarks.results import Described, Results
from benchmarks.running import run_all
from benchmarks.servers import Servers
from benchmarks.session import Session
from benchmarks.stage import Stage
from benchmarks.workloads import WORKLOADS


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when effects were wrong, or a contender failed."""
    options = parse(
        arguments,
        [one.name for one in WORKLOADS],
        [one.key for one in CONTENDERS],
        [one.key for one in CONTENDERS if one.is_quick],
    )
    wanted = [one for one in CONTENDERS if one.key in options.contenders]
    results = Results(
        contenders=[Described(one.key, one.label, one.kind, one.settings, one.system) for one in wanted],
    )
    servers = Servers()
    try:
        run_all(Session(options, servers, Stage(servers), results), wanted)
        results.facts |= facts(servers, options, wanted)
        raw = options.output.with_suffix(".json")
        if options.keeps and raw.exists():
            results.keep(Results.read(raw), but=options.workloads)
    finally:
        servers.close()
    if not options.is_quick:
        write_report(results, options)
        print(f"written: {options.output}")
    for note in results.wrong:
        print(f"WRONG: {note.workload}, {results.label(note.contender)}: {note.text}", file=sys.stderr)
    return 1 if results.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
