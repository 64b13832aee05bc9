"""What daemons said in their logs, and what they answer over HTTP."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from tests.support.eventually import eventually

_NOT_OURS: Final = {"event": "(not a line of the log)", "level": "error"}
_DATABASE_UP: Final = re.compile(r"^timeout_scheduler_database_up (\S+)$", re.MULTILINE)


def read_log(log: Path) -> list[dict[str, Any]]:
    """Every line of a log in JSON; one that isn't JSON, a traceback's for instance, counts as an error."""
    return [_read_line(line) for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]


def said(log: Path, event: str) -> int:
    """How many lines of that event there are."""
    return sum(1 for line in read_log(log) if line["event"] == event)


def _read_line(line: str) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except ValueError:
        return {**_NOT_OURS, "line": line}
    return {"event": "", "level": "", **read} if isinstance(read, dict) else {**_NOT_OURS, "line": line}


class Pages:
    """The pages of a daemon that was started with SCHEDULER_HTTP_PORT=0."""

    def __init__(self, log: Path) -> None:
        ports = eventually(lambda: [line["port"] for line in read_log(log) if line["event"] == "http.listening"], 30)
        self._address = f"http://127.0.0.1:{ports[-1]}"

    def readiness(self) -> int:
        """The status of /readyz."""
        return self._status("readyz")

    def liveness(self) -> int:
        """The status of /healthz."""
        return self._status("healthz")

    def _status(self, page: str) -> int:
        try:
            with urllib.request.urlopen(f"{self._address}/{page}", timeout=30) as answer:  # noqa: S310 - http
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def database_up(self) -> float:
        """`timeout_scheduler_database_up` at /metrics."""
        with urllib.request.urlopen(f"{self._address}/metrics", timeout=30) as answer:  # noqa: S310 - http
            found = _DATABASE_UP.search(answer.read().decode())
        assert found is not None
        return float(found[1])
