from pathlib import Path

import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command, enrol

SECRET = "swordfish"  # noqa: S105 - a word to look for


def test_version_is_printed(bare: Command) -> None:
    answer = bare("--version")

    assert answer.code == 0
    assert answer.out.startswith("timeout-scheduler ")


def test_without_a_command_the_help_is_shown_and_nothing_answered(bare: Command) -> None:
    answer = bare()

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: timeout-scheduler [OPTIONS] COMMAND [ARGS]...")


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("enroll", "--help"), ("actions", "list", "-h")])
def test_help_is_an_answer(bare: Command, words: tuple[str, ...]) -> None:
    answer = bare(*words)

    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("Usage: timeout-scheduler ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("frobnicate",), "error: No such command 'frobnicate'.\nTry 'timeout-scheduler --help'.\n"),
        (("statu",), "error: No such command 'statu'. Did you mean 'status'?\n"),
        (("status", "--frob"), "error: No such option: --frob\nTry 'timeout-scheduler status --help'.\n"),
        (("campaigns", "show", "--tenant", "a"), "error: Missing option '--campaign'.\n"),
        (("status", "extra"), "error: Got unexpected extra argument"),
    ],
)
def test_wrong_usage_is_told_in_a_line(bare: Command, words: tuple[str, ...], message: str) -> None:
    answer = bare(*words)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(message)


def test_global_options_may_stand_before_or_after_the_command(bare: Command, sqlite_url: str) -> None:
    before = bare("--database-url", sqlite_url, "db", "current")
    after = bare("db", "current", f"--database-url={sqlite_url}")

    assert before.code == after.code == 0
    assert before.out == after.out


def test_the_env_file_of_the_current_folder_is_read(bare: Command, folder: Path, sqlite_url: str) -> None:
    (folder / ".env").write_text(f"SCHEDULER_DATABASE_URL={sqlite_url}\nOTHER=1\n")

    assert bare("db", "current").code == 0


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    bare: Command, folder: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my.env").write_text("SCHEDULER_DATABASE_URL=mysql://host/from-file\n")
    by_file = bare("--env-file", "my.env", "status")
    monkeypatch.setenv("SCHEDULER_DATABASE_URL", "oracle://host/from-environment")
    by_environment = bare("--env-file", "my.env", "status")
    by_option = bare("--env-file", "my.env", "--database-url", sqlite_url, "status")

    assert "'mysql' is not usable" in by_file.err
    assert "'oracle' is not usable" in by_environment.err
    assert by_option.code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--env-file: 'my.env' is not usable: it can't be read: No such file or directory"),
        (b"\xff", "--env-file: 'my.env' is not usable: it can't be read: it isn't UTF-8 text"),
        (b"SCHEDULER_WORKERS=many\n", "SCHEDULER_WORKERS: 'many' is not usable"),
        (b"SCHEDULER_LEASE=60\n", "SCHEDULER_LEASE: '60' is not usable: write an ISO-8601 duration such as PT72H"),
        (b"SCHEDULER_WORKER=2\n", "SCHEDULER_WORKER: '2' is not usable: no such setting; there are"),
    ],
)
def test_bad_settings_are_told_by_name_value_and_remedy(
    bare: Command, folder: Path, text: bytes | None, message: str
) -> None:
    if text is not None:
        (folder / "my.env").write_bytes(text)

    answer = bare("--env-file", "my.env", "status")

    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert not (folder.parent / "state").exists()


UNUSABLE = [f"mysql://u:{SECRET}@host/x", SECRET, f"postgresql://u:{SECRET}@host:port/x"]
AWAY = f"postgresql://u:{SECRET}@127.0.0.1:1/x?connect_timeout=2"


@pytest.mark.parametrize(
    ("words", "url"),
    [
        *((words, url) for words in [("run",), ("status",), ("check",)] for url in UNUSABLE),
        *((words, AWAY) for words in [("status",), ("db", "upgrade"), ("check",)]),
    ],
)
def test_no_command_shows_the_databases_password(bare: Command, words: tuple[str, ...], url: str) -> None:
    answer = bare("--database-url", url, *words)

    assert answer.code in (1, 2)
    assert SECRET not in answer.out + answer.err


def test_a_database_that_is_away_fails_in_a_line(bare: Command) -> None:
    answer = bare("--database-url", "postgresql://u@127.0.0.1:1/x?connect_timeout=2", "status")

    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: the database can't be used: ")
    assert answer.err.count("\n") == 1


def test_a_file_that_is_no_database_fails_in_a_line(bare: Command, folder: Path) -> None:
    (folder / "plain.txt").write_text("hello " * 1000)

    answer = bare("--database-url", f"sqlite:///{folder / 'plain.txt'}", "status")

    assert (answer.code, answer.out) == (1, "")
    assert (
        answer.err
        == "error: unexpected DatabaseError: (sqlite3.DatabaseError) file is not a database (--traceback shows where)\n"
    )


def test_traceback_is_shown_where_it_is_asked_for(bare: Command, folder: Path) -> None:
    (folder / "plain.txt").write_text("hello " * 1000)

    answer = bare("--traceback", "--database-url", f"sqlite:///{folder / 'plain.txt'}", "status")

    assert answer.err.startswith("Traceback (most recent call last):")


def test_without_a_database_the_file_that_is_used_is_told(bare: Command, folder: Path) -> None:
    answer = bare("db", "upgrade")

    file = folder.parent / "state" / "timeout-scheduler" / "timeout-scheduler.db"
    assert answer.code == 0
    assert answer.err == f"warning: no database is configured (SCHEDULER_DATABASE_URL); using {file}\n"


def test_commands_dont_import_the_applications_own_modules(on_sqlite: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_SEND_HANDLER", "no_such_module:send")
    monkeypatch.setenv("SCHEDULER_STATE_MANAGER", "no_such_module:Manager")

    assert on_sqlite("status").code == 0


READING = [
    ("status",),
    ("check",),
    ("db", "current"),
    ("plan", "validate", "plan.json"),
    ("plan", "show", "plan.json"),
    ("actions", "list"),
    ("actions", "show", "acme:c-1:wait_open:1:timeout:no_open"),
    ("campaigns", "show", "--tenant", "acme", "--campaign", "c-1"),
    ("campaigns", "history", "--tenant", "acme", "--campaign", "c-1"),
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_every_reading_command_prints_one_json_document_and_nothing_else(
    command: Command, timeouts: TimeoutScheduler, words: tuple[str, ...]
) -> None:
    enrol(timeouts)

    answer = command(*words, "--json")

    assert answer.code == 0
    assert isinstance(answer.document, (dict, list))
    assert answer.err == ""
