"""What is taken out of a report, and what is left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.telemetry.scrubbing import REMOVED, Scrubber

SCRUBBER = Scrubber(["sesame", "sesame-open", "abc"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("connection to sesame-open refused", f"connection to {REMOVED} refused"),
        ("postgresql://ada:x@db:5432/outreach", f"postgresql://{REMOVED}@db:5432/outreach"),
        ("https://hook.example/send?token=1#part", f"https://hook.example/send?{REMOVED}"),
        ("host=db password=hunter2 user=ada", f"host=db password={REMOVED} user=ada"),
        ("password='two words' user=ada", f"password={REMOVED} user=ada"),
        ('{"api_key": "k-1", "n": 1}', f'{{"api_key": {REMOVED}, "n": 1}}'),
        ("Authorization: Bearer abcdefghij", f"Authorization: {REMOVED}"),
        ("refused: <ada.b+c@mail.example.com>", f"refused: <{REMOVED}>"),
        ("abc is too short to be looked for", "abc is too short to be looked for"),
        ("the password is wrong", "the password is wrong"),
        ("acme:c-1:intro:1:timeout:no_open", "acme:c-1:intro:1:timeout:no_open"),
        ("connection to server at 127.0.0.1, port 5432 failed", "connection to server at 127.0.0.1, port 5432 failed"),
    ],
)
def test_texts(text: str, left: str) -> None:
    assert SCRUBBER.text(text) == left


def test_what_stands_under_a_private_name_goes_however_deep() -> None:
    value = {"a": [{"smtp_password": {"x": "y"}, "address": ["z"], "variables": {}, "contact_id": "k-1"}], "n": 1.5}
    assert SCRUBBER.value(value) == {
        "a": [{"smtp_password": REMOVED, "address": REMOVED, "variables": REMOVED, "contact_id": "k-1"}],
        "n": 1.5,
    }


def test_a_value_without_end_is_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert REMOVED in str(SCRUBBER.value(endless))


_texts = st.text() | st.just("sesame") | st.just("x sesame-open y")
_values = st.recursive(
    _texts | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@given(_values)
def test_no_value_keeps_a_secret(value: Any) -> None:
    def texts(one: Any) -> list[str]:
        if isinstance(one, str):
            return [one]
        members = [*one.keys(), *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else ()
        return [text for member in members for text in texts(member)]

    assert not any("sesame" in text for text in texts(SCRUBBER.value(value)))
