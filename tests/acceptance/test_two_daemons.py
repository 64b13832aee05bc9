"""Several daemons on one PostgreSQL: they come, leave and are killed, and each timeout takes effect once."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from scheduler import TimeoutScheduler
from tests.support.daemon import DaemonProcess, environment, running
from tests.support.eventually import eventually
from tests.support.scheduling import LONG_AGO, make_settings, query
from tests.support.walk import make_document, on, wait

WAVES: Final = 5
WAVE: Final = 1000
DAEMONS: Final = 2
SEED: Final = 20260302
PLAN: Final = make_document(
    wait("first", on("opened", "stop"), on("no_open", "second", after="PT1H"), on("no_click", "stop", after="PT99H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="PT0.1S")),
)
HISTORY: Final = [(0, None, "first", "enrolled"), (1, "first", "second", "no_open"), (2, "second", "stop", "no_open")]


@pytest.fixture
def scheduler(postgresql_url: str) -> Iterator[TimeoutScheduler]:
    """Enrols and looks; never fires."""
    scheduler = TimeoutScheduler(postgresql_url, settings=make_settings())
    yield scheduler
    scheduler.close()


def enroll_wave(scheduler: TimeoutScheduler, wave: int) -> None:
    scheduler.campaigns.enroll_many(
        {
            "tenant_id": "acme",
            "campaign_id": f"c-{wave}-{n}",
            "contact_id": f"k-{n}",
            "plan": PLAN,
            "start_at": LONG_AGO,
        }
        for n in range(WAVE)
    )


def visits_left(scheduler: TimeoutScheduler) -> int:
    ((left,),) = query(scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit > 0")
    return int(left)


def wait_for(scheduler: TimeoutScheduler, left: int) -> None:
    eventually(lambda: visits_left(scheduler) >= left, timeout=60)


def claimed(scheduler: TimeoutScheduler) -> int:
    ((rows,),) = query(scheduler, "SELECT count(*) FROM scheduled_actions WHERE status = 'claimed'")
    return int(rows)


def check_every_history(scheduler: TimeoutScheduler, contacts: int) -> None:
    histories: dict[str, list[Any]] = {}
    for campaign_id, *step in query(
        scheduler,
        "SELECT campaign_id, node_visit, from_node_id, to_node_id, trigger FROM campaign_transitions"
        " ORDER BY campaign_id, node_visit",
    ):
        histories.setdefault(campaign_id, []).append(tuple(step))
    assert contacts == len(histories)
    assert [history for history in histories.values() if history != HISTORY] == []
    rows = query(scheduler, "SELECT status, outcome, attempts, count(*) FROM scheduled_actions GROUP BY 1, 2, 3")
    ended = Counter({(status, outcome, attempts): number for status, outcome, attempts, number in rows})
    assert {("completed", "transitioned", 0): 2 * contacts, ("canceled", "visit left", 0): contacts} == ended


def test_ten_thousand_actions_happen_once_though_each_of_two_daemons_is_killed_five_times(
    scheduler: TimeoutScheduler, postgresql_url: str, tmp_path: Path
) -> None:
    """Each wave is two thousand due actions; at a moment of chance one daemon is killed, later in it the other.

    The lease is an hour: what the dead had claimed comes back because they are gone.
    """
    chance = random.Random(SEED)  # noqa: S311 - when they die is no secret
    env = environment(postgresql_url, SCHEDULER_LEASE="PT1H")
    with ExitStack() as stack:

        def join(name: str) -> DaemonProcess:
            return stack.enter_context(running(tmp_path, env, name))

        daemons = [join(f"daemon-{place}") for place in range(DAEMONS)]
        for wave in range(WAVES):
            enroll_wave(scheduler, wave)
            begun, end = 2 * WAVE * wave, 2 * WAVE * (wave + 1)
            moments = sorted(chance.sample(range(1, 2 * WAVE * 3 // 4), DAEMONS))
            for place, moment in zip(chance.sample(range(DAEMONS), DAEMONS), moments, strict=True):
                wait_for(scheduler, begun + moment)
                daemons[place].kill()
                assert visits_left(scheduler) < end, "it was killed too late to show anything"
            daemons = [join(f"daemon-{place}-{wave}") for place in range(DAEMONS)]
            wait_for(scheduler, end)

        assert [daemon.terminate() for daemon in daemons] == [0, 0]
    check_every_history(scheduler, WAVES * WAVE)


def test_a_daemon_told_to_stop_in_the_middle_hands_back_what_it_claimed_and_leaves_with_0(
    scheduler: TimeoutScheduler, postgresql_url: str, tmp_path: Path
) -> None:
    """The lease is an hour: what it kept, nobody else would get."""
    env = environment(postgresql_url, SCHEDULER_LEASE="PT1H")
    with running(tmp_path, env, "first") as first:
        enroll_wave(scheduler, 0)
        wait_for(scheduler, WAVE // 4)
        assert first.terminate() == 0
    assert claimed(scheduler) == 0
    assert visits_left(scheduler) < 2 * WAVE, "it was stopped too late to show anything"

    with running(tmp_path, env, "second") as second:
        wait_for(scheduler, 2 * WAVE)
        assert second.terminate() == 0
    check_every_history(scheduler, WAVE)
