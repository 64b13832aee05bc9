"""Files of rows, JSON Lines or CSV: read as a stream, twice, every row by its line number.

UTF-8 with or without a byte order mark, any line ends; blank lines don't count. A row that can't be read is a
`BadRow`, and those after it are read all the same.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from scheduler.domain.errors import InvalidInputError

LONGEST_LINE: Final = 4 * 1024 * 1024
STANDARD_INPUT: Final = "-"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_EXCERPT: Final = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line it begins on, and its values by name."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be used, and why."""

    line: int
    error: InvalidInputError


class RowFile:
    """The rows of an open file that can be read again from its start. Memory: one row."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.size = file.seek(0, 2)
        self.position = 0
        self.is_csv = name.lower().endswith(".csv") or not (_is_json_name(name) or self._begins_like_json())

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row, from the first on. Raises InvalidInputError for a header that can't be used."""
        return self._csv_rows() if self.is_csv else self._json_rows()

    def _begins_like_json(self) -> bool:
        first = next((text for _, text in self._lines() if text.strip()), b"{")
        return first.lstrip().startswith(b"{")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Numbered lines; of one beyond LONGEST_LINE only as much as shows that it is too long."""
        self._file.seek(0)
        self.position = line = 0
        while text := self._file.readline(LONGEST_LINE + 1):
            line += 1
            self.position += len(text)
            rest = text
            while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                rest = self._file.readline(LONGEST_LINE + 1)
                self.position += len(rest)
            yield line, text.removeprefix(_BYTE_ORDER_MARK) if line == 1 else text

    def _json_rows(self) -> Iterator[Row | BadRow]:
        for line, text in self._lines():
            if not text.strip():
                continue
            try:
                yield Row(line, _parse_json(text))
            except InvalidInputError as error:
                yield BadRow(line, error)

    def _csv_rows(self) -> Iterator[Row | BadRow]:
        numbers: list[int] = [0]
        reader = csv.reader(self._text_lines(numbers), strict=True)
        columns: list[str] | None = None
        begins = 1
        while True:
            begins = numbers[-1] + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield BadRow(begins, InvalidInputError("row", None, f"it isn't CSV: {error}"))
                continue
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _checked_columns(cells)
            else:
                yield _csv_row(begins, columns, cells)

    def _text_lines(self, numbers: list[int]) -> Iterator[str]:
        """Lines as text; bytes that aren't UTF-8 are kept as half surrogates, which no field accepts."""
        for line, text in self._lines():
            numbers[-1] = line
            yield text.decode("utf-8", "surrogateescape")


@contextmanager
def open_rows(path: str, option: str = "--from") -> Iterator[RowFile]:
    """The rows of the file given as `option`, or of standard input (`-`), kept in a temporary file meanwhile."""
    if path == STANDARD_INPUT:
        with _kept(sys.stdin.buffer) as file:
            yield RowFile(file, "standard input")
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below; what is read from it fails otherwise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(option, path, f"it can't be read: {reason}") from None
    with file:
        if file.seekable():
            yield RowFile(file, path)
            return
        with _kept(file) as kept:
            yield RowFile(kept, path)


@contextmanager
def _kept(stream: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        yield file


def _is_json_name(name: str) -> bool:
    return name.lower().endswith((".jsonl", ".ndjson", ".json"))


def _parse_json(text: bytes) -> dict[str, Any]:
    if len(text) > LONGEST_LINE:
        raise InvalidInputError("row", "(a long line)", f"give at most {LONGEST_LINE} bytes")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object_of, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidInputError("row", text[error.start : error.start + 8], "the file must be UTF-8 text") from None
    except json.JSONDecodeError as error:
        excerpt = error.doc[max(error.pos - _EXCERPT // 2, 0) :][:_EXCERPT].strip()
        raise InvalidInputError("row", excerpt, f"it isn't JSON: {error.msg}, at column {error.colno}") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("row", text[:_EXCERPT], "it holds more than a row can: write it simpler") from None
    if not isinstance(value, dict):
        raise InvalidInputError("row", value, "write a JSON object in each line")
    return value


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidInputError(name, value, "this name stands twice in its object; keep one")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInputError("row", name, "JSON has no such number")


def _checked_columns(cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for column in columns:
        if not column:
            raise InvalidInputError("header", ",".join(columns), "give every column a name")
        if columns.count(column) > 1:
            raise InvalidInputError("header", column, "this column is there twice; keep one")
    return columns


def _csv_row(line: int, columns: list[str], cells: list[str]) -> Row | BadRow:
    if len(cells) != len(columns):
        remedy = f"it has {len(cells)} cells, and the header {len(columns)}"
        return BadRow(line, InvalidInputError("row", ",".join(cells)[:_EXCERPT], remedy))
    for column, cell in zip(columns, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError:
            raw = cell.encode("utf-8", "surrogateescape")[:_EXCERPT]
            return BadRow(line, InvalidInputError(column, raw, "the file must be UTF-8 text"))
    return Row(line, {column: cell for column, cell in zip(columns, cells, strict=True) if cell})
