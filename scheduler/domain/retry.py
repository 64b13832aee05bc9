"""When a failed attempt is tried again."""

from __future__ import annotations

from datetime import timedelta


def retry_delay(attempts: int, base: timedelta, longest: timedelta, jitter: float) -> timedelta:
    """Exponential backoff after `attempts` failures: base, 2 base, 4 base, ... capped at `longest`.

    `jitter` (0 to 1) takes up to a quarter off, so that what failed together isn't tried again together.
    """
    doublings = min(max(attempts, 1) - 1, 40)
    # Compared before it is multiplied: a timedelta ends at 2.7 million years.
    delay = longest if base > longest / 2**doublings else min(base * 2**doublings, longest)
    return delay * (1 - jitter / 4)
