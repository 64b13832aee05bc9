"""What commands print: one JSON document, tables, lines. Answers go to standard output, messages to standard error.

Nothing that comes from a database or a file is printed with its control characters: they could drive a terminal.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP: Final = "  "
_NOTHING: Final = "-"


def write_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """The one JSON document a command with `--json` prints."""
    is_unicode = (sys.stdout.encoding or "ascii").lower().startswith("utf")
    text = json.dumps(document, ensure_ascii=not is_unicode, indent=2, default=json_value)
    sys.stdout.write(f"{text}\n")


def json_line(document: Mapping[str, Any]) -> str:
    """A JSON document on one line of its own, for a stream of them."""
    return json.dumps(document, default=json_value) + "\n"


def json_value(value: object) -> str:
    """An instant as JSON has it: ISO-8601 in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a JSON answer")


def write_line(text: str) -> None:
    """One line of an answer."""
    sys.stdout.write(f"{printable(text)}\n")


def write_message(text: str) -> None:
    """One line for whoever watches."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def write_fields(fields: Mapping[str, object]) -> None:
    """One thing, a line per property."""
    width = max(map(len, fields))
    for name, value in fields.items():
        write_line(f"{name:<{width}}{_GAP}{human(value)}")


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Many things: a Rich table on a terminal, else aligned text without lines or colours, never cut."""
    cells = [[printable(human(value)) for value in row] for row in rows]
    if sys.stdout.isatty():
        Console(file=sys.stdout).print(rich_table(columns, cells, title))
        return
    if title is not None:
        write_line(title)
    widths = [max(len(row[index]) for row in [columns, *cells]) for index in range(len(columns))]
    for row in [columns, *cells]:
        line = _GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """A table for a terminal; what doesn't fit is folded, not cut."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def human(value: object) -> str:
    """A value as people read it; an instant in UTC, with its offset."""
    if value is None:
        return _NOTHING
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(sep=" ", timespec="seconds")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def printable(text: str) -> str:
    """`text` with control characters, and those that turn the direction of writing, as escapes."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    is_control = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode("ascii") if is_control else character


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody watches `stream`."""
    return stream.isatty()
