"""Rules of a security group that are resources of their own, which ministack 1.5.33 has as actions.

AWS::EC2::SecurityGroupIngress and AWS::EC2::SecurityGroupEgress, between security groups. The first
egress rule takes the place of the one that EC2 gives every new group, as CloudFormation has it:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ec2-securitygroupegress.html
"""

import functools
import uuid
from typing import Any

from lab.cloud.emulator.upstream import (
    RESOURCE_TYPES,
    Properties,
    Resource,
    ec2,
    provisioners,
    refuse_unknown_properties,
)

_KINDS = {
    "AWS::EC2::SecurityGroupIngress": ("IpPermissions", "SourceSecurityGroupId"),
    "AWS::EC2::SecurityGroupEgress": ("IpPermissionsEgress", "DestinationSecurityGroupId"),
}
_PROPERTIES = {"Description", "FromPort", "GroupId", "IpProtocol", "ToPort"}


def install() -> None:
    for of_type, (permissions, other) in _KINDS.items():
        RESOURCE_TYPES[of_type] = {
            "create": functools.partial(_create, of_type, permissions, other),
            "update": functools.partial(_update, of_type, permissions, other),
            "delete": functools.partial(_delete, permissions),
        }


def _create(
    of_type: str,
    permissions: str,
    other: str,
    _logical_id: str,
    properties: Properties,
    _stack_name: str,
) -> Resource:
    refuse_unknown_properties(of_type, properties, _PROPERTIES | {other})
    group = ec2._security_groups[properties["GroupId"]]
    if permissions == "IpPermissionsEgress":
        group[permissions] = [rule for rule in group[permissions] if rule["IpProtocol"] != "-1"]
    (rule,) = provisioners._ec2_sg_permissions([properties])
    rule_id = f"sgr-{uuid.uuid4().hex[:17]}"
    group[permissions].append({**rule, "SecurityGroupRuleId": rule_id})
    return rule_id, {"Id": rule_id}


def _update(
    of_type: str,
    permissions: str,
    other: str,
    physical_id: str,
    old: Properties,
    new: Properties,
    stack_name: str,
) -> Resource:
    if old == new:
        return physical_id, {"Id": physical_id}
    # A replacement: the old one goes in the cleanup.
    return _create(of_type, permissions, other, "", new, stack_name)


def _delete(permissions: str, physical_id: str, properties: Properties) -> None:
    group: dict[str, Any] | None = ec2._security_groups.get(properties["GroupId"])
    if group is not None:
        group[permissions] = [
            rule for rule in group[permissions] if rule.get("SecurityGroupRuleId") != physical_id
        ]
