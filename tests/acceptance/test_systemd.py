"""The units of systemd/ under a systemd that really runs: one machine, booted once, on which all of this is seen.

Four daemons start together: one on SQLite with nothing but defaults and credentials; two on a PostgreSQL that isn't
there yet, over its socket and over TCP; and one whose scheduling loop will hang. A fifth has unusable settings.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from scheduler import TimeoutScheduler
from tests.support.eventually import eventually
from tests.support.mail_server import MailServer, mail_server
from tests.support.postgres import PostgresServer, free_port
from tests.support.scheduling import make_job
from tests.support.systemd_machine import CHECKOUT, SystemdMachine, skip_where_it_cannot_run, systemd_machine
from tests.support.walk import make_document, on, send
from tests.support.web_receiver import Receiver, receiving

UNITS: Final = sorted((CHECKOUT / "systemd").iterdir())
PLAIN: Final = "timeout-scheduler.service"
SOCKET: Final = "timeout-scheduler@socket.service"
TCP: Final = "timeout-scheduler@tcp.service"
HUNG: Final = "timeout-scheduler@hung.service"
WRONG: Final = "timeout-scheduler@wrong.service"
TOKEN: Final = "open-sesame"  # noqa: S105 - it is to be asked for
MAIL: Final = make_document(send("mail", on("opened", "stop"), on("no_open", "stop", after="P36500D")))

# Loaded by the daemon as its send handler: its loop hangs after some turns, once in the life of its state.
HANGING: Final = """
import os, threading
from pathlib import Path
from scheduler.runtime.loop_turn import LoopTurn

has_hung, claim, turns = Path(os.environ["STATE_DIRECTORY"]) / "has-hung", LoopTurn.claim, []

def hang(self):
    turns.append(1)
    if len(turns) > 3:
        has_hung.touch()
        threading.Event().wait()
    return claim(self)

if not has_hung.exists():
    LoopTurn.claim = hang

def send(request):
    pass
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The machine, and what runs beside it."""

    machine: SystemdMachine
    state: Path
    http_port: int
    postgres: PostgresServer
    mails: MailServer
    sentry: Receiver
    waited: list[str]

    def sqlite(self) -> TimeoutScheduler:
        """On the file that the daemon keeps in its state directory."""
        return TimeoutScheduler(f"sqlite:///{self.state}/timeout-scheduler/timeout-scheduler.db")

    def page(self, name: str, token: str | None = None) -> int:
        """The status of one of the daemon's pages."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/{name}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - of our own
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything has been told to start, and PostgreSQL has come after those who wait for it."""
    skip_where_it_cannot_run()
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        sockets = Path(tempfile.mkdtemp(prefix="sockets-", dir="/tmp"))
        stack.callback(shutil.rmtree, sockets)
        sockets.chmod(0o777)
        postgres = PostgresServer({"unix_socket_directories": str(sockets)})
        stack.callback(postgres.close)
        mails, sentry = stack.enter_context(mail_server()), stack.enter_context(receiving())
        http_port = free_port()
        files = {f"/etc/systemd/system/{unit.name}": unit.read_text("utf-8") for unit in UNITS}
        files |= configuration(http_port, postgres.port, mails.port, sentry.port)
        state = folder / "state"
        state.mkdir()
        binds = {sockets: "/run/postgresql", state: "/var/lib/private"}
        machine = stack.enter_context(systemd_machine(folder, files, binds))
        machine.systemctl("start", "--no-block", HUNG, PLAIN, SOCKET, TCP, WRONG)
        waited = [eventually(partial(state_of_waiting, machine, unit), timeout=30) for unit in (SOCKET, TCP)]
        postgres.start()
        yield Site(machine, state, http_port, postgres, mails, sentry, waited)


def configuration(http_port: int, postgres_port: int, mail_port: int, sentry_port: int) -> dict[str, str]:
    """Settings and secrets where the units look for them."""
    store, settings = "/etc/credstore/timeout-scheduler", "/etc/timeout-scheduler"
    quick = "SCHEDULER_HTTP_PORT=0\nSCHEDULER_POLL_INTERVAL=PT0.2S\n"
    smtp = f"SCHEDULER_SEND_HANDLER=smtp\nSCHEDULER_SMTP_HOST=localhost\nSCHEDULER_SMTP_PORT={mail_port}\n"
    smtp += "SCHEDULER_SMTP_TLS=none\nSCHEDULER_SMTP_FROM=acme@example.com\n"
    return {
        f"{store}.http-token": f"{TOKEN}\n",
        f"{settings}/.env": f"SCHEDULER_HTTP_PORT={http_port}\nSCHEDULER_POLL_INTERVAL=PT0.2S\n",
        f"{store}.socket.database-url": f"postgresql://postgres@:{postgres_port}/postgres?host=/run/postgresql",
        f"{store}.socket.sentry-dsn": f"http://public@localhost:{sentry_port}/1",
        f"{settings}/socket/.env": quick + smtp,
        f"{store}.tcp.database-url": f"postgresql://postgres@localhost:{postgres_port}/postgres",
        f"{settings}/tcp/.env": f"{quick}SCHEDULER_SEND_HANDLER=external\n",
        "/opt/timeout-scheduler/modules/hanging.py": HANGING,
        f"{settings}/hung/.env": f"{quick}SCHEDULER_SEND_HANDLER=hanging:send\n",
        "/etc/systemd/system/timeout-scheduler@hung.service.d/quick.conf": "[Service]\nWatchdogSec=2s\n",
        f"{settings}/wrong/.env": "SCHEDULER_WORKERS=many\n",
    }


def state_of_waiting(machine: SystemdMachine, unit: str) -> str:
    """The state of a unit that says that it waits for its database; nothing until then."""
    if machine.show(unit, "StatusText") != "waiting for the database":
        return ""
    return machine.show(unit, "ActiveState")


def is_active(machine: SystemdMachine, unit: str) -> bool:
    return machine.show(unit, "ActiveState") == "active"


def fire_one(timeouts: TimeoutScheduler, campaign_id: str) -> None:
    """Schedule a timeout that is due, and wait until somebody has fired it."""
    key = timeouts.schedule(make_job(campaign_id=campaign_id))
    eventually(partial(is_over, timeouts, key), timeout=20)


def test_it_starts_and_is_ready_once_it_fires_and_fires_on_sqlite_in_its_state_directory(site: Site) -> None:
    eventually(lambda: is_active(site.machine, PLAIN), timeout=30)

    assert site.machine.show(PLAIN, "StatusText") == "firing timeouts"
    assert "scheduler.started" in site.machine.log_of(PLAIN)
    warnings = site.machine.run("journalctl", "--unit", PLAIN, "--priority", "warning", "--output", "cat", "--no-pager")
    assert "daemon.default_database" in warnings
    assert "scheduler.started" not in warnings
    assert site.machine.run("stat", "-c", "%a", "/var/lib/private/timeout-scheduler/timeout-scheduler.db") == "600\n"
    with closing(site.sqlite()) as timeouts:
        fire_one(timeouts, "first")


def test_it_reads_its_credentials(site: Site) -> None:
    assert (site.page("readyz"), site.page("readyz", TOKEN)) == (401, 200)


def test_a_reload_reads_the_file_of_settings_anew(site: Site) -> None:
    site.machine.write(
        "/etc/timeout-scheduler/.env",
        f"SCHEDULER_HTTP_PORT={site.http_port}\nSCHEDULER_POLL_INTERVAL=PT0.2S\nSCHEDULER_LOG_FORMAT=json\n"
        "SCHEDULER_WORKERS=3\n",
    )
    site.machine.systemctl("reload", PLAIN)

    eventually(lambda: "daemon.restart_needed" in site.machine.log_of(PLAIN))
    lines = [json.loads(line) for line in site.machine.log_of(PLAIN).splitlines() if line.startswith("{")]
    said = {line["event"]: line.get("changed") for line in lines}
    assert said["daemon.reloaded"] == "SCHEDULER_LOG_FORMAT"
    assert said["daemon.restart_needed"] == "SCHEDULER_WORKERS"
    eventually(lambda: is_active(site.machine, PLAIN))
    assert site.machine.show(PLAIN, "NRestarts") == "0"


def test_after_kill_9_it_is_there_again_with_its_state(site: Site) -> None:
    with closing(site.sqlite()) as timeouts:
        before = timeouts.database.installation_id
    site.machine.systemctl("kill", "--signal=KILL", "--kill-who=main", PLAIN)

    eventually(lambda: site.machine.show(PLAIN, "NRestarts") == "1" and is_active(site.machine, PLAIN), timeout=30)
    with closing(site.sqlite()) as timeouts:
        assert timeouts.database.installation_id == before
        fire_one(timeouts, "second")


def test_a_database_that_is_away_is_waited_for_and_two_that_upgrade_it_at_once_harm_nobody(site: Site) -> None:
    assert site.waited == ["activating", "activating"]
    eventually(lambda: is_active(site.machine, SOCKET) and is_active(site.machine, TCP), timeout=30)

    assert [site.machine.show(unit, "NRestarts") for unit in (SOCKET, TCP)] == ["0", "0"]
    with closing(TimeoutScheduler(site.postgres.url())) as timeouts, timeouts.database.reading() as transaction:
        instances = timeouts.stores.instances.select(transaction)
    names = sorted(one.instance_name.rpartition("-")[2] for one in instances if one.stopped_at is None)
    assert names == ["socket", "tcp"]


def test_it_fires_over_the_socket_sends_through_smtp_and_reports_to_sentry(site: Site) -> None:
    """Only one of the two sends. The mail server refuses the second mail for good, which is what Sentry hears of."""
    with closing(TimeoutScheduler(site.postgres.url(), send_handler="external")) as timeouts:
        for campaign_id in ("mailed", "refused"):
            contact = {"address": f"{campaign_id}@example.com"}
            if campaign_id == "refused":
                site.mails.mailbox.refuse["RCPT"] = ["550 no such mailbox"]
            timeouts.campaigns.enroll("acme", campaign_id, campaign_id, MAIL, contact=contact)
            key = f"acme:{campaign_id}:mail:1:send:sent"
            eventually(partial(is_over, timeouts, key), timeout=20)

    assert [mail.recipients for mail in site.mails.mailbox.mails] == [["mailed@example.com"]]
    eventually(lambda: [one for one in items_of(site.sentry) if one.get("exception")])


def is_over(timeouts: TimeoutScheduler, key: str) -> bool:
    action = timeouts.find(key)
    return action is not None and action.finished_at is not None


def items_of(sentry: Receiver) -> list[dict[str, Any]]:
    """The parts of all envelopes that came in."""
    found = []
    for request in sentry.requests:
        assert request.path == "/api/1/envelope/"
        is_packed = request.headers.get("content-encoding") == "gzip"
        text = gzip.decompress(request.body) if is_packed else request.body
        found += [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]
    return found


def test_it_fires_over_tcp_by_itself(site: Site) -> None:
    site.machine.systemctl("stop", SOCKET)

    with closing(TimeoutScheduler(site.postgres.url())) as timeouts:
        fire_one(timeouts, "over-tcp")


def test_settings_that_are_wrong_are_said_and_not_tried_again(site: Site) -> None:
    eventually(lambda: site.machine.show(WRONG, "ActiveState") == "failed", timeout=30)

    assert site.machine.show(WRONG, "NRestarts") == "0"
    assert "error: SCHEDULER_WORKERS: 'many' is not usable" in site.machine.log_of(WRONG)


def test_a_loop_that_hangs_is_killed_by_the_watchdog_and_starts_anew(site: Site) -> None:
    """Its main thread is well all the time, and would go on to feed the watchdog if it fed it by itself."""
    eventually(lambda: "Watchdog timeout" in site.machine.log_of(HUNG), timeout=40)
    eventually(lambda: is_active(site.machine, HUNG), timeout=30)

    assert site.machine.show(HUNG, "NRestarts") == "1"


def test_it_stops_in_time_and_in_order(site: Site) -> None:
    began = time.monotonic()
    site.machine.systemctl("stop", PLAIN, TCP, HUNG)

    assert time.monotonic() - began < 15
    for unit in (PLAIN, TCP, HUNG):
        states = [site.machine.show(unit, name) for name in ("ActiveState", "Result", "ExecMainStatus")]
        assert states == ["inactive", "success", "0"]
    assert "daemon.stopped" in site.machine.log_of(PLAIN)


@pytest.fixture
def unit_to_analyze(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """One of the units, with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("the units can't be analyzed: there is no systemd-analyze here")
    source: Path = request.param
    unit = tmp_path / source.name
    unit.write_text(source.read_text("utf-8").replace("/opt/timeout-scheduler/bin/timeout-scheduler", "/bin/true"))
    return unit


def analyze(*words: str | Path) -> str:
    """What systemd-analyze complains of."""
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}" or f"exit code {done.returncode}"


@pytest.mark.parametrize("unit_to_analyze", UNITS, ids=lambda unit: str(unit.name), indirect=True)
def test_a_unit_has_no_fault_and_an_exposure_of_at_most_one_and_a_half(unit_to_analyze: Path) -> None:
    assert analyze("verify", "--man=no", "--recursive-errors=no", unit_to_analyze) == ""
    assert analyze("security", "--offline=true", "--threshold=15", unit_to_analyze) == ""


def test_the_template_is_the_unit_with_a_name() -> None:
    """So that neither is forgotten when the other is changed."""
    plain, template = (unit.read_text("utf-8").partition("[Unit]")[2] for unit in UNITS)
    named = [
        ("Environment=SCHEDULER_INSTANCE_NAME=%H-%i\n", ""),
        (" (%i)", ""),
        ("timeout-scheduler/%i", "timeout-scheduler"),
        ("timeout-scheduler.%i", "timeout-scheduler"),
        ("timeout-scheduler-%i", "timeout-scheduler"),
    ]
    for here, there in named:
        assert here in template
        template = template.replace(here, there)
    assert template == plain


def test_the_page_about_the_unit_explains_each_of_its_lines() -> None:
    page = (CHECKOUT / "docs" / "how-to" / "install-with-systemd.md").read_text("utf-8")
    lines = UNITS[0].read_text("utf-8").splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}

    assert sorted(name for name in names if f"`{name}" not in page) == ["Description"]
