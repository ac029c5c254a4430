"""Why the roles of the delivery pipeline are allowed what CDK Pipelines allows them.

CDK Pipelines writes these policies. Each wildcard in them has a reason here, or synthesis stops.
"""

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import IConstruct

from stacks.acknowledgement import acknowledge

_ARTIFACTS = "CodePipeline names an artifact when it makes it, and the bucket holds artifacts only."
# By what the finding begins with.
_REASONS = {
    "Action::kms:": "The CDK's grant on a key: variants of one operation, and the key is that of "
    "what the role hands on.",
    "Action::s3:": "The CDK's grant on a bucket: variants of one operation, on artifacts only.",
    "Resource::<Artifacts": _ARTIFACTS,
    "Resource::arn:aws:s3:::postern-delivery-support-": _ARTIFACTS,
    "Resource::arn:aws:codebuild:": "The CDK lets every build write test reports; none does, and "
    "reports are all it could write.",
    "Resource::arn:aws:logs:": "The CDK lets every build write its log under CodeBuild's default "
    "name; ours write to /postern/delivery/builds instead.",
    "Resource::<PipelinePipelinesSecurityCheckCDKPipelinesAutoApprove": "The CDK's grant on its "
    "function that approves what broadens nothing: each version of it.",
}
# By the path of the role within the stack: what "*" stands for.
_EVERYTHING = {
    "CodePipeline/Role": "The key of a support stack is known by its alias only, since it is in "
    "another Region; that key's own policy decides, and names this account and the deploying role.",
    "Pipeline/UpdatePipeline/SelfMutation/Role": "DescribeStacks and ListBucket only read, and "
    "assuming is bound to this account's bootstrap roles by their tag: deploying this stack is the "
    "step's work.",
    "Pipeline/Assets/FileRole": "The CDK lets the role that publishes assets start and stop builds "
    "of this account, from when it ran them itself; keep nothing but delivery in this account.",
    "Pipeline/PipelinesSecurityCheck/CDKPipelinesAutoApprove/ServiceRole": "The condition admits "
    "pipelines with the CDK's tag, which this one has; the function approves what it is told to, "
    "and only the permissions check may call it.",
    "Pipeline/PipelinesSecurityCheck/CDKSecurityCheck/Role": "The condition admits roles that "
    "carry the bootstrap's tag, and those roles' own trust names this account: it is what `cdk "
    "diff` reads the deployed templates with.",
}
_BASIC_EXECUTION = "arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"


def explain_wildcards(stack: cdk.Stack) -> None:
    """Acknowledge the wildcards that have a reason here; cdk-nag reports any other."""
    approver = "Pipeline/PipelinesSecurityCheck/CDKPipelinesAutoApprove/ServiceRole"
    acknowledge(
        _within(stack, approver),
        f"AwsSolutions-IAM4[Policy::{_BASIC_EXECUTION}]",
        "The CDK's own function, whose role cannot be replaced: it may also write to other "
        "functions' logs.",
    )
    for construct in stack.node.find_all():
        if isinstance(construct, iam.Policy):
            role = construct.node.scope
            assert role is not None
            path = role.node.path.removeprefix(f"{stack.node.path}/")
            for finding in sorted(_findings(stack.resolve(construct.document))):
                if reason := _reason(finding, path):
                    acknowledge(role, f"AwsSolutions-IAM5[{finding}]", reason)


def _within(stack: cdk.Stack, path: str) -> IConstruct:
    construct: IConstruct = stack
    for part in path.split("/"):
        construct = construct.node.find_child(part)
    return construct


def _reason(finding: str, role: str) -> str | None:
    if finding == "Resource::*" or finding.startswith("Resource::arn:*:iam::"):
        return _EVERYTHING.get(role)
    return next((reason for start, reason in _REASONS.items() if finding.startswith(start)), None)


def _findings(document: dict[str, Any]) -> set[str]:
    """cdk-nag's words for each action and resource with a wildcard."""
    return {
        f"{element}::{text}"
        for statement in document["Statement"]
        for element in ("Action", "Resource")
        for value in _listed(statement[element])
        if "*" in (text := _text(value))
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    """As cdk-nag writes a value with deploy-time parts."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(map(_text, parts))
    if "Fn::GetAtt" in value:
        return f"<{'.'.join(value['Fn::GetAtt'])}>"
    return f"<{value['Ref']}>" if "Ref" in value else json.dumps(value)
