"""How the demo is watched: a live picture on a terminal, lines everywhere else."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scheduler.cli.demo.happenings import CANCELED, FIRED, SENT, Happening, as_lines
from scheduler.cli.demo.script import Role
from scheduler.cli.demo.stage import Glimpse
from scheduler.cli.output import write_line

_LINES: Final = 12
_COLOURS: Final = {SENT: "cyan", FIRED: "yellow", CANCELED: "magenta"}
_EVENT_COLOUR: Final = "green"


class Audience(AbstractContextManager["Audience"], Protocol):
    """Is told what happened, and where everybody is."""

    def show(self, seconds: float, happenings: list[Happening], glimpse: Glimpse) -> None:
        """What happened `seconds` after the start, and how it is now."""


class Reader:
    """Reads a line for each thing that happened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left behind."""

    def show(self, seconds: float, happenings: list[Happening], glimpse: Glimpse) -> None:  # noqa: ARG002 - the picture's
        """Print it."""
        for kind, text in as_lines(happenings):
            write_line(f"{seconds:6.2f} s  {kind:<12}  {text}")
        sys.stdout.flush()


class Spectator:
    """Sees where the contacts are, by role, above the last things that happened."""

    def __init__(self, nodes: list[str], cast: Mapping[str, Role]) -> None:
        self._nodes = nodes
        self._cast = cast
        self._lines: deque[Text] = deque(maxlen=_LINES)
        self._live = Live(console=Console(), refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, seconds: float, happenings: list[Happening], glimpse: Glimpse) -> None:
        """Draw it."""
        for kind, text in as_lines(happenings):
            line = Text(f"{seconds:6.2f} s  {kind:<12}  ", style=_COLOURS.get(kind, _EVENT_COLOUR))
            self._lines.append(line.append(text, style="default"))
        self._live.update(Group(self._picture(glimpse), *self._lines))

    def _picture(self, glimpse: Glimpse) -> Table:
        table = Table("contacts that", *(f"at {node}" for node in self._nodes), "finished", header_style="bold")
        for role in dict.fromkeys(role.name for role in self._cast.values()):
            members = [contact for contact, its in self._cast.items() if its.name == role]
            places = Counter(_place(glimpse, contact) for contact in members)
            table.add_row(role, *(str(places[place] or "") for place in (*self._nodes, _FINISHED)))
        return table


_FINISHED: Final = ""


def _place(glimpse: Glimpse, contact: str) -> str:
    campaign = glimpse.campaigns[contact]
    return _FINISHED if campaign.is_finished else campaign.current_node_id
