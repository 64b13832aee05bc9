from datetime import timedelta
from pathlib import Path

import pytest

from scheduler import TimeoutScheduler
from scheduler.cli.checks import Finding, Verdict, judge_skew
from tests.integration.cli.conftest import Answer, Command, enrol


def verdicts(answer: Answer) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in answer.document["checks"]}


def test_check_looks_at_everything_and_is_content(command: Command) -> None:
    answer = command("check", "--json")

    assert (answer.code, answer.document["is_ok"]) == (0, True)
    assert verdicts(answer) == {
        "import name": verdicts(answer)["import name"],  # a warning where the tests run from a plain checkout
        "settings": "ok",
        "database": "ok",
        "schema": "ok",
        "clock": "ok",
        "state manager": "ok",
        "send handler": "ok",
    }


def test_check_prints_a_line_for_each_answer(on_sqlite: Command, sqlite_url: str) -> None:
    lines = on_sqlite("check").out.splitlines()

    assert f"ok       database: {sqlite_url}" in lines
    assert "ok       state manager: the built-in one" in lines


def test_check_of_an_empty_database_says_to_upgrade(bare: Command, empty_database_url: str) -> None:
    answer = bare("check", "--database-url", empty_database_url)

    assert answer.code == 1
    assert "FAILED   schema: the tables are missing\n         → run `timeout-scheduler db upgrade`\n" in answer.out


def test_check_of_a_database_that_is_away_fails(bare: Command) -> None:
    answer = bare("check", "--json", "--database-url", "postgresql://u@127.0.0.1:1/x?connect_timeout=2")

    assert answer.code == 1
    assert verdicts(answer)["database"] == "failed"
    assert "schema" not in verdicts(answer)


def test_check_of_bad_settings_names_setting_value_and_remedy(
    on_sqlite: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULER_LEASE", "60")

    answer = on_sqlite("check")

    assert answer.code == 1
    assert "FAILED   settings: SCHEDULER_LEASE: '60' is not usable: write an ISO-8601 duration" in answer.out


@pytest.mark.parametrize("setting", ["STATE_MANAGER", "SEND_HANDLER"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:thing", "the module can't be imported: No module named 'no_such_module'"),
        ("json:no_such_name", "json has no 'no_such_name'"),
        ("broken_module:thing", "broken_module:thing can't be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_check_of_what_cant_be_imported_says_why(
    on_sqlite: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, message: str
) -> None:
    (folder / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv(f"SCHEDULER_{setting}", value)

    answer = on_sqlite("check")

    assert answer.code == 1
    assert message in answer.out
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SEND_HANDLER": "smtp"}, "SCHEDULER_SMTP_HOST: SEND_HANDLER is smtp, which needs it"),
        ({"SEND_HANDLER": "webhook"}, "SCHEDULER_WEBHOOK_URL: SEND_HANDLER is webhook: give the URL"),
        (
            {"SEND_HANDLER": "webhook", "WEBHOOK_URL": "https://ada:pass@example.com", "WEBHOOK_TIMEOUT": "PT1M"},
            "SCHEDULER_WEBHOOK_TIMEOUT: 'PT1M' is not usable: give less than SCHEDULER_LEASE, which is PT1M",
        ),
    ],
)
def test_check_names_the_setting_that_the_send_handler_lacks(
    on_sqlite: Command, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"SCHEDULER_{name}", value)

    answer = on_sqlite("check")

    assert answer.code == 1
    assert f"FAILED   send handler: {message}" in answer.out
    assert "pass@" not in answer.out


def test_check_is_content_with_a_send_handler_that_has_its_settings(
    command: Command, timeouts: TimeoutScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(timeouts)
    monkeypatch.setenv("SCHEDULER_SEND_HANDLER", "smtp")
    monkeypatch.setenv("SCHEDULER_SMTP_HOST", "smtp.example.com")
    monkeypatch.setenv("SCHEDULER_SMTP_FROM", "hello@acme.example")

    answer = command("check", "--json")

    assert (answer.code, verdicts(answer)["send handler"]) == (0, "ok")
    assert "sends" not in verdicts(answer)


def test_check_warns_of_mails_that_are_only_logged(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)

    answer = command("check", "--json")

    assert answer.code == 0
    assert verdicts(answer)["sends"] == "warning"


def test_check_without_a_database_warns_that_a_file_is_used(bare: Command) -> None:
    answer = bare("check")

    assert answer.code == 1
    assert "warning  database: none is configured; an SQLite file is used" in answer.out


@pytest.mark.parametrize(
    ("skew", "verdict", "detail"),
    [
        (timedelta(milliseconds=20), Verdict.OK, "the database's clock is 0.020 s ahead of this machine's"),
        (timedelta(seconds=-5), Verdict.WARNING, "the database's clock is 5.000 s behind this machine's"),
        (timedelta(minutes=2), Verdict.FAILED, "the database's clock is 120.000 s ahead of this machine's"),
    ],
)
def test_clock_skew_is_judged_by_how_large_it_is(skew: timedelta, verdict: Verdict, detail: str) -> None:
    finding = judge_skew(skew)

    assert (finding.verdict, finding.detail) == (verdict, detail)
    assert isinstance(finding, Finding)
