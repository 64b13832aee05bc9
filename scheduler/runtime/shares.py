"""What equal shares of a batch tell of those who were given them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Of fewer than that nobody can tell a backlog from a single timeout.
_SMALLEST_TELLING: Final = 2


@dataclass(frozen=True, slots=True)
class Shares:
    """These were given up to `share` each; `counts` says who had how many."""

    asked: frozenset[str] = frozenset()
    share: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def caught_up(self) -> frozenset[str]:
        """Who had less: nothing that was due is left over."""
        return frozenset(tenant_id for tenant_id, count in self.counts.items() if count < self.share)

    @property
    def backlogged(self) -> frozenset[str]:
        """Who had as many, and may have more."""
        if self.share < _SMALLEST_TELLING:
            return frozenset()
        return frozenset(tenant_id for tenant_id, count in self.counts.items() if count >= self.share)
