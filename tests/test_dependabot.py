"""Whatever is pinned in this repository is proposed anew when there is something newer."""

import fnmatch
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
UPDATES: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8")
)["updates"]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==[^\s=]+$")
# What makes a file one with pins: its name, or, of text, what is in it.
NPM = {"package.json", "package-lock.json"}


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists():  # a pipeline gets the files, not the repository
        return list(_not_ignored(ROOT))
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in listed.stdout.splitlines()]


def _not_ignored(folder: Path) -> Iterator[Path]:
    """The files below, relative to ROOT, without the folders that .gitignore names."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.removesuffix("/") for line in lines if line.endswith("/")]
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path.relative_to(ROOT)
        elif not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored):
            yield from _not_ignored(path)


def _pins(path: Path) -> list[str]:
    return [
        match[1]
        for line in (ROOT / path).read_text(encoding="utf-8").splitlines()
        if (match := PIN.match(line))
    ]


PINNED = {
    **{path: "pip" for path in _tracked() if path.suffix in (".txt", ".in") and _pins(path)},
    **{path: "npm" for path in _tracked() if path.name in NPM},
    **{path: "github-actions" for path in _tracked() if path.match(".github/workflows/*")},
}


def _folders(ecosystem: str) -> set[str]:
    return {
        folder
        for update in UPDATES
        if update["package-ecosystem"] == ecosystem
        for folder in update.get("directories", [update.get("directory")])
    }


@pytest.mark.parametrize("path", sorted(PINNED), ids=str)
def test_every_file_with_pins_is_covered(path: Path) -> None:
    ecosystem = PINNED[path]
    # Of GitHub's actions, / means .github/workflows.
    folder = Path() if ecosystem == "github-actions" else path.parent
    assert (f"/{folder}" if folder != Path() else "/") in _folders(ecosystem), (
        f"{path} has pins that nobody moves: name its folder in .github/dependabot.yml"
    )


@pytest.mark.parametrize("path", sorted(p for p, kind in PINNED.items() if kind == "pip"), ids=str)
def test_dependabot_takes_the_file_for_requirements(path: Path) -> None:
    """By its name, or since there is nothing else in it.

    https://github.com/dependabot/dependabot-core, `requirements_file?` of pip's file fetcher.
    """
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert "requirements" in path.name or all(
        not line.strip() or line.startswith("#") or PIN.match(line) for line in lines
    )


def test_what_synthesises_moves_together() -> None:
    (pip,) = (update for update in UPDATES if update["package-ecosystem"] == "pip")
    # Dependabot takes the first group that fits.
    first, together = next(iter(pip["groups"].items()))
    assert first == "cdk"
    pins = _pins(Path("constraints.txt"))
    grouped = {
        pin
        for pin in pins
        if any(fnmatch.fnmatch(pin, pattern) for pattern in together["patterns"])
    }
    assert grouped == {pin for pin in pins if re.search("cdk|^constructs$|^jsii$", pin)}
    assert {"aws-cdk-lib", "cdk-nag", "constructs"} <= grouped


def test_every_update_waits_a_week_and_is_one_of_few() -> None:
    for update in UPDATES:
        assert update["schedule"] == {"interval": "weekly"}
        assert update["cooldown"] == {"default-days": 7}
        # The last group takes the rest.
        assert list(update["groups"].values())[-1] == {"patterns": ["*"]}
