"""What the Makefile's targets run, and what they install for it."""

import os
import subprocess

import pytest

from tests.stacks.conftest import ROOT

LAB_PACKAGE = "systemd-container"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("ENV", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=inherited, check=False, capture_output=True, text=True
    )


def would_run(*arguments: str) -> str:
    return make("--dry-run", "--always-make", *arguments).stdout


@pytest.mark.parametrize("target", ["diff", "deploy"])
def test_a_sandbox_is_another_stage_of_the_same_environment(target: str) -> None:
    command = f"cdk --context environment='dev' {target}"
    assert would_run(target, "ENV=dev").splitlines()[-1] == f"{command} 'dev/*'"
    sandbox = would_run(target, "ENV=dev", "POSTERN_SUFFIX=anna").splitlines()[-1]
    assert sandbox == f"{command} 'dev-anna/*'"


@pytest.mark.parametrize("target", ["diff", "deploy"])
def test_without_an_environment_it_is_told_which_there_are(target: str) -> None:
    refused = make(target)
    assert refused.returncode
    assert "Name the environment: ENV=NAME, one of" in refused.stderr
    assert "example" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("target", ["check", "lint", "snapshots", "synth", "diff", "deploy"])
def test_a_machine_without_the_lab_needs_none_of_its_packages(target: str) -> None:
    """Such as a pipeline's build container."""
    commands = would_run(target, "ENV=dev")
    assert "ensurepip" in commands
    assert LAB_PACKAGE not in commands


@pytest.mark.parametrize("target", ["try", "rollback", "faults", "bench", "test"])
def test_the_lab_installs_its_packages(target: str) -> None:
    assert LAB_PACKAGE in would_run(target)
