"""Bad input at every door of the API: the error names the field, and nothing is written."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler import InvalidInputError, InvalidPlanError
from scheduler.testing import SettableClock
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

LONG = "x" * 129
NAIVE = datetime(2026, 3, 2, 12)  # noqa: DTZ001 - naive on purpose
PLAN = make_document(wait("a", on("no_open", "stop", after="PT1H")))
MAIL = make_document(send("mail", on("no_open", "stop", after="PT1H")))
KEY = "acme:c-1:a:1:timeout:no_open"
SEND_KEY = "acme:c-2:mail:1:send:sent"
DEEP: list[Any] = []
for _ in range(50_000):
    DEEP = [DEEP]

Call = Callable[[Stage], Any]


def enroll(**overrides: Any) -> Call:
    given: dict[str, Any] = {"tenant_id": "acme", "campaign_id": "c-9", "contact_id": "k-9", "plan": PLAN, **overrides}
    return lambda stage: stage.sm.enroll(**given)


def process_event(**overrides: Any) -> Call:
    given: dict[str, Any] = {"tenant_id": "acme", "event_type": "opened", "campaign_id": "c-1", **overrides}
    return lambda stage: stage.sm.process_event(**given)


def process_events(*events: Any) -> Call:
    good = {"tenant_id": "acme", "event_type": "opened", "campaign_id": "c-1"}
    return lambda stage: stage.sm.process_events([good, *events])


def confirm_send(**overrides: Any) -> Call:
    given: dict[str, Any] = {"job_id": SEND_KEY, "sent_at": NOON, **overrides}
    return lambda stage: stage.sm.confirm_send(**given)


BAD_IDS: list[Any] = ["", LONG, "a\x00b", "\ud800", None, 7, b"acme"]

CALLS: list[tuple[str, Call]] = [
    *((name, enroll(**{name: value})) for name in ("tenant_id", "campaign_id", "contact_id") for value in BAD_IDS),
    *(("start_at", enroll(start_at=value)) for value in (NAIVE, "2026-03-02", "soon", 7, NOON.date())),
    ("start_at", enroll(start_at=NOON.replace(year=3000))),
    *(("plan", enroll(plan=value)) for value in ("", "nothing", "a\x00b", "\ud800", LONG)),
    *(("contact", enroll(contact=value)) for value in ("ada", ["ada"], 7)),
    ("contact.colour", enroll(contact={"colour": "red"})),
    *(("contact.address", enroll(contact={"address": value})) for value in ("", 7, "x" * 1025, "a\x00b", "\ud800")),
    *(("contact.timezone", enroll(contact={"timezone": value})) for value in ("", "Mars/Olympus", 7, "localtime")),
    *(
        ("contact.variables", enroll(contact={"variables": value}))
        for value in (
            "Ada",
            [1],
            {"a": object()},
            {"a": float("nan")},
            {"a": "\ud800"},
            {"a": "x" * 70_000},
            {"a": DEEP},
        )
    ),
    *(("tenant_id", process_event(tenant_id=value)) for value in BAD_IDS),
    *(
        (name, process_event(**{name: value}))
        for name in ("campaign_id", "message_id", "node_id", "event_id")
        for value in BAD_IDS
        if value is not None
    ),
    ("campaign_id", process_event(campaign_id=None)),
    ("campaign_id", process_event(event_type="no_open", campaign_id=None, message_id="m-1")),
    *(
        ("event_type", process_event(event_type=value))
        for value in ("", "two words!", "x" * 65, "no_", None, 7, "öffnung")
    ),
    ("event_type", process_event(event_type="no_open")),
    *(("occurred_at", process_event(occurred_at=value)) for value in (NAIVE, "yesterday", 7, "1969-12-31T23:59:59Z")),
    *(
        ("metadata", process_event(metadata=value))
        for value in ("a", [1], {"a": object()}, {"a": float("inf")}, {"a": "\ud800"}, {"a": "x" * 70_000}, {"a": DEEP})
    ),
    ("event_type", process_events({"tenant_id": "acme", "campaign_id": "c-1"})),
    ("tenant_id", process_events({"event_type": "opened", "campaign_id": "c-1"})),
    ("colour", process_events({"tenant_id": "acme", "event_type": "opened", "campaign_id": "c-1", "colour": "red"})),
    ("event_type", process_events({"tenant_id": "acme", "event_type": "no_open", "campaign_id": "c-1"})),
    ("event", process_events("opened")),
    ("event", process_events(None)),
    *(
        ("job_id", confirm_send(job_id=value))
        for value in ("", "c-1", None, "%ff:c:n:1:send:sent", "a:\x00:n:1:send:sent")
    ),
    *(("sent_at", confirm_send(sent_at=value)) for value in (NAIVE, "now", None, 7)),
    *(("message_id", confirm_send(message_id=value)) for value in BAD_IDS if value is not None),
    *(
        ("tenant_id", lambda stage, name=name, value=value: getattr(stage.sm, name)(value, "c-1"))
        for name in ("pause", "resume", "stop", "find", "history")
        for value in BAD_IDS
    ),
    *(
        ("campaign_id", lambda stage, name=name: getattr(stage.sm, name)("acme", LONG))
        for name in ("pause", "resume", "stop", "find", "history")
    ),
    ("job", lambda stage: stage.ts.schedule({"tenant_id": "acme"})),  # type: ignore[arg-type]
    ("jobs", lambda stage: stage.ts.schedule_many([{"tenant_id": "acme"}])),  # type: ignore[list-item]
    *(
        ("job_id", lambda stage, name=name, value=value: getattr(stage.ts, name)(value))
        for name in ("cancel", "retry", "find")
        for value in ("", "c-1", None, 7, "a:b:c:1:timeout:no_\x00", "%80:b:c:1:timeout:no_open")
    ),
    *(("run_at", lambda stage, value=value: stage.ts.reschedule(KEY, value)) for value in (NAIVE, "later", None)),
    ("tenant_id", lambda stage: stage.ts.cancel_campaign("", "c-1")),
    ("campaign_id", lambda stage: stage.ts.cancel_campaign("acme", LONG)),
    ("node_id", lambda stage: stage.ts.cancel_node("acme", "c-1", "")),
    ("due_before", lambda stage: stage.ts.pending(due_before=NAIVE)),
    *(("limit", lambda stage, value=value: stage.ts.pending(limit=value)) for value in (0, -1, 1.5, True, "7", 10**9)),
    ("connection", lambda stage: stage.sm.enroll("acme", "c-9", "k-9", PLAN, connection="the database")),
]


@pytest.fixture
def busy(stage: Stage) -> Stage:
    """Two campaigns on their way."""
    stage.sm.enroll("acme", "c-1", "k-1", PLAN)
    stage.sm.enroll("acme", "c-2", "k-2", MAIL)
    return stage


def test_every_call_refuses_bad_input_by_its_field_and_writes_nothing(busy: Stage) -> None:
    before = {table: busy.rows(table) for table in busy.counts()}
    wrong = []
    for number, (field, call) in enumerate(CALLS):
        with pytest.raises(InvalidInputError) as refused:
            call(busy)
        error = refused.value
        if error.field != field or not error.remedy or len(str(error)) > 1000:
            wrong.append((number, field, str(error)))
    assert wrong == []
    assert {table: busy.rows(table) for table in busy.counts()} == before


@pytest.mark.parametrize("plan", [{}, [], 7, {"version": "1.0"}, "{", {**PLAN, "startNodeId": "b"}])
def test_a_bad_plan_is_refused_with_every_fault(busy: Stage, plan: Any) -> None:
    before = busy.counts()
    with pytest.raises(InvalidPlanError) as refused:
        busy.sm.enroll("acme", "c-9", "k-9", plan)
    assert refused.value.field.startswith("$")
    assert busy.counts() == before


def test_a_refused_call_leaves_the_callers_transaction_usable(busy: Stage) -> None:
    with busy.ts.database.engine.connect() as connection, connection.begin():
        for _, call in (("", enroll(tenant_id="", connection=connection)), ("", process_event(occurred_at=NAIVE))):
            with pytest.raises(InvalidInputError):
                call(busy)
        busy.sm.enroll("acme", "c-9", "k-9", PLAN, connection=connection)
    assert busy.campaign("c-9").status == "active"


@pytest.mark.parametrize("value", ["PT", "-PT1H", "1 hour", 7, None, -timedelta(hours=1)])
def test_a_clock_refuses_what_is_no_step_forward(value: Any) -> None:
    clock = SettableClock(NOON)
    with pytest.raises(InvalidInputError):
        clock.advance(value)
    assert clock.now() == NOON


@pytest.mark.parametrize("value", [NAIVE, "now", None])
def test_a_clock_refuses_what_is_no_instant(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        SettableClock(value)
    with pytest.raises(InvalidInputError):
        SettableClock(NOON).set(value)


def test_a_clock_goes_where_it_is_told() -> None:
    clock = SettableClock(NOON)
    assert clock.advance("PT72H") == clock.now() == NOON + timedelta(hours=72)
    assert clock.advance(timedelta(seconds=1)) == NOON + timedelta(hours=72, seconds=1)
    clock.set(NOON)
    assert clock.now() == NOON
