"""All sending is stopped by one row: no mail goes out, nothing is lost, and timeouts that wait for no mail go on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from scheduler import InvalidInputError, SendRequest, SendResult
from scheduler.domain.action import ActionType
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import query
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)
WAIT = wait("a", on("opened", "stop"), on("no_open", "mail", after="PT1H"))
MAIL = send("mail", on("opened", "stop"), on("no_open", "stop", after="PT2H"))


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_no_mail_goes_out_and_timeouts_go_on_until_it_is_lifted(stage: Stage, tenant: str | None) -> None:
    held = stage.sm.pause_sends(tenant, actor="ada", reason="a wrong link")
    assert (held.scope, held.tenant_id, held.started_at, held.actor) == ("sends", tenant, NOON, "ada")
    stage.enroll(WAIT, MAIL)
    stage.enroll(MAIL, campaign="c-2", tenant="other")

    assert stage.run("PT1H") == (1 if tenant is None else 2), "the timeout, and the mail of the other tenant"
    assert stage.run("PT1H") == 0

    assert (stage.node(), stage.states()[2, "sent"]) == ("mail", "paused")
    assert [one.tenant_id for one in stage.mailed] == ([] if tenant is None else ["other"])
    preview = stage.sm.preview_resume_sends(tenant)
    assert (preview.due.at_once, preview.still_held) == (2 if tenant is None else 1, 0)
    done = stage.sm.resume_sends(tenant, actor="ada")
    assert (done.scope, done.started_at, done.woken) == ("sends", NOON, 2 if tenant is None else 1)
    stage.run()
    assert sorted(one.tenant_id for one in stage.mailed) == ["acme", "other"]
    assert stage.action(2, "no_open").deadline == NOON + 4 * HOUR, "it counts from when the mail went out"
    assert [
        (row[0], row[1]) for row in query(stage.ts, "SELECT act, actor FROM operator_actions ORDER BY created_at")
    ] == [
        ("sends.paused", "ada"),
        ("sends.resumed", "ada"),
    ]


def test_a_timeout_never_expires_before_its_mail_however_long_mails_are_stopped(stage: Stage) -> None:
    stage.enroll(MAIL)
    stage.sm.pause_sends()

    for _ in range(5):
        assert stage.run("PT3H") == 0
    assert (stage.campaign().node_visit, stage.action(1, "no_open").status) == (1, "pending")

    stage.sm.resume_sends()
    assert stage.run() == 1
    assert stage.action(1, "no_open").deadline == NOON + 17 * HOUR
    assert stage.run("PT2H") == 1
    assert stage.campaign().status == "completed"


def test_a_mail_that_was_claimed_when_the_stop_came_is_not_sent(stage: Stage) -> None:
    for number in range(3):
        stage.enroll(MAIL, campaign=f"c-{number}")

    def stop_all(request: SendRequest) -> SendResult:
        stage.sm.pause_sends(reason="the first one had the wrong link")
        return stage.mail(request)

    stage.handler = stop_all
    assert stage.run() == 1, "the one that was going out"

    assert len(stage.mailed) == 1
    assert sorted(stage.states(f"c-{number}")[1, "sent"] for number in range(3)) == ["paused", "paused", "sent"]
    stage.handler = stage.mail
    stage.sm.resume_sends(spread="PT2H")
    assert [stage.run(), stage.run("PT1H")] == [1, 1]
    assert len(stage.mailed) == 3


def test_one_pause_is_lifted_and_the_others_go_on_holding(stage: Stage) -> None:
    stage.enroll(MAIL)
    stage.sm.pause_sends()
    stage.sm.pause_sends("acme")
    stage.sm.pause_tenant("acme")
    stage.run()

    stage.sm.resume_tenant("acme", policy="keep")
    assert (stage.run(), stage.states()[1, "sent"]) == (0, "paused")
    assert stage.sm.preview_resume_sends().due.total == 1
    stage.sm.resume_sends()
    assert (stage.run(), stage.states()[1, "sent"]) == (0, "paused")
    assert [one.scope for one in stage.sm.pauses()] == ["sends"]
    stage.sm.resume_sends("acme")
    assert stage.run() == 1
    assert stage.sm.resume_sends("acme").started_at is None, "nothing changes where nothing is paused"


def test_what_is_left_or_paused_by_itself_meanwhile_stays_so(stage: Stage) -> None:
    for number in range(3):
        stage.enroll(MAIL, campaign=f"c-{number}")
    stage.sm.pause_sends()
    stage.run()
    stage.sm.stop("acme", "c-0")
    stage.sm.pause("acme", "c-1")

    assert stage.sm.resume_sends().woken == 1

    assert stage.run() == 1
    assert [one.campaign_id for one in stage.mailed] == ["c-2"]
    assert [stage.states(f"c-{number}")[1, "sent"] for number in range(2)] == ["canceled", "paused"]


def test_applications_that_send_by_themselves_are_given_none(open_scheduler: OpenScheduler, database_url: str) -> None:
    stage = Stage(open_scheduler, database_url)
    external = stage.another("external")
    stage.enroll(MAIL)
    stage.sm.pause_sends()

    assert external.campaigns.take_sends() == []
    stage.sm.resume_sends()
    assert len(external.campaigns.take_sends()) == 1


def test_a_campaign_says_that_its_mails_are_stopped(stage: Stage) -> None:
    stage.enroll(MAIL)
    stage.sm.pause_sends(reason="a wrong link")
    stage.run()

    story = stage.sm.explain("acme", "c-1")

    assert any("its mails are paused" in one.text for one in story.waits_for)


def test_mails_go_on_waiting_beside_a_daemon_that_runs(stage: Stage) -> None:
    stage.sm.pause_sends()
    stage.enroll(MAIL)
    stage.enroll(WAIT, MAIL, campaign="c-2")
    stage.clock.advance("PT1H")
    with stage.ts:
        eventually(lambda: stage.states("c-2").get((2, "sent")) == "paused" and stage.states()[1, "sent"] == "paused")
        assert stage.mailed == []
        stage.sm.resume_sends()
        eventually(lambda: len(stage.mailed) == 2)


def test_what_is_unusable_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidInputError, match="tenant_id"):
        stage.sm.pause_sends("")
    assert stage.sm.pauses() == []
    assert query(stage.ts, "SELECT act FROM operator_actions") == []


def test_a_mail_that_is_being_turned_paused_when_the_pause_is_lifted_goes_out(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, postgresql_url)
    other = stage.another()
    stage.enroll(MAIL)
    stage.sm.pause_sends()
    with ThreadPoolExecutor(1) as pool, stage.ts.database.transaction() as claiming:
        claimed = stage.ts.stores.claims.claim(claiming, ActionType.SEND, 10, "one", HOUR)
        assert (len(claimed), claimed.held) == (0, 1)
        resumed = pool.submit(other.campaigns.resume_sends)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        eventually(lambda: query(other, waiting)[0][0])
        claiming.connection.commit()
        assert resumed.result(30).woken == 1

    assert stage.run() == 1
    assert len(stage.mailed) == 1


def test_two_who_lift_it_at_once_lift_it_once(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    stage = Stage(open_scheduler, postgresql_url)
    stage.enroll(MAIL)
    stage.sm.pause_sends()
    stage.run()
    barrier = threading.Barrier(3)

    def lift(_: int) -> int:
        barrier.wait(30)
        return stage.sm.resume_sends().woken

    with ThreadPoolExecutor(3) as pool:
        woken = sorted(pool.map(lift, range(3)))

    assert woken == [0, 0, 1]
    assert query(stage.ts, "SELECT count(*) FROM operator_actions WHERE act = 'sends.resumed'") == [(1,)]
