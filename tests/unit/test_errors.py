import inspect
import pickle
from datetime import timedelta

import pytest

from scheduler.domain import errors
from scheduler.domain.errors import (
    AlreadyRunningError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidPlanError,
    MissingRightError,
    PermanentSendError,
    PlanFault,
    RetryLater,
    SchedulerError,
    SchemaOutdatedError,
    UnknownCampaignError,
    shorten,
)

EVERY_KIND: list[SchedulerError] = [
    SchedulerError("broken"),
    InvalidInputError("tenant_id", "", "give at least one character"),
    InvalidPlanError([PlanFault("$.nodes", None, "it is missing"), PlanFault("$.version", 2, "write 1.0")]),
    UnknownCampaignError("acme", "c-1"),
    SchemaOutdatedError("the tables are missing"),
    AlreadyRunningError("process 7 fires"),
    DatabaseUnavailableError("away"),
    MissingRightError("permission denied for table pauses"),
    RetryLater(timedelta(minutes=5), "the server is busy"),
    RetryLater(),
    PermanentSendError("no such mailbox"),
]


@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: SchedulerError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_every_kind_is_tried_here() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert set(kinds) == {type(error) for error in EVERY_KIND}
    assert all(issubclass(kind, SchedulerError) for kind in kinds)


def test_the_tree_is_drawn_at_the_top_of_the_module() -> None:
    drawn = (errors.__doc__ or "").split()
    assert [type(error).__name__ for error in EVERY_KIND if type(error).__name__ not in drawn] == []


def test_bad_input_names_field_value_and_remedy() -> None:
    error = InvalidInputError("node_visit", 0, "give a whole number from 1 on")
    assert str(error) == "node_visit: 0 is not usable: give a whole number from 1 on"
    assert isinstance(error, ValueError)


def test_a_bad_plan_names_every_fault() -> None:
    error = EVERY_KIND[2]
    assert isinstance(error, InvalidPlanError)
    assert str(error) == "the plan is not usable:\n  $.nodes: None: it is missing\n  $.version: 2: write 1.0"
    assert (error.field, error.value, error.remedy) == ("$.nodes", None, "it is missing")


def test_an_unknown_campaign_names_tenant_and_campaign() -> None:
    assert str(UnknownCampaignError("acme", "c-1")) == "tenant 'acme' has no campaign 'c-1': enroll it first"
    assert isinstance(UnknownCampaignError("acme", "c-1"), LookupError)


@pytest.mark.parametrize("after", [timedelta(0), timedelta(days=1), None])
def test_a_retry_says_after_how_long(after: timedelta | None) -> None:
    assert RetryLater(after).after == after


@pytest.mark.parametrize("after", [timedelta(seconds=-1), 300, "PT5M"])
def test_a_retry_refuses_what_is_no_delay(after: object) -> None:
    with pytest.raises(InvalidInputError, match="after"):
        RetryLater(after)  # type: ignore[arg-type]


def test_a_bad_value_cant_flood_a_terminal() -> None:
    assert shorten("x" * 1000) == "'" + "x" * 198 + "…"
    assert len(str(InvalidInputError("plan", "x" * 1_000_000, "write less"))) < 300


def test_a_value_nested_too_deeply_is_still_told() -> None:
    deep: list[object] = []
    for _ in range(50_000):
        deep = [deep]
    assert "nested too deeply" in str(InvalidInputError("metadata", deep, "give less"))


def test_a_number_that_python_writes_no_more_is_still_told() -> None:
    assert "too long to be shown" in str(InvalidInputError("limit", 10**5000, "give less"))
