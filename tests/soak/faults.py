"""Every fault the soak injects, each with what heals it."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from tests.soak.site import Site, Station
from tests.support.wall_clock import find_libfaketime
from tests.support.wire import Wire

Heal = Callable[[], None]

_DATABASE: Final = "database"
_LONGEST_WAIT: Final = 20.0
DAEMON_KILLS: Final = "SIGKILL of a daemon"
DAEMON_STOPS: Final = "SIGTERM of a daemon"
FREEZES: Final = "SIGSTOP of a daemon for longer than its lease, then SIGCONT"
DATABASE_KILLS: Final = "SIGKILL of the database"
DATABASE_RESTARTS: Final = "restart of the database in order"
FAILOVERS: Final = "failover to the standby"
CUTS: Final = "wire of a daemon cut"
HANGS: Final = "wire of a daemon silent"
SLOW_WIRES: Final = "wire of a daemon slow"
LOST_ANSWERS: Final = "COMMIT answers of a daemon lost at random"
STEPS_FORWARD: Final = "wall clock of a daemon stepped forwards"
STEPS_BACK: Final = "wall clock of a daemon stepped backwards"
CLOCK_STEPS: Final = (STEPS_FORWARD, STEPS_BACK)


@dataclass(frozen=True, slots=True)
class _Active:
    """A fault that goes on: until when, on what, and how it ends."""

    until: float
    target: object
    heal: Heal
    has_met: Callable[[], bool]

    def is_over(self, now: float) -> bool:
        """Whether it has lasted long enough: longer where it hasn't met anything yet."""
        return now >= self.until and (self.has_met() or now >= self.until + _LONGEST_WAIT)


class Faults:
    """Begins and ends faults, at most `at_once` at a time, each on something else. For the main thread."""

    def __init__(self, site: Site, chance: random.Random, lease: timedelta, pace: float, at_once: int = 2) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._site = site
        self._chance = chance
        self._lease = lease.total_seconds()
        self._pace = pace
        self._at_once = at_once
        self._active: list[_Active] = []
        self._next_at = 0.0
        self._of_daemons: dict[str, tuple[float, float, Callable[[Station], Heal]]] = {
            DAEMON_KILLS: (0.1, 2, self._kill),
            DAEMON_STOPS: (0.1, 3, self._stop),
            FREEZES: (0.5, 3, self._freeze),
            CUTS: (0.3, 4, lambda station: self._spoil(station, Wire.cut)),
            HANGS: (0.5, 6, lambda station: self._spoil(station, Wire.hang)),
            SLOW_WIRES: (0.5, 5, self._slow_down),
            LOST_ANSWERS: (0.3, 5, self._lose_answers),
        }
        if find_libfaketime() is not None:
            self._of_daemons[STEPS_FORWARD] = (0.3, 5, lambda station: self._step(station, 1))
            self._of_daemons[STEPS_BACK] = (0.3, 5, lambda station: self._step(station, -1))
        self._of_database: dict[str, tuple[float, float, Callable[[], Heal]]] = {
            DATABASE_KILLS: (0.1, 4, self._kill_database),
            DATABASE_RESTARTS: (0.1, 4, self._restart_database),
            FAILOVERS: (0.1, 3, self._fail_over),
        }
        self._deck: list[str] = []

    @property
    def kinds(self) -> Sequence[str]:
        """Every fault that can be injected here."""
        return [*self._of_daemons, *self._of_database]

    @property
    def had_all(self) -> bool:
        """Whether each was injected at least once, and the one that waits for a COMMIT has met one."""
        return all(self.counts[kind] for kind in self.kinds) and self.lost_answers > 0

    @property
    def lost_answers(self) -> int:
        """How many COMMITs were done whose clients heard nothing of it."""
        return sum(wire.lost_answers for station in self._site.stations for wire in station.wires)

    def turn(self) -> None:
        """End what has lasted long enough, and begin another one when it is time."""
        now = time.monotonic()
        for one in [one for one in self._active if one.is_over(now)]:
            self._end(one)
        self.look_after_daemons()
        if len(self._active) < self._at_once and now >= self._next_at:
            self._begin_one()
            self._next_at = time.monotonic() + self._pace * self._chance.uniform(0.2, 3)

    def end_all(self) -> None:
        """Heal everything."""
        for one in list(self._active):
            self._end(one)
        self.look_after_daemons()

    def _end(self, one: _Active) -> None:
        self._active.remove(one)
        one.heal()

    def look_after_daemons(self) -> None:
        """One that left by itself is told of, and started again."""
        for station in self._site.stations:
            if station.is_wanted and station.exit_code is not None:
                self.problems.append(f"daemon {station.number} left by itself, with {station.exit_code}")
                station.start()

    def _begin_one(self) -> None:
        """The next of the deck whose target is free; every fault has its turn before one comes again."""
        if not self._deck:
            self._deck = self._chance.sample(self.kinds, k=len(self.kinds))
        targets = {one.target for one in self._active}
        free = [station for station in self._site.stations if station not in targets and station.has_begun]
        for kind in self._deck:
            if kind in self._of_daemons and free:
                station = self._chance.choice(free)
                shortest, longest, on_daemon = self._of_daemons[kind]
                self._begin(kind, shortest, longest, station, partial(on_daemon, station))
                return
            if kind in self._of_database and _DATABASE not in targets:
                shortest, longest, on_database = self._of_database[kind]
                self._begin(kind, shortest, longest, _DATABASE, on_database)
                return

    def _begin(self, kind: str, shortest: float, longest: float, target: object, fault: Callable[[], Heal]) -> None:
        self._deck.remove(kind)
        heal = fault()
        self.counts[kind] += 1
        lasts = max(shortest, self._chance.uniform(shortest, longest) * min(self._pace, 1))
        if kind == FREEZES:
            lasts += self._lease
        before = self.lost_answers
        has_met = (lambda: self.lost_answers > before) if kind == LOST_ANSWERS else (lambda: True)
        self._active.append(_Active(time.monotonic() + lasts, target, heal, has_met))

    def _kill(self, station: Station) -> Heal:
        station.is_wanted = False
        station.tell(signal.SIGKILL)
        station.wait()
        return station.start

    def _stop(self, station: Station) -> Heal:
        """It may take its time; what counts is that it leaves with 0."""
        station.is_wanted = False
        station.tell(signal.SIGTERM)

        def heal() -> None:
            code = station.wait()
            if code != 0:
                self.problems.append(f"daemon {station.number}, told to stop, left with {code}")
            station.start()

        return heal

    def _freeze(self, station: Station) -> Heal:
        station.tell(signal.SIGSTOP)
        return lambda: station.tell(signal.SIGCONT)

    def _spoil(self, station: Station, how: Callable[[Wire], None]) -> Heal:
        for wire in station.wires:
            how(wire)

        def heal() -> None:
            for wire in station.wires:
                wire.heal()

        return heal

    def _slow_down(self, station: Station) -> Heal:
        return self._spoil(station, lambda wire: wire.slow_down(0.01, 0.1, self._new_chance()))

    def _lose_answers(self, station: Station) -> Heal:
        return self._spoil(station, lambda wire: wire.lose_commit_answers(0.5, self._new_chance()))

    def _new_chance(self) -> random.Random:
        """The wires draw in threads of their own: when they do, the choice of faults mustn't change."""
        return random.Random(self._chance.random())  # noqa: S311 - as all of the soak's

    def _step(self, station: Station, sign: int) -> Heal:
        seconds = self._chance.choice([1, 7, 60, 3600])
        station.set_clock(timedelta(seconds=sign * seconds))
        return lambda: station.set_clock(timedelta(0))

    def _kill_database(self) -> Heal:
        self._site.cluster.primary.kill9()
        return self._site.cluster.primary.start

    def _restart_database(self) -> Heal:
        self._site.cluster.primary.stop()
        return self._site.cluster.primary.start

    def _fail_over(self) -> Heal:
        """The primary dies for good; after a moment the standby takes its place, and gets a standby of its own."""
        cluster = self._site.cluster
        cluster.primary.kill9()

        def heal() -> None:
            cluster.fail_over()
            cluster.replace_standby()

        return heal
