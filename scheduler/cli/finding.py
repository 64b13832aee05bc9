"""The answer of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of it; `remedy` says what to do where it isn't ok."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str | None = None
