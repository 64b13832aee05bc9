"""Token buckets: never more than the rate, never less where it is wanted, and no wait for who stays below it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.runtime.pace import Bucket, Pace

RATES = st.floats(0.01, 10_000)


def test_a_second_s_worth_goes_through_at_once_and_then_a_tenth_of_it_every_tenth_of_a_second() -> None:
    bucket = Bucket(50, now=0.0)
    at_once = bucket.available(0.0)
    bucket.take(at_once, 0.0)

    assert at_once == 50
    assert [bucket.available(0.05), bucket.wait(0.05)] == [0, pytest.approx(0.05)]
    assert bucket.available(0.1) == 5


def test_a_rate_below_one_lets_one_through_at_a_time() -> None:
    bucket = Bucket(0.1, now=0.0)
    at_once = bucket.available(0.0)
    bucket.take(1, 0.0)

    assert at_once == 1
    assert bucket.wait(0.0) == pytest.approx(10)
    assert [bucket.available(9.9), bucket.available(10.0), bucket.available(1000.0)] == [0, 1, 1]


@given(rate=RATES, steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20_000)), max_size=50))
def test_never_more_goes_through_than_the_rate_and_one_second_s_worth(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    now, through = 0.0, 0
    bucket = Bucket(rate, now)

    for pause, wanted in steps:
        now += pause
        given_now = min(wanted, bucket.available(now))
        bucket.take(given_now, now)
        through += given_now
        assert through <= rate * now + max(rate, 1) + 1e-6 * through + 1e-6


@given(rate=RATES)
def test_who_comes_back_when_told_gets_the_whole_rate(rate: float) -> None:
    now, through = 0.0, 0
    bucket = Bucket(rate, now)

    for _ in range(100):
        available = bucket.available(now)
        assert available > 0
        bucket.take(available, now)
        through += available
        now += bucket.wait(now)

    assert through >= rate * now - 1


@given(rate=RATES, part=st.floats(0.1, 0.99))
def test_a_steady_flow_below_the_rate_never_waits(rate: float, part: float) -> None:
    bucket = Bucket(rate, 0.0)

    for number in range(100):
        now = number / (rate * part)
        assert bucket.available(now) > 0
        bucket.take(1, now)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = Bucket(10, now=100.0)
    bucket.take(10, 100.0)

    assert bucket.available(50.0) == 0
    assert bucket.available(100.05) == 0
    assert bucket.available(100.1) == 1


def test_without_rates_everything_may_go_at_once() -> None:
    pace = Pace(None, None, now=0.0)
    pace.took({"acme": 10_000}, 0.0)

    assert (pace.available(500, 0.0), pace.quota("acme", 500, 0.0)) == (500, 500)
    assert (pace.wait(0.0), pace.wait_of_held_back(0.0)) == (0, None)


def test_instances_share_both_rates_equally() -> None:
    pace = Pace(100, 10, now=0.0)
    pace.share_among(4, 0.0)

    assert (pace.available(500, 0.0), pace.quota("acme", 500, 0.0)) == (25, 2)
    pace.share_among(1, 0.0)
    assert (pace.available(500, 1.0), pace.quota("acme", 500, 1.0)) == (100, 10)


def test_each_tenant_has_a_rate_of_its_own() -> None:
    pace = Pace(None, 10, now=0.0)
    pace.took({"acme": 10, "globex": 4}, 0.0)

    quotas = {tenant_id: pace.quota(tenant_id, 500, 0.0) for tenant_id in ("acme", "globex", "initech")}

    assert quotas == {"acme": 0, "globex": 6, "initech": 10}


def test_tenants_that_were_held_back_go_on_in_the_order_they_wait_in_when_they_may() -> None:
    pace = Pace(None, 10, now=0.0)
    pace.took({"acme": 10, "initech": 10}, 0.0)
    for tenant_id in ("acme", "globex", "initech", "globex", "acme"):
        pace.hold_back(tenant_id)

    assert pace.held_back(5, 0.0) == ["globex"]
    assert pace.held_back(5, 0.1) == ["initech", "globex", "acme"]
    assert pace.held_back(2, 0.1) == ["initech", "globex"]
    pace.let_go("globex")
    assert pace.wait_of_held_back(0.0) == pytest.approx(0)
    assert pace.held_back(5, 0.1) == ["initech", "acme"]


def test_tells_when_the_first_tenant_that_was_held_back_may_go_on() -> None:
    pace = Pace(None, 10, now=0.0)
    pace.took({"acme": 10}, 0.0)
    pace.hold_back("acme")

    assert pace.wait_of_held_back(0.04) == pytest.approx(0.06)


def test_tenants_of_which_nothing_was_fired_lately_are_forgotten() -> None:
    pace = Pace(None, 10, now=0.0)
    for number in range(10_000):
        pace.took({f"t-{number}": 1}, float(number))

    assert len(pace._of) < 2_500  # noqa: SLF001 - how much is remembered shows nowhere else
