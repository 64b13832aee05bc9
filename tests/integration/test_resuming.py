"""A resume shifts what was paused, keeps it, or spreads it; says beforehand what it will do; and counts time once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise, permutations

import pytest

from scheduler import ScheduledAction
from scheduler.domain.pausing import DueCounts
from tests.support.pausing import pause, resume
from tests.support.scheduling import execute, make_job
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SCOPES = ("campaign", "tenant", "all")
EVERY = pytest.mark.parametrize("scope", SCOPES)

WAIT = wait("a", on("opened", "b"), on("no_open", "stop", after="PT2H"))
NEXT = wait("b", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
MAIL = send("mail", on("opened", "b"), on("no_open", "stop", after="PT2H"))


def due_in_order(stage: Stage, tenant: str = "acme") -> list[ScheduledAction]:
    return stage.ts.list_actions(tenant_id=tenant, limit=1000)


@EVERY
def test_keep_moves_nothing_and_fires_what_is_overdue(stage: Stage, scope: str) -> None:
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.run("P1D")
    resume(stage, scope, policy="keep")
    action = stage.action(1, "no_open")
    assert (action.status, action.deadline, action.run_at) == ("pending", *[NOON + 2 * HOUR] * 2)
    assert stage.campaign().anchor_at == NOON
    assert stage.run() == 1


@EVERY
def test_shift_keeps_what_grace_is_between_deadline_and_due_time(stage: Stage, scope: str) -> None:
    graceful = stage.another(timeout_grace="PT5M")
    graceful.campaigns.enroll("acme", "c-1", "k-1", {"version": "1.0", "startNodeId": "a", "nodes": [WAIT, NEXT]})
    pause(stage, scope)
    stage.clock.advance(timedelta(days=3, microseconds=1))
    resume(stage, scope)
    action = stage.action(1, "no_open")
    assert action.deadline == NOON + timedelta(days=3, hours=2, microseconds=1)
    assert action.run_at - action.deadline == 5 * MINUTE


@EVERY
def test_a_resume_crosses_clock_changes_unharmed(stage: Stage, scope: str) -> None:
    """A pause over the last Sunday of March is as long as it is, whatever zone the database's session has."""
    if stage.ts.database.is_postgresql:
        execute(stage.ts, "ALTER ROLE CURRENT_USER SET timezone = 'Europe/Berlin'")
        stage.ts.database.engine.dispose()
    stage.enroll(WAIT, NEXT)
    pause(stage, scope)
    stage.clock.advance("P40D")
    resume(stage, scope)
    if stage.ts.database.is_postgresql:
        execute(stage.ts, "ALTER ROLE CURRENT_USER RESET timezone")
    assert stage.action(1, "no_open").run_at == NOON + timedelta(days=40, hours=2)
    assert stage.campaign().anchor_at == NOON + timedelta(days=40)


@EVERY
@pytest.mark.parametrize("policy", ["shift", "keep"])
def test_a_spread_is_even_bounded_and_in_order(stage: Stage, scope: str, policy: str) -> None:
    for number in range(12):
        job = make_job(campaign_id="c-1", node_id=f"n-{number}", scheduled_at=NOON + (number + 1) * MINUTE)
        stage.ts.schedule(job)
    stage.enroll(WAIT, NEXT)
    stage.clock.advance("PT1H")
    order = [one.dedupe_key for one in due_in_order(stage)]
    pause(stage, scope)
    stage.run("P1D")
    resume(stage, scope, policy=policy, spread="PT1H")
    now = stage.clock.now()
    shift = timedelta(0) if policy == "keep" else timedelta(days=1)
    actions = due_in_order(stage)
    assert [one.dedupe_key for one in actions][:12] == order[:12]
    due = 12 if policy == "shift" else 13
    assert [one.run_at for one in actions][:due] == [now + HOUR * place // due for place in range(due)]
    assert [one.deadline for one in actions][:12] == [NOON + (number + 1) * MINUTE + shift for number in range(12)]
    timeout = stage.ts.find("acme:c-1:a:1:timeout:no_open")
    assert timeout is not None
    assert timeout.deadline == NOON + 2 * HOUR + shift


def test_a_spread_leaves_out_what_goes_on_being_held(stage: Stage) -> None:
    for name in ("c-1", "c-2", "c-3"):
        stage.enroll(WAIT, NEXT, campaign=name)
    pause(stage, "campaign")
    stage.ts.apscheduler.pause_job("acme:c-2:a:1:timeout:no_open")
    pause(stage, "tenant")
    stage.run("P1D")
    resume(stage, "tenant", policy="keep", spread="PT1H")
    held = [stage.action(1, "no_open", name) for name in ("c-1", "c-2")]
    assert [(one.status, one.run_at) for one in held] == [("paused", NOON + 2 * HOUR)] * 2
    assert stage.action(1, "no_open", "c-3").run_at == stage.clock.now()


def test_a_spread_under_a_wider_pause_moves_nothing_yet(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    pause(stage, "all")
    pause(stage, "tenant")
    stage.run("P1D")
    resume(stage, "tenant", policy="keep", spread="PT1H")
    assert stage.run() == 0
    assert stage.action(1, "no_open").run_at == NOON + 2 * HOUR
    resume(stage, "all", policy="keep")
    assert stage.run() == 1


def test_mails_and_timeouts_are_spread_together(stage: Stage) -> None:
    for number in range(3):
        stage.enroll(MAIL, NEXT, campaign=f"c-{number}")
    stage.enroll(WAIT, NEXT, campaign="c-9")
    pause(stage, "all")
    stage.clock.advance("P1D")
    resume(stage, "all", policy="keep", spread="PT1H")
    pending = stage.ts.pending(limit=10, due_before=stage.clock.now() + HOUR)
    assert [one.run_at - stage.clock.now() for one in pending] == [place * HOUR // 7 for place in range(7)]
    counts = []
    for _ in range(4):
        stage.run("PT15M")
        counts.append(len(stage.mailed))
    assert counts == [2, 3, 3, 3]


def interleavings() -> Iterator[tuple[str, ...]]:
    """Every order in which three pauses may begin and end: the first mention of one begins it, the second ends it."""
    yield from sorted(set(permutations(SCOPES * 2)))


def test_overlapping_pauses_count_once_in_every_order(stage: Stage) -> None:
    orders = list(interleavings())
    assert len(orders) == 90
    for number, order in enumerate(orders):
        tenant = f"tenant-{number}"
        stage.enroll(WAIT, NEXT, tenant=tenant)
        job = make_job(tenant_id=tenant, campaign_id="alone", scheduled_at=stage.clock.now() + 2 * HOUR)
        stage.ts.schedule(job)
        entered, held, began = stage.clock.now(), timedelta(0), set[str]()
        held_alone = timedelta(0)
        for hours, scope in enumerate(order, 1):
            stage.clock.advance(hours * MINUTE)
            held += hours * MINUTE if began else timedelta(0)
            held_alone += hours * MINUTE if began - {"campaign"} else timedelta(0)
            (resume if scope in began else pause)(stage, scope, tenant)
            began ^= {scope}
        assert began == set()
        action = stage.ts.find(f"{tenant}:c-1:a:1:timeout:no_open")
        alone = stage.ts.find(job.dedupe_key)
        assert action is not None
        assert alone is not None
        assert (action.status, action.run_at, action.deadline) == ("pending", *[entered + held + 2 * HOUR] * 2), order
        assert stage.campaign(tenant=tenant).anchor_at == entered + held, order
        assert (alone.status, alone.run_at) == ("pending", entered + held_alone + 2 * HOUR), order
        stage.sm.stop(tenant, "c-1")
        stage.ts.cancel(job.dedupe_key)


@pytest.mark.parametrize("seed", range(6))
def test_random_days_of_pauses_lose_and_hasten_nothing(stage: Stage, seed: int) -> None:
    """Whatever is paused and resumed, entered and mailed, time under any pause counts for nobody."""
    chance = random.Random(seed)  # noqa: S311 - a test's choice
    began: set[str] = set()
    entered: dict[str, datetime] = {}
    held: dict[str, timedelta] = {}
    for step in range(40):
        gap = timedelta(seconds=chance.randrange(60, 300), microseconds=chance.randrange(10**6))
        for name in entered:
            is_held = began - {"campaign"} or (name == "c-0" and "campaign" in began)
            held[name] += gap if is_held else timedelta(0)
        stage.run(gap)
        if step % 4 == 0:
            name = f"c-{step // 4}"
            stage.enroll(wait("a", on("opened", "stop"), on("no_open", "stop", after="P7D")), campaign=name)
            entered[name], held[name] = stage.clock.now(), timedelta(0)
        scope = chance.choice(SCOPES)
        (resume if scope in began else pause)(stage, scope, campaign="c-0")
        began ^= {scope}
    stage.clock.advance("PT1M")
    for scope in sorted(began):
        resume(stage, scope, campaign="c-0")
    for name, at in entered.items():
        is_held = began - {"campaign"} or (name == "c-0" and "campaign" in began)
        anchor = at + held[name] + (MINUTE if is_held else timedelta(0))
        action = stage.action(1, "no_open", name)
        assert (action.status, action.run_at) == ("pending", anchor + timedelta(days=7)), name
        assert stage.campaign(name).anchor_at == anchor


@EVERY
@pytest.mark.parametrize(("policy", "spread"), [("shift", None), ("keep", None), ("keep", "PT2H"), ("shift", "PT2H")])
def test_a_preview_says_what_then_happens(stage: Stage, scope: str, policy: str, spread: str | None) -> None:
    for number in range(40):
        job = make_job(
            campaign_id="c-1", node_id=f"n-{number}", scheduled_at=NOON + timedelta(minutes=17 * number**2 - 60)
        )
        stage.ts.schedule(job)
    stage.enroll(MAIL, NEXT)
    pause(stage, scope)
    stage.run("P2DT3H")
    named = {"campaign": {"tenant_id": "acme", "campaign_id": "c-1"}, "tenant": {"tenant_id": "acme"}, "all": {}}[scope]
    rows = stage.rows("scheduled_actions")

    shown = stage.sm.preview_resume(**named, policy=policy, spread=spread)

    assert stage.rows("scheduled_actions") == rows
    assert (shown.scope, shown.started_at, shown.as_of) == (scope, NOON, stage.clock.now())
    resume(stage, scope, policy=policy, spread=spread)
    ahead = [one.run_at - stage.clock.now() for one in due_in_order(stage)]
    bounds = [timedelta.min, timedelta(0), MINUTE, HOUR, timedelta(days=1), timedelta(days=7), timedelta.max]
    happened = [sum(low < one <= high for one in ahead) for low, high in pairwise(bounds)]
    assert shown.due == DueCounts(*happened)
    assert shown.due.total == 42
    assert (shown.by_type["send"].total, shown.by_type["timeout"].total, shown.still_held) == (1, 41, 0)
    assert (
        stage.ts.pending(due_before=stage.clock.now(), limit=100)[: shown.due.at_once]
        == due_in_order(stage)[: shown.due.at_once]
    )


def test_a_preview_tells_apart_what_goes_on_being_held(stage: Stage) -> None:
    for name in ("c-1", "c-2", "c-3"):
        stage.enroll(WAIT, NEXT, campaign=name)
    pause(stage, "campaign")
    stage.ts.apscheduler.pause_job("acme:c-2:a:1:timeout:no_open")
    pause(stage, "tenant")
    shown = stage.sm.preview_resume("acme", policy="keep")
    assert (shown.due, shown.still_held) == (DueCounts(within_day=1), 2)
    pause(stage, "all")
    assert stage.sm.preview_resume("acme").still_held == 3


def test_a_preview_of_what_isnt_paused_is_empty(stage: Stage) -> None:
    stage.enroll(WAIT, NEXT)
    shown = stage.sm.preview_resume("acme")
    assert (shown.started_at, shown.due.total, dict(shown.by_type)) == (None, 0, {})
