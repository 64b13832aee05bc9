"""Statements shared by whoever opens a database of the same layout: built, and compiled, once per process.

A process opens many where each request, each tenant or each test has a scheduler of its own; the statements of one cost
more than the rest of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

from scheduler.store.tables import Layout

Statements = TypeVar("Statements")

# Some twenty kinds for each layout: a process with more schemas than that builds them anew.
_REMEMBERED: Final = 1024


def statements_of(kind: Callable[[Layout], Statements], layout: Layout) -> Statements:
    """The one of that kind for that layout, which has to be stateless. Thread-safe: at worst two threads build it."""
    shared: Statements = _built(kind, layout)
    return shared


@lru_cache(_REMEMBERED)
def _built(kind: Callable[[Layout], Any], layout: Layout) -> Any:
    return kind(layout)
