"""A server that makes its scheduler, uses it, and forks workers which start it, as gunicorn does with an application.

Each worker says on standard output, in a line of JSON, how its start went. A line on standard input lets those that
were refused work all the same; the end of it lets all of them go.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from scheduler import AlreadyRunningError, TimeoutScheduler
from tests.support.gated import Effects
from tests.support.scheduling import FAR_AHEAD, WAIT_PLAN, make_job, make_settings

WORKERS: Final = 3
CAMPAIGNS: Final = 50


def main(url: str) -> None:
    """Fork, and wait for them all."""
    scheduler = TimeoutScheduler(url, settings=make_settings(batch_size=5, workers=1), state_manager=Effects())
    scheduler.schedule(make_job(campaign_id="before the fork", scheduled_at=FAR_AHEAD))
    scheduler.find("acme:before the fork:intro:1:timeout:no_open")
    children = []
    for number in range(WORKERS):
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(telling)
            _in_child(lambda number=number, told=told: work(scheduler, number, told))  # type: ignore[misc]
        os.close(told)
        children.append((child, telling))
    for line in sys.stdin:
        for _, telling in children:
            os.write(telling, line.encode())
    for _, telling in children:
        os.close(telling)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in children]
    sys.exit(max(codes))


def work(scheduler: TimeoutScheduler, number: int, told: int) -> None:
    """A worker's life."""
    try:
        scheduler.start()
        say(worker=number, process_id=os.getpid(), instance=scheduler.instance)
    except AlreadyRunningError as error:
        say(worker=number, process_id=os.getpid(), refused=str(error))
    while os.read(told, 100):
        if not scheduler.apscheduler.running:
            say(worker=number, outcomes=use(scheduler, number))
    scheduler.close()


def use(scheduler: TimeoutScheduler, number: int) -> list[Any]:
    """What a web application does with it."""
    outcomes: list[Any] = []
    for one in range(CAMPAIGNS):
        name = f"worker-{number}-{one}"
        scheduler.campaigns.enroll("acme", name, name, WAIT_PLAN)
        outcomes.append(scheduler.campaigns.process_event("acme", "opened", campaign_id=name).outcome)
        key = scheduler.schedule(make_job(campaign_id=f"alone-{name}", scheduled_at=FAR_AHEAD))
        outcomes.append(scheduler.cancel(key))
    return outcomes


def say(**facts: Any) -> None:
    """In one write, so that lines of several processes don't mix."""
    os.write(1, json.dumps(facts).encode() + b"\n")


def _in_child(life: Callable[[], None]) -> None:
    code = 1
    try:
        life()
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
