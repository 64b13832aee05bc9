"""The installed command as a process: started, watched, killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.eventually import eventually

COMMAND: Final = Path(sys.executable).with_name("timeout-scheduler")

# Short leases, so that what a killed process held is soon due again; no port, so that several run side by side.
QUICK: Final = {
    "SCHEDULER_BATCH_SIZE": "20",
    "SCHEDULER_HTTP_PORT": "0",
    "SCHEDULER_LEASE": "PT2S",
    "SCHEDULER_LOG_FORMAT": "json",
    "SCHEDULER_POLL_INTERVAL": "PT0.2S",
}


def environment(database_url: str, **more: str) -> dict[str, str]:
    """What the command is started with: this machine's environment, without settings of its user."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SCHEDULER_", "SENTRY_"))}
    return {**clean, "SCHEDULER_DATABASE_URL": database_url, **QUICK, **more}


def run_command(folder: Path, env: Mapping[str, str], *words: str) -> str:
    """Run the command to its end, in `folder`; returns what it printed. Fails unless it exits with 0."""
    done = subprocess.run(
        [COMMAND, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class DaemonProcess:
    """One `timeout-scheduler run`, with its log in a file."""

    def __init__(self, folder: Path, env: Mapping[str, str], name: str = "daemon") -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "run"], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until(self, event: str) -> None:
        """Wait for a line of its log; fails at once when the process ends instead."""

        def is_there() -> bool:
            text = self.log.read_text("utf-8")
            assert event in text or self.process.poll() is None, text
            return event in text

        eventually(is_there, timeout=30)

    def kill(self) -> None:
        """SIGKILL: no time for anything."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(folder: Path, env: Mapping[str, str], name: str = "daemon") -> Iterator[DaemonProcess]:
    """A daemon that fires, and is gone afterwards in any case."""
    daemon = DaemonProcess(folder, env, name)
    try:
        daemon.wait_until("scheduler.started")
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
