"""An installation moves from one database to another: all of it, or nothing.

The target gets everything in one transaction, compared with the source before it commits. The source is locked
against writes all the while, and paused as a whole in the end, so that nothing fires in both. Who dies in between the
two commits leaves a target that is complete, and a source that isn't paused: the copy says so when it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from scheduler.domain.errors import InvalidInputError, SchedulerError
from scheduler.domain.pausing import Paused
from scheduler.store.copying import NAMES, Copying
from scheduler.store.database import Database, Transaction
from scheduler.store.schema import current_version, newest_version
from scheduler.store.stores import Stores

PIECE: Final = 5000
_SILENT_FOR: Final = timedelta(minutes=2)

Told = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """How many rows of each table were copied, or would be; `is_paused`: the source was paused in the end."""

    rows: Mapping[str, int]
    is_paused: bool


class InstallationCopy:
    """Copies from `source` to `target`. For one thread."""

    def __init__(self, source: Stores, target: Stores) -> None:
        self._source = source
        self._target = target
        self._from = Copying(source.database)
        self._to = Copying(target.database)

    def preview(self) -> Copied:
        """How many rows there are to copy. Refuses what `run` would refuse, and changes nothing."""
        self._require_versions(is_target_made=current_version(self._target.database) is not None)
        if current_version(self._target.database) is not None:
            with self._target.database.reading() as transaction:
                self._require_empty(transaction)
        with self._source.database.reading() as transaction:
            self._require_nobody_fires(transaction)
            return Copied(self._from.counts(transaction), is_paused=False)

    def run(self, actor: str | None, told: Told, *, pauses_source: bool = True, piece: int = PIECE) -> Copied:
        """Copy; `told` is called with each table's name and how many of its rows are there.

        Raises InvalidInputError where either database isn't fit for it, SchedulerError where the counts differ.
        """
        self._require_versions(is_target_made=True)
        with self._source.database.transaction() as source:
            self._from.lock(source, reading=True)
            self._require_nobody_fires(source)
            with self._target.database.transaction() as target:
                self._to.lock(target, reading=False)
                self._require_empty(target)
                copied = self._copy(source, target, told, piece)
                self._verify(target, copied)
                self._record(self._target, target, "installation.copied", actor, copied)
            if pauses_source:
                self._pause(source, actor)
        return Copied(copied, is_paused=pauses_source)

    def _copy(self, source: Transaction, target: Transaction, told: Told, piece: int) -> dict[str, int]:
        copied = dict.fromkeys(NAMES, 0)
        for name in NAMES:
            for rows in self._from.pieces(source, name, piece):
                self._to.insert(target, name, rows)
                copied[name] += len(rows)
                told(name, copied[name])
        counts = self._from.counts(source)
        if counts != copied:
            raise SchedulerError(f"the source has {counts} rows, and {copied} were read: nothing was copied")
        return copied

    def _verify(self, target: Transaction, copied: Mapping[str, int]) -> None:
        counts = self._to.counts(target)
        if counts != copied:
            raise SchedulerError(f"the target has {counts} rows where {copied} were written: nothing was copied")

    def _require_versions(self, *, is_target_made: bool) -> None:
        sides = {"FROM": self._source.database, "TO": self._target.database}
        if not is_target_made:
            del sides["TO"]
        for name, database in sides.items():
            found = current_version(database)
            if found != newest_version():
                remedy = f"run `timeout-scheduler db upgrade` on it: it needs the schema {newest_version()}"
                raise InvalidInputError(name, f"schema {found or 'missing'}", remedy)
        if is_target_made and _is_same(self._source.database, self._target.database):
            raise InvalidInputError("TO", "the same database", "give another one than FROM, or than a copy of its file")

    def _require_empty(self, transaction: Transaction) -> None:
        filled = self._to.filled(transaction)
        if filled:
            remedy = (
                "give an empty database. If a copy ended here, and only pausing FROM did not: pause it "
                "(`campaigns pause --all`), and never start a daemon on it again"
            )
            raise InvalidInputError("TO", f"rows in {', '.join(filled)}", remedy)

    def _require_nobody_fires(self, transaction: Transaction) -> None:
        """A process on SQLite holds a lock on the file, which whoever calls this has; on PostgreSQL it is noted."""
        if not self._source.database.is_postgresql:
            return
        instances = self._source.instances
        real = instances.read_real(transaction)
        alive = [
            one.instance_name
            for one in instances.select(transaction)
            if one.stopped_at is None and not one.is_cut_off and real - one.seen_at < _SILENT_FOR
        ]
        if alive:
            raise InvalidInputError("FROM", f"fired by {', '.join(alive)}", "stop what fires there, and what writes")

    def _pause(self, transaction: Transaction, actor: str | None) -> None:
        """Nothing fires in both."""
        paused, reason = Paused(), "copied to another database"
        self._source.pauses.begin(transaction, paused.scope, paused.key, actor=actor, reason=reason)
        self._record(self._source, transaction, "all.paused", actor, {}, reason=reason)

    @staticmethod
    def _record(
        stores: Stores, transaction: Transaction, act: str, actor: str | None, rows: Mapping[str, int], **more: Any
    ) -> None:
        stores.operator_actions.record(transaction, act, None, None, actor, {**more, **rows})


def _is_same(one: Database, other: Database) -> bool:
    return one.installation_id == other.installation_id
