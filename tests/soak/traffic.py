"""What an application does with the scheduler: enrols in waves, tells events, cancels, pauses, resumes, stops."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from scheduler import DatabaseUnavailableError, TimeoutScheduler
from tests.soak.outbox import message_of
from tests.soak.plans import PLANS

TENANT: Final = "soak"
_TURN_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 0.1
_MOST_EVENTS: Final = 50
_SHARES: Final = {"drip": 50, "timers": 44, "rounds": 6}

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Ledger:
    """What the application was told is done: all of it has to be there in the end."""

    campaigns: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)
    canceled: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    retried: int = 0


class Traffic:
    """An application in a thread of its own: tries every call again, with the same arguments, until it is answered."""

    def __init__(self, url: str, seed: int, rate: float, outbox: Path) -> None:
        self.ledger = Ledger()
        self.failure: BaseException | None = None
        self._url = url
        self._chance = random.Random(f"{seed}:traffic")  # noqa: S311 - a soak is repeated with its seed
        self._rate = rate
        self._outbox = outbox
        self._read = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._events: list[dict[str, Any]] = []
        self._numbers = count(1)
        self._rounds: list[str] = []
        self._paused: set[str] = set()
        self._next_wave = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, timeout: float) -> None:
        """Enrol nobody more, tell the events that are left, let every paused campaign go on. TimeoutError if stuck."""
        self._ends.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the application was still trying after {timeout} s")

    def _run(self) -> None:
        try:
            with closing(TimeoutScheduler(self._url)) as scheduler:
                self._scheduler = scheduler
                while not self._ends.wait(_TURN_SECONDS):
                    self._turn()
                self._wind_down()
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            self.failure = error

    def _turn(self) -> None:
        if time.monotonic() >= self._next_wave:
            self._enroll_wave()
        self._read_outbox()
        while self._agenda and self._agenda[0][0] <= time.monotonic() and not self._ends.is_set():
            heappop(self._agenda)[2]()
        self._tell_all()

    def _wind_down(self) -> None:
        self._read_outbox()
        while self._agenda:
            heappop(self._agenda)[2]()
        for campaign_id in self._rounds:
            self._tell(campaign_id, "replied", None, f"e-{next(self._numbers)}")
        self._tell_all()
        for campaign_id in sorted(self._paused):
            self._resume(campaign_id)

    def _enroll_wave(self) -> None:
        """Some contacts, now and then a whole cohort; some have been due for long."""
        size = self._chance.choice([5, 10, 20, 40, 150])
        self._next_wave = time.monotonic() + size / self._rate * self._chance.uniform(0.5, 1.5)
        (name,) = self._chance.choices(list(_SHARES), list(_SHARES.values()))
        late = self._chance.choice([0.0, 0.0, 5.0])
        start_at = datetime.now(UTC) - timedelta(seconds=late) if late else None  # noqa: TID251 - of the application
        new = {f"{name}-{number}": f"k-{number}" for number in (next(self._numbers) for _ in range(size))}
        shared: dict[str, Any] = {"tenant_id": TENANT, "plan": PLANS[name], "start_at": start_at}
        wave = [
            {"campaign_id": campaign_id, "contact_id": contact_id, **shared} for campaign_id, contact_id in new.items()
        ]
        self._insist("enroll", lambda: self._scheduler.campaigns.enroll_many(wave))
        self.ledger.campaigns.update(new)
        for campaign_id in new:
            self._plan_for(campaign_id)
        if name == "rounds":
            self._rounds += new

    def _plan_for(self, campaign_id: str) -> None:
        """What will happen to a contact, and what the application will do with its campaign."""
        chance = self._chance
        for event_type, share, latest in (("opened", 0.4, 3.0), ("clicked", 0.2, 4.0), ("replied", 0.05, 9.0)):
            if chance.random() < share:
                self._plan_event(campaign_id, event_type, latest)
        if chance.random() < 0.02:
            self._plan_event(campaign_id, chance.choice(["bounced", "unsubscribed"]), 3.0)
        if chance.random() < 0.05:
            begin = chance.uniform(0.0, 3.0)
            self._later(begin, lambda: self._pause(campaign_id))
            self._later(begin + chance.uniform(0.2, 3.0), lambda: self._resume(campaign_id))
        if chance.random() < 0.02:
            self._later(chance.uniform(0.0, 4.0), lambda: self._stop(campaign_id))
        if chance.random() < 0.03:
            self._later(chance.uniform(0.0, 3.0), lambda: self._cancel_one(campaign_id))

    def _plan_event(self, campaign_id: str | None, event_type: str, latest: float, mail: str | None = None) -> None:
        at = self._chance.uniform(0.0, latest)
        event_id = f"e-{next(self._numbers)}"
        for _ in range(self._chance.choice([1, 1, 1, 2])):  # providers tell many a thing twice
            self._later(at, lambda: self._tell(campaign_id, event_type, mail, event_id))
            at += self._chance.uniform(0.0, 1.0)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heappush(self._agenda, (time.monotonic() + seconds, next(self._numbers), act))

    def _read_outbox(self) -> None:
        """What the mail provider tells of mails that went out, confirmed or not."""
        with self._outbox.open("rb") as outbox:
            outbox.seek(self._read)
            new = outbox.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for key in whole.decode().splitlines():
            for event_type, share, latest in (("opened", 0.3, 2.0), ("clicked", 0.15, 3.0)):
                if self._chance.random() < share:
                    self._plan_event(None, event_type, latest, message_of(key))

    def _tell(self, campaign_id: str | None, event_type: str, mail: str | None, event_id: str) -> None:
        """It happened just now; the scheduler hears of it a moment later."""
        self._events.append(
            {
                "tenant_id": TENANT,
                "event_type": event_type,
                "message_id": mail,
                "campaign_id": campaign_id,
                "occurred_at": datetime.now(UTC),  # noqa: TID251 - the application's own clock
                "event_id": event_id,
            }
        )

    def _tell_all(self) -> None:
        """What happened meanwhile, in one call; a single event in the call for one."""
        manager = self._scheduler.campaigns
        while batch := self._events[:_MOST_EVENTS]:
            if len(batch) == 1:
                self._insist("event", partial(manager.process_event, **batch[0]))
            else:
                self._insist("events", partial(manager.process_events, batch))
            self.ledger.events.update(event["event_id"] for event in batch)
            del self._events[:_MOST_EVENTS]

    def _pause(self, campaign_id: str) -> None:
        self._paused.add(campaign_id)
        self._insist("pause", lambda: self._scheduler.campaigns.pause(TENANT, campaign_id))

    def _resume(self, campaign_id: str) -> None:
        policy = self._chance.choice(["shift", "keep"])
        self._insist("resume", lambda: self._scheduler.campaigns.resume(TENANT, campaign_id, policy=policy))
        self._paused.discard(campaign_id)

    def _stop(self, campaign_id: str) -> None:
        self._insist("stop", lambda: self._scheduler.campaigns.stop(TENANT, campaign_id))
        self.ledger.stopped.add(campaign_id)

    def _cancel_one(self, campaign_id: str) -> None:
        """One of the campaign's timeouts, by hand: it may stand still from now on."""
        pending = self._insist("look", lambda: self._scheduler.pending(TENANT, campaign_id))
        if pending:
            key = self._chance.choice(pending).dedupe_key
            self.ledger.canceled.add(campaign_id)
            self._insist("cancel", lambda: self._scheduler.cancel(key))

    def _insist(self, name: str, call: Callable[[], Answer]) -> Answer:
        self.ledger.calls[name] += 1
        while True:
            try:
                return call()
            except DatabaseUnavailableError:
                self.ledger.retried += 1
                threading.Event().wait(_RETRY_SECONDS)
