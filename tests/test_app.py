"""app.py: which environments it makes."""

from pathlib import Path

import pytest

import app
from stacks.environment import InvalidEnvironment
from tests.stacks.conftest import ROOT


@pytest.fixture(autouse=True)
def _a_sound_file_and_one_that_somebody_is_editing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environments = tmp_path / "environments"
    environments.mkdir()
    text = (ROOT / "environments" / "example.toml").read_text(encoding="utf-8")
    (environments / "dev.toml").write_text(text, encoding="utf-8")
    (environments / "prod.toml").write_text("region =", encoding="utf-8")


@pytest.mark.parametrize(
    ("suffix", "name"), [(None, "dev"), ("", "dev"), ("anna", "dev-anna")], ids=repr
)
def test_a_chosen_environment_or_its_sandbox_is_made_alone(suffix: str | None, name: str) -> None:
    """Whatever is the matter with another one's file."""
    assert [environment.name for environment in app._chosen("dev", suffix=suffix)] == [name]


def test_without_a_choice_every_file_has_to_be_sound() -> None:
    with pytest.raises(InvalidEnvironment, match=r"^environments/prod\.toml: not TOML: "):
        app._chosen(None, suffix=None)
    Path("environments/prod.toml").unlink()
    assert [environment.name for environment in app._chosen(None, suffix="")] == ["dev"]


def test_a_suffix_without_an_environment_says_what_to_do() -> None:
    with pytest.raises(InvalidEnvironment, match=r'POSTERN_SUFFIX is "anna", .*--context env'):
        app._chosen(None, suffix="anna")


def test_an_environment_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InvalidEnvironment, match=r'dve\.toml: there is no .* has "dev", "prod"'):
        app._chosen("dve", suffix=None)
