"""A PostgreSQL primary with a synchronous standby, for tests of failovers: what was acknowledged, both have."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.postgres_programs import find_programs

_SETTINGS: Final[Mapping[str, str | int]] = {
    "hot_standby": "on",
    "wal_keep_size": "256MB",  # a standby that was away for a moment finds what it missed
    "wal_retrieve_retry_interval": "200ms",  # and is soon back when the primary is
    "wal_sender_timeout": "5s",
}
_NEVER_WAIT: Final = "ALTER SYSTEM RESET synchronous_standby_names"
_WAIT_FOR_STANDBY: Final = "ALTER SYSTEM SET synchronous_standby_names = '*'"
_RELOAD: Final = "SELECT pg_reload_conf()"


def why_no_cluster() -> str | None:
    """None where a standby can be made; else what is missing for it."""
    programs = find_programs()
    return None if (programs / "pg_basebackup").exists() else f"there is no pg_basebackup in {programs}"


def ask(server: PostgresServer, statement: str) -> list[tuple[Any, ...]]:
    """The rows of one statement, as superuser."""
    with psycopg.connect(server.url(driver="postgresql"), autocommit=True) as connection:
        return connection.execute(sql.SQL(statement)).fetchall()


class Standby(PostgresServer):
    """A copy of another server, which follows it until it is promoted."""

    def __init__(self, primary: PostgresServer, settings: Mapping[str, str | int]) -> None:
        self._followed_port = primary.port
        self._was_started = False
        super().__init__(settings)

    def start(self) -> None:
        """Start it, and return when it takes connections: for reading only, unless it was promoted."""
        super().start()
        if not self._was_started:
            # The copy would wait for a standby of its own as soon as it is promoted. Once it has one, it is to wait.
            self.execute(_NEVER_WAIT)
            self.execute(_RELOAD)
        self._was_started = True

    def promote(self) -> None:
        """Follow nobody any more; returns when it takes writes."""
        self.execute("SELECT pg_promote()")

    def _make_data(self) -> None:
        source = ("-h", "127.0.0.1", "-p", str(self._followed_port))
        self._make_data_with(
            "pg_basebackup", *source, "-X", "stream", "-c", "fast", "--no-sync", "--write-recovery-conf"
        )

    def _is_ready(self) -> bool:
        return super()._is_ready() or self._stands_by()

    def _stands_by(self) -> bool:
        """Whether the eighth line of its file says so; `super` looked whether the process lives."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return [line.strip() for line in lines[7:8]] == ["standby"]


class Cluster:
    """Two servers: `members[0]` and `members[1]`, one of them the primary. Not for use by several threads at once.

    A member that is replaced is another server, on another port: put a wire with a fixed port before it.
    """

    def __init__(self, settings: Mapping[str, str | int] | None = None) -> None:
        self._settings = {**_SETTINGS, **(settings or {})}
        first = PostgresServer(self._settings)
        self.members: list[PostgresServer] = [first]
        self._primary = 0
        try:
            first.start()
            self.members.append(self._follower_of(first))
        except BaseException:
            self.close()
            raise
        self._wait_for_standby()

    @property
    def primary(self) -> PostgresServer:
        """The member that takes writes, or took them until it was killed."""
        return self.members[self._primary]

    def fail_over(self) -> None:
        """The standby is the primary from now on. The old one has to be dead: two primaries are no cluster."""
        standby = self.members[1 - self._primary]
        assert isinstance(standby, Standby)
        standby.promote()
        self._primary = 1 - self._primary

    def replace_standby(self) -> None:
        """A new standby, made from the primary, in the place of the other member; returns when it is synchronous."""
        place = 1 - self._primary
        self.members[place].close()
        self.members[place] = self._follower_of(self.primary)
        self._wait_for_standby()

    def close(self) -> None:
        """End both, and remove all they left behind."""
        for member in self.members:
            member.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follower_of(self, primary: PostgresServer) -> Standby:
        standby = Standby(primary, self._settings)
        standby.start()
        return standby

    def _wait_for_standby(self) -> None:
        """From now on a commit is acknowledged only when the standby has it too."""
        self.primary.execute(_WAIT_FOR_STANDBY)
        self.primary.execute(_RELOAD)
        eventually(self.is_synchronous, timeout=30)

    def is_synchronous(self) -> bool:
        """Whether the standby has all that the primary acknowledged: only then nothing is lost in a failover."""
        return ask(self.primary, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'") != []
