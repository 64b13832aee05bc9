"""What tells a process from every other one, and proves that it has ended."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scheduler.service.owner import Owner
from scheduler.service.process_mark import is_provably_dead
from tests.support.eventually import eventually

pytestmark = pytest.mark.skipif(
    Owner().process_mark is None, reason="this system has no /proc that tells a process by its boot and its start"
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def mark_of(process_id: int) -> str:
    """As that process would make it for itself."""
    own = Owner().process_mark
    assert own is not None
    surroundings = own.rpartition("/")[0]
    fields = Path(f"/proc/{process_id}/stat").read_text("utf-8").rpartition(")")[2].split()
    return f"{surroundings}/{process_id}@{fields[19]}"


def test_no_two_starts_are_the_same_owner() -> None:
    first, second = Owner("a"), Owner("a")

    assert first.id != second.id
    assert first.id.split(":")[:2] == ["a", str(os.getpid())]


def test_this_process_is_alive() -> None:
    assert not is_provably_dead(Owner().process_mark)


def test_a_process_is_dead_once_it_was_killed_and_not_before(sleeper: subprocess.Popen[bytes]) -> None:
    mark = mark_of(sleeper.pid)
    assert not is_provably_dead(mark)

    sleeper.kill()

    eventually(lambda: is_provably_dead(mark))
    sleeper.wait()
    assert is_provably_dead(mark)


def test_a_stopped_process_is_alive(sleeper: subprocess.Popen[bytes]) -> None:
    psutil.Process(sleeper.pid).suspend()

    assert not is_provably_dead(mark_of(sleeper.pid))


def test_another_process_with_the_same_number_is_not_the_one_that_died(sleeper: subprocess.Popen[bytes]) -> None:
    surroundings, _, own = mark_of(sleeper.pid).rpartition("/")
    earlier = f"{surroundings}/{own.partition('@')[0]}@1"

    assert is_provably_dead(earlier)


@pytest.mark.parametrize("mark", [None, "", "elsewhere/1/2@3", "nonsense"])
def test_nothing_is_known_of_a_process_elsewhere(mark: str | None) -> None:
    assert not is_provably_dead(mark)


def test_a_mark_of_this_machine_that_makes_no_sense_proves_nothing() -> None:
    own = Owner().process_mark
    assert own is not None

    assert not is_provably_dead(f"{own.rpartition('/')[0]}/x@1")
