from datetime import UTC, datetime, timedelta

from scheduler.cli.demo.clock import PatientClock
from scheduler.testing import SettableClock

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PATIENCE = timedelta(seconds=1)


def test_it_is_real_time_as_long_as_everybody_can_act() -> None:
    real = SettableClock(NOON)
    clock = PatientClock(real, PATIENCE)

    for _ in range(3):
        real.advance("PT0.9S")
        assert clock.now() == real.now()
        clock.go_on()


def test_it_stands_still_while_nobody_can_act() -> None:
    real = SettableClock(NOON)
    clock = PatientClock(real, PATIENCE)

    real.advance("PT1H")
    assert clock.now() == NOON + PATIENCE
    real.advance("PT1H")
    assert clock.now() == NOON + PATIENCE


def test_after_a_stall_it_goes_on_where_it_stood() -> None:
    real = SettableClock(NOON)
    clock = PatientClock(real, PATIENCE)
    real.advance("PT1H")

    clock.go_on()
    real.advance("PT0.5S")

    assert clock.now() == NOON + timedelta(seconds=1.5)
