import json
from pathlib import Path
from typing import Any

import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command, enrol

ONE = ("event", "--tenant", "acme", "--campaign", "c-1")


def make_row(**overrides: Any) -> dict[str, Any]:
    return {"tenant_id": "acme", "campaign_id": "c-1", "event_type": "opened", **overrides}


def write_rows(file: Path, *rows: Any) -> str:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return str(file)


def test_event_moves_its_campaign_and_says_where_it_is(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)

    answer = command(*ONE, "Open", "--event-id", "e-1")

    assert (answer.code, answer.out, answer.err) == (0, "opened: transitioned; completed at stop, visit 2\n", "")


def test_the_same_event_again_is_a_duplicate(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)
    command(*ONE, "replied", "--event-id", "e-1")

    answer = command(*ONE, "replied", "--event-id", "e-1", "--metadata", '{"a": 1}', "--json")

    assert answer.document["outcome"] == "duplicate"
    assert answer.document["event_id"] == "e-1"
    assert answer.document["campaign"]["current_node_id"] == "wait_open"


def test_an_event_of_an_unknown_campaign_is_recorded(on_sqlite: Command) -> None:
    answer = on_sqlite("event", "opened", "--tenant", "acme", "--message-id", "m-1")

    assert (answer.code, answer.out) == (0, "opened: unknown_campaign\n")


def test_a_timeout_is_not_fired_before_its_time(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts)

    answer = on_sqlite(*ONE, "no_open")

    assert answer.code == 2
    assert answer.err.startswith("error: TYPE: 'no_open' is not usable: wait: it is due at ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "TYPE: it is missing"),
        (("opened", "--tenant", ""), "--tenant: '' is not usable"),
        (("!",), "TYPE: '!' is not usable: write an event type such as opened"),
        (("opened", "--occurred-at", "now"), "--occurred-at: 'now' is not usable: write an instant such as"),
        (("opened", "--event-id", "e" * 129), "--event-id: 'eee"),
        (("opened", "--metadata", "[1]"), "--metadata: '[1]' is not usable: write a JSON object"),
        (("opened", "--skip-bad"), "--skip-bad: leave it out"),
        (("opened", "--from", "rows.jsonl"), "TYPE: 'opened' is not usable: leave it out"),
    ],
)
def test_bad_input_names_option_value_and_remedy(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, words: tuple[str, ...], message: str
) -> None:
    enrol(sqlite_timeouts)

    answer = on_sqlite(*ONE, *words)

    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert len(sqlite_timeouts.campaigns.history("acme", "c-1")) == 1


def test_a_file_is_applied_row_by_row_in_its_order_and_counted(
    command: Command, timeouts: TimeoutScheduler, folder: Path
) -> None:
    for number in range(1200):
        enrol(timeouts, f"c-{number}") if number < 3 else None
    rows = [make_row(campaign_id=f"c-{number % 3}", event_id=f"e-{number}") for number in range(1200)]
    file = write_rows(folder / "rows.jsonl", *rows, make_row(event_id="e-0", tenant_id=None))

    answer = command("event", "--tenant", "acme", "--from", file, "--json")

    assert answer.document == {
        "events": 1201,
        "outcomes": {"transitioned": 3, "ignored": 1197, "duplicate": 1},
        "bad_lines": [],
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("oops", "row: 'oops' is not usable: it isn't JSON"),
        (make_row(tenant_id=None), "tenant_id: it is missing: give it in the row, or --tenant"),
        (make_row(event_type=None), "event_type: is missing"),
        (make_row(event_type="no_open"), "event_type: 'no_open' is not usable: give a timeout's event by itself"),
        (make_row(campaign_id=None), "campaign_id: give campaign_id or message_id"),
        (make_row(occurred_at="soon"), "occurred_at: 'soon' is not usable: write an instant"),
        (make_row(occurred_at=1), "occurred_at: 1 is not usable: write an instant"),
        (make_row(metadata="x"), "metadata: 'x' is not usable: give a mapping"),
        (make_row(colour="red"), "colour: 'red' is not usable: use only"),
    ],
)
def test_a_bad_row_is_named_and_nothing_of_the_file_is_applied(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, folder: Path, row: Any, message: str
) -> None:
    enrol(sqlite_timeouts)
    file = write_rows(folder / "rows.jsonl", make_row(), row)

    answer = on_sqlite("event", "--from", file)

    assert (answer.code, answer.out) == (2, "")
    assert f"line 2: {message}" in answer.err
    assert len(sqlite_timeouts.campaigns.history("acme", "c-1")) == 1


def test_skip_bad_applies_the_good_rows(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, folder: Path) -> None:
    enrol(sqlite_timeouts)

    answer = on_sqlite("event", "--skip-bad", "--from", write_rows(folder / "rows.jsonl", "oops", make_row()))

    assert answer.code == 0
    assert answer.out == "outcome       events\ntransitioned  1\nevents 1, bad lines left out 1\n"


def test_a_file_that_isnt_json_lines_is_refused(on_sqlite: Command, folder: Path) -> None:
    (folder / "rows.csv").write_text("campaign_id\nc-1\n")

    answer = on_sqlite("event", "--from", "rows.csv")

    assert answer.code == 2
    assert answer.err == "error: --from: 'rows.csv' is not usable: give JSON Lines: one JSON object in each line\n"
