"""The clock a holder measures his own lease with."""

from __future__ import annotations

import time
from typing import Final

# Goes on while the machine is suspended, unlike the monotonic one: the database's clock went on, too.
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)


def lease_clock() -> float:
    """Seconds since some moment; never set back, and it doesn't stop while the process or the machine does."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
