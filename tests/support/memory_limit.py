"""A control group with little memory: whoever takes more in it is killed by the kernel, as on a machine without any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

# The two versions of control groups: where they are, what limits memory, and what limits it with swap.
_VERSIONS: Final = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.swap.max"),
)


class MemoryLimit:
    """Processes in the group share its memory."""

    def __init__(self, folder: Path) -> None:
        self._processes = folder / "cgroup.procs"

    def hold(self, process_id: int) -> None:
        """Let a process, and what it starts from now on, have no more than that."""
        self._processes.write_text(str(process_id), "ascii")


@contextmanager
def memory_limit(size: int) -> Iterator[MemoryLimit]:
    """A group with `size` bytes; its processes must have ended after the block. Skips the test where there is none."""
    folder = _make_group(size)
    if folder is None:
        pytest.skip("a kill for want of memory needs root and a memory control group (/sys/fs/cgroup)")
    try:
        yield MemoryLimit(folder)
    finally:
        folder.rmdir()


def _make_group(size: int) -> Path | None:
    for parent, memory, swap in _VERSIONS:
        folder = parent / f"timeout-scheduler-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        if _limit(folder / memory, size):
            _limit(folder / swap, size if "memsw" in swap else 0)  # a machine without swap has no such file
            return folder
        folder.rmdir()
    return None


def _limit(file: Path, size: int) -> bool:
    """Opened only if it is there: elsewhere this would make an ordinary file in an ordinary folder."""
    try:
        with file.open("r+", encoding="ascii") as limit:
            limit.write(str(size))
    except OSError:
        return False
    return True
