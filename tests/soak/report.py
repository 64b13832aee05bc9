"""The soak's report, in Markdown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.soak.audit import DOUBLED, LOST, WRONG, Audit
from tests.soak.faults import CLOCK_STEPS

_MOST_ROWS: Final = 20


@dataclass(slots=True)
class Report:
    """What was run, what was done to it, and what came of it."""

    command: str
    machine: Mapping[str, Any]
    seconds: float
    faults: Mapping[str, int]
    traffic: Mapping[str, int]
    audit: Audit
    problems: list[str] = field(default_factory=list)
    errors: Mapping[str, int] = field(default_factory=dict)
    has_libfaketime: bool = True

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, doubled or wrong, and every daemon lived as it should."""
        return not self.audit.findings and not self.problems

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        yield from ("```sh", self.command, "```", "")
        yield from (f"It took {self.seconds / 60:.1f} minutes, draining included, on: {machine}.", "")
        yield from _table("result", {kind: self.audit.number_of(kind) for kind in (LOST, DOUBLED, WRONG)})
        yield from _table("faults injected", self._faults())
        yield from _table("work done", {**self.audit.counts, **self.traffic})
        if self.errors:
            yield from _table("ERROR lines in the daemons' logs", self.errors)
        yield from self._findings()

    def _faults(self) -> dict[str, Any]:
        """With those that couldn't be injected here."""
        if self.has_libfaketime:
            return dict(self.faults)
        return {**self.faults, **dict.fromkeys(CLOCK_STEPS, "0, libfaketime is not installed")}

    def _findings(self) -> Iterator[str]:
        for problem in self.problems:
            yield f"* {problem}"
        for finding in self.audit.findings:
            yield f"* {finding.kind}: {finding.what}: {len(finding.rows)} rows"
            yield from (f"  * `{row}`" for row in finding.rows[:_MOST_ROWS])


def _table(title: str, rows: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"| {title} | |", "|---|---:|")
    yield from (
        f"| {name} | {value:,} |" if isinstance(value, int) else f"| {name} | {value} |" for name, value in rows.items()
    )
    yield ""
