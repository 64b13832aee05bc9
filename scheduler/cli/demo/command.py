"""`demo`: shows the product, and checks what it shows."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

import typer

from scheduler.cli.demo.audience import Audience, Reader, Spectator
from scheduler.cli.demo.director import Director
from scheduler.cli.demo.happenings import between
from scheduler.cli.demo.result import compare, write_result
from scheduler.cli.demo.script import members
from scheduler.cli.demo.stage import Glimpse, Outbox, Stage, demo_plan, set_up
from scheduler.cli.failures import FAILED
from scheduler.cli.output import write_line

_LONGEST: Final = 25.0
_LONGEST_WAIT: Final = 0.5


def demo() -> None:
    """Show a whole campaign in seconds. The engine is the real one, the database a throw-away SQLite file.

    Contacts open, click, unsubscribe or stay silent. It ends with a table of what the plan demands beside what the
    database has, and exits with 1 if they differ. It reads no settings, sends nothing, and leaves nothing behind.
    """
    cast, plan, outbox = dict(members()), demo_plan(), Outbox()
    write_line(f"{len(cast)} contacts, the plan {plan['name']!r}, timeouts of seconds, the real engine:")
    with set_up(cast, outbox) as stage:
        began = time.monotonic()
        stage.enroll(plan)
        nodes = [node["id"] for node in plan["nodes"] if node["action"] != "stop"]
        with Spectator(nodes, cast) if sys.stdout.isatty() else Reader() as audience:
            last = play(stage, audience, began)
        seconds = time.monotonic() - began
    differences = write_result(compare(plan, cast, last), len(outbox.mails), seconds)
    if differences:
        raise typer.Exit(FAILED)


def play(stage: Stage, audience: Audience, began: float) -> Glimpse:
    """Run the engine until every campaign is finished, or for 25 seconds; returns the last look at the database."""
    changed, director = threading.Event(), Director(stage.timeout_scheduler, stage.cast)
    before = stage.look()
    stage.timeout_scheduler.apscheduler.add_listener(lambda _: changed.set())
    stage.timeout_scheduler.start()
    while True:
        changed.clear()
        director.act()
        now = stage.look()
        audience.show(time.monotonic() - began, between(before, now), now)
        before = now
        director.notice(now)
        stage.clock.go_on()
        if now.is_over or time.monotonic() - began > _LONGEST:
            stage.timeout_scheduler.shutdown()
            return stage.look()
        changed.wait(director.seconds_to_next(_LONGEST_WAIT))
