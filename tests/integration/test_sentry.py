"""What Sentry is told, by the SDK's own requests to a listener of ours: once, by cause, with nobody's secrets."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import pytest
import sentry_sdk
from sqlalchemy import Connection, create_engine, text

from scheduler import InvalidInputError, Outcome, ScheduledAction, Settings, TimeoutScheduler
from scheduler.runtime.reporting import CheckIns, checking_in, reporting, secrets_of, slug_of
from scheduler.telemetry import sentry as telemetry
from scheduler.telemetry.alerts import tell_backlog
from scheduler.telemetry.log import configure_logging
from scheduler.telemetry.metrics import package_version
from scheduler.telemetry.scrubbing import Scrubber
from scheduler.telemetry.sentry import flush, report, report_unexpected
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import DONE, make_job, make_settings
from tests.support.sentry_receiver import SentryReceiver, receiving_reports
from tests.support.web_receiver import Answer, answers, resets, stalls

DATABASE: Final = "postgresql://ada:pa%24%24word@db.example/outreach"
MONTHS: Final = timedelta(days=36_500)


@pytest.fixture
def receiver() -> Iterator[SentryReceiver]:
    with receiving_reports() as one:
        yield one


@pytest.fixture
def sentry(receiver: SentryReceiver) -> Iterator[SentryReceiver]:
    """Reports of this process go to the listener, as the daemon's do."""
    settings = make_settings(
        sentry_dsn=receiver.dsn,
        sentry_environment="staging",
        instance_name="mailer-1",
        database_url=DATABASE,
        webhook_secret="hook-sesame",  # noqa: S106 - it is to be looked for
    )
    with reporting(settings):
        yield receiver
    sentry_sdk.init(default_integrations=False)


def sent(sentry: SentryReceiver, count: int = 1) -> list[Any]:
    """The reports, once they have come."""
    flush(10)
    assert len(sentry.events) == count, (sentry.receiver.connections, sentry.items)
    return sentry.events


class Broken:
    """A state manager that answers with an error for these campaigns."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        self._errors = errors

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:  # noqa: ARG002
        """All but those are done."""
        return [self._errors.get(job.campaign_id, DONE) for job in jobs]


def fire_broken(
    open_scheduler: OpenScheduler, url: str, errors: dict[str, Exception], **settings: Any
) -> TimeoutScheduler:
    given = make_settings(alert_oldest_due=MONTHS, alert_consecutive_failures=1000, **settings)
    scheduler = open_scheduler(url, state_manager=Broken(errors), settings=given)
    for campaign_id in errors:
        scheduler.schedule(make_job(campaign_id=campaign_id))
    eventually(lambda: scheduler.run_due() + len(scheduler.list_actions(statuses=["error"])) >= len(errors))
    return scheduler


def test_a_dead_action_is_reported_once_with_all_that_is_known_of_it(
    open_scheduler: OpenScheduler, sqlite_url: str, sentry: SentryReceiver
) -> None:
    fire_broken(open_scheduler, sqlite_url, {"c-1": ValueError("not this one")}, max_attempts=3)

    (event,) = sent(sentry)
    assert event["exception"]["values"][-1]["value"] == "not this one"
    assert (event["release"], event["environment"], event["server_name"], event["level"]) == (
        f"timeout-scheduler@{package_version()}",
        "staging",
        "mailer-1",
        "error",
    )
    known = {
        "tenant_id": "acme",
        "campaign_id": "c-1",
        "node_id": "intro",
        "event_type": "no_open",
        "action_type": "timeout",
        "dedupe_key": "acme:c-1:intro:1:timeout:no_open",
    }
    assert known.items() <= event["tags"].items()
    assert event["contexts"]["action"] == {**known, "attempt": 3}
    held = {name for name, value in event.items() if value and value != {"values": []}}
    assert held.isdisjoint({"request", "user", "modules", "breadcrumbs", "extra"})
    frames = event["exception"]["values"][-1].get("stacktrace", {"frames": []})["frames"]
    assert not any({"vars", "context_line"} & frame.keys() for frame in frames)


def raised(error: Exception) -> Exception:
    with suppress(type(error)):
        raise error
    return error


def raised_elsewhere(error: Exception) -> Exception:
    with suppress(type(error)):
        raise error
    return error


def test_reports_are_grouped_by_cause_and_not_by_id(
    open_scheduler: OpenScheduler, sqlite_url: str, sentry: SentryReceiver
) -> None:
    errors: dict[str, Exception] = {
        "c-1": raised(ValueError("no plan of c-1")),
        "c-2": raised(ValueError("no plan of c-2")),
        "c-3": raised(KeyError("c-3")),
        "c-4": raised_elsewhere(ValueError("no plan of c-4")),
    }
    fire_broken(open_scheduler, sqlite_url, errors, max_attempts=1)

    groups: dict[str, list[str]] = {}
    for event in sent(sentry, 4):
        groups.setdefault("|".join(event["fingerprint"]), []).append(event["tags"]["campaign_id"])
        assert not any(campaign_id in part for part in event["fingerprint"] for campaign_id in errors)
    assert sorted(map(sorted, groups.values())) == [["c-1", "c-2"], ["c-3"], ["c-4"]]


def test_one_error_that_kills_two_actions_is_two_reports(
    open_scheduler: OpenScheduler, sqlite_url: str, sentry: SentryReceiver
) -> None:
    error = ValueError("the same object")
    fire_broken(open_scheduler, sqlite_url, {"c-1": error, "c-2": error}, max_attempts=1)
    assert {event["tags"]["campaign_id"] for event in sent(sentry, 2)} == {"c-1", "c-2"}


def test_lines_at_error_are_not_reported_a_second_time(
    open_scheduler: OpenScheduler, sqlite_url: str, sentry: SentryReceiver
) -> None:
    configure_logging("DEBUG", "json")
    fire_broken(open_scheduler, sqlite_url, {"c-1": ValueError("once")}, max_attempts=1)
    logging.getLogger("somebody").error("a line of a library")
    report_unexpected("maintenance.error", ValueError("unexpected"))
    assert [event["exception"]["values"][-1]["value"] for event in sent(sentry, 2)] == ["once", "unexpected"]
    assert "breadcrumbs" not in sentry.text or '"breadcrumbs":{"values":[]}' in sentry.text.replace(" ", "")


def test_an_error_that_escapes_a_thread_is_reported(sentry: SentryReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def escape() -> None:
        raise ValueError("nobody caught it")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # pytest's own would fail the test
    thread = threading.Thread(target=escape)
    thread.start()
    thread.join()
    assert [event["exception"]["values"][-1]["value"] for event in sent(sentry)] == ["nobody caught it"]


def test_what_goes_wrong_with_every_turn_is_reported_once_a_minute(
    sentry: SentryReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_unexpected", telemetry._Throttle(1))  # noqa: SLF001
    for number in range(20):
        report_unexpected("loop.error", raised(ValueError(f"turn {number}")))
    report_unexpected("maintenance.error", raised(ValueError("another")))
    sent(sentry, 2)


def test_where_a_cohort_dies_of_one_cause_the_first_are_reported(
    sentry: SentryReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_errors", telemetry._Throttle(3))  # noqa: SLF001
    for number in range(20):
        report(ValueError("all of them"), {"dedupe_key": f"acme:c-{number}", "action_type": "timeout"})
    report(ValueError("all of them"), {"dedupe_key": "acme:c-1", "action_type": "send"})
    assert [event["tags"]["action_type"] for event in sent(sentry, 4)] == ["timeout"] * 3 + ["send"]


# Secrets, and people

TELLTALES: Final = [
    "pa$$word",
    "pa%24%24word",
    "hook-sesame",
    "open-token",
    "ada@example.com",
    "Ada Lovelace",
    "hidden",
]


def speaking_error() -> Exception:
    cause = ValueError(f"can't connect to {DATABASE}?sslpassword=hidden1 with hook-sesame")
    error = RuntimeError(
        "refused ada@example.com at https://u:hidden2@hook.example/send?key=hidden3#hidden4, "
        'Authorization: Bearer open-token, password=\'hidden 5\', {"api_key": "hidden6"}\n'
        "DETAIL: Failing row contains (Ada Lovelace)"
    )
    error.__cause__ = cause
    return error


def test_no_text_of_a_report_holds_a_secret_or_an_address(sentry: SentryReceiver) -> None:
    facts = {
        "dedupe_key": "acme:c-1",
        "contact_id": "k-1",
        "variables": {"first_name": "Ada Lovelace"},
        "nested": [{"deep": {"smtp_password": "hidden7", "note": f"see {DATABASE}", "address": "hidden8 street"}}],
        "detail": "to ada@example.com",
    }
    try:
        raise speaking_error()
    except RuntimeError as error:
        report(error, facts)

    (event,) = sent(sentry)
    assert event["contexts"]["action"]["contact_id"] == "k-1"
    assert "https://[removed]@hook.example/send?[removed]" in event["exception"]["values"][-1]["value"]
    for word in TELLTALES:
        assert word not in str(event), word


def test_a_statement_is_reported_without_its_parameters_and_its_row(sentry: SentryReceiver, sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    try:
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO nowhere VALUES (:name)"), {"name": "Ada Lovelace"})
    except Exception as error:  # noqa: BLE001 - the driver's own
        report(error, {"reason": "a test"})
    engine.dispose()
    (event,) = sent(sentry)
    assert "no such table: nowhere" in event["exception"]["values"][-1]["value"]
    assert "Ada Lovelace" not in str(event)


def test_a_report_that_cannot_be_cleaned_says_at_least_that_there_was_one(
    sentry: SentryReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Scrubber, "value", breaks)
    report(ValueError("hidden"), {"reason": "a test"})
    (event,) = sent(sentry)
    assert "could not be cleaned: ZeroDivisionError" in event["message"]
    assert "hidden" not in str(event)


def test_the_secrets_are_those_of_the_settings() -> None:
    settings = Settings(database_url=DATABASE, http_token="open-token", smtp_password="short")  # noqa: S106 - looked for
    assert set(secrets_of(settings)) == {DATABASE, "pa%24%24word", "pa$$word", "open-token", "short"}


# Incidents


def test_an_incident_and_its_end_are_messages_of_their_own(sentry: SentryReceiver) -> None:
    for is_raised in (True, False):
        lasted = None if is_raised else timedelta(minutes=7)
        tell_backlog(is_raised=is_raised, due=1234, oldest_due=timedelta(minutes=6), lasted=lasted)
    begun, over = sent(sentry, 2)
    assert (begun["level"], begun["message"]) == ("error", "backlog: 1234 actions are due, the oldest for 360 s")
    assert (over["level"], over["message"][:10]) == ("info", "recovered:")
    assert begun["fingerprint"] != over["fingerprint"]
    assert begun["contexts"]["incident"] == {"alert": "backlog", "due": 1234, "oldest_due_seconds": 360.0}
    assert begun["tags"]["alert"] == "backlog"


# The monitor


@pytest.mark.parametrize(("silent", "status"), [(None, "ok"), ("the loop has not turned", "error")])
def test_a_daemon_checks_in_with_a_monitor_that_expects_it_every_minute(
    receiver: SentryReceiver, silent: str | None, status: str
) -> None:
    settings = make_settings(sentry_dsn=receiver.dsn, instance_name="Mailer 1/b")
    with reporting(settings), checking_in(settings, "mailer:1:x", lambda: True, lambda: silent):
        eventually(lambda: receiver.check_ins)
    sentry_sdk.init(default_integrations=False)
    (check_in,) = receiver.check_ins
    assert (check_in["monitor_slug"], check_in["status"]) == ("timeout-scheduler-mailer-1-b", status)
    assert check_in["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "minute"}


def test_a_daemon_that_does_not_fire_is_missed_and_one_that_does_checks_in_once_a_minute(
    sentry: SentryReceiver,
) -> None:
    fires = False
    check_ins = CheckIns("timeout-scheduler-a", lambda: fires, lambda: None)
    check_ins.look()
    flush(10)
    assert sentry.check_ins == []
    fires = True
    for _ in range(3):
        check_ins.look()
    flush(10)
    assert [one["status"] for one in sentry.check_ins] == ["ok"]


@pytest.mark.parametrize("name", ["a", "A.B", "host.example.com", "x" * 200, "-", "ü"])
def test_a_monitor_is_named_as_sentry_names_them(name: str) -> None:
    slug = slug_of(name)
    assert len(slug) <= 50
    assert slug.isascii()
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


# A Sentry that isn't well, or isn't wanted


@pytest.mark.parametrize("answer", [answers(503), answers(429, Retry_After="60"), resets, answers(400, b"no")])
def test_a_sentry_that_fails_changes_nothing(sentry: SentryReceiver, answer: Answer) -> None:
    sentry.receiver.script = [answer]
    for _ in range(3):
        report(ValueError("lost"), {})
    flush(10)


def test_a_sentry_that_hangs_holds_up_neither_who_reports_nor_the_end(sentry: SentryReceiver) -> None:
    sentry.receiver.script = [stalls]
    began = time.monotonic()
    for number in range(300):
        report(ValueError(f"report {number}"), {"reason": f"number {number}"})
    reported = time.monotonic() - began
    flush(0.2)
    assert (reported < 10, time.monotonic() - began < reported + 5) == (True, True)


def test_without_a_dsn_nothing_is_sent(receiver: SentryReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the SDK would find one by itself."""
    monkeypatch.setenv("SENTRY_DSN", receiver.dsn)
    settings = make_settings()
    with reporting(settings), checking_in(settings, "mailer:1:x", lambda: True, lambda: None):
        report(ValueError("nobody is told"), {})
        flush()
    assert receiver.receiver.connections == 0


@pytest.mark.parametrize("dsn", ["https://sentry.example/1", "nonsense", "https://sesame@sentry.example/"])
def test_a_dsn_that_is_none_is_refused_without_showing_it(dsn: str) -> None:
    with pytest.raises(InvalidInputError) as refused, reporting(make_settings(sentry_dsn=dsn)):
        pass
    assert refused.value.field == "SCHEDULER_SENTRY_DSN"
    assert dsn not in str(refused.value)


def test_what_ends_the_daemon_is_reported_and_sent_before_it_is_gone(receiver: SentryReceiver) -> None:
    with pytest.raises(ValueError, match="at the start"), reporting(make_settings(sentry_dsn=receiver.dsn)):
        raise ValueError("at the start")
    assert [event["exception"]["values"][-1]["value"] for event in receiver.errors] == ["at the start"]
    sentry_sdk.init(default_integrations=False)
