"""Running campaigns go on, on another version of their plan: through the API, on both databases."""

import json
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection, event

from scheduler import CampaignPlan, InvalidInputError, PlanMigration, RetryLater, SendRequest, SendResult
from scheduler.service import migrating
from scheduler.service.owner import Owner
from tests.integration.conftest import OpenScheduler
from tests.integration.test_races import claim, firing_of
from tests.support.scheduling import query
from tests.support.stage import Stage
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)

OLD = (
    send("mail", on("opened", "read"), on("no_open", "again", after="PT72H")),
    wait("read", on("clicked", "stop"), on("no_click", "again", after="PT72H")),
    send("again", on("opened", "stop"), on("no_open", "stop", after="PT72H")),
)
NEW = make_document(
    send("mail", on("opened", "read"), on("no_open", "again", after="PT24H")),
    wait("read", on("clicked", "stop"), on("no_click", "again", after="PT24H")),
    send("again", on("opened", "stop"), on("no_open", "stop", after="PT72H")),
)
RENAMED = make_document(
    send("hello", on("opened", "look"), on("no_open", "stop", after="PT24H")),
    wait("look", on("clicked", "stop"), on("no_click", "stop", after="PT24H")),
)
MAP = {"mail": "hello", "read": "look", "again": "stop"}
OLD_HASH = CampaignPlan.parse(make_document(*OLD)).hash


def migrate(stage: Stage, plan: Any = NEW, **options: Any) -> PlanMigration:
    return stage.sm.migrate_plan(options.pop("tenant", "acme"), options.pop("old", OLD_HASH), plan, **options)


def counts(migration: PlanMigration) -> dict[tuple[str, str | None], tuple[int, int, int]]:
    return {
        (node.from_node_id, node.to_node_id): (node.campaigns, node.timeouts_at_once, node.mails_at_once)
        for node in migration.nodes
    }


def cast(stage: Stage) -> None:
    """Two who got the mail 30 hours ago, one of whom opened it since; one whose mail is still to come."""
    for number in (1, 2):
        stage.enroll(*OLD, campaign=f"c-{number}")
    stage.run()
    stage.clock.advance("PT29H")
    stage.event("opened", campaign="c-2")
    stage.clock.advance("PT1H")
    stage.enroll(*OLD, campaign="c-3", start_at=NOON + 40 * HOUR)


def test_who_stands_where_is_moved_and_what_was_overdue_fires_once(stage: Stage) -> None:
    cast(stage)

    migration = migrate(stage, actor="alex")

    new = CampaignPlan.parse(NEW).hash
    assert (migration.tenant_id, migration.old_plan_hash, migration.new_plan_hash) == ("acme", OLD_HASH, new)
    assert (migration.moved, migration.busy, migration.is_dry_run) == (3, 0, False)
    assert counts(migration) == {("mail", "mail"): (2, 1, 1), ("read", "read"): (1, 0, 0)}
    assert {stage.campaign(name).plan_hash for name in ("c-1", "c-2", "c-3")} == {new}
    assert stage.history("c-1") == [("mail", "mail", "migrated")]
    assert stage.states("c-1") == {(1, "sent"): "sent", (1, "no_open"): "canceled", (2, "no_open"): "pending"}
    assert stage.action(2, "no_open", "c-1").deadline == NOON + 24 * HOUR
    assert stage.action(3, "no_click", "c-2").deadline == NOON + 29 * HOUR + 24 * HOUR
    assert stage.run() == 2
    assert [(one.campaign_id, one.node_id, one.node_visit) for one in stage.mailed[2:]] == [("c-1", "again", 3)]


def test_an_unsent_mail_goes_out_once_and_when_it_was_planned(stage: Stage) -> None:
    stage.enroll(*OLD, start_at=NOON + 10 * HOUR)

    migrate(stage, RENAMED, node_map=MAP)

    assert stage.states() == {
        (1, "sent"): "canceled",
        (1, "no_open"): "canceled",
        (2, "sent"): "pending",
        (2, "no_open"): "pending",
    }
    stage.run("PT9H")
    assert stage.mailed == []
    stage.run("PT1H")
    stage.run("PT1H")
    assert [one.dedupe_key for one in stage.mailed] == ["acme:c-1:hello:2:send:sent"]
    assert stage.event("opened", message_id="m-c-1-2").outcome == "transitioned"


def test_an_open_of_the_mail_sent_before_counts_after_the_move(stage: Stage) -> None:
    stage.enroll(*OLD)
    stage.run()

    migrate(stage, RENAMED, node_map=MAP)

    assert stage.event("opened", message_id="m-c-1-1").outcome == "transitioned"
    assert stage.history() == [("mail", "hello", "migrated"), ("hello", "look", "opened")]


def test_a_dry_run_counts_and_changes_nothing(stage: Stage) -> None:
    cast(stage)
    before = {table: stage.rows(table) for table in ("contact_campaigns", "scheduled_actions", "campaign_plans")}

    shown = migrate(stage, dry_run=True)

    assert (shown.moved, shown.busy, shown.is_dry_run) == (0, 0, True)
    assert counts(shown) == {("mail", "mail"): (2, 1, 1), ("read", "read"): (1, 0, 0)}
    assert {table: stage.rows(table) for table in before} == before
    assert stage.rows("operator_actions") == []
    assert counts(migrate(stage)) == counts(shown)


def test_a_run_is_noted_with_who_did_it(stage: Stage) -> None:
    stage.enroll(*OLD)

    migrate(stage, RENAMED, node_map=MAP, actor="alex")

    ((act, tenant, campaign, actor, details),) = query(
        stage.ts, "SELECT act, tenant_id, campaign_id, actor, details FROM operator_actions"
    )
    assert (act, tenant, campaign, actor) == ("campaign.migrated", "acme", None, "alex")
    assert json.loads(details) == {
        "old_plan_hash": OLD_HASH,
        "new_plan_hash": CampaignPlan.parse(RENAMED).hash,
        "node_map": MAP,
        "nodes": {"mail": 1},
        "moved": 1,
        "busy": 0,
    }


def test_again_does_nothing_more(stage: Stage) -> None:
    stage.enroll(*OLD)
    migrate(stage)

    again = migrate(stage)

    assert (again.moved, again.busy, again.nodes) == (0, 0, ())
    assert stage.history() == [("mail", "mail", "migrated")]


def test_finished_campaigns_those_of_other_plans_and_other_tenants_stay(stage: Stage) -> None:
    stage.enroll(*OLD, campaign="c-1")
    stage.sm.stop("acme", "c-1")
    stage.enroll(*OLD, campaign="c-2", tenant="other")
    stage.enroll(OLD[2], campaign="c-3")

    assert migrate(stage).moved == 0

    assert stage.campaign("c-1").plan_hash == stage.campaign("c-2", "other").plan_hash == OLD_HASH
    assert stage.history("c-3") == []


def test_a_move_to_stop_ends_the_campaign_with_all_that_is_pending(stage: Stage) -> None:
    stage.enroll(*OLD)
    stage.sm.pause("acme", "c-1")

    migrate(stage, RENAMED, node_map={"mail": "stop"})

    assert stage.campaign().status == "completed"
    assert set(stage.states().values()) == {"canceled"}
    assert stage.rows("pauses") == []


def test_a_paused_campaign_is_moved_paused_and_goes_on_where_it_was_paused(stage: Stage) -> None:
    stage.enroll(*OLD)
    stage.run()
    stage.clock.advance("PT1H")
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT100H")

    assert counts(migrate(stage)) == {("mail", "mail"): (1, 0, 0)}

    assert stage.action(2, "no_open").status == "paused"
    assert stage.run("PT100H") == 0
    stage.sm.resume("acme", "c-1")
    assert stage.action(2, "no_open").deadline == NOON + 224 * HOUR
    assert stage.run("PT22H") == 0
    assert stage.run("PT1H") == 2


def test_an_unsent_mail_of_a_paused_campaign_is_put_off_by_what_it_saw_of_the_pause(stage: Stage) -> None:
    stage.enroll(*OLD, start_at=NOON + 10 * HOUR)
    stage.sm.pause("acme", "c-1")
    stage.clock.advance("PT50H")
    migrate(stage)
    stage.clock.advance("PT50H")

    stage.sm.resume("acme", "c-1")

    assert stage.action(2, "sent").run_at == stage.campaign().anchor_at == NOON + 100 * HOUR


def test_an_action_paused_by_itself_stays_paused(stage: Stage) -> None:
    stage.enroll(*OLD)
    stage.ts.apscheduler.pause_job("acme:c-1:mail:1:send:sent")

    assert counts(migrate(stage)) == {("mail", "mail"): (1, 0, 0)}

    assert stage.states()[2, "sent"] == "paused"
    assert stage.run("PT24H") == 0, "the timeout waits for its mail"
    stage.sm.pause("acme", "c-1")
    stage.sm.resume("acme", "c-1")
    assert stage.states()[2, "sent"] == "paused"
    stage.ts.apscheduler.resume_job("acme:c-1:mail:2:send:sent")
    stage.run()
    assert [one.node_visit for one in stage.mailed] == [2]


def test_a_mail_that_waits_for_its_retry_keeps_its_instant(stage: Stage) -> None:
    def fail(_request: SendRequest) -> SendResult:
        raise RetryLater(2 * HOUR)

    stage.handler = fail
    stage.enroll(*OLD)
    stage.run()
    stage.handler = stage.mail

    migrate(stage)

    assert stage.action(2, "sent").run_at == NOON + 2 * HOUR
    assert stage.run("PT1H") == 0
    stage.run("PT1H")
    assert [one.node_visit for one in stage.mailed] == [2]


def test_a_mail_whose_send_was_canceled_stays_unsent(stage: Stage) -> None:
    stage.enroll(*OLD)
    stage.ts.cancel("acme:c-1:mail:1:send:sent")

    migrate(stage)

    assert (2, "sent") not in stage.states()


def test_a_campaign_whose_mail_is_being_sent_is_left_and_moved_by_the_next_run(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, database_url)
    plan = make_document(*OLD)
    stage.enroll(*OLD, campaign="c-1")
    stage.enroll(*OLD, campaign="c-2", start_at=NOON + HOUR)
    seen: list[PlanMigration] = []

    def migrate_meanwhile(request: SendRequest) -> SendResult:
        seen.append(migrate(stage))
        return stage.mail(request)

    stage.handler = migrate_meanwhile
    stage.run()
    stage.handler = stage.mail

    assert plan == make_document(*OLD)
    assert [(one.moved, one.busy, counts(one)) for one in seen] == [(1, 1, {("mail", "mail"): (2, 0, 0)})]
    assert stage.history("c-1") == []
    assert (migrate(stage).moved, stage.history("c-1")) == (1, [("mail", "mail", "migrated")])
    stage.run("PT1H")
    assert [(one.campaign_id, one.node_visit) for one in stage.mailed] == [("c-1", 1), ("c-2", 2)]


def test_a_mail_taken_by_the_application_is_left_until_it_is_confirmed(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, database_url)
    application = stage.another(send_handler="external")
    stage.enroll(*OLD)
    (taken,) = application.campaigns.take_sends(10)

    assert (migrate(stage, dry_run=True).busy, migrate(stage).busy) == (1, 1)

    assert stage.sm.confirm_send(taken.dedupe_key, NOON, "m-1")
    assert migrate(stage).moved == 1
    assert stage.states() == {(1, "sent"): "sent", (1, "no_open"): "canceled", (2, "no_open"): "pending"}


def test_a_timeout_claimed_before_the_move_is_canceled_and_its_successor_fires_once(stage: Stage) -> None:
    stage.enroll(OLD[1], OLD[2])
    old = stage.campaign().plan_hash
    stage.clock.advance("PT80H")
    owner = Owner("worker")
    claimed = claim(stage.ts, owner)

    assert migrate(stage, old=old).moved == 1

    assert firing_of(stage.ts, owner).fire(claimed) == []
    stage.run()
    assert stage.states() == {
        (1, "no_click"): "canceled",
        (2, "no_click"): "transitioned",
        (3, "sent"): "sent",
        (3, "no_open"): "pending",
    }
    assert stage.history() == [("read", "read", "migrated"), ("read", "again", "no_click")]


def test_batches_move_everybody_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "BATCH", 3)
    for number in range(1, 11):
        stage.enroll(*OLD, campaign=f"c-{number}")

    migration = migrate(stage)

    assert (migration.moved, counts(migration)) == (10, {("mail", "mail"): (10, 0, 10)})
    assert all(stage.history(f"c-{number}") == [("mail", "mail", "migrated")] for number in range(1, 11))


def test_a_run_that_was_broken_off_is_taken_up_by_the_next(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "BATCH", 3)
    names = [f"c-{number}" for number in range(10, 20)]
    for name in names:
        stage.enroll(*OLD, campaign=name)
    rounds = count(1)

    def break_off(_connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INSERT INTO campaign_transitions" in statement and next(rounds) == 3:
            raise SystemExit

    event.listen(stage.ts.database.engine, "before_cursor_execute", break_off)
    with pytest.raises(SystemExit):
        migrate(stage)

    assert [bool(stage.history(name)) for name in names] == [True] * 6 + [False] * 4
    assert migrate(stage).moved == 4
    assert all(stage.history(name) == [("mail", "mail", "migrated")] for name in names)


def test_in_the_callers_transaction_all_of_it_goes_with_it(stage: Stage) -> None:
    stage.enroll(*OLD)
    with stage.ts.database.engine.connect() as connection:
        begun = connection.begin()
        assert migrate(stage, connection=connection).moved == 1
        assert migrate(stage, connection=connection, dry_run=True).nodes == ()
        begun.rollback()

    assert (stage.history(), len(stage.rows("campaign_plans")), stage.rows("operator_actions")) == ([], 1, [])


def test_the_new_plan_may_be_a_stored_ones_hash(stage: Stage) -> None:
    stage.sm.enroll("acme", "c-9", "k-9", NEW)
    stage.enroll(*OLD)

    assert migrate(stage, CampaignPlan.parse(NEW).hash).moved == 1


def test_what_is_wrong_is_refused_before_anything_is_written(stage: Stage) -> None:
    stage.enroll(*OLD)
    before = stage.counts()

    def refused(message: str, plan: Any = RENAMED, **options: Any) -> None:
        with pytest.raises(InvalidInputError, match=message):
            migrate(stage, plan, **options)

    refused(r"node_map: 'mail'.*contacts stand there and the new plan has no such node: map it to a send \(hello\)")
    refused("node_map: 'gone'.*the old plan has no such node", node_map={"gone": "hello"})
    refused("node_map: 'gone'.*the new plan has no such node", node_map={"mail": "gone"})
    refused("node_map: 'mail=look'.*mail is a send and look a wait", node_map={"mail": "look"})
    refused("new_plan: .*it is the old plan", make_document(*OLD))
    refused("new_plan: 'ffff'.*give a plan, or the hash", "ffff")
    refused("old_plan_hash: 'ffff'.*tenant 'acme' has no stored plan", old="ffff")
    refused("old_plan_hash: .*tenant 'other' has no stored plan", tenant="other")
    refused("actor: ''", NEW, actor="")
    refused("plan is not usable", {"version": "1.0"})
    assert stage.counts() == before


def test_nodes_where_nobody_stands_need_no_target(stage: Stage) -> None:
    stage.enroll(*OLD)

    assert migrate(stage, RENAMED, node_map={"mail": "hello"}).moved == 1


def test_a_plan_parsed_elsewhere_gets_the_settings_timers(database_url: str, open_scheduler: OpenScheduler) -> None:
    stage = Stage(open_scheduler, database_url, no_open_after=HOUR)
    stage.enroll(*OLD)
    stage.run()
    plan = CampaignPlan.parse(make_document(send("mail", on("opened", "stop"), on("no_open", "stop"))))

    migrate(stage, plan)

    assert stage.action(2, "no_open").deadline == NOON + HOUR
