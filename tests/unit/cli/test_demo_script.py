import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scheduler.cli.demo.result import Result, write_result
from scheduler.cli.demo.script import CAST, Walk, demanded, members
from scheduler.cli.demo.stage import demo_plan

PLAN = json.loads((Path(__file__).parents[3] / "config" / "plans" / "demo.json").read_text("utf-8"))


def make_walk(**overrides: Any) -> Walk:
    values = {"end_node": "stop", "status": "completed", "transitions": 2, "mails": 2, "fired": 2, "canceled": 0}
    return Walk(**{**values, **overrides})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, make_walk()),
        ({"email_intro": "opened", "wait_click": "clicked"}, make_walk(mails=1, fired=0, canceled=2)),
        ({"email_intro": "opened"}, make_walk(transitions=3, canceled=1)),
        ({"email_bump_1": "opened"}, make_walk(fired=1, canceled=1)),
        ({"email_intro": "opened", "email_bump_1": "opened"}, make_walk(transitions=3, fired=1, canceled=2)),
        (
            {"email_intro": "unsubscribed"},
            make_walk(status="stopped", transitions=1, mails=1, fired=0, canceled=1),
        ),
    ],
)
def test_what_the_plan_demands_is_read_from_its_document(answers: Mapping[str, str], expected: Walk) -> None:
    assert demanded(PLAN, answers) == expected


def test_the_sample_plan_is_the_one_of_the_repository() -> None:
    assert demo_plan() == PLAN


def test_every_contact_has_a_name_of_its_own_and_each_role_is_played() -> None:
    cast = dict(members())

    assert len(cast) == sum(role.contacts for role in CAST) == 24
    assert {role.name for role in cast.values()} == {role.name for role in CAST}


def test_a_result_that_is_as_demanded_differs_in_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    results = [Result("contact-01", "never opens", make_walk(), make_walk())]

    assert write_result(results, 2, 7.0) == []
    assert "1 contacts in 7.0 s: every number is what the plan demands\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "found", [make_walk(fired=1), make_walk(end_node="wait_click", status="active"), make_walk(mails=3)]
)
def test_a_result_that_differs_is_told_by_contact(found: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        Result("contact-01", "never opens", make_walk(), make_walk()),
        Result("contact-02", "never opens", make_walk(), found),
    ]

    differences = write_result(results, 4, 7.0)

    assert [line.partition(" ")[0] for line in differences] == ["contact-02"]
    assert "that is not what the plan demands" in capsys.readouterr().out


def test_errors_of_two_contacts_that_cancel_each_other_out_are_seen_all_the_same() -> None:
    more, less = make_walk(fired=3), make_walk(fired=1)

    assert len(write_result([Result("a", "x", make_walk(), more), Result("b", "x", make_walk(), less)], 4, 1.0)) == 2


def test_a_mail_handed_over_twice_is_a_difference() -> None:
    assert write_result([Result("contact-01", "x", make_walk(), make_walk())], 3, 1.0) == [
        "the plan demands 2 mails, the send handler was given 3"
    ]
