"""The send handler of the soak's daemons: a line per mail, in a file that outlives them all."""

import os
import threading
import zlib
from typing import Final

from scheduler import SendRequest, SendResult

FILE: Final = "SOAK_OUTBOX"
_LONGEST_SECONDS: Final = 0.03
_NEVER: Final = threading.Event()


def message_of(dedupe_key: str) -> str:
    """The id that the mail of that send has, however often it is sent."""
    return f"mail-{dedupe_key}"


def hand_over(request: SendRequest) -> SendResult:
    """Take a moment, as a mail server does, and write down what was sent."""
    _NEVER.wait(zlib.crc32(request.dedupe_key.encode()) / 2**32 * _LONGEST_SECONDS)
    outbox = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(outbox, f"{request.dedupe_key}\n".encode())  # one write of one line: whole, or not there
    finally:
        os.close(outbox)
    return SendResult(message_of(request.dedupe_key))
