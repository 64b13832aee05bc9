"""What a run found out: measurements, what was skipped, and what was wrong. Written to and read from JSON."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.samples import Series


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured; within a workload `name` is unique.

    `digits` is how many are shown after the point, `at` the place on an axis.
    """

    name: str
    unit: str
    digits: int = 0
    more_is_better: bool = True
    has_ratio: bool = False
    at: int = 0


@dataclass(slots=True)
class Measurement:
    """The values of one metric of one contender, one per round."""

    workload: str
    contender: str
    metric: Metric
    values: list[float] = field(default_factory=list)

    @property
    def series(self) -> Series:
        """For arithmetic."""
        return Series.of(self.values)


@dataclass(frozen=True, slots=True)
class Distribution:
    """(share, value) points of what was measured many times within a run, such as lateness."""

    workload: str
    contender: str
    name: str
    unit: str
    count: int
    points: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Note:
    """What a reader must know: a contender that was left out, or one whose effects were wrong."""

    workload: str
    contender: str
    text: str


@dataclass(frozen=True, slots=True)
class Described:
    """A contender as the report introduces it."""

    key: str
    label: str
    kind: str
    settings: str
    system: str


@dataclass(slots=True)
class Results:
    """Everything, in the order in which it was found out."""

    facts: dict[str, str] = field(default_factory=dict)
    contenders: list[Described] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    wrong: list[Note] = field(default_factory=list)

    def add(self, workload: str, contender: str, metric: Metric, value: float) -> None:
        """One more round of a measurement."""
        found = self.find(workload, contender, metric.name)
        if found is None:
            found = Measurement(workload, contender, metric)
            self.measurements.append(found)
        found.values.append(value)

    def find(self, workload: str, contender: str, metric: str) -> Measurement | None:
        """A measurement, when there is one."""
        for one in self.measurements:
            if (one.workload, one.contender, one.metric.name) == (workload, contender, metric):
                return one
        return None

    def metrics(self, workload: str) -> list[Metric]:
        """What was measured in a workload."""
        return list(dict.fromkeys(one.metric for one in self.measurements if one.workload == workload))

    def of(self, workload: str, metric: Metric) -> list[Measurement]:
        """Every contender's values of one metric."""
        return [one for one in self.measurements if one.workload == workload and one.metric == metric]

    def label(self, key: str) -> str:
        """How a contender is called."""
        return next((one.label for one in self.contenders if one.key == key), key)

    def keep(self, older: Results, but: Collection[str]) -> None:
        """Take over what another run found out about workloads that this one left out; facts say of when it is."""
        kept = {one.workload: f"kept: {one.workload}" for one in older.measurements if one.workload not in but}
        whole = "; ".join(older.facts[name] for name in ("measured", "rounds", "sizes") if name in older.facts)
        versions = {name: fact for name, fact in older.facts.items() if not name.startswith("kept: ")}
        self.facts = {**versions, **self.facts, **{name: older.facts.get(name, whole) for name in kept.values()}}
        known = {one.key for one in self.contenders}
        self.contenders += [one for one in older.contenders if one.key not in known]
        self.measurements += [one for one in older.measurements if one.workload in kept]
        self.distributions += [one for one in older.distributions if one.workload in kept]
        self.skipped += [one for one in older.skipped if one.workload in kept]
        self.wrong += [one for one in older.wrong if one.workload in kept]

    def write(self, file: Path) -> None:
        """As JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, file: Path) -> Results:
        """What `write` wrote."""
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return cls(
            facts=found["facts"],
            contenders=[Described(**one) for one in found["contenders"]],
            measurements=[Measurement(**{**one, "metric": Metric(**one["metric"])}) for one in found["measurements"]],
            distributions=[Distribution(**one) for one in found["distributions"]],
            skipped=[Note(**one) for one in found["skipped"]],
            wrong=[Note(**one) for one in found["wrong"]],
        )
