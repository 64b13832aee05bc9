"""config/timeout-scheduler.env.example says the truth about every setting."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from scheduler import Settings
from scheduler.domain.timing import Duration

EXAMPLE = Path(__file__).parents[2] / "config" / "timeout-scheduler.env.example"
ASSIGNMENT = re.compile(r"#(SCHEDULER_[A-Z_]+)=(.*)")
DEFAULTS = Settings.model_construct()
SETTINGS = sorted(Settings.model_fields)


def variable_of(name: str) -> str:
    return "SCHEDULER_" + ("SCHEMA" if name == "schema_name" else name.upper())


def entries() -> dict[str, tuple[str, str]]:
    """Value and comment of each setting in the file."""
    found, comment = {}, ""
    for line in EXAMPLE.read_text("utf-8").splitlines():
        match = ASSIGNMENT.fullmatch(line)
        if match:
            found[match[1]] = (match[2], comment)
            comment = ""
        else:
            comment = f"{comment} {line.removeprefix('#').strip()}" if line else ""
    return found


def as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return Duration(exact=value).isoformat()
    return str(value)


def test_every_setting_is_listed_once_and_nothing_else() -> None:
    listed = ASSIGNMENT.findall(EXAMPLE.read_text("utf-8"))

    assert sorted(name for name, _ in listed) == sorted(map(variable_of, SETTINGS))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_value_is_the_default(name: str) -> None:
    value, _ = entries()[variable_of(name)]

    assert value in _spellings(getattr(DEFAULTS, name))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_comment_says_what_the_setting_means(name: str) -> None:
    _, comment = entries()[variable_of(name)]
    words = re.findall(r"[a-z]{5,}", (Settings.model_fields[name].description or "").lower())

    assert comment.strip()
    assert [word for word in words if word not in comment.lower()] == []


def test_uncommented_it_is_a_file_of_settings_that_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(variable_of(name), raising=False)
    file = tmp_path / "settings.env"
    file.write_text(EXAMPLE.read_text("utf-8").replace("#SCHEDULER_", "SCHEDULER_"), "utf-8")

    assert set(dotenv_values(file)) == set(map(variable_of, SETTINGS))
    assert Settings.from_environment(file).model_dump() == DEFAULTS.model_dump()


@pytest.mark.parametrize("name", SETTINGS)
def test_its_value_in_the_environment_is_taken_and_an_empty_one_is_the_default(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable_of(name), entries()[variable_of(name)][0])

    assert getattr(Settings.from_environment(), name) == getattr(DEFAULTS, name)
    assert getattr(Settings(), name) == getattr(DEFAULTS, name)


def test_no_line_holds_a_secret() -> None:
    secrets = [
        name for name in SETTINGS if SecretStr in getattr(Settings.model_fields[name].annotation, "__args__", ())
    ]

    assert [entries()[variable_of(name)][0] for name in secrets] == [""] * 6


def _spellings(default: Any) -> set[str]:
    """ISO-8601 has many spellings of one duration; the file uses the one people write."""
    if isinstance(default, Duration):
        hours = default.exact // timedelta(hours=1)
        return {default.isoformat(), f"PT{hours}H"}
    return {as_text(default)}
