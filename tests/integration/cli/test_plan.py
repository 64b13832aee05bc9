import json
from pathlib import Path

import pytest

from scheduler import CampaignPlan
from scheduler.domain.plan_schema import plan_schema
from tests.integration.cli.conftest import PLAN, Command

FAULTY = {"version": "1.0", "startNodeId": "a", "nodes": [{"id": "a", "action": "wait", "transitions": [
    {"on": "no_open", "to": "b", "after": "3 days"}]}]}  # fmt: skip


def test_validate_says_what_the_plan_is(bare: Command) -> None:
    answer = bare("plan", "validate", "plan.json")

    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"plan.json: a plan of 2 nodes, hash {CampaignPlan.parse(PLAN).hash}\n"


def test_validate_names_every_fault_with_its_path(bare: Command, folder: Path) -> None:
    (folder / "bad.json").write_text(json.dumps(FAULTY))

    answer = bare("plan", "validate", "bad.json")

    assert (answer.code, answer.out) == (2, "")
    first, *faults = answer.err.splitlines()
    assert first == "error: bad.json: 2 faults"
    assert faults[0].startswith("  $.nodes[0].transitions[0].after: '3 days': ")
    assert faults[1].startswith("  $.nodes[0].transitions[0].to: 'b': ")


def test_validate_as_json_has_the_faults_too(bare: Command) -> None:
    answer = bare("plan", "validate", "-", "--json", stdin=json.dumps(FAULTY))

    assert answer.code == 2
    assert answer.document["is_valid"] is False
    assert [fault["value"] for fault in answer.document["faults"]] == ["3 days", "b"]


def test_validate_warns_of_what_is_probably_not_meant(bare: Command, folder: Path) -> None:
    nodes = [{"id": "a", "action": "wait", "transitions": [{"on": "no_open", "to": "stop", "after": "PT1H"}]}]
    (folder / "odd.json").write_text(json.dumps({"version": "1.0", "startNodeId": "a", "nodes": nodes}))

    answer = bare("plan", "validate", "odd.json")

    assert answer.code == 0
    assert answer.err.startswith("warning: $.nodes[0]")


def test_show_says_how_the_plan_is_understood(bare: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_NO_OPEN_AFTER", "PT5H")
    nodes = [
        {"id": "a", "action": "wait", "transitions": [{"on": "no_open", "to": "stop"}, {"on": "open", "to": "stop"}]}
    ]
    document = json.dumps({"version": "1.0", "startNodeId": "a", "nodes": nodes})

    shown, answer = bare("plan", "show", "-", stdin=document), bare("plan", "show", "-", "--json", stdin=document)

    assert "a     wait  no_open  stop     timeout after PT5H\n" in shown.out
    assert answer.document["nodes"][0]["timeouts"] == [{"event_type": "no_open", "delay": "PT5H", "to": "stop"}]
    assert answer.document["nodes"][0]["transitions"][1] == {
        "on": "opened",
        "to": "stop",
        "after": None,
        "within": None,
    }


@pytest.mark.parametrize("words", [(), ("plan.json",)])
def test_schema_prints_the_json_schema(bare: Command, words: tuple[str, ...]) -> None:
    assert bare("plan", "schema", *words).document == plan_schema()


def test_schema_of_a_format_nobody_knows_is_refused(bare: Command, folder: Path) -> None:
    (folder / "old.json").write_text('{"version": "0.9"}')

    answer = bare("plan", "schema", "old.json")

    assert (answer.code, answer.out) == (2, "")
    assert "$.version: '0.9'" in answer.err


@pytest.mark.parametrize("act", ["validate", "show", "schema"])
def test_a_file_that_cant_be_read_is_named(bare: Command, act: str) -> None:
    answer = bare("plan", act, "missing.json")

    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: FILE: 'missing.json' is not usable: it can't be read: No such file or directory\n"


@pytest.mark.parametrize("act", ["validate", "show", "schema"])
def test_a_file_that_isnt_json_says_where(bare: Command, folder: Path, act: str) -> None:
    (folder / "bad.json").write_text("{oops}")

    answer = bare("plan", act, "bad.json")

    assert answer.code == 2
    assert "it isn't JSON: Expecting property name enclosed in double quotes, at line 1, column 2" in answer.err
