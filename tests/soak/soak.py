"""One soak from its start to its report."""

import os
import random
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg

from tests.soak.audit import Audit, audit
from tests.soak.faults import Faults
from tests.soak.report import Report
from tests.soak.site import Site, open_site
from tests.soak.traffic import Traffic
from tests.support.cluster import ask
from tests.support.wall_clock import find_libfaketime

_TURN_SECONDS: Final = 0.05
_NEWS_SECONDS: Final = 15.0
_LONGEST_FINISH: Final = 180.0
_LONGEST_STANDSTILL: Final = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How long, how hard, and with what luck."""

    seconds: float = 1200.0
    seed: int = 1
    daemons: int = 3
    lease: timedelta = timedelta(seconds=5)
    rate: float = 25.0
    pace: float = 1.0

    @property
    def command(self) -> str:
        """What repeats it: the same choices, though never at the same instants."""
        words = {
            "minutes": f"{self.seconds / 60:g}",
            "seed": self.seed,
            "daemons": self.daemons,
            "lease": f"{self.lease.total_seconds():g}",
            "rate": f"{self.rate:g}",
            "pace": f"{self.pace:g}",
        }
        return "python -m tests.soak " + shlex.join(f"--{name}={value}" for name, value in words.items())


def soak(options: Options, say: Say) -> Report:
    """Run it all. When something is wrong, the daemons' logs are kept, and the report says where."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with open_site(folder, options.daemons, options.lease) as site:
        report = _soak(site, options, say)
    if report.is_good:
        shutil.rmtree(folder)
    else:
        report.problems.append(f"the logs of the daemons are in {folder}")
    return report


def _soak(site: Site, options: Options, say: Say) -> Report:
    began = time.monotonic()
    traffic = Traffic(site.client_url, options.seed, options.rate, site.outbox)
    chance = random.Random(f"{options.seed}:faults")  # noqa: S311 - a soak is repeated with its seed
    faults = Faults(site, chance, options.lease, options.pace)
    for station in site.stations:
        station.start()
    traffic.start()
    _disturb(faults, options.seconds, traffic, say)
    faults.end_all()
    problems = _drain(site, traffic, faults, say)
    codes = [_stop(site, number) for number in range(len(site.stations))]
    problems += [f"daemon {number} left with {code} in the end" for number, code in enumerate(codes) if code != 0]
    found: Audit = audit(site.url("postgresql"), traffic.ledger, site.outbox)
    return Report(
        command=options.command,
        machine=_machine(site),
        seconds=time.monotonic() - began,
        faults={**faults.counts, "COMMIT answers lost": faults.lost_answers},
        traffic={
            "calls of the application": traffic.ledger.calls.total(),
            "calls tried again": traffic.ledger.retried,
        },
        audit=found,
        problems=faults.problems + problems,
        errors=site.errors_logged(),
        has_libfaketime=find_libfaketime() is not None,
    )


def _disturb(faults: Faults, seconds: float, traffic: Traffic, say: Say) -> None:
    """Until the time is over, and every fault has been there once."""
    pause = threading.Event()
    ends = time.monotonic() + seconds
    next_news = time.monotonic() + _NEWS_SECONDS
    while time.monotonic() < ends or not faults.had_all:
        if traffic.failure is not None:
            raise RuntimeError("the application failed") from traffic.failure
        faults.turn()
        pause.wait(_TURN_SECONDS)
        if time.monotonic() >= next_news:
            next_news += _NEWS_SECONDS
            left = max(ends - time.monotonic(), 0)
            say(f"{left:.0f} s left, {len(traffic.ledger.campaigns)} campaigns, {faults.counts.total()} faults")


def _drain(site: Site, traffic: Traffic, faults: Faults, say: Say) -> list[str]:
    """Everything is healed: wait until all that is pending has been fired. What is wrong, if it never is.

    A slow machine has a backlog, and takes its time; nothing is lost as long as it gets smaller.
    """
    say("healed; draining")
    traffic.finish(_LONGEST_FINISH)
    if traffic.failure is not None:
        raise RuntimeError("the application failed") from traffic.failure
    pause = threading.Event()
    least, since = _unfinished(site), time.monotonic()
    while (unfinished := _unfinished(site)) and time.monotonic() - since < _LONGEST_STANDSTILL:
        if unfinished < least:
            least, since = unfinished, time.monotonic()
        faults.look_after_daemons()
        pause.wait(_TURN_SECONDS)
    return [f"of {unfinished} unfinished actions none ended for {_LONGEST_STANDSTILL:.0f} s"] if unfinished else []


def _unfinished(site: Site) -> int:
    statement = "SELECT count(*) FROM scheduled_actions WHERE status IN ('pending', 'claimed', 'paused')"
    with psycopg.connect(site.url("postgresql")) as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def _stop(site: Site, number: int) -> int:
    station = site.stations[number]
    station.is_wanted = False
    return station.terminate()


def _machine(site: Site) -> dict[str, object]:
    ((server,),) = ask(site.cluster.primary, "SHOW server_version")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "PostgreSQL": server, "Python": sys.version.split()[0], "system": sys.platform}
