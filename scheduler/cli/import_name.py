"""Whether the import name `scheduler` is ours alone: the name is common, and a package of that name can hide another.

What can't be found from here: a foreign package that is imported instead of ours. Then the command fails before it
begins, with `No module named 'scheduler.cli'`; docs/reference/cli.md says what that means.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlparse

IMPORT_NAME: Final = "scheduler"
DISTRIBUTION: Final = "timeout-scheduler"


@dataclass(frozen=True, slots=True)
class Clash:
    """Something that is wrong with the import name. One that is not fatal leaves our own code as it should be."""

    message: str
    remedy: str
    is_fatal: bool = True


def find_clashes(package: Path, search_path: Sequence[str]) -> list[Clash]:
    """What is in the way of `package`, the folder our code was imported from, on that import path."""
    package = package.resolve()
    return [
        *_misplaced(package),
        *_shared(package),
        *_beside(package, search_path),
    ]


def _misplaced(package: Path) -> list[Clash]:
    """The code that runs isn't what the distribution installed."""
    try:
        installed = _folder_of(distribution(DISTRIBUTION))
    except PackageNotFoundError:
        message = f"{DISTRIBUTION} is not installed; the code that runs is {package}"
        return [Clash(message, "install it, so that it has a version", is_fatal=False)]
    if installed is None or installed == package:
        return []
    message = f"the code that runs is {package}, but {DISTRIBUTION} is installed in {installed}"
    return [Clash(message, f"remove {package.parent} from PYTHONPATH, or leave that folder")]


def _shared(package: Path) -> list[Clash]:
    """Another distribution installed files into the same folder."""
    return [
        Clash(
            f"the distribution {name} installs a package `{IMPORT_NAME}` into the same folder {package}:"
            " files of one replace those of the other",
            f"uninstall {name} and install {DISTRIBUTION} again, or give each an environment of its own",
        )
        for name in _others()
        if _folder_of(distribution(name)) == package
    ]


def _beside(package: Path, search_path: Sequence[str]) -> list[Clash]:
    """Another `scheduler` elsewhere on the import path: before ours it is imported instead, after ours never."""
    found = [(entry, folder) for entry in search_path if (folder := _folder_on(entry)) is not None]
    position = next((index for index, (_, folder) in enumerate(found) if folder == package), None)
    return [
        _clash(entry, folder, package, is_first=position is None or index < position)
        for index, (entry, folder) in enumerate(found)
        if folder != package
    ]


def _clash(entry: str, folder: Path, package: Path, *, is_first: bool) -> Clash:
    owner = next((name for name in _others() if _folder_of(distribution(name)) == folder), None)
    what = f"a foreign package `{IMPORT_NAME}` in {folder}" + (f" (distribution {owner})" if owner else "")
    remedy = f"give each an environment of its own, or remove {entry or 'the current folder'} from the import path"
    if is_first:
        return Clash(f"{what} hides ours in {package}: other programs import that one", remedy)
    return Clash(f"{what} is hidden by ours in {package}: nobody can import it", remedy, is_fatal=False)


def _folder_on(entry: str) -> Path | None:
    """Where that entry of the import path has a `scheduler`; a folder without `__init__` hides nothing."""
    spec = PathFinder.find_spec(IMPORT_NAME, [entry])
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin).resolve()
    return origin.parent if spec.submodule_search_locations else origin


def _others() -> list[str]:
    """Other distributions that provide a top-level `scheduler`."""
    providers = sorted(set(packages_distributions().get(IMPORT_NAME, [])))
    return [name for name in providers if name.lower().replace("_", "-") != DISTRIBUTION]


def _folder_of(found: Distribution) -> Path | None:
    """The folder a distribution's `scheduler` is in; an editable one's is in its source. None where it has none."""
    source = json.loads(found.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        root = Path(unquote(urlparse(source["url"]).path))
    else:
        root = Path(str(found.locate_file("")))
    package = (root / IMPORT_NAME).resolve()
    module = package.with_suffix(".py")
    if package.is_dir():
        return package
    return module if module.exists() else None
