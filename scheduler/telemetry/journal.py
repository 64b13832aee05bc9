"""systemd's journal: a line begins with its priority, which the journal takes off, and files the line by.

`journalctl -p warning` finds what matters then. The format is that of sd-daemon(3), the variable of systemd.exec(5).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, TextIO

# By the names that structlog gives to levels; the numbers are syslog's.
_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}


def priorities_of(stream: TextIO) -> Mapping[str, str]:
    """What lines of each level begin with; nothing where the stream doesn't lead to the journal."""
    journal = os.environ.get("JOURNAL_STREAM")
    if not journal:
        return {}
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream without a file
        return {}
    return _PRIORITIES if journal == f"{status.st_dev}:{status.st_ino}" else {}
