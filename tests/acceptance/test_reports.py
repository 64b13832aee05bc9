"""What the installed daemon reports to Sentry, and that it needs no Sentry that is well."""

from contextlib import closing
from pathlib import Path

from scheduler import TimeoutScheduler
from scheduler.telemetry.metrics import package_version
from tests.support.daemon import DaemonProcess, environment, running
from tests.support.daemon_log import read_log, said
from tests.support.eventually import eventually
from tests.support.gated import Gate, create_effects
from tests.support.scheduling import are_completed, make_jobs
from tests.support.sentry_receiver import SentryReceiver, receiving_reports
from tests.support.web_receiver import stalls


def given(url: str, sentry: SentryReceiver, **more: str) -> dict[str, str]:
    names = {"SCHEDULER_SENTRY_DSN": sentry.dsn, "SCHEDULER_INSTANCE_NAME": "mailer-1"}
    return environment(url, **names, SCHEDULER_SEND_HANDLER="external", **more)


def test_a_daemon_that_cannot_start_is_reported_before_it_is_gone_and_never_checks_in(
    empty_sqlite_url: str, tmp_path: Path
) -> None:
    with receiving_reports() as sentry:
        daemon = DaemonProcess(tmp_path, given(empty_sqlite_url, sentry))
        assert daemon.process.wait(30) == 1
    (event,) = sentry.errors
    assert event["exception"]["values"][-1]["type"] == "SchemaOutdatedError"
    assert (event["server_name"], event["release"]) == ("mailer-1", f"timeout-scheduler@{package_version()}")
    assert event["tags"]["instance"].startswith("mailer-1:")
    assert sentry.check_ins == []


def test_a_daemon_checks_in_and_tells_of_incidents_and_of_their_end(sqlite_url: str, tmp_path: Path) -> None:
    """In Sentry and in its log: nothing can be fired, and what is due has been so for years; then all goes well."""
    gate = Gate(tmp_path / "gate")
    more = {
        "SCHEDULER_STATE_MANAGER": "tests.support.gated:Closed",
        "SCHEDULER_MAX_ATTEMPTS": "1000",
        "SCHEDULER_RETRY_BASE": "PT0.2S",
        "SCHEDULER_RETRY_MAX": "PT0.2S",
        **gate.environment,
    }
    with closing(TimeoutScheduler(sqlite_url)) as scheduler, receiving_reports() as sentry:
        create_effects(scheduler)
        jobs = make_jobs(6)
        scheduler.schedule_many(jobs)
        with running(tmp_path, given(sqlite_url, sentry, **more)) as daemon:
            eventually(lambda: said(daemon.log, "alert.raised") == 2, 30)
            gate.open()
            eventually(are_completed(scheduler, jobs), 30)
            eventually(lambda: said(daemon.log, "alert.recovered") == 2, 40)
            eventually(lambda: sentry.check_ins, 30)
            assert daemon.terminate() == 0
    assert [(one["monitor_slug"], one["status"]) for one in sentry.check_ins] == [("timeout-scheduler-mailer-1", "ok")]
    told = sorted((one["tags"]["alert"], one["level"]) for one in sentry.messages)
    assert told == [(alert, level) for alert in ("backlog", "consecutive_failures") for level in ("error", "info")]
    assert sentry.errors == []
    raised = [line for line in read_log(daemon.log) if line["event"] == "alert.raised"]
    assert {line["alert"]: line["level"] for line in raised} == {"backlog": "error", "consecutive_failures": "error"}


def test_a_sentry_that_hangs_keeps_nothing_from_firing_and_nobody_from_leaving(sqlite_url: str, tmp_path: Path) -> None:
    with closing(TimeoutScheduler(sqlite_url)) as scheduler, receiving_reports() as sentry:
        sentry.receiver.script = [stalls]
        jobs = make_jobs(50)
        scheduler.schedule_many(jobs)
        with running(tmp_path, given(sqlite_url, sentry)) as daemon:
            assert sentry.receiver.stalled.acquire(timeout=30)
            eventually(are_completed(scheduler, jobs), 30)
            assert daemon.terminate() == 0
