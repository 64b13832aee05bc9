"""Prepares the place where a contender runs: a fresh copy of campaigns that were made once, its queue filled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.campaigns import Cohort, enroll_by_call, enroll_by_sql
from benchmarks.contenders import Contender
from benchmarks.servers import Place, Servers, copy_sqlite
from scheduler import TimeoutScheduler

Cohorts = Callable[[], Sequence[Cohort]]


class Stage:
    """Makes places from cohorts of campaigns. What is asked for under the same name again is copied, not made again."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._templates: dict[tuple[str, str], str] = {}
        self._files: dict[str, Path] = {}

    @contextmanager
    def place(self, contender: Contender, name: str, cohorts: Cohorts) -> Iterator[Place]:
        """A copy of `cohorts()`, for one run."""
        folder = self._servers.new_folder()
        if contender.system == "sqlite":
            file = folder / "campaigns.db"
            copy_sqlite(self._file(name, cohorts), file)
            os.sync()
            yield Place(f"sqlite:///{file}", folder)
            return
        database = self._servers.name("run")
        self._servers.postgresql.create_database(database, self._template(contender, name, cohorts))
        place = self._at(database, folder, contender)
        try:
            if contender.own_queue and not contender.in_database:
                contender.ask(place, "load")
            # What a copy of gigabytes left to be written would slow down this run, and the small one after it.
            os.sync()
            yield place
        finally:
            self._servers.postgresql.drop_database(database)

    @contextmanager
    def new_place(self, contender: Contender, cohorts: Cohorts) -> Iterator[Place]:
        """For one run whose campaigns are made for it: what is due in a moment can't be copied later."""
        with self.place(contender, "empty", tuple) as place:
            enroll_by_sql(place.url, cohorts())
            if contender.own_queue:
                contender.ask(place, "load")
                _tidy(place.url)
            yield place

    def _template(self, contender: Contender, name: str, cohorts: Cohorts) -> str:
        plain = self._templates.get((name, ""))
        if plain is None:
            plain = self._servers.name("template")
            self._servers.postgresql.create_database(plain)
            with _scheduler(self._at(plain, self._servers.folder).sqlalchemy_url) as scheduler:
                scheduler.migrate()
            enroll_by_sql(self._servers.postgresql.url(plain, "postgresql"), cohorts())
            self._templates[name, ""] = plain
        if not (contender.own_queue and contender.in_database) or name == "empty":
            return plain
        filled = self._templates.get((name, contender.key))
        if filled is None:
            filled = self._servers.name("template")
            self._servers.postgresql.create_database(filled, plain)
            place = self._at(filled, self._servers.new_folder())
            contender.ask(place, "load")
            _tidy(place.url)
            self._templates[name, contender.key] = filled
        return filled

    def _file(self, name: str, cohorts: Cohorts) -> Path:
        if name not in self._files:
            file = self._servers.folder / f"{self._servers.name('template')}.db"
            with _scheduler(f"sqlite:///{file}") as scheduler:
                scheduler.migrate()
                enroll_by_call(scheduler, cohorts())
            self._files[name] = file
        return self._files[name]

    def _at(self, database: str, folder: Path, contender: Contender | None = None) -> Place:
        redis_port = self._servers.redis_port() if contender is not None and contender.needs_redis else 0
        return Place(self._servers.postgresql.url(database, "postgresql"), folder, redis_port)


@contextmanager
def _scheduler(url: str) -> Iterator[TimeoutScheduler]:
    scheduler = TimeoutScheduler(url)
    try:
        yield scheduler
    finally:
        scheduler.close()


def _tidy(url: str) -> None:
    """As autovacuum leaves a database in which nothing was done for a while."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
