import json
from pathlib import Path

from tests.integration.cli.conftest import Command

START = ("--start-at", "2026-03-02T12:00:00Z")

TIMELINE = """\
when (UTC)            after       node           what                          why
Mon 2026-03-02 12:00  +0          wait_open (1)  entered                       enrolled
Mon 2026-03-02 12:00  +0          wait_open (1)  no_open planned for +3d       72 h after entering
Thu 2026-03-05 12:00  +3d         wait_open (1)  no_open fired: transitioned
Thu 2026-03-05 12:00  +3d         reminder (2)   entered                       no_open
Thu 2026-03-05 12:00  +3d         reminder (2)   mail planned for +3d          at once
Thu 2026-03-05 12:00  +3d         reminder (2)   no_open planned for +4d       24 h after the mail
Thu 2026-03-05 12:00  +3d         reminder (2)   mail sent
Thu 2026-03-05 14:30  +3d 2h 30m  reminder (2)   opened arrived: transitioned
Thu 2026-03-05 14:30  +3d 2h 30m  reminder (2)   no_open canceled              visit left
Thu 2026-03-05 14:30  +3d 2h 30m  stop (3)       ended: completed              opened

+3d 2h 30m: the campaign is over: completed, at stop
"""


def write(folder: Path, *lines: object) -> None:
    """The events' file."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "events.jsonl").write_text("\n".join(texts), "utf-8")


def test_simulate_prints_what_would_happen_and_where_it_ends(bare: Command, folder: Path) -> None:
    write(folder, {"at": "P3DT2H30M", "event_type": "open"})

    answer = bare("plan", "simulate", "plan.json", "--events", "events.jsonl", *START)

    assert (answer.code, answer.out, answer.err) == (0, TIMELINE, "")


def test_simulate_touches_no_database(bare: Command, folder: Path) -> None:
    bare("plan", "simulate", "plan.json", *START)

    assert sorted(file.name for file in folder.parent.rglob("*")) == ["folder", "plan.json"]


def test_simulate_tells_the_time_of_the_plans_zone_or_of_the_contacts(bare: Command, folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "timezone": "America/Los_Angeles"}))

    of_plan = bare("plan", "simulate", "plan.json", *START)
    of_contact = bare("plan", "simulate", "plan.json", *START, "--timezone", "Asia/Kathmandu")

    assert of_plan.out.splitlines()[1].startswith("Mon 2026-03-02 04:00-08:00  +0 ")
    assert of_contact.out.splitlines()[1].startswith("Mon 2026-03-02 17:45+05:45  +0 ")


def test_simulate_moves_mails_out_of_the_contacts_night(bare: Command, folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "quietHours": {"start": "21:00", "end": "07:30"}}))

    answer = bare("plan", "simulate", "plan.json", *START, "--timezone", "Asia/Tokyo", "--json")

    (sent,) = [entry for entry in answer.document["timeline"] if entry["what"] == "sent"]
    assert sent["at"] == "2026-03-05T22:30:00+00:00"


def test_simulate_as_json_has_timeline_history_and_what_is_pending(bare: Command) -> None:
    document = bare("plan", "simulate", "plan.json", *START, "--until", "P1D", "--json").document

    assert (document["end"], document["ended_at"]) == ("until", "2026-03-03T12:00:00+00:00")
    assert (document["campaign"]["status"], document["campaign"]["current_node_id"]) == ("active", "wait_open")
    assert [entry["what"] for entry in document["timeline"]] == ["entered", "planned"]
    assert [transition["trigger"] for transition in document["history"]] == ["enrolled"]
    assert [action["run_at"] for action in document["pending"]] == ["2026-03-05T12:00:00+00:00"]


def test_simulate_takes_delays_and_grace_from_the_settings(bare: Command) -> None:
    nodes = [
        {"id": "a", "action": "wait", "transitions": [{"on": "no_open", "to": "stop"}, {"on": "open", "to": "stop"}]}
    ]
    plan = json.dumps({"version": "1.0", "startNodeId": "a", "nodes": nodes})
    env = "SCHEDULER_NO_OPEN_AFTER=PT5H\nSCHEDULER_TIMEOUT_GRACE=PT10M\n"
    Path("settings.env").write_text(env)

    answer = bare("--env-file", "settings.env", "plan", "simulate", "-", *START, stdin=plan)

    assert answer.out.splitlines()[-1] == "+5h 10m: the campaign is over: completed, at stop"


def test_simulate_names_every_bad_line(bare: Command, folder: Path) -> None:
    write(folder, {"at": "1h", "event_type": "opened"}, "nonsense", {"at": "PT1H", "do": "pause"}, {"at": "PT1H"})

    answer = bare("plan", "simulate", "plan.json", "--events", "events.jsonl", *START)

    assert (answer.code, answer.out) == (2, "")
    remedy = "write a duration from the start such as PT1H, or an instant such as 2026-03-02T12:00:00Z"
    assert answer.err.splitlines() == [
        f"line 1: at: '1h' is not usable: {remedy}",
        "line 2: row: 'nonsense' is not usable: it isn't JSON: Expecting value, at column 1",
        "line 4: event_type: give it, or do: pause, resume, stop, fail_send",
        "error: --events: 3 of 4 lines are bad: correct events.jsonl",
    ]


def test_simulate_reads_only_one_of_its_files_from_standard_input(bare: Command) -> None:
    answer = bare("plan", "simulate", "-", "--events", "-", stdin="{}")

    assert answer.code == 2
    assert "only one of the two files can be standard input" in answer.err


def test_simulate_names_the_option_that_is_unusable(bare: Command) -> None:
    for option, value in (
        ("--events", "missing.jsonl"),
        ("--start-at", "now"),
        ("--until", "soon"),
        ("--timezone", "Nowhere"),
    ):
        answer = bare("plan", "simulate", "plan.json", option, value)

        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(f"error: {option}: '{value}' is not usable: ")


def test_simulate_refuses_a_plan_with_faults(bare: Command) -> None:
    answer = bare("plan", "simulate", "-", stdin='{"version": "1.0"}')

    assert (answer.code, answer.out) == (2, "")
    assert "$.nodes" in answer.err
