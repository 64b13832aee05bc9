import sys
from pathlib import Path

import pytest

import scheduler
from scheduler.cli.import_name import find_clashes

OURS = Path(scheduler.__file__).parent


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of the import path that has an installed distribution with a package named as ours."""
    package = tmp_path / "site-packages" / "scheduler"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    metadata = package.parent / "foreign_tasks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-tasks\nVersion: 1.0\n")
    (metadata / "top_level.txt").write_text("scheduler\n")
    (metadata / "RECORD").write_text("scheduler/__init__.py,,\n")
    return package.parent


def messages(package: Path, search_path: list[str]) -> list[tuple[str, bool]]:
    """Those about foreign packages; whether ours is installed depends on how the tests are run."""
    clashes = find_clashes(package, search_path)
    return [(clash.message, clash.is_fatal) for clash in clashes if "foreign" in clash.message]


def test_a_name_that_is_ours_alone_is_no_clash(tmp_path: Path) -> None:
    assert messages(OURS, [str(tmp_path), str(OURS.parent), "/nowhere"]) == []


def test_a_foreign_package_before_ours_hides_it_and_is_named_with_its_distribution(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(foreign)

    [(message, is_fatal)] = messages(OURS, [str(foreign), str(OURS.parent)])

    where = f"{foreign}/scheduler (distribution foreign-tasks)"
    assert message == f"a foreign package `scheduler` in {where} hides ours in {OURS}: other programs import that one"
    assert is_fatal


def test_a_foreign_package_after_ours_is_hidden_by_it_and_named(foreign: Path) -> None:
    assert messages(OURS, [str(OURS.parent), str(foreign)]) == [
        (
            f"a foreign package `scheduler` in {foreign}/scheduler is hidden by ours in {OURS}: nobody can import it",
            False,
        )
    ]


def test_a_single_foreign_module_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "scheduler.py").write_text("")

    [(message, is_fatal)] = messages(OURS, [str(tmp_path), str(OURS.parent)])

    assert message.startswith(f"a foreign package `scheduler` in {tmp_path}/scheduler.py hides ours")
    assert is_fatal


def test_a_folder_that_is_no_package_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()

    assert messages(OURS, [str(tmp_path), str(OURS.parent)]) == []


def test_two_distributions_in_one_folder_are_a_clash(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(foreign)

    clashes = find_clashes(foreign / "scheduler", [str(foreign)])

    shared = [clash for clash in clashes if "into the same folder" in clash.message]
    assert [clash.message.partition(" installs ")[0] for clash in shared] == ["the distribution foreign-tasks"]
    assert all(clash.is_fatal for clash in shared)


def test_code_that_isnt_what_the_distribution_installed_is_a_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    (installed / "scheduler").mkdir(parents=True)
    metadata = installed / "timeout_scheduler-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: timeout-scheduler\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(installed)

    clashes = find_clashes(OURS, sys.path)

    assert [clash.message for clash in clashes if "is installed in" in clash.message] == [
        f"the code that runs is {OURS}, but timeout-scheduler is installed in {installed}/scheduler"
    ]


def test_an_editable_install_is_where_its_source_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "timeout_scheduler-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: timeout-scheduler\nVersion: 0.1.0\n")
    url = f"file://{OURS.parent}"
    (metadata / "direct_url.json").write_text(f'{{"url": "{url}", "dir_info": {{"editable": true}}}}')
    monkeypatch.syspath_prepend(tmp_path)

    assert find_clashes(OURS, [str(OURS.parent)]) == []
