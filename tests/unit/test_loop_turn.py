"""Turns of the scheduling loop, without a database: when it looks at the table, and when it needn't."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.domain.action import ActionType
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.claim_turns import Taken
from scheduler.runtime.lookout import Lookout
from scheduler.runtime.loop_turn import Lane, LoopTurn
from scheduler.runtime.shares import Shares
from scheduler.store.outlook import Outlook
from tests.support.outlooks import outlook
from tests.support.scheduling import make_settings

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOST = 100


def second(number: float) -> datetime:
    return NOON + timedelta(seconds=number)


def small(is_caught_up: bool) -> Shares:  # noqa: FBT001 - one of two
    """Of a tenant that had one, and might have had two."""
    return Shares(frozenset({"small"}), 2, {"small": 1}) if is_caught_up else Shares()


class Table:
    """What is due, the clock, and this process's claims: everything that a turn asks."""

    def __init__(self) -> None:
        self.now = NOON
        self.pending: list[datetime] = []
        self.a_claim_takes = timedelta(0)
        self.looks = 0
        self.at_most = MOST
        self.newcomers: list[datetime] = []
        self.searches: list[datetime] = []
        self.held = 0
        self.is_small_caught_up = False
        self.is_anything_claimed = True
        self.reconciliations = 0
        self.error: Exception | None = None
        self.recovers: list[datetime] = []
        self.given_back: list[Any] = []
        self.is_in_doubt = False
        self.is_paced = False
        self.real_clock = SimpleNamespace(now=lambda: self.now)
        self.clock = None

    @contextmanager
    def one_statement(self, *, writing: bool) -> Iterator[Any]:
        """A transaction that nothing is asked of."""
        assert not writing
        yield None

    def read(self, _transaction: None) -> Outlook:
        """A look."""
        self.looks += 1
        coming = sorted(self.pending + self.newcomers)
        later = next((at for at in coming if at > self.now), None)
        return outlook(
            self.now, coming[:MOST], later_timeout=later, most=MOST, is_anything_claimed=self.is_anything_claimed
        )

    def claim(self, _action_type: ActionType, limit: int) -> Taken:
        """What is due, as much as one claim may have."""
        due = [at for at in sorted(self.pending) if at <= self.now][: min(limit, self.at_most)]
        for at in due:
            self.pending.remove(at)
        self.now += self.a_claim_takes
        actions: list[Any] = [SimpleNamespace(dedupe_key=str(at), run_at=at) for at in due]
        return Taken(actions, has_more=len(due) == self.at_most, shares=small(self.is_small_caught_up))

    def claim_for_newcomers(self, _action_type: ActionType, _limit: int) -> Taken:
        """All that is due of those who have no backlog."""
        self.searches.append(self.now)
        due = [] if self.held else [at for at in self.newcomers if at <= self.now]
        self.newcomers = self.newcomers if self.held or self.error else [at for at in self.newcomers if at > self.now]
        if self.error is not None:
            raise self.error
        actions: list[Any] = [SimpleNamespace(dedupe_key=f"new {at}", run_at=at) for at in due]
        return Taken(actions, self.held, has_more=True, shares=small(bool(due)))

    def reconcile(self) -> None:
        """Once per quarter of a lease."""
        self.reconciliations += 1
        if self.error is not None:
            raise self.error
        self.pending += self.recovers

    def give_back(self, actions: Sequence[Any]) -> None:
        """Due again."""
        self.given_back += actions
        self.pending += [action.run_at for action in actions]

    def wait(self, _action_type: ActionType) -> float:
        """No rates."""
        return 0.0

    def wait_of_held_back(self, _action_type: ActionType) -> None:
        """No rates."""


class Executor:
    """Takes what it is given, unless it is told otherwise."""

    def __init__(self) -> None:
        self.free = 3 * MOST
        self.room_first = 0
        self.batch_size = MOST
        self.refuses = False
        self.claimed: list[Any] = []
        self.gone_first: list[Collection[str]] = []

    def seal(self, goes_first: Collection[str]) -> set[str]:
        """What APScheduler submitted."""
        self.gone_first.append(goes_first)
        taken, self.claimed = self.claimed, []
        return set() if self.refuses else {action.dedupe_key for action in taken}

    def has_room_beside(self, claimed: int) -> bool:
        """For more."""
        return self.free > claimed

    def discard(self) -> None:
        """Nothing is left."""


class Turns:
    """Turns of one loop with one lane, each at its second."""

    def __init__(self, table: Table, executor: Executor) -> None:
        anything: Any = SimpleNamespace(
            loop_turned=lambda: None, clock_skew=lambda _: None, answered=lambda: None, failed=lambda _: None
        )
        stores: Any = SimpleNamespace(database=table, outlooks=table)
        taking: Any = executor
        own: Any = table
        settings = make_settings(poll_interval=HOUR, lease=HOUR)
        self._table = table
        self._executor = executor
        lanes, lookout = [Lane(ActionType.TIMEOUT, taking)], Lookout(stores)
        self.loop = LoopTurn(stores, lanes, settings, anything, own, anything, lookout)
        self.loop.enable()

    def at(self, number: float) -> datetime:
        """One turn; returns when the next one is due."""
        self._table.now = second(number)
        self._executor.claimed = self.loop.claim()
        return self.loop.finish()


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def executor() -> Executor:
    return Executor()


@pytest.fixture
def turns(table: Table, executor: Executor) -> Turns:
    return Turns(table, executor)


def test_one_look_serves_for_all_that_it_has_seen(turns: Turns, table: Table) -> None:
    table.pending = [second(number) for number in (1, 2, 3)]

    assert [turns.at(number) for number in (0, 1, 2)] == [second(1), second(2), second(3)]
    assert table.looks == 1


def test_what_fell_due_during_a_turn_is_claimed_by_the_next_without_a_look(turns: Turns, table: Table) -> None:
    table.pending = [second(1), second(1.5), second(9)]
    turns.at(0)
    looking = table.looks
    table.a_claim_takes = timedelta(seconds=0.6)

    assert turns.at(1) == second(1.5)
    assert turns.at(1.6) == second(9)
    assert table.looks == looking


@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), RuntimeError("nobody thought of it")])
def test_an_error_before_the_claim_is_no_reason_to_turn_again_and_again(
    turns: Turns, table: Table, error: Exception
) -> None:
    """What was seen still holds, and would say for as long that something is due; a look backs off."""
    table.pending = [second(1), second(2)]
    turns.at(0)
    turns.at(1)
    table.is_in_doubt, table.error = True, error

    waits = [turns.at(number) - second(number) for number in (3, 4, 5, 6)]

    assert waits == [timedelta(milliseconds=wait) for wait in (0, 20, 60, 140)]


def test_what_nobody_took_is_seen_at_once(turns: Turns, table: Table, executor: Executor) -> None:
    table.pending = [second(1), second(2)]
    turns.at(0)
    executor.refuses = True

    assert turns.at(1) <= second(1)
    assert [action.run_at for action in table.given_back] == [second(1)]


def test_a_recovery_is_followed_by_a_look(turns: Turns, table: Table) -> None:
    table.pending = [second(1), second(3)]
    turns.at(0)
    table.is_in_doubt = True
    table.recovers = [second(1.5)]

    assert turns.at(1) == second(1.5)


def test_a_claim_that_leaves_something_is_followed_by_a_look(turns: Turns, table: Table, executor: Executor) -> None:
    """More fell due than was seen coming: others have inserted it."""
    table.pending = [second(1)]
    turns.at(0)
    table.pending += [second(1)] * 5
    table.at_most = 3
    executor.free = 3

    assert turns.at(1) <= second(1)
    assert table.looks == 2


def test_something_new_is_looked_for(turns: Turns, table: Table) -> None:
    table.pending = [second(1), second(9)]
    turns.at(0)
    table.pending.append(second(2))
    turns.loop.doubt()

    assert turns.at(1) == second(2)
    assert table.looks == 2


def test_while_nothing_is_claimed_there_is_nothing_to_reconcile(turns: Turns, table: Table) -> None:
    """It is time for it in each turn. At the start nobody has looked yet; after that it takes a claim, or a doubt."""
    counts: list[int] = []
    for is_claimed, is_in_doubt in ((False, False), (False, False), (True, False), (True, False), (False, True)):
        table.is_anything_claimed, table.is_in_doubt = is_claimed, is_in_doubt
        turns.loop.enable()
        turns.at(len(counts))
        counts.append(table.reconciliations)

    assert counts == [1, 1, 1, 2, 3]


def test_who_is_caught_up_while_others_are_not_goes_first_in_that_turn(
    turns: Turns, table: Table, executor: Executor
) -> None:
    table.pending = [second(0)]
    table.is_small_caught_up, table.at_most = True, 1
    turns.at(0)
    turns.at(0)

    assert executor.gone_first == [{"small"}, frozenset()]


@pytest.fixture
def backlog(turns: Turns, table: Table, executor: Executor) -> Turns:
    """A first claim was full, a search found nobody, and there is no room left; at second 5 somebody else's comes."""
    table.pending, table.newcomers, table.at_most = [second(0)] * 5, [second(5)], 1
    turns.at(0)
    executor.free, executor.room_first = 0, MOST
    turns.at(0.1)
    executor.gone_first.clear()
    table.searches.clear()
    return turns


def test_who_has_no_backlog_is_claimed_for_when_that_was_seen_coming_though_there_is_no_room(
    backlog: Turns, table: Table, executor: Executor
) -> None:
    waits = [backlog.at(1), backlog.at(5)]

    assert table.searches == [second(5)]
    assert executor.gone_first == [frozenset(), {"small"}]
    assert waits == [second(5), second(5) + HOUR]


def test_who_has_no_backlog_is_looked_for_when_there_is_something_new(backlog: Turns, table: Table) -> None:
    table.newcomers.append(second(1))
    backlog.loop.doubt()
    backlog.at(1)

    assert table.searches == [second(1)]
    assert table.newcomers == [second(5)]


def test_searches_are_fifty_milliseconds_apart(backlog: Turns, table: Table) -> None:
    table.newcomers = [second(number) for number in (5, 5.01, 5.03)]
    instants = [second(5)]
    for _ in range(2):
        instants.append(backlog.at((instants[-1] - NOON).total_seconds()))

    assert instants[1] == second(5.05)
    assert table.searches == [second(5), second(5.05)]
    assert table.newcomers == []


def test_who_has_no_backlog_goes_before_a_claim_of_everybodys(backlog: Turns, table: Table, executor: Executor) -> None:
    executor.free = MOST

    next_turn = backlog.at(5)

    assert (len(table.pending), table.newcomers, next_turn) == (4, [], second(5))
    backlog.at(5)
    assert len(table.pending) == 3


@pytest.mark.parametrize("change", ["paced", "no express"])
def test_nobody_is_looked_for_with_rates_or_without_an_express(
    backlog: Turns, table: Table, executor: Executor, change: str
) -> None:
    table.is_paced = change == "paced"
    executor.room_first = 0 if change == "no express" else MOST

    assert backlog.at(1) > second(1000)
    backlog.at(5)
    assert table.searches == []


def test_once_all_is_claimed_nobody_is_looked_for(backlog: Turns, table: Table, executor: Executor) -> None:
    executor.free, table.at_most = MOST, MOST
    backlog.at(1)
    executor.free = 0
    backlog.at(5)

    assert table.pending == []
    assert table.searches == []


@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), RuntimeError("nobody thought of it")])
def test_a_search_that_fails_is_made_again_with_more_and_more_patience(
    backlog: Turns, table: Table, error: Exception
) -> None:
    table.error = error
    at = second(5)
    for _ in range(8):
        at = backlog.at((at - NOON).total_seconds())
    table.error = None
    backlog.at(60)

    waits = [(later - sooner).total_seconds() for sooner, later in pairwise(table.searches)]
    assert waits[:6] == pytest.approx([0.05, 0.05, 0.06, 0.14, 0.3, 0.62])
    assert table.newcomers == []


def test_a_search_that_found_only_what_is_paused_is_made_again(backlog: Turns, table: Table) -> None:
    table.held = 3

    next_turn = backlog.at(5)
    table.held = 0
    backlog.at(5.05)

    assert next_turn == second(5.05)
    assert table.newcomers == []


def test_newcomers_that_nobody_took_are_looked_for_again(backlog: Turns, executor: Executor) -> None:
    executor.refuses = True

    assert backlog.at(5) <= second(5.05)


def test_what_nobody_told_of_is_looked_for_within_a_poll_interval(backlog: Turns, table: Table) -> None:
    table.newcomers = []
    next_turn = backlog.at(1)
    table.newcomers = [second(2)]
    backlog.at(3600.1)

    # A poll interval after everybody was asked, at 0 seconds; the turn that looks comes then, too.
    assert next_turn <= second(3600.1)
    assert table.newcomers == []
