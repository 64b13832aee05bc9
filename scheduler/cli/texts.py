"""Free text of the command line, before it goes into a database."""

from __future__ import annotations

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
