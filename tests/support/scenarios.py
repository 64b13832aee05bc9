"""Reads the scenarios of tests/scenarios: plans, what happens, and what is expected, in words."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from scheduler import CampaignPlan
from scheduler.domain.happening import Happening, Operation
from scheduler.domain.timing import parse_duration
from tests.support.replay import Cast, Story
from tests.support.walk import NOON

FOLDER = Path(__file__).parents[1] / "scenarios"
PLANS = "plans.toml"
UNTIL = timedelta(days=60)
MACHINE_MARKS = ("machine", "sg_machine_open")

_OFFSET = re.compile(r"(?:(?P<days>\d+)d)? ?(?:(?P<hours>\d+)h)? ?(?:(?P<minutes>\d+)m)? ?(?:(?P<seconds>[\d.]+)s)?")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario as it is written. Unknown keys are errors."""

    name: str
    plan: str
    steps: Sequence[str]
    path: Sequence[str]
    status: str
    mails: Sequence[str]
    outcomes: Sequence[str] | None = None
    start: str = field(default=NOON.isoformat())
    timezone: str | None = None
    grace: str = "PT0S"

    @property
    def start_at(self) -> datetime:
        """When the contact is enrolled."""
        return datetime.fromisoformat(self.start)

    def cast(self) -> Cast:
        """What is to be played."""
        return Cast(
            plan=CampaignPlan.parse({"version": "1.0", **plans()[self.plan]}),
            happenings=[self._happening(step) for step in self.steps],
            start_at=self.start_at,
            until=self.start_at + UNTIL,
            timezone=self.timezone,
            grace=parse_duration("grace", self.grace).exact,
        )

    def instant(self, text: str) -> datetime:
        """`3d 2h` after the start, or an instant."""
        if re.match(r"\d{4}-", text):
            return datetime.fromisoformat(text)
        parts = _OFFSET.fullmatch("0s" if text == "0" else text)
        assert parts is not None, f"{self.name}: what is {text!r}?"
        return self.start_at + timedelta(**{name: float(number) for name, number in parts.groupdict("0").items()})

    def _happening(self, step: str) -> Happening:
        when, what = step.split(": ", 1)
        options = dict(re.findall(r"(\w+)=((?:\d+[dhms] ?)+|\S+)", what))
        words = re.sub(r"\w+=((?:\d+[dhms] ?)+|\S+)", "", what).split()
        at = self.instant(when)
        if words[0] in tuple(Operation):
            return self._operation(at, words)
        metadata = {name: True for name in MACHINE_MARKS if options.pop(name, None) == "true"}
        occurred = options.pop("occurred", None)
        mail = options.pop("mail", None)
        happening = Happening(
            at=at,
            event_type=" ".join(words),
            occurred_at=None if occurred is None else self.instant(occurred.strip()),
            visit=None if mail is None else int(mail),
            node_id=options.pop("node", None),
            event_id=options.pop("id", None),
            metadata=metadata or None,
        )
        assert not options, f"{self.name}: what is {options}?"
        return happening

    def _operation(self, at: datetime, words: Sequence[str]) -> Happening:
        happening = Happening(at=at, do=words[0])
        if len(words) == 1:
            return happening
        (argument,) = words[1:]
        if words[0] == Operation.RESUME:
            return replace(happening, policy=argument)
        return replace(happening, node_id=argument)

    def told(self, story: Story) -> dict[str, Any]:
        """The same keys as expected, of what became of the contact; an instant only where one is expected."""
        transitions = [
            (f"{one.from_node_id} -> {one.to_node_id} ({one.trigger})", one.created_at) for one in story.history[1:]
        ]
        mails = [(node_id, at) for node_id, _, at in story.mails]
        told = {
            "path": self._as_written(self.path, transitions),
            "status": story.campaign[0],
            "mails": self._as_written(self.mails, mails),
        }
        return told if self.outcomes is None else {**told, "outcomes": story.outcomes}

    @property
    def expected(self) -> dict[str, Any]:
        """What the scenario says."""
        expected = {"path": list(self.path), "status": self.status, "mails": list(self.mails)}
        return expected if self.outcomes is None else {**expected, "outcomes": list(self.outcomes)}

    def _as_written(self, written: Sequence[str], actual: Sequence[tuple[str, datetime]]) -> list[str]:
        """`actual` as text: in the words of `written` where they mean the same."""
        texts = []
        for index, (text, at) in enumerate(actual):
            wanted = written[index] if index < len(written) else ""
            _, _, when = wanted.partition(" at ")
            is_same = wanted == text or (when and wanted == f"{text} at {when}" and self.instant(when) == at)
            texts.append(wanted if is_same else f"{text} at {at - self.start_at} ({at.isoformat()})")
        return texts


@cache
def plans() -> Mapping[str, Any]:
    """The documents of the scenarios' plans, by name."""
    return tomllib.loads((FOLDER / PLANS).read_text("utf-8"))


@cache
def scenarios() -> tuple[Scenario, ...]:
    """Every scenario, in the order of files and of what stands in them."""
    files = sorted(file for file in FOLDER.glob("*.toml") if file.name != PLANS)
    return tuple(Scenario(**one) for file in files for one in tomllib.loads(file.read_text("utf-8"))["scenario"])
