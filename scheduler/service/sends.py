"""Due sends: checked at the last moment, handed to the handler outside of any transaction, confirmed.

At least once: a process that dies between the handler and the confirmation sends again after the lease, with the
same idempotency key. One that lives remembers what went out, and confirms it once the database is back. The
confirmation moves the visit's anchor and timeouts to the instant the mail went out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from scheduler.domain import outcome
from scheduler.domain.action import ScheduledAction, require_id
from scheduler.domain.errors import InvalidInputError, PermanentSendError
from scheduler.domain.sending import SendHandler, SendRequest, SendResult
from scheduler.domain.timing import require_aware
from scheduler.service.canonical_line import log_action
from scheduler.service.confirming import Confirmations, Sent
from scheduler.service.event_intake import EventIntake
from scheduler.service.failed_sends import FailedSends
from scheduler.service.last_look import LastLook, Ready
from scheduler.service.lease_clock import lease_clock
from scheduler.service.owner import Owner
from scheduler.service.persist import DecisionWriter
from scheduler.service.results import Ended
from scheduler.settings import Settings
from scheduler.store.database import Transaction
from scheduler.store.errors import is_transient
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics

Key = tuple[str, str]

SMALLEST_BATCH: Final = 1
# In seconds. A lease so short that a look alone takes half of it protects nothing.
_SHORTEST_FRESHNESS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One send that was tried."""

    action: ScheduledAction
    result: SendResult | None = None
    error: Exception | None = None


class Sends:
    """Sends claimed sends with one handler, as one owner. Thread-safe as far as the handler is."""

    def __init__(
        self,
        stores: Stores,
        writer: DecisionWriter,
        handler: SendHandler,
        settings: Settings,
        metrics: Metrics,
        owner: Owner,
    ) -> None:
        self._stores = stores
        self._handler = handler
        self._metrics = metrics
        self._owner = owner
        self._lease = settings.lease
        self._fresh_for = max(settings.lease.total_seconds() / 2, _SHORTEST_FRESHNESS)
        self._last_look = LastLook(stores, writer, metrics)
        self._failed = FailedSends(stores, writer, settings, metrics)
        self._confirmations = Confirmations(stores, writer, EventIntake(stores, writer, metrics))
        self._unconfirmed: dict[Key, SendResult] = {}

    @property
    def batch_size(self) -> int:
        """How many sends share their transactions: more than one only where a handler says it is instant."""
        return int(getattr(self._handler, "batch_size", SMALLEST_BATCH))

    def send(self, claimed: Sequence[ScheduledAction]) -> list[Ended]:
        """Send what is claimed; returns what became of each. Raises DatabaseUnavailableError when that is away."""
        ended: list[Ended] = []
        for start in range(0, len(claimed), self.batch_size):
            ended += self._send_together(claimed[start : start + self.batch_size])
        return ended

    def _send_together(self, claimed: Sequence[ScheduledAction]) -> list[Ended]:
        sent = [(action, self._unconfirmed[action.key]) for action in claimed if action.key in self._unconfirmed]
        attempts, ended = self._try_all([action for action in claimed if action.key not in self._unconfirmed])
        return ended + self._conclude([_Attempt(action, result=result) for action, result in sent] + attempts)

    def _try_all(self, waiting: Sequence[ScheduledAction]) -> tuple[list[_Attempt], list[Ended]]:
        """Look, and hand over what was found fit. Whoever is stopped in between for long has to look again.

        The last look renews the lease. When much of it is over by the time a mail is to go out, the process was
        stopped or suspended, and somebody else may have the claim by now.
        """
        attempts: list[_Attempt] = []
        ended: list[Ended] = []
        while waiting:
            looked_at = lease_clock()
            ready, over = self._prepare_apart(waiting)
            ended += over
            waiting = []
            for place, (action, request) in enumerate(ready):
                if lease_clock() - looked_at > self._fresh_for:
                    waiting = [late for late, _ in ready[place:]]
                    break
                attempts.append(self._try(action, request))
        return attempts, ended

    def _prepare_apart(self, claimed: Sequence[ScheduledAction]) -> tuple[list[Ready], list[Ended]]:
        """`_prepare`, so that one that can't be prepared fails alone."""
        if not claimed:
            return [], []
        try:
            return self._prepare(claimed)
        except Exception as error:
            if is_transient(error):
                raise
            if len(claimed) == 1:
                return [(claimed[0], error)], []
        emit("batch.split", size=len(claimed))
        middle = len(claimed) // 2
        (first, ended), (second, more) = map(self._prepare_apart, (claimed[:middle], claimed[middle:]))
        return first + second, ended + more

    def _prepare(self, claimed: Sequence[ScheduledAction]) -> tuple[list[Ready], list[Ended]]:
        """The last look before sending: what no longer applies ends here, and is not sent."""
        database, owner = self._stores.database, self._owner.id
        looked = database.run(lambda transaction: self._last_look.look(transaction, owner, claimed, self._lease))
        settled = []
        if looked.doubtful:
            settled = database.run(lambda transaction: self._last_look.settle(transaction, owner, looked.doubtful))
        return looked.ready, looked.ended + settled

    def _try(self, action: ScheduledAction, request: SendRequest | Exception) -> _Attempt:
        if isinstance(request, Exception):
            return _Attempt(action, error=request)
        started = time.perf_counter()
        try:
            result = _checked(self._handler(request))
            self._unconfirmed[action.key] = result
            return _Attempt(action, result=result)
        except Exception as error:  # noqa: BLE001 - a user's handler
            return _Attempt(action, error=error)
        finally:
            self._metrics.sent(time.perf_counter() - started)

    def _conclude(self, attempts: Sequence[_Attempt]) -> list[Ended]:
        ended = self._confirm_apart([(one.action, one.result) for one in attempts if one.result is not None])
        return ended + [self._fail(one.action, one.error) for one in attempts if one.error is not None]

    def _confirm_apart(self, sent: Sequence[Sent]) -> list[Ended]:
        """`_confirm`, so that one that can't be recorded ends alone, as `error`: its mail is not sent again."""
        try:
            return self._confirm(sent)
        except Exception as error:
            if is_transient(error):
                raise
            if len(sent) == 1:
                return [self._give_up(sent[0][0], error)]
        emit("batch.split", size=len(sent))
        middle = len(sent) // 2
        return self._confirm_apart(sent[:middle]) + self._confirm_apart(sent[middle:])

    def _give_up(self, action: ScheduledAction, error: Exception) -> Ended:
        ended = self._stores.database.run(
            lambda transaction: self._failed.park(transaction, self._owner.id, action, error)
        )
        self._unconfirmed.pop(action.key, None)
        return ended

    def _confirm(self, sent: Sequence[Sent]) -> list[Ended]:
        """Record that mails went out; those whose campaign somebody holds are recorded one by one afterwards."""
        if not sent:
            return []

        def confirm(transaction: Transaction) -> tuple[set[Key], list[Sent], datetime]:
            return *self._confirmations.by_owner(transaction, self._owner.id, sent), transaction.now

        completed, waiting, now = self._stores.database.run(confirm)
        for key in {action.key for action, _ in sent} - {action.key for action, _ in waiting}:
            self._unconfirmed.pop(key, None)
        done = [action for action, _ in sent if action.key in completed]
        for action in done:
            self._tell_ended(action, outcome.SENT, now)
        ended = [Ended(action, outcome.SENT, is_final=True) for action in done]
        return ended + [one for held in waiting for one in self._confirm([held])]

    def _fail(self, action: ScheduledAction, error: Exception) -> Ended:
        return self._stores.database.run(
            lambda transaction: self._failed.record(transaction, self._owner.id, action, error)
        )

    def _tell_ended(self, action: ScheduledAction, name: str, now: datetime) -> None:
        self._metrics.ended(action.action_type, action.event_type, name)
        log_action(action, name, now)


def _checked(result: object) -> SendResult:
    """A handler may answer nothing, or a `SendResult`. An unusable answer is no reason to send again: permanent."""
    if result is None:
        return SendResult()
    if not isinstance(result, SendResult):
        raise PermanentSendError(f"the send handler answered a {type(result).__name__}: give a SendResult or None")
    try:
        if result.message_id is not None:
            require_id("message_id", result.message_id)
        return result if result.sent_at is None else replace(result, sent_at=require_aware("sent_at", result.sent_at))
    except InvalidInputError as error:
        raise PermanentSendError(f"the send handler's answer is unusable: {error}") from error
