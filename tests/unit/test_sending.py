from typing import Any

import pytest

from scheduler.domain.errors import PermanentSendError
from scheduler.domain.sending import fill_in

ADA: dict[str, Any] = {"first_name": "Ada", "count": 0, "is_new": False, "a.b-c": "dotted", "empty": "", "none": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello {{first_name}}", "Hello Ada"),
        ("{{ first_name }}, {{first_name}}!", "Ada, Ada!"),
        ("{{count}} {{is_new}} {{empty}}", "0 False "),
        ("{{a.b-c}}", "dotted"),
        ("nothing to fill in", "nothing to fill in"),
        ("", ""),
        ("{first_name} {{}} {{ }} {{1st}} {{first name}}", "{first_name} {{}} {{ }} {{1st}} {{first name}}"),
        ("{{{first_name}}}", "{Ada}"),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert fill_in(text, ADA) == expected


def test_no_text_stays_no_text() -> None:
    assert fill_in(None, {}) is None


@pytest.mark.parametrize("text", ["{{last_name}}", "{{none}}", "{{first_name}} {{last_name}}"])
def test_a_missing_variable_fails_for_good_and_is_named(text: str) -> None:
    with pytest.raises(PermanentSendError, match=r"'(last_name|none)'"):
        fill_in(text, ADA)


def test_a_value_is_not_filled_in_again() -> None:
    assert fill_in("{{a}}", {"a": "{{b}}", "b": "c"}) == "{{b}}"
