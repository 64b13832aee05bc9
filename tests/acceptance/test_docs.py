"""README and docs/ are true: their links lead somewhere, their examples run, the reference names all there is.

A comment above a fenced block says what is done with it:

* `<!-- runs -->`: the blocks of one page and language run one after the other, as one program, in an empty folder;
* `<!-- runs on postgresql -->`: the same, with `DATABASE_URL` naming an empty, migrated PostgreSQL database (for
  commands in libpq's form);
* `<!-- tests -->`: the same, as a test file;
* `<!-- file NAME -->`: is put into the folder where commands run;
* `<!-- prints -->`: what that program prints, instants aside.
"""

import ast
import inspect
import json
import os
import re
import runpy
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from pydantic.fields import FieldInfo

import scheduler
from scheduler import CampaignPlan, CampaignStateManager, Settings, TimeoutScheduler
from scheduler.domain.timing import Duration, parse_duration
from scheduler.store.tables import Tables
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.vocabulary import EVENTS

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]

ON_POSTGRESQL = "runs on postgresql"
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\[[^]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.*)$", re.MULTILINE)
_FIRST_CELL = re.compile(r"^\| `(?P<name>[^`]+)` \|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page, with the comment above it."""

    page: Path
    line: int
    mark: str
    language: str
    text: str


def named(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["mark"] or "", found["language"], found["text"])
        for found in _FENCE.finditer(text)
    ]


def blocks_of(language: str) -> list[Any]:
    found = [block for page in PAGES for block in read_blocks(page) if block.language == language]
    return [pytest.param(block, id=f"{named(block.page)}:{block.line}") for block in found]


def program_of(page: Path, language: str, mark: str) -> str:
    return "\n".join(one.text for one in read_blocks(page) if one.language == language and one.mark == mark)


def programs(language: str, mark: str) -> list[Any]:
    return [pytest.param(page, id=named(page)) for page in PAGES if program_of(page, language, mark)]


def assert_prints(printed: str, page: Path) -> None:
    shown = "".join(block.text for block in read_blocks(page) if block.mark == "prints")
    assert without_instants(printed) == without_instants(shown)


def without_instants(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", "(instant)", text)


def run_python(page: Path, mark: str, folder: Path) -> None:
    program = folder / "example.py"
    program.write_text(program_of(page, "python", mark), "utf-8")
    runpy.run_path(str(program), run_name="__main__")


@pytest.mark.parametrize("page", programs("python", "runs"))
def test_examples_run_and_print_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(page, "runs", tmp_path)
    assert_prints(capsys.readouterr().out, page)


@pytest.mark.parametrize("page", programs("python", ON_POSTGRESQL))
def test_examples_on_postgresql_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", postgresql_url)
    run_python(page, ON_POSTGRESQL, tmp_path)


@pytest.mark.parametrize("page", programs("python", "tests"))
def test_example_tests_pass(page: Path, tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(program_of(page, "python", "tests"), "utf-8")

    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tmp_path],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("page", programs("sh", "runs"))
def test_commands_run_and_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    run_commands(page, "runs", tmp_path)


@pytest.mark.parametrize("page", programs("sh", ON_POSTGRESQL))
def test_commands_on_postgresql_run_and_print_what_the_page_shows(
    page: Path, tmp_path: Path, postgresql_url: str
) -> None:
    run_commands(page, ON_POSTGRESQL, tmp_path, DATABASE_URL=postgresql_url.replace("+psycopg", ""))


def run_commands(page: Path, mark: str, folder: Path, **environment: str) -> None:
    commands = folder / "bin"
    commands.mkdir()
    for name, arguments in (("timeout-scheduler", "-m scheduler "), ("python", "")):
        program = commands / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        program.chmod(0o755)
    for block in read_blocks(page):
        if block.mark.startswith("file "):
            file = folder / block.mark.removeprefix("file ")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, "utf-8")

    answer = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program_of(page, "sh", mark)],
        cwd=folder,
        env={
            "PATH": f"{commands}:/usr/bin:/bin",
            "PYTHONPATH": str(CHECKOUT),
            "HOME": str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )

    assert answer.returncode == 0, answer.stderr
    assert_prints(answer.stdout, page)


@pytest.mark.parametrize("block", blocks_of("python"))
def test_python_blocks_are_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", blocks_of("json"))
def test_json_blocks_are_json_and_whole_plans_are_plans(block: Block) -> None:
    document = json.loads(block.text)

    if isinstance(document, dict) and "startNodeId" in document:
        assert CampaignPlan.parse(document).warnings == ()


@pytest.mark.parametrize("block", blocks_of("jsonl"))
def test_each_line_of_a_jsonl_block_is_json(block: Block) -> None:
    assert [json.loads(line) for line in block.text.splitlines()]


@pytest.mark.parametrize("page", [pytest.param(page, id=named(page)) for page in PAGES])
def test_relative_links_lead_to_a_page_and_a_heading(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text("utf-8"))
    targets = [found["target"] for found in _LINK.finditer(prose) if "://" not in found["target"]]

    broken = [target for target in targets if not leads_somewhere(page, target)]

    assert broken == []


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    goal = (page.parent / path).resolve() if path else page
    return goal.exists() and (not anchor or anchor in anchors_of(goal))


def anchors_of(page: Path) -> set[str]:
    """The headings as GitHub names them."""
    prose = _FENCE.sub("", page.read_text("utf-8"))
    titles = (found["title"].strip().lower() for found in _HEADING.finditer(prose))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def test_index_leads_to_every_page() -> None:
    found = {(DOCS / match["target"]).resolve() for match in _LINK.finditer((DOCS / "index.md").read_text("utf-8"))}

    assert [named(page) for page in sorted(DOCS.rglob("*.md")) if page not in found | {DOCS / "index.md"}] == []


def test_tests_that_the_guarantees_name_exist() -> None:
    page = (DOCS / "explanation" / "guarantees.md").read_text("utf-8")
    named_tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named_tests) > 30, "the pattern finds nothing"

    assert [
        f"{file}::{test}" for file, test in named_tests if f"def {test}(" not in (CHECKOUT / file).read_text("utf-8")
    ] == []


def test_python_reference_has_every_public_name() -> None:
    text = (REFERENCE / "python.md").read_text("utf-8")

    assert [name for name in scheduler.__all__ if not re.search(rf"`{name}\b", text)] == []


@pytest.mark.parametrize("documented", [TimeoutScheduler, CampaignStateManager])
def test_python_reference_has_every_public_method_with_its_parameters(documented: type) -> None:
    text = (REFERENCE / "python.md").read_text("utf-8")
    methods = {name: method for name, method in vars(documented).items() if not name.startswith("_")}

    assert [call for name, method in methods.items() if (call := call_of(name, method)) not in text] == []


def call_of(name: str, method: Callable[..., Any] | property) -> str:
    """A method as the reference writes it, say `` `cancel(job_id, reason=None, connection=None)` ``."""
    if isinstance(method, property):
        return f"`{name}`"
    parameters = list(inspect.signature(method).parameters.values())[1:]
    written: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in written:
            written.append("*")
        if parameter.kind is parameter.VAR_KEYWORD:
            written.append(f"**{parameter.name}")
        elif parameter.default is parameter.empty:
            written.append(parameter.name)
        else:
            written.append(f"{parameter.name}={parameter.default!r}")
    return f"`{name}({', '.join(written)})`"


def test_settings_reference_has_every_setting_with_its_default() -> None:
    shown = re.findall(r"^\| `(\w+)` \| `?([^|`]*)`? \|", (REFERENCE / "settings.md").read_text("utf-8"), re.MULTILINE)

    assert {name: same_form(default) for name, default in shown} == {
        variable_of(name): default_of(field) for name, field in Settings.model_fields.items()
    }


def variable_of(field_name: str) -> str:
    return "SCHEMA" if field_name == "schema_name" else field_name.upper()


def default_of(field: FieldInfo) -> str:
    default = field.default
    if default is None:
        return "none"
    return Duration(exact=default).isoformat() if isinstance(default, timedelta) else str(default)


def same_form(default: str) -> str:
    """`PT72H` is what the program writes as `P3D`."""
    return str(parse_duration("default", default)) if default.startswith("P") else default


def test_events_reference_is_the_vocabulary() -> None:
    assert first_cells("events.md") == set(EVENTS)


def test_metrics_reference_is_what_a_registry_has() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    exported = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in registry.collect()
        if metric.name.startswith("timeout_scheduler_")
    }

    assert {name for name in first_cells("metrics.md") if not name.startswith("/")} == exported


def first_cells(name: str) -> set[str]:
    return set(_FIRST_CELL.findall((REFERENCE / name).read_text("utf-8")))


def test_tables_reference_has_every_table_and_column() -> None:
    sections = (REFERENCE / "tables.md").read_text("utf-8").split("\n## ")[1:]
    shown = {section.split("`")[1]: _FIRST_CELL.findall(section) for section in sections if section.startswith("`")}

    expected = {table.name: [column.name for column in table.columns] for table in Tables().metadata.tables.values()}
    assert shown == expected


SQL_PAGE = DOCS / "how-to" / "insert-from-another-language.md"


def test_sql_for_postgresql_schedules_a_timeout(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url.replace("+psycopg", "")) as connection:
        for _ in range(2):
            connection.execute(program_of(SQL_PAGE, "sql", ON_POSTGRESQL).encode())

    assert_timeout_of_the_sql_page_is_pending(postgresql_url)


def test_sql_for_sqlite_schedules_a_timeout(sqlite_url: str) -> None:
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    try:
        for _ in range(2):
            connection.executescript(program_of(SQL_PAGE, "sql", "runs"))
    finally:
        connection.close()

    assert_timeout_of_the_sql_page_is_pending(sqlite_url)


def assert_timeout_of_the_sql_page_is_pending(url: str) -> None:
    timeout_scheduler = TimeoutScheduler(url)
    try:
        (action,) = timeout_scheduler.list_actions()
    finally:
        timeout_scheduler.close()
    assert action.dedupe_key == "acme:c-1:email_intro:1:timeout:no_open"
    assert (action.status, action.run_at) == ("pending", datetime(2026, 3, 5, 12, tzinfo=UTC))
