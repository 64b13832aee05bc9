"""Signals that come in one order, at any moment, to any thread."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from scheduler.runtime.signals import Signals

HEEDED = (signal.SIGUSR1, signal.SIGUSR2)
LONG = 30.0


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def nobody(_number: int) -> None:
    """Nothing happens at once."""


def test_signals_are_told_one_by_one_in_their_order() -> None:
    signals, heeded = Signals(), list[int]()
    with signals.heeding(HEEDED, heeded.append):
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)

        assert [signals.next(LONG), signals.next(LONG), signals.next(0)] == [signal.SIGUSR2, signal.SIGUSR1, None]
    assert heeded == [signal.SIGUSR2, signal.SIGUSR1]


def test_one_that_interrupts_another_thread_ends_the_wait_of_this_one() -> None:
    """As it is with one that comes when this thread is just about to wait: nothing interrupts its wait."""
    signals = Signals()
    with signals.heeding(HEEDED, nobody):
        other = threading.Thread(target=signal.raise_signal, args=[signal.SIGUSR1])
        other.start()

        assert signals.next(LONG) == signal.SIGUSR1
        other.join()


def test_somebody_who_takes_pythons_own_byte_away_keeps_no_signal_from_being_told() -> None:
    """An event loop of somebody's own in the main thread does that."""
    signals = Signals()
    with signals.heeding(HEEDED, nobody):
        signal.set_wakeup_fd(-1)
        main = threading.main_thread().ident
        assert main is not None
        other = threading.Thread(target=signal.pthread_kill, args=[main, signal.SIGUSR1])
        other.start()

        assert signals.next(LONG) == signal.SIGUSR1
        other.join()


def test_another_thread_is_refused_and_leaves_nothing_open() -> None:
    before = open_files()
    refused: list[ValueError] = []

    def try_it() -> None:
        try:
            with Signals().heeding(HEEDED, nobody):
                pass
        except ValueError as error:
            refused.append(error)

    other = threading.Thread(target=try_it)
    other.start()
    other.join()

    assert refused
    assert open_files() == before


def test_more_of_them_than_the_pipe_has_room_for_are_not_lost() -> None:
    signals = Signals()
    with signals.heeding(HEEDED, nobody):
        for _ in range(70_000):
            signal.raise_signal(signal.SIGUSR1)

        assert sum(signals.next(0) == signal.SIGUSR1 for _ in range(70_000)) == 70_000
        assert signals.next(0) is None


def test_afterwards_everything_is_as_it_was() -> None:
    before = [signal.getsignal(number) for number in HEEDED]
    with Signals().heeding(HEEDED, nobody):
        assert signal.getsignal(signal.SIGUSR1) != before[0]

    assert [signal.getsignal(number) for number in HEEDED] == before
    assert signal.set_wakeup_fd(-1) == -1
