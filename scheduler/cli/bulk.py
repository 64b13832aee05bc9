"""A file of rows into values: all rows are checked before the first one is used.

Guarantee: unless the user says `--skip-bad`, one bad row means that nothing at all is done with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from scheduler.cli.failures import explain
from scheduler.cli.output import write_message
from scheduler.cli.progress import with_progress
from scheduler.cli.row_files import BadRow, Row, RowFile
from scheduler.domain.errors import InvalidInputError

Value = TypeVar("Value")

_MOST_SHOWN: Final = 20


class CheckedRows(Generic[Value]):
    """The values of a file's rows. `parse` makes one of a row, and gives the same answer for it both times.

    Memory: the numbers of the bad lines, and what `parse` remembers.
    """

    def __init__(self, file: RowFile, parse: Callable[[Row], Value]) -> None:
        self._file = file
        self._parse = parse
        self.bad_lines: list[int] = []
        self.count = 0

    def check(self, *, skip_bad: bool) -> None:
        """Read the whole file once. Bad rows are told, and unless they may be skipped, raise InvalidInputError."""
        for row in with_progress("checking", self._file, self._file.rows()):
            self.count += 1
            bad = self._fault_of(row)
            if bad is not None:
                self.bad_lines.append(bad.line)
                if skip_bad or len(self.bad_lines) <= _MOST_SHOWN:
                    tell(bad)
        if self.bad_lines and not skip_bad:
            self._refuse()

    def values(self, what: str) -> Iterator[Value]:
        """The good rows' values, in their order."""
        bad = set(self.bad_lines)
        for row in with_progress(what, self._file, self._file.rows()):
            if row.line in bad:
                continue
            if isinstance(row, BadRow):
                raise _changed(row.line)
            yield self._again(row)

    def _again(self, row: Row) -> Value:
        try:
            return self._parse(row)
        except InvalidInputError:
            raise _changed(row.line) from None

    def _fault_of(self, row: Row | BadRow) -> BadRow | None:
        if isinstance(row, BadRow):
            return row
        try:
            self._parse(row)
        except InvalidInputError as error:
            return BadRow(row.line, error)
        return None

    def _refuse(self) -> None:
        hidden = len(self.bad_lines) - _MOST_SHOWN
        if hidden > 0:
            write_message(f"... and {hidden} more")
        what = f"{len(self.bad_lines)} of {self.count} rows are bad"
        raise InvalidInputError(
            "--from", None, f"{what}, nothing was done: correct {self._file.name}, or give --skip-bad to leave them out"
        )


def tell(bad: BadRow) -> None:
    """Say what is wrong with a row."""
    first, *others = explain(bad.error)
    write_message(f"line {bad.line}: {first}")
    for line in others:
        write_message(line)


def _changed(line: int) -> InvalidInputError:
    return InvalidInputError("--from", None, f"line {line} changed while the file was being read; nothing was done")
