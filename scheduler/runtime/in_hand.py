"""The claims this process knows that it has: what they are renewed by, and what the table's are compared with."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scheduler.domain.action import ScheduledAction
from scheduler.service.lease_clock import lease_clock

Claim = tuple[str, str, int]


@dataclass(slots=True)
class _Held:
    action: ScheduledAction
    since: float
    renewed: float


class InHand:
    """Claims from the moment they were made until they are worked off. Thread-safe.

    In doubt a claim may stand in the table that nobody here knows of: its COMMIT went out, and no answer came.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._claiming = threading.Lock()
        self._held: dict[Claim, _Held] = {}
        self._is_in_doubt = False

    @property
    def is_in_doubt(self) -> bool:
        """Whether there may be a claim in the table that isn't in hand."""
        return self._is_in_doubt

    def doubt(self) -> None:
        """There may be: call it once the claim has left the hand, or nobody knows whether it was made."""
        self._is_in_doubt = True

    def trust(self) -> None:
        """There is none, or it is about to be found: call it before looking."""
        self._is_in_doubt = False

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """One claims, or compares with the table, at a time: a claim that is just being made isn't an unknown one."""
        with self._claiming:
            try:
                yield
            except BaseException:
                self.doubt()
                raise

    def take(self, actions: Iterable[ScheduledAction]) -> None:
        """These were claimed."""
        now = lease_clock()
        taken = {_claim(action): _Held(action, now, now) for action in actions}
        with self._mutex:
            self._held.update(taken)

    def drop(self, actions: Iterable[ScheduledAction]) -> None:
        """These are worked off, or won't be."""
        with self._mutex:
            for action in actions:
                self._held.pop(_claim(action), None)

    def knows(self, action: ScheduledAction) -> bool:
        """Whether exactly this claim is in hand."""
        with self._mutex:
            return _claim(action) in self._held

    def to_renew(self, older_than: float) -> list[ScheduledAction]:
        """What was claimed or renewed more than so many seconds ago."""
        now = lease_clock()
        with self._mutex:
            return [held.action for held in self._held.values() if now - held.renewed > older_than]

    def renewed(self, actions: Iterable[ScheduledAction], at: float) -> None:
        """The leases of these were extended, at that instant of the lease clock."""
        with self._mutex:
            for action in actions:
                held = self._held.get(_claim(action))
                if held is not None:
                    held.renewed = at

    def longer_than(self, seconds: float) -> list[ScheduledAction]:
        """What has been in hand for more than so many seconds."""
        now = lease_clock()
        with self._mutex:
            return [held.action for held in self._held.values() if now - held.since > seconds]

    def forget_parent(self) -> None:
        """In a forked child: the claims are the parent's, and so may be who holds the locks."""
        self._mutex = threading.Lock()
        self._claiming = threading.Lock()
        self._held = {}
        self._is_in_doubt = False


def _claim(action: ScheduledAction) -> Claim:
    return (*action.key, action.claim_number)
