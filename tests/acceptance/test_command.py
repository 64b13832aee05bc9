"""The command as a process: exit codes, pipes, signals, and what it says without the extra."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.signals import heed_interrupts

CHECKOUT = Path(__file__).parents[2]
PLAN = {"version": "1.0", "startNodeId": "a", "nodes": [{"id": "a", "action": "wait", "transitions": [
    {"on": "opened", "to": "stop"}, {"on": "no_open", "to": "stop", "after": "PT1H"}]}]}  # fmt: skip
INSTALL_LINE = 'pip install "timeout-scheduler[daemon]"'
# Python as it would be without the extra: these modules are nowhere.
WITHOUT_EXTRA = """
import sys
from importlib.machinery import PathFinder
class Base(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "rich", "starlette", "uvicorn"):
            return None
        return super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Base
from scheduler.cli import main
sys.exit(main())
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of the user's own settings, and a database that isn't there yet."""
    return {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(CHECKOUT),
        "SCHEDULER_DATABASE_URL": f"sqlite:///{tmp_path / 'test.db'}",
    }


def run(
    folder: Path, environment: dict[str, str], *words: str, program: tuple[str, ...] = ("-m", "scheduler")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("words", [(), ("--help",), ("status", "--json")], ids=str)
def test_without_the_extra_every_call_prints_the_install_line(
    tmp_path: Path, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    answer = run(tmp_path, environment, *words, program=("-c", WITHOUT_EXTRA))

    assert (answer.returncode, answer.stdout) == (2, "")
    assert INSTALL_LINE in answer.stderr
    assert "Traceback" not in answer.stderr


def test_exit_codes_tell_done_from_failed_from_wrong(tmp_path: Path, environment: dict[str, str]) -> None:
    failed = run(tmp_path, environment, "status")
    wrong = run(tmp_path, environment, "status", "--frob")
    done = run(tmp_path, environment, "db", "upgrade")

    assert [answer.returncode for answer in (failed, wrong, done)] == [1, 2, 0]
    assert all("Traceback" not in answer.stderr for answer in (failed, wrong, done))


def test_json_is_all_that_is_on_standard_output(tmp_path: Path, environment: dict[str, str]) -> None:
    unset = {**environment, "SCHEDULER_DATABASE_URL": "", "XDG_STATE_HOME": str(tmp_path)}
    run(tmp_path, unset, "db", "upgrade")

    answer = run(tmp_path, unset, "status", "--json")

    assert json.loads(answer.stdout)["tenants"] == []
    assert answer.stderr.startswith("warning: no database is configured")


def test_json_is_json_where_the_terminal_knows_only_ascii(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**PLAN, "name": "Zoë"}))
    ascii_only = {**environment, "PYTHONIOENCODING": "ascii"}

    answer = run(tmp_path, ascii_only, "plan", "show", "plan.json", "--json")
    printed = run(tmp_path, ascii_only, "plan", "show", "plan.json")

    assert json.loads(answer.stdout)["name"] == "Zoë"
    assert "Zo\\xeb" in printed.stdout


@pytest.mark.parametrize("words", [("plan", "schema"), ("--help",)], ids=" ".join)
def test_a_reader_that_goes_away_is_no_news(
    tmp_path: Path, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [sys.executable, "-m", "scheduler", *words],
        cwd=tmp_path,
        env=environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        _, printed = process.communicate(timeout=60)

    assert (process.returncode, printed) == (1, "")


def test_an_interrupted_command_leaves_quietly_with_130_and_nothing_half_done(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    run(tmp_path, environment, "db", "upgrade")
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    words = ["enroll", "--tenant", "acme", "--plan", "plan.json", "--from", "-"]
    with subprocess.Popen(
        [sys.executable, "-m", "scheduler", *words],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no thread of ours forks meanwhile
    ) as process:
        assert process.stdin is not None
        # More than a pipe holds: once it is written, the command is reading, and waits for the rest.
        process.stdin.writelines(b'{"campaign_id": "c-%d", "contact_id": "k-1"}\n' % n for n in range(5_000))
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=60)

    assert (process.returncode, printed, told) == (130, b"", b"")
    assert json.loads(run(tmp_path, environment, "actions", "list", "--json").stdout) == []


def test_a_terminal_sees_a_progress_bar_and_tables(tmp_path: Path, environment: dict[str, str]) -> None:
    run(tmp_path, environment, "db", "upgrade")
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    rows = (json.dumps({"campaign_id": f"c-{number}", "contact_id": "k"}) for number in range(200))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))

    enrolled = on_terminal(tmp_path, environment, "enroll", "--tenant=a", "--plan=plan.json", "--from=rows.jsonl")
    listed = on_terminal(tmp_path, environment, "actions", "list", "--limit", "1")

    assert "enrolling" in enrolled
    assert "100%" in enrolled
    assert "enrolled 200, existed already 0, bad lines left out 0" in enrolled
    assert "dedupe key" in listed
    assert "━" in listed


def on_terminal(folder: Path, environment: dict[str, str], *words: str) -> str:
    """What the command shows on a terminal of 120 columns."""
    ours, its = pty.openpty()
    wide = {**environment, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-m", "scheduler", *words], cwd=folder, env=wide, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        shown = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not shown:
                break
        process.wait(30)
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_check_names_a_foreign_package_that_ours_hides(tmp_path: Path, environment: dict[str, str]) -> None:
    run(tmp_path, environment, "db", "upgrade")
    make_foreign(tmp_path)
    behind = {**environment, "PYTHONPATH": f"{CHECKOUT}:{tmp_path}/foreign"}

    answer = run(tmp_path, behind, "check")

    assert answer.returncode == 0
    assert f"warning  import name: a foreign package `scheduler` in {tmp_path}/foreign/scheduler" in answer.stdout
    assert "(distribution foreign-tasks) is hidden by ours" in answer.stdout


def test_check_fails_where_a_foreign_package_hides_ours_from_others(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    run(tmp_path, environment, "db", "upgrade")
    make_foreign(tmp_path)
    program = (
        "import sys, scheduler\n"
        f"sys.path.insert(0, {str(tmp_path / 'foreign')!r})\n"
        "from scheduler.cli import main\n"
        "main()"
    )

    answer = run(tmp_path, environment, "check", program=("-c", program))

    assert answer.returncode == 1
    assert f"FAILED   import name: a foreign package `scheduler` in {tmp_path}/foreign/scheduler" in answer.stdout


def make_foreign(folder: Path) -> None:
    """A distribution with a package of our name."""
    package, metadata = folder / "foreign" / "scheduler", folder / "foreign" / "foreign_tasks-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-tasks\nVersion: 1.0\n")
    (metadata / "top_level.txt").write_text("scheduler\n")
