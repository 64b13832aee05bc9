"""A wall clock of one's own for a daemon, which the test sets while it runs; how time passes stays as it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Final

import pytest

_PLACES: Final = (
    "/usr/lib/*/faketime/libfaketime.so.1",  # Debian and Ubuntu
    "/usr/lib*/faketime/libfaketime.so.1",  # Fedora
    "/usr/local/lib/faketime/libfaketime.so.1",  # from source
)


class WallClock:
    """A clock so much ahead of the machine's; behind it where that is negative."""

    def __init__(self, folder: Path, ahead: timedelta = timedelta(0), name: str = "clock") -> None:
        found = find_libfaketime()
        if found is None:
            pytest.skip("another wall clock for one process needs libfaketime (Debian: apt-get install libfaketime)")
        self._library = found
        self._file = folder / name
        self.set(ahead)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to live by this clock."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # with a monotonic clock that jumps, every wait would hang
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
        }

    def set(self, ahead: timedelta) -> None:
        """Let it jump."""
        # In place of the old file, not into it: an empty file would be read as no offset.
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead.total_seconds():+.6f}\n", "ascii")
        written.replace(self._file)

    @contextmanager
    def shaken(self, between: timedelta) -> Iterator[None]:
        """It jumps back and forth all the time: wherever a process reads it twice, it may have jumped meanwhile."""
        is_over = threading.Event()

        def shake() -> None:
            for ahead in cycle([between, timedelta(0)]):
                self.set(ahead)
                if is_over.is_set():
                    return

        with ThreadPoolExecutor(1) as pool:
            shaking = pool.submit(shake)
            try:
                yield
            finally:
                is_over.set()
            shaking.result()


def find_libfaketime() -> Path | None:
    """The library that gives a process a wall clock of its own; None where it isn't installed."""
    return next(_candidates(), None)


def _candidates() -> Iterator[Path]:
    for pattern in _PLACES:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))
