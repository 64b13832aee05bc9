import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.action import (
    MAX_VISIT,
    UNFINISHED,
    ActionStatus,
    ActionType,
    ScheduledAction,
    TimeoutJob,
    make_dedupe_key,
    require_id,
    tenant_of,
)
from scheduler.domain.errors import InvalidInputError

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DEDUPE_KEY_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "dedupe-key.md"
LONGEST_ID = "x" * 128

Parts = tuple[str, str, str, int, str, str]


def make_job(**overrides: Any) -> TimeoutJob:
    """A timeout to schedule."""
    values: dict[str, Any] = {
        "tenant_id": "acme",
        "campaign_id": "c-1",
        "contact_id": "k-1",
        "node_id": "email_intro",
        "event_type": "no_open",
        "scheduled_at": NOON,
        "node_visit": 1,
    }
    return TimeoutJob(**{**values, **overrides})


def documented_vectors() -> list[tuple[Parts, str]]:
    """The table of the reference: the six parts, and their key."""
    rows = []
    for line in DEDUPE_KEY_PAGE.read_text("utf-8").splitlines():
        cells = re.findall(r"`([^`]*)`", line)
        if line.startswith("| `"):
            tenant, campaign, node, key = (json.loads(cells[index]) for index in (0, 1, 2, 6))
            rows.append(((tenant, campaign, node, int(cells[3]), cells[4], cells[5]), key))
    return rows


def ids() -> st.SearchStrategy[str]:
    """Identifiers, often with the characters that a key is made of."""
    plain = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
    return st.text(st.one_of(st.sampled_from(":%1 30A\x1f\x7f\x85é"), plain), min_size=1, max_size=8)


def parts() -> st.SearchStrategy[Parts]:
    """The six parts of a key."""
    visits = st.integers(1, 111)
    kinds = st.sampled_from(list(ActionType))
    return st.tuples(ids(), ids(), ids(), visits, kinds, st.sampled_from(("no_open", "no_click", "sent")))


def test_the_contracts_example_is_its_key() -> None:
    assert make_job().dedupe_key == "acme:c-1:email_intro:1:timeout:no_open"


@pytest.mark.parametrize(("given_parts", "key"), documented_vectors())
def test_the_documented_vectors_are_the_keys(given_parts: Parts, key: str) -> None:
    assert make_dedupe_key(*given_parts) == key
    assert tenant_of(key) == given_parts[0]


def test_there_are_documented_vectors() -> None:
    assert len(documented_vectors()) == 13


@given(parts(), parts())
def test_two_different_actions_never_share_a_key(one: Parts, other: Parts) -> None:
    assert (make_dedupe_key(*one) == make_dedupe_key(*other)) == (one == other)


@given(ids(), ids())
def test_what_belongs_to_one_part_cant_move_to_the_next(first: str, second: str) -> None:
    moved = make_dedupe_key("t", f"{first}:{second}", "n", 1, "timeout", "no_open")
    assert moved != make_dedupe_key("t", first, f"{second}:n", 1, "timeout", "no_open")


@given(parts())
def test_the_tenant_is_read_back_from_a_key(given_parts: Parts) -> None:
    assert tenant_of(make_dedupe_key(*given_parts)) == given_parts[0]


@given(parts())
def test_a_key_has_five_separators_and_no_control_character(given_parts: Parts) -> None:
    key = make_dedupe_key(*given_parts)
    assert key.count(":") == 5
    assert re.search("[\x00-\x1f\x7f-\x9f]", key) is None


@pytest.mark.parametrize(
    "job_id",
    [
        None,
        7,
        "",
        "acme",
        "acme:c-1:n:1:timeout",
        "acme:c-1:n:1:timeout:no_open:more",
        ":c-1:n:1:timeout:no_open",
        "acme\x00:c-1:n:1:timeout:no_open",
        "acme:c\x00:n:1:timeout:no_open",
        "acme%00:c-1:n:1:timeout:no_open",
        "acme:c-1:n:1:timeout:no_\ud800",
        "%ff:c-1:n:1:timeout:no_open",
        "%ED%A0%80:c-1:n:1:timeout:no_open",
        f"{LONGEST_ID}x:c-1:n:1:timeout:no_open",
    ],
)
def test_what_is_no_job_id_is_refused(job_id: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        tenant_of(job_id)
    assert refused.value.field == "job_id"


@pytest.mark.parametrize("name", ["tenant_id", "campaign_id", "contact_id", "node_id"])
@pytest.mark.parametrize("value", ["", "x" * 129, "a\x00", "\ud800", None, 7, b"acme", ["acme"]])
def test_a_job_refuses_an_unusable_id(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        make_job(**{name: value})
    assert (refused.value.field, refused.value.value) == (name, value)


@pytest.mark.parametrize("value", [LONGEST_ID, "😀" * 128, " ", "a b", "\n", "0"])
def test_an_id_of_up_to_128_characters_is_taken_as_it_is(value: str) -> None:
    assert require_id("tenant_id", value) == value
    assert make_job(tenant_id=value).tenant_id == value


@pytest.mark.parametrize("value", [0, -1, MAX_VISIT + 1, 1.0, "1", True, None])
def test_a_job_refuses_an_unusable_visit(value: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        make_job(node_visit=value)
    assert refused.value.field == "node_visit"


@pytest.mark.parametrize("value", ["opened", "", "no_", "no_no_open", "no open!", None, 7, "no_" + "x" * 62])
def test_a_job_refuses_what_is_no_synthetic_event(value: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        make_job(event_type=value)
    assert refused.value.field == "event_type"


def test_a_job_takes_other_spellings_of_its_event() -> None:
    assert make_job(event_type="No-Opened").dedupe_key == make_job().dedupe_key


@pytest.mark.parametrize("value", [NOON.replace(tzinfo=None), "2026-03-02T12:00:00Z", NOON.date(), 0, None])
def test_a_job_refuses_what_is_no_aware_datetime(value: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        make_job(scheduled_at=value)
    assert refused.value.field == "scheduled_at"


def test_a_job_keeps_its_instant_in_utc() -> None:
    in_tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    job = make_job(scheduled_at=in_tokyo)
    assert job == make_job()
    assert job.scheduled_at.tzinfo is UTC


@pytest.mark.parametrize(
    "mapping",
    [
        {
            "tenantId": "acme",
            "campaignId": "c-1",
            "contactId": "k-1",
            "nodeId": "email_intro",
            "eventType": "no_open",
            "scheduledAt": "2026-03-02T12:00:00Z",
            "nodeVisit": 1,
        },
        {
            "tenant_id": "acme",
            "campaign_id": "c-1",
            "contact_id": "k-1",
            "node_id": "email_intro",
            "event_type": "no_open",
            "scheduled_at": NOON,
        },
    ],
)
def test_a_job_is_read_from_a_mapping_in_either_spelling(mapping: dict[str, Any]) -> None:
    assert TimeoutJob.from_mapping(mapping) == make_job()


def test_a_jobs_mapping_is_json_and_is_read_back() -> None:
    job = make_job(node_visit=3)
    assert TimeoutJob.from_mapping(json.loads(json.dumps(job.to_mapping()))) == job


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenantId": None}, "tenant_id"),
        ({"scheduledAt": "2026-03-02T12:00:00"}, "scheduled_at"),
        ({"scheduledAt": "tomorrow"}, "scheduled_at"),
        ({"nodeVisit": None}, "node_visit"),
        ({"tenant": "acme"}, "tenant"),
        ({1: 2}, "1"),
        ({"tenant_id": "other"}, "tenant_id"),
    ],
)
def test_an_unusable_mapping_is_refused_by_the_name_of_its_field(change: dict[Any, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        TimeoutJob.from_mapping({**make_job().to_mapping(), **change})
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["tenantId", "campaignId", "contactId", "nodeId", "eventType", "scheduledAt"])
def test_a_mapping_without_a_required_field_is_refused(name: str) -> None:
    mapping = make_job().to_mapping()
    del mapping[name]
    with pytest.raises(InvalidInputError, match="is missing"):
        TimeoutJob.from_mapping(mapping)


@pytest.mark.parametrize("value", [None, "acme", [1], 7])
def test_what_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="give a mapping"):
        TimeoutJob.from_mapping(value)


@pytest.mark.parametrize("status", list(ActionStatus))
def test_an_action_is_finished_when_nothing_can_happen_to_it(status: ActionStatus) -> None:
    action = ScheduledAction(
        tenant_id="acme",
        dedupe_key="acme:c-1:n:1:timeout:no_open",
        campaign_id="c-1",
        contact_id="k-1",
        node_id="n",
        node_visit=1,
        action_type="timeout",
        event_type="no_open",
        deadline=NOON,
        run_at=NOON + timedelta(hours=1),
        status=status,
        outcome=None,
        attempts=0,
        last_error=None,
        claimed_by=None,
        claim_number=0,
        claimed_until=None,
        message_id=None,
        sent_at=None,
        created_at=NOON,
        updated_at=NOON,
        finished_at=None,
    )
    assert action.is_finished == (status not in UNFINISHED)
    assert (action.key, action.campaign_key) == (("acme", action.dedupe_key), ("acme", "c-1"))
    assert action.scheduled_at == NOON
