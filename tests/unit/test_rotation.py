"""Whose turn it is: everybody comes in due time, however many there are; and a batch is shared out equally."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.runtime.rotation import Rotation, share_out

NAMES = st.text("abc", min_size=1, max_size=3)
TENANTS = st.dictionaries(NAMES, st.booleans(), min_size=1)


def walk(tenants: dict[str, bool], after: str, most: int) -> list[tuple[str, bool]]:
    """What the database answers."""
    return sorted((name, is_due) for name, is_due in tenants.items() if name > after)[:most]


@given(tenants=TENANTS, probes=st.integers(1, 10), places=st.integers(1, 10), newest=st.sets(NAMES, max_size=10))
def test_every_tenant_with_something_due_has_its_turn_in_each_lap(
    tenants: dict[str, bool], probes: int, places: int, newest: set[str]
) -> None:
    rotation = Rotation()
    seen: set[str] = set()

    for _ in range(2 * len(tenants) + 2):
        walked = walk(tenants, rotation.after, probes)
        late = [] if rotation.knows_all(walked, probes) else sorted(newest)
        chosen = rotation.take(walked, late, probes, places)
        assert len(chosen) == len(set(chosen)) <= places
        seen.update(chosen)

    assert seen >= {name for name, is_due in tenants.items() if is_due}


def test_what_fell_due_last_gets_half_of_the_places_where_not_everybody_is_known() -> None:
    rotation = Rotation()
    tenants = {f"t-{number}": True for number in range(9)}

    chosen = rotation.take(walk(tenants, "", 4), ["new-1", "t-1", "new-2", "new-3", "new-4"], 4, 6)

    assert chosen == ["t-0", "t-1", "t-2", "new-1", "new-2", "new-3"]
    assert rotation.after == "t-2"


def test_where_there_is_one_place_both_sides_have_it_by_turns() -> None:
    rotation = Rotation()
    tenants = {f"t-{number}": True for number in range(9)}

    chosen = [rotation.take(walk(tenants, rotation.after, 4), ["new"], 4, 1) for _ in range(4)]

    assert chosen == [["new"], ["t-0"], ["new"], ["t-1"]]


def test_a_place_that_nobody_late_wants_goes_to_the_next_one() -> None:
    rotation = Rotation()

    chosen = rotation.take([("a", True), ("b", False), ("c", True)], ["a"], 3, 2)

    assert chosen == ["a", "c"]


QUOTAS = st.dictionaries(NAMES, st.integers(0, 100))


@given(quotas=QUOTAS, most=st.integers(0, 500))
def test_a_batch_is_filled_and_nobody_gets_more_than_its_quota(quotas: dict[str, int], most: int) -> None:
    portions = share_out(quotas, most)

    assert sum(portions.values()) == min(most, sum(quotas.values()))
    assert all(0 < portion <= quotas[name] for name, portion in portions.items())


@given(quotas=QUOTAS, most=st.integers(0, 500))
def test_nobody_gets_more_than_another_who_could_take_more(quotas: dict[str, int], most: int) -> None:
    portions = share_out(quotas, most)
    short = [portions.get(name, 0) for name, quota in quotas.items() if portions.get(name, 0) < quota]

    assert max(portions.values(), default=0) <= min(short, default=500) + 1


def test_equal_portions_where_nobody_is_bound() -> None:
    assert share_out({"a": 500, "b": 500, "c": 3}, 103) == {"a": 50, "b": 50, "c": 3}
