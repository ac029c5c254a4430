"""Who needs each permission that a role has: proven in the lab, or named with AWS's page.

`PROVEN` is tried against the emulated AWS (tests/lab/cloud/test_permissions.py): without the
permission exactly these steps are denied. `DOCUMENTED` is what only the real AWS's own programs
call, which the lab does not have.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.stacks.conftest import Templates, resources

HOST = "mail host"
KEY_FUNCTION = "DKIM key function"
DNS_FUNCTION = "reverse DNS function"
FLOW_LOG = "flow log"

# By the path of the role's construct, a zone's name left out.
_ROLES = {
    ("MailHosts", "{zone}Role"): HOST,
    ("SendingIdentity", "DkimHandlerRole"): KEY_FUNCTION,
    ("SendingIdentity", "ReverseDnsHandlerRole"): DNS_FUNCTION,
    ("Network", "FlowLogRole"): FLOW_LOG,
}


class Permission(NamedTuple):
    """An action that a role's statement allows; `sid` is empty where the statement has none."""

    role: str
    sid: str
    action: str


PROVEN: Mapping[Permission, frozenset[str]] = {
    Permission(role, sid, action): frozenset(steps)
    for (role, sid, action), steps in {
        (HOST, "FetchHostFiles", "s3:GetObject"): ["fetch the files"],
        (HOST, "ReadSigningKey", "secretsmanager:GetSecretValue"): ["fetch the key"],
        (HOST, "DecryptSigningKey", "kms:Decrypt"): ["fetch the key"],
        (HOST, "AttachOwnQueue", "ec2:AttachVolume"): ["attach the queue"],
        (HOST, "AttachToOwnHost", "ec2:AttachVolume"): ["attach the queue"],
        (HOST, "", "cloudformation:SignalResource"): ["signal"],
        (KEY_FUNCTION, "MakeKeyPairs", "kms:GenerateDataKeyPair"): ["make a key"],
        (KEY_FUNCTION, "EncryptSecrets", "kms:GenerateDataKey"): ["make a key"],
        (KEY_FUNCTION, "EncryptSecrets", "kms:Decrypt"): ["find the key"],
        (KEY_FUNCTION, "", "secretsmanager:GetSecretValue"): ["make a key", "find the key"],
        (KEY_FUNCTION, "", "secretsmanager:PutSecretValue"): ["make a key"],
        (DNS_FUNCTION, "SetReverseDns", "ec2:ModifyAddressAttribute"): ["set it"],
        (DNS_FUNCTION, "GiveUpReverseDns", "ec2:ResetAddressAttribute"): ["give it up"],
        (DNS_FUNCTION, "WatchReverseDns", "ec2:DescribeAddressesAttribute"): [
            "set it",
            "give it up",
        ],
    }.items()
}

_DOCS = "https://docs.aws.amazon.com"
_CLOUDWATCH_AGENT = (
    "CloudWatch agent: a stream per file, and its lines",
    f"{_DOCS}/AmazonCloudWatch/latest/monitoring/create-iam-roles-for-cloudwatch-agent.html",
)
_SSM_AGENT = (
    "SSM agent: tells Systems Manager that the host is there",
    f"{_DOCS}/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html",
)
_SSM_CHANNEL = (
    "SSM agent: Session Manager's and Run Command's channels",
    f"{_DOCS}/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html",
)
_LAMBDA = (
    "Lambda service: what a function prints",
    f"{_DOCS}/lambda/latest/dg/monitoring-cloudwatchlogs.html",
)
_FLOW_LOGS = (
    "VPC Flow Logs service: a stream per network interface",
    f"{_DOCS}/vpc/latest/userguide/flow-logs-iam-role.html",
)

DOCUMENTED: Mapping[Permission, tuple[str, str]] = {
    Permission(HOST, "WriteMailLog", "logs:CreateLogStream"): _CLOUDWATCH_AGENT,
    Permission(HOST, "WriteMailLog", "logs:PutLogEvents"): _CLOUDWATCH_AGENT,
    Permission(HOST, "BeReachedBySystemsManager", "ssm:UpdateInstanceInformation"): _SSM_AGENT,
    **{
        Permission(HOST, "BeReachedBySystemsManager", f"ssmmessages:{action}"): _SSM_CHANNEL
        for action in (
            "CreateControlChannel",
            "CreateDataChannel",
            "OpenControlChannel",
            "OpenDataChannel",
        )
    },
    **{
        Permission(function, "", action): _LAMBDA
        for function in (KEY_FUNCTION, DNS_FUNCTION)
        for action in ("logs:CreateLogStream", "logs:PutLogEvents")
    },
    **{
        Permission(FLOW_LOG, "", f"logs:{action}"): _FLOW_LOGS
        for action in ("CreateLogStream", "DescribeLogStreams", "PutLogEvents")
    },
}


def role_named(stack: str, logical_id: str) -> str:
    """What this module calls the role; raises KeyError for one that it does not know."""
    path = re.sub(r"[0-9A-F]{8}$", "", logical_id)
    return _ROLES[stack, re.sub(r"^[a-z]+\d[a-z](?=Role$)", "{zone}", path)]


def permissions(templates: Templates) -> Iterator[tuple[Permission, dict[str, Any]]]:
    """Every permission of every role, with the statement that gives it."""
    for stack, template in templates.items():
        for policy in resources(template, "AWS::IAM::Policy").values():
            properties = policy["Properties"]
            (role,) = properties["Roles"]
            for statement in properties["PolicyDocument"]["Statement"]:
                for action in listed(statement["Action"]):
                    name = role_named(stack, role["Ref"])
                    yield Permission(name, statement.get("Sid", ""), action), statement


def listed(value: str | list[str]) -> list[str]:
    """An Action or a Resource, which a policy writes alone when there is one."""
    return value if isinstance(value, list) else [value]
