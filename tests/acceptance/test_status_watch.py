"""`status --watch` on a terminal: a screen that changes, until Ctrl-C."""

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.signals import heed_interrupts


def test_watch_on_a_terminal_ends_with_ctrl_c_and_without_a_traceback(sqlite_url: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "SCHEDULER_DATABASE_URL": sqlite_url, "TERM": "xterm", "COLUMNS": "100"}
    words = [sys.executable, "-m", "scheduler", "status", "--watch", "--interval", "PT0.1S"]
    process = subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=environment,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no threads of ours run here
    )
    os.close(theirs)
    seen = bytearray()

    def is_shown() -> bool:
        seen.extend(os.read(ours, 65536))
        return seen.count(b"a second") >= 2

    eventually(is_shown, timeout=30)
    process.send_signal(signal.SIGINT)
    rest = _read_all(ours)

    assert process.wait(30) == 0
    assert b"Traceback" not in seen + rest
    assert b"tenant" in seen


def _read_all(descriptor: int) -> bytes:
    """Until the other side has gone, which a terminal tells by an error."""
    found = bytearray()
    while True:
        assert select.select([descriptor], [], [], 30)[0], f"nobody leaves: {found!r}"
        try:
            some = os.read(descriptor, 65536)
        except OSError:
            break
        if not some:
            break
        found.extend(some)
    os.close(descriptor)
    return bytes(found)
