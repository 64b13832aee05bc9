"""Looks at the table that serve more than one, without a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.lookout import Lookout
from scheduler.store.outlook import Outlook
from tests.support.outlooks import outlook

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Table:
    """Tells how often it was asked, by when the next is due."""

    def __init__(self) -> None:
        self.looks = 0
        self.second = 0.0
        self.is_read_only = False
        self.breaks = False
        self.invalidated = 0
        self.real_clock = SimpleNamespace(now=lambda: NOON)

    @contextmanager
    def one_statement(self, *, writing: bool) -> Iterator[Any]:
        """A connection, which may break as it is given back."""
        assert not writing
        yield SimpleNamespace(connection=SimpleNamespace(invalidate=self._invalidate))
        if self.breaks:
            raise DatabaseUnavailableError("away")

    def read(self, _transaction: Any) -> Outlook:
        """A look; it takes a second."""
        self.looks += 1
        self.second += 1
        return outlook(NOON, [NOON + self.looks * SECOND], is_read_only=self.is_read_only)

    def _invalidate(self) -> None:
        self.invalidated += 1


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def lookout(table: Table) -> Lookout:
    stores: Any = SimpleNamespace(database=table, outlooks=table)
    return Lookout(stores, lambda: table.second)


def test_a_glance_is_the_last_look_unless_that_is_too_old(lookout: Lookout, table: Table) -> None:
    looked = lookout.look().outlook
    assert lookout.glance(SECOND) is looked
    assert lookout.last(SECOND) is looked

    table.second += 0.5  # it was asked for a second and a half ago

    assert lookout.last(SECOND) is None
    assert lookout.glance(SECOND) != looked
    assert table.looks == 2


def test_before_the_first_look_there_is_none(lookout: Lookout, table: Table) -> None:
    assert lookout.last(SECOND) is None
    assert lookout.glance(SECOND) == lookout.last(SECOND)
    assert table.looks == 1


@pytest.mark.parametrize("fault", ["is_read_only", "breaks"])
def test_a_look_that_failed_serves_nobody(lookout: Lookout, table: Table, fault: str) -> None:
    setattr(table, fault, True)

    with pytest.raises(DatabaseUnavailableError):
        lookout.look()

    assert lookout.last(SECOND) is None
    assert table.invalidated == (fault == "is_read_only")
