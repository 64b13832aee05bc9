"""Connections and transactions, ours and the caller's.

Guarantees: a transaction of ours commits when its block ends and rolls back when it raises. A caller's transaction
is joined: nothing is committed or rolled back, and what was written goes with it. On SQLite a transaction of ours
takes the write lock before it reads (BEGIN IMMEDIATE), so that no decision is made on a stale read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, Executable, Text, bindparam, func, inspect, literal_column, select, true

from scheduler.domain.errors import DatabaseUnavailableError, InvalidInputError
from scheduler.domain.timing import Clock, SystemClock
from scheduler.store.errors import is_retried_at_once, translated
from scheduler.store.foreign import Joined, adopt
from scheduler.store.patience import Patience, PatientConnection
from scheduler.store.prepared import Prepared
from scheduler.store.sqlite import BUSY_TIMEOUT_SECONDS, begin_immediate
from scheduler.store.tables import Instant, Layout
from scheduler.store.version import require_usable


def _nobody(_instant: datetime) -> None:
    """Nobody fires in this process."""


def _never() -> bool:
    return False


__all__ = ["Connection", "Database", "Engine", "Transaction"]

Result = TypeVar("Result")

RACES_LOST: Final = 5
_INSTALLATION: Final = "timeout_scheduler_installation"
_CLOCK: Final = select(func.clock_timestamp(type_=Instant))
# A record in the log of the server that nobody reads.
_WRITE_NOTHING: Final = select(func.pg_logical_emit_message(true(), literal_column("'timeout_scheduler'"), ""))
_NOTIFY: Final = select(func.pg_notify(bindparam("channel", type_=Text), literal_column("''")))
_CURRENT_LOCK_TIMEOUT: Final = select(func.current_setting("lock_timeout"))
_LOCK_TIMEOUT: Final = select(func.set_config("lock_timeout", bindparam("lock_timeout", type_=Text), true()))
_LOCK_TIMEOUT_AND_START: Final = Prepared(_LOCK_TIMEOUT.add_columns(func.now(type_=Instant)))
_FAR: Final = timedelta(hours=1)


class Transaction:
    """One open transaction: its connection and its one reading of the clock."""

    def __init__(self, database: Database, connection: Connection, *, is_own: bool = False) -> None:
        self.database = database
        self.connection = connection
        self._is_own = is_own
        self._now: datetime | None = None
        self._callbacks: list[Callable[[], None]] = []
        self.has_notified = False
        self._has_vouched = False

    @property
    def now(self) -> datetime:
        """The present, read once per transaction: the given clock's, else PostgreSQL's, else this machine's."""
        if self._now is None:
            self._now = self.database.read_clock(self.connection)
        return self._now

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """A savepoint: when the block raises, what it wrote is undone, in a caller's transaction too."""
        with self.connection.begin_nested():
            yield

    def vouch(self) -> None:
        """What was found here is about to be told as done: let the commit wait until the standby has it, too.

        It may be another transaction's, whose commit waits for a synchronous standby (or whose client gave up waiting).
        PostgreSQL lets a transaction wait for the standby only if it has written something itself.
        """
        if self.database.is_postgresql and not self._has_vouched:
            self._has_vouched = True
            self.connection.execute(_WRITE_NOTHING)

    def rows(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows of texts, numbers and instants.

        On a session of our own that is in UTC they come in binary, and as the driver has them: an instant as text costs
        both sides more than the rest of its row.
        """
        driver = self.driver
        if driver is None:
            return self.connection.execute(statement, parameters).all()
        driver.reads_binary = True
        try:
            result = self.connection.execute(statement, parameters)
        finally:
            driver.reads_binary = False
        return result.cursor.fetchall()

    @property
    def driver(self) -> PatientConnection | None:
        """The driver's connection of a session of our own that is in UTC, unless somebody listens to the engine.

        None, too, when somebody has committed the transaction under us: SQLAlchemy says so then.
        """
        driver = self._own_driver
        is_open = driver is not None and (driver.autocommit or self.connection.in_transaction())
        return driver if is_open else None

    @cached_property
    def _own_driver(self) -> PatientConnection | None:
        driver = self.connection.connection.driver_connection
        if not isinstance(driver, PatientConnection) or not driver.is_in_utc:
            return None
        heard = self.connection.dispatch
        return None if heard.before_cursor_execute or heard.after_cursor_execute else driver

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back once what was written is committed; in a caller's transaction, once our call is done."""
        self._callbacks.append(callback)

    def wait_at_most(self, patience: timedelta) -> None:
        """Fail, as a lock timeout, rather than wait longer for anybody's lock. SQLite has its busy timeout instead.

        A transaction of our own that hasn't read the clock has its start for its present then: one round trip for both.
        Call it first, before anything was waited for.
        """
        if not self._is_own or self._now or self.database.clock:
            self._limit_waits(_in_milliseconds(patience))
        elif self.database.is_postgresql:
            parameters = {"lock_timeout": _in_milliseconds(patience)}
            ((_, self._now),) = _LOCK_TIMEOUT_AND_START.rows(self, parameters)

    @contextmanager
    def waiting_at_most(self, patience: timedelta) -> Iterator[None]:
        """The same for the block alone, in anybody's transaction."""
        before = self.connection.execute(_CURRENT_LOCK_TIMEOUT).scalar_one() if self.database.is_postgresql else ""
        self._limit_waits(_in_milliseconds(patience))
        yield
        self._limit_waits(before)

    def _limit_waits(self, lock_timeout: str) -> None:
        if self.database.is_postgresql:
            self.connection.execute(_LOCK_TIMEOUT, {"lock_timeout": lock_timeout})

    def tell(self) -> None:
        """Run the callbacks."""
        for callback in self._callbacks:
            callback()


class Database:
    """An engine with the tables of one schema and the clock that decides what is due. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        schema: str | None = None,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.engine = engine
        self.patience = patience or Patience(timedelta.max)
        self.schema = schema
        self.clock = clock
        self.layout = Layout(schema, engine.dialect.name)
        self.tables = self.layout.tables
        self.dialect_name = self.layout.dialect_name
        if self.dialect_name not in ("postgresql", "sqlite"):
            raise InvalidInputError("database_url", self.dialect_name, "give a postgresql:// or sqlite:/// URL")
        self.real_clock = SystemClock()
        self._sqlite_writer = threading.Lock()
        self._writing_thread: int | None = None
        self._is_held_for_fork = False
        self._installation_id: str | None = None
        self._open: dict[int, Transaction] = {}
        # Whoever fires in this process says here how it is told, whether it fires now, and how long it sleeps at most.
        self.wake: Callable[[datetime], None] = _nobody
        self.fires_here: Callable[[], bool] = _never
        self.notice = timedelta(0)

    def due_at(self, transaction: Transaction, instant: datetime) -> None:
        """Something is due at `instant`: once it is committed, tell whoever fires.

        Another process is told (NOTIFY) only of what is due before it looks by itself, within `notice`: PostgreSQL
        commits what notifies one after the other. A process that fires looks by itself.
        """
        transaction.on_commit(lambda: self.wake(instant))
        if self.is_told(instant) and not transaction.has_notified and instant <= transaction.now + self.notice:
            transaction.has_notified = True
            transaction.connection.execute(_NOTIFY, {"channel": self.channel})

    def is_told(self, instant: datetime) -> bool:
        """Whether another process may have to be told of what is due then: not if we fire, nor of what is far away.

        By this machine's clock, which may differ from the database's by less than what is far.
        """
        if not self.is_postgresql or self.fires_here():
            return False
        return instant <= (self.clock or self.real_clock).now() + self.notice + _FAR

    @property
    def installation_id(self) -> str:
        """What tells this database from any other. Raises SchemaOutdatedError."""
        return self._require_current()

    @property
    def channel(self) -> str:
        """Where new work of this installation is told of."""
        return f"timeout_scheduler_{self.installation_id}"

    @property
    def is_postgresql(self) -> bool:
        """Whether this is PostgreSQL (else SQLite)."""
        return self.layout.is_postgresql

    def read_clock(self, connection: Connection) -> datetime:
        """The present, as it decides what is due and when a node is entered."""
        if self.clock is not None:
            return self.clock.now()
        if self.is_postgresql:
            return connection.execute(_CLOCK).scalar_one()
        return self.real_clock.now()

    @contextmanager
    def transaction(self, connection: Any = None) -> Iterator[Transaction]:
        """A transaction of our own, or the caller's when `connection` is given.

        Raises DatabaseUnavailableError, SchemaOutdatedError, InvalidInputError (a connection that can't be joined).
        """
        if connection is not None:
            with self._joined(connection, writing=True) as joined:
                yield joined
            return
        self._require_current()
        with self.unchecked() as own:
            yield own

    @contextmanager
    def reading(self, connection: Any = None) -> Iterator[Transaction]:
        """A transaction for reading only; it takes no write lock on SQLite."""
        if connection is not None:
            with self._joined(connection, writing=False) as joined:
                yield joined
            return
        self._require_current()
        with self.unchecked(writing=False) as own:
            yield own

    @contextmanager
    def one_statement(self, *, writing: bool = True) -> Iterator[Transaction]:
        """A transaction of our own for a single statement, which commits as it ends: one round trip in place of three.

        On SQLite as any other. Raises as `transaction` does; an error may mean that it was committed.
        """
        if not self.is_postgresql:
            with self.transaction() if writing else self.reading() as own:
                yield own
            return
        self._require_current()
        with translated(), self.engine.connect() as connection, _in_autocommit(connection) as own:
            transaction = Transaction(self, own)
            yield transaction
        transaction.tell()

    @contextmanager
    def unchecked(self, *, writing: bool = True) -> Iterator[Transaction]:
        """A transaction of our own, whatever schema the database has: for the migration of it."""
        queue = self._one_sqlite_writer() if writing else nullcontext()
        with translated(), queue, self.engine.connect() as own, own.begin():
            if writing and not self.is_postgresql:
                begin_immediate(own)
            transaction = Transaction(self, own, is_own=True)
            self._open[id(own)] = transaction
            try:
                yield transaction
            finally:
                del self._open[id(own)]
        transaction.tell()

    @contextmanager
    def _joined(self, connection: Any, *, writing: bool) -> Iterator[Transaction]:
        """The caller's transaction: nothing is committed or rolled back."""
        installation_id = self._require_current()
        with translated():
            joined = adopt(self.engine, connection, writing=writing)
            self._require_same_database(joined, installation_id)
            transaction = Transaction(self, joined.connection)
            yield transaction
        transaction.tell()

    def transaction_on(self, connection: Connection) -> Transaction:
        """The transaction of ours that `connection` is in, with its reading of the clock."""
        return self._open.get(id(connection)) or Transaction(self, connection)

    def run(self, work: Callable[[Transaction], Result], connection: Any = None) -> Result:
        """`work` in a transaction; one of ours that lost a race (deadlock, serialization) is run again."""
        if connection is not None:
            with self.transaction(connection) as joined:
                return work(joined)
        for _ in range(RACES_LOST):
            try:
                with self.transaction() as own:
                    return work(own)
            except DatabaseUnavailableError as error:
                if not is_retried_at_once(error.__cause__):
                    raise
        with self.transaction() as own:
            return work(own)

    @contextmanager
    def _one_sqlite_writer(self) -> Iterator[None]:
        """Threads of this process queue for SQLite's write lock here: fairer than its busy handler, which sleeps."""
        if self.is_postgresql:
            yield
            return
        if self._writing_thread == threading.get_ident():
            raise InvalidInputError("connection", None, "give the open transaction's: SQLite has one writer at a time")
        if not self._sqlite_writer.acquire(timeout=BUSY_TIMEOUT_SECONDS):
            raise DatabaseUnavailableError("another thread of this process keeps writing to the SQLite file")
        self._writing_thread = threading.get_ident()
        try:
            yield
        finally:
            self._writing_thread = None
            self._sqlite_writer.release()

    def _require_current(self) -> str:
        """What tells this database from any other. Asked once, and then the schema's version is looked at too.

        Raises SchemaOutdatedError, whatever is called first on a database that wasn't migrated.
        """
        if self._installation_id is None:
            with self.unchecked(writing=False) as own:
                require_usable(own.connection, self.schema)
                self._installation_id = self._read_installation(own.connection)
        return self._installation_id

    def _require_same_database(self, joined: Joined, installation_id: str) -> None:
        """Refuse a caller's connection to some other database; asked once per connection."""
        if joined.memory.get(_INSTALLATION) != installation_id:
            table = self.tables.installation
            is_there = inspect(joined.connection).has_table(table.name, schema=table.schema)
            if not is_there or self._read_installation(joined.connection) != installation_id:
                raise InvalidInputError("connection", joined.database_name, "give one to the scheduler's own database")
            joined.memory[_INSTALLATION] = installation_id

    def _read_installation(self, connection: Connection) -> str:
        return str(connection.execute(select(self.tables.installation.c.installation_id)).scalar_one())

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    def before_fork(self) -> None:
        """Wait for our write to an SQLite file.

        SQLite remembers in its process's memory who holds a lock on the file. A child that inherited the lock of a
        thread that it hasn't got would find the file locked for ever.
        """
        if not self.is_postgresql and self._writing_thread != threading.get_ident():
            self._is_held_for_fork = self._sqlite_writer.acquire(timeout=BUSY_TIMEOUT_SECONDS)

    def after_fork(self) -> None:
        """In the parent: writes go on."""
        if self._is_held_for_fork:
            self._is_held_for_fork = False
            self._sqlite_writer.release()

    def forget_parent(self) -> None:
        """In a forked child: its connections are the parent's, and so may be who holds the lock."""
        self.engine.dispose(close=False)
        self.patience.forget_parent()
        self._sqlite_writer = threading.Lock()
        self._writing_thread = None
        self._is_held_for_fork = False
        self._open = {}


def _in_milliseconds(patience: timedelta) -> str:
    return str(max(int(patience.total_seconds() * 1000), 1))


@contextmanager
def _in_autocommit(connection: Connection) -> Iterator[Connection]:
    """As SQLAlchemy's AUTOCOMMIT, for a connection of our own at a fraction of its price."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, PatientConnection):
        yield connection.execution_options(isolation_level="AUTOCOMMIT")
        return
    driver.autocommit = True
    try:
        yield connection
    finally:
        if not driver.closed:
            driver.autocommit = False
