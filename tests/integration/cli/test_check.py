import socket
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from scheduler import TimeoutScheduler
from scheduler.cli.checks import judge_skew
from scheduler.cli.finding import Finding, Verdict
from scheduler.cli.server_checks import judge_server
from scheduler.store.fitness import ServerState
from scheduler.web.application import Health, create_application
from scheduler.web.server import WebServer
from tests.integration.cli.conftest import Answer, Command, enrol
from tests.support.scheduling import execute


@pytest.fixture(autouse=True)
def any_free_port(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - after its settings
    """Whatever else listens on this machine."""
    monkeypatch.setenv("SCHEDULER_HTTP_PORT", "0")


def verdicts(answer: Answer) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in answer.document["checks"]}


def test_check_looks_at_everything_and_is_content(command: Command, database_url: str) -> None:
    server = {"server": "warning", "rights": "ok"}  # the server of the tests neither cleans up nor waits for its disk

    answer = command("check", "--json")

    assert (answer.code, answer.document["is_ok"]) == (0, True)
    assert verdicts(answer) == {
        **(server if "postgresql" in database_url else {"folder": "ok"}),
        "web": "ok",
        "sentry": "ok",
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
    if empty_database_url.startswith("sqlite"):
        Path(empty_database_url.removeprefix("sqlite:///")).touch()

    answer = bare("check", "--database-url", empty_database_url)

    assert answer.code == 1
    assert "FAILED   schema: the tables are missing\n         → run `timeout-scheduler db upgrade`\n" in answer.out


def test_check_of_a_schema_that_is_behind_or_ahead_says_what_to_install(
    command: Command, timeouts: TimeoutScheduler
) -> None:
    execute(timeouts, "UPDATE timeout_scheduler_version SET version_num = '0002'")
    assert "FAILED   schema: it is at version 0002," in command("check").out

    execute(timeouts, "UPDATE timeout_scheduler_version SET version_num = '9999'")
    assert "ok       schema: version 9999" in command("check").out, "it says that programs of ours may work on it"

    execute(timeouts, "UPDATE timeout_scheduler_installation SET oldest_program = '9998'")
    answer = command("check")
    assert answer.code == 1
    assert "newer than this version knows" in answer.out
    assert "→ install the newer timeout-scheduler here" in answer.out


def test_check_of_a_role_without_rights_names_them(
    bare: Command, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(TimeoutScheduler(postgresql_url)) as owner:
        execute(owner, "DROP ROLE IF EXISTS reader")
        execute(owner, "CREATE ROLE reader LOGIN")
        execute(owner, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        execute(owner, "ALTER ROLE reader SET default_transaction_read_only = on")
        url = owner.database.engine.url.set(username="reader")
        monkeypatch.setenv("SCHEDULER_DATABASE_URL", url.render_as_string(hide_password=False))

        answer = bare("check")

        execute(owner, "DROP OWNED BY reader")
        execute(owner, "DROP ROLE reader")
    assert answer.code == 1
    assert "FAILED   rights: the role lacks INSERT on timeout_scheduler_instances" in answer.out
    assert "FAILED   server: it is read-only" in answer.out


@pytest.mark.parametrize(
    ("settings", "verdict", "words"),
    [
        ({"autovacuum": "off"}, Verdict.WARNING, "autovacuum is off"),
        ({"synchronous_commit": "off"}, Verdict.WARNING, "mails go out again"),
        ({"max_connections": "10", "superuser_reserved_connections": "3"}, Verdict.FAILED, "it takes 7 connections"),
        ({"autovacuum": "on", "max_connections": "100"}, Verdict.OK, "it takes writes"),
    ],
)
def test_settings_of_a_server_are_judged(settings: dict[str, str], verdict: Verdict, words: str) -> None:
    state = ServerState(is_read_only=False, is_pooled=False, settings=settings, missing=())
    found = [*judge_server(state, connections=14)]

    assert (found[0].verdict, words in found[0].detail) == (verdict, True)


def test_a_pooler_in_between_is_a_warning() -> None:
    state = ServerState(is_read_only=False, is_pooled=True, settings={}, missing=())

    found = {one.name: one.verdict for one in judge_server(state, connections=14)}

    assert found == {"listen": Verdict.WARNING, "server": Verdict.OK, "rights": Verdict.OK}


def test_check_of_a_port_that_is_taken_fails_unless_a_daemon_has_it(
    on_sqlite: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("SCHEDULER_HTTP_PORT", str(taken.getsockname()[1]))
        monkeypatch.setattr("scheduler.cli.server_checks._PATIENCE_SECONDS", 0.1)
        answer = on_sqlite("check", "--json")
        assert (answer.code, verdicts(answer)["web"]) == (1, "failed")

    health = Health(lambda: "the loop hangs", lambda: None, CollectorRegistry())
    server = WebServer(create_application(health, None), "127.0.0.1", 0)
    server.start()
    monkeypatch.setenv("SCHEDULER_HTTP_PORT", str(server.port))
    monkeypatch.setattr("scheduler.cli.server_checks._PATIENCE_SECONDS", 5)
    answer = on_sqlite("check")
    server.stop()
    assert "a daemon listens on 127.0.0.1 port" in answer.out
    assert answer.code == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HTTP_HOST", "0.0.0.0", "web: SCHEDULER_HTTP_HOST: '0.0.0.0' is not usable: set SCHEDULER_HTTP_TOKEN too"),  # noqa: S104
        ("HTTP_HOST", "192.0.2.1", "web: SCHEDULER_HTTP_HOST: '192.0.2.1' is not usable"),
        ("SENTRY_DSN", "https://secret@nowhere", "sentry: SCHEDULER_SENTRY_DSN: '(not shown)' is not usable"),
        ("SENTRY_DSN", "secret", "sentry: SCHEDULER_SENTRY_DSN: '(not shown)' is not usable"),
    ],
)
def test_check_of_what_the_daemon_would_refuse(
    on_sqlite: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"SCHEDULER_{name}", value)

    answer = on_sqlite("check")

    assert answer.code == 1
    assert f"FAILED   {message}" in answer.out
    assert "secret" not in answer.out


def test_run_refuses_an_address_that_others_reach_without_a_token(
    on_sqlite: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULER_HTTP_HOST", "0.0.0.0")  # noqa: S104

    answer = on_sqlite("run")

    assert answer.code == 2
    assert "SCHEDULER_HTTP_HOST: '0.0.0.0' is not usable: set SCHEDULER_HTTP_TOKEN too" in answer.err


def test_check_of_an_address_that_isnt_ours_fails(on_sqlite: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_HTTP_HOST", "192.0.2.1")
    monkeypatch.setenv("SCHEDULER_HTTP_TOKEN", "a token")
    monkeypatch.setattr("scheduler.cli.server_checks._PATIENCE_SECONDS", 0.1)

    assert "FAILED   web: 192.0.2.1 port 0 can't be listened on" in on_sqlite("check").out


def test_check_of_a_folder_that_cant_be_written_fails(on_sqlite: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere

    answer = on_sqlite("check", "--json")

    assert (answer.code, verdicts(answer)["folder"]) == (1, "failed")


@pytest.mark.parametrize("name", ["new.sqlite", "new/folder/new.sqlite"])
def test_check_of_a_file_that_isnt_there_says_so_and_makes_nothing(bare: Command, tmp_path: Path, name: str) -> None:
    file = tmp_path / "empty" / name
    (tmp_path / "empty").mkdir()

    answer = bare("check", "--json", "--database-url", f"sqlite:///{file}")

    (schema,) = [check for check in answer.document["checks"] if check["name"] == "schema"]
    assert (answer.code, schema["detail"]) == (1, f"{file} isn't there yet")
    assert list((tmp_path / "empty").iterdir()) == []


def test_check_of_a_file_that_cant_be_made_names_what_is_in_the_way(bare: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    answer = bare("check", "--database-url", f"sqlite:///{tmp_path / 'file' / 'new.sqlite'}")

    assert answer.code == 1
    assert f"{tmp_path / 'file'} isn't a folder that is writable for this user" in answer.out


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
