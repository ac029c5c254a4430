"""GitHub's workflows do what the environments' files say, ask whom they must, and hold no key.

GitHub itself is not here: what a job would do is read from the files; their scripts are run.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
import yaml
from aws_cdk import aws_iam as iam

from stacks import delivery_settings
from stacks.environment import load_all

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(path.name for path in FOLDER.glob("*.yml"))


def _workflow(name: str) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return loaded


def _jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every job of every workflow, by "file job"."""
    for name in WORKFLOWS:
        for job, content in _workflow(name)["jobs"].items():
            yield f"{name} {job}", content


def _step(workflow: str, job: str, name: str) -> dict[str, Any]:
    (step,) = (
        step for step in _workflow(workflow)["jobs"][job]["steps"] if step.get("name") == name
    )
    return dict(step)


def test_the_environments_are_deployed_as_their_files_say_one_after_the_other() -> None:
    delivered = sorted(
        (each.delivery.order, each) for each in load_all(ROOT / "environments") if each.delivery
    )
    expected, before = {}, "build"
    for _order, settings in delivered:
        assert settings.delivery is not None
        expected[settings.name] = {
            "needs": before,
            "uses": "./.github/workflows/deploy-environment.yml",
            "with": {
                "environment": settings.name,
                "account": settings.account,
                "region": settings.region,
                "approval": settings.delivery.approval,
            },
        }
        before = settings.name
    jobs = {name: job for name, job in _workflow("deploy.yml")["jobs"].items() if name != "build"}
    found = {name: {key: job.get(key) for key in expected["dev"]} for name, job in jobs.items()}
    assert found == expected, (
        "environments/*.toml and .github/workflows/deploy.yml differ: every file with [delivery] "
        "is a job there, named like the file, which `needs` the one of the order before (the first "
        '"build") and says the file\'s account, region and approval. Edit deploy.yml'
    )


def test_a_red_gate_stops_the_chain() -> None:
    """Every job needs the one before and no condition lets it run all the same."""
    for workflow in ("deploy.yml", "deploy-environment.yml"):
        for name, job in _workflow(workflow)["jobs"].items():
            assert "continue-on-error" not in job
            assert name == "build" or "if" not in job, name
            for step in job.get("steps", []):
                assert not {"if", "continue-on-error"} & step.keys(), step
    jobs = _workflow("deploy-environment.yml")["jobs"]
    assert jobs["deploy"]["needs"] == "diff"
    commands = [step["run"] for step in jobs["deploy"]["steps"] if "run" in step]
    assert commands == ["make install", "make built-deploy", "make gate"]


def test_two_pushes_never_deploy_at_once_and_none_is_broken_off() -> None:
    assert _workflow("deploy.yml")["concurrency"] == {
        "group": "deploy",
        "cancel-in-progress": False,
    }


def test_what_is_deployed_is_the_branch_that_the_roles_trust() -> None:
    branch = delivery_settings.load(ROOT / "delivery.toml").branch
    for name in ("check.yml", "deploy.yml"):
        # YAML takes the key `on` for a truth.
        assert _workflow(name)[True]["push"] == {"branches": [branch]}, (
            f"delivery.toml says the branch is {branch}, and {name} says another: edit it"
        )


def test_nothing_is_deployed_before_the_repository_says_so() -> None:
    assert _workflow("deploy.yml")["jobs"]["build"]["if"] == "vars.POSTERN_DEPLOY == 'true'"


def test_no_workflow_holds_a_key() -> None:
    for name in WORKFLOWS:
        text = (FOLDER / name).read_text(encoding="utf-8").lower()
        assert not [
            word for word in ("secrets.", "secrets[", "access-key", "access_key") if word in text
        ], name


def test_only_the_jobs_that_show_or_deploy_take_a_role() -> None:
    able = {name for name, job in _jobs() if "id-token" in job.get("permissions", {})}
    # A called workflow's job may do at most what the calling job may.
    calls = {"deploy.yml dev", "deploy.yml prod"}
    takes = {
        name
        for name, job in _jobs()
        for step in job.get("steps", [])
        if "configure-aws-credentials" in step.get("uses", "")
    }
    assert takes == {"deploy-environment.yml diff", "deploy-environment.yml deploy"}
    assert able == takes | calls
    for name in WORKFLOWS:
        assert _workflow(name)["permissions"] in ({}, {"contents": "read"})


def test_every_script_stops_at_its_first_failure_in_a_pipe_too() -> None:
    """GitHub's default shell is `bash -e`; naming bash adds pipefail."""
    for name in WORKFLOWS:
        scripts = [step for _, job in _jobs() for step in job.get("steps", []) if "run" in step]
        assert not [step for step in scripts if "shell" in step]
        assert _workflow(name)["defaults"] == {"run": {"shell": "bash"}}


def test_every_target_that_a_workflow_makes_is_there() -> None:
    for _, job in _jobs():
        for step in job.get("steps", []):
            for command in step.get("run", "").splitlines():
                if command.startswith("make "):
                    # It only prints what it would run.
                    make = ["make", "--dry-run", *command.split()[1:]]
                    done = subprocess.run(
                        make,
                        cwd=ROOT,
                        env={**os.environ, "ENV": "dev"},
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert done.returncode == 0, done.stderr


def test_a_fork_reviews_and_does_not_comment() -> None:
    """Its token may not; the review itself fails the job all the same."""
    review = _step("check.yml", "review", "Review")
    assert not {"if", "continue-on-error"} & review.keys()
    comment = _step("check.yml", "review", "Comment on the pull request, always in the same place")
    assert " ".join(comment["if"].split()) == (
        "${{ !cancelled() && github.event.pull_request.head.repo.full_name == github.repository }}"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("deployed_may", "status"), [("less", 1), ("more", 0)])
def test_the_comparison_fails_when_permissions_broaden(
    tmp_path: Path, deployed_may: str, status: int
) -> None:
    """By the pinned command line, with the option that `make built-diff` gives it."""
    recipe = subprocess.run(
        ["make", "--dry-run", "built-diff"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "diff --method=template --fail-on=broadening" in recipe.stdout
    app = cdk.App(analytics_reporting=False, outdir=str(tmp_path / "cdk.out"))
    stack = cdk.Stack(app, "Stack")
    user = iam.User(stack, "User")
    user.add_to_policy(iam.PolicyStatement(actions=["sqs:SendMessage"], resources=["*"]))
    app.synth()
    template = json.loads((tmp_path / "cdk.out" / "Stack.template.json").read_text("utf-8"))
    (policy,) = (r for r in template["Resources"].values() if r["Type"] == "AWS::IAM::Policy")
    allowed = policy["Properties"]["PolicyDocument"]["Statement"]
    other = {"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*"}
    # The CDK compares whole statements: one that is only narrowed counts as a new one.
    allowed[:] = [other] if deployed_may == "less" else [*allowed, other]
    (tmp_path / "deployed.json").write_text(json.dumps(template), encoding="utf-8")
    done = subprocess.run(
        ["cdk", "--app", "cdk.out", "diff", "--template", "deployed.json", "--fail-on=broadening"],
        cwd=tmp_path,
        env={**os.environ, "CDK_DISABLE_VERSION_CHECK": "1", "CDK_DISABLE_CLI_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "IAM Statement Changes" in done.stdout + done.stderr
    assert done.returncode == status, done.stdout + done.stderr


def _run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as GitHub runs it, with the programs of `folder`/bin before all others."""
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        environment[name] = str(folder / name)
    environment["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _program(folder: Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(("status", "broadens"), [(0, "no"), (1, "yes"), (2, "yes"), (127, "yes")])
def test_a_comparison_that_fails_counts_as_broader(
    tmp_path: Path, status: int, broadens: str
) -> None:
    _program(tmp_path, "make", f'echo "$1 $ENV: + Allow"; exit {status}')
    script = _step("deploy-environment.yml", "diff", "Compare with what is deployed")["run"]
    done = _run(script, tmp_path, ENV="dev")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "GITHUB_OUTPUT").read_text(encoding="utf-8") == f"broadens={broadens}\n"
    summary = (tmp_path / "GITHUB_STEP_SUMMARY").read_text(encoding="utf-8")
    assert "built-diff dev: + Allow" in summary
    assert ("**Permissions broaden" in summary) == (broadens == "yes")


REVIEWED = {"type": "required_reviewers", "reviewers": [{"type": "User"}]}


@pytest.mark.parametrize(
    ("approval", "broadens", "asked"),
    [
        ("permissions", "no", False),
        ("permissions", "yes", True),
        ("permissions", "", True),
        ("always", "no", True),
        ("alwyas", "no", True),
    ],
)
def test_a_person_is_asked(tmp_path: Path, approval: str, broadens: str, asked: bool) -> None:
    done = _decide(tmp_path, approval, broadens, json.dumps({"protection_rules": [REVIEWED]}))
    assert done.returncode == 0, done.stdout + done.stderr
    environment = "dev-approval" if asked else "dev"
    output = (tmp_path / "GITHUB_OUTPUT").read_text(encoding="utf-8")
    assert output == f"environment={environment}\n"


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        '{"message": "Not Found"}',
        '{"protection_rules": []}',
        '{"protection_rules": [{"type": "branch_policy"}]}',
        '{"protection_rules": [{"type": "required_reviewers", "reviewers": []}]}',
        "",
        None,
    ],
)
def test_nothing_is_deployed_when_nobody_would_be_asked(tmp_path: Path, answer: str | None) -> None:
    """The environment is missing, unprotected, or GitHub does not say (the command fails)."""
    done = _decide(tmp_path, "always", "no", answer)
    assert done.returncode == 1
    assert "::error::The GitHub environment dev-approval has no required reviewers" in done.stdout
    assert not (tmp_path / "GITHUB_OUTPUT").exists()


def _decide(
    folder: Path, approval: str, broadens: str, answer: str | None
) -> subprocess.CompletedProcess[str]:
    """What the step decides when GitHub's API gives `answer`; None: when it gives an error."""
    (folder / "answer.json").write_text(answer or "", encoding="utf-8")
    _program(
        folder,
        "gh",
        '[[ "$*" == "api repos/example/postern/environments/dev-approval" ]] || exit 64\n'
        f"cat answer.json; exit {1 if answer is None else 0}",
    )
    script = _step("deploy-environment.yml", "diff", "Decide whether a person is asked")["run"]
    return _run(
        script,
        folder,
        NAME="dev",
        APPROVAL=approval,
        BROADENS=broadens,
        GITHUB_REPOSITORY="example/postern",
    )
