"""How fast: token buckets for `MAX_RATE` and `MAX_RATE_PER_TENANT`. Pure: the present is given, in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import Final

# A bucket that ran dry waits for so many seconds' worth, so that a herd isn't fired in batches of one.
_GULP_SECONDS: Final = 0.1
# Sums of seconds aren't exact.
_ROUNDING: Final = 1e-6
# So many buckets are worth a look for those that are full again.
_SWEPT_FROM: Final = 1000


class Bucket:
    """Lets `rate` a second through, and at most one second's worth at once, or one where that is less.

    A flow that stays below the rate never waits. One that ran dry begins again with a tenth of a second's worth.
    """

    __slots__ = ("_at", "_is_dry", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = self._capacity
        self._at = now
        self._is_dry = False

    def available(self, now: float) -> int:
        """How many may go through now."""
        self._refill(now)
        return 0 if self._is_dry else math.floor(self._tokens + _ROUNDING)

    def take(self, count: int, now: float) -> None:
        """So many went through."""
        self._refill(now)
        self._tokens -= count
        self._is_dry = self._is_dry or self._tokens < 1 - _ROUNDING

    def wait(self, now: float) -> float:
        """For how many seconds nothing may go through."""
        self._refill(now)
        return (self._gulp - self._tokens) / self._rate if self._is_dry else 0.0

    def is_full(self, now: float) -> bool:
        """Whether it is as good as a new one."""
        self._refill(now)
        return self._tokens >= self._capacity - _ROUNDING

    def change(self, rate: float, now: float) -> None:
        """Another rate from now on."""
        self._refill(now)
        self._rate = rate
        self._tokens = min(self._tokens, self._capacity)

    @property
    def _capacity(self) -> float:
        return max(self._rate, 1.0)

    @property
    def _gulp(self) -> float:
        return max(self._rate * _GULP_SECONDS, 1.0)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._tokens + max(now - self._at, 0.0) * self._rate, self._capacity)
        self._at = max(now, self._at)
        if self._is_dry and self._tokens >= self._gulp - _ROUNDING:
            self._is_dry = False


class Pace:
    """The rates of one kind of action in this process, which takes an equal share of what all instances may.

    Not thread-safe. Remembers the tenants that used some of their rate in the last second, and those held back.
    """

    def __init__(self, rate: float | None, rate_per_tenant: float | None, now: float) -> None:
        self._rate = rate
        self._rate_per_tenant = rate_per_tenant
        self._instances = 1
        self._all = None if rate is None else Bucket(rate, now)
        self._of: dict[str, Bucket] = {}
        self._held_back: dict[str, None] = {}
        self._next_sweep = _SWEPT_FROM

    @property
    def is_per_tenant(self) -> bool:
        """Whether each tenant has a rate of its own."""
        return self._rate_per_tenant is not None

    def share_among(self, instances: int, now: float) -> None:
        """So many instances are at work, this one counted."""
        if instances == self._instances:
            return
        self._instances = instances
        if self._all is not None and self._rate is not None:
            self._all.change(self._rate / instances, now)
        for bucket in self._of.values():
            bucket.change(self._tenants_share, now)

    def available(self, most: int, now: float) -> int:
        """How many may be fired now, of `most` that are wanted."""
        return most if self._all is None else min(self._all.available(now), most)

    def quota(self, tenant_id: str, most: int, now: float) -> int:
        """How many of that tenant's may be fired now, of `most` that are wanted."""
        return min(self._bucket(tenant_id, now).available(now), most) if self.is_per_tenant else most

    def took(self, counts: Mapping[str, int], now: float) -> None:
        """So many of each tenant's are being fired."""
        if self._all is not None:
            self._all.take(sum(counts.values()), now)
        if self.is_per_tenant:
            for tenant_id, count in counts.items():
                self._bucket(tenant_id, now).take(count, now)
            self._sweep(now)

    def hold_back(self, tenant_id: str) -> None:
        """That tenant has more that is due than it was given, and waits behind those that wait already."""
        self._held_back.pop(tenant_id, None)
        self._held_back[tenant_id] = None

    def let_go(self, tenant_id: str) -> None:
        """That tenant has nothing more that is due, as far as is known."""
        self._held_back.pop(tenant_id, None)

    def held_back(self, most: int, now: float) -> list[str]:
        """Up to `most` tenants that wait and may go on, the one that waits longest first."""
        ready = (tenant_id for tenant_id in list(self._held_back) if self._bucket(tenant_id, now).available(now) > 0)
        return list(islice(ready, most))

    @property
    def holds_back(self) -> bool:
        """Whether any tenant waits."""
        return bool(self._held_back)

    def wait(self, now: float) -> float:
        """For how many seconds nothing at all may be fired."""
        return 0.0 if self._all is None else self._all.wait(now)

    def wait_of_held_back(self, now: float) -> float | None:
        """In how many seconds the first tenant that was held back may go on; None when there is none."""
        return min((self._bucket(tenant_id, now).wait(now) for tenant_id in list(self._held_back)), default=None)

    @property
    def _tenants_share(self) -> float:
        return (self._rate_per_tenant or math.inf) / self._instances

    def _bucket(self, tenant_id: str, now: float) -> Bucket:
        bucket = self._of.get(tenant_id)
        if bucket is None:
            bucket = self._of[tenant_id] = Bucket(self._tenants_share, now)
        return bucket

    def _sweep(self, now: float) -> None:
        """A full bucket is as good as none."""
        if len(self._of) < self._next_sweep:
            return
        self._of = {tenant_id: bucket for tenant_id, bucket in self._of.items() if not bucket.is_full(now)}
        self._next_sweep = max(2 * len(self._of), _SWEPT_FROM)
