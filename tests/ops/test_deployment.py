"""What is deployed: only of the environment's own account, and never made up."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError
from botocore.stub import Stubber

from ops.command_lines import cdk_deploy, make_diff, postern
from ops.deployment import CannotTell, Deployment, NotDeployed
from stacks.environment import InvalidEnvironment, load
from tests.ops.deployed import write_environment
from tests.stacks.conftest import ROOT

ENVIRONMENTS = ROOT / "environments"
ACCOUNT = "111122223333"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(load(ENVIRONMENTS / "example.toml"))


def stubbed(deployment: Deployment, service: str) -> Stubber:
    stubber = Stubber(deployment.client(service))
    stubber.activate()
    return stubber


def test_an_environment_that_does_not_exist_is_said_before_aws_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InvalidEnvironment, match="nowhere"):
        Deployment.load("nowhere", folder=tmp_path)


def test_an_environment_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "prod.toml").mkdir()
    with pytest.raises(CannotTell, match=r"prod\.toml could not be read"):
        Deployment.load("prod", folder=tmp_path)


def test_with_a_suffix_it_is_the_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Deployment, "_require_its_account", lambda _deployment: None)
    write_environment(tmp_path, name="dev")
    for suffix, name in [("anna", "dev-anna"), ("", "dev")]:
        monkeypatch.setenv("POSTERN_SUFFIX", suffix)
        deployment = Deployment.load("dev", folder=tmp_path)
        assert deployment.stack_name("Network") == f"postern-{name}-Network"
    monkeypatch.setenv("POSTERN_SUFFIX", "Anna")
    with pytest.raises(InvalidEnvironment, match=r"dev\.toml: POSTERN_SUFFIX: "):
        Deployment.load("dev", folder=tmp_path)


def test_the_commands_that_are_told_are_right_for_a_sandbox_too(tmp_path: Path) -> None:
    file = write_environment(tmp_path, name="dev")
    shared, sandbox = load(file), load(file, suffix="anna")
    assert cdk_deploy(shared) == "cdk --context environment=dev deploy 'dev/*'"
    assert cdk_deploy(sandbox) == (
        "POSTERN_SUFFIX=anna cdk --context environment=dev deploy 'dev-anna/*'"
    )
    assert cdk_deploy(sandbox, "Network").endswith(" deploy dev-anna/Network")
    assert make_diff(shared) == "make diff ENV=dev"
    assert make_diff(sandbox) == "POSTERN_SUFFIX=anna make diff ENV=dev"
    assert postern(shared, "doctor") == "postern doctor --environment dev"
    assert postern(sandbox, "doctor") == "POSTERN_SUFFIX=anna postern doctor --environment dev"


def test_no_message_has_a_command_of_its_own() -> None:
    """It would be wrong for a sandbox."""
    for path in (ROOT / "ops").rglob("*.py"):
        if path.name != "command_lines.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(
                r"environment=\{|ENV=\{|--environment \{(?!settings\.file)", text
            ), path


def test_credentials_of_another_account_are_refused(deployment: Deployment) -> None:
    sts = stubbed(deployment, "sts")
    sts.add_response("get_caller_identity", {"Account": "999999999999"})
    with pytest.raises(CannotTell, match=rf"999999999999, and .*example\.toml says {ACCOUNT}"):
        deployment._require_its_account()


def test_without_credentials_nothing_can_be_told(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise NoCredentialsError

    monkeypatch.setattr(deployment.client("sts"), "get_caller_identity", refuse)
    with pytest.raises(CannotTell, match="sts:GetCallerIdentity: Unable to locate credentials"):
        deployment._require_its_account()


def test_a_stack_that_is_not_there_is_not_a_refusal(deployment: Deployment) -> None:
    cloudformation = stubbed(deployment, "cloudformation")
    cloudformation.add_client_error(
        "describe_stacks", "ValidationError", "Stack with id x does not exist"
    )
    with pytest.raises(NotDeployed, match=r"postern-example-Network .*deploy 'example/\*'"):
        deployment.stack("Network")
    cloudformation.add_client_error("describe_stacks", "AccessDenied", "not authorized")
    with pytest.raises(CannotTell, match=r"DescribeStacks: .*not authorized") as refused:
        deployment.stack("Network")
    assert not isinstance(refused.value, NotDeployed)


def test_the_hosts_in_service_come_by_zone(deployment: Deployment) -> None:
    _deployed(deployment)
    autoscaling, ec2 = stubbed(deployment, "autoscaling"), stubbed(deployment, "ec2")
    groups = [
        _group(_instance("i-b", "us-east-1b", "InService")),
        _group(
            _instance("i-old", "us-east-1a", "Terminating"),
            _instance("i-a", "us-east-1a", "InService"),
        ),
    ]
    autoscaling.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": groups})
    launched = datetime(2026, 11, 1, tzinfo=UTC)
    ec2.add_response(
        "describe_instances",
        {
            "Reservations": [
                {"Instances": [{"InstanceId": name, "LaunchTime": launched}]}
                for name in ("i-b", "i-a")
            ]
        },
        {"InstanceIds": ["i-b", "i-a"]},
    )
    hosts = deployment.hosts()
    assert [(host.instance_id, host.zone) for host in hosts] == [
        ("i-a", "us-east-1a"),
        ("i-b", "us-east-1b"),
    ]


def test_a_stack_without_hosts_does_not_have_the_accounts_other_ones(
    deployment: Deployment,
) -> None:
    _deployed(deployment, "AWS::EC2::SecurityGroup")
    with pytest.raises(CannotTell, match="no Auto Scaling group"):
        deployment.hosts()


def test_no_host_in_service_is_not_a_list_of_none(deployment: Deployment) -> None:
    _deployed(deployment)
    autoscaling = stubbed(deployment, "autoscaling")
    groups = [_group(_instance("i-new", "us-east-1a", "Pending"))]
    autoscaling.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": groups})
    with pytest.raises(CannotTell, match="No mail host of example is in service"):
        deployment.hosts()


def _deployed(deployment: Deployment, kind: str = "AWS::AutoScaling::AutoScalingGroup") -> None:
    cloudformation = stubbed(deployment, "cloudformation")
    stack = {
        "StackName": "postern-example-MailHosts",
        "StackStatus": "UPDATE_COMPLETE",
        "CreationTime": datetime(2026, 1, 1, tzinfo=UTC),
    }
    cloudformation.add_response("describe_stacks", {"Stacks": [stack]})
    resource = {
        "LogicalResourceId": "MailHost",
        "PhysicalResourceId": "group",
        "ResourceType": kind,
        "LastUpdatedTimestamp": datetime(2026, 1, 1, tzinfo=UTC),
        "ResourceStatus": "CREATE_COMPLETE",
    }
    cloudformation.add_response("list_stack_resources", {"StackResourceSummaries": [resource]})


def _group(*instances: dict[str, Any]) -> dict[str, Any]:
    return {
        "AutoScalingGroupName": "group",
        "MinSize": 1,
        "MaxSize": 1,
        "DesiredCapacity": 1,
        "DefaultCooldown": 0,
        "AvailabilityZones": ["us-east-1a"],
        "HealthCheckType": "EC2",
        "CreatedTime": datetime(2026, 1, 1, tzinfo=UTC),
        "Instances": list(instances),
    }


def _instance(name: str, zone: str, state: str) -> dict[str, Any]:
    return {
        "InstanceId": name,
        "AvailabilityZone": zone,
        "LifecycleState": state,
        "HealthStatus": "Healthy",
        "ProtectedFromScaleIn": False,
    }
