"""Failures in a row, as a process meets them: of timeouts and of sends apart, the database's own not at all."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.domain.errors import DatabaseUnavailableError, PermanentSendError
from scheduler.runtime.failure_watch import FailureWatch
from scheduler.service.owner import Owner
from scheduler.service.results import Ended
from scheduler.telemetry.metrics import Metrics

NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)


def action(campaign_id: str, action_type: ActionType = ActionType.TIMEOUT) -> ScheduledAction:
    values: dict[str, Any] = dict.fromkeys(ScheduledAction.__dataclass_fields__)
    given = {
        "tenant_id": "acme",
        "dedupe_key": f"acme:{campaign_id}:{action_type}",
        "campaign_id": campaign_id,
        "action_type": action_type,
        "status": ActionStatus.CLAIMED,
        "run_at": NOON,
    }
    return ScheduledAction(**{**values, **given})


def failed(campaign_id: str, kind: ActionType = ActionType.TIMEOUT, error: Exception | None = None) -> Ended:
    return Ended(action(campaign_id, kind), error=error or ValueError("not this one"))


def done(campaign_id: str, kind: ActionType = ActionType.TIMEOUT, outcome: str = "transitioned") -> Ended:
    return Ended(action(campaign_id, kind), outcome, is_final=True)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def watch(metrics: Metrics) -> FailureWatch:
    return FailureWatch(metrics, 3, Owner("mailer-1"))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level("INFO", "timeout_scheduler")
    return lambda: [record.getMessage().split()[0].removeprefix("event=") for record in caplog.records]


def test_an_incident_and_its_end_are_told_of_once(
    watch: FailureWatch, said: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        watch.note([failed(f"c-{number}")])
    watch.note([done("c-9")])
    watch.note([done("c-10")])
    assert said() == ["alert.raised", "alert.recovered"]
    assert "alert=consecutive_failures action_type=timeout instance=mailer-1:" in caplog.messages[0]
    assert "failures=3 error=ValueError" in caplog.messages[0]
    assert "failures=5 seconds=" in caplog.messages[1]


def test_the_gauge_counts_and_falls_back(watch: FailureWatch, metrics: Metrics) -> None:
    def shown() -> float | None:
        return metrics.registry.get_sample_value("timeout_scheduler_consecutive_failures")

    watch.note([failed("c-1"), failed("c-2")])
    watch.note([failed("c-1")])
    counted = shown()
    watch.note([done("c-3")])
    assert (counted, shown()) == (2, 0)


def test_timeouts_that_fire_are_no_comfort_for_sends_that_fail(
    watch: FailureWatch, said: Callable[[], list[str]]
) -> None:
    for number in range(3):
        watch.note([failed(f"c-{number}", ActionType.SEND, PermanentSendError("no such mailbox"))])
        watch.note([done(f"c-{number}")])
    assert said() == ["alert.raised"]
    watch.note([done("c-1", ActionType.SEND, "sent")])
    assert said() == ["alert.raised", "alert.recovered"]


def test_a_send_that_was_not_made_is_no_success(watch: FailureWatch, said: Callable[[], list[str]]) -> None:
    for number in range(3):
        watch.note([failed(f"c-{number}", ActionType.SEND)])
        watch.note([done(f"d-{number}", ActionType.SEND, "stale")])
    assert said() == ["alert.raised"]


def test_what_only_waits_for_another_turn_is_neither(watch: FailureWatch, said: Callable[[], list[str]]) -> None:
    for number in range(3):
        watch.note([failed(f"c-{number}")])
        watch.note([Ended(action("d"), "busy"), Ended(action("e"), "paused")])
    watch.note([])
    assert said() == ["alert.raised"]


def test_a_database_that_is_away_is_no_failure_of_an_action(watch: FailureWatch, said: Callable[[], list[str]]) -> None:
    for number in range(9):
        watch.note([failed(f"c-{number}", error=DatabaseUnavailableError("connection refused"))])
    assert said() == []
