"""`plan migrate`: what it shows first, what it does, and how it refuses."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from scheduler import CampaignPlan, TimeoutScheduler
from tests.integration.cli.conftest import PLAN, Command, enrol
from tests.support.scheduling import LONG_AGO, execute, query

OLD = CampaignPlan.parse(PLAN).hash
RENAMED: dict[str, Any] = json.loads(json.dumps(PLAN).replace("wait_open", "wait_first"))
NEW = CampaignPlan.parse(RENAMED).hash
MOVE = ("plan", "migrate", OLD, "new.json", "--map", "wait_open=wait_first")


@pytest.fixture(autouse=True)
def new_plan(folder: Path) -> None:
    """Beside the plan there is a newer one, whose first node has another name."""
    (folder / "new.json").write_text(json.dumps(RENAMED), "utf-8")


def plans_of(timeout_scheduler: TimeoutScheduler) -> dict[tuple[str, str], str]:
    rows = query(timeout_scheduler, "SELECT tenant_id, campaign_id, plan_hash FROM contact_campaigns")
    return {(tenant, campaign): plan_hash for tenant, campaign, plan_hash in rows}


def test_migrate_shows_who_stands_where_and_moves_them(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, "c-1")
    enrol(timeouts, "c-2", start_at=LONG_AGO)
    enrol(timeouts, "c-3", tenant_id="other")

    answer = command(*MOVE, "--actor", "alex")

    assert answer.out.splitlines() == [
        "tenant  stands at  goes on at  campaigns  timeouts at once  mails at once",
        "acme    wait_open  wait_first  2          1                 1",
        "other   wait_open  wait_first  1          0                 0",
        f"moved 3 to plan {NEW}",
    ]
    assert (answer.code, answer.err) == (0, "")
    assert set(plans_of(timeouts).values()) == {NEW}
    noted = query(timeouts, "SELECT tenant_id, act, actor FROM operator_actions ORDER BY tenant_id")
    assert [tuple(row) for row in noted] == [
        ("acme", "campaign.migrated", "alex"),
        ("other", "campaign.migrated", "alex"),
    ]


def test_a_dry_run_shows_the_same_and_moves_nobody(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts, start_at=LONG_AGO)

    answer = on_sqlite(*MOVE, "--dry-run")

    assert (answer.code, answer.err, len(answer.out.splitlines())) == (0, "", 2)
    assert plans_of(sqlite_timeouts) == {("acme", "c-1"): OLD}


def test_json_is_one_document(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts, start_at=LONG_AGO)
    node = {
        "from_node_id": "wait_open",
        "to_node_id": "wait_first",
        "campaigns": 1,
        "timeouts_at_once": 1,
        "mails_at_once": 1,
    }
    move = {"tenant_id": "acme", "old_plan_hash": OLD, "new_plan_hash": NEW, "nodes": [node], "busy": 0}

    shown, done = on_sqlite(*MOVE, "--dry-run", "--json"), on_sqlite(*MOVE, "--json")

    assert shown.document == {"is_dry_run": True, "tenants": [{**move, "moved": 0, "is_dry_run": True}]}
    assert done.document == {"is_dry_run": False, "tenants": [{**move, "moved": 1, "is_dry_run": False}]}


def test_tenant_limits_the_move(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts)
    enrol(sqlite_timeouts, tenant_id="other")

    assert on_sqlite(*MOVE, "--tenant", "other").code == 0

    assert plans_of(sqlite_timeouts) == {("acme", "c-1"): OLD, ("other", "c-1"): NEW}


@pytest.mark.parametrize("old", [OLD[:8], "plan.json"])
@pytest.mark.parametrize("new", [NEW, NEW[:12], "new.json"])
def test_both_plans_may_be_named_by_digits_or_file(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, old: str, new: str
) -> None:
    enrol(sqlite_timeouts)
    enrol(sqlite_timeouts, "c-2", plan=RENAMED)

    answer = on_sqlite("plan", "migrate", old, new, "--map", "wait_open=wait_first")

    assert (answer.code, answer.out.splitlines()[-1]) == (0, f"moved 1 to plan {NEW}")


def test_when_nobody_is_on_the_old_plan_it_says_so(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts)
    on_sqlite(*MOVE)

    answer = on_sqlite(*MOVE)

    assert (answer.code, answer.out) == (0, f"no running campaign is on the old plan\nmoved 0 to plan {NEW}\n")


def test_those_whose_mail_is_going_out_are_left_with_exit_code_1(command: Command, timeouts: TimeoutScheduler) -> None:
    plan = deepcopy(PLAN)
    plan["startNodeId"] = "reminder"
    plan["nodes"] = plan["nodes"][1:]
    enrol(timeouts, plan=plan)
    newer = deepcopy(plan)
    newer["nodes"][0]["subject"] = "Again: {{first_name}}"
    Path("newer.json").write_text(json.dumps(newer), "utf-8")
    words = ("plan", "migrate", CampaignPlan.parse(plan).hash, "newer.json")
    execute(
        timeouts,
        "UPDATE scheduled_actions SET status = 'claimed', claimed_by = 'w', claimed_until = run_at"
        " WHERE action_type = 'send'",
    )

    shown, done = command(*words, "--dry-run"), command(*words)

    assert (shown.code, shown.err.split(":")[0]) == (0, "1 couldn't be moved now")
    assert done.code == 1
    assert done.err == (
        "error: 1 were left: their mail is going out just now, or somebody is at work on them;"
        " run it again to move them too\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ffffffff", "new.json"), "OLD: 'ffffffff' is not usable: no plan whose hash begins so is stored, and as a"),
        (("gone.json", "new.json"), "OLD: 'gone.json' is not usable: as a file it can't be read: No such file"),
        ((OLD[:7], "new.json"), "of a hash give 8 digits or more"),
        (("new.json", "plan.json"), f"OLD: 'new.json' is not usable: no tenant has stored this plan (hash {NEW})"),
        ((OLD, "gone.json"), "NEW: 'gone.json' is not usable: as a file it can't be read"),
        ((OLD, "plan.json"), "is not usable: it is the old plan, word for word: give another one"),
        ((OLD, "bad.json"), "the plan has 2 faults:"),
        ((OLD, "new.json"), "--map: 'wait_open' is not usable: contacts stand there and the new plan has no such node"),
        ((OLD, "new.json", "--map", "wait_open=reminder"), "--map: 'wait_open=reminder' is not usable: wait_open is a"),
        ((OLD, "new.json", "--map", "gone=reminder"), "--map: 'gone' is not usable: the old plan has no such node"),
        ((OLD, "new.json", "--map", "wait_open"), "--map: 'wait_open' is not usable: write old_node=new_node"),
        ((OLD, "new.json", "--map", "a=b", "--map", "a=c"), "--map: 'a=c' is not usable: a is given twice"),
        ((OLD, "new.json", "--tenant", "nobody"), "no plan whose hash begins so is stored for tenant 'nobody'"),
        ((OLD, "new.json", "--tenant", ""), "--tenant: '' is not usable"),
        ((OLD, "new.json", "--actor", ""), "--actor: '' is not usable"),
    ],
)
def test_bad_input_is_told_by_argument_and_nothing_is_written(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, folder: Path, words: tuple[str, ...], message: str
) -> None:
    (folder / "bad.json").write_text('{"version": "1.0", "startNodeId": "a", "nodes": []}', "utf-8")
    enrol(sqlite_timeouts)

    answer = on_sqlite("plan", "migrate", *words)

    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert plans_of(sqlite_timeouts) == {("acme", "c-1"): OLD}
    assert query(sqlite_timeouts, "SELECT count(*) FROM campaign_plans")[0][0] == 1


def test_digits_that_begin_several_hashes_are_refused(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts)
    execute(
        sqlite_timeouts,
        "INSERT INTO campaign_plans (tenant_id, plan_hash, plan, created_at)"
        " SELECT tenant_id, :hash, plan, created_at FROM campaign_plans",
        hash=OLD[:10] + "0" * 54,
    )

    answer = on_sqlite("plan", "migrate", OLD[:8], "new.json")

    assert (answer.code, answer.out) == (2, "")
    assert f"OLD: '{OLD[:8]}' is not usable: it is the beginning of several: " in answer.err


def test_one_tenant_that_cant_be_moved_holds_back_all(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts)
    contact = {"variables": {"first_name": "Ada"}}
    enrol(sqlite_timeouts, "c-2", tenant_id="other", contact=contact, start_at=LONG_AGO)
    sqlite_timeouts.run_due()
    only_first = deepcopy(RENAMED)
    only_first["nodes"] = [deepcopy(RENAMED["nodes"][0])]
    only_first["nodes"][0]["transitions"][1]["to"] = "stop"
    Path("short.json").write_text(json.dumps(only_first), "utf-8")

    answer = on_sqlite("plan", "migrate", OLD, "short.json", "--map", "wait_open=wait_first")

    assert (answer.code, answer.out) == (2, "")
    assert "--map: 'reminder' is not usable" in answer.err
    assert plans_of(sqlite_timeouts) == {("acme", "c-1"): OLD, ("other", "c-2"): OLD}
