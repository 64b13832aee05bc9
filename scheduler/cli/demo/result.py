"""The demo's end: what the plan demands of each contact, beside what the database has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scheduler.cli.demo.script import Role, Walk, demanded
from scheduler.cli.demo.stage import Glimpse
from scheduler.cli.output import write_line, write_table

_NUMBERS: Final = ("transitions", "mails", "fired", "canceled")
_COLUMNS: Final = ("contacts that", "number", "end", "transitions", "mails", "timeouts fired", "canceled", "as planned")


@dataclass(frozen=True, slots=True)
class Result:
    """One contact: the walk the plan demands, and the one it made."""

    contact: str
    role: str
    demanded: Walk
    found: Walk


def compare(plan: Mapping[str, Any], cast: Mapping[str, Role], last: Glimpse) -> list[Result]:
    """Every contact's result."""
    return [
        Result(contact, role.name, demanded(plan, role.answers), last.walk_of(contact))
        for contact, role in cast.items()
    ]


def write_result(results: Sequence[Result], mails_handed_over: int, seconds: float) -> list[str]:
    """Print the table and the verdict; returns what differs, a line for each contact."""
    by_role: dict[str, list[Result]] = {}
    for result in results:
        by_role.setdefault(result.role, []).append(result)
    rows = [_row(role, group) for role, group in by_role.items()]
    write_line("")
    write_table(_COLUMNS, [*rows, _row("all", results)], title="What the plan demands = what the database has:")
    differences = list(_differences(results, mails_handed_over))
    for line in differences:
        write_line(line)
    verdict = "every number is what the plan demands" if not differences else "that is not what the plan demands"
    write_line(f"{len(results)} contacts in {seconds:.1f} s: {verdict}")
    return differences


def _row(name: str, group: Sequence[Result]) -> list[object]:
    ends = sorted({f"{one.found.end_node}, {one.found.status}" for one in group})
    wanted, found = _sum(one.demanded for one in group), _sum(one.found for one in group)
    numbers = [_compared(wanted[each], found[each]) for each in _NUMBERS]
    is_right = all(one.demanded == one.found for one in group)
    return [name, len(group), ends[0] if len(ends) == 1 else "", *numbers, is_right]


def _sum(walks: Iterable[Walk]) -> dict[str, int]:
    known = list(walks)
    return {name: sum(getattr(walk, name) for walk in known) for name in _NUMBERS}


def _compared(demanded_number: int, found_number: int) -> str:
    sign = "=" if demanded_number == found_number else "≠"
    return f"{demanded_number} {sign} {found_number}"


def _differences(results: Sequence[Result], mails_handed_over: int) -> Iterable[str]:
    for one in results:
        if one.demanded != one.found:
            yield f"{one.contact} ({one.role}): the plan demands {one.demanded}, the database has {one.found}"
    wanted = sum(one.demanded.mails for one in results)
    if wanted != mails_handed_over:
        yield f"the plan demands {wanted} mails, the send handler was given {mails_handed_over}"
