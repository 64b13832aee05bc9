"""How a program talks with the benchmark that started it. Standard library only: peers have their own environment."""

from __future__ import annotations

import json
import sys
from typing import Any


def job() -> dict[str, Any]:
    """What to do: `mode`, `url` of the database as libpq takes it, and more by mode."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def wait_for_go() -> None:
    """Say that everything is imported and connected, and wait until it counts."""
    print("ready", flush=True)
    sys.stdin.readline()


def answer(**values: Any) -> None:
    """The result, as one line of JSON."""
    print(json.dumps(values), flush=True)
