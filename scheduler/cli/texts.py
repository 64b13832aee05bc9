"""Free text of the command line, before it goes into a database."""

from __future__ import annotations

import getpass
import os
from typing import Final

from scheduler.domain.errors import InvalidInputError

LONGEST_TEXT: Final = 1000


def require_text(option: str, value: str | None) -> str | None:
    """`value` when a database can keep it: valid Unicode, and not too long."""
    if value is None:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(option, value, "give text in the terminal's own encoding (UTF-8)") from None
    if not value.strip() or len(value) > LONGEST_TEXT:
        raise InvalidInputError(option, value, f"give 1 to {LONGEST_TEXT} characters, or leave it out")
    return value


def who_does_it(actor: str | None) -> str:
    """Who is named for the record: who was given, else who is logged in (before `sudo`)."""
    return require_text("--actor", actor) or os.environ.get("SUDO_USER") or _login_name()


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
