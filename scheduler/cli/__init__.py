"""The command `timeout-scheduler`. Needs the extra `daemon`; without it, says so and exits with 2."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

_EXTRA: Final = ("rich", "starlette", "typer", "uvicorn")


def main() -> int:
    """Run the command line of this process, and leave with 0 (done), 1 (failed) or 2 (wrong usage or bad input)."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"error: the command needs {', '.join(missing)}, which the base install leaves out. Install it with:\n"
            '  pip install "timeout-scheduler[daemon]"\n'
        )
        return 2
    from scheduler.cli.app import app  # noqa: PLC0415 - what it imports may not be installed

    app()
    return 0
