"""What is built, and what it does in an empty environment away from the checkout.

Environments are filled from a wheelhouse in pytest's cache, which is downloaded once for each state of
pyproject.toml and Python; after that these tests need no network. One worker runs them all, see
tests/support/xdist_scopes.py: what is built and downloaded is shared.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
METADATA = f"timeout_scheduler-{PROJECT['version']}.dist-info"
INSTALL_LINE = 'pip install "timeout-scheduler[daemon]"'

FIND_FILES = """
import importlib.resources, scheduler, sys
package = importlib.resources.files("scheduler")
print(package)
for folder in ("_sql", "_config"):
    print(folder, any(True for _ in (package / folder).iterdir()))
# What takes long to import, and is needed only now and then.
print(*sys.modules.keys() & {"alembic", "mako", "sentry_sdk", "urllib3"})
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, and the folder its commands run in."""

    bin: Path
    home: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of its commands with nothing of the caller's environment."""
        return subprocess.run(
            [self.bin / command, *arguments],
            cwd=self.home,
            env={"HOME": str(self.home), "STATE_DIRECTORY": str(self.home), "PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
        )


def test_wheel_holds_the_package_and_its_metadata_and_nothing_else(wheel: Path) -> None:
    metadata = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    package = (f"scheduler/{name}" for name in files_below(CHECKOUT / "scheduler"))
    expected = {*package, *(f"{METADATA}/{name}" for name in metadata)}

    assert contents_of(wheel).keys() == expected


def test_wheel_holds_sql_config_and_the_mark_of_a_typed_package(wheel: Path) -> None:
    expected = {
        "scheduler/py.typed",
        *(f"scheduler/_sql/{name}" for name in files_below(CHECKOUT / "sql")),
        *(f"scheduler/_config/{name}" for name in files_below(CHECKOUT / "config")),
    }

    assert expected <= contents_of(wheel).keys()
    assert any(name.endswith(".sql") for name in expected)
    assert "scheduler/_config/timeout-scheduler.env.example" in expected


def test_source_distribution_makes_the_same_wheel(wheel: Path, source_distribution: Path, tmp_path: Path) -> None:
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source_distribution))

    assert contents_of(tmp_path / wheel.name) == contents_of(wheel)


def test_source_distribution_holds_the_tests_and_how_to_run_them(source_distribution: Path) -> None:
    with tarfile.open(source_distribution) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {".ci/run", "run", "setup.cfg", "pyproject.toml", "tests/acceptance/test_packaging.py"} <= names


def test_base_install_is_imported_and_finds_its_files(base_environment: Environment) -> None:
    answer = base_environment.run("python", "-W", "error", "-c", FIND_FILES)

    site_packages = Path(answer.stdout.partition("\n")[0]).parent
    assert answer.stderr == ""
    assert answer.stdout == f"{site_packages}/scheduler\n_sql True\n_config True\n\n"
    assert site_packages.is_relative_to(base_environment.bin.parent)


def test_base_install_has_none_of_the_extra(base_environment: Environment) -> None:
    listed = base_environment.run(
        "python",
        "-c",
        "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))",
    )

    assert {"typer", "rich", "starlette", "uvicorn"}.isdisjoint(listed.stdout.split())


@pytest.mark.parametrize("arguments", [(), ("--help",), ("demo",)], ids=["bare", "help", "demo"])
def test_command_without_the_extra_prints_the_install_line(
    base_environment: Environment, arguments: tuple[str, ...]
) -> None:
    answer = base_environment.run("timeout-scheduler", *arguments)

    assert answer.returncode == 2
    assert answer.stdout == ""
    assert INSTALL_LINE in answer.stderr
    assert "Traceback" not in answer.stderr


def test_command_with_the_extra_upgrades_a_database_and_passes_its_demo(
    daemon_environment: Environment,
) -> None:
    upgrade = daemon_environment.run("timeout-scheduler", "db", "upgrade")
    assert upgrade.returncode == 0, upgrade.stderr

    demo = daemon_environment.run("timeout-scheduler", "demo")
    assert demo.returncode == 0, demo.stdout + demo.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build("wheel", CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this checkout."""
    return build("sdist", CHECKOUT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheelhouse(request: pytest.FixtureRequest) -> Path:
    """A folder with the wheels of all dependencies, the extra's too."""
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["daemon"]]
    state = hashlib.sha256(repr((wanted, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = Path(request.config.cache.mkdir("wheelhouse")) / state
    complete = folder / "complete"
    if not complete.exists():
        pip("download", "--only-binary", ":all:", "--dest", str(folder), *wanted)
        complete.touch()
    return folder


@pytest.fixture(scope="module")
def base_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path, wheelhouse: Path) -> Environment:
    """Nothing but the base install."""
    return make_environment(tmp_path_factory.mktemp("base"), str(wheel), wheelhouse)


@pytest.fixture(scope="module")
def daemon_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path, wheelhouse: Path) -> Environment:
    """Nothing but the install with the extra `daemon`."""
    return make_environment(tmp_path_factory.mktemp("daemon"), f"{wheel}[daemon]", wheelhouse)


def build(kind: str, source: Path, destination: Path) -> Path:
    """Build with the backend that is installed here; the one file it makes."""
    subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", destination, source],
        check=True,
        capture_output=True,
    )
    [made] = destination.iterdir()
    return made


def make_environment(folder: Path, requirement: str, wheelhouse: Path) -> Environment:
    """An environment with `requirement` from the wheelhouse; without pip of its own, which takes seconds."""
    environment = Environment(folder / "venv" / "bin", folder / "home")
    environment.home.mkdir()
    venv.create(environment.bin.parent, symlinks=True)
    python = environment.bin / "python"
    # What is imported is compiled then; most of what is installed never is.
    options = ("--no-compile", "--no-index", "--find-links", str(wheelhouse))
    pip("--python", str(python), "install", *options, requirement)
    return environment


def pip(*arguments: str) -> None:
    """Run the pip of this environment."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def files_below(folder: Path) -> set[str]:
    """The files of a folder and of those below it, linked ones too; none that running the code made there."""
    return {
        str((Path(place) / name).relative_to(folder))
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not place.endswith("__pycache__")
    }


def contents_of(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel by name."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
