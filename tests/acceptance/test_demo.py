"""The demo as a user starts it, where everything else is in disorder."""

import os
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_demo_passes_in_under_thirty_seconds_whatever_is_configured(tmp_path: Path) -> None:
    """Settings that would break it are neither read nor touched, and nothing is left behind."""
    (tmp_path / ".env").write_text("SCHEDULER_TIMEOUT_GRACE=P1D\nSCHEDULER_UNKNOWN=1\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(CHECKOUT),
        "SCHEDULER_DATABASE_URL": f"sqlite:///{tmp_path / 'mine.db'}",
        "SCHEDULER_TIMEOUT_GRACE": "PT1H",
        "SCHEDULER_SEND_HANDLER": "no_such_module:send",
        "SCHEDULER_WORKERS": "not a number",
    }
    began = time.monotonic()

    answer = subprocess.run(
        [sys.executable, "-m", "scheduler", "demo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    assert time.monotonic() - began < 30
    for kind in ("sent", "opened", "clicked", "unsubscribed", "fired", "canceled"):
        assert f"  {kind} " in answer.stdout
    assert answer.stdout.endswith("every number is what the plan demands\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".env", "temporary"]
    assert list(temporary.iterdir()) == []
