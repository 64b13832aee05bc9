"""RESULTS.md: settings, then a section per workload with medians, spread and ratios, and what can't be told apart."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import parts
from benchmarks.options import Options
from benchmarks.program import CHECKOUT
from benchmarks.report.charts import CHARTS
from benchmarks.results import Described, Metric, Results

TITLES: Final = {
    "fire": ("Firing", "All due at once: timeouts fired per second, from the start to the last commit."),
    "schedule": (
        "Taking in",
        "Timeouts, enrolments and events taken in per second. One by one: each is durable before the next.",
    ),
    "lateness": (
        "Lateness",
        "A steady number falls due per second: milliseconds from its instant until firing begins, and is committed.",
    ),
    "depth": (
        "Depth",
        "The same number is due, beside ever more that isn't. Memory is that of the process; a claim is of 500.",
    ),
    "crash": (
        "Crash",
        "`kill -9` when a third of 3,000 was done. One process is started again at once (its start is in the seconds).",
    ),
    "idle": ("Idle", "A daemon with nothing due, with its default settings."),
    "fairness": (
        "Fairness",
        "One tenant has a backlog; another's timeouts fall due one by one meanwhile. The backlog alone, and both.",
    ),
    "log": ("Log", "All due at once, with a line in a file for each timeout fired, and with warnings alone."),
    "cycles": (
        "Cycles",
        "10,000 campaigns go round. How many times as large tables and indexes are at the end as when written anew.",
    ),
}
_LIMITS: Final = {"postgresql": "set-based", "sqlite": "set-based-sqlite"}
_LARGE: Final = 10
_ENOUGH: Final = 2


def write_report(results: Results, options: Options) -> None:
    """The report, the raw results beside it, and the charts where matplotlib can be had."""
    folder = options.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    raw = options.output.with_suffix(".json")
    results.write(raw)
    charts, complaint = _draw(raw, folder / "charts")
    options.output.write_text("\n".join(report_lines(results, charts, complaint)) + "\n", "utf-8")


def _draw(raw: Path, folder: Path) -> tuple[list[str], str | None]:
    """The charts that were drawn, by the peers' environment: it has matplotlib; and why there are none."""
    try:
        python = parts.peer_python()
    except parts.MissingPartError as error:
        return [], str(error)
    command: list[str | Path] = [python, "-m", "benchmarks.report.charts", raw.absolute(), folder.absolute()]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [], done.stderr.strip().splitlines()[-1]
    return done.stdout.split(), None


def report_lines(results: Results, charts: list[str], complaint: str | None) -> Iterator[str]:
    """The report, line by line; `complaint` is why there are no charts."""
    yield "# Results"
    yield ""
    yield (
        "Written by `python -m benchmarks`. Every figure is the median of interleaved rounds, with the least and the "
        "most in brackets; ratios are medians of the ratios within each round. After every run the effects in the "
        "database were counted, and had to be exactly right. Each run starts on a fresh copy of a database: "
        "PostgreSQL's buffers are cold, the system's file cache is warm, and what was copied is on disk, alike for all."
    )
    yield from _wrong(results)
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {value} |" for name, value in results.facts.items())
    yield ""
    yield "| contender | is | set up as |"
    yield "|---|---|---|"
    yield from (f"| {one.label} | {one.kind} | {one.settings} |" for one in results.contenders)
    if complaint:
        yield ""
        yield f"No charts: {complaint}"
    for workload, (title, what) in TITLES.items():
        if results.metrics(workload) or any(note.workload == workload for note in results.skipped):
            yield ""
            yield f"## {title}"
            yield ""
            yield what
            yield from _section(results, workload)
            yield from _chart(workload, charts)


def _wrong(results: Results) -> Iterator[str]:
    for note in results.wrong:
        yield ""
        text = " ".join(note.text.split())
        yield f"**Failed:** {note.workload}, {results.label(note.contender)}: {text}"


def _chart(workload: str, charts: list[str]) -> Iterator[str]:
    for name in CHARTS.get(workload, ()):
        if name in charts:
            yield ""
            yield f"![{workload}](charts/{name})"


def _section(results: Results, workload: str) -> Iterator[str]:
    metrics = results.metrics(workload)
    able = [one for one in results.contenders if any(results.find(workload, one.key, each.name) for each in metrics)]
    if able:
        yield ""
        yield "| | " + " | ".join(_heading(metric) for metric in metrics) + " |"
        yield "|---" * (len(metrics) + 1) + "|"
        for contender in able:
            cells = (_cell(results, workload, contender, metric) for metric in metrics)
            yield f"| {contender.label} | " + " | ".join(cells) + " |"
    notes = [*_noise(results, workload, metrics), *_left_out(results, workload)]
    if notes:
        yield ""
        yield from notes


def _heading(metric: Metric) -> str:
    return f"{metric.name}, {metric.unit}" if metric.unit else metric.name


def _cell(results: Results, workload: str, contender: Described, metric: Metric) -> str:
    found = results.find(workload, contender.key, metric.name)
    if found is None:
        return "-"
    series, digits = found.series, metric.digits
    text = f"{series.median:,.{digits}f}"
    if len(series.values) > 1 and series.low != series.high:
        text += f" ({series.low:,.{digits}f} to {series.high:,.{digits}f})"
    limit = results.find(workload, _LIMITS[contender.system], metric.name)
    if metric.has_ratio and limit is not None and limit is not found:
        times = series.ratio_to(limit.series).median
        ratio = f"{times:,.{2 if times < _LARGE else 0}f}"
        text += f"; {ratio} of the limit" if metric.more_is_better else f"; {ratio} times the limit's"
    return text


def _noise(results: Results, workload: str, metrics: list[Metric]) -> Iterator[str]:
    """Neighbours whose ranges meet, where something was measured often enough to have a range."""
    for metric in metrics:
        found = [one for one in results.of(workload, metric) if len(one.values) >= _ENOUGH]
        found.sort(key=lambda one: one.series.median, reverse=metric.more_is_better)
        pairs = [
            f"{results.label(one.contender)} and {results.label(other.contender)}"
            for one, other in itertools.pairwise(found)
            if not one.series.is_told_from(other.series)
        ]
        if pairs:
            yield f"* {metric.name}: the noise is larger than the difference of {'; of '.join(pairs)}."
    if all(len(one.values) < _ENOUGH for one in results.measurements if one.workload == workload):
        yield "* Measured once: nothing is known of the noise."


def _left_out(results: Results, workload: str) -> Iterator[str]:
    for note in results.skipped:
        if note.workload == workload:
            yield f"* {results.label(note.contender)} is left out: {' '.join(note.text.split())}"
