"""One INSERT from any language schedules a timeout, and no INSERT can stop the others from firing."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from tests.support.scheduling import execute
from tests.support.stage import Stage
from tests.support.walk import NOON, on, wait

INSERT = (
    "INSERT INTO scheduled_actions"
    " (tenant_id, dedupe_key, campaign_id, contact_id, node_id, node_visit, event_type, run_at)"
    " VALUES ('acme', :dedupe_key, 'c-1', 'k-1', 'a', 1, :event_type, :run_at) ON CONFLICT DO NOTHING"
)
WITH_DEADLINE = INSERT.replace("run_at)", "run_at, deadline)", 1).replace(":run_at)", ":run_at, :deadline)", 1)
KEY = "acme:c-1:a:1:timeout:no_open"

REPLY = wait("a", on("replied", "stop"), on("no_open", "stop", after="P3D"))
MICROSECOND = timedelta(microseconds=1)


def insert(stage: Stage, run_at: str, event_type: str = "no_open", deadline: str | None = None) -> None:
    """Schedule a timeout of the campaign's first visit behind everybody's back."""
    values = {"dedupe_key": f"acme:c-1:a:1:timeout:{event_type}", "event_type": event_type, "run_at": run_at}
    if deadline is None:
        execute(stage.ts, INSERT, **values)
    else:
        execute(stage.ts, WITH_DEADLINE, **values, deadline=deadline)


def test_a_row_of_the_jobs_fields_is_a_timeout(stage: Stage) -> None:
    insert(stage, "2026-03-02T13:00:00Z")
    action = stage.ts.find(KEY)
    assert action is not None
    hour_later = NOON + timedelta(hours=1)
    assert (action.status, action.action_type, action.run_at, action.deadline) == (
        "pending",
        "timeout",
        hour_later,
        hour_later,
    )
    assert (action.node_visit, action.attempts, action.claim_number, action.outcome) == (1, 0, 0, None)
    assert action.created_at.utcoffset() == timedelta(0)
    job = stage.ts.apscheduler.get_job(KEY)
    assert job is not None
    assert (job.id, job.next_run_time) == (KEY, hour_later)


def test_a_row_fires_for_the_campaign_it_names(stage: Stage) -> None:
    insert(stage, "2026-03-02T13:00:00Z")
    stage.enroll(REPLY)
    assert stage.action(1, "no_open").run_at == NOON + timedelta(hours=1), "the key was taken"
    assert stage.run("PT59M59S") == 0
    assert stage.run("PT1S") == 1
    assert stage.campaign().status == "completed"


def test_the_same_row_again_changes_nothing_whatever_became_of_it(stage: Stage) -> None:
    stage.enroll(REPLY)
    for _ in range(2):
        insert(stage, "2026-03-02T00:00:00Z")
    assert stage.action(1, "no_open").run_at == NOON + timedelta(days=3)
    stage.event("replied")
    insert(stage, "2026-03-02T00:00:00Z")
    assert stage.run("P10D") == 0
    assert stage.states() == {(1, "no_open"): "canceled"}


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-03-02T13:00:00Z", NOON + timedelta(hours=1)),
        ("2026-03-02T13:00:00+01:00", NOON),
        ("2026-03-01 23:30:00-12:30", NOON),
        ("2026-03-02 12:00:00.250Z", NOON + timedelta(milliseconds=250)),
        ("2026-03-02 12:00:00.000001+00:00", NOON),
        ("2028-02-29T12:00:00Z", datetime.fromisoformat("2028-02-29T12:00:00Z")),
        ("2999-12-31T23:59:59Z", datetime.fromisoformat("2999-12-31T23:59:59Z")),
    ],
)
def test_an_instant_may_have_any_offset(stage: Stage, text: str, instant: datetime) -> None:
    insert(stage, text, deadline=text)
    action = stage.ts.find(KEY)
    assert action is not None
    assert abs(action.run_at - instant) <= MICROSECOND
    assert action.deadline == action.run_at


def test_rows_are_due_in_the_order_of_their_instants_however_they_are_written(stage: Stage) -> None:
    for number, text in enumerate(
        ["2026-03-02T20:00:00+09:00", "2026-03-02 11:30:00.000000+00:00", "2026-03-02T11:45Z"]
    ):
        insert(stage, text, event_type=f"no_event_{number}")
    listed = stage.ts.pending("acme")
    assert [action.event_type for action in listed] == ["no_event_0", "no_event_1", "no_event_2"]
    assert [action.run_at.minute for action in listed] == [0, 30, 45]


UNREADABLE = [
    "",
    "tomorrow",
    "now",
    "infinity",
    "-infinity",
    "13:00",
    "2461102.5",
    "1772452800",
    "2026-02-30T12:00:00Z",
    "2026-02-30 12:00:00.000000",
    "2026-13-01 12:00:00.000000",
    "2026-03-02 25:00:00.000000",
    "2026-03-02 12:60:00.000000",
    "aaaaaaaaaa bbbbbbbbbbbbbbb",
    "0000-01-01 00:00:00.000000",
    "0044-03-15 12:00:00.000000 BC",
    "20000-01-01 00:00:00.000000",
]
ACCEPTED_BY_POSTGRESQL = ("now", "tomorrow")


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_is_no_instant_is_refused_and_stops_nobody(stage: Stage, text: str) -> None:
    stage.enroll(REPLY)
    if not (stage.ts.database.is_postgresql and text in ACCEPTED_BY_POSTGRESQL):
        with pytest.raises(DBAPIError):
            insert(stage, text, "no_click")
        with pytest.raises(DBAPIError):
            insert(stage, "2026-03-02T12:00:00Z", "no_click", deadline=text)
    assert stage.run("P3D") == 1
    assert stage.campaign().status == "completed"


@pytest.mark.parametrize("event_type", ["opened", "No Such Event", "no_", "nö_open"])
def test_a_row_with_a_strange_event_ends_without_effect(stage: Stage, event_type: str) -> None:
    stage.enroll(REPLY)
    stage.event("opened")
    insert(stage, "2026-03-02T12:00:00Z", event_type)
    assert stage.run() == 1
    assert stage.action(1, event_type).outcome in ("no_transition", "event_happened")
    assert stage.campaign().status == "active"
