"""Due sends: checked at the last moment, handed to the handler outside of any transaction, confirmed.

At least once: a process that dies between the handler and the confirmation sends again after the lease, with the
same idempotency key. One that lives remembers what went out, and confirms it once the database is back. The
confirmation moves the visit's anchor and timeouts to the instant the mail went out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from scheduler.domain.action import ScheduledAction, require_id
from scheduler.domain.errors import InvalidInputError, PermanentSendError
from scheduler.domain.sending import SendHandler, SendRequest, SendResult
from scheduler.domain.timing import require_aware
from scheduler.service.last_look import LastLook, Ready
from scheduler.service.lease_clock import lease_clock
from scheduler.service.owner import Owner
from scheduler.service.persist import DecisionWriter
from scheduler.service.results import Ended
from scheduler.service.send_records import Attempt, SendRecords
from scheduler.settings import Settings
from scheduler.store.errors import is_transient
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics

SMALLEST_BATCH: Final = 1
# In seconds. A lease so short that a look alone takes half of it protects nothing.
_SHORTEST_FRESHNESS: Final = 1.0


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
        self._records = SendRecords(stores, writer, settings, metrics, owner)
        self._lease = settings.lease
        self._fresh_for = max(settings.lease.total_seconds() / 2, _SHORTEST_FRESHNESS)
        self._last_look = LastLook(stores, writer, metrics)

    @property
    def batch_size(self) -> int:
        """How many sends share their transactions: more than one only where a handler says it is instant."""
        return int(getattr(self._handler, "batch_size", SMALLEST_BATCH))

    def fire(self, claimed: Sequence[ScheduledAction], *, may_wait: bool = False) -> list[Ended]:
        """Send what is claimed; returns what became of each. Raises DatabaseUnavailableError when that is away.

        Without `may_wait` a mail whose campaign somebody holds is `busy`: what came of it is recorded later (`leave`).
        """
        ended: list[Ended] = []
        for start in range(0, len(claimed), self.batch_size):
            ended += self._send_together(claimed[start : start + self.batch_size], may_wait=may_wait)
        return ended

    def leave(self, claimed: Sequence[ScheduledAction]) -> list[ScheduledAction]:
        """Nobody works on these any more; returns those whose outcome is known here and not recorded yet.

        Their claims stay in hand, so that nobody else sends them, until `record_rest` has recorded them.
        """
        return self._records.leave(claimed)

    def record_rest(self) -> list[Ended]:
        """Record what was left, as far as that is possible without waiting for anybody; returns what ended so."""
        return self._records.record_rest()

    def _send_together(self, claimed: Sequence[ScheduledAction], *, may_wait: bool) -> list[Ended]:
        known = self._records.known(claimed)
        keys = {attempt.action.key for attempt in known}
        attempts, ended = self._try_all([action for action in claimed if action.key not in keys])
        return ended + self._records.record([*known, *attempts], may_wait=may_wait)

    def _try_all(self, waiting: Sequence[ScheduledAction]) -> tuple[list[Attempt], list[Ended]]:
        """Look, and hand over what was found fit. Whoever is stopped in between for long has to look again.

        The last look renews the lease. When much of it is over by the time a mail is to go out, the process was
        stopped or suspended, and somebody else may have the claim by now.
        """
        attempts: list[Attempt] = []
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

    def _try(self, action: ScheduledAction, request: SendRequest | Exception) -> Attempt:
        """Whatever comes of it is remembered until it is recorded: a mail that went out isn't sent again."""
        if isinstance(request, Exception):
            return Attempt(action, error=request)
        started = time.perf_counter()
        try:
            attempt = Attempt(action, result=_checked(self._handler(request)))
        except Exception as error:  # noqa: BLE001 - a user's handler
            attempt = Attempt(action, error=error, personal=request.personal_texts)
        self._metrics.sent(time.perf_counter() - started)
        self._records.remember(attempt)
        return attempt


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
