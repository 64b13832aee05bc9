"""A control group with little memory: whoever takes more in it is killed by the kernel, as on a machine without any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_PARENTS: Final = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
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
    for parent, file in _PARENTS:
        folder = parent / f"timeout-scheduler-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            # Opened for writing only if it is there: elsewhere this would be an ordinary folder.
            with (folder / file).open("r+", encoding="ascii") as limit:
                limit.write(str(size))
        except OSError:
            folder.rmdir()
            continue
        return folder
    return None
