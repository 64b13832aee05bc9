"""pytest fixtures: `pytest_plugins = ["scheduler.testing.fixtures"]` in your top-level conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from scheduler.testing.rehearsal import CampaignRehearsal


@pytest.fixture
def make_rehearsal() -> Iterator[Callable[..., CampaignRehearsal]]:
    """Makes rehearsals with options of your choice, and closes them after the test."""
    with ExitStack() as opened:

        def make(*arguments: Any, **options: Any) -> CampaignRehearsal:
            return opened.enter_context(CampaignRehearsal(*arguments, **options))

        yield make


@pytest.fixture
def rehearsal(make_rehearsal: Callable[..., CampaignRehearsal]) -> CampaignRehearsal:
    """A rehearsal that begins on Monday, 2 March 2026, at noon UTC."""
    return make_rehearsal()
