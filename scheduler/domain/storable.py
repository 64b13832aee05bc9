"""What every database can keep: text without NUL and lone surrogates, and JSON objects of bounded size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from scheduler.domain.errors import InvalidInputError

LONGEST_TEXT: Final = 1000


def require_storable(field: str, value: str) -> None:
    """Raises InvalidInputError for text that PostgreSQL can't keep."""
    if "\x00" in value:
        raise InvalidInputError(field, value, "leave out the NUL character: PostgreSQL can't store it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(field, value, "give text that is valid Unicode (no lone surrogates)") from None


def require_text(field: str, value: object) -> str:
    """`value` when it can be kept as a reason: 1 to 1000 characters, not blank."""
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_TEXT:
        raise InvalidInputError(field, value, f"give a text of 1 to {LONGEST_TEXT} characters")
    require_storable(field, value)
    return value


def json_text(field: str, value: object, longest: int) -> str:
    """A mapping as JSON text; raises InvalidInputError for what JSON can't hold, or more than `longest` characters."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(field, value, "give a mapping")
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(field, value, f"give what JSON can hold ({error})") from None
    if len(text) > longest:
        raise InvalidInputError(field, f"{len(text)} characters", f"give at most {longest} as JSON")
    return text
