"""Arithmetic on what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one measurement, one per round."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Series:
        """Of at least one value."""
        if not values:
            raise ValueError("a series has at least one value")
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The middle."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The most."""
        return max(self.values)

    @property
    def spread(self) -> float:
        """From the least to the most, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    def ratio_to(self, other: Series) -> Series:
        """Round by round where both ran in as many, so that a slow minute of the machine hits both; else of medians."""
        if len(self.values) == len(other.values):
            pairs = zip(self.values, other.values, strict=True)
            return Series(tuple(mine / theirs for mine, theirs in pairs if theirs))
        return Series((self.median / other.median,))

    def is_told_from(self, other: Series) -> bool:
        """Whether the difference is larger than the noise: the ranges don't meet. One round tells nothing apart."""
        if len(self.values) == 1 or len(other.values) == 1:
            return False
        return self.low > other.high or other.low > self.high


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of `values` doesn't exceed."""
    in_order = sorted(values)
    return in_order[min(int(share * len(in_order)), len(in_order) - 1)]


def curve(values: Sequence[float]) -> list[tuple[float, float]]:
    """(share, percentile) points of a distribution, dense at its end, where lateness matters."""
    shares = [number / 100 for number in range(100)] + [0.99 + number / 1000 for number in range(1, 10)] + [1.0]
    return [(share, percentile(values, share)) for share in shares]
