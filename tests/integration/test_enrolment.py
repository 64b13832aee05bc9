"""Contacts enter campaigns: once, with what is known of them, all of a list or none."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from scheduler import CampaignPlan, InvalidInputError, TimeoutJob
from tests.integration.conftest import OpenScheduler
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)

WAIT = wait("a", on("no_open", "stop", after="PT1H"))
PLAN = make_document(WAIT)
MAIL = send("mail", on("no_open", "stop", after="PT1H"))
NIGHT: dict[str, Any] = {"quietHours": {"start": "21:00", "end": "07:30"}}


def make_row(number: int, **overrides: Any) -> dict[str, Any]:
    """One line of a list of enrolments."""
    values = {
        "tenant_id": "acme",
        "campaign_id": f"c-{number}",
        "contact_id": f"k-{number}",
        "plan": make_document(WAIT),
    }
    return {**values, **overrides}


def test_the_same_campaign_again_is_no_change_and_the_same_value(stage: Stage) -> None:
    first = stage.enroll(WAIT, contact={"timezone": "Asia/Tokyo", "address": "ada@example.com"})
    before = [stage.rows(table) for table in ("contacts", "contact_campaigns", "scheduled_actions", "campaign_plans")]
    stage.clock.advance("PT30M")
    assert stage.enroll(WAIT) == first == stage.campaign()
    assert stage.enroll(MAIL, contact_id="somebody", contact={"timezone": "UTC"}, start_at=NOON) == first
    after = [stage.rows(table) for table in ("contacts", "contact_campaigns", "scheduled_actions", "campaign_plans")]
    assert after == before


def test_a_finished_campaign_stays_finished(stage: Stage) -> None:
    stage.enroll(WAIT)
    stage.run("PT1H")
    assert stage.enroll(WAIT).status == "completed"
    assert stage.run("P1D") == 0


@pytest.mark.parametrize("as_text", [False, True])
def test_a_plan_may_be_a_document_text_a_value_or_a_hash(stage: Stage, as_text: bool) -> None:  # noqa: FBT001
    document = make_document(WAIT)
    plan = CampaignPlan.parse(document)
    given: list[Any] = [plan.document if as_text else document, plan, plan.hash]
    enrolled = [stage.sm.enroll("acme", f"c-{number}", "k-1", value) for number, value in enumerate(given)]
    assert {campaign.plan_hash for campaign in enrolled} == {plan.hash}
    assert stage.counts()["campaign_plans"] == 1


def test_a_hash_is_known_to_the_tenant_that_stored_the_plan(stage: Stage) -> None:
    plan = CampaignPlan.parse(make_document(WAIT))
    stage.enroll(WAIT, tenant="other")
    before = stage.counts()
    with pytest.raises(InvalidInputError) as refused:
        stage.sm.enroll("acme", "c-1", "k-1", plan.hash)
    assert refused.value.field == "plan"
    assert stage.counts() == before
    assert stage.another().campaigns.enroll("other", "c-2", "k-1", plan.hash).plan_hash == plan.hash


def test_a_plan_parsed_elsewhere_gets_this_schedulers_timer_defaults(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, database_url, no_open_after="PT5H")
    plan = CampaignPlan.parse(make_document(wait("a", on("no_open", "b")), wait("b", on("no_open", "stop"))))
    sources: list[Any] = [plan, make_document(wait("a", on("no_open", "stop"))), plan.hash]
    for number, given in enumerate(sources):
        stage.sm.enroll("acme", f"c-{number}", "k-1", given)
        assert stage.action(1, "no_open", f"c-{number}").deadline == NOON + 5 * HOUR
    stage.run("PT5H")
    assert stage.action(2, "no_open", "c-0").deadline == NOON + 10 * HOUR


@pytest.mark.parametrize("start_at", [NOON + 24 * HOUR, "2026-03-03T12:00:00Z", "2026-03-03T21:00:00+09:00"])
def test_a_campaign_can_start_later(stage: Stage, start_at: Any) -> None:
    campaign = stage.enroll(MAIL, start_at=start_at)
    assert campaign.node_entered_at == campaign.anchor_at == campaign.started_at == NOON + 24 * HOUR
    assert campaign.node_entered_at.tzinfo is UTC
    assert stage.run("PT23H59M59S") == 0
    assert stage.run("PT1S") == 1
    assert stage.action(1, "no_open").deadline == NOON + 25 * HOUR


def test_a_campaign_can_start_in_the_past(stage: Stage) -> None:
    stage.enroll(WAIT, start_at=NOON - 24 * HOUR)
    assert stage.run() == 1
    assert stage.campaign().status == "completed"


def test_contact_data_reaches_the_mail(stage: Stage) -> None:
    contact = {"address": "ada@example.com", "variables": {"first_name": "Ada", "emoji": "😀", "nested": {"a": [1]}}}
    stage.enroll({**MAIL, "subject": "Hello {{first_name}}", "body": "{{emoji}} {{nested}}"}, contact=contact)
    stage.run()
    (request,) = stage.mailed
    assert (request.address, request.subject, request.body) == ("ada@example.com", "Hello Ada", "😀 {'a': [1]}")
    assert request.variables == contact["variables"]
    assert (request.dedupe_key, request.attempt, request.planned_at) == ("acme:c-1:mail:1:send:sent", 1, NOON)


def test_contact_data_is_kept_for_the_contacts_next_campaign(stage: Stage) -> None:
    mail = {**MAIL, "subject": "Hello {{first_name}}"}
    stage.enroll(mail, campaign="c-1", contact_id="k", contact={"address": "a@example.com"})
    stage.enroll(mail, campaign="c-2", contact_id="k", contact={"variables": {"first_name": "Ada"}})
    stage.enroll(mail, campaign="c-3", contact_id="k")
    stage.run()
    assert {(one.address, one.subject) for one in stage.mailed} == {("a@example.com", "Hello Ada")}
    assert len(stage.mailed) == 3


def test_quiet_hours_follow_the_contacts_zone(stage: Stage) -> None:
    stage.enroll(MAIL, campaign="c-1", contact={"timezone": "America/Los_Angeles"}, **NIGHT)
    stage.enroll(MAIL, campaign="c-2", contact={"timezone": "Europe/Berlin"}, timezone="America/Los_Angeles", **NIGHT)
    stage.enroll(MAIL, campaign="c-3", timezone="America/Los_Angeles", **NIGHT)
    morning = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
    assert [stage.action(1, "sent", f"c-{number}").run_at for number in (1, 2, 3)] == [morning, NOON, morning]
    assert stage.campaign("c-1").anchor_at == morning


def test_enrolling_again_doesnt_change_the_contact(stage: Stage) -> None:
    stage.enroll(MAIL, contact={"address": "old@example.com"})
    stage.enroll(MAIL, contact={"address": "new@example.com"})
    stage.run()
    assert [request.address for request in stage.mailed] == ["old@example.com"]


def test_many_are_enrolled_and_counted(stage: Stage) -> None:
    stage.enroll(WAIT, campaign="c-5")
    rows = [make_row(number) for number in range(2500)]
    summary = stage.sm.enroll_many(iter([*rows, make_row(7)]))
    assert (summary.enrolled, summary.existing) == (2499, 2)
    assert stage.counts()["contact_campaigns"] == stage.counts()["scheduled_actions"] == 2500
    assert stage.counts()["campaign_plans"] == 1
    assert stage.sm.enroll_many(rows).enrolled == 0


def test_rows_that_say_the_same_share_a_parsed_plan_and_the_others_do_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = Mock(wraps=CampaignPlan.parse)
    monkeypatch.setattr(CampaignPlan, "parse", parse)
    rows = [make_row(number) for number in range(20)]
    stage.sm.enroll_many([*rows, make_row(20, plan=make_document(MAIL)), make_row(21, plan=dict(make_document(WAIT)))])
    assert parse.call_count == 2
    assert len({stage.campaign(f"c-{number}").plan_hash for number in range(22)}) == 2


def test_a_value_of_another_type_is_another_plan(stage: Stage) -> None:
    number, boolean = ({**make_document(WAIT), "maxTransitions": value} for value in (1, True))
    with pytest.raises(InvalidInputError, match="maxTransitions"):
        stage.sm.enroll_many([make_row(1, plan=number), make_row(2, plan=boolean)])


def test_nobody_is_no_enrolment(stage: Stage) -> None:
    summary = stage.sm.enroll_many([])
    assert (summary.enrolled, summary.existing) == (0, 0)


BAD_ROWS: list[tuple[Any, str]] = [
    (make_row(1200, contact_id=""), "contact_id"),
    (make_row(1200, tenant_id="x" * 129), "tenant_id"),
    (make_row(1200, plan={"version": "1.0"}), "$.nodes"),
    (make_row(1200, plan="0" * 64), "plan"),
    (make_row(1200, plan=None), "plan"),
    (make_row(1200, start_at=datetime(2026, 3, 2, 12)), "start_at"),  # noqa: DTZ001 - naive on purpose
    (make_row(1200, contact={"timezone": "Mars/Olympus"}), "contact.timezone"),
    (make_row(1200, contact={"variables": {"a": object()}}), "contact.variables"),
    (make_row(1200, colour="red"), "colour"),
    ("acme", "enrolment"),
]


@pytest.mark.parametrize(("row", "field"), BAD_ROWS, ids=[field for _, field in BAD_ROWS])
def test_a_bad_row_in_the_middle_leaves_nobody_enrolled(stage: Stage, row: Any, field: str) -> None:
    rows = [make_row(number) for number in range(1500)]
    rows[1200] = row
    before = stage.counts()
    with pytest.raises(InvalidInputError) as refused:
        stage.sm.enroll_many(rows)
    assert refused.value.field == field
    assert stage.counts() == before


def test_a_bad_row_leaves_nobody_enrolled_in_the_callers_transaction_either(stage: Stage) -> None:
    rows = [make_row(number) for number in range(1500)]
    rows[1200] = make_row(1200, contact_id="")
    with stage.ts.database.engine.connect() as connection, connection.begin():
        stage.sm.enroll("acme", "c-own", "k-1", make_document(WAIT), connection=connection)
        with pytest.raises(InvalidInputError):
            stage.sm.enroll_many(rows, connection=connection)
    assert stage.counts()["contact_campaigns"] == 1
    assert stage.campaign("c-own").status == "active"


def test_what_a_list_of_enrolments_raises_undoes_it(stage: Stage) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from (make_row(number) for number in range(1100))
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        stage.sm.enroll_many(rows())
    assert stage.counts()["contact_campaigns"] == 0


def test_bad_jobs_leave_nothing_scheduled_in_the_callers_transaction(stage: Stage) -> None:
    jobs: list[Any] = [
        TimeoutJob(
            tenant_id="acme",
            campaign_id=f"c-{number}",
            contact_id="k",
            node_id="a",
            event_type="no_open",
            scheduled_at=NOON,
        )
        for number in range(5100)
    ]
    jobs[5050] = {"tenant_id": "acme"}
    with stage.ts.database.engine.connect() as connection:
        with pytest.raises(InvalidInputError, match="TimeoutJob"):
            stage.ts.schedule_many(jobs, connection=connection)
        connection.commit()
    assert stage.counts()["scheduled_actions"] == 0
