"""What daemons of the tests do in place of our own work: it says that it began, and ends when the test lets it.

A daemon imports this module by its settings (`tests.support.gated:Gated`); a folder, which its environment names, is
how it and the test speak to each other: it writes there what it was given, and a file `open` lets it go on.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy import Connection, text

from scheduler import Outcome, ScheduledAction, SendRequest, SendResult, TimeoutScheduler
from tests.support.eventually import INTERVAL_SECONDS, eventually
from tests.support.scheduling import DONE, execute, query

POISONED: Final = "poisoned"

_ROOT: Final = Path(__file__).parents[2]
_FOLDER: Final = "TEST_GATE"
_PATIENCE_SECONDS: Final = 60.0


class Gate:
    """The test's end: what a daemon began, and whether it may go on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """What a daemon needs to find this gate and this module."""
        return {_FOLDER: str(self._folder), "PYTHONPATH": str(_ROOT)}

    def open(self) -> None:
        """Let everything through, from now on."""
        (self._folder / "open").touch()

    def begun(self, what: str) -> list[str]:
        """The keys of the `timeouts` or `sends` that somebody began with, in order."""
        file = self._folder / what
        return file.read_text("utf-8").split() if file.exists() else []

    def wait_for(self, what: str, count: int = 1) -> None:
        """Wait until so many have begun."""
        eventually(lambda: len(self.begun(what)) >= count, timeout=_PATIENCE_SECONDS)


def create_effects(scheduler: TimeoutScheduler) -> None:
    """The table that says what took effect, and by which process; a key may be there twice."""
    execute(scheduler, "CREATE TABLE effects (dedupe_key TEXT, process_id INTEGER)")


def effects(scheduler: TimeoutScheduler) -> list[str]:
    """The keys that took effect, sorted; one that did so twice is there twice."""
    return sorted(key for (key,) in query(scheduler, "SELECT dedupe_key FROM effects"))


class Effects:
    """A state manager: each key is written into a table, in the transaction that completes it."""

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """All are done."""
        rows = [{"key": job.dedupe_key, "process": os.getpid()} for job in jobs]
        connection.execute(text("INSERT INTO effects (dedupe_key, process_id) VALUES (:key, :process)"), rows)
        return [DONE] * len(jobs)


class Gated(Effects):
    """Works on a batch until the gate is open."""

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """All are done, after `work`."""
        _note("timeouts", jobs)
        self.work(jobs)
        return super().process(connection, jobs)

    def work(self, _jobs: Sequence[ScheduledAction]) -> None:
        """Wait at the gate."""
        _wait_at_gate()


class Allergic(Gated):
    """Can't bear one campaign, until the gate is open."""

    def work(self, jobs: Sequence[ScheduledAction]) -> None:
        """Raise."""
        if any(job.campaign_id == POISONED for job in jobs) and not _is_open():
            raise ValueError("not this one")


class Closed(Gated):
    """Fails with everything, until the gate is open."""

    def work(self, _jobs: Sequence[ScheduledAction]) -> None:
        """Raise."""
        if not _is_open():
            raise ValueError("closed")


class Greedy(Gated):
    """Takes all the memory there is for its second batch, unless the gate is open. For one worker."""

    def __init__(self) -> None:
        self._batches = 0

    def work(self, _jobs: Sequence[ScheduledAction]) -> None:
        """Take it."""
        self._batches += 1
        hoard = []
        while self._batches > 1 and not _is_open():
            hoard.append(os.urandom(1 << 20))


class Starved(Gated):
    """With its first batch the whole process has used up all the memory it may have, down to the smallest piece."""

    def __init__(self) -> None:
        self._hoard: list[bytes] | None = None

    def work(self, jobs: Sequence[ScheduledAction]) -> None:
        """Use it up."""
        if self._hoard is None:
            self._hoard = []
            _note("starved", jobs[:1])
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms, most))
            for size in (1 << 20, 1 << 16, 1 << 12, 1 << 8):
                with suppress(MemoryError):
                    while True:
                        self._hoard.append(bytes(size))
            raise MemoryError


def send(request: SendRequest) -> SendResult:
    """A send handler: hands over once the gate is open."""
    with _file("sends").open("a", encoding="utf-8") as file:
        file.write(f"{request.dedupe_key}\n")
    _wait_at_gate()
    return SendResult()


def _note(what: str, jobs: Sequence[ScheduledAction]) -> None:
    with _file(what).open("a", encoding="utf-8") as file:
        file.write("".join(f"{job.dedupe_key}\n" for job in jobs))


def _file(name: str) -> Path:
    return Path(os.environ[_FOLDER]) / name


def _is_open() -> bool:
    return _file("open").exists()


def _wait_at_gate() -> None:
    """Not by `time.sleep`, which fails in a process with a wall clock of its own."""
    last = time.monotonic() + _PATIENCE_SECONDS
    while not _is_open():
        if time.monotonic() > last:
            raise TimeoutError("nobody opened the gate")
        threading.Event().wait(INTERVAL_SECONDS)
