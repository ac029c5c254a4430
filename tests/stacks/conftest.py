"""How these tests synthesise an environment, and what they look into its templates with."""

import fcntl
import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from review.snapshots import templates_of
from stacks.environment import Environment, load
from stacks.postern_stage import PosternStage

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted(path.stem for path in (ROOT / "environments").glob("*.toml"))
# Plain dictionaries are easier to look into than the CDK's matchers.
Templates = Mapping[str, dict[str, Any]]
Synthesise = Callable[..., Templates]
AssemblyOf = Callable[[str], "Assembly"]


def app_in(outdir: Path) -> cdk.App:
    """An app as `cdk synth` runs it, that writes there.

    With the flags of cdk.json, and with cdk-nag, which raises on a finding that nobody
    acknowledged.
    """
    context = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(
        analytics_reporting=False,
        builtin_cloud_formation_validation=False,
        context=context,
        outdir=str(outdir),
    )
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    return app


def synthesise(*environments: Environment, outdir: Path, gate_role_arn: str | None = None) -> None:
    """Write the assembly of one app with these environments."""
    app = app_in(outdir)
    for environment in environments:
        PosternStage(app, environment, gate_role_arn=gate_role_arn)
    app.synth()


def templates_in(outdir: Path, environment: str) -> Templates:
    """The environment's templates in an assembly, by stack ("SendingIdentity", ...)."""
    return dict(templates_of(outdir / f"assembly-{environment}"))


def synthesise_file(path: Path, outdir: Path) -> Templates:
    """The templates of the environment in `path`, by stack."""
    environment = load(path)
    synthesise(environment, outdir=outdir)
    return templates_in(outdir, environment.name)


@dataclass(frozen=True)
class Assembly:
    """A synthesised environment: its templates, and the folder that `cdk deploy` would read."""

    templates: Templates
    folder: Path


@pytest.fixture(scope="session")
def assembly_of(tmp_path_factory: pytest.TempPathFactory) -> AssemblyOf:
    """Synthesises the environment of that name, once for all tests of all of xdist's workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    @functools.cache
    def synthesise_once(name: str) -> Assembly:
        folder = shared / f"assembly-of-{name}"
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                unfinished = folder.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                synthesise_file(ROOT / "environments" / f"{name}.toml", unfinished)
                unfinished.rename(folder)
        return Assembly(templates_in(folder, name), folder)

    return synthesise_once


@pytest.fixture(scope="session")
def example(assembly_of: AssemblyOf) -> Templates:
    """What environments/example.toml makes: two zones, new addresses, the identity kept."""
    return assembly_of("example").templates


@pytest.fixture(name="synthesise")
def synthesise_example(tmp_path: Path) -> Synthesise:
    """Synthesises example.toml with passages replaced: pairs of (what stands there, what shall)."""

    def synthesise_changed(*replacements: tuple[str, str]) -> Templates:
        text = (ROOT / "environments" / "example.toml").read_text(encoding="utf-8")
        for old, new in replacements:
            assert text.count(old) == 1, f"example.toml does not have this once: {old}"
            text = text.replace(old, new)
        path = tmp_path / "example.toml"
        path.write_text(text, encoding="utf-8")
        return synthesise_file(path, tmp_path / "cdk.out")

    return synthesise_changed


def resources(template: Mapping[str, Any], of_type: str) -> dict[str, dict[str, Any]]:
    """The template's resources of one CloudFormation type, by logical id."""
    return {
        logical_id: resource
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == of_type
    }


def only(template: Mapping[str, Any], of_type: str) -> dict[str, Any]:
    """The one resource of that type."""
    (resource,) = resources(template, of_type).values()
    return resource


def records(template: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The properties of the DNS records, by (name, type)."""
    properties = [
        record["Properties"] for record in resources(template, "AWS::Route53::RecordSet").values()
    ]
    return {(record["Name"], record["Type"]): record for record in properties}


def statements(template: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    """The policy statements of the role with that logical id."""
    return [
        statement
        for policy in resources(template, "AWS::IAM::Policy").values()
        if {"Ref": role} in policy["Properties"]["Roles"]
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]


def dkim_encryption_key(identity: Mapping[str, Any]) -> str:
    """The logical id of the KMS key that every secret of the SendingIdentity is encrypted with."""
    secrets = resources(identity, "AWS::SecretsManager::Secret").values()
    (key,) = {secret["Properties"]["KmsKeyId"]["Fn::GetAtt"][0] for secret in secrets}
    return str(key)
