"""The clock that a process measures its own leases with."""

from __future__ import annotations

import time
from typing import Final

# Goes on while the machine is suspended, unlike the monotonic one: the database's clock went on, too.
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)


def lease_clock() -> float:
    """Seconds since some moment; never set back, and it goes on while the process is stopped or the machine suspended.

    Where there is no CLOCK_BOOTTIME (macOS) it may stand still while the machine is suspended.
    """
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
