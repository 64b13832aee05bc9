"""The arithmetic and the report of the benchmarks; that they run at all is `python -m benchmarks --quick`."""

from pathlib import Path

import pytest

from benchmarks.effect import STATEMENTS, named, numbered
from benchmarks.options import parse
from benchmarks.report.markdown import report_lines
from benchmarks.results import Described, Distribution, Metric, Note, Results
from benchmarks.samples import Series, curve, percentile

FIRED = Metric("fired", "timeouts/s", has_ratio=True)


def make_results() -> Results:
    results = Results(
        facts={"machine": "a small one"},
        contenders=[
            Described("ours", "timeout-scheduler", "this project", "as it comes", "postgresql"),
            Described("set-based", "set-based SQL", "limit", "plain", "postgresql"),
            Described("bullmq", "BullMQ 5", "peer", "with Redis", "postgresql"),
        ],
    )
    for ours, limit in ((100.0, 200.0), (120.0, 160.0), (110.0, 220.0)):
        results.add("fire", "ours", FIRED, ours)
        results.add("fire", "set-based", FIRED, limit)
    results.skipped.append(Note("fire", "bullmq", "redis-server isn't installed"))
    return results


def test_a_ratio_is_taken_round_by_round() -> None:
    assert Series.of([4, 2]).ratio_to(Series.of([2, 2])).values == (2.0, 1.0)


def test_a_ratio_of_series_of_different_length_is_that_of_their_medians() -> None:
    assert Series.of([4, 5, 3]).ratio_to(Series.of([2])).values == (2.0,)


def test_two_series_are_told_apart_only_when_their_ranges_do_not_meet() -> None:
    assert Series.of([1, 2]).is_told_from(Series.of([3, 4]))
    assert not Series.of([1, 3]).is_told_from(Series.of([3, 4]))
    assert not Series.of([1]).is_told_from(Series.of([3]))


def test_a_percentile_is_one_of_the_values() -> None:
    values = list(range(1, 101))
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (51, 100, 100)


def test_a_curve_never_falls() -> None:
    points = curve([5.0, 1.0, 3.0])
    assert points == sorted(points)
    assert points[-1] == (1.0, 5.0)


def test_parameters_are_rewritten_for_drivers_and_casts_are_left_alone() -> None:
    statement = "SELECT :tenant, :key::text, :tenant"
    assert named(statement) == "SELECT %(tenant)s, %(key)s::text, %(tenant)s"
    assert numbered(statement) == ("SELECT $1, $2::text, $1", ("tenant", "key"))


def test_the_work_of_one_timeout_is_one_locking_select_three_updates_and_two_inserts() -> None:
    verbs = sorted(statement.split()[0] for statement in STATEMENTS.values())
    assert verbs == ["INSERT", "INSERT", "SELECT", "UPDATE", "UPDATE", "UPDATE"]


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = make_results()
    results.distributions.append(Distribution("lateness", "ours", "200/s", "ms", 2, [(0.5, 1.0), (1.0, 2.0)]))
    file = tmp_path / "results.json"
    results.write(file)
    back = Results.read(file)
    assert results.measurements == back.measurements
    assert results.skipped == back.skipped
    assert [list(point) for point in back.distributions[0].points] == [[0.5, 1.0], [1.0, 2.0]]


def test_what_a_run_left_out_can_be_kept_and_says_of_when_it_is() -> None:
    older, results = make_results(), make_results()
    older.facts |= {"measured": "on Monday", "rounds": "3, in turn"}
    older.add("depth", "ours", FIRED, 90.0)
    older.add("fire", "bullmq", FIRED, 1.0)
    results.keep(older, but=["fire"])
    assert results.find("depth", "ours", "fired") is not None
    assert results.find("fire", "bullmq", "fired") is None
    assert results.facts["kept: depth"] == "on Monday; 3, in turn"
    again = make_results()
    again.keep(results, but=["fire"])
    assert again.facts["kept: depth"] == "on Monday; 3, in turn"
    anew = make_results()
    anew.keep(again, but=["fire", "depth"])
    assert "kept: depth" not in anew.facts


def test_the_report_shows_median_range_and_ratio_to_the_limit_and_who_was_left_out() -> None:
    text = "\n".join(report_lines(make_results(), ["fire.svg"], None))
    assert "| timeout-scheduler | 110 (100 to 120); 0.50 of the limit |" in text
    assert "* BullMQ 5 is left out: redis-server isn't installed" in text
    assert "![fire](charts/fire.svg)" in text


def test_the_report_says_where_noise_is_larger_than_a_difference() -> None:
    results = make_results()
    results.add("fire", "bullmq", FIRED, 105.0)
    results.add("fire", "bullmq", FIRED, 90.0)
    text = "\n".join(report_lines(results, [], None))
    assert "fired: the noise is larger than the difference of timeout-scheduler and BullMQ 5." in text


def test_wrong_effects_are_the_first_thing_the_report_says() -> None:
    results = make_results()
    results.wrong.append(Note("fire", "ours", "99 instead of\n100"))
    lines = list(report_lines(results, [], None))
    assert lines.index("**Failed:** fire, timeout-scheduler: 99 instead of 100") < lines.index("| | |")


def test_an_unknown_workload_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--workloads", "fire,fly"], ["fire"], ["ours"], ["ours"])
    assert "there is no 'fly', only fire" in capsys.readouterr().err
