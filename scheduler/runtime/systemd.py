"""What systemd is told, over its notification socket. Without systemd nothing is sent."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from scheduler.runtime.ticker import Ticker

_EXTENDED_EVERY_SECONDS: Final = 10.0
_EXTENDED_BY: Final = timedelta(seconds=30)


def notify(*states: str) -> None:
    """Send `READY=1`, `STATUS=...`, `WATCHDOG=1` or `STOPPING=1`; a socket that is gone is not our problem."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(states).encode(), address)
        except OSError:
            return


def notify_reloading() -> None:
    """The settings are being read anew; `READY=1` ends it. With the instant that `Type=notify-reload` wants."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reading the settings anew")


def extend_timeout(span: timedelta) -> None:
    """Let systemd wait for at least so long, from now, before it takes a start or a stop for failed."""
    notify(f"EXTEND_TIMEOUT_USEC={int(span.total_seconds() * 1_000_000)}")


@contextmanager
def extending_timeout() -> Iterator[None]:
    """Work that takes its time: systemd waits for it. A block that fails at once extends nothing."""
    ticker = Ticker("systemd", _EXTENDED_EVERY_SECONDS, lambda: extend_timeout(_EXTENDED_BY))
    ticker.start()
    try:
        yield
    finally:
        ticker.stop()


def watchdog_interval() -> float | None:
    """Half of the time systemd waits for a sign of life, in seconds; None where it doesn't."""
    microseconds = os.environ.get("WATCHDOG_USEC")
    process_id = os.environ.get("WATCHDOG_PID")
    if not microseconds or not microseconds.isdigit() or (process_id and process_id != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000
