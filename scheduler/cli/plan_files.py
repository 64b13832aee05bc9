"""A plan's file, as several commands take it."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from scheduler.cli.session import settings_of
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.plan_document import LARGEST_DOCUMENT

STANDARD_INPUT: Final = "-"
_HELP: Final = "A campaign plan, a JSON file such as plan.json; - reads standard input."
PlanFile = Annotated[str, typer.Argument(metavar="FILE", help=_HELP)]


def read_plan(context: typer.Context, file: str) -> CampaignPlan:
    """The plan of a file, its timers without a delay as the settings have them."""
    return CampaignPlan.parse(plan_source(file), settings_of(context).timer_defaults)


def plan_source(file: str) -> bytes:
    """What stands in a plan's file; no more than shows that it is too large."""
    if file == STANDARD_INPUT:
        return sys.stdin.buffer.read(LARGEST_DOCUMENT + 1)
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - a NUL in the name is a ValueError here, too
            return opened.read(LARGEST_DOCUMENT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError("FILE", file, f"it can't be read: {reason}") from None
