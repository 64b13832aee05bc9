"""Settings from systemd's credentials: one file each, named after a setting."""

from pathlib import Path

import pytest

from scheduler import InvalidInputError, Settings
from scheduler.settings import variable_of


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder they are in; no other setting is seen."""
    for name in Settings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def secret_of(settings: Settings) -> str | None:
    return None if settings.http_token is None else settings.http_token.get_secret_value()


@pytest.mark.parametrize("name", ["SCHEDULER_HTTP_TOKEN", "HTTP_TOKEN", "http-token", "scheduler.http-token"])
def test_a_credential_is_found_by_the_name_of_its_setting(credentials: Path, name: str) -> None:
    (credentials / name).write_text("tok\n")

    assert secret_of(Settings.from_environment()) == "tok"


def test_the_environment_wins_over_a_credential_and_that_over_the_file(
    credentials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("SCHEDULER_HTTP_TOKEN=file\n")
    (credentials / "http-token").write_text("credential")
    of_credential = Settings.from_environment(file)
    monkeypatch.setenv("SCHEDULER_HTTP_TOKEN", "environment")

    assert (secret_of(of_credential), secret_of(Settings.from_environment(file))) == ("credential", "environment")


def test_credentials_of_others_are_none_of_our_business(credentials: Path) -> None:
    (credentials / "tls.key").write_bytes(b"\xff")

    assert Settings.from_environment() == Settings()


def test_one_that_means_to_be_a_setting_and_is_none_is_an_error(credentials: Path) -> None:
    (credentials / "SCHEDULER_DATABASE_ULR").write_text("postgresql://u:hunter2@h/d")

    with pytest.raises(InvalidInputError, match="no such setting") as refused:
        Settings.from_environment()

    assert refused.value.field == "SCHEDULER_DATABASE_ULR"
    assert "hunter2" not in str(refused.value)


def test_two_for_one_setting_are_an_error(credentials: Path) -> None:
    for name in ("http-token", "SCHEDULER_HTTP_TOKEN"):
        (credentials / name).write_text(name)

    with pytest.raises(InvalidInputError, match="give one of them: SCHEDULER_HTTP_TOKEN"):
        Settings.from_environment()


def test_one_that_is_no_text_or_no_file_is_named(credentials: Path) -> None:
    file = credentials / "http-token"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="http-token' is not usable: it isn't UTF-8 text"):
        Settings.from_environment()
    file.unlink()
    file.mkdir()
    with pytest.raises(InvalidInputError, match="http-token' is not usable: it can't be read: Is a directory"):
        Settings.from_environment()


def test_a_folder_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "gone"))

    with pytest.raises(InvalidInputError, match=r"CREDENTIALS_DIRECTORY: .*No such file or directory"):
        Settings.from_environment()
