"""Many actions retried, canceled or given up, beside daemons that fire: piece by piece, each a short transaction.

What was done when it is cut short stays done, and beginning again goes on with the rest: what is changed already is no
longer found. Campaigns are locked first, in key order, as everywhere; those that somebody holds are waited for a
moment, after the others of their piece.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

from scheduler.domain.bulk import BulkFilter, BulkPreview, BulkProgress, Found, Verb
from scheduler.domain.campaign import Campaign
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.domain.outcome import CANCELED_BY_HAND, GIVEN_UP_BY_HAND
from scheduler.service.reopening import Reopening
from scheduler.store.bulk_actions import BulkActions
from scheduler.store.database import Transaction
from scheduler.store.errors import is_lock_timeout
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit

PIECE: Final = 1000
SAMPLE: Final = 10
_PIECES_READ: Final = 50
_PATIENCE: Final = timedelta(seconds=5)
_NO_REASON: Final = {Verb.RETRY: None, Verb.CANCEL: CANCELED_BY_HAND, Verb.GIVE_UP: GIVEN_UP_BY_HAND}

Key = tuple[str, str]


class BulkChanges:
    """One verb on many actions. For one thread."""

    def __init__(self, stores: Stores, verb: Verb, wanted: BulkFilter, reopening: Reopening) -> None:
        self._stores = stores
        self._reopening = reopening
        self._verb = verb
        self._wanted = wanted
        self._statements = BulkActions(stores.database, verb)

    def preview(self) -> BulkPreview:
        """What `run` would do now. Nothing is locked or written."""
        with self._stores.database.reading() as transaction:
            return self._statements.preview(transaction, self._wanted, SAMPLE)

    def run(self, actor: str | None, reason: str | None, piece: int = PIECE) -> Generator[BulkProgress]:
        """Do it; yields after each piece what has been done so far.

        `operator_actions` gets a row with the first change, and one with the sum at the end, also when the iteration is
        given up.
        """
        record = _Record(self._stores, self._verb, self._wanted, actor, reason)
        progress = BulkProgress()
        try:
            for found in self._pieces(piece):
                done, busy = self._stores.database.run(partial(self._change_free, found=found, record=record))
                progress = progress.plus(done)
                if busy:
                    progress = progress.plus(self._change_busy(busy, record))
                yield progress
        finally:
            record.end(progress)

    def _pieces(self, most: int) -> Iterator[Sequence[Found]]:
        """What was there at the beginning, piece by piece; what fails, or is scheduled, meanwhile is left alone.

        Many pieces are read at once: a cohort may have failed at the same instant, and then each read walks all of it.
        """
        database, wanted, cursor = self._stores.database, self._wanted, None
        while True:
            with database.reading() as transaction:
                wanted = wanted if wanted.until is not None else replace(wanted, until=transaction.now)
                found = self._statements.find(transaction, wanted, cursor, most * _PIECES_READ)
            yield from (found[start : start + most] for start in range(0, len(found), most))
            if len(found) < most * _PIECES_READ:
                return
            cursor = self._statements.cursor(wanted, found[-1])

    def _change_free(
        self, transaction: Transaction, found: Sequence[Found], record: _Record
    ) -> tuple[BulkProgress, list[Found]]:
        campaigns = self._stores.campaigns.lock_free(transaction, {one.campaign_key for one in found})
        missing = {one.campaign_key for one in found} - campaigns.keys()
        held = self._stores.campaigns.read(transaction, missing).keys()
        busy = [one for one in found if one.campaign_key in held]
        return self._change(
            transaction, [one for one in found if one.campaign_key not in held], campaigns, record
        ), busy

    def _change_busy(self, busy: Sequence[Found], record: _Record) -> BulkProgress:
        def change(transaction: Transaction) -> BulkProgress:
            transaction.wait_at_most(_PATIENCE)
            campaigns = self._stores.campaigns.lock(transaction, {one.campaign_key for one in busy})
            return self._change(transaction, busy, campaigns, record)

        try:
            return self._stores.database.run(change)
        except DatabaseUnavailableError as error:
            if not is_lock_timeout(error.__cause__):
                raise
            return BulkProgress(busy=len(busy))

    def _change(
        self,
        transaction: Transaction,
        found: Sequence[Found],
        campaigns: dict[Key, Campaign],
        record: _Record,
    ) -> BulkProgress:
        left = [one for one in found if self._verb == Verb.RETRY and _is_left(one, campaigns.get(one.campaign_key))]
        over = {one.key for one in left}
        keys = [one.key for one in found if one.key not in over]
        done = self._statements.change(transaction, keys, record.reason or _NO_REASON[self._verb]) if keys else set()
        if done:
            record.begin(transaction)
        if self._verb == Verb.RETRY:
            retried = {one.campaign_key for one in found if one.key in done}
            ended = [campaigns[key] for key in sorted(retried & campaigns.keys()) if campaigns[key].is_finished]
            self._reopening.reopen(transaction, ended)
        return BulkProgress(done=len(done), left=len(left))


class _Record:
    """What stands in `operator_actions` about one run: that it began, and what came of it."""

    def __init__(self, stores: Stores, verb: Verb, wanted: BulkFilter, actor: str | None, reason: str | None) -> None:
        self._stores = stores
        self._act = verb.value.replace("action.", "actions.")
        self._verb = verb
        self._wanted = wanted
        self._actor = actor
        self._run = uuid4().hex
        self._has_begun = False
        self.reason = reason

    def begin(self, transaction: Transaction) -> None:
        """With the first change, in its transaction."""
        if self._has_begun:
            return
        self._write(transaction, "began", {})

        def note() -> None:
            self._has_begun = True

        transaction.on_commit(note)

    def end(self, progress: BulkProgress) -> None:
        """The sum, unless nothing was changed."""
        if not self._has_begun:
            return
        with self._stores.database.transaction() as transaction:
            self._write(transaction, "ended", asdict(progress))
        emit(self._verb, count=progress.done, reason=self.reason, actor=self._actor, **self._wanted.document())

    def _write(self, transaction: Transaction, stage: str, facts: dict[str, Any]) -> None:
        details = {"run": self._run, "stage": stage, "reason": self.reason, **self._wanted.document(), **facts}
        wanted = self._wanted
        self._stores.operator_actions.record(
            transaction, self._act, wanted.tenant_id, wanted.campaign_id, self._actor, details
        )


def _is_left(action: Found, campaign: Campaign | None) -> bool:
    return campaign is not None and not campaign.lets_retry(action.action_type, action.node_visit)
