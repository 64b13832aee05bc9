"""What systemd is told, over its notification socket. Without systemd nothing is sent."""

from __future__ import annotations

import os
import socket


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


def watchdog_interval() -> float | None:
    """Half of the time systemd waits for a sign of life, in seconds; None where it doesn't."""
    microseconds = os.environ.get("WATCHDOG_USEC")
    process_id = os.environ.get("WATCHDOG_PID")
    if not microseconds or not microseconds.isdigit() or (process_id and process_id != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000
