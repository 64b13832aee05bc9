"""Nothing is skipped in silence, and the list of what may be is true."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.allowed_skips import AllowedSkips, Part

TESTS: Final = Path(__file__).parents[1]
POOLER: Final = Part("pgbouncer", "install the package pgbouncer", ["tests/integration/test_sessions.py::*"])
NAME: Final = "tests/integration/test_sessions.py::test_a_pooled_session[one]"


def report(name: str, reason: str, outcome: str = "skipped") -> pytest.TestReport:
    found = (str(TESTS), 1, f"Skipped: {reason}")
    return pytest.TestReport(name, (name, 1, name), {}, outcome, found, "setup")  # type: ignore[arg-type]


def sources() -> Iterator[str]:
    for path in TESTS.rglob("*.py"):
        if path.name != Path(__file__).name:
            yield path.read_text("utf-8")


def test_what_is_listed_is_counted_by_what_is_missing() -> None:
    skips = AllowedSkips([POOLER])
    skips.pytest_runtest_logreport(report(NAME, "there is none: install the package pgbouncer"))
    skips.pytest_runtest_logreport(report(NAME, "nothing", "passed"))
    assert list(skips.lines()) == ["this machine hasn't got pgbouncer: 1 skipped"]
    assert skips.unexplained == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (NAME, "I have no time for this"),
        ("tests/integration/test_claims.py::test_a_claim", "install the package pgbouncer"),
    ],
)
def test_any_other_reason_and_any_other_test_is_told(name: str, reason: str) -> None:
    skips = AllowedSkips([POOLER])
    skips.pytest_runtest_logreport(report(name, reason))
    assert list(skips.lines()) == [f"SKIPPED, AND NOT IN skips.toml: {name}: Skipped: {reason}"]


def test_each_listed_reason_is_one_that_tests_give_and_each_listed_test_is_there() -> None:
    parts = AllowedSkips.listed().parts
    given = "\n".join(sources())
    assert parts
    assert [part.reason for part in parts if part.reason not in given] == []
    patterns = [pattern.partition("::") for part in parts for pattern in part.tests]
    assert [file for file, _, _ in patterns if not (TESTS.parent / file).is_file()] == []
    named = [test for _, _, test in patterns if test != "*"]
    assert [test for test in named if f"def {test}(" not in given] == []
