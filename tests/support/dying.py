"""A process that dies over its work with the database, played in this process.

It dies before a statement or a commit, or after a commit whose answer it never gets. From then on nothing of it reaches
the database any more; what was open is rolled back, as a server does for a client that is gone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event


class Died(BaseException):
    """The process is dead. No error: nobody who handles errors may catch it."""


class Mortal:
    """One process after the other on an engine; each dies at a chosen step: the next is 0, the one after it 1."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._is_dead = False
        self._steps_left: int | None = None
        self._commits_left: int | None = None
        dialect: Any = engine.dialect
        self._commit = dialect.do_commit
        dialect.do_commit = self._do_commit
        event.listen(engine, "before_cursor_execute", self._step)

    def begin(self) -> None:
        """Another process begins: the connections of the one before are gone."""
        self.engine.dispose()
        self._is_dead = False

    def die_before(self, step: int) -> None:
        """Die before that statement or commit."""
        self.spare()
        self._steps_left = step

    def die_after(self, commit: int) -> None:
        """Die after that commit, without an answer."""
        self.spare()
        self._commits_left = commit

    def spare(self) -> None:
        """Live on."""
        self._steps_left = self._commits_left = None

    @property
    def is_doomed(self) -> bool:
        """Whether it is to die."""
        return self._steps_left is not None or self._commits_left is not None

    def _step(self, *_facts: Any) -> None:
        if self._is_dead or self._steps_left == 0:
            self._die()
        if self._steps_left is not None:
            self._steps_left -= 1

    def _do_commit(self, connection: Any) -> None:
        self._step()
        self._commit(connection)
        if self._commits_left == 0:
            self._die()
        if self._commits_left is not None:
            self._commits_left -= 1

    def _die(self) -> None:
        self._is_dead = True
        raise Died
