"""The charts, as SVG: `python -m benchmarks.report.charts RESULTS.json FOLDER`, where matplotlib is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.results import Distribution, Measurement, Results

# Which charts a workload may have.
CHARTS: Final = {
    "fire": ("fire.svg",),
    "schedule": ("schedule.svg",),
    "lateness": ("lateness.svg",),
    "depth": ("depth.svg",),
    "crash": ("crash.svg",),
}
COLOURS: Final = {"this project": "#1f6fb4", "limit": "#9aa0a6", "peer": "#d08a2e"}
_WIDTH: Final = 8.0
_BAR: Final = 0.34


def bars(results: Results, workload: str, metric: str, title: str, plot: Any) -> Any:
    """Medians as bars on a log axis, the range as a line, the ratio to this project as text."""
    found = [one for one in results.measurements if (one.workload, one.metric.name) == (workload, metric)]
    if not found:
        return None
    found.sort(key=lambda one: one.series.median)
    figure, axes = plot.subplots(figsize=(_WIDTH, 1.2 + _BAR * len(found)), layout="constrained")
    kinds = {one.key: one.kind for one in results.contenders}
    ours = next((one.series.median for one in found if one.contender == "ours"), None)
    for place, one in enumerate(found):
        series = one.series
        errors = [[series.median - series.low], [series.high - series.median]]
        colour = COLOURS[kinds[one.contender]]
        axes.barh(place, series.median, color=colour, xerr=errors, capsize=2, ecolor="#444444", height=0.7)
        ratio = f"  x {series.median / ours:.2f}" if ours and one.contender != "ours" else ""
        axes.text(series.high * 1.04, place, f"{series.median:,.0f}{ratio}", va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [results.label(one.contender) for one in found])
    axes.set_xscale("log")
    axes.set_xlim(right=max(one.series.high for one in found) * 4)
    axes.set_title(title, loc="left")
    axes.set_xlabel(f"{found[0].metric.unit}, log scale; x is the ratio to timeout-scheduler on PostgreSQL")
    _tidy(axes)
    return figure


def fire(results: Results, plot: Any) -> Any:
    """Who fires how fast."""
    return bars(results, "fire", "fired", "Timeouts fired per second (median, least to most)", plot)


def schedule(results: Results, plot: Any) -> Any:
    """One by one: it is what an application waits for."""
    return bars(results, "schedule", "one by one", "Timeouts scheduled one by one, each durable, per second", plot)


def lateness(results: Results, plot: Any) -> Any:
    """The share that was later than so many milliseconds: the tail is what differs."""
    found = [one for one in results.distributions if one.workload == "lateness"]
    if not found:
        return None
    figure, axes = plot.subplots(figsize=(_WIDTH, 4.2), layout="constrained")
    for one in found:
        name = f"{results.label(one.contender)}, {one.name}"
        shares = [1 - share for share, _ in one.points if share < 1]
        values = [max(value, 0.05) for share, value in one.points if share < 1]
        axes.plot(values, shares, label=name, linestyle=_line(one), linewidth=1.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("milliseconds after its instant, log scale")
    axes.set_ylabel("share of timeouts that were later")
    axes.set_title("Lateness under steady load", loc="left")
    axes.legend(fontsize=8, frameon=False)
    _tidy(axes)
    return figure


def depth(results: Results, plot: Any) -> Any:
    """Each by its own rate at the least depth: flat is what is wanted."""
    found = [one for one in results.measurements if one.workload == "depth" and one.metric.name.startswith("fired")]
    if not found:
        return None
    figure, axes = plot.subplots(figsize=(_WIDTH, 3.8), layout="constrained")
    for key in dict.fromkeys(one.contender for one in found):
        points = sorted((one for one in found if one.contender == key), key=lambda one: one.metric.at)
        _line_with_range(axes, points, results.label(key))
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.axhline(1, color="#444444", linewidth=0.6)
    axes.set_xlabel("pending timeouts beside the due ones, log scale")
    axes.set_ylabel("fired per second, by the rate at the least depth")
    axes.set_title("Firing beside more and more that isn't due", loc="left")
    axes.legend(fontsize=8, frameon=False)
    _tidy(axes)
    return figure


def crash(results: Results, plot: Any) -> Any:
    """What was lost for good."""
    found = [one for one in results.measurements if (one.workload, one.metric.name) == ("crash", "lost")]
    if not found:
        return None
    figure, axes = plot.subplots(figsize=(_WIDTH, 1.2 + _BAR * len(found)), layout="constrained")
    kinds = {one.key: one.kind for one in results.contenders}
    for place, one in enumerate(reversed(found)):
        after = results.find("crash", one.contender, "all done after")
        text = f"{one.series.median:,.0f}" + (f" (all done after {after.series.median:.1f} s)" if after else "")
        axes.barh(place, one.series.median, color=COLOURS[kinds[one.contender]], height=0.7)
        axes.text(one.series.median, place, f"  {text}", va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [results.label(one.contender) for one in reversed(found)])
    axes.set_xlim(0, max(*(one.series.high for one in found), 10) * 1.5)
    axes.set_xlabel("timeouts of 3,000 that never had their effect")
    axes.set_title("Lost by one kill -9 in the middle", loc="left")
    _tidy(axes)
    return figure


def _line_with_range(axes: Any, points: list[Measurement], label: str) -> None:
    places = [one.metric.at for one in points]
    least = points[0].series.median
    medians = [one.series.median / least for one in points]
    lows = [(one.series.median - one.series.low) / least for one in points]
    highs = [(one.series.high - one.series.median) / least for one in points]
    axes.errorbar(places, medians, yerr=[lows, highs], label=label, marker="o", capsize=3, linewidth=1.6)


def _line(one: Distribution) -> str:
    return "-" if one.contender == "ours" else "--"


def _tidy(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="both", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


_DRAWERS: Final[dict[str, Callable[[Results, Any], Any]]] = {
    "fire.svg": fire,
    "schedule.svg": schedule,
    "lateness.svg": lateness,
    "depth.svg": depth,
    "crash.svg": crash,
}


def main() -> None:
    """Draw what there is something to draw of, and print the names."""
    import matplotlib as mpl  # noqa: PLC0415 - the report's own environment doesn't have it

    mpl.use("svg")
    # The same results make the same file.
    mpl.rcParams |= {"svg.hashsalt": "timeout-scheduler", "font.size": 9}
    from matplotlib import pyplot  # noqa: PLC0415

    results, folder = Results.read(Path(sys.argv[1])), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in _DRAWERS.items():
        figure = draw(results, pyplot)
        if figure is not None:
            figure.savefig(folder / name, metadata={"Date": None})
            print(name)


if __name__ == "__main__":
    main()
