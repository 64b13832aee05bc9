"""What a run may skip: only what tests/skips.toml lists, and never without saying so."""

import tomllib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Self

import pytest

LIST: Final = Path(__file__).parents[1] / "skips.toml"


@dataclass(frozen=True)
class Part:
    """Something a machine may lack, and the tests that need it."""

    name: str
    reason: str
    tests: Sequence[str]

    def explains(self, test: str, reason: str) -> bool:
        """Whether this test may be skipped for that reason."""
        name = test.partition("[")[0]
        return self.reason in reason and any(fnmatchcase(name, pattern) for pattern in self.tests)


class AllowedSkips:
    """A plugin for pytest: counts what was skipped for which part, and lets nothing else pass."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.skipped: dict[str, list[str]] = defaultdict(list)
        self.unexplained: list[str] = []

    @classmethod
    def listed(cls) -> Self:
        """With the list of the checkout."""
        entries = tomllib.loads(LIST.read_text("utf-8")).items()
        return cls([Part(name, entry["reason"], entry["tests"]) for name, entry in entries])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called once per phase of each test, also of those that another process ran."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for part in self.parts:
            if part.explains(report.nodeid, reason):
                self.skipped[part.name].append(report.nodeid)
                return
        self.unexplained.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A skip that nothing explains fails the run."""
        if self.unexplained and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what this machine lacks."""
        for line in self.lines():
            terminalreporter.write_line(line)

    def lines(self) -> Sequence[str]:
        """What there is to say, a line each."""
        missing = [f"{name}: {len(tests)} skipped" for name, tests in self.skipped.items()]
        found = [f"this machine hasn't got {one}" for one in missing]
        return [*found, *(f"SKIPPED, AND NOT IN {LIST.name}: {one}" for one in self.unexplained)]
