"""The daemon's log handler: one that can also write many finished lines at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Final, TextIO

# What is written at once. A pipe keeps this much in one piece between processes that share it; and where a disk is
# full, the stream's buffer holds it whole until it is written, so that no line is torn.
PIECE: Final = 4096


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes records one by one, as any stream handler, and finished lines together. Thread-safe.

    A stream that breaks is told of as logging does it, on standard error, and hurts nobody.
    """

    def write_together(self, lines: str) -> None:
        """Write finished lines, each with its end."""
        with self.lock or nullcontext():
            for piece in _pieces(lines):
                self._write(piece)

    def _write(self, piece: str) -> None:
        try:
            self.stream.write(piece)
            self.flush()
        except RecursionError:
            raise
        except UnicodeError:
            # Nothing of the piece is written. Its other lines still are, if one has characters the stream hasn't.
            lines = piece.splitlines(keepends=True)
            if len(lines) == 1:
                self._complain(piece)
            else:
                for line in lines:
                    self._write(line)
        except Exception:  # noqa: BLE001 - as logging itself: whatever breaks in a stream is no reason to stop
            self._complain(piece)

    def _complain(self, piece: str) -> None:
        self.handleError(logging.makeLogRecord({"msg": piece}))


def _pieces(lines: str) -> Iterator[str]:
    """The text, cut where lines end; a longer line is a piece of its own."""
    longest = PIECE if lines.isascii() else PIECE // 4
    start = 0
    while start < len(lines):
        end = lines.rfind("\n", start, start + longest) + 1 or lines.index("\n", start) + 1
        yield lines[start:end]
        start = end
