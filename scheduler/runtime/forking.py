"""A forked child inherits connections, locks and claims that are its parent's: it lets go of them, and starts anew."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """What a forked child must not use as its parent left it."""

    def before_fork(self) -> None:
        """Called in the parent, right before."""

    def after_fork(self) -> None:
        """Called in the parent, right after."""

    def forget_parent(self) -> None:
        """Called in the child, before anything else runs there."""


_watched: Final[WeakSet[Inherited]] = WeakSet()


def watch(inherited: Inherited) -> None:
    """Have `forget_parent` called in every child forked from now on, for as long as the object lives."""
    _watched.add(inherited)


def _before() -> None:
    for inherited in list(_watched):
        inherited.before_fork()


def _in_parent() -> None:
    for inherited in list(_watched):
        inherited.after_fork()


def _in_child() -> None:
    for inherited in list(_watched):
        inherited.forget_parent()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
