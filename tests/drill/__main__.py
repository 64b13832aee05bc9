"""The command: `python -m tests.drill`."""

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from tests.drill.drill import Options, drill

_MARK: Final = "<!-- transcript -->\n"


def main() -> int:
    """Run a drill; 1 when a timeout was lost or fired twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description="The database is away for a while.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long the database is away (10)")
    parser.add_argument("--timeouts", type=int, default=50_000, help="how many fall due meanwhile (50000)")
    parser.add_argument("--page", type=Path, help="a page with the mark `<!-- transcript -->` to write it to")
    given = parser.parse_args()
    transcript = drill(Options(outage=timedelta(minutes=given.minutes), timeouts=given.timeouts), _say)
    text = transcript.text()
    sys.stdout.write(text)
    if given.page is not None:
        before, mark, _ = given.page.read_text("utf-8").partition(_MARK)
        given.page.write_text(f"{before}{mark}\n{text}", "utf-8")
    return 0 if transcript.is_good else 1


def _say(news: str) -> None:
    sys.stderr.write(f"{news}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
