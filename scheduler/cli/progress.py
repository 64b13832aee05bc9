"""A progress bar on standard error, where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from scheduler.cli.row_files import RowFile

Item = TypeVar("Item")


def with_progress(what: str, file: RowFile, items: Iterable[Item]) -> Iterator[Item]:
    """The same items; meanwhile a bar shows how much of `file` is read. Without a terminal, nothing is shown."""
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=max(file.size, 1))
        for item in items:
            progress.update(task, completed=file.position)
            yield item
