"""Which tests pytest-xdist gives to one worker."""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadGroupScheduling

# What is built, downloaded or booted for these is shared by all tests of the file, and costs as much again in another
# worker. A mark `xdist_group` would say so beside them, but under pytest 9.2 pytest-xdist 3.8 doesn't see it.
FILES_OF_ONE_WORKER: Final = frozenset({"tests/acceptance/test_packaging.py", "tests/acceptance/test_systemd.py"})


class FileScheduling(LoadGroupScheduling):  # type: ignore[misc]
    """Gives a test to the next worker that is free, and all tests of some files to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in FILES_OF_ONE_WORKER else super()._split_scope(nodeid)
