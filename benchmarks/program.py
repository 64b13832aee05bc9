"""A program that is measured: started, told to go, watched, ended."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO, cast

import psutil

CHECKOUT: Final = Path(__file__).parents[1]
_LONGEST_GOODBYE: Final = 20.0
_TAIL: Final = 2000


class ProgramError(Exception):
    """A program ended, or said something else than it should."""


class Program:
    """One process. Its standard error goes to a file of its own, and is shown when it fails."""

    def __init__(self, command: Sequence[str | Path], job: Mapping[str, Any], log: Path) -> None:
        self.log = log
        # Not this shell's settings of the scheduler: what is measured is what the report says.
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("SCHEDULER_", "SENTRY_", "PG"))
        }
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, json.dumps(dict(job))],
                cwd=CHECKOUT,
                env={**env, "PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._input, self._output = cast("TextIO", self._process.stdin), cast("TextIO", self._process.stdout)
        self._observed = psutil.Process(self._process.pid)

    @property
    def process_id(self) -> int:
        """The operating system's number of it."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Until it has imported and connected all it needs."""
        line = self._line()
        if line != "ready":
            raise self._failed(f"said {line!r} instead of ready")

    def go(self) -> None:
        """It counts from now on."""
        self._input.write("go\n")
        self._input.flush()

    def answer(self) -> dict[str, Any]:
        """What it found out; waits for it."""
        line = self._line()
        try:
            found: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise self._failed(f"answered {line!r}") from None
        return found

    def require_alive(self) -> None:
        """Raises ProgramError when it failed."""
        if self._process.poll() not in (None, 0):
            raise self._failed("ended")

    def cpu_seconds(self) -> float:
        """The processor time it took so far."""
        times = self._observed.cpu_times()
        return float(times.user + times.system)

    def memory_megabytes(self) -> float:
        """What it holds in memory now (RSS); 0 when it ended."""
        with suppress(psutil.NoSuchProcess):
            return float(self._observed.memory_info().rss) / 2**20
        return 0.0

    def kill9(self) -> None:
        """No time for anything."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Tell it to stop, and wait for that; kill it when it takes too long."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_LONGEST_GOODBYE)
            except subprocess.TimeoutExpired:
                self.kill9()
        self._output.close()
        with suppress(BrokenPipeError):
            self._input.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _line(self) -> str:
        line = self._output.readline().strip()
        if not line:
            self._process.wait(_LONGEST_GOODBYE)
            raise self._failed("ended")
        return line

    def _failed(self, what: str) -> ProgramError:
        tail = self.log.read_text("utf-8", "replace")[-_TAIL:]
        return ProgramError(f"{self._process.args!r} {what} (exit code {self._process.poll()}):\n{tail}")


def pause(seconds: float) -> None:
    """Wait for what another process does."""
    threading.Event().wait(seconds)
