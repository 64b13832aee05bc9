"""docs/reference/cli.md has every command, and every option with its own help text."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from scheduler.cli.app import app

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
ROOT: Any = get_command(app)


def commands() -> dict[str, Any]:
    """Every command by the words that call it."""
    found: dict[str, Any] = {}
    for name, command in ROOT.commands.items():
        nested = getattr(command, "commands", None)
        found.update({name: command} if nested is None else {f"{name} {word}": one for word, one in nested.items()})
    return found


def table_of(command: Any) -> str:
    """Arguments and options as the page writes them."""
    rows = [f"| `{_written(one)}` | {one.help} |\n" for one in command.params if one.name != "help"]
    return "".join(["| | |\n|---|---|\n", *rows]) if rows else ""


def _written(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(parameter.opts)
    return names if parameter.is_flag else f"{names} {parameter.metavar}"


def sections() -> dict[str, str]:
    """What stands below each heading."""
    _, *parts = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return {heading.strip("`"): text for heading, _, text in (part.partition("\n") for part in parts)}


def test_there_is_a_section_for_every_command_and_for_no_other() -> None:
    named = {heading for heading in sections() if not heading[0].isupper()}

    assert named == set(commands())


@pytest.mark.parametrize("name", commands())
def test_a_section_has_the_commands_options_with_their_help(name: str) -> None:
    assert table_of(commands()[name]) in sections()[name]


def test_the_global_options_are_there_with_their_help() -> None:
    assert table_of(ROOT) in sections()["Options of every command"]


@pytest.mark.parametrize("name", commands())
def test_every_option_has_a_help_text_of_one_or_two_sentences(name: str) -> None:
    without = [one.name for one in commands()[name].params if not (one.help or "").endswith((".", "..."))]

    assert without == []
