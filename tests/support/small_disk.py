"""A disk that can be filled: a file system in memory, of its own."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

_BLOCK: Final = 4096


class SmallDisk:
    """A folder on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """From now on nothing can be written that needs room."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(_BLOCK))

    def make_room(self) -> None:
        """There is room again."""
        self._ballast.unlink()

    def is_full(self) -> bool:
        """Whether not one block is left."""
        try:
            with (self.folder / "one more").open("wb", buffering=0) as file:
                file.write(bytes(_BLOCK))
        except OSError as error:
            return error.errno == errno.ENOSPC
        finally:
            (self.folder / "one more").unlink(missing_ok=True)
        return False


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A disk of that size at `folder`, which is made. Skips the test where none can be mounted."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small disk to fill needs root, who may mount one")
    options = f"size={megabytes}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk to fill can't be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a connection that is about to be closed may still have a file open.
        subprocess.run(["umount", "-l", folder], check=True)
