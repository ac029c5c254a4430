"""`postern review` in a repository of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import review.snapshots
from ops.cli import app
from ops.options import console
from review.examine import ELSEWHERE
from review.snapshots import FOLDER, HOST_FILES, Files, read, write
from tests.stacks.conftest import ROOT

ZONE, OTHER_ZONE = "Z0LABEXAMPLECOM", "Z9LABEXAMPLECOM"
SPF = "SendingIdentity/Spf455B68FA"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One environment, the lab's, and its snapshots; committed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(console, "width", 200)
    (tmp_path / "environments").mkdir()
    for file in ("app.py", "cdk.json", "environments/lab.toml"):
        shutil.copy(ROOT / file, tmp_path / file)
    kept = {
        file: text
        for file, text in read(ROOT / FOLDER).items()
        if file.startswith("lab/") or file == HOST_FILES
    }
    write(kept, tmp_path / FOLDER)
    git("init", "--quiet", "--initial-branch=main")
    commit("one")
    return tmp_path


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app makes what tests/snapshots has in the working tree."""
    monkeypatch.setattr(review.snapshots, "synthesised", lambda root: read(root / FOLDER))


def git(*arguments: str) -> None:
    who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]
    subprocess.run(["git", *who, *arguments], check=True)


def commit(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def postern(*options: str) -> Result:
    return CliRunner().invoke(app, ["review", *options])


def change_the_zone(repository: Path) -> None:
    replace(repository / FOLDER / "lab" / "SendingIdentity.json", ZONE, OTHER_ZONE)


@pytest.mark.slow
def test_a_changed_setting_is_reviewed_before_and_after_its_snapshots(repository: Path) -> None:
    """The whole way, with what the app really makes."""
    replace(repository / "environments" / "lab.toml", ZONE, OTHER_ZONE)
    done = subprocess.run(
        [sys.executable, "-m", "ops", "review", "--json", "--markdown", "review.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    (unit,) = told["units"]
    assert (told["verdict"], unit["name"]) == ("wrong", "lab")
    lost = {change["id"] for change in unit["changes"] if change["action"] == "replaced"}
    assert SPF in lost
    assert SPF in (repository / "review.md").read_text("utf-8")


@pytest.mark.usefixtures("quickly")
def test_no_change_is_said_in_one_line(repository: Path) -> None:
    result = postern("--markdown", "review.md")
    assert result.exit_code == 0
    assert result.output.startswith("The templates are those of HEAD (")
    assert len(result.output.splitlines()) == 1
    assert "The templates are those" in (repository / "review.md").read_text("utf-8")


@pytest.mark.usefixtures("quickly")
def test_a_change_is_shown_until_it_is_committed_and_against_the_base_after_that(
    repository: Path,
) -> None:
    change_the_zone(repository)
    assert postern().exit_code == 1
    commit("two")
    assert postern().exit_code == 0
    against = postern("--base", "HEAD~1")
    assert against.exit_code == 1
    assert SPF in against.output


@pytest.mark.usefixtures("quickly")
def test_an_acknowledgement_counts_for_the_change_that_adds_it(repository: Path) -> None:
    change_the_zone(repository)
    told = json.loads(postern("--json").stdout)
    lost = [c["id"] for c in told["units"][0]["changes"] if c["stateful"]]
    entries = [
        f'[[acknowledged]]\nenvironment = "lab"\nid = "{lost_id}"\nchange = "replaced"\n'
        'reason = "The zone moves to another account."\n'
        for lost_id in lost
    ]
    (repository / "acknowledged.toml").write_text("\n".join(entries), encoding="utf-8")
    assert postern().exit_code == 0
    commit("two")
    replace(repository / FOLDER / "lab" / "SendingIdentity.json", OTHER_ZONE, ZONE)
    again = postern()
    assert again.exit_code == 1
    assert "count no more" in again.output


@pytest.mark.usefixtures("quickly")
def test_a_new_environment_is_all_added(repository: Path) -> None:
    lab: Files = {
        file.replace("lab/", "west/"): text
        for file, text in read(repository / FOLDER).items()
        if file.startswith("lab/")
    }
    write(
        {**read(repository / FOLDER), **lab, "Delivery.json": '{"Resources": {}}'},
        repository / FOLDER,
    )
    result = postern("--json")
    assert result.exit_code == 0
    units = {unit["name"]: unit for unit in json.loads(result.stdout)["units"]}
    assert units.keys() == {"west", ELSEWHERE}
    assert units["west"]["status"] == "added"


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--base", "nowhere"], "git knows no revision 'nowhere'"),
        (["--base", "--output=x"], "git knows no revision"),
        (["--base", "HEAD~1"], "has no tests/snapshots"),
    ],
)
def test_a_base_that_is_none_is_told(repository: Path, options: list[str], told: str) -> None:
    git("rm", "-r", "--quiet", "--cached", str(FOLDER))
    git("commit", "--quiet", "--message", "none")
    git("add", "--all")
    git("commit", "--quiet", "--message", "again")
    result = postern(*options, "--markdown", "review.md")
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.split())
    assert told in (repository / "review.md").read_text("utf-8")


@pytest.mark.usefixtures("quickly")
def test_outside_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    result = postern("--json")
    assert result.exit_code == 2
    assert "not in a git repository" in json.loads(result.stdout)["error"]


@pytest.mark.usefixtures("quickly")
def test_a_diff_engine_that_is_missing_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_the_zone(repository)
    git_only = repository / "bin"
    git_only.mkdir()
    (git_only / "git").symlink_to(shutil.which("git") or "")
    monkeypatch.setenv("PATH", str(git_only))
    result = postern()
    assert result.exit_code == 2
    assert "There is no `node`" in result.stderr
