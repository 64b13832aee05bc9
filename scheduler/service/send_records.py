"""What came of sends: remembered until it is recorded, so that a mail that went out isn't sent again by this process.

Recording may have to wait: for a database that is away, or for a campaign that somebody holds. The claim stays with
this process meanwhile, and its lease is extended.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from scheduler.domain import outcome
from scheduler.domain.action import ScheduledAction
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.domain.sending import SendResult
from scheduler.service.canonical_line import log_action
from scheduler.service.confirming import Confirmations, Sent
from scheduler.service.event_intake import EventIntake
from scheduler.service.failed_sends import FailedSends
from scheduler.service.owner import Owner
from scheduler.service.persist import DecisionWriter
from scheduler.service.results import Ended
from scheduler.settings import Settings
from scheduler.store.database import Transaction
from scheduler.store.errors import is_lock_timeout, is_transient
from scheduler.store.settlements import PATIENCE
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.sentry import report_unexpected

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One send that was tried: with a result, or an error, which may repeat what is `personal`."""

    action: ScheduledAction
    result: SendResult | None = None
    error: Exception | None = None
    personal: tuple[str, ...] = ()


class SendRecords:
    """Records attempts of one owner. Thread-safe; an attempt is with one thread at a time."""

    def __init__(
        self, stores: Stores, writer: DecisionWriter, settings: Settings, metrics: Metrics, owner: Owner
    ) -> None:
        self._stores = stores
        self._metrics = metrics
        self._owner = owner
        self._failed = FailedSends(stores, writer, settings, metrics)
        self._confirmations = Confirmations(stores, writer, EventIntake(stores, writer, metrics))
        self._mutex = threading.Lock()
        self._unrecorded: dict[Key, Attempt] = {}
        self._left: set[Key] = set()

    def remember(self, attempt: Attempt) -> None:
        """Keep what came of a send until it is recorded."""
        with self._mutex:
            self._unrecorded[attempt.action.key] = attempt

    def known(self, claimed: Sequence[ScheduledAction]) -> list[Attempt]:
        """What is remembered of these, to be recorded now and not tried again.

        A mail that went out counts under whatever claim; an error only under the one it was met with.
        """
        with self._mutex:
            found = [(action, self._unrecorded.get(action.key)) for action in claimed]
            known = [
                replace(attempt, action=action)
                for action, attempt in found
                if attempt is not None
                and (attempt.result is not None or attempt.action.claim_number == action.claim_number)
            ]
            self._unrecorded.update((attempt.action.key, attempt) for attempt in known)
            self._left.difference_update(attempt.action.key for attempt in known)
        return known

    def leave(self, claimed: Sequence[ScheduledAction]) -> list[ScheduledAction]:
        """Nobody works on these any more; returns those that are remembered, and left to `record_rest`."""
        with self._mutex:
            left = [action for action in claimed if action.key in self._unrecorded]
            self._left.update(action.key for action in left)
        return left

    def record(self, attempts: Sequence[Attempt], *, may_wait: bool) -> list[Ended]:
        """Record what came of sends; without `may_wait`, one whose campaign somebody holds is `busy`, and remembered.

        Raises DatabaseUnavailableError; what isn't recorded then is remembered.
        """
        sent = [(one.action, one.result) for one in attempts if one.result is not None]
        ended = self._confirm_apart(sent, may_wait=may_wait)
        return ended + [self._fail(one, one.error, may_wait=may_wait) for one in attempts if one.error is not None]

    def record_rest(self) -> list[Ended]:
        """Record what was left, waiting for nobody; returns what needs no more recording.

        What can't be recorded now is still left, and holds up no other; with the database away everything is.
        """
        over: list[Ended] = []
        with self._mutex:
            left = sorted(self._left)
        for key in left:
            attempt = self._take(key)
            if attempt is None:
                continue
            try:
                ended = self.record([attempt], may_wait=False)
            except DatabaseUnavailableError:
                return over
            except Exception as error:  # noqa: BLE001 - it holds up no other
                report_unexpected("maintenance.error", error)
                ended = []
            finally:
                is_left = bool(self.leave([attempt.action]))
            if not is_left:
                over += ended or [Ended(attempt.action, outcome.GONE)]
        return over

    def _take(self, key: Key) -> Attempt | None:
        """What was left under this key, for one thread alone."""
        with self._mutex:
            if key not in self._left:
                return None
            self._left.discard(key)
            return self._unrecorded.get(key)

    def _forget(self, keys: set[Key]) -> None:
        with self._mutex:
            for key in keys:
                self._unrecorded.pop(key, None)
            self._left -= keys

    def _confirm_apart(self, sent: Sequence[Sent], *, may_wait: bool) -> list[Ended]:
        """`_confirm`, so that one that can't be recorded ends alone, as `error`: its mail is not sent again."""
        try:
            return self._confirm(sent, may_wait=may_wait)
        except Exception as error:
            if is_transient(error):
                if is_lock_timeout(error.__cause__) and len(sent) == 1:
                    return [Ended(sent[0][0], outcome.BUSY)]
                raise
            if len(sent) == 1:
                return [self._give_up(sent[0][0], error)]
        emit("batch.split", size=len(sent))
        middle = len(sent) // 2
        halves = (sent[:middle], sent[middle:])
        return [one for half in halves for one in self._confirm_apart(half, may_wait=may_wait)]

    def _give_up(self, action: ScheduledAction, error: Exception) -> Ended:
        ended = self._stores.database.run(
            lambda transaction: self._failed.park(transaction, self._owner.id, action, error)
        )
        self._forget({action.key})
        return ended

    def _confirm(self, sent: Sequence[Sent], *, may_wait: bool) -> list[Ended]:
        """Record that mails went out; those whose campaign somebody holds are recorded one by one afterwards."""
        if not sent:
            return []

        def confirm(transaction: Transaction) -> tuple[set[Key], list[Sent], datetime]:
            self._limit(transaction, may_wait=may_wait)
            return *self._confirmations.by_owner(transaction, self._owner.id, sent), transaction.now

        completed, waiting, now = self._stores.database.run(confirm)
        self._forget({action.key for action, _ in sent} - {action.key for action, _ in waiting})
        done = [action for action, _ in sent if action.key in completed]
        for action in done:
            self._tell_ended(action, outcome.SENT, now)
        ended = [Ended(action, outcome.SENT, is_final=True) for action in done]
        return ended + [one for held in waiting for one in self._confirm_apart([held], may_wait=may_wait)]

    def _fail(self, attempt: Attempt, error: Exception, *, may_wait: bool) -> Ended:
        action, personal = attempt.action, attempt.personal

        def fail(transaction: Transaction) -> Ended:
            self._limit(transaction, may_wait=may_wait)
            return self._failed.record(transaction, self._owner.id, action, error, personal)

        try:
            ended = self._stores.database.run(fail)
        except DatabaseUnavailableError as unavailable:
            if is_lock_timeout(unavailable.__cause__):
                return Ended(action, outcome.BUSY)
            raise
        self._forget({action.key})
        return ended

    @staticmethod
    def _limit(transaction: Transaction, *, may_wait: bool) -> None:
        if not may_wait:
            transaction.wait_at_most(PATIENCE)

    def _tell_ended(self, action: ScheduledAction, name: str, now: datetime) -> None:
        self._metrics.ended(action.action_type, action.event_type, name)
        log_action(action, name, now)
