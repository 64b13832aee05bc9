from datetime import UTC, datetime, timedelta, timezone

import pytest

from scheduler.cli.output import human, printable, write_table

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (NOON, "2026-03-02 12:00:00+00:00"),
        (NOON.astimezone(timezone(timedelta(hours=-8))), "2026-03-02 12:00:00+00:00"),
        (True, "yes"),
        (3, "3"),
        ("", ""),
    ],
)
def test_values_are_shown_as_people_read_them(value: object, expected: str) -> None:
    assert human(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zoë → 東京", "Zoë → 東京"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\x00", "a\\nb\\tc\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_table_without_a_terminal_is_aligned_text_that_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(["name", "long"], [["a", "x" * 300], ["bcdef", "y"]])

    assert capsys.readouterr().out == f"name   long\na      {'x' * 300}\nbcdef  y\n"
