"""Collects every fault and every warning of a plan while it is read, each with its JSON path."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

from scheduler.domain.errors import InvalidInputError, PlanFault
from scheduler.domain.plan_document import child_path

LONGEST_ID: Final = 128
# Looking for a close word takes time in proportion to the words there are.
MOST_WORDS_FOR_HINTS: Final = 200
# Accepted everywhere and read by nobody: notes for people, and what visual editors add.
SILENT_KEYS: Final = ("name", "description", "metadata", "label", "position", "$schema")

_Value = TypeVar("_Value")


class Findings:
    """The faults and warnings found so far. Its readers return None where they found a fault."""

    def __init__(self) -> None:
        self.faults: list[PlanFault] = []
        self.warnings: list[PlanFault] = []

    def fault(self, path: str, value: object, remedy: str) -> None:
        """Adds what makes the plan unusable."""
        self.faults.append(PlanFault(path, value, remedy))

    def warn(self, path: str, value: object, remedy: str) -> None:
        """Adds what is probably not meant."""
        self.warnings.append(PlanFault(path, value, remedy))

    def attempt(self, parse: Callable[[str, object], _Value], path: str, value: object) -> _Value | None:
        """What `parse` makes of the value; None where it refuses it, or where there is no value."""
        if value is None:
            return None
        try:
            return parse(path, value)
        except InvalidInputError as error:
            self.fault(error.field, error.value, error.remedy)
            return None

    def members(self, path: str, value: object, known: Collection[str]) -> Mapping[str, Any] | None:
        """The object itself, warning of every key that nobody reads."""
        if not isinstance(value, Mapping):
            self.fault(path, value, "it must be an object")
            return None
        for key in value:
            if key not in known and key not in SILENT_KEYS and not key.startswith("x-"):
                self.warn(child_path(path, key), key, f"this key means nothing here{did_you_mean(key, known)}")
        return value

    def items(self, path: str, value: object) -> list[Any]:
        """The list itself, empty where there is none."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.fault(path, value, "it must be a list")
            return []
        return value

    def identifier(self, path: str, value: object) -> str | None:
        """A node's id: text of 1 to 128 characters, not only white space."""
        if isinstance(value, str) and value.strip() and len(value) <= LONGEST_ID:
            return value
        self.fault(path, value, f"a node id must be text of 1 to {LONGEST_ID} characters, not blank")
        return None

    def text(self, path: str, value: object, longest: int | None = None) -> str | None:
        """Optional text."""
        if value is None or (isinstance(value, str) and (longest is None or 1 <= len(value) <= longest)):
            return value
        limit = "" if longest is None else f" of 1 to {longest} characters"
        self.fault(path, value, f"it must be text{limit}")
        return None

    def choice(self, path: str, value: object, choices: Iterable[str]) -> str | None:
        """Optional text out of a closed set."""
        choices = tuple(choices)
        if value is None or (isinstance(value, str) and value in choices):
            return value
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        self.fault(path, value, f"it must be one of {', '.join(choices)}{hint}")
        return None


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean X?` where a known word is close, else nothing."""
    if len(known) > MOST_WORDS_FOR_HINTS:
        return ""
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower()[:LONGEST_ID], by_lower_case, n=1, cutoff=0.7)
    return f"; did you mean {by_lower_case[close[0]]!r}?" if close else ""
