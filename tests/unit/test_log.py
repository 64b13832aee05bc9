"""Lines that are rendered and written together are the lines that were asked for, and hurt nobody."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO, cast

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scheduler.domain.timing import SystemClock
from scheduler.telemetry import line_handler
from scheduler.telemetry.log import LOGGER_NAME, _Rendering, configure_logging, emit, emit_all

NOON: Final = "2026-03-02T12:00:00.000001Z"
NAMES: Final = ["tenant_id", "campaign_id", "outcome", "lateness_seconds", "batch", "naïve name"]
Told = list[tuple[str, dict[str, Any]]]

_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes()
_values = _plain | st.lists(_plain, max_size=2) | st.dictionaries(st.sampled_from(["event", "b"]), _plain, max_size=2)
_told = st.lists(
    st.tuples(
        st.sampled_from(["action.completed", "action.paused", "action.deferred", "batch.split"]),
        st.dictionaries(st.sampled_from(NAMES), _values),
    ),
    max_size=6,
)


class Host(logging.Handler):
    """A host application's handler."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


class Disk(io.RawIOBase):
    """A disk with some room left."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.held = b""

    def writable(self) -> bool:
        """As any disk."""
        return True

    def write(self, data: Any) -> int:
        """Take what there is room for."""
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = bytes(data)[: self.room]
        self.room -= len(taken)
        self.held += taken
        return len(taken)


class Counted(io.StringIO):
    """A stream that remembers what was written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        """Keep it, and note that it came alone."""
        self.pieces.append(text)
        return super().write(text)


def configure(log_format: str, stream: TextIO, level: str = "INFO") -> logging.Handler:
    """Logging as in the daemon, at a clock that stands still."""
    configure_logging(level, log_format, stream)
    _Rendering.stamp = _noon
    return logging.getLogger().handlers[0]


def _noon(_logger: Any, _name: str, line: Any) -> Any:
    line["timestamp"] = NOON
    return line


def actions(count: int, batch: Any = 1) -> Told:
    return [("action.completed", {"dedupe_key": f"acme:c-{number}", "batch": batch}) for number in range(count)]


def keys(text: str) -> list[str]:
    return [json.loads(line)["dedupe_key"] for line in text.splitlines()]


def one_by_one(told: Told, log_format: str, level: str) -> str:
    """What a stream handler of the standard library writes, one record a line: a filter demands it."""
    stream = io.StringIO()
    configure(log_format, stream, level).addFilter(lambda _: True)
    for event, fields in told:
        emit(event, **fields)
    return stream.getvalue()


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text that is drawn reads Unicode's tables
@given(told=_told, log_format=st.sampled_from(["json", "console"]), level=st.sampled_from(["DEBUG", "INFO", "WARNING"]))
@example([("action.completed", {"outcome": '"}, {"event": "\n\\ ünï 😀'})] * 2, "json", "INFO")
@example([("action.completed", {"outcome": [{"event": "x"}, {"event": "y"}]})] * 2, "json", "INFO")
@example([("action.completed", {"outcome": "two\nlines", "batch": None})] * 2, "console", "INFO")
def test_lines_written_together_are_those_written_one_by_one(told: Told, log_format: str, level: str) -> None:
    stream = io.StringIO()
    configure(log_format, stream, level)
    emit_all(told)

    assert one_by_one(told, log_format, level) == stream.getvalue()


@settings(suppress_health_check=[HealthCheck.too_slow])  # as above
@given(told=_told)
def test_a_json_line_is_what_structlog_writes_with_json_dumps(told: Told) -> None:
    render = structlog.processors.JSONRenderer()
    levels = {"action.deferred": "debug", "batch.split": "warning"}
    expected = [
        render(
            None,
            "",
            {
                "event": event,
                "level": levels.get(event, "info"),
                "timestamp": NOON,
                **{name: value for name, value in fields.items() if value is not None},
            },
        )
        for event, fields in told
    ]
    stream = io.StringIO()
    configure("json", stream, "DEBUG")
    emit_all(told)

    assert expected == stream.getvalue().split("\n")[:-1]


def test_one_instant_stands_on_all_lines_of_a_batch() -> None:
    stream = io.StringIO()
    configure_logging("INFO", "json", stream)
    clock = SystemClock()
    before = clock.now()
    emit_all([*actions(2), ("batch.split", {"size": 2})])

    stamps = {json.loads(line)["timestamp"] for line in stream.getvalue().splitlines()}
    assert len(stamps) == 1
    stamp = stamps.pop()
    assert stamp.endswith("Z")
    assert before <= datetime.fromisoformat(stamp) <= clock.now()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_in_the_journal_every_line_has_its_priority(
    log_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure(log_format, journal)
        emit_all(actions(2))
        emit_all([*actions(1), ("batch.split", {"size": 2})])
        logging.getLogger("library").error("broken")
        journal.seek(0)
        assert [line[:3] for line in journal] == ["<6>", "<6>", "<6>", "<4>", "<3>"]


def test_any_other_stream_gets_lines_without_priorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is inherited by whoever is started from a service, also with its output in a file."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    with (tmp_path / "log").open("w+", encoding="utf-8") as log:
        configure("json", log)
        emit_all(actions(2))
        log.seek(0)
        assert keys(log.read()) == ["acme:c-0", "acme:c-1"]


def test_a_batch_is_written_in_few_pieces_of_whole_lines() -> None:
    stream = Counted()
    configure("json", stream)
    emit_all(actions(500))

    assert [f"acme:c-{number}" for number in range(500)] == keys(stream.getvalue())
    assert all(piece.endswith("\n") and len(piece) <= line_handler.PIECE for piece in stream.pieces)
    assert len(stream.pieces) <= 1 + len(stream.getvalue()) // (line_handler.PIECE - 200)


def test_a_piece_is_counted_in_bytes_and_a_long_line_is_one_of_its_own() -> None:
    stream = Counted()
    configure("console", stream)
    emit_all([("send.logged", {"node_id": "😀" * length}) for length in (700, 5000, 700, 700)])

    assert [piece.count("\n") for piece in stream.pieces] == [1, 1, 1, 1]


def _own_logger_listens(host: Host) -> None:
    logging.getLogger(LOGGER_NAME).addHandler(host)


def _root_listens(host: Host) -> None:
    logging.getLogger().addHandler(host)


def _only_the_host_listens(host: Host) -> None:
    logging.getLogger(LOGGER_NAME).addHandler(host)
    logging.getLogger(LOGGER_NAME).propagate = False


@pytest.mark.parametrize(
    ("listen", "lines"), [(_own_logger_listens, 4), (_root_listens, 4), (_only_the_host_listens, 0)]
)
def test_a_host_handler_gets_a_record_of_every_line(listen: Callable[[Host], None], lines: int) -> None:
    host, stream = Host(), io.StringIO()
    configure("json", stream)
    listen(host)
    emit_all([*actions(3), ("action.deferred", {}), ("batch.split", {"size": 3})])

    assert lines == stream.getvalue().count("\n")
    messages = [json.loads(record.getMessage()) for record in host.records]
    assert [*(["action.completed"] * 3), "batch.split"] == [message["event"] for message in messages]
    assert [*([logging.INFO] * 3), logging.WARNING] == [record.levelno for record in host.records]


def test_what_a_host_filters_stays_unwritten() -> None:
    logger = logging.getLogger(LOGGER_NAME)

    def is_first(record: logging.LogRecord) -> bool:
        return "c-0" in record.getMessage()

    for filtered in (logger, None):
        stream = io.StringIO()
        handler = configure("json", stream)
        target = filtered or handler
        target.addFilter(is_first)
        emit_all(actions(3))
        target.removeFilter(is_first)
        assert keys(stream.getvalue()) == ["acme:c-0"]


def test_the_handlers_own_level_holds_for_lines_written_together() -> None:
    stream = io.StringIO()
    configure("json", stream).setLevel(logging.WARNING)
    emit_all([*actions(3), ("batch.split", {"size": 3})])

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["batch.split"]


def test_a_disabled_logger_writes_nothing() -> None:
    stream = io.StringIO()
    configure("json", stream)
    logging.getLogger(LOGGER_NAME).disabled = True
    emit_all(actions(3))

    assert stream.getvalue() == ""


@contextmanager
def full_disk() -> Iterator[TextIO]:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    with suppress(OSError), Path("/dev/full").open("w", encoding="utf-8") as stream:
        yield stream


@contextmanager
def closed_pipe() -> Iterator[TextIO]:
    reader, writer = os.pipe()
    os.close(reader)
    with suppress(OSError), os.fdopen(writer, "w") as stream:
        yield stream


@contextmanager
def closed_stream() -> Iterator[TextIO]:
    stream = io.StringIO()
    stream.close()
    yield stream


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(full_disk, "No space left on device"), (closed_pipe, "Broken pipe"), (closed_stream, "closed file")],
)
def test_a_broken_stream_is_told_of_on_standard_error_and_hurts_nobody(
    broken: Callable[[], Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with broken() as stream:
        configure("json", stream)
        emit_all(actions(50))
        emit("batch.split", size=3)

    complaints = capsys.readouterr().err
    assert reason in complaints
    assert "acme:c-49" in complaints


def test_no_line_is_torn_by_a_disk_that_was_full_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    disk = Disk(room=5000)
    stream = io.TextIOWrapper(io.BufferedWriter(disk), encoding="utf-8")
    configure("json", cast("TextIO", stream))
    emit_all(actions(500))
    disk.room = 1_000_000
    emit_all([("action.completed", {"dedupe_key": "acme:later"})])

    written = keys(disk.held.decode())
    assert written[-1] == "acme:later"
    assert len(set(written)) == len(written)
    assert "No space left on device" in capsys.readouterr().err


def test_a_character_that_the_stream_has_not_costs_its_own_line_only(capsys: pytest.CaptureFixture[str]) -> None:
    raw = io.BytesIO()
    configure("console", io.TextIOWrapper(raw, encoding="ascii"))
    emit_all([("send.logged", {"node_id": node_id}) for node_id in ("first", "zürich", "last")])

    assert [line.rpartition("=")[2] for line in raw.getvalue().decode().splitlines()] == ["first", "last"]
    assert "UnicodeEncodeError" in capsys.readouterr().err


def test_batches_of_many_threads_and_the_lines_of_libraries_never_mix(tmp_path: Path) -> None:
    library = logging.getLogger("some.library")
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        configure("json", stream)

        def work(number: int) -> None:
            for turn in range(20):
                emit_all(actions(30, batch=[number, turn]))
                library.warning("thread %d, turn %d", number, turn)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lines = [json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    ours = [line for line in lines if "logger" not in line]
    assert len(lines) - len(ours) == 6 * 20
    assert len(ours) == 6 * 20 * 30
    for start in range(0, len(ours), 30):
        batch = ours[start : start + 30]
        assert [batch[0]["batch"]] * 30 == [line["batch"] for line in batch]
        assert [f"acme:c-{number}" for number in range(30)] == [line["dedupe_key"] for line in batch]


_WRITER: Final = """
from scheduler.telemetry.log import configure_logging, emit_all
configure_logging("INFO", "json")
print("ready", flush=True)
for _ in range(4):
    emit_all([("action.completed", {"dedupe_key": f"acme:c-{number}"}) for number in range(2000)])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pipe here keeps a write in one piece")
def test_two_processes_that_share_a_pipe_keep_each_others_lines_whole() -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-c", _WRITER]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stderr=writer, stdout=subprocess.PIPE)) for _ in range(2)
        ]
        os.close(writer)
        stream = stack.enter_context(os.fdopen(reader, encoding="utf-8"))
        # Nothing is read before both write, and a batch is longer than a pipe holds: they get into each other's way.
        assert [process.stdout and process.stdout.readline() for process in processes] == [b"ready\n"] * 2
        written = Counter(keys(stream.read()))

    assert [process.returncode for process in processes] == [0, 0]
    assert written == {f"acme:c-{number}": 2 * 4 for number in range(2000)}


def test_what_looks_private_is_taken_out_of_every_error() -> None:
    stream = io.StringIO()
    configure("json", stream)
    emit("maintenance.error", error="ValueError: ada@example.com, token=abc123, postgresql://u:pw@host/x")
    logging.getLogger("elsewhere").error("failed", exc_info=ValueError("grace@example.org"))

    told = [json.loads(line)["error"] for line in stream.getvalue().splitlines()]
    removed = "ValueError: [removed], token=[removed], postgresql://[removed]@host/x"
    assert told == [removed, "ValueError: [removed]"]
