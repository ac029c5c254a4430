"""What is kept is encrypted, in every environment; a type that nobody judged yet fails."""

from typing import Any

import pytest

from stacks.mail_cell import ROOT_DEVICE
from tests.stacks.conftest import ENVIRONMENTS, AssemblyOf, resources

Template = dict[str, Any]
Properties = dict[str, Any]


def _is_encrypted_volume(settings: Properties, _template: Template) -> bool:
    return settings.get("Encrypted") is True and bool(settings.get("KmsKeyId"))


def _has_encrypted_devices_only(settings: Properties, template: Template) -> bool:
    """The root device among them: left out, the image would decide."""
    devices = settings["LaunchTemplateData"]["BlockDeviceMappings"]
    return ROOT_DEVICE in [device["DeviceName"] for device in devices] and all(
        _is_encrypted_volume(device["Ebs"], template) for device in devices
    )


def _is_under_a_key_of_our_own(settings: Properties, template: Template) -> bool:
    key, attribute = settings.get("KmsKeyId", {}).get("Fn::GetAtt", ("", ""))
    return attribute == "Arn" and key in resources(template, "AWS::KMS::Key")


def _is_under_a_key_for_logs(settings: Properties, template: Template) -> bool:
    """A key that the logs service may use for this log group: otherwise its creation fails."""
    if not _is_under_a_key_of_our_own(settings, template):
        return False
    key = template["Resources"][settings["KmsKeyId"]["Fn::GetAtt"][0]]["Properties"]
    return any(
        str(statement["Principal"].get("Service", "")).startswith("logs.")
        and statement["Condition"]["ArnEquals"]["kms:EncryptionContext:aws:logs:arn"].endswith(
            f":log-group:{settings['LogGroupName']}"
        )
        for statement in key["KeyPolicy"]["Statement"]
    )


def _is_under_a_key_for_alarms(settings: Properties, template: Template) -> bool:
    """A key that CloudWatch may use: otherwise no alarm is told, and nothing says so."""
    key, attribute = settings.get("KmsMasterKeyId", {}).get("Fn::GetAtt", ("", ""))
    if attribute != "Arn" or key not in resources(template, "AWS::KMS::Key"):
        return False
    policy = template["Resources"][key]["Properties"]["KeyPolicy"]["Statement"]
    return any(
        statement["Principal"].get("Service") == "cloudwatch.amazonaws.com" for statement in policy
    )


def _keeps_nothing_in_its_environment(settings: Properties, _template: Template) -> bool:
    return "Environment" not in settings


JUDGED = {
    "AWS::EC2::LaunchTemplate": _has_encrypted_devices_only,
    "AWS::EC2::Volume": _is_encrypted_volume,
    "AWS::Lambda::Function": _keeps_nothing_in_its_environment,
    "AWS::Logs::LogGroup": _is_under_a_key_for_logs,
    "AWS::SNS::Topic": _is_under_a_key_for_alarms,
    "AWS::SecretsManager::Secret": _is_under_a_key_of_our_own,
}
KEEPS_NO_DATA = {
    "AWS::AutoScaling::AutoScalingGroup",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::EC2::EIP",
    "AWS::EC2::FlowLog",  # what it writes is in its log group
    "AWS::EC2::InternetGateway",
    "AWS::EC2::NatGateway",
    "AWS::EC2::Route",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::IAM::InstanceProfile",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::KMS::Key",
    "AWS::Logs::MetricFilter",
    "AWS::Route53::RecordSet",  # public by nature
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "Custom::DkimKey",
    "Custom::ReverseDns",
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_whatever_keeps_data_is_encrypted(assembly_of: AssemblyOf, environment: str) -> None:
    judged = set()
    for template in assembly_of(environment).templates.values():
        for logical_id, resource in template["Resources"].items():
            kind = resource["Type"]
            if kind in KEEPS_NO_DATA:
                continue
            assert kind in JUDGED, f"{logical_id}: say in this file how a {kind} is encrypted"
            assert JUDGED[kind](resource["Properties"], template), logical_id
            judged.add(kind)
    assert judged == set(JUDGED)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_key_is_rotated(assembly_of: AssemblyOf, environment: str) -> None:
    for template in assembly_of(environment).templates.values():
        for key in resources(template, "AWS::KMS::Key").values():
            assert key["Properties"]["EnableKeyRotation"] is True
