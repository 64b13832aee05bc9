import json
from pathlib import Path
from typing import Any

import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import PLAN, Command, is_empty

FROM = ("enroll", "--tenant", "acme", "--plan", "plan.json", "--from")


def make_row(campaign_id: str, **overrides: Any) -> dict[str, Any]:
    return {"campaign_id": campaign_id, "contact_id": f"k of {campaign_id}", **overrides}


def write_rows(file: Path, *rows: Any) -> str:
    text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    file.write_text(text, "utf-8")
    return str(file)


def contact_of(timeout_scheduler: TimeoutScheduler, contact_id: str) -> Any:
    with timeout_scheduler.database.reading() as transaction:
        return timeout_scheduler.stores.contacts.read(transaction, [("acme", contact_id)])[("acme", contact_id)]


def test_every_row_of_a_json_lines_file_is_enrolled(command: Command, folder: Path, timeouts: TimeoutScheduler) -> None:
    contact = {"address": "a@example.com", "timezone": "UTC", "variables": {"name": "Ada", "age": 36}}
    other = {"tenant_id": "other", "campaign_id": "c-9", "contact_id": "k-9", "plan": PLAN, "start_at": None}
    file = write_rows(folder / "rows.jsonl", make_row("c-1", contact=contact), make_row("c-2"), other)

    answer = command(*FROM, file)

    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "enrolled 3, existed already 0, bad lines left out 0\n"
    assert timeouts.campaigns.find("other", "c-9") is not None
    assert contact_of(timeouts, "k of c-1").variables == {"name": "Ada", "age": 36}


def test_every_row_of_a_csv_file_is_enrolled_and_its_other_columns_are_variables(
    command: Command, folder: Path, timeouts: TimeoutScheduler
) -> None:
    text = "campaign_id,contact_id,address,timezone,start_at,first_name,note\r\n"
    text += 'c-1,k-1,a@example.com,Europe/Berlin,2026-03-02T12:00:00Z,Zoë,"two\r\nlines, and a ""quote"""\r\n\r\n'
    text += "c-2,k-2,,,,,\r\n"
    (folder / "rows.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())

    answer = command(*FROM, "rows.csv", "--json")

    assert answer.document == {"enrolled": 2, "existing": 0, "suppressed": 0, "bad_lines": []}
    contact = contact_of(timeouts, "k-1")
    assert contact.variables == {"first_name": "Zoë", "note": 'two\r\nlines, and a "quote"'}
    assert (contact.address, contact.timezone) == ("a@example.com", "Europe/Berlin")
    assert contact_of(timeouts, "k-2").variables is None


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_marks_line_ends_and_blank_lines_dont_matter(on_sqlite: Command, mark: bytes, end: bytes) -> None:
    lines = [json.dumps(make_row(f"c-{number}")).encode() for number in (1, 2)]

    answer = on_sqlite(*FROM, "-", stdin=mark + end.join([lines[0], b"", b"  ", lines[1]]))

    assert answer.out == "enrolled 2, existed already 0, bad lines left out 0\n"


def test_standard_input_may_be_csv(on_sqlite: Command) -> None:
    answer = on_sqlite(*FROM, "-", stdin="campaign_id,contact_id\nc-1,k-1\n")

    assert answer.out == "enrolled 1, existed already 0, bad lines left out 0\n"


def test_an_empty_file_enrols_nobody(on_sqlite: Command, folder: Path) -> None:
    (folder / "rows.jsonl").touch()

    assert on_sqlite(*FROM, "rows.jsonl").out == "enrolled 0, existed already 0, bad lines left out 0\n"


def test_the_same_file_again_changes_nothing(command: Command, folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", make_row("c-1"), make_row("c-2"))
    command(*FROM, file)

    assert command(*FROM, file).out == "enrolled 0, existed already 2, bad lines left out 0\n"


def test_a_row_names_its_plan_relative_to_the_file_or_to_the_current_folder(
    on_sqlite: Command, folder: Path, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "mine.json").write_text(json.dumps(PLAN), "utf-8")
    rows = (make_row("c-1", tenant_id="acme", plan="mine.json"), make_row("c-2", tenant_id="acme", plan="plan.json"))
    file = write_rows(beside / "rows.jsonl", *rows)
    assert (folder / "plan.json").exists()

    assert on_sqlite("enroll", "--from", file).out == "enrolled 2, existed already 0, bad lines left out 0\n"


BAD_ROWS: list[tuple[Any, str]] = [
    ("not json", "row: 'not json' is not usable: it isn't JSON: Expecting value, at column 1"),
    ('["a list"]', "row: ['a list'] is not usable: write a JSON object in each line"),
    ('{"campaign_id": "c-2", "campaign_id": "c-3"}', "campaign_id: 'c-3' is not usable: this name stands twice"),
    ('{"campaign_id": NaN}', "row: 'NaN' is not usable: JSON has no such number"),
    ("[" * 100_000, "it holds more than a row can"),
    (make_row("c-2", contact_id=None), "contact_id: it is missing"),
    (make_row(""), "campaign_id: '' is not usable: give at least one character"),
    (make_row("c-2", tenant_id=3), "tenant_id: 3 is not usable: give a text"),
    (make_row("c-2", colour="red"), "colour: 'red' is not usable: use only"),
    (make_row("c-2", start_at="soon"), "start_at: 'soon' is not usable: write an instant such as"),
    (make_row("c-2", start_at=5), "start_at: 5 is not usable: write an instant such as"),
    (make_row("c-2", contact={"timezone": "Mars/Base"}), "contact.timezone: 'Mars/Base' is not usable"),
    (make_row("c-2", contact={"phone": "1"}), "contact.phone: '1' is not usable: use only address"),
    (make_row("c-2", contact="a@example.com"), "contact: 'a@example.com' is not usable: give a mapping"),
    (make_row("c-2", contact={"address": "a\x00"}), "contact.address: 'a\\x00' is not usable"),
    ('{"campaign_id": "c-2", "contact_id": "\\ud800"}', "contact_id: '\\ud800' is not usable"),
    (make_row("c-2", plan="missing.json"), "plan: 'missing.json' is not usable: it can't be read"),
    (make_row("c-2", plan="b" * 64), "has no stored plan of this hash"),
    (make_row("c-2", plan={"version": "1.0"}), "the plan has"),
    (make_row("c-2", plan=7), "plan: 7 is not usable: give a plan's file"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_a_bad_row_is_named_by_line_field_and_value_and_nothing_is_enrolled(
    on_sqlite: Command, folder: Path, sqlite_timeouts: TimeoutScheduler, row: Any, message: str
) -> None:
    file = write_rows(folder / "rows.jsonl", make_row("c-1"), "", row, make_row("c-3"))

    answer = on_sqlite(*FROM, file)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("line 3: ")
    assert message in answer.err
    assert "error: --from: 1 of 3 rows are bad, nothing was done" in answer.err
    assert is_empty(sqlite_timeouts)


def test_skip_bad_enrols_the_good_rows_and_lists_the_bad_ones(
    command: Command, folder: Path, timeouts: TimeoutScheduler
) -> None:
    file = write_rows(folder / "rows.jsonl", make_row("c-1"), "oops", make_row("c-2", start_at="soon"), make_row("c-3"))

    answer = command(*FROM, file, "--skip-bad")

    assert answer.code == 0
    assert answer.out == "enrolled 2, existed already 0, bad lines left out 2\n"
    assert [line.partition(":")[0] for line in answer.err.splitlines()] == ["line 2", "line 3"]
    assert timeouts.campaigns.find("acme", "c-3") is not None


def test_skip_bad_says_in_json_which_lines_were_left_out(on_sqlite: Command) -> None:
    answer = on_sqlite(*FROM, "-", "--skip-bad", "--json", stdin='{"campaign_id": "c-1", "contact_id": "k"}\noops\n')

    assert answer.document == {"enrolled": 1, "existing": 0, "suppressed": 0, "bad_lines": [2]}


def test_a_campaign_twice_with_different_contacts_is_refused_naming_both_lines(
    on_sqlite: Command, folder: Path, sqlite_timeouts: TimeoutScheduler
) -> None:
    file = write_rows(folder / "rows.jsonl", make_row("c-1"), make_row("c-2"), make_row("c-1", contact_id="else"))

    answer = on_sqlite(*FROM, file)

    assert answer.code == 2
    assert "line 3: campaign_id: 'c-1' is not usable: line 1 has it with another contact or plan" in answer.err
    assert is_empty(sqlite_timeouts)


def test_a_row_twice_is_enrolled_once(on_sqlite: Command, folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", make_row("c-1"), make_row("c-1"))

    assert on_sqlite(*FROM, file).out == "enrolled 1, existed already 1, bad lines left out 0\n"


def test_only_the_first_bad_rows_are_shown_and_the_others_counted(on_sqlite: Command, folder: Path) -> None:
    answer = on_sqlite(*FROM, write_rows(folder / "rows.jsonl", *["oops"] * 30))

    assert answer.err.count("\nline ") + answer.err.startswith("line ") == 20
    assert "... and 10 more" in answer.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"campaign_id,contact_id\nc-1\n", "line 2: row: 'c-1' is not usable: it has 1 cells, and the header 2"),
        (b"campaign_id,contact_id\nc-1,k,x\n", "line 2: row: 'c-1,k,x' is not usable: it has 3 cells"),
        (b"campaign_id\nc-1\n", "line 2: contact_id: it is missing"),
        (b'campaign_id,contact_id\n"c-1,k-1\n', "line 2: row: it isn't CSV: unexpected end of data"),
        (b"campaign_id,contact_id,name\nc-1,k,\xff\n", "line 2: name: b'\\xff' is not usable: the file must be UTF-8"),
        (b"campaign_id,contact_id,a,a\n", "error: header: 'a' is not usable: this column is there twice"),
        (b"campaign_id,,a\n", "error: header: 'campaign_id,,a' is not usable: give every column a name"),
        (b'campaign_id,contact_id,x\nc-1,k-1,"a\nb"\nc-2,,\n', "line 4: contact_id: it is missing"),
    ],
)
def test_a_bad_csv_file_is_named_by_line_and_column(
    on_sqlite: Command, folder: Path, sqlite_timeouts: TimeoutScheduler, text: bytes, message: str
) -> None:
    (folder / "rows.csv").write_bytes(text)

    answer = on_sqlite(*FROM, "rows.csv")

    assert answer.code == 2
    assert message in answer.err
    assert is_empty(sqlite_timeouts)


def test_a_line_beyond_all_measure_is_a_bad_row_like_any_other(on_sqlite: Command, folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(b"x" * 9_000_000 + b"\n" + json.dumps(make_row("c-1")).encode())

    answer = on_sqlite(*FROM, "rows.jsonl", "--skip-bad")

    assert "line 1: row: '(a long line)' is not usable" in answer.err
    assert answer.out == "enrolled 1, existed already 0, bad lines left out 1\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "missing.jsonl"), "--from: 'missing.jsonl' is not usable: it can't be read: No such file"),
        (("--from", "."), "--from: '.' is not usable: it can't be read: Is a directory"),
        (("--from", "rows.jsonl", "--contact", "k"), "--contact: 'k' is not usable: leave it out"),
        (("--from", "rows.jsonl", "--plan", "missing.json"), "it can't be read: No such file"),
    ],
)
def test_bad_options_beside_a_file_are_named(
    on_sqlite: Command, folder: Path, words: tuple[str, ...], message: str
) -> None:
    write_rows(folder / "rows.jsonl", make_row("c-1", tenant_id="acme"))

    answer = on_sqlite("enroll", *words)

    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


def test_rows_without_tenant_or_plan_say_how_to_give_one(on_sqlite: Command, folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", make_row("c-1"))

    assert "tenant_id: it is missing: give it in the row, or --tenant" in on_sqlite("enroll", "--from", file).err
    answer = on_sqlite("enroll", "--tenant", "acme", "--from", file)
    assert "plan: it is missing: give it in the row (JSON Lines), or --plan for all rows" in answer.err
