"""Environments in one account and Region share no name, and none selects what is another's.

Of three: example, its sandbox example-anna, and example-eu, a file whose name begins the same.
"""

import fnmatch
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from stacks.environment import load
from tests.stacks.conftest import ROOT, synthesise, templates_in

NAMES: Final = ("example", "example-anna", "example-eu")
PAIRS: Final = list(permutations(NAMES, 2))
GATE: Final = "arn:aws:iam::777788889999:role/gate"

# A name within something that has a name of its own or none: by type and property.
NAMED_WITHIN_ANOTHER: Final = {
    ("AWS::CloudWatch::Alarm", "MetricName"): "of the metric, in its namespace",
    ("AWS::IAM::Policy", "PolicyName"): "inline, in its role",
    ("AWS::Logs::MetricFilter", "FilterName"): "in its log group",
}

Name = tuple[str, str]


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three in one app."""
    files = tmp_path_factory.mktemp("environments")
    text = (ROOT / "environments" / "example.toml").read_text(encoding="utf-8")
    delivered = text.replace("[tags]", "[delivery]\norder = {}\n[tags]")
    example, other = files / "example.toml", files / "example-eu.toml"
    example.write_text(delivered.format(1), encoding="utf-8")
    other.write_text(
        delivered.format(2).replace('"mail.example.com"', '"mail.eu.example.com"'), encoding="utf-8"
    )
    environments = [load(example), load(example, suffix="anna"), load(other)]
    assert tuple(environment.name for environment in environments) == NAMES
    assert len({(each.account, each.region) for each in environments}) == 1
    outdir = tmp_path_factory.mktemp("assembly")
    synthesise(*environments, outdir=outdir, gate_role_arn=GATE)
    return outdir


Walked = Iterator[tuple[str, Any]]


def walk(part: object, key: str = "") -> Walked:
    """Every value that is no container, with the key that it stands under."""
    if isinstance(part, dict):
        for inner_key, inner in part.items():
            yield from walk(inner, inner_key)
    elif isinstance(part, list):
        for inner in part:
            yield from walk(inner, key)
    else:
        yield key, part


def identity(resource: Mapping[str, Any]) -> Name | None:
    """What AWS knows it by, where the template says it: a matter of CloudFormation's schema."""
    of_type, properties = resource["Type"], resource.get("Properties", {})
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", of_type).schema
    keys = [pointer.split("/")[2] for pointer in schema.get("primaryIdentifier", [])]
    values = [properties[key] for key in keys if key in properties]
    # What is made at deployment is of this stack alone.
    if not values or not all(isinstance(value, str) for value in values):
        return None
    return of_type, " ".join(values)


def names_of(assembly: Path, environment: str) -> set[Name]:
    """Every name in its templates, as (kind, name)."""
    manifest = json.loads((assembly / f"assembly-{environment}" / "manifest.json").read_text())
    found: set[Name] = {
        ("stack", artifact["properties"]["stackName"])
        for artifact in manifest["artifacts"].values()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    for template in templates_in(assembly, environment).values():
        for output in template.get("Outputs", {}).values():
            if "Export" in output:
                found.add(("export", output["Export"]["Name"]))
        for resource in template["Resources"].values():
            found |= set(_names_of(resource))
    return found


def _names_of(resource: Mapping[str, Any]) -> Iterator[Name]:
    if name := identity(resource):
        yield name
    for key, value in resource.get("Properties", {}).items():
        by_itself = (resource["Type"], key) not in NAMED_WITHIN_ANOTHER
        if key.endswith("Name") and isinstance(value, str) and by_itself:
            yield f"{resource['Type']} {key}", value
    for key, value in walk(resource.get("Properties", {})):
        if key.endswith("Namespace") and not value.startswith("AWS/"):
            yield "namespace", value


def tags_of(assembly: Path, environment: str) -> set[Name]:
    """Every tag on its resources, as (key, value)."""
    found = set()

    def look(part: object) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("Value"), str) and "Key" in part:
                found.add((part["Key"], part["Value"]))
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                look(inner)

    look([list(t["Resources"].values()) for t in templates_in(assembly, environment).values()])
    return found


def selected_by(assembly: Path, environment: str) -> set[Name]:
    """The tags that its policies' conditions ask for, as (key, value)."""
    return {
        (key.partition("/")[2], value)
        for key, value in walk(list(templates_in(assembly, environment).values()))
        if key.startswith(("aws:ResourceTag/", "ec2:ResourceTag/", "aws:RequestTag/"))
    }


def patterns_of(assembly: Path, environment: str) -> set[str]:
    """What its policies name with a wildcard: the last part of the ARN, where that is not all."""
    policies = ("PolicyDocument", "KeyPolicy", "AssumeRolePolicyDocument")
    documents = [
        resource["Properties"][policy]
        for template in templates_in(assembly, environment).values()
        for resource in template["Resources"].values()
        for policy in policies
        if policy in resource.get("Properties", {})
    ]
    last = {
        value.rpartition(":")[2]
        for _, value in walk(documents)
        if isinstance(value, str) and value.startswith("arn:") and "*" in value
    }
    return {pattern for pattern in last if pattern.strip("*")}


@pytest.mark.parametrize(("one", "other"), [pair for pair in PAIRS if pair[0] < pair[1]])
def test_no_name_is_in_two_environments(assembly: Path, one: str, other: str) -> None:
    """Whatever has a name that AWS knows it by: CloudFormation's schema says which property."""
    names = names_of(assembly, one)
    assert {kind for kind, _ in names} >= {
        "stack",
        "export",
        "namespace",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
        "AWS::Logs::LogGroup",
        "AWS::Logs::MetricFilter",
        "AWS::Route53::RecordSet",
    }
    assert names & names_of(assembly, other) == set()


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_policy_selects_by_a_tag_what_is_another_environments(
    assembly: Path, one: str, other: str
) -> None:
    selected = selected_by(assembly, one)
    assert {key for key, _ in selected} == {"postern:cell", "postern:environment"}
    assert selected <= tags_of(assembly, one)
    assert selected & tags_of(assembly, other) == set()


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_policys_pattern_is_for_a_name_of_another_environment(
    assembly: Path, one: str, other: str
) -> None:
    patterns = patterns_of(assembly, one)
    assert f"postern/{one}/*" in patterns
    reached = {
        (pattern, name)
        for _, name in names_of(assembly, other)
        for pattern in patterns
        if fnmatch.fnmatchcase(name, pattern)
    }
    assert reached == set()


def test_no_regions_name_ends_another_ones() -> None:
    """Or postern-a-REGION could be two dashboards of an account: of a, and of a-b elsewhere."""
    regions = boto3.Session().get_available_regions("ec2")
    assert "us-east-1" in regions
    assert [(a, b) for a, b in permutations(regions, 2) if a.endswith(f"-{b}")] == []


def cdk_list(assembly: Path, *patterns: str) -> list[str]:
    """The stacks that the pinned CDK would deploy for these patterns."""
    listed = subprocess.run(
        [ROOT / "node_modules" / ".bin" / "cdk", "list", *patterns, "--app", assembly],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
            "CDK_DISABLE_VERSION_CHECK": "1",
            "CDK_DISABLE_CLI_TELEMETRY": "true",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.split(" ")[0] for line in listed.stdout.splitlines()]


def test_the_pattern_of_an_environment_is_for_no_other(assembly: Path) -> None:
    """What `cdk deploy 'example/*'` takes, of the real command line."""
    stacks = cdk_list(assembly, "example/*")
    assert len(stacks) == len(templates_in(assembly, "example"))
    assert {stack.partition("/")[0] for stack in stacks} == {"example"}
