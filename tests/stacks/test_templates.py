"""What holds for every template of every environment."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks

from tests.stacks.conftest import ENVIRONMENTS, ROOT, AssemblyOf, Synthesise, Templates

# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
TEMPLATE_BYTES = 1_000_000
RESOURCES = 500
MOST_ZONES = '["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1e", "us-east-1f"]'

# By CloudFormation; these belong to something that can be.
CANNOT_BE_TAGGED = {
    "AWS::EC2::Route",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::IAM::InstanceProfile",
    "AWS::IAM::Policy",
    "AWS::Logs::MetricFilter",
    "AWS::Route53::RecordSet",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "Custom::DkimKey",
    "Custom::ReverseDns",
}

CFN_LINT = Path(sysconfig.get_path("scripts")) / "cfn-lint"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_passes_cdk_nag(assembly_of: AssemblyOf, environment: str) -> None:
    """Synthesis raises on a finding that nobody acknowledged."""
    assert assembly_of(environment).templates


def test_a_finding_that_nobody_acknowledged_stops_synthesis(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    app = cdk.App(outdir=str(tmp_path), builtin_cloud_formation_validation=False)
    role = iam.Role(
        cdk.Stack(cdk.Stage(app, "stage"), "stack"),
        "Role",
        assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
    )
    role.add_to_policy(iam.PolicyStatement(actions=["s3:*"], resources=["*"]))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match=r"AwsSolutions-IAM5\[Action::s3:\*\]"):
        app.synth()


@pytest.mark.parametrize(
    "environment",
    # example has what the others have, and linting takes seconds.
    [pytest.param(e, marks=() if e == "example" else pytest.mark.slow) for e in ENVIRONMENTS],
)
def test_cfn_lint_finds_nothing(assembly_of: AssemblyOf, environment: str) -> None:
    templates = list(assembly_of(environment).folder.glob("**/*.template.json"))
    assert len(templates) >= 4
    lint = subprocess.run(
        # W3005: the CDK writes a DependsOn also where a reference implies it. W3010: availability
        # zones are settings, because looking them up would take an account.
        [CFN_LINT, "--ignore-checks", "W3005", "W3010", "--", *templates],
        check=False,
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_no_acknowledgement_covers_a_whole_stack(assembly_of: AssemblyOf) -> None:
    acknowledged = [
        construct
        for path in assembly_of("example").folder.glob("**/*.metadata.json")
        for construct, entries in json.loads(path.read_text(encoding="utf-8")).items()
        if any(entry["type"] == "aws:cdk:acknowledged-rules" for entry in entries)
    ]
    assert acknowledged
    for construct in acknowledged:
        _, _stage, _stack, *within = construct.split("/")
        assert within, construct


def test_no_private_key_is_in_any_template(example: Templates) -> None:
    """Neither a key nor an attribute, output or parameter that would carry one."""
    text = json.dumps(example)
    assert "BEGIN PRIVATE KEY" not in text
    assert "PrivateKeyPlaintext" not in text
    assert "{{resolve:secretsmanager" not in text


def test_synthesis_looks_nothing_up(assembly_of: AssemblyOf) -> None:
    manifests = list(assembly_of("example").folder.glob("**/manifest.json"))
    assert manifests
    for manifest in manifests:
        assert "missing" not in json.loads(manifest.read_text(encoding="utf-8"))


def test_the_largest_environment_is_far_within_cloudformations_limits(
    synthesise: Synthesise,
) -> None:
    for stack, template in synthesise(('["us-east-1a", "us-east-1b"]', MOST_ZONES)).items():
        assert len(json.dumps(template, indent=1)) < TEMPLATE_BYTES / 2, stack
        assert len(template["Resources"]) < RESOURCES / 2, stack


def test_everything_that_can_be_tagged_carries_the_environments_tags(example: Templates) -> None:
    for template in example.values():
        for logical_id, resource in template["Resources"].items():
            if resource["Type"] in CANNOT_BE_TAGGED:
                assert "Tags" not in resource["Properties"]
                continue
            for tags in _tags(resource):
                assert {"project": "postern"}.items() <= tags.items(), logical_id


def _tags(resource: dict[str, Any]) -> list[dict[str, str]]:
    """Each set of tags that CloudFormation puts on the resource and on what is made from it."""
    properties = resource["Properties"]
    sets = [properties.get("Tags", [])]
    if resource["Type"] == "AWS::EC2::LaunchTemplate":
        specifications = [
            *properties["TagSpecifications"],
            *properties["LaunchTemplateData"]["TagSpecifications"],
        ]
        sets = [specification["Tags"] for specification in specifications]
    return [{tag["Key"]: tag["Value"] for tag in tags} for tags in sets]


def test_a_wrong_setting_stops_synthesis_with_one_message(tmp_path: Path) -> None:
    """`cdk synth` runs this program: what it prints is what an operator sees."""
    folder = tmp_path / "environments"
    folder.mkdir()
    text = (ROOT / "environments" / "example.toml").read_text(encoding="utf-8")
    (folder / "prod.toml").write_text(text.replace('"t3.small"', '"t2.small"'), encoding="utf-8")
    app = subprocess.run(
        [sys.executable, ROOT / "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert app.returncode == 1
    assert (
        app.stderr.strip()
        .splitlines()[-1]
        .startswith('environments/prod.toml: host.instance_type: "t2.small" is too old')
    )
    assert "Traceback" not in app.stderr
