"""What tells a process from every other one, and proves that it has ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE: Final = Path("/proc/self/ns/pid")
_DEAD_STATES: Final = "ZX"


def is_provably_dead(process_mark: str | None) -> bool:
    """Whether the process of that mark has ended: known only of one that ran in this process's PID namespace."""
    here = _surroundings()
    if process_mark is None or here is None or not process_mark.startswith(f"{here}/"):
        return False
    process_id = process_mark.removeprefix(f"{here}/").partition("@")[0]
    if not process_id.isdigit():
        return False
    if not _exists(int(process_id)):
        return True
    # One that can't be looked at (ProtectProc, hidepid) may be the very one.
    fields = _fields(int(process_id))
    return fields is not None and mark_of(int(process_id)) != process_mark


def _exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def mark_of(process_id: int) -> str | None:
    """Boot, PID namespace, id and start of a process: no other ever has the same. None where there is no such process.

    Also None on a system that doesn't tell, and for a process that has ended and wasn't waited for.
    """
    here, fields = _surroundings(), _fields(process_id)
    if here is None or fields is None or fields[0] in _DEAD_STATES:
        return None
    return f"{here}/{process_id}@{fields[19]}"


def _fields(process_id: int) -> list[str] | None:
    """What the system says of a process. Its name, in brackets, may hold anything; state comes behind it."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None


def _surroundings() -> str | None:
    try:
        return f"{_BOOT.read_text('ascii').strip()}/{_PID_NAMESPACE.stat().st_ino}"
    except OSError:
        return None
