"""Sends for applications that send by themselves: handed out under a lease, confirmed or failed by job id.

Each hand-over claims as an owner of its own, so that two callers never get the same send. What is neither confirmed
nor failed by the end of the lease is due again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction, require_id
from scheduler.domain.errors import InvalidInputError, PermanentSendError, RetryLater
from scheduler.domain.sending import SendRequest
from scheduler.domain.storable import require_text
from scheduler.domain.timing import parse_duration
from scheduler.service.failed_sends import FailedSends
from scheduler.service.last_look import LastLook, Looked
from scheduler.service.persist import DecisionWriter
from scheduler.settings import Settings
from scheduler.store.claims import APPLICATION, is_application
from scheduler.store.database import Transaction
from scheduler.store.errors import is_transient
from scheduler.store.settlements import Return
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics

MOST_AT_ONCE: Final = 10_000
# What is due of a paused tenant is met once, in so many rounds a call at most.
_ROUNDS: Final = 20
_SMALLEST_ROUND: Final = 500


class ExternalSends:
    """Hands sends to applications. Thread-safe."""

    def __init__(
        self, stores: Stores, writer: DecisionWriter, settings: Settings, metrics: Metrics, *, is_external: bool
    ) -> None:
        self._stores = stores
        self._settings = settings
        self._is_external = is_external
        self._look = LastLook(stores, writer, metrics)
        self._failed = FailedSends(stores, writer, settings, metrics)

    def take(
        self, transaction: Transaction, limit: int, tenant_id: str | None, lease: timedelta | str | None
    ) -> list[SendRequest]:
        """Claim due sends for the caller, after the last look; the longest overdue first."""
        self._require_external()
        most = _checked_limit(limit)
        tenant = None if tenant_id is None else require_id("tenant_id", tenant_id)
        span = self._settings.lease if lease is None else _positive("lease", lease)
        self._release_expired(transaction)
        owner = f"{APPLICATION}{uuid4().hex}"
        claimed = self._claim(transaction, most, owner, span, tenant)
        looked = self._look_apart(transaction, owner, claimed, span)
        self._look.settle(transaction, owner, looked.doubtful)
        requests = []
        for action, request in looked.ready:
            if isinstance(request, SendRequest):
                requests.append(request)
            else:
                self._failed.record(transaction, owner, action, request, may_wait=False)
        return requests

    def _claim(
        self, transaction: Transaction, most: int, owner: str, lease: timedelta, tenant_id: str | None
    ) -> list[ScheduledAction]:
        """Due sends; those that are paused give way to those behind them, which a round may claim too many of."""
        claimed: list[ScheduledAction] = []
        size = most
        for _ in range(_ROUNDS):
            found = self._stores.claims.claim(transaction, ActionType.SEND, size, owner, lease, tenant_id)
            claimed += found
            if not found.held or len(claimed) >= most:
                break
            size = max(most - len(claimed), _SMALLEST_ROUND)
        over = [Return(one, ActionStatus.PENDING, one.run_at, one.attempts) for one in claimed[most:]]
        self._stores.settlements.give_back(transaction, owner, over)
        return claimed[:most]

    def fail(
        self,
        transaction: Transaction,
        key: tuple[str, str],
        reason: str,
        retry_after: timedelta | str | None,
        *,
        permanent: bool,
    ) -> bool:
        """An application couldn't send; False unless the send was handed out, or is due."""
        error = _failure(reason, retry_after, permanent=permanent)
        action = self._stores.actions.find(transaction, key)
        if action is None:
            return False
        if action.action_type != ActionType.SEND:
            raise InvalidInputError("job_id", key[1], "give the job id of a send")
        self._stores.campaigns.lock(transaction, [action.campaign_key])
        held = self._held(transaction, key)
        if held is None or held.claimed_by is None:
            return False
        self._failed.record(transaction, held.claimed_by, held, error)
        return True

    def _held(self, transaction: Transaction, key: tuple[str, str]) -> ScheduledAction | None:
        """The send as an application holds it. One whose lease ended, and nobody took since, is claimed for it."""
        action = self._stores.actions.find(transaction, key)
        if action is not None and action.status == ActionStatus.PENDING:
            owner = f"{APPLICATION}{uuid4().hex}"
            return self._stores.claims.claim_one(transaction, key, owner, self._settings.lease)
        is_held = action is not None and action.status == ActionStatus.CLAIMED and is_application(action.claimed_by)
        return action if is_held else None

    def _require_external(self) -> None:
        if not self._is_external:
            raise InvalidInputError(
                "send_handler",
                self._settings.send_handler,
                "set SEND_HANDLER to external, for every process on this database: else two would send the same mail",
            )

    def _release_expired(self, transaction: Transaction) -> None:
        """Also where no daemon fires."""
        count = self._stores.claims.release_expired_sends(transaction)
        if count:
            transaction.on_commit(lambda: emit("claims.recovered", count=count))

    def _look_apart(
        self, transaction: Transaction, owner: str, claimed: Sequence[ScheduledAction], lease: timedelta
    ) -> Looked:
        """`LastLook.look`, so that one that can't be looked at fails alone."""
        if not claimed:
            return Looked()
        try:
            with transaction.all_or_nothing():
                return self._look.look(transaction, owner, claimed, lease)
        except Exception as error:
            if is_transient(error):
                raise
            if len(claimed) == 1:
                return Looked(ready=[(claimed[0], error)])
        emit("batch.split", size=len(claimed))
        middle = len(claimed) // 2
        first, second = (
            self._look_apart(transaction, owner, half, lease) for half in (claimed[:middle], claimed[middle:])
        )
        return Looked(first.ready + second.ready, first.ended + second.ended, first.doubtful + second.doubtful)


def _failure(reason: str, retry_after: timedelta | str | None, *, permanent: bool) -> Exception:
    text = require_text("reason", reason)
    if not isinstance(permanent, bool):
        raise InvalidInputError("permanent", permanent, "give true or false")
    if not permanent:
        return RetryLater(None if retry_after is None else _exact("retry_after", retry_after), text)
    if retry_after is not None:
        raise InvalidInputError("retry_after", retry_after, "leave it out: a permanent failure isn't tried again")
    return PermanentSendError(text)


def _checked_limit(limit: Any) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_AT_ONCE:
        raise InvalidInputError("limit", limit, f"give a whole number from 1 to {MOST_AT_ONCE}")
    return limit


def _exact(field: str, value: timedelta | str) -> timedelta:
    duration = parse_duration(field, value)
    if duration.months:
        raise InvalidInputError(field, value, "use weeks, days, hours, minutes and seconds")
    return duration.exact


def _positive(field: str, value: timedelta | str) -> timedelta:
    length = _exact(field, value)
    if not length:
        raise InvalidInputError(field, value, "give more than nothing")
    return length
