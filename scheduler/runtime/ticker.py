"""A thread that does something every so often."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Ticker:
    """Calls `work` every `interval` seconds, from the first start to the last stop. Thread-safe.

    `work` must not raise. With `at_once` it is called when the thread starts, else one interval later.
    """

    def __init__(self, name: str, interval: float, work: Callable[[], None], *, at_once: bool = False) -> None:
        self._name = name
        self._interval = interval
        self._work = work
        self._at_once = at_once
        self._mutex = threading.Lock()
        self._starts = 0
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Tick from now on; counted, so that it takes as many stops."""
        with self._mutex:
            if self._thread is None:
                self._stopping, self._nudged = threading.Event(), threading.Event()
                arguments = (self._stopping, self._nudged)
                thread = threading.Thread(target=self._run, args=arguments, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._starts += 1

    def stop(self, patience: float = 5.0) -> None:
        """Tick no more. A tick that is under way is waited for, but not for longer than `patience` seconds."""
        with self._mutex:
            self._starts = max(self._starts - 1, 0)
            if self._starts > 0 or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._stopping.set()
            self._nudged.set()
        thread.join(patience)

    def nudge(self) -> None:
        """Tick now."""
        self._nudged.set()

    def forget_parent(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._mutex = threading.Lock()
        self._starts = 0
        self._thread = None

    def _run(self, stopping: threading.Event, nudged: threading.Event) -> None:
        if self._at_once:
            self._work()
        while not stopping.is_set():
            nudged.wait(self._interval)
            nudged.clear()
            if not stopping.is_set():
                self._work()
