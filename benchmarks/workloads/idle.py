"""What a daemon costs while nothing is due."""

from __future__ import annotations

from typing import Final

from psycopg import sql

from benchmarks.campaigns import later
from benchmarks.contenders import Contender
from benchmarks.options import Options
from benchmarks.program import pause
from benchmarks.reading import Reader
from benchmarks.results import Metric
from benchmarks.servers import STATEMENTS, Place, has_statement_statistics
from benchmarks.session import Session
from benchmarks.workloads.draining import ready
from scheduler import Settings

CPU: Final = Metric("processor", "%", digits=2, more_is_better=False)
MEMORY: Final = Metric("memory", "MB", more_is_better=False)
QUERIES: Final = Metric("statements per poll interval", "", digits=2, more_is_better=False)
TRANSACTIONS: Final = Metric("transactions per poll interval", "", digits=2, more_is_better=False)
_SETTLING_SECONDS: Final = 3.0
_PENDING: Final = 500
_STATEMENTS: Final = (
    "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_database ON oid = dbid WHERE datname = %s"
)
_TRANSACTIONS: Final = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"


class Idle:
    """Once: it is a matter of time, not of chance."""

    name = "idle"

    def rounds(self, _contender: Contender, _options: Options) -> int:
        """One."""
        return 1

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """Watch a daemon that has started."""
        seconds = session.options.idle_seconds
        with session.stage.place(contender, "idle", lambda: [later(_PENDING)]) as place:
            count = _Counter(session, place) if contender.system == "postgresql" else None
            with ready(contender, place) as (program,):
                program.go()
                pause(_SETTLING_SECONDS)
                processor, counted = program.cpu_seconds(), count.value() if count else 0
                pause(seconds)
                processor, memory = program.cpu_seconds() - processor, program.memory_megabytes()
                counted = (count.value() if count else 0) - counted
        add = session.results.add
        add(self.name, contender.key, CPU, processor / seconds * 100)
        add(self.name, contender.key, MEMORY, memory)
        if count:
            intervals = seconds / Settings().poll_interval.total_seconds()
            add(self.name, contender.key, count.metric, counted / intervals)
            count.close()


class _Counter:
    """Counts what is asked of one database, from outside of it: statements where the server can, else transactions."""

    def __init__(self, session: Session, place: Place) -> None:
        server = session.servers.postgresql
        self._database = place.url.rsplit("/", 1)[1]
        self._reader = Reader(server.url(driver="postgresql"))
        self.metric = TRANSACTIONS
        if has_statement_statistics():
            self.metric = QUERIES
            server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            for name, value in (("track", "all"), ("track_utility", "off")):
                setting = sql.SQL("{}.{}").format(sql.Identifier(STATEMENTS), sql.Identifier(name))
                database = sql.Identifier(self._database)
                server.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, setting, value))

    def value(self) -> int:
        """So many until now."""
        statement = _STATEMENTS if self.metric is QUERIES else _TRANSACTIONS
        return int(self._reader.value(statement, [self._database]))

    def close(self) -> None:
        """The connection."""
        self._reader.close()
