"""Processes that die at a chosen moment of their work with the database: before their Nth statement or commit.

A server process imports everything once and forks a victim per order, so that a death costs milliseconds. It never
opens a database itself: nothing is inherited that a fork breaks.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event

from scheduler import SendRequest, SendResult, TimeoutScheduler
from tests.support.scheduling import make_settings

KILLED: Final = 9
_ROOT: Final = Path(__file__).parents[2]


class Victims:
    """Orders victims, one after the other; `order` answers whether it died before its work was done."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def order(self, point: int, work: Mapping[str, Any]) -> bool:
        """Let a process do `work`, and die at its `point`-th step; True when it did, False when it came to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"point": point, **work}) + "\n")
        self._process.stdin.flush()
        exit_code = int(self._process.stdout.readline())
        assert exit_code in (0, KILLED), f"the victim left with {exit_code}"
        return exit_code == KILLED


@contextmanager
def victims() -> Iterator[Victims]:
    """A server of victims, gone after the block."""
    command = [sys.executable, "-m", "tests.support.victims"]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        yield Victims(process)


def _live(order: dict[str, Any]) -> None:
    """A victim's life: fires all that is due, or takes one event in."""
    steps = iter(range(1, order["point"]))

    def step(*_facts: Any) -> None:
        if next(steps, None) is None:
            os._exit(KILLED)

    def hand_over(request: SendRequest) -> SendResult:
        step()
        with Path(order["outbox"]).open("a", encoding="utf-8") as outbox:
            outbox.write(f"{request.dedupe_key}\n")
        step()
        return SendResult()

    settings = make_settings(lease=order["lease"])
    with closing(TimeoutScheduler(order["url"], settings=settings, send_handler=hand_over)) as scheduler:
        for name in ("before_cursor_execute", "commit"):
            event.listen(scheduler.database.engine, name, step)
        if "event" in order:
            scheduler.campaigns.process_event(**order["event"])
        else:
            scheduler.run_due()


def _serve() -> None:
    """One fork per line of standard input; its exit code to standard output."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _live(json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
