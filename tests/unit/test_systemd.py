"""What systemd is told, and what a reload does."""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from scheduler import Settings
from scheduler.runtime.reloading import Reloading
from scheduler.runtime.systemd import extend_timeout, notify, notify_reloading, watchdog_interval
from scheduler.settings import variable_of

Messages = Callable[[], list[str]]


@pytest.fixture
def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Messages]:
    """What came in at the notification socket so far."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        def read() -> list[str]:
            found = []
            try:
                while True:
                    found.append(receiver.recv(4096).decode())
            except BlockingIOError:
                return found

        yield read


def test_states_go_together_in_one_message(messages: Messages) -> None:
    notify("READY=1", "STATUS=firing timeouts")

    assert messages() == ["READY=1\nSTATUS=firing timeouts"]


def test_a_timeout_is_extended_in_microseconds(messages: Messages) -> None:
    extend_timeout(timedelta(seconds=90.5))

    assert messages() == ["EXTEND_TIMEOUT_USEC=90500000"]


def test_a_reload_says_when_it_began(messages: Messages) -> None:
    before = time.monotonic_ns() // 1000
    notify_reloading()
    (message,) = messages()

    reloading, began, _status = message.split("\n")
    assert reloading == "RELOADING=1"
    assert before <= int(began.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_nothing_is_sent_without_systemd_or_to_a_socket_that_is_gone(
    messages: Messages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")

    assert messages() == []


@pytest.mark.parametrize(
    ("microseconds", "process_id", "interval"),
    [("30000000", None, 15.0), ("30000000", "1", None), ("soon", None, None), (None, None, None)],
)
def test_a_sign_of_life_is_given_twice_as_often_as_systemd_wants_it_of_this_process(
    microseconds: str | None, process_id: str | None, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", process_id)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    assert watchdog_interval() == interval


class Reread:
    """A daemon's settings in a file: what was applied, and what it said."""

    def __init__(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        self._file = file
        self._log = caplog
        self.applied: list[Settings] = []
        self.write("")
        self._reloading = Reloading(self._read(), self._read, self.applied.append)

    def write(self, text: str) -> None:
        """Change the file."""
        self._file.write_text(text, "utf-8")

    def reload(self) -> list[str]:
        """Read it anew."""
        self._log.clear()
        self._reloading.reload()
        return [record.getMessage() for record in self._log.records]

    def _read(self) -> Settings:
        return Settings.from_environment(self._file)


@pytest.fixture
def reread(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Reread:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)
    caplog.set_level("INFO", "timeout_scheduler")
    return Reread(tmp_path / ".env", caplog)


def test_a_reload_applies_the_level_of_the_log_and_names_what_waits_for_a_restart(reread: Reread) -> None:
    reread.write("SCHEDULER_LOG_LEVEL=DEBUG\nSCHEDULER_BATCH_SIZE=9\nSCHEDULER_SCHEMA=outreach\n")
    said = reread.reload()
    again = reread.reload()

    assert [(one.log_level, one.batch_size, one.schema_name) for one in reread.applied] == [("DEBUG", 500, None)] * 2
    waiting = 'event=daemon.restart_needed changed="SCHEDULER_SCHEMA, SCHEDULER_BATCH_SIZE"'
    assert said == ["event=daemon.reloaded changed=SCHEDULER_LOG_LEVEL", waiting]
    assert again == ["event=daemon.reloaded", waiting], "it is said until it is done"


def test_unusable_settings_change_nothing_and_are_told(reread: Reread) -> None:
    reread.write("SCHEDULER_LOG_LEVEL=DEBUG\nSCHEDULER_BATCH_SIZE=none\n")

    (said,) = reread.reload()

    assert reread.applied == []
    assert said.startswith("event=daemon.reload_failed error=\"SCHEDULER_BATCH_SIZE: 'none' is not usable")


def test_a_secret_that_changed_is_named_and_not_shown(reread: Reread) -> None:
    reread.write("SCHEDULER_DATABASE_URL=postgresql://scheduler:hunter2@127.0.0.1/x\n")

    said = reread.reload()

    assert said[1] == "event=daemon.restart_needed changed=SCHEDULER_DATABASE_URL"
