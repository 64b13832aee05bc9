"""Two at the same campaign, at the same moment, from different processes or with a claim in hand.

Each race ends in one of few legal states: a test says which, and finds no other.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import text

from scheduler import (
    SendRequest,
    SendResult,
    TimeoutScheduler,
)
from scheduler.service.owner import Owner
from tests.integration.conftest import OpenScheduler
from tests.integration.test_races import (
    ONE_MAIL,
    TWO_TIMEOUTS,
    TWO_WAITS,
    at_once,
    beside,
    check_whole,
    claim,
    enroll,
    firing_of,
    histories,
    names,
)
from tests.support.crowd import Call, from_processes
from tests.support.eventually import eventually
from tests.support.scheduling import FAR_AHEAD, LONG_AGO, Recorder, make_job, make_settings, query

SEED: Final = 20260302
FEW: Final = 30
FIRE: Final = (Call("run_due"),)

Act = Callable[[TimeoutScheduler, str], object]


def delivering(order: Sequence[str]) -> list[Call]:
    """An open of each."""
    return [Call("campaigns.process_event", ("acme", "opened"), {"campaign_id": name}) for name in order]


def ways(scheduler: TimeoutScheduler) -> dict[str, tuple[str, ...]]:
    """By what each campaign went from visit to visit."""
    return {name: tuple(step[3] for step in history) for name, history in histories(scheduler).items()}


def states(scheduler: TimeoutScheduler) -> dict[str, tuple[tuple[int, str, str | None], ...]]:
    """Each campaign's timeouts: of which visit, in which state, with which outcome."""
    rows = query(
        scheduler,
        "SELECT campaign_id, node_visit, status, outcome FROM scheduled_actions WHERE action_type = 'timeout'"
        " ORDER BY campaign_id, node_visit",
    )
    found: dict[str, list[tuple[int, str, str | None]]] = {}
    for campaign_id, *state in rows:
        found.setdefault(campaign_id, []).append((state[0], state[1], state[2]))
    return {campaign_id: tuple(one) for campaign_id, one in found.items()}


def statuses(scheduler: TimeoutScheduler) -> dict[str, str]:
    return dict(tuple(row) for row in query(scheduler, "SELECT campaign_id, status FROM contact_campaigns"))


def attempts(scheduler: TimeoutScheduler) -> set[int]:
    return {row[0] for row in query(scheduler, "SELECT DISTINCT attempts FROM scheduled_actions")}


# From different processes


def test_events_and_timeouts_of_the_same_campaigns_from_different_processes_leave_each_visit_once(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url)
    enroll(scheduler, TWO_WAITS, FEW)
    shuffled = random.Random(SEED).sample(names(FEW), FEW)  # noqa: S311 - an order, not a secret

    first, second, *_ = from_processes(
        database_url, delivering(shuffled[::2]), delivering(shuffled[1::2]), FIRE, FIRE, batch_size=3
    )

    assert set(ways(scheduler).values()) <= {("enrolled", "opened"), ("enrolled", "no_open", "opened")}
    assert {"transitioned"} == {result.outcome for result in first + second}
    check_whole(scheduler)


def test_two_overdue_timeouts_of_one_visit_in_different_processes_end_as_the_earlier_one_says(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, TWO_TIMEOUTS, FEW)

    from_processes(postgresql_url, FIRE, FIRE, FIRE, FIRE, batch_size=1)
    eventually(lambda: is_settled(scheduler))

    assert set(ways(scheduler).values()) == {("enrolled", "no_open")}
    assert attempts(scheduler) == {0}
    check_whole(scheduler)


def is_settled(scheduler: TimeoutScheduler) -> bool:
    """Fire what is due; True once nothing of the first visits is left, however often it was put off for a moment."""
    scheduler.run_due()
    return not query(
        scheduler, "SELECT 1 FROM scheduled_actions WHERE node_visit = 1 AND status IN ('pending', 'claimed')"
    )


def test_one_key_scheduled_by_sixteen_processes_is_one_action(database_url: str, open_scheduler: OpenScheduler) -> None:
    """Each of them wants another instant: one has his way, and all get the same id."""
    recorder = Recorder()
    scheduler = open_scheduler(database_url, state_manager=recorder)
    jobs = [make_job(scheduled_at=LONG_AGO + timedelta(seconds=number)) for number in range(16)]

    answers = from_processes(database_url, *[[Call("schedule", (job,))] for job in jobs])

    assert answers == [[jobs[0].dedupe_key]] * 16
    (action,) = scheduler.list_actions()
    assert action.run_at in {job.scheduled_at for job in jobs}
    assert action.deadline == action.run_at
    assert scheduler.run_due() == 1
    assert recorder.keys == [jobs[0].dedupe_key]


@pytest.mark.parametrize("count", [2, 16])
def test_one_campaign_enrolled_by_several_processes_is_one(
    database_url: str, open_scheduler: OpenScheduler, count: int
) -> None:
    scheduler = open_scheduler(database_url)
    call = Call("campaigns.enroll", ("acme", "c-1", "k-1", TWO_WAITS))

    answers = from_processes(database_url, *[[call]] * count)

    assert answers == [[scheduler.campaigns.find("acme", "c-1")]] * count
    assert ways(scheduler) == {"c-1": ("enrolled",)}
    check_whole(scheduler)


# With a claim in hand


def stop(scheduler: TimeoutScheduler, name: str) -> object:
    return scheduler.campaigns.stop("acme", name)


def pause(scheduler: TimeoutScheduler, name: str) -> object:
    return scheduler.campaigns.pause("acme", name)


def erase(scheduler: TimeoutScheduler, name: str) -> object:
    return scheduler.campaigns.erase("acme", name)


def suppress(scheduler: TimeoutScheduler, name: str) -> object:
    return scheduler.campaigns.suppress("acme", name, "asked")


def cancel(scheduler: TimeoutScheduler, name: str) -> object:
    return scheduler.cancel(f"acme:{name}:first:1:timeout:no_open")


FIRST_CANCELED: Final = ((1, "canceled", "visit left"),)
FIRED: Final = (1, "completed", "transitioned")
# How a campaign may end: by what it went, its state, its timeouts. The earlier line is that of who acts first.
LEGAL: Final[dict[Act, list[tuple[tuple[str, ...], str, tuple[Any, ...]]]]] = {
    stop: [
        (("enrolled", "stopped"), "stopped", FIRST_CANCELED),
        (("enrolled", "no_open", "stopped"), "stopped", (FIRED, (2, "canceled", "visit left"))),
    ],
    erase: [
        (("enrolled", "erased"), "stopped", FIRST_CANCELED),
        (("enrolled", "no_open", "erased"), "stopped", (FIRED, (2, "canceled", "visit left"))),
    ],
    suppress: [
        (("enrolled", "suppressed"), "stopped", FIRST_CANCELED),
        (("enrolled", "no_open", "suppressed"), "stopped", (FIRED, (2, "canceled", "visit left"))),
    ],
    pause: [
        (("enrolled",), "paused", ((1, "paused", None),)),
        (("enrolled", "no_open"), "paused", (FIRED, (2, "paused", None))),
    ],
    cancel: [
        (("enrolled",), "active", ((1, "canceled", "canceled by hand"),)),
        (("enrolled", "no_open"), "active", (FIRED, (2, "pending", None))),
    ],
}
ACTS: Final = pytest.mark.parametrize("act", LEGAL, ids=lambda act: act.__name__)


def ends(scheduler: TimeoutScheduler) -> dict[str, tuple[Any, ...]]:
    by, timeouts = ways(scheduler), states(scheduler)
    return {name: (by[name], status, timeouts[name]) for name, status in statuses(scheduler).items()}


def act_on(act: Act, scheduler: TimeoutScheduler, order: Sequence[str]) -> None:
    for name in order:
        act(scheduler, name)


@ACTS
def test_what_somebody_does_between_claim_and_firing_holds(
    database_url: str, open_scheduler: OpenScheduler, act: Act
) -> None:
    scheduler, owner = open_scheduler(database_url), Owner()
    enroll(scheduler, TWO_WAITS, count=3)
    claimed = claim(scheduler, owner, limit=3)
    act(scheduler, "c-001")

    firing_of(scheduler, owner).fire(claimed)

    found = ends(scheduler)
    acted_first, _ = LEGAL[act]
    assert found["c-001"] == acted_first
    assert found["c-000"] == found["c-002"] == (("enrolled", "no_open"), "active", (FIRED, (2, "pending", None)))


@ACTS
def test_what_somebody_does_during_the_firing_comes_before_it_or_after_it(
    database_url: str, open_scheduler: OpenScheduler, act: Act
) -> None:
    scheduler, other, owner = open_scheduler(database_url), open_scheduler(database_url), Owner()
    enroll(scheduler, TWO_WAITS, FEW)
    claimed = claim(scheduler, owner, limit=FEW)
    firing = firing_of(scheduler, owner)

    def fire() -> None:
        for start in range(0, FEW, 3):
            firing.fire(claimed[start : start + 3])

    at_once(fire, partial(act_on, act, other, names(FEW)[::-1]))

    eventually(lambda: is_settled(scheduler))
    assert set(ends(scheduler).values()) <= set(LEGAL[act])
    assert attempts(scheduler) == {0}


def test_a_suppression_while_mails_go_out_lets_none_follow(database_url: str, open_scheduler: OpenScheduler) -> None:
    """A mail that is going out is still recorded; whoever is suppressed before it does gets none."""
    mailed: list[str] = []

    def mail(request: SendRequest) -> SendResult:
        mailed.append(request.campaign_id)
        return SendResult(f"m-{request.campaign_id}")

    scheduler, other = open_scheduler(database_url, send_handler=mail), open_scheduler(database_url)
    enroll(scheduler, ONE_MAIL, FEW, start_at=None)

    at_once(scheduler.run_due, partial(act_on, suppress, other, names(FEW)[::-1]))

    scheduler.run_due()
    assert set(statuses(scheduler).values()) == {"stopped"}
    assert max(Counter(mailed).values(), default=1) == 1
    sent = query(scheduler, "SELECT campaign_id, status, message_id FROM scheduled_actions WHERE action_type = 'send'")
    for name, status, message_id in sent:
        legal = {("completed", f"m-{name}"), ("canceled", f"m-{name}")} if name in mailed else {("canceled", None)}
        assert (status, message_id) in legal


def test_a_confirmation_at_the_end_of_the_lease_counts_once_whoever_has_the_send_by_then(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    """Its lease is over: at the same moment it is confirmed, and given to somebody else. He confirms it too."""
    settings = make_settings(send_handler="external")
    scheduler, other = (open_scheduler(database_url, settings=settings) for _ in range(2))
    enroll(scheduler, ONE_MAIL, FEW, start_at=None)
    taken = [request.dedupe_key for request in scheduler.campaigns.take_sends(FEW, lease="PT0.001S")]
    assert len(taken) == FEW
    confirm = scheduler.campaigns.confirm_send

    def take_again() -> list[str]:
        found: list[str] = []
        for _ in range(FEW):
            found += [request.dedupe_key for request in other.campaigns.take_sends(1)]
        return found

    confirmed, again = at_once(
        lambda: [confirm(key, scheduler.database.real_clock.now(), f"first-{key}") for key in reversed(taken)],
        take_again,
    )
    before = sends(scheduler)
    assert all(other.campaigns.confirm_send(key, FAR_AHEAD, f"second-{key}") for key in again)

    assert confirmed == [True] * FEW
    assert len(again) == len(set(again))
    assert sends(scheduler) == before
    assert {(status, message_id == f"first-{key}") for key, status, message_id, _ in before} == {("completed", True)}
    assert other.campaigns.take_sends(FEW) == []
    assert set(ways(scheduler).values()) == {("enrolled",)}


def sends(scheduler: TimeoutScheduler) -> list[tuple[Any, ...]]:
    rows = query(
        scheduler,
        "SELECT dedupe_key, status, message_id, sent_at FROM scheduled_actions WHERE action_type = 'send'"
        " ORDER BY dedupe_key",
    )
    return [tuple(row) for row in rows]


# Callers' own transactions


def test_a_campaign_row_that_a_caller_holds_delays_that_campaign_alone(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, TWO_WAITS, count=11)
    with scheduler.database.engine.connect() as caller, caller.begin():
        caller.execute(text("SELECT * FROM contact_campaigns WHERE campaign_id = 'c-005' FOR UPDATE"))
        scheduler.start()
        eventually(lambda: Counter(ways(scheduler).values()) == {("enrolled", "no_open"): 10, ("enrolled",): 1})
        assert ways(scheduler)["c-005"] == ("enrolled",)
    eventually(lambda: set(ways(scheduler).values()) == {("enrolled", "no_open")})
    assert attempts(scheduler) == {0}
    check_whole(scheduler)


def test_a_caller_who_holds_the_write_lock_of_sqlite_delays_everything_and_costs_no_attempt(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, owner = open_scheduler(sqlite_url), Owner()
    enroll(scheduler, TWO_WAITS, count=11)
    claimed = claim(scheduler, owner, limit=11)
    with scheduler.database.engine.connect() as caller:
        caller.execute(text("BEGIN IMMEDIATE"))
        with beside(lambda: firing_of(scheduler, owner).fire(claimed)) as firing:
            firing.join(0.1)
            assert set(ways(scheduler).values()) == {("enrolled",)}
            caller.rollback()
    assert set(ways(scheduler).values()) == {("enrolled", "no_open")}
    assert attempts(scheduler) == {0}


def test_a_caller_who_locks_campaigns_in_another_order_costs_nobody_an_event(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """It is a deadlock, which the server ends at our cost: what we were doing is done again."""
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, TWO_WAITS, count=2)
    hold = text("SELECT * FROM contact_campaigns WHERE campaign_id = :name FOR UPDATE")
    events = [{"tenant_id": "acme", "event_type": "opened", "campaign_id": name} for name in ("c-000", "c-001")]
    outcomes: list[str] = []

    def deliver() -> None:
        outcomes.extend(result.outcome for result in scheduler.campaigns.process_events(events))

    with scheduler.database.engine.connect() as caller, caller.begin():
        caller.execute(text("SET LOCAL deadlock_timeout = '30s'"))
        caller.execute(hold, {"name": "c-001"})
        with beside(deliver):
            eventually(lambda: bool(query(scheduler, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")))
            caller.execute(hold, {"name": "c-000"})
            caller.rollback()
    assert outcomes == ["transitioned", "transitioned"]
    assert set(ways(scheduler).values()) == {("enrolled", "opened")}
    check_whole(scheduler)
