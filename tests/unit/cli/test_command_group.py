import pytest

from scheduler.cli.command_group import global_options_first


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["status"], ["status"]),
        (["status", "--schema", "x", "--json"], ["--schema", "x", "status", "--json"]),
        (["status", "--env-file=a", "--database-url", "u"], ["--env-file=a", "--database-url", "u", "status"]),
        (["status", "--traceback"], ["--traceback", "status"]),
        (["plan", "schema"], ["plan", "schema"]),
        (["status", "--schema"], ["--schema", "status"]),
        (["x", "--", "--schema", "y"], ["x", "--", "--schema", "y"]),
    ],
)
def test_global_options_come_first_wherever_they_stood(args: list[str], expected: list[str]) -> None:
    assert global_options_first(args) == expected
