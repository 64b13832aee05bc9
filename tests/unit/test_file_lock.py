"""Who is refused is told by whom, even a moment after the lock was taken."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from scheduler.domain.errors import AlreadyRunningError
from scheduler.runtime.file_lock import FileLock


def test_a_process_that_has_just_taken_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked, refused = tmp_path / "timeouts.db", threading.Event(), list[str]()
    read = os.pread

    def pread(*arguments: Any) -> bytes:
        content = read(*arguments)
        asked.set()
        return content

    def try_it() -> None:
        try:
            FileLock(file, str).acquire()
        except AlreadyRunningError as error:
            refused.append(str(error))

    second = threading.Thread(target=try_it)

    def name() -> str:
        """The lock is taken; somebody asks before the name is there."""
        second.start()
        assert asked.wait(10)
        return "process 7 (the-first)"

    monkeypatch.setattr("scheduler.runtime.file_lock.os.pread", pread)
    first = FileLock(file, name)
    first.acquire()
    second.join()

    assert [message.partition(" already")[0] for message in refused] == ["process 7 (the-first)"]
    first.release()


def test_who_has_let_go_is_not_named_any_more(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "timeouts.db", lambda: "process 7 (the-first)")
    lock.acquire()
    named = (tmp_path / "timeouts.db.lock").read_text()
    lock.release()

    assert (named, (tmp_path / "timeouts.db.lock").read_text()) == ("process 7 (the-first)", "")
