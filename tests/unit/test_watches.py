"""What is said of a database that is away, and of clocks that part: once, not with every try."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import sentry_sdk

from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime import database_watch
from scheduler.runtime.clock_watch import ClockWatch
from scheduler.runtime.database_watch import DatabaseWatch
from scheduler.telemetry.metrics import Metrics

NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
AWAY: Final = DatabaseUnavailableError("connection refused")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level("INFO", "timeout_scheduler")
    return lambda: [record.getMessage().split()[0].removeprefix("event=") for record in caplog.records]


@pytest.fixture
def reports() -> Iterator[list[Any]]:
    """What goes to Sentry."""
    caught: list[Any] = []

    def catch(event: Any, _hint: Any) -> None:
        caught.append(event)

    sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", before_send=catch, default_integrations=False)
    yield caught
    sentry_sdk.init(default_integrations=False)


def test_an_outage_is_said_once_and_its_end_too(metrics: Metrics, said: Any) -> None:
    watch = DatabaseWatch(metrics)
    for _ in range(3):
        watch.failed(AWAY)
    up = [watch.is_up, metrics.registry.get_sample_value("timeout_scheduler_database_up")]
    for _ in range(3):
        watch.answered()

    assert said() == ["database.unavailable", "database.recovered"]
    assert up == [False, 0]
    assert watch.is_up
    assert watch.recoveries == 1
    assert metrics.registry.get_sample_value("timeout_scheduler_database_up") == 1


def test_a_short_outage_is_not_reported(metrics: Metrics, said: Any, reports: list[Any]) -> None:
    watch = DatabaseWatch(metrics)
    for _ in range(3):
        watch.failed(AWAY)

    assert reports == []
    assert said() == ["database.unavailable"]


def test_a_long_outage_is_reported_once(metrics: Metrics, said: Any, reports: list[Any]) -> None:
    watch = DatabaseWatch(metrics, reported_after=0)
    for _ in range(3):
        watch.failed(AWAY)
    watch.answered()
    watch.failed(AWAY)

    outage = ["database.unavailable", "database.outage"]
    assert said() == [*outage, "database.recovered", *outage]
    assert [report["exception"]["values"][-1]["type"] for report in reports] == ["DatabaseUnavailableError"] * 2


def test_clocks_that_part_and_agree_again_are_told_of_once(metrics: Metrics, said: Any) -> None:
    watch = ClockWatch(metrics)
    for skew in (0, 0.9, 1.5, 3, 3, -0.2, 0.3):
        watch.compare(NOON, NOON + timedelta(seconds=skew), NOON)

    assert said() == ["clock.skewed", "clock.agrees"]
    assert metrics.registry.get_sample_value("timeout_scheduler_clock_skew_seconds") == pytest.approx(0.3)


def test_a_database_behind_is_skewed_too(metrics: Metrics, said: Any) -> None:
    ClockWatch(metrics).compare(NOON, NOON - timedelta(seconds=5), NOON)

    assert said() == ["clock.skewed"]
    assert metrics.registry.get_sample_value("timeout_scheduler_clock_skew_seconds") == -5


def test_a_slow_answer_is_no_skew(metrics: Metrics, said: Any) -> None:
    """Read at either end of the four seconds that the answer took, both clocks may well agree."""
    for there in (0.5, 3.5):
        ClockWatch(metrics).compare(NOON, NOON + timedelta(seconds=there), NOON + timedelta(seconds=4))

    assert said() == []


def test_what_another_thread_notices_is_said_now_and_then_and_is_no_outage(metrics: Metrics, said: Any) -> None:
    watch = DatabaseWatch(metrics)
    for _ in range(3):
        watch.noticed(AWAY)
    watch.answered()

    assert said() == ["database.unavailable"]
    assert watch.is_up
    assert watch.recoveries == 0


def test_what_another_thread_noticed_first_is_not_said_again_by_the_loop(metrics: Metrics, said: Any) -> None:
    watch = DatabaseWatch(metrics)
    watch.noticed(AWAY)
    watch.failed(AWAY)
    watch.answered()
    watch.noticed(AWAY)

    assert said() == ["database.unavailable", "database.recovered"]
    assert watch.recoveries == 1


def test_an_answer_that_was_on_its_way_when_the_database_went_makes_no_second_outage(
    metrics: Metrics, said: Any
) -> None:
    """The loop was answered, and says so only after another thread has noticed that the database is gone."""
    watch = DatabaseWatch(metrics)
    watch.noticed(AWAY)
    watch.answered()
    watch.failed(AWAY)
    watch.answered()

    assert said() == ["database.unavailable", "database.recovered"]
    assert watch.recoveries == 1


def test_an_outage_some_time_after_another_thread_noticed_something_is_said(
    metrics: Metrics, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_watch, "_ON_ITS_WAY_SECONDS", 0.0)
    watch = DatabaseWatch(metrics)
    watch.noticed(AWAY)
    watch.answered()
    watch.failed(AWAY)

    assert said() == ["database.unavailable"] * 2
