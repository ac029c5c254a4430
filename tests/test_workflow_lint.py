"""The linters of `make lint` find nothing in the workflows, and find each of these mistakes."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted(path.name for path in (ROOT / ".github" / "workflows").glob("*.yml"))
# What an expression may ask of other places in its file; GitHub takes an unknown name for "".
NAME = re.compile(r"\b(?P<of>needs|steps)\.(?P<from>[\w-]+)\.outputs\.(?P<output>[\w-]+)")
INPUT = re.compile(r"\binputs\.([\w-]+)")


def names(file: Path) -> str:
    """The names in expressions that no job, step or input of the workflow has."""
    workflow: dict[Any, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    # YAML takes the key `on` for a truth.
    called = workflow[True].get("workflow_call") or {}
    text = yaml.dump(workflow)
    unknown = [name for name in INPUT.findall(text) if name not in called.get("inputs", {})]
    for job in workflow["jobs"].values():
        needed = job.get("needs", [])
        steps = {step["id"] for step in job.get("steps", []) if "id" in step}
        outputs = {
            ("steps", step): None
            for step in steps  # a script's outputs are in its words, which nobody reads here
        } | {
            ("needs", name): set(workflow["jobs"][name].get("outputs", {}))
            for name in ([needed] if isinstance(needed, str) else needed)
            if name in workflow["jobs"]
        }
        for match in NAME.finditer(yaml.dump(job)):
            known = outputs.get((match["of"], match["from"]), set())
            if known is not None and match["output"] not in known:
                unknown.append(match[0])
    return " ".join(unknown)


def shellcheck(file: Path) -> str:
    """What shellcheck says of the scripts."""
    return "".join(
        subprocess.run(
            ["shellcheck", "--shell=bash", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for script in _scripts(file)
    )


def _scripts(file: Path) -> Iterator[str]:
    for job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values():
        for step in job.get("steps", []):
            if "run" in step:
                yield step["run"]


def schema(file: Path) -> str:
    return _run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(file))


def zizmor(file: Path) -> str:
    return _run("zizmor", "--offline", "--quiet", "--persona=auditor", "--color=never", str(file))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


Linter = Callable[[Path], str]
# What is wrong: the file, what stands there, what is written instead, who sees it, and says what.
MISTAKES: dict[str, tuple[str, str, str, Linter, str]] = {
    "an output of a job that is not there": (
        "deploy-environment.yml",
        "needs.diff.outputs",
        "needs.dif.outputs",
        names,
        "needs.dif.outputs.environment",
    ),
    "an output of a step that is not there": (
        "deploy-environment.yml",
        "steps.diff.outputs",
        "steps.dif.outputs",
        names,
        "steps.dif.outputs.broadens",
    ),
    "an output that the job does not have": (
        "deploy-environment.yml",
        "needs.diff.outputs.environment",
        "needs.diff.outputs.enviroment",
        names,
        "needs.diff.outputs.enviroment",
    ),
    "an input that is not there": (
        "deploy-environment.yml",
        "inputs.approval",
        "inputs.aproval",
        names,
        "aproval",
    ),
    "an unknown key": (
        "check.yml",
        "timeout-minutes",
        "timeout-minute",
        schema,
        "'timeout-minute' was unexpected",
    ),
    "a script with a variable that is split into words": (
        "deploy-environment.yml",
        '>> "$GITHUB_OUTPUT"',
        ">> $GITHUB_OUTPUT",
        shellcheck,
        "SC2086",
    ),
    "an action by its tag, which can be moved": (
        "check.yml",
        "@3d3c42e5aac5ba805825da76410c181273ba90b1",
        "@v7",
        zizmor,
        "unpinned-uses",
    ),
    "a branch's name in a script": (
        "check.yml",
        "run: make check",
        "run: make check BRANCH=${{ github.head_ref }}",
        zizmor,
        "template-injection",
    ),
    "a token left in the clone": (
        "check.yml",
        "persist-credentials: false",
        "persist-credentials: true",
        zizmor,
        "artipacked",
    ),
    "a fork's code with the repository's token": (
        "check.yml",
        "pull_request:",
        "pull_request_target:",
        zizmor,
        "dangerous-triggers",
    ),
    "permission for every job": (
        "deploy.yml",
        "permissions: {}",
        "permissions: write-all",
        zizmor,
        "excessive-permissions",
    ),
}


@pytest.fixture
def workflows(tmp_path: Path) -> Path:
    """A copy, in a repository of its own as zizmor wants it."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / ".git").mkdir()
    return tmp_path / ".github" / "workflows"


@pytest.mark.parametrize("linter", [names, shellcheck, schema, zizmor])
def test_the_linters_find_nothing(workflows: Path, linter: Linter) -> None:
    for name in WORKFLOWS:
        assert not linter(workflows / name)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_linter_sees(workflows: Path, mistake: str) -> None:
    name, right, wrong, linter, finding = MISTAKES[mistake]
    text = (workflows / name).read_text(encoding="utf-8")
    assert right in text
    (workflows / name).write_text(text.replace(right, wrong), encoding="utf-8")
    assert finding in linter(workflows / name)
