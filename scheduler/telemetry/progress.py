"""How a process gets on: how many actions it has ended, and how late the latest of the last ones was."""

from __future__ import annotations

import threading


class Progress:
    """A counter and a high-water mark. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ended = 0
        self._latest = 0.0

    def ended(self, count: int) -> None:
        """So many more have ended."""
        with self._mutex:
            self._ended += count

    def was_late(self, seconds: float) -> None:
        """One was so late."""
        with self._mutex:
            self._latest = max(self._latest, seconds)

    def read(self) -> tuple[int, float]:
        """How many have ended in all, and how late the latest was since this was last asked."""
        with self._mutex:
            latest, self._latest = self._latest, 0.0
            return self._ended, latest
