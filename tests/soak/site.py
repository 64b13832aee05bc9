"""What the soak runs on: a cluster, daemons, and wires between them that can be cut one by one."""

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from isodate import duration_isoformat

from scheduler import TimeoutScheduler
from tests.soak import outbox
from tests.support.cluster import Cluster
from tests.support.daemon import DaemonProcess, environment
from tests.support.daemon_log import read_log
from tests.support.wall_clock import WallClock, find_libfaketime
from tests.support.wire import Wire

CHECKOUT: Final = Path(__file__).parents[2]
DATABASE: Final = "soak"
_SETTINGS: Final = {
    "SCHEDULER_BATCH_SIZE": "50",
    "SCHEDULER_DATABASE_TIMEOUT": "PT3S",
    "SCHEDULER_POLL_INTERVAL": "PT0.2S",
    "SCHEDULER_RETRY_BASE": "PT0.2S",
    "SCHEDULER_RETRY_MAX": "PT1S",
    "SCHEDULER_SEND_HANDLER": "tests.soak.outbox:hand_over",
    "SCHEDULER_SHUTDOWN_TIMEOUT": "PT5S",
}


class Station:
    """A place where a daemon runs, with wires of its own and its own wall clock. It is started again and again."""

    def __init__(self, number: int, folder: Path, wires: Sequence[Wire], env: Mapping[str, str]) -> None:
        self.number = number
        self.wires = wires
        self.is_wanted = False
        self._folder = folder
        self._clock = WallClock(folder, name=f"clock-{number}") if find_libfaketime() else None
        clock = {} if self._clock is None else self._clock.environment
        self._env = {**env, "SCHEDULER_INSTANCE_NAME": f"station-{number}", **clock}
        self._daemon: DaemonProcess | None = None
        self._log_begins = 0
        self._has_begun = False

    @property
    def log(self) -> Path:
        """What its daemons said, one after the other."""
        return self._folder / f"daemon-{self.number}.log"

    @property
    def exit_code(self) -> int | None:
        """How the daemon ended; None while it runs."""
        return None if self._daemon is None else self._daemon.process.poll()

    @property
    def has_begun(self) -> bool:
        """Whether this daemon fires; before that, it may not even know what a signal is."""
        if not self._has_begun and self._daemon is not None:
            with self.log.open("rb") as log:
                log.seek(self._log_begins)
                self._has_begun = b'"scheduler.started"' in log.read()
        return self._has_begun

    def start(self) -> None:
        """Start a daemon; doesn't wait until it fires."""
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        self._has_begun = False
        self._daemon = DaemonProcess(self._folder, self._env, f"daemon-{self.number}")
        self.is_wanted = True

    def tell(self, number: signal.Signals) -> None:
        """Send its daemon a signal."""
        assert self._daemon is not None
        self._daemon.process.send_signal(number)

    def wait(self, timeout: float = 60) -> int:
        """Wait until the daemon is gone; its exit code."""
        assert self._daemon is not None
        return self._daemon.process.wait(timeout)

    def terminate(self) -> int:
        """Tell its daemon to stop; the exit code."""
        self.tell(signal.SIGTERM)
        return self.wait()

    def set_clock(self, step: timedelta) -> None:
        """Its wall clock is off by so much, from now on."""
        if self._clock is not None:
            self._clock.set(step)

    def close(self) -> None:
        """Whatever its daemon does: it is gone now."""
        if self._daemon is not None and self._daemon.process.poll() is None:
            self._daemon.kill()


class Site:
    """Everything that runs. For the main thread."""

    def __init__(self, folder: Path, cluster: Cluster, daemons: int, lease: timedelta, opened: ExitStack) -> None:
        self.cluster = cluster
        self.outbox = folder / "outbox"
        self.outbox.touch()
        self._opened = opened
        env = {
            **environment("", **_SETTINGS),
            "SCHEDULER_LEASE": duration_isoformat(lease),
            "PYTHONPATH": str(CHECKOUT),
            outbox.FILE: str(self.outbox),
        }
        self.client_url = self._url(self._wires())
        self.stations = [self._station(number, folder, env) for number in range(daemons)]

    def url(self, driver: str = "postgresql+psycopg") -> str:
        """The primary's own URL, past all wires."""
        return self.cluster.primary.url(DATABASE, driver)

    def errors_logged(self) -> Counter[str]:
        """What the daemons said that a person must look at, and how often."""
        lines = (line for one in self.stations for line in read_log(one.log))
        return Counter(_in_short(line) for line in lines if line["level"] == "error")

    def _station(self, number: int, folder: Path, env: Mapping[str, str]) -> Station:
        wires = self._wires()
        station = Station(number, folder, wires, {**env, "SCHEDULER_DATABASE_URL": self._url(wires)})
        self._opened.callback(station.close)
        return station

    def _wires(self) -> list[Wire]:
        """One to each member, whichever server that is at the moment."""

        def to(place: int) -> Wire:
            return self._opened.enter_context(Wire(lambda: self.cluster.members[place].port))

        return [to(place) for place in range(len(self.cluster.members))]

    def _url(self, wires: Sequence[Wire]) -> str:
        hosts = ",".join(f"127.0.0.1:{wire.port}" for wire in wires)
        return f"postgresql://postgres@{hosts}/{DATABASE}"


def _in_short(line: Mapping[str, Any]) -> str:
    """The event, with the beginning of its error."""
    return ": ".join(str(line[name])[:150] for name in ("event", "error", "line") if name in line)


@contextmanager
def open_site(folder: Path, daemons: int, lease: timedelta) -> Iterator[Site]:
    """A migrated database and daemons that don't run yet; all of it is gone after the block."""
    with ExitStack() as opened:
        cluster = opened.enter_context(Cluster({"autovacuum": "on", "max_connections": 200}))
        cluster.primary.create_database(DATABASE)
        migrator = TimeoutScheduler(cluster.primary.url(DATABASE))
        migrator.migrate()
        migrator.close()
        yield Site(folder, cluster, daemons, lease, opened)
