"""systemd as the first process of a throw-away machine: this machine's own files under an overlay, its own network.

It needs root, Linux with overlayfs, and systemd-nspawn (Debian: systemd-container). What it lacks: limits of memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.support.eventually import eventually

CHECKOUT: Final = Path(__file__).parents[2]
PROGRAM: Final = "/opt/timeout-scheduler/bin/timeout-scheduler"
_TOOLS: Final = ("systemd-nspawn", "nsenter", "unshare", "setpriv")

# In a mount namespace of its own, with which the overlay goes, however it ends.
_MOUNT: Final = """
mount --make-rprivate /
mount -t tmpfs -o size=512m,mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
"""
# Nothing of the host starts by itself. Not `exec`: whoever is first in the process namespace takes all with it.
_BOOT: Final = f"""{_MOUNT}
find "$1/root/etc/systemd/system" -maxdepth 2 -type l -path '*.wants/*' -delete
cp -RT "$2" "$1/root"
root=$1/root; shift 2
systemd-nspawn --quiet --directory "$root" --register=no --keep-unit --link-journal=no "$@" \\
    --boot --console=read-only -- --unit=basic.target --show-status=0
"""

_LAUNCHER: Final = """#!/bin/sh
{variables}exec {python} /opt/timeout-scheduler/main.py "$@"
"""
_MAIN: Final = """import sys
sys.path[:0] = ["/opt/timeout-scheduler/modules", "/opt/timeout-scheduler/source", "/opt/timeout-scheduler/packages"]
from scheduler.cli import main
sys.exit(main())
"""


class SystemdMachine:
    """The machine while it runs."""

    def __init__(self, init: int) -> None:
        self._init = init

    def run(self, *command: str, is_checked: bool = True) -> str:
        """Run a command there, as root; returns what it printed."""
        entering = ["nsenter", "--target", str(self._init), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd=/"]
        done = subprocess.run(
            [*entering, "--", *command],
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0 or not is_checked, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def systemctl(self, *words: str, is_checked: bool = True) -> str:
        """One command of systemctl."""
        return self.run("systemctl", *words, is_checked=is_checked)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def log_of(self, unit: str) -> str:
        """What a unit has logged so far."""
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager", is_checked=False)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file there."""
        file = Path(f"/proc/{self._init}/root{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        file.chmod(mode)


def skip_where_it_cannot_run() -> None:
    """Skips the test, and says what is missing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("systemd as the first process needs Linux and root")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"systemd as the first process needs {', '.join(missing)} (Debian: systemd-container)")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        command = ["unshare", "--mount", "bash", "-euc", _MOUNT, "mount", place]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"systemd as the first process needs to mount an overlay: {mounted.stderr.strip()}")


@contextmanager
def systemd_machine(folder: Path, files: Mapping[str, str], binds: Mapping[Path, str]) -> Iterator[SystemdMachine]:
    """Boot it, with the daemon in /opt/timeout-scheduler and these files and folders; off at the end of the block.

    `folder` is one of the test's own, for what it needs on the way.
    """
    python = _make_files(folder / "files", files)
    places = {
        **binds,
        **python,
        CHECKOUT: "/opt/timeout-scheduler/source",
        _packages(): "/opt/timeout-scheduler/packages",
    }
    options = [f"--bind={source}:{place}" for source, place in places.items()]
    # nspawn may not be told of a place below /tmp: the machine has a /tmp of its own.
    place = Path(tempfile.mkdtemp(prefix="systemd-machine-", dir="/var/tmp"))
    with (folder / "console").open("wb") as console:
        # When the test process dies, so does setpriv's program, and with --kill-child all that began below it.
        outside = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        boot = subprocess.Popen(
            [*outside, "bash", "-euc", _BOOT, "boot", place, folder / "files", *options],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    try:
        yield SystemdMachine(eventually(lambda: _find_init(boot, folder / "console"), timeout=30))
    finally:
        _end(boot)
        place.rmdir()


def _packages() -> Path:
    return Path(psutil.__file__).parents[1]


def _make_files(folder: Path, files: Mapping[str, str]) -> dict[Path, str]:
    """What is copied into the machine; returns where its Python is to be found, if it can't stay where it is."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix).resolve()
    is_open = base.is_relative_to("/usr")
    python = base / "bin" / version if is_open else Path("/opt/python/bin") / version
    launcher = _LAUNCHER.format(python=python, variables="" if is_open else "LD_LIBRARY_PATH=/opt/python/lib ")
    for name, text in {**files, PROGRAM: launcher, "/opt/timeout-scheduler/main.py": _MAIN}.items():
        file = folder / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        file.chmod(0o755 if name == PROGRAM else 0o644)
    return {} if is_open else {base: "/opt/python"}


def _find_init(boot: subprocess.Popen[bytes], console: Path) -> int:
    """The process id, as it is numbered here, of a systemd that takes commands by now; 0 until there is one."""
    assert boot.poll() is None, f"it didn't boot: {console.read_text('utf-8', 'replace')}"
    with suppress(psutil.Error):
        for process in psutil.Process(boot.pid).children(recursive=True):
            if process.name() == "systemd" and Path(f"/proc/{process.pid}/root/run/systemd/private").exists():
                machine = SystemdMachine(process.pid)
                if "active" in machine.systemctl("is-active", "basic.target", is_checked=False).split():
                    return process.pid
    return 0


def _end(boot: subprocess.Popen[bytes]) -> None:
    """At once: nothing of it is kept."""
    with suppress(psutil.Error):
        processes = psutil.Process(boot.pid).children(recursive=True)
        boot.kill()
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
    boot.wait(10)
