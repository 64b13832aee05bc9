"""A thread that does something every so often, until it is stopped as often as it was started."""

import threading

from scheduler.runtime.ticker import Ticker


def test_ticks_at_once_if_asked_and_again_when_nudged() -> None:
    ticks = threading.Semaphore(0)
    ticker = Ticker("test", 3600, ticks.release, at_once=True)
    ticker.start()
    assert ticks.acquire(timeout=10)

    ticker.nudge()

    assert ticks.acquire(timeout=10)
    ticker.stop()


def test_the_first_tick_comes_after_the_interval() -> None:
    ticks = threading.Semaphore(0)
    ticker = Ticker("test", 3600, ticks.release)
    ticker.start()
    ticker.stop()

    assert not ticks.acquire(blocking=False)


def test_takes_as_many_stops_as_starts() -> None:
    ticks = threading.Semaphore(0)
    ticker = Ticker("test", 0.001, ticks.release)
    ticker.start()
    ticker.start()
    ticker.stop()
    while ticks.acquire(blocking=False):
        pass
    assert ticks.acquire(timeout=10)

    ticker.stop()

    assert not [thread for thread in threading.enumerate() if thread.name == "test"]


def test_starts_again() -> None:
    ticks = threading.Semaphore(0)
    ticker = Ticker("test", 3600, ticks.release, at_once=True)
    for _ in range(3):
        ticker.start()
        assert ticks.acquire(timeout=10)
        ticker.stop()


def test_a_tick_that_hangs_keeps_nobody_from_leaving() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        may_end.wait(30)
        ended.set()

    ticker = Ticker("test", 3600, hang, at_once=True)
    ticker.start()
    assert began.wait(10)

    ticker.stop(patience=0.01)

    assert not ended.is_set()
    may_end.set()
