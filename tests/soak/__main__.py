"""The command: `python -m tests.soak`."""

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from tests.soak.soak import Options, soak
from tests.support.cluster import why_no_cluster

_MARK: Final = "<!-- report -->\n"


def main() -> int:
    """Run a soak; 1 when anything is lost, doubled or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Faults without end, and an audit.")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long faults are injected (20)")
    parser.add_argument("--seed", type=int, default=1, help="the luck of faults and traffic (1)")
    parser.add_argument("--daemons", type=int, default=3, help="how many daemons share the database (3)")
    parser.add_argument("--lease", type=float, default=5.0, help="the daemons' lease, in seconds (5)")
    parser.add_argument("--rate", type=float, default=25.0, help="campaigns enrolled per second (25)")
    parser.add_argument("--pace", type=float, default=1.0, help="below 1: shorter faults, sooner (1)")
    parser.add_argument("--report", type=Path, help="write the report there too")
    given = parser.parse_args()
    missing = why_no_cluster()
    if missing:
        return _fail(missing)
    options = Options(
        seconds=given.minutes * 60,
        seed=given.seed,
        daemons=given.daemons,
        lease=timedelta(seconds=given.lease),
        rate=given.rate,
        pace=given.pace,
    )
    report = soak(options, _say)
    text = report.text()
    sys.stdout.write(text)
    if given.report is not None:
        _write(given.report, text)
    return 0 if report.is_good else 1


def _write(file: Path, text: str) -> None:
    """A page that has the mark keeps what is before it."""
    page = file.read_text("utf-8") if file.exists() else ""
    before, mark, _ = page.partition(_MARK)
    file.write_text(f"{before}{mark}\n{text}" if mark else text, "utf-8")


def _say(news: str) -> None:
    sys.stderr.write(f"{news}\n")
    sys.stderr.flush()


def _fail(reason: str) -> int:
    _say(reason)
    return 1


if __name__ == "__main__":
    sys.exit(main())
